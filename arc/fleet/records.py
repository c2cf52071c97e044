"""What the fleet hands out: agents, executions, pages of both. Instants are microseconds since the epoch, UTC."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from arc.errors import Denied, NotFound

if TYPE_CHECKING:
    from sqlalchemy import Row

Item = TypeVar("Item")


class Status(IntEnum):
    """Of an execution. A reply never lowers it: a success that comes late overrides a failure by time-out."""

    QUEUED = 1
    EXECUTING = 2
    FAILED = 3
    COMPLETE = 4

    @property
    def is_final(self) -> bool:
        return self >= Status.FAILED


class AgentNotFound(NotFound):
    def __init__(self, agent_id: str) -> None:
        super().__init__(f"no agent with id {agent_id!r}")


class ExecutionNotFound(NotFound):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"no job with id {request_id!r}")


class OtherProject(Denied):
    """What was asked for belongs to a project the token is not for."""

    def __init__(self, theirs: str, ours: str) -> None:
        super().__init__(f"not authorized: {theirs} is not project {ours}")


@dataclass(frozen=True)
class Known:
    """What the transport has to know of an agent. last_seq: messages of the epoch up to it have had their effect."""

    token_id: int | None
    epoch: str
    last_seq: int


@dataclass(frozen=True)
class Agent:
    agent_id: str
    project: str
    organization: str
    facts: dict[str, Any]
    tags: dict[str, str]
    display_name: str
    is_online: bool
    last_seen_at: int
    created_at: int
    updated_at: int
    updated_with: str
    updated_by: str

    @classmethod
    def from_row(cls, row: Row[Any], tags: dict[str, str]) -> Agent:
        values = {name: value for name, value in row._mapping.items() if name in cls.__dataclass_fields__}
        return cls(**(values | {"facts": json.loads(row.facts), "tags": tags}))


@dataclass(frozen=True)
class AgentEvent:
    event: str
    at: int
    detail: str


@dataclass(frozen=True)
class Execution:
    request_id: str
    version: int
    sender: str
    agent_id: str
    timeout_s: int
    plugin: str
    action: str
    payload: str
    status: Status
    created_at: int
    updated_at: int
    deliver_until: int
    received_at: int | None
    started_at: int | None
    ended_at: int | None
    exit_code: int | None
    cancel_requested_at: int | None
    project: str
    user: dict[str, Any]

    @classmethod
    def from_row(cls, row: Row[Any]) -> Execution:
        values = {name: value for name, value in row._mapping.items() if name in cls.__dataclass_fields__}
        return cls(**(values | {"status": Status(row.status), "user": json.loads(row.user)}))


@dataclass(frozen=True)
class Page(Generic[Item]):
    """number: the page that is served, from 1, 0 when there is none; total: elements of all pages."""

    items: list[Item]
    number: int
    per_page: int
    total: int

    @property
    def pages(self) -> int:
        return -(-self.total // self.per_page)
