"""What the action engine of this node counts, as Prometheus families.

Names and labels stand in one table; no label holds the id of an action. docs/monitoring.md lists them for operators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from arc import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from arc.actions.engine import ActionEngine

Values = dict[Any, float]  # by the values of the labels, a tuple


class Family(NamedTuple):
    """A counter's name ends in _total; all others are gauges."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[ActionEngine], Values]


FAMILIES: Final = (
    Family("arc_actions_scheduled_total", "Actions that were queued", ("kind", "requester"),
           lambda engine: dict(engine.counters.scheduled)),
    Family("arc_actions_rejected_total", "Requests to schedule that were refused", ("reason",),
           lambda engine: _one_label(engine.counters.rejected)),
    Family("arc_actions_invocations_total", "Steps of actions", ("kind",),
           lambda engine: _one_label(engine.counters.invocations)),
    Family("arc_actions_invocation_seconds_total", "Time spent in steps of actions", ("kind",),
           lambda engine: _one_label(engine.counters.seconds)),
    Family("arc_actions_finished_total", "Actions that ended; variant: why, where the engine ended them",
           ("kind", "state", "variant"), lambda engine: dict(engine.counters.finished)),
    Family("arc_actions_queue_length", "Actions that wait or run", (),
           lambda engine: {(): engine.store.backlog().count}),
    Family("arc_actions_oldest_new_seconds", "How long the oldest action that waits has waited", (),
           lambda engine: {(): _oldest_s(engine)}),
    Family("arc_actions_running_seconds", "How long the action that runs has run", (),
           lambda engine: {(): engine.store.backlog().running_us / clock.US_PER_S}),
    Family("arc_actions_pruned_total", "Old actions that were deleted", (),
           lambda engine: {(): engine.counters.pruned}),
    Family("arc_actions_engine_errors_total", "Cycles and outcomes that the disk refused", (),
           lambda engine: {(): engine.counters.errors}),
    Family("arc_actions_engine_fault", "1 while the outcome of a step cannot be stored", (),
           lambda engine: {(): int(engine.fault is not None)}),
    Family("arc_actions_engine_last_cycle_timestamp_seconds", "When the engine last looked for work", (),
           lambda engine: {(): engine.counters.last_cycle_at / clock.US_PER_S}),
)  # fmt: skip


def families(engine: ActionEngine | None) -> Iterator[Metric]:
    """Nothing when actions are switched off."""
    if engine is None:
        return
    for family in FAMILIES:
        make: Any = CounterMetricFamily if family.name.endswith("_total") else GaugeMetricFamily
        metric = make(family.name, family.help, labels=family.labels)
        for labels, value in sorted(family.read(engine).items()):
            metric.add_metric(labels, value)
        yield metric


def _one_label(values: Mapping[str, float]) -> Values:
    return {(label,): value for label, value in dict(values).items()}


def _oldest_s(engine: ActionEngine) -> float:
    oldest_at = engine.store.backlog().oldest_new_at
    return 0.0 if oldest_at is None else max(0, clock.now_us() - oldest_at) / clock.US_PER_S
