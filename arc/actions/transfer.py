"""Actions as JSON lines, to take what has ended from one node to another. A line is what GET actions/info/ID answers.

Only what has ended comes in, so nothing that is read here is ever carried out. The first agents knew one requester,
`API`, wrote ids in capitals and left some members out; their records can be read too.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from arc.actions import rules, schema
from arc.actions.body import strict_json
from arc.actions.errors import ActionNotFound, InvalidArgs, InvalidImport, InvalidJson
from arc.actions.records import TRANSITIONS, ActionRecord, HistoryItem, State
from arc.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from arc.actions.engine import ActionEngine
    from arc.actions.records import Json

    Ended = tuple[ActionRecord, list[HistoryItem]]

T = TypeVar("T")

MAX_DEPTH = 128  # of a line; that of arguments is half of it
_TEXT = {"type": "string"}
_ACTION = schema.options(
    *("id", "kind", "args", "requester", "created_ts", "state", "finished_ts"),
    id=_TEXT,
    kind={"type": "string", "pattern": r"^[\x21-\x7e]{1,200}$"},
    args={},
    headers={"type": "object", "additionalProperties": _TEXT},
    requester={"enum": [*rules.REQUESTERS, rules.OLD_AGENT_API]},
    created_ts=_TEXT,
    scheduled_ts=_TEXT,
    finished_ts={},
    state={"enum": [state.value for state in State if state.is_final]},
    state_payload={},
)
_EVENT = schema.options(
    *("timestamp", "state"),
    action_id=_TEXT,
    timestamp=_TEXT,
    state={"enum": [state.value for state in State]},
    state_payload={},
)
_HISTORY = {"type": "array", "items": _EVENT}


def lines(engine: ActionEngine) -> Iterator[bytes]:
    """All that has ended, first scheduled first."""
    for found in reversed(engine.finished(sys.maxsize)):
        try:
            yield json.dumps(engine.info(found.id)).encode() + b"\n"
        except ActionNotFound:  # cleaned up meanwhile
            continue


def read(text: bytes, header_deny: Collection[str] = ()) -> list[Ended]:
    """The actions of all lines, first scheduled first. Raises InvalidImport for the first line that does not do."""
    found = []
    for number, line in enumerate(text.split(b"\n"), 1):
        try:
            found += [_ended(strict_json(line, MAX_DEPTH), header_deny)] if line.strip() else []
        except Invalid as error:
            raise InvalidImport(number, error) from None
    return sorted(found, key=lambda ended: ended[0].scheduled_at)


def _ended(line: Json, header_deny: Collection[str]) -> Ended:
    """Raises InvalidArgs, InvalidJson."""
    if not isinstance(line, dict) or set(line) != {"action", "history"}:
        raise InvalidJson("needs the members action and history, and no others")
    schema.check(_ACTION, line["action"], "action")
    schema.check(_HISTORY, line["history"], "history")
    record = _record(line["action"], len(line["history"]), header_deny)
    history = [_event(record, f"history.{index}", event) for index, event in enumerate(line["history"])]
    _check_transitions(history)
    if (history[0].state, history[0].payload) != (record.state, record.payload):
        raise InvalidArgs("history.0", "the state and the payload of the action, as the newest event stands first")
    return record, history


def _record(action: dict[str, Json], revision: int, header_deny: Collection[str]) -> ActionRecord:
    created_at = _instant("action.created_ts", action["created_ts"])
    finished_at = _instant("action.finished_ts", action["finished_ts"])
    return ActionRecord(
        id=_fitting("action.id", "a UUID of 36 characters", lambda: rules.action_id(action["id"])),
        kind=action["kind"],
        args=action["args"],
        created_at=created_at,
        scheduled_at=_instant("action.scheduled_ts", action.get("scheduled_ts", action["created_ts"])),
        touched_at=finished_at,
        headers=_fitting(
            "action.headers",
            f"at most {rules.MAX_HEADERS} of printable ASCII",
            lambda: rules.headers(action.get("headers", {}).items(), header_deny),
        ),
        requester=rules.requester(action["requester"], may_claim=True),
        finished_at=finished_at,
        state=State(action["state"]),
        payload=action.get("state_payload"),
        revision=revision,
    )


def _event(record: ActionRecord, path: str, event: dict[str, Json]) -> HistoryItem:
    if event.get("action_id", record.id).lower() != record.id:
        raise InvalidArgs(f"{path}.action_id", "the id of the action")
    at = _instant(f"{path}.timestamp", event["timestamp"])
    return HistoryItem(record.id, at, State(event["state"]), event.get("state_payload"))


def _check_transitions(history: list[HistoryItem]) -> None:
    """history: newest first; it begins with NEW and takes only steps that there are."""
    if not history:
        raise InvalidArgs("history", "at least one event")
    states = [item.state for item in history]
    for index, (state, before) in enumerate(zip(states, [*states[1:], None], strict=True)):
        if state not in TRANSITIONS[before]:
            follows = f"what can follow {before}" if before else f"{State.NEW}, as the oldest event stands last"
            raise InvalidArgs(f"history.{index}.state", follows)


def _instant(path: str, text: Any) -> int:
    return _fitting(path, "an RFC 3339 time in UTC such as 2024-05-06T07:08:09Z", lambda: rules.created_us(str(text)))


def _fitting(path: str, expected: str, rule: Callable[[], T]) -> T:
    try:
        return rule()
    except Invalid:
        raise InvalidArgs(path, expected) from None
