"""Tables of the metadata database. Each change is a step in arc/db/migrations/versions.

Instants are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

REVISION = "0007"  # the newest step; a database that has it needs no migration

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
    Column("agent_id", String(255)),  # the one agent it speaks for
    sqlite_autoincrement=True,  # the id of a deleted token never comes back
)

audit = Table(  # who changed access, commanded machines or destroyed data
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("token_id", Integer),  # null: nobody had to show one; no foreign key, as it outlives the token
    Column("token_name", String(100), nullable=False),
    Column("client", String(64), nullable=False),  # address
    Column("request_id", String(128), nullable=False),
    Column("action", String(40), nullable=False),  # as token.create
    Column("object", String(255), nullable=False),  # id or name of what it was done to
    Column("details", Text, nullable=False),  # a small JSON object; never arguments or secrets
    Column("status", Integer, nullable=False),  # of the answer
    sqlite_autoincrement=True,
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

settings = Table(  # what the server must remember of itself: its node id, ...
    "settings",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)

# Jobs. A sealed column holds text of users that may contain a secret: it is encrypted when the job has secrets.

jobs = Table(
    "jobs",
    metadata,
    Column("seq", Integer, primary_key=True),  # order of submission; also the row id of the search index
    Column("id", String(32), nullable=False, unique=True),
    Column("parent_id", String(32)),  # the task whose sub-job this is
    Column("schedule_id", String(32)),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("tag_words", Text, nullable=False),  # tags as the search index wants them
    Column("state", String(10), nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("created_by", String(100), nullable=False),  # name of the token
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("delete_at", BigInteger, index=True),  # autoDelete
    Column("position", Integer, nullable=False),  # of the current top-level task, from 1; 0 while PENDING
    Column("task_count", Integer, nullable=False),
    Column("progress", Float, nullable=False),  # percent
    Column("document", Text, nullable=False),  # JSON as submitted, without secrets; sealed
    Column("secrets", Text, nullable=False),  # JSON, always encrypted; empty when there are none
    Column("variables", Text, nullable=False),  # JSON: results of tasks with `var`; sealed
    Column("result", Text),  # sealed
    Column("error", Text),  # sealed
    Index("ix_jobs_state_created_at", "state", "created_at"),
    Index("ix_jobs_parent_id", "parent_id"),
    sqlite_autoincrement=True,
)

tasks = Table(
    "tasks",
    metadata,
    Column("seq", Integer, primary_key=True),  # FIFO order within a queue and priority
    Column("id", String(32), nullable=False, unique=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", String(32)),  # the composite task it is a child of
    Column("subjob_id", String(32)),
    Column("child_index", Integer),  # place among the children of its parent
    Column("position", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("queue", Text),
    Column("priority", Integer, nullable=False),
    Column("runtime", String(10), nullable=False),  # container, process, none (composite)
    Column("created_at", BigInteger, nullable=False),
    Column("available_at", BigInteger, nullable=False),  # a retry with delay waits until then, PENDING
    Column("scheduled_at", BigInteger),
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("node_id", String(64)),
    Column("claim_id", String(32)),  # of one delivery: a report with another one is too late
    Column("lease_until", BigInteger),
    Column("redelivered", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),  # retries before this record
    Column("progress", Float, nullable=False),
    Column("definition", Text, nullable=False),  # JSON, evaluated, defaults merged; sealed
    Column("result", Text),  # sealed
    Column("error", Text),  # sealed
    Column("size", Integer),  # of a composite: number of children
    Column("completions", Integer),  # of a composite: children that ended
    Index("ix_tasks_claim", "state", "queue", "runtime", "priority", "seq"),
    Index("ix_tasks_job_id", "job_id", "position"),
    Index("ix_tasks_parent_id", "parent_id"),
    Index("ix_tasks_node_id", "state", "node_id"),
    Index("ix_tasks_state_available_at", "state", "available_at"),
    Index("ix_tasks_state_lease_until", "state", "lease_until"),
    sqlite_autoincrement=True,
)

job_events = Table(  # every change of a state
    "job_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("task_id", String(32)),  # null: the job itself
    Column("old_state", String(10)),  # null: it was created
    Column("new_state", String(10), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("node_id", String(64)),
    Column("reason", Text),  # in our words, never a user's
    sqlite_autoincrement=True,
)

task_logs = Table(
    "task_logs",
    metadata,
    Column("seq", Integer, primary_key=True),  # also the row id of the search index
    Column("id", String(32), nullable=False, unique=True),
    Column("task_id", ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),  # from 1 within the task
    Column("contents", Text, nullable=False),  # redacted before it is stored
    Column("created_at", BigInteger, nullable=False, index=True),
    Index("ix_task_logs_task_id", "task_id", "number", unique=True),
    sqlite_autoincrement=True,
)

nodes = Table(  # who runs tasks or coordinates them
    "nodes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("kind", String(12), nullable=False),  # coordinator, worker
    Column("hostname", Text, nullable=False),
    Column("version", String(40), nullable=False),
    Column("status", String(10), nullable=False),  # UP, DOWN
    Column("detail", Text, nullable=False),  # why it is DOWN
    Column("queues", Text, nullable=False),  # JSON: work queues with the number of their consumers
    Column("started_at", BigInteger, nullable=False),
    Column("last_heartbeat_at", BigInteger, nullable=False),
    Column("cpu_percent", Float, nullable=False),
    Column("task_count", Integer, nullable=False),
)
