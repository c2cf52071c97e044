"""Functions that make instants, durations and zones."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from arc.jobs.expressions import times
from arc.jobs.expressions.builtins.signature import Function, one_of
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.kinds import DURATION, STRING, TIME, ZONE
from arc.jobs.expressions.times import Zone

if TYPE_CHECKING:
    from arc.jobs.expressions.limits import Budget
    from arc.jobs.expressions.values import Value

_UTC = Zone(UTC, "UTC")


def _now(_: Budget, where: Zone = _UTC) -> times.Instant:
    return times.now(where)


def _date(_: Budget, *arguments: Value) -> times.Instant:
    """date([zone,] text [, layout [, name of a zone]])."""
    where, rest = (arguments[0], arguments[1:]) if isinstance(arguments[0], Zone) else (_UTC, arguments)
    texts = [argument for argument in rest if isinstance(argument, str)]
    if len(texts) != len(rest) or not 1 <= len(texts) <= 3:
        raise Fault("invalid arguments for date (text, layout, name of a zone)")
    text, layout, name = (*texts, None, None)[:3]
    assert text is not None  # noqa: S101 - for the type checker: at least one is there
    return times.date(text, layout, where if name is None else times.zone(name))


FUNCTIONS = (
    Function("now", _now, (ZONE,), TIME, required=0),
    Function("date", _date, (one_of("string", "zone"), STRING, STRING, STRING), TIME, required=1),
    Function("duration", lambda _, text: times.duration(text), (STRING,), DURATION),
    Function("timezone", lambda _, name: times.zone(name), (STRING,), ZONE),
)
