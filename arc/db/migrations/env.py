"""Run by Alembic: migrate over the connection, and in the transaction, of arc.db.engine."""

from __future__ import annotations

from alembic import context

from arc.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,
)
context.run_migrations()
