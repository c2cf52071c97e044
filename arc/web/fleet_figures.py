"""Prometheus families of the remote agents API, under the names and types its dashboards know.

counters of the fleet, request counters -> fleet_text() -> the end of /metrics. The client library cannot write them: it
ends every counter in _total and knows no quantiles. Source: the remote agents specification, section 9.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from flask import request

from arc.fleet.counters import MESSAGE_BUCKETS_S, QUANTILES
from arc.web.counters import UNKNOWN, Tally
from arc.web.parts import parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flask import Response

    from arc.fleet.counters import FleetCounters, Sizes
    from arc.web.parts import Parts

_AGENT, _JOB = "/api/v1/agents/<agent_id>", "/api/v1/jobs/<job_id>"
HANDLERS: Final = {
    ("GET", "/"): "Root",
    ("GET", "/healthcheck"): "Healthcheck",
    ("GET", "/readiness"): "Readiness",
    ("GET", "/metrics"): "prometheus",
    ("GET", "/api/v1/jobs"): "Jobs",
    ("POST", "/api/v1/jobs"): "Execute Job",
    ("GET", _JOB): "Job",
    ("GET", f"{_JOB}/log"): "Job logs",
    ("GET", "/api/v1/agents"): "Agents",
    ("GET", _AGENT): "Agent",
    ("DELETE", _AGENT): "Delete Agent",
    ("GET", f"{_AGENT}/facts"): "Facts",
    ("GET", f"{_AGENT}/tags"): "Agent Tags",
    ("POST", f"{_AGENT}/tags"): "Save Agent Tag",
    ("DELETE", f"{_AGENT}/tags/<key>"): "Delete an Agent Tag",
    ("POST", "/api/v1/agents/init"): "Create node bootstrap credentials",
    ("POST", "/api/v1/agents/init/<token>"): "Create node",
}
REFUSED = (401, 403)  # before a handler was reached


class Sample(NamedTuple):
    suffix: str
    labels: dict[str, str]
    value: float


def note_sizes(response: Response) -> Response:
    """Count the bodies of a request that reached a handler, and of its answer; a stream counts as nothing."""
    handler = HANDLERS.get(request.environ.get("arc.route", UNKNOWN))
    if handler is not None and response.status_code not in REFUSED:
        counters = parts().fleet.counters
        counters.add_bodies(handler, request.content_length or 0, response.content_length or 0)
    return response


def fleet_text(parts: Parts) -> bytes:
    """Text exposition format 0.0.4."""
    return "".join([*_jobs(parts.fleet.counters), *_requests(parts), *_sweeps(parts.fleet.counters)]).encode()


def _jobs(counters: FleetCounters) -> Iterator[str]:
    yield _plain("arc_job_executed", "Commands for machines that were accepted", counters.executed)
    yield _plain("arc_job_succeeded", "Final replies of agents: complete", counters.succeeded)
    yield _plain("arc_job_failed", "Final replies of agents: failed", counters.failed)
    yield _plain(
        "arc_job_expired", "Commands that failed because no agent fetched or ended them in time", counters.expired
    )
    yield _family("arc_job_log_size_bytes", "summary", "Size of a whole log", _sizes(counters.log_sizes, {}))
    times = [sample for kind in counters.messages for sample in _message(counters, kind)]
    yield _family(
        "arc_api_mqtt_message_duration_seconds", "histogram", "Time a message of an agent took, by any transport", times
    )


def _message(counters: FleetCounters, kind: str) -> Iterator[Sample]:
    bounds = [*map(str, MESSAGE_BUCKETS_S), "+Inf"]
    for bound, count in zip(bounds, accumulate(counters.messages[kind]), strict=True):
        yield Sample("_bucket", {"message": kind, "le": bound}, count)
    yield Sample("_sum", {"message": kind}, counters.message_s[kind])
    yield Sample("_count", {"message": kind}, sum(counters.messages[kind]))


def _requests(parts: Parts) -> Iterator[str]:
    counts: list[Sample] = []
    times: dict[str, Tally] = {}
    for (route, status), tally in parts.requests.tallies().items():
        handler = HANDLERS.get(route)
        if handler is not None and status not in REFUSED:
            labels = {"handler": handler, "method": route[0].lower(), "code": str(status)}
            counts.append(Sample("", labels, tally.count))
            times.setdefault(handler, Tally()).merge(tally)
    yield _family("http_requests_total", "counter", "Requests that reached a handler of the fleet", counts)
    samples = [sample for handler, tally in sorted(times.items()) for sample in _times(handler, tally)]
    yield _family("http_request_duration_microseconds", "summary", "Time until the answer began", samples)
    counters = parts.fleet.counters
    for name, about, found in (
        ("http_request_size_bytes", "Size of the body of a request", counters.request_sizes),
        ("http_response_size_bytes", "Size of the body of an answer", counters.response_sizes),
    ):
        bodies = [
            sample for handler, sizes in sorted(found.copy().items()) for sample in _sizes(sizes, {"handler": handler})
        ]
        yield _family(name, "summary", about, bodies)


def _sizes(sizes: Sizes, labels: dict[str, str]) -> Iterator[Sample]:
    for q, value in sizes.quantiles().items():
        yield Sample("", {**labels, "quantile": str(q)}, value)
    yield Sample("_sum", labels, sizes.sum_bytes)
    yield Sample("_count", labels, sizes.count)


def _times(handler: str, tally: Tally) -> Iterator[Sample]:
    for q in QUANTILES:
        yield Sample("", {"handler": handler, "quantile": str(q)}, round(tally.quantile_s(q) * 1e6))
    yield Sample("_sum", {"handler": handler}, round(tally.sum_s * 1e6))
    yield Sample("_count", {"handler": handler}, tally.count)


def _sweeps(counters: FleetCounters) -> Iterator[str]:
    found = sorted(counters.sweeps.items())
    passes = [Sample("", {"step": step}, each[0]) for step, each in found]
    changes = [Sample("", {"step": step}, each[1]) for step, each in found]
    seconds = [Sample("", {"step": step}, each[2]) for step, each in found]
    yield _family("arc_fleet_sweeps_total", "counter", "Passes of the fleet's sweeper", passes)
    yield _family("arc_fleet_sweep_changes_total", "counter", "What these passes changed or removed", changes)
    yield _family("arc_fleet_sweep_seconds_total", "counter", "Time these passes took", seconds)


def _plain(name: str, about: str, value: float) -> str:
    return _family(name, "counter", about, [Sample("", {}, value)])


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        shown = ",".join(f'{label}="{text}"' for label, text in labels.items())
        lines.append(f"{name}{suffix}{'{' + shown + '}' if shown else ''} {_number(value)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else str(float(value))
