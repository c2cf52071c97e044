"""Upkeep of metrics: compaction jobs, retention policies, continuous queries, and what they did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "compaction_jobs",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("cycle_id", sa.Integer, nullable=False),
        sa.Column("database", sa.String(64), nullable=False),
        sa.Column("measurement", sa.String(128), nullable=False),
        sa.Column("tier", sa.String(10), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("files_compacted", sa.Integer, nullable=False),
        sa.Column("files_created", sa.Integer, nullable=False),
        sa.Column("bytes_before", sa.BigInteger, nullable=False),
        sa.Column("bytes_after", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_compaction_jobs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_compaction_jobs_started_at", "compaction_jobs", ["started_at"])
    op.create_table(
        "retention_policies",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("database", sa.String(64), nullable=False),
        sa.Column("measurement", sa.String(128)),
        sa.Column("retention_days", sa.Integer, nullable=False),
        sa.Column("buffer_days", sa.Integer, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("last_execution_at", sa.BigInteger),
        sa.Column("last_execution_status", sa.String(10)),
        sa.Column("last_deleted_count", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_retention_policies"),
        sa.UniqueConstraint("name", name="uq_retention_policies_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "retention_executions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("policy_id", sa.Integer, nullable=False),
        sa.Column("executed_at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("cutoff_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_count", sa.BigInteger, nullable=False),
        sa.Column("files_deleted", sa.Integer, nullable=False),
        sa.Column("duration_ms", sa.Float, nullable=False),
        sa.Column("error_message", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_retention_executions"),
        sa.ForeignKeyConstraint(
            ["policy_id"], ["retention_policies.id"], name="fk_retention_executions_policy_id", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_retention_executions_policy_id", "retention_executions", ["policy_id"])
    op.create_table(
        "continuous_queries",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("database", sa.String(64), nullable=False),
        sa.Column("source_measurement", sa.String(128), nullable=False),
        sa.Column("destination_measurement", sa.String(128), nullable=False),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("interval", sa.String(20), nullable=False),
        sa.Column("tag_columns", sa.Text, nullable=False),
        sa.Column("retention_days", sa.Integer),
        sa.Column("delete_source_after_days", sa.Integer),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("last_execution_at", sa.BigInteger),
        sa.Column("last_execution_status", sa.String(10)),
        sa.Column("last_processed_at", sa.BigInteger),
        sa.Column("last_records_written", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_continuous_queries"),
        sa.UniqueConstraint("name", name="uq_continuous_queries_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "continuous_query_executions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("query_id", sa.Integer, nullable=False),
        sa.Column("execution_id", sa.String(20), nullable=False),
        sa.Column("executed_at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("start_at", sa.BigInteger, nullable=False),
        sa.Column("end_at", sa.BigInteger, nullable=False),
        sa.Column("records_written", sa.BigInteger, nullable=False),
        sa.Column("duration_s", sa.Float, nullable=False),
        sa.Column("error_message", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_continuous_query_executions"),
        sa.ForeignKeyConstraint(
            ["query_id"], ["continuous_queries.id"], name="fk_continuous_query_executions_query_id", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_continuous_query_executions_query_id", "continuous_query_executions", ["query_id"])
