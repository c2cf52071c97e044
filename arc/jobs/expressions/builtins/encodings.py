"""JSON and base64."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING

from arc.jobs.expressions.builtins.signature import Function
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.kinds import ANY, STRING
from arc.jobs.expressions.text import to_json

if TYPE_CHECKING:
    from arc.jobs.expressions.limits import Budget
    from arc.jobs.expressions.values import Value

MAP_ELEMENTS = 6  # what a map in a JSON text is charged beside its entries: it takes about as much memory
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
# What the parser of the standard library says, and where in the text that means it stood.
_PLACES = {
    "Expecting value": "looking for beginning of value",
    "Extra data": "after top-level value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after array element or object key:value pair",
    "Invalid control character at": "in string literal",
}


def _no_constant(text: str) -> float:
    raise Fault(f"invalid character '{text.lstrip('-')[0]}' looking for beginning of value")


def _from_json(budget: Budget, text: str) -> Value:
    """Every number becomes a float, as JSON knows no integers."""
    budget.spend(text.count(",") + text.count("[") + MAP_ELEMENTS * text.count("{"))
    try:
        value: Value = json.loads(text, parse_int=float, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        raise Fault(_json_reason(text, exc)) from None
    if _SURROGATE.search(text):  # halves of pairs: only here can an expression make text that no file or database takes
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _json_reason(text: str, exc: json.JSONDecodeError) -> str:
    if exc.pos >= len(text) or exc.msg.startswith("Unterminated string"):
        return "unexpected end of JSON input"
    place = _PLACES.get(exc.msg, "in string escape code")
    return f"invalid character '{text[exc.pos]}' {place}"


def _from_base64(_: Budget, text: str) -> str:
    compact = text.replace("\r", "").replace("\n", "")
    try:
        return base64.b64decode(compact, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        bad = _NOT_BASE64.search(compact)
        raise Fault(f"illegal base64 data at input byte {bad.start() if bad else len(compact)}") from None


def _to_base64(_: Budget, text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")


FUNCTIONS = (
    Function("toJSON", lambda budget, value: to_json(value, budget), (ANY,), STRING),
    Function("fromJSON", _from_json, (STRING,), ANY),
    Function("toBase64", _to_base64, (STRING,), STRING),
    Function("fromBase64", _from_base64, (STRING,), STRING),
)
