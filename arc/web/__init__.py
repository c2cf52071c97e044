"""HTTP: one blueprint per surface, plus access, errors, documentation and the server."""
