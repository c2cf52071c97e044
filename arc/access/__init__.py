"""Who may do what: tokens, permissions, identities."""
