"""Where tasks run: in containers or as processes of this host, behind one interface (base.Runtime)."""
