"""A count of changes of tokens, so that whoever remembers a token asks again only when one has changed.

SQLite only: elsewhere nothing tells of commits of others, and a remembered token is good for its time.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

_COUNT = (
    "INSERT INTO settings (name, value) VALUES ('api_tokens.changes', '1')"
    " ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1"
)
# All but last_used_at, which is written every few seconds.
_COLUMNS = "name, token_hash, description, permissions, enabled, expires_at, project, organization, agent_id"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    for name, event in (("insert", "INSERT"), ("delete", "DELETE"), ("update", f"UPDATE OF {_COLUMNS}")):
        op.execute(f"CREATE TRIGGER api_tokens_{name} AFTER {event} ON api_tokens BEGIN {_COUNT}; END")
