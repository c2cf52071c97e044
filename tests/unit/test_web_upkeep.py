"""Compaction, retention, continuous queries and deletes over HTTP, as their clients see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from arc.access.audit import AuditTrail
from arc.access.tokens import TokenStore
from arc.fleet.service import Fleet
from arc.jobs.service import Jobs
from arc.web.application import create_app
from arc.web.parts import Parts
from tests.unit.rig import DAY, HOUR, NOW, Rig
from tests.unit.web import ADMIN, SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

POLICY = {"name": "p", "database": "default", "measurement": "cpu", "retention_days": 30}
QUERY = {
    "name": "q",
    "database": "default",
    "source_measurement": "cpu",
    "destination_measurement": "cpu_1h",
    "query": "SELECT host, count(*) AS n FROM default.cpu WHERE time >= {start_time} AND time < {end_time} GROUP BY 1",
    "interval": "1h",
}


class Api:
    """Requests of an administrator; `headers` may say otherwise."""

    def __init__(self, rig: Rig) -> None:
        tokens = TokenStore(rig.db)
        tokens.bootstrap(SECRET)
        self.rig = rig
        jobs = Jobs(rig.db, rig.config, rig.data_dir)  # its workers are not started
        fleet = Fleet(rig.db, rig.config, tokens, rig.store.write_lines)  # its sweeper is not started
        given = (rig.config, tokens, rig.store, rig.queries, None, None, rig.upkeep, jobs, fleet, AuditTrail(rig.db))
        parts = Parts(*given)  # type: ignore[arg-type]
        self.app = create_app(parts)
        self.client: FlaskClient = self.app.test_client()
        self.reader = {"Authorization": f"Bearer {tokens.create('reader', permissions=['read'])[1]}"}
        self.deleter = {"Authorization": f"Bearer {tokens.create('deleter', permissions=['delete'])[1]}"}

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] = ADMIN, status: int = 200) -> Any:
        answer: TestResponse = self.client.open(path, method=method, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.get_json()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Rig(tmp_path, **{"delete.enabled": "true"}) as rig:
        yield Api(rig)


# ------------------------------------------------------------------------------------------------ compaction


@pytest.mark.parametrize("prefix", ["/api/compaction", "/api/v1/compaction", "/compaction"])
def test_compaction_from_candidate_to_history(api: Api, prefix: str) -> None:
    api.rig.write_files(20)
    idle = api.ask("GET", f"{prefix}/status")
    assert idle["enabled"]
    assert not idle["running"]
    assert idle["schedulers"]["daily"]["schedule"] == "0 3 * * *"
    assert idle["scheduler"]["next_run"] == idle["schedulers"]["hourly"]["next_run"] >= idle["next_run"]
    assert "last_run" not in idle

    candidates = api.ask("GET", f"{prefix}/candidates")
    triggered = api.ask("POST", f"{prefix}/trigger?tier=hourly&database=default")
    refused = api.ask("POST", f"{prefix}/hourly", status=409)
    running = api.ask("GET", f"{prefix}/stats")
    api.rig.upkeep.compaction.step(NOW)

    assert candidates["count"] == candidates["total_candidates"] == 2
    assert [found["tier"] for found in candidates["candidates"]] == ["hourly", "daily"]
    first = candidates["candidates"][0]
    assert (first["partition_path"], first["file_count"], len(first["files"])) == ("default/cpu", 20, 20)
    assert first["eligible"]
    assert (triggered["message"], triggered["status"]) == ("Compaction triggered", "running")
    assert (triggered["tiers"], triggered["database"]) == (["hourly"], "default")
    assert refused["cycle_id"] == triggered["cycle_id"] == running["current_cycle_id"]
    assert running["cycle_running"]
    assert api.ask("GET", f"{prefix}/jobs") == {"active_jobs": 0, "jobs": []}
    history = api.ask("GET", f"{prefix}/history?limit=5")
    [job] = history["recent_jobs"]
    assert history["total_jobs"] == 1
    assert (job["status"], job["success"], job["files_compacted"], job["files_created"]) == ("completed", True, 20, 1)
    assert job["compression_ratio"] == round(1 - job["bytes_after"] / job["bytes_before"], 3) > 0
    stats = api.ask("GET", f"{prefix}/stats")
    assert (stats["total_jobs_completed"], stats["total_files_compacted"]) == (1, 20)
    assert [tier["total_compactions"] for tier in stats["tiers"]] == [1, 0]
    assert api.ask("GET", f"{prefix}/status")["stats"] == {"total_jobs": 1, "successful_jobs": 1, "failed_jobs": 0}
    assert api.ask("GET", f"{prefix}/candidates")["candidates"] == []


def test_compaction_refuses_what_it_does_not_know_or_may_not(api: Api, tmp_path: Path) -> None:
    api.ask("POST", "/api/compaction/trigger?tier=weekly", status=400)
    api.ask("POST", "/api/compaction/daily", headers=api.reader, status=403)
    api.ask("GET", "/api/compaction/history?limit=0", status=400)
    api.rig.write_files(1)
    for body in ({"database": "nosuch"}, {"database": "default", "measurement": "nosuch"}, {"measurement": "nosuch"}):
        assert "nosuch' not found" in api.ask("POST", "/api/compaction/trigger", body, status=404)["detail"]
    api.ask("POST", "/api/compaction/hourly", {"database": "DEFAULT", "measurement": "CPU"})
    with Rig(tmp_path / "off", **{"compaction.enabled": "false"}) as rig:
        off = Api(rig)
        assert off.ask("POST", "/api/compaction/trigger", status=503)["detail"].startswith("Compaction not initialized")
        assert not off.ask("GET", "/api/compaction/status")["enabled"]


# ------------------------------------------------------------------------------------------------- retention


def test_a_policy_from_creation_to_deletion(api: Api) -> None:
    path = "/api/v1/retention"
    api.rig.write(time=[NOW - 9000 * DAY, NOW + 9000 * DAY], v=[1.0, 2.0])

    created = api.ask("POST", path, POLICY, status=201)
    one = f"{path}/{created['id']}"
    planned = api.ask("POST", f"{one}/execute", {"dry_run": True})
    done = api.ask("POST", f"{one}/execute", {"confirm": True})

    assert created == {
        **POLICY,
        "id": created["id"],
        "buffer_days": 7,
        "is_active": True,
        "last_execution_time": None,
        "last_execution_status": None,
        "last_deleted_count": 0,
        "created_at": created["created_at"],
        "updated_at": created["created_at"],
    }
    assert (planned["deleted_count"], planned["dry_run"]) == (1, True)
    assert (done["deleted_count"], done["affected_measurements"]) == (1, ["cpu"])
    assert done["policy_name"] == "p"
    history = api.ask("GET", f"{one}/executions?limit=1")
    assert history["policy_id"] == created["id"]
    assert [(each["status"], each["deleted_count"]) for each in history["executions"]] == [("completed", 1)]
    changed = api.ask("PUT", one, {"duration": "60d", "measurement": None})
    assert (changed["retention_days"], changed["measurement"], changed["name"]) == (60, None, "p")
    assert changed["last_execution_status"] == "completed"
    assert api.ask("GET", f"{path}/") == [changed]
    assert api.ask("GET", one, headers=api.reader) == changed
    assert api.ask("DELETE", one) == {"message": "Retention policy deleted successfully"}
    assert api.ask("GET", one, status=404)["detail"] == "Retention policy not found"


def test_policies_come_bare_or_in_an_envelope(api: Api) -> None:
    assert api.ask("GET", "/api/v1/retention") == []
    enveloped = {"policies": [], "count": 0}
    assert api.ask("GET", "/api/v1/retention?envelope=1") == enveloped
    client = {**ADMIN, "User-Agent": "arc-client-python/1.2"}
    assert api.ask("GET", "/api/v1/retention", headers=client) == enveloped
    assert api.ask("GET", "/api/v1/continuous_queries/", headers=client) == {"queries": [], "count": 0}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({**POLICY, "retention_days": 7, "buffer_days": 7}, "send a buffer_days of 0 to 6, not 7"),
        ({**POLICY, "retention_days": 0}, "retention_days must be"),
        ({**POLICY, "duration": "36h"}, "whole days"),
        ({**POLICY, "duration": "long"}, "duration: "),
        ({"name": "p", "database": "default"}, "retention_days: Field required"),
        ({"database": "default", "retention_days": 30}, "name: Field required"),
    ],
)
def test_bad_policies_are_refused(api: Api, body: dict[str, Any], complaint: str) -> None:
    assert complaint in api.ask("POST", "/api/v1/retention", body, status=400)["detail"]


@pytest.mark.parametrize(("days", "buffer_days"), [(1, 0), (7, 6), (8, 7), (30, 7)])
def test_buffer_days_fit_the_retention_unless_given(api: Api, days: int, buffer_days: int) -> None:
    made = api.ask("POST", "/api/v1/retention", {**POLICY, "retention_days": days}, status=201)
    refused = api.ask("PUT", f"/api/v1/retention/{made['id']}", {"retention_days": 2, "buffer_days": 2}, status=400)

    assert made["buffer_days"] == buffer_days
    assert "send a buffer_days of 0 to 1, not 2" in refused["detail"]


def test_a_policy_for_what_is_not_there_yet_is_made_with_a_warning(api: Api) -> None:
    api.rig.write(time=[NOW], v=[1.0])
    path = "/api/v1/retention"

    typo = api.ask("POST", path, {**POLICY, "measurement": "cpuu"}, status=201)
    elsewhere = api.ask("POST", path, {**POLICY, "name": "q", "database": "nosuch", "measurement": None}, status=201)
    corrected = api.ask("PUT", f"{path}/{typo['id']}", {"measurement": "CPU"})

    assert typo["warning"] == "Measurement 'default.cpuu' does not exist yet; the policy will cover it"
    assert elsewhere["warning"] == "Database 'nosuch' does not exist yet; the policy will cover it"
    assert "warning" not in corrected


def test_removing_rows_wants_a_confirmation_and_an_administrator(api: Api) -> None:
    number = api.ask("POST", "/api/v1/retention", POLICY, status=201)["id"]
    one = f"/api/v1/retention/{number}"

    assert "Confirmation required" in api.ask("POST", f"{one}/execute", {}, status=400)["detail"]
    for method, path in (("POST", f"{one}/execute"), ("PUT", one), ("DELETE", one), ("POST", "/api/v1/retention")):
        api.ask(method, path, POLICY, headers=api.reader, status=403)
    api.ask("PUT", one, {"is_active": False})
    assert api.ask("POST", f"{one}/execute", {"confirm": True}, status=400)["detail"].endswith("not active")


# ---------------------------------------------------------------------------------------- continuous queries


def test_a_continuous_query_from_creation_to_deletion(api: Api) -> None:
    path = "/api/v1/continuous_queries"
    api.rig.write(time=[NOW, NOW + 1, NOW + HOUR], host=["a", "a", "b"])
    window = {"start_time": "2025-10-19T12:00:00Z", "end_time": "2025-10-19T13:00:00Z"}

    created = api.ask("POST", path, {**QUERY, "tag_columns": ["host"]}, status=201)
    one = f"{path}/{created['id']}"
    planned = api.ask("POST", f"{one}/execute", {**window, "dry_run": True})
    done = api.ask("POST", f"{one}/execute", window)

    assert created["is_active"]
    assert (created["tag_columns"], created["retention_days"], created["last_processed_time"]) == (["host"], None, None)
    assert (planned["status"], planned["records_written"]) == ("dry_run", 1)
    assert "'2025-10-19T13:00:00Z'" in planned["executed_query"]
    assert (done["status"], done["records_written"], done["records_read"]) == ("completed", 1, None)
    assert done["execution_id"].startswith("cq-exec-")
    assert (done["start_time"], done["end_time"]) == (window["start_time"], window["end_time"])
    assert "executed_query" not in done
    assert api.rig.query("SELECT host, n FROM cpu_1h") == [("a", 2)]
    [execution] = api.ask("GET", f"{one}/executions")["executions"]
    assert (execution["execution_id"], execution["records_written"]) == (done["execution_id"], 1)
    changed = api.ask("PUT", one, {"interval": "5m", "retention_days": 9})
    assert (changed["interval"], changed["retention_days"], changed["query"]) == ("5m", 9, QUERY["query"])
    assert changed["last_processed_time"] == window["end_time"]
    assert api.ask("PUT", one, {"retention_days": None})["retention_days"] is None
    assert [each["id"] for each in api.ask("GET", f"{path}?database=default&is_active=true")] == [created["id"]]
    assert api.ask("GET", f"{path}?is_active=false") == []
    api.ask("DELETE", f"{one}?delete_destination=true")
    assert api.rig.query("SELECT * FROM cpu_1h") == []
    assert api.ask("GET", one, status=404)["detail"] == "Continuous query not found"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({**QUERY, "query": "SELECT {start_time} FROM cpu"}, "both {start_time} and {end_time}"),
        ({**QUERY, "interval": "soon"}, "interval: "),
        ({**QUERY, "interval": "5s"}, "interval must be at least 10s"),
        ({name: value for name, value in QUERY.items() if name != "interval"}, "interval: Field required"),
        ({**QUERY, "tag_columns": ["time"]}, 'tag column "time" is reserved'),
        ({**QUERY, "retention_days": 0}, "retention_days"),
    ],
)
def test_bad_continuous_queries_are_refused(api: Api, body: dict[str, Any], complaint: str) -> None:
    assert complaint in api.ask("POST", "/api/v1/continuous_queries", body, status=400)["detail"]


def test_a_continuous_query_over_nothing_is_made_with_a_warning(api: Api) -> None:
    made = api.ask("POST", "/api/v1/continuous_queries", QUERY, status=201)
    api.rig.write(time=[NOW], host=["a"])
    changed = api.ask("PUT", f"/api/v1/continuous_queries/{made['id']}", {"description": "now with a source"})

    assert made["warning"].startswith("Measurement 'default.cpu' does not exist yet")
    assert "warning" not in changed


def test_a_bad_window_is_refused(api: Api) -> None:
    number = api.ask("POST", "/api/v1/continuous_queries", QUERY, status=201)["id"]
    path = f"/api/v1/continuous_queries/{number}/execute"

    assert "start_time" in api.ask("POST", path, {"start_time": "yesterday"}, status=400)["detail"]
    window = {"start_time": "2025-10-19T12:00:00Z", "end_time": "2025-10-19T12:00:00Z"}
    assert "before end_time" in api.ask("POST", path, window, status=400)["detail"]


def test_the_schedulers_tell_and_can_be_pushed(api: Api) -> None:
    api.ask("POST", "/api/v1/continuous_queries", QUERY, status=201)

    found = api.ask("GET", "/api/v1/schedulers", headers=api.reader)

    assert found["cq_scheduler"] == {"enabled": True, "running": False, "job_count": 1}
    assert found["retention_scheduler"]["schedule"] == "0 3 * * *"
    assert api.ask("POST", "/api/v1/schedulers/cq/reload")["job_count"] == 1
    pushed = api.ask("POST", "/api/v1/schedulers/retention/trigger")
    assert pushed == {"message": "Retention triggered successfully"}
    api.ask("POST", "/api/v1/schedulers/retention/trigger", headers=api.reader, status=403)


def test_a_push_of_retention_that_is_switched_off_wants_a_confirmation(tmp_path: Path) -> None:
    with Rig(tmp_path, **{"retention.enabled": "false"}) as rig:
        api, path = Api(rig), "/api/v1/schedulers/retention/trigger"
        rig.write(time=[NOW - 9000 * DAY, NOW], v=[1.0, 2.0])
        api.ask("POST", "/api/v1/retention", POLICY, status=201)

        assert "Set confirm=true" in api.ask("POST", path, status=400)["detail"]
        assert rig.upkeep.retention.step(NOW) == 0
        api.ask("POST", path, {"confirm": True})
        assert rig.upkeep.retention.step(NOW) == 1


# ------------------------------------------------------------------------------------------------------ delete


def test_a_delete_is_previewed_confirmed_and_done(api: Api) -> None:
    api.rig.write_files(2)
    body = {"database": "default", "measurement": "cpu", "where": "n < 15"}

    planned = api.ask("POST", "/api/v1/delete", {**body, "dry_run": True}, headers=api.deleter)
    refused = api.ask("POST", "/api/v1/delete", body, headers=api.deleter, status=400)
    done = api.ask("POST", "/api/v1/delete", {**body, "confirm": True}, headers=api.deleter)

    for answer in (planned, done):
        assert answer["success"]
        assert (answer["deleted_count"], answer["affected_files"], answer["rewritten_files"]) == (15, 2, 1)
        assert len(answer["files_processed"]) == 2
        assert answer["error"] is None
    assert "Confirmation required" in refused["detail"]
    assert not refused["success"]
    assert api.rig.query("SELECT count(*) FROM cpu") == [(5,)]


def test_deletes_need_permission_a_condition_and_the_option(api: Api, tmp_path: Path) -> None:
    body = {"database": "default", "measurement": "cpu", "where": "n < 15", "dry_run": True}
    api.ask("POST", "/api/v1/delete", body, headers=api.reader, status=403)
    api.ask("POST", "/api/v1/delete", {**body, "where": ""}, status=400)
    api.ask("POST", "/api/v1/delete", {"database": "default", "measurement": "cpu"}, status=400)
    api.ask("POST", "/api/v1/delete", body, status=404)
    with Rig(tmp_path / "off") as rig:
        off = Api(rig)
        denied = off.ask("POST", "/api/v1/delete", body, status=403)
        assert denied["detail"].startswith("Delete operations are disabled. Set delete.enabled=true")
        assert not off.ask("GET", "/api/v1/delete/config")["enabled"]
    told = api.ask("GET", "/api/v1/delete/config", headers=api.reader)
    assert (told["confirmation_threshold"], told["max_rows_per_delete"]) == (10_000, 1_000_000)
    assert told["implementation"] == "rewrite-based"


# ----------------------------------------------------------------------------------------------------- figures


def test_what_upkeep_did_is_counted(api: Api) -> None:
    api.rig.write_files(20)
    number = api.ask("POST", "/api/v1/continuous_queries", QUERY, status=201)["id"]
    window = {"start_time": "2025-10-19T12:00:00Z", "end_time": "2025-10-19T13:00:00Z"}
    policy = api.ask("POST", "/api/v1/retention", POLICY, status=201)["id"]

    api.rig.compact("hourly")
    for dry_run in (True, False):
        api.ask("POST", f"/api/v1/continuous_queries/{number}/execute", {**window, "dry_run": dry_run})
        api.ask("POST", f"/api/v1/retention/{policy}/execute", {"confirm": True, "dry_run": dry_run})

    found = api.ask("GET", "/api/v1/metrics")
    assert (found["compaction_jobs_total"], found["compaction_jobs_failed_total"]) == (1, 0)
    assert (found["compaction_files_merged_total"], found["compaction_files_written_total"]) == (20, 1)
    assert found["compaction_bytes_merged_total"] > found["compaction_bytes_written_total"] > 0
    assert (found["retention_executions_total"], found["retention_records_deleted_total"]) == (1, 200)
    assert (found["continuous_query_executions_total"], found["continuous_query_records_written_total"]) == (1, 3)
    assert api.ask("GET", "/metrics/endpoints")["retention"]["failures_total"] == 0


# ---------------------------------------------------------------------------------------------------- audit trail


def test_what_removes_rows_is_in_the_audit_trail(api: Api) -> None:
    api.rig.write_files(1)
    policy_id = api.ask("POST", "/api/v1/retention", POLICY, status=201)["id"]
    api.ask("POST", f"/api/v1/retention/{policy_id}/execute", {"dry_run": True})
    api.ask("PUT", f"/api/v1/retention/{policy_id}", {"is_active": False})
    api.ask("DELETE", f"/api/v1/retention/{policy_id}")
    query_id = api.ask("POST", "/api/v1/continuous_queries", QUERY, status=201)["id"]
    api.ask("DELETE", f"/api/v1/continuous_queries/{query_id}")
    gone = {"database": "default", "measurement": "cpu", "where": "host = 'h1'", "confirm": True}
    api.ask("POST", "/api/v1/delete", gone)
    api.ask("DELETE", "/api/v1/databases/default?confirm=true", headers=api.deleter, status=403)
    api.ask("DELETE", "/api/v1/databases/default?confirm=true")

    entries = api.ask("GET", "/api/v1/audit")["entries"]
    assert [(entry["action"], entry["object"], entry["status"]) for entry in reversed(entries)] == [
        ("retention.create", str(policy_id), 201),
        ("retention.run", str(policy_id), 200),
        ("retention.update", str(policy_id), 200),
        ("retention.delete", str(policy_id), 200),
        ("continuous_query.create", str(query_id), 201),
        ("continuous_query.delete", str(query_id), 200),
        ("rows.delete", "default.cpu", 200),
        ("database.drop", "default", 403),
        ("database.drop", "default", 200),
    ]
    assert entries[2]["details"] == {"rows": 3, "dry_run": False}
    assert "h1" not in str(entries)
