"""What is known of one action: its record, its history, its states and which of them may follow which."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from arc import clock

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = Any  # what json.loads returns


class State(StrEnum):
    NEW = "NEW"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[State | None, frozenset[State]] = {
    None: frozenset({State.NEW}),
    State.NEW: frozenset({State.RUNNING, State.DONE, State.FAILED}),
    State.RUNNING: frozenset({State.RUNNING, State.DONE, State.FAILED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
}


@dataclass(frozen=True)
class ActionRecord:
    """One action. Instants are microseconds, UTC.

    seq: order of scheduling, never used twice. revision: grows with each transition.
    requested_by: the name of the token that asked. version: of the Arc that checked the arguments.
    is_begun: a handler is at work on it, or was when its process died; crashes: how often that was, since it last
    came forward. running_us: time since its first invocation that is known to have passed; touched_at: until when.
    """

    id: str
    kind: str
    args: Json
    created_at: int
    scheduled_at: int
    touched_at: int
    headers: Mapping[str, str]
    requester: str
    requested_by: str = ""
    version: str = ""
    seq: int = 0
    finished_at: int | None = None
    state: State = State.NEW
    payload: Json = None
    revision: int = 1
    invocations: int = 0
    is_begun: bool = False
    crashes: int = 0
    running_us: int = 0
    cancel_reason: str | None = None

    def as_dict(self) -> dict[str, Json]:
        """The members a client sees."""
        return {
            "id": self.id,
            "kind": self.kind,
            "args": self.args,
            "headers": dict(self.headers),
            "requester": self.requester,
            "created_ts": seconds(self.created_at),
            "scheduled_ts": seconds(self.scheduled_at),
            "finished_ts": None if self.finished_at is None else seconds(self.finished_at),
            "state": self.state.value,
            "state_payload": self.payload,
        }


@dataclass(frozen=True)
class HistoryItem:
    """One transition of one action."""

    action_id: str
    at: int
    state: State
    payload: Json

    def as_dict(self) -> dict[str, Json]:
        return {
            "action_id": self.action_id,
            "timestamp": seconds(self.at),
            "state": self.state.value,
            "state_payload": self.payload,
        }


@dataclass(frozen=True)
class Summary:
    """An action as lists show it."""

    kind: str
    id: str
    state: State

    def as_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "id": self.id, "state": self.state.value}


def seconds(us: int) -> str:
    """`2024-05-06T07:08:09Z`, what is below a second cut off."""
    return str(clock.rfc3339(us - us % clock.US_PER_S))
