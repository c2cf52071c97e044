"""Alembic steps of the metadata database. A released step is never edited."""
