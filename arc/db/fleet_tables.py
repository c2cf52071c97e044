"""Tables of the fleet: machines, what they are known by, what was run on them. Instants are microseconds, UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from arc.db.tables import metadata

agents = Table(
    "agents",
    metadata,
    Column("agent_id", String(255), primary_key=True),
    Column("project", String(100), nullable=False),
    Column("organization", String(100), nullable=False),
    Column("facts", Text, nullable=False),  # JSON object
    Column("display_name", Text, nullable=False),  # tag `name`, else fact `hostname`, else the id
    Column("is_online", Boolean, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("updated_with", String(64), nullable=False),  # id of the last registration
    Column("updated_by", String(255), nullable=False),  # name of the server that processed it
    Column("token_id", Integer),  # the credential that speaks for it
    Column("epoch", String(64), nullable=False),  # of the agent's spool
    Column("last_seq", BigInteger, nullable=False),  # of that epoch: messages up to here have had their effect
    Index("ix_agents_project_display_name", "project", "display_name", "agent_id"),
    Index("ix_agents_display_name", "display_name", "agent_id"),
    Index("ix_agents_is_online_last_seen_at", "is_online", "last_seen_at"),
)

# The filter language compares texts and numbers: both are made when a fact or a tag is stored (arc/fleet/values.py).
agent_facts = Table(
    "agent_facts",
    metadata,
    Column("agent_id", ForeignKey("agents.agent_id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("number", Float),
)

agent_tags = Table(
    "agent_tags",
    metadata,
    Column("agent_id", ForeignKey("agents.agent_id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("number", Float),
)

agent_events = Table(  # online, offline, enrolled, deleted, ...
    "agent_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("agent_id", String(255), nullable=False),  # no reference: the history outlives the agent
    Column("event", String(20), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Index("ix_agent_events_agent_id", "agent_id", "id"),
    Index("ix_agent_events_at", "at"),
    sqlite_autoincrement=True,
)

executions = Table(  # "jobs" of the remote agents API
    "executions",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("request_id", String(36), nullable=False, unique=True),
    Column("version", Integer, nullable=False),
    Column("sender", String(255), nullable=False),
    Column("agent_id", String(255), nullable=False),  # no reference: jobs outlive the agent
    Column("timeout_s", Integer, nullable=False),
    Column("plugin", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("status", Integer, nullable=False),  # rank: 1 queued, 2 executing, 3 failed, 4 complete
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False, index=True),
    Column("deliver_until", BigInteger, nullable=False),  # queued beyond this, it fails
    Column("received_at", BigInteger),  # the agent has said that it has it
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("exit_code", Integer),
    Column("cancel_requested_at", BigInteger),
    Column("project", String(100), nullable=False),
    Column("user_id", String(100), nullable=False),
    Column("user", Text, nullable=False),  # JSON object
    Index("ix_executions_agent_id", "agent_id", "seq"),
    Index("ix_executions_agent_id_status", "agent_id", "status"),
    Index("ix_executions_project", "project", "seq"),
    Index("ix_executions_status", "status", "created_at"),
    sqlite_autoincrement=True,
)

execution_parts = Table(
    "execution_parts",
    metadata,
    Column("request_id", ForeignKey("executions.request_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content", Text, nullable=False),
    Column("is_final", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_execution_parts_is_final_created_at", "is_final", "created_at"),
)

execution_logs = Table(  # all parts of an ended execution in one
    "execution_logs",
    metadata,
    Column("request_id", ForeignKey("executions.request_id", ondelete="CASCADE"), primary_key=True),
    Column("content", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("id", String(64), primary_key=True),  # SHA-256 of the secret in hex
    Column("agent_id", String(255)),  # null: the machine names itself
    Column("project", String(100)),
    Column("organization", String(100)),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("created_by", String(100), nullable=False),
)

agent_nodes = Table(  # what the action engine of an agent said of itself last
    "agent_nodes",
    metadata,
    Column("agent_id", ForeignKey("agents.agent_id", ondelete="CASCADE"), primary_key=True),
    Column("report", Text, nullable=False),  # JSON object: agent, datastore, shards, kinds
    Column("observed_at", BigInteger, nullable=False),
)

agent_actions = Table(  # copies of the actions of agents, and those an agent has yet to be told of
    "agent_actions",
    metadata,
    Column("number", Integer, primary_key=True),  # order in which the server learned of them
    Column("agent_id", ForeignKey("agents.agent_id", ondelete="CASCADE"), nullable=False),
    Column("action_id", String(36), nullable=False),
    Column("seq", BigInteger),  # order of the agent; null: it is not known to have it
    Column("revision", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", String(10), nullable=False),  # PENDING, NEW, RUNNING, DONE, FAILED, LOST
    Column("finished_at", BigInteger),
    Column("info", Text, nullable=False),  # JSON object as clients see it: action, history
    Column("request", Text),  # JSON object: what the agent is to be told; null once it knows
    Column("cancel_reason", Text),  # the agent is to be told that, too; null once it knows
    Column("attempts", Integer, nullable=False),
    Column("handed_at", BigInteger),  # when the agent was first told of it, or last spoke of it; null: never
    Index("ix_agent_actions_agent_id_action_id", "agent_id", "action_id", unique=True),
    Index("ix_agent_actions_agent_id_finished_at", "agent_id", "finished_at"),
    Index("ix_agent_actions_finished_at", "finished_at"),
    sqlite_autoincrement=True,
)
