"""The body of a request to schedule: any JSON is the arguments, read strictly; or an envelope around them."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from arc.actions.errors import InvalidJson

ENVELOPE = "application/vnd.arc.action-envelope+json"
CONTROL = ("action_id", "created_ts", "requester")
MAX_BODY_BYTES = 262_144
MAX_DEPTH = 64  # of a body
INTEGERS = (-(2**63), 2**64 - 1)  # first and last that are taken


def opened(envelope: Any, said: dict[str, str]) -> tuple[Any, dict[str, str]]:
    """The arguments in an envelope, and all that was said beside them. Raises InvalidJson."""
    if not isinstance(envelope, dict) or not set(envelope) <= {"args", *CONTROL}:
        raise InvalidJson(f"an envelope has the members args, {', '.join(CONTROL)}")
    inside = {name: envelope[name] for name in CONTROL if envelope.get(name) is not None}
    if set(inside) & set(said):
        raise InvalidJson("the envelope and the query say the same twice")
    if not all(isinstance(value, str) for value in inside.values()):
        raise InvalidJson(f"{', '.join(CONTROL)} are texts")
    return envelope.get("args"), said | inside


def strict_json(data: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """The one value that JSON text stands for.

    Raises InvalidJson, also for a member given twice and for what other parsers choke on, so that it could be stored
    but not be answered or handed on: NaN, 1e999, integers beyond 64 bits, half of a surrogate pair.
    """
    try:
        value = json.loads(data, object_pairs_hook=_members, parse_constant=_no_constant, parse_int=_integer)
        depth = _depth(value)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        depth, value = max_depth + 1, None
    except ValueError as error:
        raise InvalidJson(f"this is no JSON: {error}") from None
    if depth > max_depth:
        raise InvalidJson(f"this is nested deeper than {max_depth}")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is given twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    if not INTEGERS[0] <= (number := int(digits)) <= INTEGERS[1]:
        raise ValueError(f"{digits[:40]} is beyond 64 bits")
    return number


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
