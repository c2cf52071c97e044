"""Fleet: agents with facts and tags, what was run on them, enrolment; tokens that speak for one agent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("api_tokens", sa.Column("agent_id", sa.String(length=255), nullable=True))
    op.create_table(
        "agent_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("agent_id", sa.String(length=255), nullable=False),
        sa.Column("event", sa.String(length=20), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agent_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_agent_events_agent_id", "agent_events", ["agent_id", "id"], unique=False)
    op.create_index("ix_agent_events_at", "agent_events", ["at"], unique=False)
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.String(length=255), nullable=False),
        sa.Column("project", sa.String(length=100), nullable=False),
        sa.Column("organization", sa.String(length=100), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("is_online", sa.Boolean(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_with", sa.String(length=64), nullable=False),
        sa.Column("updated_by", sa.String(length=255), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=True),
        sa.Column("epoch", sa.String(length=64), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", name="pk_agents"),
    )
    op.create_index("ix_agents_display_name", "agents", ["display_name", "agent_id"], unique=False)
    op.create_index("ix_agents_is_online_last_seen_at", "agents", ["is_online", "last_seen_at"], unique=False)
    op.create_index("ix_agents_project_display_name", "agents", ["project", "display_name", "agent_id"], unique=False)
    op.create_table(
        "enrolment_tokens",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("agent_id", sa.String(length=255), nullable=True),
        sa.Column("project", sa.String(length=100), nullable=True),
        sa.Column("organization", sa.String(length=100), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=100), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_enrolment_tokens"),
    )
    op.create_index("ix_enrolment_tokens_created_at", "enrolment_tokens", ["created_at"], unique=False)
    op.create_table(
        "executions",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sender", sa.String(length=255), nullable=False),
        sa.Column("agent_id", sa.String(length=255), nullable=False),
        sa.Column("timeout_s", sa.Integer(), nullable=False),
        sa.Column("plugin", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deliver_until", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("cancel_requested_at", sa.BigInteger(), nullable=True),
        sa.Column("project", sa.String(length=100), nullable=False),
        sa.Column("user_id", sa.String(length=100), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_executions"),
        sa.UniqueConstraint("request_id", name="uq_executions_request_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_executions_agent_id", "executions", ["agent_id", "seq"], unique=False)
    op.create_index("ix_executions_agent_id_status", "executions", ["agent_id", "status"], unique=False)
    op.create_index("ix_executions_project", "executions", ["project", "seq"], unique=False)
    op.create_index("ix_executions_status", "executions", ["status", "created_at"], unique=False)
    op.create_index("ix_executions_updated_at", "executions", ["updated_at"], unique=False)
    op.create_table(
        "agent_facts",
        sa.Column("agent_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("number", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.agent_id"], name="fk_agent_facts_agent_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("agent_id", "name", name="pk_agent_facts"),
    )
    op.create_table(
        "agent_tags",
        sa.Column("agent_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("number", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.agent_id"], name="fk_agent_tags_agent_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("agent_id", "name", name="pk_agent_tags"),
    )
    op.create_table(
        "execution_logs",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["executions.request_id"], name="fk_execution_logs_request_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("request_id", name="pk_execution_logs"),
    )
    op.create_table(
        "execution_parts",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("is_final", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["executions.request_id"], name="fk_execution_parts_request_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("request_id", "number", name="pk_execution_parts"),
    )
    op.create_index(
        "ix_execution_parts_is_final_created_at", "execution_parts", ["is_final", "created_at"], unique=False
    )
