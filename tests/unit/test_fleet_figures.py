"""The Prometheus families of the remote agents API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from arc.web.fleet_figures import fleet_text
from tests.unit.web import ADMIN, WebApp

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client.metrics_core import Metric


def families(web: WebApp) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(fleet_text(web.parts).decode())}


def test_families_have_the_names_and_types_of_the_original(tmp_path: Path) -> None:
    with WebApp(tmp_path) as web:
        text = fleet_text(web.parts).decode()

    for name, kind in (
        ("arc_job_executed", "counter"),
        ("arc_job_succeeded", "counter"),
        ("arc_job_failed", "counter"),
        ("arc_job_expired", "counter"),
        ("arc_job_log_size_bytes", "summary"),
        ("arc_api_mqtt_message_duration_seconds", "histogram"),
        ("http_requests_total", "counter"),
        ("http_request_duration_microseconds", "summary"),
        ("http_request_size_bytes", "summary"),
        ("http_response_size_bytes", "summary"),
    ):
        assert f"# TYPE {name} {kind}\n" in text
    assert "arc_job_executed 0.0\n" in text
    assert 'arc_job_log_size_bytes{quantile="0.5"} NaN\n' in text


def test_requests_count_by_handler_and_refused_ones_do_not(tmp_path: Path) -> None:
    with WebApp(tmp_path) as web:
        for headers in (ADMIN, {}, web.token("agent")):
            web.client.get("/api/v1/agents", headers=headers)
        web.client.get("/api/v1/agents/no-such", headers=ADMIN)

        samples = {(s.labels["handler"], s.labels["code"]): s.value for s in families(web)["http_requests"].samples}

    assert samples == {("Agents", "200"): 1, ("Agent", "404"): 1}


def test_sizes_of_logs_have_quantiles(tmp_path: Path) -> None:
    with WebApp(tmp_path) as web:
        for size_bytes in range(100):
            web.parts.fleet.counters.log_sizes.add(size_bytes)

        samples = families(web)["arc_job_log_size_bytes"].samples

    assert [sample.value for sample in samples] == [50, 90, 99, 4950, 100]


def test_bodies_are_measured_by_handler_and_those_of_refused_requests_are_not(tmp_path: Path) -> None:
    with WebApp(tmp_path) as web:
        refused = web.client.post("/api/v1/jobs", data=b"{}", headers=web.token("read"))
        answer = web.client.post("/api/v1/jobs", data=b"{", headers=ADMIN)

        found = families(web)

    assert (refused.status_code, answer.status_code) == (403, 400)
    for name, size in (("http_request_size_bytes", 1), ("http_response_size_bytes", len(answer.data))):
        samples = {(s.name.removeprefix(name), s.labels["handler"]): s.value for s in found[name].samples}
        assert samples == {("", "Execute Job"): size, ("_sum", "Execute Job"): size, ("_count", "Execute Job"): 1}
