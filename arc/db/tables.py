"""Tables of the metadata database. Each change is a step in arc/db/migrations/versions.

Instants are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Integer, MetaData, String, Table, Text

REVISION = "0002"  # the newest step; a database that has it needs no migration

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

compaction_jobs = Table(
    "compaction_jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cycle_id", Integer, nullable=False),
    Column("database", String(64), nullable=False),
    Column("measurement", String(128), nullable=False),
    Column("tier", String(10), nullable=False),  # hourly or daily
    Column("status", String(10), nullable=False),  # running, completed, failed
    Column("files_compacted", Integer, nullable=False),
    Column("files_created", Integer, nullable=False),
    Column("bytes_before", BigInteger, nullable=False),
    Column("bytes_after", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False, index=True),
    Column("completed_at", BigInteger),
    Column("error", Text),  # also of a completed job: which files were left out
    sqlite_autoincrement=True,
)

retention_policies = Table(
    "retention_policies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("database", String(64), nullable=False),
    Column("measurement", String(128)),  # null: all of the database
    Column("retention_days", Integer, nullable=False),
    Column("buffer_days", Integer, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("last_execution_at", BigInteger),
    Column("last_execution_status", String(10)),
    Column("last_deleted_count", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

retention_executions = Table(
    "retention_executions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("policy_id", ForeignKey("retention_policies.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("executed_at", BigInteger, nullable=False),
    Column("status", String(10), nullable=False),  # completed, failed
    Column("cutoff_at", BigInteger, nullable=False),
    Column("deleted_count", BigInteger, nullable=False),
    Column("files_deleted", Integer, nullable=False),
    Column("duration_ms", Float, nullable=False),
    Column("error_message", Text),
    sqlite_autoincrement=True,
)

continuous_queries = Table(
    "continuous_queries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("database", String(64), nullable=False),
    Column("source_measurement", String(128), nullable=False),
    Column("destination_measurement", String(128), nullable=False),
    Column("query", Text, nullable=False),
    Column("interval", String(20), nullable=False),  # as given: 30s, 5m, 1h, 1d
    Column("tag_columns", Text, nullable=False),  # a JSON list
    Column("retention_days", Integer),
    Column("delete_source_after_days", Integer),
    Column("is_active", Boolean, nullable=False),
    Column("last_execution_at", BigInteger),
    Column("last_execution_status", String(10)),
    Column("last_processed_at", BigInteger),
    Column("last_records_written", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

continuous_query_executions = Table(
    "continuous_query_executions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("query_id", ForeignKey("continuous_queries.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("execution_id", String(20), nullable=False),
    Column("executed_at", BigInteger, nullable=False),
    Column("status", String(10), nullable=False),  # completed, failed
    Column("start_at", BigInteger, nullable=False),  # the window: start_at <= time < end_at
    Column("end_at", BigInteger, nullable=False),
    Column("records_written", BigInteger, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("error_message", Text),
    sqlite_autoincrement=True,
)
