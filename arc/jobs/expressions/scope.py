"""The names that one evaluation can see, and their types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.jobs.expressions import kinds
from arc.jobs.expressions.values import StringMap, Summary, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES = {bool: kinds.BOOL, int: kinds.INT, float: kinds.FLOAT, str: kinds.STRING, list: kinds.ARRAY, dict: kinds.MAP}


class Scope:
    """inputs, secrets, tasks and job are maps from string to string; others are a loop's variable or summary objects.

    A job or task given as a Summary has fixed fields, as in the conditions of webhooks. What is None is no name at all.
    """

    def __init__(
        self,
        inputs: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        tasks: Mapping[str, str] | None = None,
        job: Mapping[str, str] | Summary | None = None,
        **others: Value,
    ) -> None:
        maps = {"inputs": inputs, "secrets": secrets, "tasks": tasks, "job": job}
        named = {
            name: value if isinstance(value, Summary) else StringMap(value)
            for name, value in maps.items()
            if value is not None
        }
        self.names: dict[str, Value] = {**named, **others}
        # A tuple, because compiled expressions are kept by text and types.
        self.types = tuple((name, _type_of(value)) for name, value in sorted(self.names.items()))


def _type_of(value: Value) -> kinds.Type:
    if isinstance(value, StringMap):
        return kinds.STRING_MAP
    if isinstance(value, Summary):
        return kinds.object_type(value.label, frozenset(value))
    return _TYPES.get(type(value), kinds.ANY)
