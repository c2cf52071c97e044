"""When a cron expression comes due: five fields, UTC, weekday 0 is Sunday."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from arc import clock
from arc.errors import ConfigError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Schedule:
    """Raises ConfigError for an expression that is none, or that never comes due."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        try:
            self.next_after(clock.now_us())
        except (CronSimError, StopIteration):
            raise ConfigError(f"{expression!r} is no cron expression such as '5 * * * *'") from None

    def next_after(self, us: int) -> int:
        """The first instant after `us`, both microseconds since the epoch."""
        due = next(CronSim(self.expression, _EPOCH + timedelta(microseconds=us)))
        return (due - _EPOCH) // timedelta(microseconds=1)
