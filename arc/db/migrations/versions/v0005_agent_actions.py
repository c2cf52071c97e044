"""Agent actions: what the engine of each agent said last, copies of its actions, those it has yet to be told of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "agent_nodes",
        sa.Column("agent_id", sa.String(length=255), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("observed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.agent_id"], name="fk_agent_nodes_agent_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("agent_id", name="pk_agent_nodes"),
    )
    op.create_table(
        "agent_actions",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("agent_id", sa.String(length=255), nullable=False),
        sa.Column("action_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("info", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=True),
        sa.Column("cancel_reason", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("handed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.agent_id"], name="fk_agent_actions_agent_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_agent_actions"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_agent_actions_agent_id_action_id", "agent_actions", ["agent_id", "action_id"], unique=True)
    op.create_index("ix_agent_actions_agent_id_finished_at", "agent_actions", ["agent_id", "finished_at"], unique=False)
    op.create_index("ix_agent_actions_finished_at", "agent_actions", ["finished_at"], unique=False)
