"""Rules that the values of a document have to keep, and the lines that name the broken ones.

The lines have the form that clients of the original know; so do the paths, with capitalised names.
Source: the jobs specification, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from arc.errors import Invalid
from arc.jobs import cron, expressions, queuenames
from arc.jobs.documents.values import Part
from arc.jobs.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_SECRET_LINES = 300  # of all secrets; whatever a job prints is searched for each of them
_SPELLINGS = {"url": "URL", "subjob": "SubJob"}  # else the first letter becomes a capital


@dataclass(frozen=True)
class Rule:
    """A condition on the value of one field. Lists that were not given, and optional objects, come as None."""

    tag: str
    holds: Callable[[Any], bool]


def at_least(limit: int) -> Rule:
    return Rule("min", lambda value: value is None or _size(value) >= limit)


def at_most(limit: int) -> Rule:
    return Rule("max", lambda value: value is None or _size(value) <= limit)


def _size(value: str | list[Any] | float) -> float:
    return len(value) if isinstance(value, str | list) else value


def _accepted_by(check: Callable[[str], object]) -> Callable[[str], bool]:
    """Empty is fine: it means not given."""

    def holds(text: str) -> bool:
        if text:
            try:
                check(text)
            except Invalid:
                return False
        return True

    return holds


REQUIRED = Rule("required", lambda value: value is not None and value not in ("", 0))
DURATION = Rule("duration", _accepted_by(parse_duration))
EXPRESSION = Rule("expr", _accepted_by(expressions.check))
QUEUE = Rule("queue", queuenames.is_for_tasks)
SECRETS = Rule("max", lambda values: sum(1 + value.count("\n") for value in values.values()) <= MAX_SECRET_LINES)
CRON = Rule("cron", _accepted_by(cron.parse))


def broken_rules(part: Part, path: str) -> Iterator[str]:
    """A line for each field that breaks a rule, in the order of the fields, what is inside of them included."""
    for name, label, rules in _fields(type(part)):
        value = _given(part, name)
        broken = next((rule for rule in rules if not rule.holds(value)), None)
        if broken is not None:
            yield _line(path, label, broken.tag)
        else:
            yield from _inside(value, f"{path}.{label}")
    for label, tag in part.conflicts():
        yield _line(path, label, tag)


@cache
def _fields(kind: type[Part]) -> list[tuple[str, str, list[Rule]]]:
    """Name, label in paths and rules of each field."""
    return [
        (name, _label(field.alias or name), [rule for rule in field.metadata if isinstance(rule, Rule)])
        for name, field in kind.model_fields.items()
    ]


def _inside(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Part):
        yield from broken_rules(value, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, Part):
                yield from broken_rules(item, f"{path}[{index}]")


def _given(part: Part, name: str) -> Any:
    value = getattr(part, name)
    return None if value == [] and name not in part.model_fields_set else value


def _label(name: str) -> str:
    return _SPELLINGS.get(name, name[:1].upper() + name[1:])


def _line(path: str, label: str, tag: str) -> str:
    return f"Key: '{path}.{label}' Error:Field validation for '{label}' failed on the '{tag}' tag"
