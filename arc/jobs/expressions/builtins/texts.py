"""Functions on strings. Places in a string count bytes of UTF-8; `len` counts characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.jobs.expressions.builtins.signature import Function
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.kinds import ARRAY, BOOL, INT, STRING, STRINGS
from arc.jobs.expressions.values import Value, mismatch

if TYPE_CHECKING:
    from arc.jobs.expressions.limits import Budget


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _trim(_: Budget, text: str, characters: str | None = None) -> str:
    return text.strip(characters)


def _split(budget: Budget, text: str, separator: str, count: int = -1) -> list[Value]:
    if count == 0:
        return []
    budget.spend(text.count(separator) if separator else len(text))
    if separator:
        return list(text.split(separator, count - 1 if count > 0 else -1))
    if 0 < count < len(text):
        return [*text[: count - 1], text[count - 1 :]]
    return list(text)


def _split_after(budget: Budget, text: str, separator: str, count: int = -1) -> list[Value]:
    parts = _split(budget, text, separator, count)
    return [f"{part}{separator}" for part in parts[:-1]] + parts[-1:]


def _replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old)
    times = found if count < 0 else min(count, found)
    budget.spend(len(text) + times * len(new))
    return text.replace(old, new, times)


def _repeat(budget: Budget, text: str, count: int) -> str:
    if count < 0:
        raise Fault(f"invalid argument for repeat (expected positive integer, got {count})")
    budget.spend(max(len(text), 1) * count)
    return text * count


def _join(budget: Budget, items: list[Value], separator: str = "") -> str:
    texts = []
    for item in items:
        if not isinstance(item, str):
            raise mismatch(item, "string")
        budget.spend(len(item) + len(separator))
        texts.append(item)
    return separator.join(texts)


FUNCTIONS = (
    Function("trim", _trim, (STRING, STRING), STRING, required=1),
    Function("trimPrefix", lambda _, text, prefix=" ": text.removeprefix(prefix), (STRING, STRING), STRING, required=1),
    Function("trimSuffix", lambda _, text, suffix=" ": text.removesuffix(suffix), (STRING, STRING), STRING, required=1),
    Function("upper", lambda _, text: text.upper(), (STRING,), STRING),
    Function("lower", lambda _, text: text.lower(), (STRING,), STRING),
    Function("split", _split, (STRING, STRING, INT), STRINGS, required=2),
    Function("splitAfter", _split_after, (STRING, STRING, INT), STRINGS, required=2),
    Function("replace", _replace, (STRING, STRING, STRING, INT), STRING, required=3),
    Function("repeat", _repeat, (STRING, INT), STRING),
    Function("join", _join, (ARRAY, STRING), STRING, required=1),
    Function("indexOf", lambda _, text, part: _bytes(text).find(_bytes(part)), (STRING, STRING), INT),
    Function("lastIndexOf", lambda _, text, part: _bytes(text).rfind(_bytes(part)), (STRING, STRING), INT),
    Function("hasPrefix", lambda _, text, prefix: text.startswith(prefix), (STRING, STRING), BOOL),
    Function("hasSuffix", lambda _, text, suffix: text.endswith(suffix), (STRING, STRING), BOOL),
)
