"""Messages of agents, checked at the door: registrations and replies as an agent sends them become dataclasses.

body -> read_json -> Fields -> Registration | Reply | Command
Keys match in any case, unknown ones are ignored, null is the same as missing, a wrong JSON type is an error.
Source: the remote agents specification, sections 2.2 and 6.3 to 6.5.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from arc.errors import Invalid, TooLarge
from arc.fleet.records import Status
from arc.fleet.values import refuse_nul

MAX_TIMEOUT_S = 86_400
MAX_PAYLOAD = 4 << 20  # characters of a command, and of all that one answer hands out: an agent reads at most 32 MB
MAX_DEPTH = 50  # of objects and lists within each other; deeper ones could not be written again
MAX_IDENTITY, MAX_SCOPE = 255, 100  # characters of an identity; of a project or organization
_INT64 = 2**63
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")  # what stands before may be a backslash of the text itself


def read_json(body: bytes) -> Any:
    """What an agent sent, with U+FFFD for each U+0000, which PostgreSQL cannot hold: a log or fact is not lost for it.

    Raises orjson.JSONDecodeError.
    """
    return orjson.loads(_NUL.sub(rb"\1\\ufffd", body) if rb"\u0000" in body else body)


class BadAttribute(Invalid):
    def __init__(self, name: str) -> None:
        super().__init__(f"attribute '{name}' is missing or invalid")


class Fields:
    """The members of a JSON object. Raises Invalid for what is no object or has a member of the wrong type.

    No text has U+0000: what agents send went through read_json, from users it is refused.
    """

    def __init__(self, raw: Any, what: str = "each message") -> None:
        if raw is not None and not isinstance(raw, dict):
            raise Invalid(f"{what} must be a JSON object")
        self._values = {key.lower(): value for key, value in (raw or {}).items() if value is not None}

    def text(self, name: str, default: str = "") -> str:
        text = str(self._typed(name, str, default))
        refuse_nul(name, text)
        return text

    def integer(self, name: str, default: int = 0) -> int:
        value = int(self._typed(name, int, default))
        if not -_INT64 <= value < _INT64:
            raise Invalid(f"{name} is out of range")
        return value

    def optional_integer(self, name: str) -> int | None:
        return self.integer(name) if name in self._values else None

    def flag(self, name: str) -> bool:
        return bool(self._typed(name, bool, False))

    def raw(self, name: str) -> Any:
        return self._values.get(name)

    def _typed(self, name: str, kind: type[Any], default: Any) -> Any:
        value = self._values.get(name, default)
        if type(value) is not kind:  # a bool is an int for isinstance
            raise Invalid(f"{name} must be {_KINDS[kind]}")
        return value


_KINDS = {str: "a text", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True)
class Command:
    """What somebody asks an agent to do."""

    agent_id: str
    timeout_s: int
    plugin: str
    action: str
    payload: str

    @classmethod
    def parse(cls, fields: Fields) -> Command:
        """Raises TooLarge, Invalid, BadAttribute for the first of `to`, `timeout`, `agent`, `action` that is wrong."""
        fields.integer("version"), fields.text("sender"), fields.text("request_id")  # of the right type, not used
        agent_id, timeout_s, payload = fields.text("to"), fields.integer("timeout"), fields.text("payload")
        plugin, action = fields.text("agent"), fields.text("action")
        if not agent_id:
            raise BadAttribute("to")
        if not 1 <= timeout_s <= MAX_TIMEOUT_S:
            raise BadAttribute("timeout")
        for name, value in (("agent", plugin), ("action", action)):
            if not value:
                raise BadAttribute(name)
        if len(payload) > MAX_PAYLOAD:
            raise TooLarge(f"payload has more than {MAX_PAYLOAD} characters; execute/tarball fetches what is larger")
        return cls(agent_id, timeout_s, plugin, action, payload)


@dataclass(frozen=True)
class Registration:
    registration_id: str
    project: str
    organization: str
    payload: dict[str, Any]

    @property
    def is_goodbye(self) -> bool:
        return self.payload.get("online") is False

    @classmethod
    def parse(cls, fields: Fields, agent_id: str) -> Registration:
        """Raises Invalid. The payload is an object or the JSON text of one."""
        if fields.integer("version", 1) < 1:
            raise BadAttribute("version")
        if fields.text("sender", agent_id) != agent_id or len(agent_id) > MAX_IDENTITY:
            raise BadAttribute("sender")
        project, organization = fields.text("project"), fields.text("organization")
        for name, value in (("project", project), ("organization", organization)):
            if len(value) > MAX_SCOPE:
                raise BadAttribute(name)
        registration_id = fields.text("registration_id", str(uuid.uuid4()))[:64]
        return cls(registration_id, project, organization, _object(fields.raw("payload")))


@dataclass(frozen=True)
class Reply:
    """exit_code, started_at, ended_at: as the agent knows them; instants are microseconds UTC."""

    request_id: str
    status: Status
    is_final: bool
    payload: str
    number: int
    exit_code: int | None
    started_at: int | None
    ended_at: int | None

    @classmethod
    def parse(cls, fields: Fields, agent_id: str) -> Reply:
        """Raises Invalid."""
        number = fields.integer("number")
        if not 0 <= number < 2**31:
            raise BadAttribute("number")
        if fields.integer("version", 1) < 1:
            raise BadAttribute("version")
        request_id = fields.text("request_id")
        for name, value in (
            ("requestID", request_id),
            ("agent", fields.text("agent")),
            ("action", fields.text("action")),
        ):
            if not value:
                raise BadAttribute(name)
        status = Status.__members__.get(fields.text("state").upper())
        if status is None:
            raise BadAttribute("state")
        if fields.text("sender", agent_id) != agent_id:
            raise BadAttribute("sender")
        exit_code = fields.optional_integer("exit_code")
        if exit_code is not None and not -(2**31) <= exit_code < 2**31:
            raise BadAttribute("exit_code")
        started_at, ended_at = (_instant(fields, name) for name in ("started_at", "ended_at"))
        return cls(
            request_id, status, fields.flag("final"), fields.text("payload"), number, exit_code, started_at, ended_at
        )


_LATEST_US = 253_402_300_799_000_000  # the last second of the year 9999, the last that has a text


def _instant(fields: Fields, name: str) -> int | None:
    at = fields.optional_integer(name)
    if at is not None and not 0 <= at <= _LATEST_US:
        raise BadAttribute(name)
    return at


def _object(payload: Any) -> dict[str, Any]:
    if isinstance(payload, str):
        try:
            payload = read_json(payload.encode())
        except orjson.JSONDecodeError:  # also of numbers and texts that an answer in JSON could not show
            raise BadAttribute("payload") from None
    if not isinstance(payload, dict) or not _is_shallow(payload, MAX_DEPTH):
        raise BadAttribute("payload")
    return dict(payload)


def _is_shallow(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_is_shallow(each, levels - 1) for each in inner)
