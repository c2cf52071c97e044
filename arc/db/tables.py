"""Tables of the metadata database. Each change is a step in arc/db/migrations/versions.

Instants are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, String, Table

REVISION = "0001"  # the newest step; a database that has it needs no migration

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("token_hash", String(64), nullable=False, unique=True),  # SHA-256 of the secret in hex
    Column("description", String(500), nullable=False),
    Column("permissions", String(200), nullable=False),  # comma-separated
    Column("created_at", BigInteger, nullable=False),
    Column("last_used_at", BigInteger),
    Column("enabled", Boolean, nullable=False),
    Column("expires_at", BigInteger),
    Column("project", String(100)),
    Column("organization", String(100)),
    sqlite_autoincrement=True,  # the id of a deleted token never comes back
)
