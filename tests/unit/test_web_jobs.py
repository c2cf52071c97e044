"""Jobs over HTTP, on a real database; the test itself is the worker."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from arc import clock
from arc.jobs.records import NodeReport
from tests.unit.web import ADMIN, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from werkzeug.test import TestResponse

YAML = {"Content-Type": "text/yaml"}
NODE = "node-1"
SECRET = "p4ssw0rd-of-the-user"
DOCUMENT: dict[str, Any] = {
    "name": "report",
    "tags": ["nightly", "a b"],
    "inputs": {"day": "2024-05-01", "empty": ""},
    "output": "{{ tasks.rows }} rows",
    "defaults": {"timeout": "15m"},
    "tasks": [
        {"name": "count {{ inputs.day }}", "var": "rows", "run": "x", "env": {"A": ""}},
        {"name": "send", "run": "y", "retry": {"limit": 1}},
    ],
}


class JobsApp(WebApp):
    """Requests by an administrator, and the steps of a worker."""

    def ask(self, method: str, path: str, **more: Any) -> TestResponse:
        headers = {**ADMIN, **more.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **more)

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def submit(self, document: Mapping[str, Any] | None = None, **changes: Any) -> Any:
        answer = self.ask("POST", "/jobs", json={**(document or DOCUMENT), **changes})
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def start(self) -> None:
        """What was submitted gets its first task."""
        self.parts.jobs.coordinator.starter.step(clock.now_us())

    def until_submitted(self) -> None:
        """Until another thread's job is there."""
        deadline = time.monotonic() + 20
        while self.get("/jobs")["totalItems"] == 0:
            assert time.monotonic() < deadline

    def claim(self, queue: str = "default") -> Any:
        claim = self.parts.jobs.coordinator.claim(NODE, queue, ["process", "container"])
        assert claim is not None
        return claim

    def complete(self, result: str = "", log: str = "") -> None:
        claim = self.claim()
        if log:
            assert self.parts.jobs.coordinator.log(claim.claim_id, claim.task.id, log)
        assert self.parts.jobs.coordinator.complete(claim.claim_id, claim.task.id, result)

    def fail(self, error: str) -> None:
        claim = self.claim()
        assert self.parts.jobs.coordinator.fail(claim.claim_id, claim.task.id, error)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[JobsApp]:
    with JobsApp(tmp_path) as app:
        yield app


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobsApp]:
    """An application with twelve jobs; tests only look at it."""
    with JobsApp(tmp_path_factory.mktemp("twelve")) as app:
        for number in range(12):
            app.submit(name=f"job {number}")
        yield app


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobsApp]:
    """An application with two jobs to search for."""
    with JobsApp(tmp_path_factory.mktemp("two")) as app:
        app.submit(name="videos", description="Transcodes the lot", tags=["media"])
        app.submit(name="my-big-job", tags=["x"])
        yield app


def refusal(answer: TestResponse, status: int) -> str:
    found = answer.get_json()
    assert answer.status_code == found["status"] == status, answer.text
    assert found["message"] == found["detail"] == found["error"]
    return str(found["message"])


# --- submit


def test_a_submitted_job_is_summed_up(web: JobsApp) -> None:
    found = web.submit()

    assert re.fullmatch("[0-9a-f]{32}", found.pop("id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?Z", found.pop("createdAt"))
    assert found == {
        "name": "report",
        "tags": ["nightly", "a b"],
        "inputs": {"day": "2024-05-01", "empty": ""},
        "state": "PENDING",
        "createdBy": {"name": "admin", "username": "admin"},
        "position": 0,
        "taskCount": 2,
    }


@pytest.mark.parametrize("kind", ["text/yaml", "application/x-yaml", "Text/YAML; charset=utf-8"])
def test_a_job_may_be_yaml(web: JobsApp, kind: str) -> None:
    body = "name: a\ntasks: [{name: t, image: 'alpine:3.20', env: {V: 1.10}}]\n"

    found = web.ask("POST", "/jobs", data=body, headers={"Content-Type": kind}).get_json()

    assert web.get(f"/jobs/{found['id']}")["tasks"] == [{"name": "t", "image": "alpine:3.20", "env": {"V": "1.10"}}]


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (b"{}", {"Content-Type": "application/pdf"}, "unknown content type: application/pdf"),
        (b"{}", {}, "missing content type"),
        (b"name: a\ntasks:\n  - name: t\n    nosuch: 1\n", YAML, "line 4: tasks[0].nosuch: unknown field"),
        (b"{", {"Content-Type": "application/json"}, "line 1, column 2"),
        (b"name: a", YAML, "Key: 'Job.Tasks' Error:Field validation for 'Tasks' failed on the 'required' tag"),
        (b"name: a\ntasks: [{name: t, parallel: {tasks: [{name: c}]}}]", YAML, "not available yet: tasks[0].parallel"),
    ],
)
def test_a_bad_document_is_refused_and_not_stored(twelve: JobsApp, body: bytes, headers: Any, text: str) -> None:
    assert text in refusal(twelve.ask("POST", "/jobs", data=body, headers=headers), 400)
    assert twelve.get("/jobs")["totalItems"] == 12


@pytest.mark.parametrize(("size", "status"), [(500_000, 200), (500_001, 413)])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_document_has_a_largest_size(web: JobsApp, size: int, status: int, is_chunked: bool) -> None:
    body = b'{"name": "a", "tasks": [{"name": "t", "run": "x"}]}'.ljust(size)
    chunked = {"environ_overrides": {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}} if is_chunked else {}

    answer = web.ask("POST", "/jobs", data=body, headers={"Content-Type": "application/json"}, **chunked)

    assert answer.status_code == status
    if status == 413:
        assert refusal(answer, 413) == "the document is larger than 500000 bytes ([jobs] max_document_size)"


def test_processes_are_for_administrators_and_containers_for_writers(web: JobsApp) -> None:
    writer = web.token("write")
    container = {"name": "a", "tasks": [{"name": "t", "image": "alpine:3.20"}]}

    refused = web.client.post("/jobs", json=DOCUMENT, headers=writer)
    again = web.client.put(f"/jobs/{web.submit()['id']}/restart", headers=writer)
    taken = web.client.post("/jobs", json=container, headers=writer)

    assert "tasks without an image run as processes" in refusal(refused, 403)
    assert "tasks without an image run as processes" in refusal(again, 403)
    assert taken.status_code == 200
    assert taken.get_json()["createdBy"] == {"name": "only-write", "username": "only-write"}


def test_reading_needs_read_and_changing_needs_write(web: JobsApp) -> None:
    job_id = web.submit()["id"]
    reader, writer = web.token("read"), web.token("write")

    assert web.client.get(f"/jobs/{job_id}", headers=reader).status_code == 200
    assert web.client.get(f"/jobs/{job_id}", headers=writer).status_code == 403
    assert web.client.delete(f"/jobs/{job_id}", headers=reader).status_code == 403
    assert web.client.delete(f"/jobs/{job_id}", headers=writer).status_code == 409


def test_where_no_token_is_asked_for_no_process_may_run(tmp_path: Path) -> None:
    with JobsApp(tmp_path, **{"auth.allowlist": "/jobs"}) as web:
        container = {"name": "a", "tasks": [{"name": "t", "image": "alpine:3.20"}]}

        assert web.client.post("/jobs", json=container).get_json()["createdBy"]["name"] == "anonymous"
        assert web.client.post("/jobs", json=DOCUMENT).status_code == 403


# --- wait


def test_waiting_gives_all_of_the_ended_job(web: JobsApp) -> None:
    answers: list[TestResponse] = []
    body = {**DOCUMENT, "wait": {"timeout": "20s"}, "tasks": DOCUMENT["tasks"][:1]}
    waiting = threading.Thread(target=lambda: answers.append(web.ask("POST", "/jobs", json=body)))

    waiting.start()
    web.until_submitted()
    web.start()
    web.complete("7")
    waiting.join(20)

    found = answers[0].get_json()
    assert (found["state"], found["result"], len(found["execution"])) == ("COMPLETED", "7 rows", 1)
    assert "wait" not in found


def test_a_wait_that_is_too_short_names_the_job(web: JobsApp) -> None:
    answer = web.ask("POST", "/jobs", json={**DOCUMENT, "wait": {"timeout": "1ms"}})

    assert refusal(answer, 408) == "timeout waiting for job to complete"
    assert web.get(f"/jobs/{answer.get_json()['id']}")["state"] == "PENDING"


@pytest.mark.parametrize("timeout", ["", "zz"])
def test_a_wait_needs_a_duration(twelve: JobsApp, timeout: str) -> None:
    answer = twelve.ask("POST", "/jobs", json={"wait": {"timeout": timeout}})

    assert refusal(answer, 400) == f'time: invalid duration "{timeout}"'


def test_only_so_many_clients_may_wait(tmp_path: Path) -> None:
    with JobsApp(tmp_path, **{"jobs.wait_slots": "0"}) as web:
        answer = web.ask("POST", "/jobs", json={**DOCUMENT, "wait": {"timeout": "1s"}})

        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert web.get("/jobs")["totalItems"] == 0  # so the client may try again


def test_nobody_waits_for_a_client_that_left(web: JobsApp) -> None:
    body = {**DOCUMENT, "wait": {"timeout": "1h"}}

    answer = web.ask("POST", "/jobs", json=body, environ_overrides={"waitress.client_disconnected": lambda: True})

    assert answer.status_code == 409
    assert web.get("/jobs")["totalItems"] == 1


def test_a_stop_of_the_server_ends_all_waits(web: JobsApp) -> None:
    web.parts.jobs.coordinator.stop()

    answer = web.ask("POST", "/jobs", json={**DOCUMENT, "wait": {"timeout": "1h"}})

    assert refusal(answer, 503) == "server shutting down"


# --- list and search


@pytest.mark.parametrize(
    ("asked", "number", "size", "names"),
    [
        ("", 1, 10, ["job 11", "job 10", "job 9"]),
        ("?page=&size=", 1, 10, ["job 11", "job 10", "job 9"]),
        ("?page=2", 2, 2, ["job 1", "job 0"]),
        ("?page=2&page=1&size=%2B5", 2, 5, ["job 6", "job 5"]),
        ("?size=100", 1, 12, ["job 11"]),
        ("?size=0", 1, 1, ["job 11"]),
        ("?page=-3&size=-1", 1, 1, ["job 11"]),
        ("?page=99", 99, 0, []),
        (f"?page={2**63 - 1}", 2**63 - 1, 0, []),
    ],
)
def test_pages_of_jobs(twelve: JobsApp, asked: str, number: int, size: int, names: list[str]) -> None:
    found = twelve.get(f"/jobs{asked}")

    assert (found["number"], found["size"], found["totalItems"]) == (number, size, 12)
    assert len(found["items"]) == size
    assert [item["name"] for item in found["items"]][: len(names)] == names


def test_pages_are_counted_by_the_size_that_was_asked_for(web: JobsApp) -> None:
    assert web.get("/jobs") == {"items": [], "number": 1, "size": 0, "totalPages": 0, "totalItems": 0}
    for _ in range(3):
        web.submit()

    assert web.get("/jobs?size=2&page=2")["totalPages"] == 2


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("page=abc", "invalid page number: abc"),
        ("page=1.5", "invalid page number: 1.5"),
        ("page=%20", "invalid page number:  "),
        (f"page={2**63}", f"invalid page number: {2**63}"),
        ("size=abc", "invalid size: abc"),
        ("page=2&size=1_0", "invalid size: 1_0"),
    ],
)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/x/log", "/tasks/x/log"])
def test_numbers_of_pages_are_integers(twelve: JobsApp, path: str, asked: str, text: str) -> None:
    assert refusal(twelve.ask("GET", f"{path}?{asked}"), 404) == text


@pytest.mark.parametrize(
    ("q", "names"),
    [
        ("", ["my-big-job", "videos"]),
        ("video", ["videos"]),
        ("VIDEO transcode", ["videos"]),
        ("video big", []),
        ("big", ["my-big-job"]),
        ("pending", ["my-big-job", "videos"]),
        ("the", []),
        ("tag:media", ["videos"]),
        ("tags:media,x", ["my-big-job", "videos"]),
        ("tag:Media", []),
        ("TAG:media", []),
        ("tag:", []),
        ("tag:media big", []),
        ("%22transcodes%22 |", ["videos"]),
    ],
)
def test_jobs_are_found_by_words_and_tags(two: JobsApp, q: str, names: list[str]) -> None:
    assert [item["name"] for item in two.get(f"/jobs?q={q}")["items"]] == names


# --- details


def test_details_of_a_job_that_has_run(web: JobsApp) -> None:
    job_id = web.submit(autoDelete={"after": "72h"})["id"]
    web.start()
    web.complete("7")
    web.complete()

    found = web.get(f"/jobs/{job_id}")

    first, second = found["execution"]
    assert found["tasks"] == DOCUMENT["tasks"]
    assert found["context"] == {
        "job": {"id": job_id, "name": "report"},
        "inputs": {"day": "2024-05-01", "empty": ""},
        "tasks": {"rows": "7"},
    }
    assert (found["state"], found["position"], found["progress"], found["result"]) == ("COMPLETED", 3, 100.0, "7 rows")
    assert {"completedAt", "deleteAt", "startedAt"} <= found.keys()
    assert not {"failedAt", "error", "secrets", "webhooks", "parentId", "schedule"} & found.keys()
    assert (first["name"], first["result"], first["env"]) == ("count 2024-05-01", "7", {"A": ""})
    assert (first["timeout"], first["queue"], first["nodeId"], first["position"]) == ("15m", "default", NODE, 1)
    assert second["retry"] == {"limit": 1}
    assert web.get(f"/tasks/{first['id']}") == first


def test_attempts_and_the_error_of_a_failed_job(web: JobsApp) -> None:
    job_id = web.submit(tasks=DOCUMENT["tasks"][1:])["id"]
    web.start()
    web.fail("exit code 7: a")
    web.fail("exit code 8: b")

    found = web.get(f"/jobs/{job_id}")

    assert (found["state"], found["error"]) == ("FAILED", "exit code 8: b")
    assert [task["retry"] for task in found["execution"]] == [{"limit": 1}, {"limit": 1, "attempts": 1}]
    assert [task["error"] for task in found["execution"]] == ["exit code 7: a", "exit code 8: b"]


def test_what_was_answered_may_be_submitted_again(web: JobsApp) -> None:
    found = web.get(f"/jobs/{web.submit()['id']}")

    kept = ("name", "description", "tags", "inputs", "secrets", "output", "tasks", "defaults", "webhooks")
    again = web.submit({key: found[key] for key in kept if key in found})

    assert web.get(f"/jobs/{again['id']}")["tasks"] == found["tasks"]


@pytest.mark.parametrize("path", ["/jobs/x", "/jobs/x/log", "/jobs/x/events", "/tasks/x", "/tasks/x/log", "/queues/x"])
def test_what_is_unknown_is_404(twelve: JobsApp, path: str) -> None:
    assert refusal(twelve.ask("GET", path), 404)


@pytest.mark.parametrize("path", ["/jobs", "/queues", "/nodes"])
def test_paths_follow_the_conventions_of_all_routes(twelve: JobsApp, path: str) -> None:
    assert twelve.ask("GET", f"{path}/").status_code == 200
    assert twelve.ask("HEAD", path).status_code == 200
    assert twelve.ask("OPTIONS", path).status_code == 200
    refused = twelve.ask("PATCH", path)
    assert refused.status_code == 405
    assert "GET" in refused.headers["Allow"]


# --- secrets


def test_a_secret_is_in_no_answer(web: JobsApp) -> None:
    task = {"run": f"echo {SECRET}", "env": {"T": "{{ secrets.token }}"}, "files": {"f": SECRET}}
    submitted = web.ask(
        "POST",
        "/jobs",
        json={
            "name": f"a {SECRET}",
            "description": SECRET,
            "secrets": {"token": SECRET},
            "inputs": {"url": f"https://x/{SECRET}", "db_password": "hunter2"},
            "output": "{{ secrets.token }}",
            "tasks": [{"name": "one {{ secrets.token }}", "var": "v", **task}, {"name": "two", **task}],
        },
    )
    job_id = submitted.get_json()["id"]
    web.start()
    web.complete(f"found {SECRET}", log=f"trying {SECRET}\n")
    web.fail(f"exit code 1: {SECRET}")

    task_ids = [found["id"] for found in web.get(f"/jobs/{job_id}")["execution"]]
    paths = ["/jobs", f"/jobs/{job_id}", f"/jobs/{job_id}/log", f"/jobs/{job_id}/events", "/queues", "/metrics"]
    paths += [f"/tasks/{task_id}{end}" for task_id in task_ids for end in ("", "/log")]

    for text in [submitted.text, *(web.ask("GET", path).text for path in paths)]:
        assert SECRET not in text
        assert "hunter2" not in text
    assert web.get(f"/jobs/{job_id}/log")["items"][0]["contents"] == "trying [REDACTED]\n"
    assert web.get(f"/jobs/{job_id}")["secrets"] == {"token": "[REDACTED]"}


def test_a_secret_is_not_in_the_answer_to_who_waits(web: JobsApp) -> None:
    body = {"name": "a", "secrets": {"s": SECRET}, "tasks": [{"name": "t", "env": {"A": "{{ secrets.nosuch( }}"}}]}
    body["inputs"] = {"i": SECRET}
    answers: list[TestResponse] = []
    waiting = threading.Thread(
        target=lambda: answers.append(web.ask("POST", "/jobs", json={**body, "wait": {"timeout": "20s"}}))
    )

    waiting.start()
    web.until_submitted()
    web.start()
    waiting.join(20)

    assert answers[0].get_json()["state"] == "FAILED"
    assert SECRET not in answers[0].text


def test_jobs_sealed_with_another_key_are_shown_without_their_content(tmp_path: Path) -> None:
    with JobsApp(tmp_path, **{"jobs.encryption_key": "one"}) as web:
        job_id = web.submit(secrets={"token": SECRET})["id"]
        web.start()
        web.complete("7", log="fine\n")
    with JobsApp(tmp_path, **{"jobs.encryption_key": "other"}) as web:
        listed, found = web.get("/jobs")["items"][0], web.get(f"/jobs/{job_id}")
        task = found["execution"][0]

        assert (listed["id"], listed["name"], listed["state"]) == (job_id, "report", "RUNNING")
        assert (found["tasks"], found["context"]["job"]["name"]) == ([], "report")
        assert (task["state"], task["result"]) == ("COMPLETED", "[encrypted]")
        assert web.get(f"/tasks/{task['id']}") == task
        assert web.get(f"/jobs/{job_id}/log")["items"][0]["contents"] == "fine\n"


# --- logs and events


def test_a_log_is_paged_newest_first(web: JobsApp) -> None:
    job_id = web.submit()["id"]
    web.start()
    claim = web.claim()
    for number in range(1, 31):
        assert web.parts.jobs.coordinator.log(claim.claim_id, claim.task.id, f"line {number}\n")

    by_job, by_task = f"/jobs/{job_id}/log", f"/tasks/{claim.task.id}/log"

    for path in (by_job, by_task):
        found = web.get(path)
        assert [part["number"] for part in found["items"]] == list(range(30, 5, -1))
        assert (found["totalPages"], found["totalItems"]) == (2, 30)
        assert found["items"][0]["contents"] == "line 30\n"
        assert found["items"][0]["taskId"] == claim.task.id
        assert web.get(f"{path}?size=1000")["size"] == 30
        assert [part["number"] for part in web.get(f"{path}?page=30&size=1")["items"]] == [1]
    assert [part["number"] for part in web.get(f"{by_task}?q=17 tag:x")["items"]] == [17]


def test_every_change_is_told(web: JobsApp) -> None:
    job_id = web.submit(tasks=DOCUMENT["tasks"][:1])["id"]
    web.start()
    web.complete("7")

    found = web.get(f"/jobs/{job_id}/events")["items"]

    of_job = [(each.get("oldState"), each["newState"]) for each in found if "taskId" not in each]
    of_task = [(each.get("oldState"), each["newState"]) for each in found if "taskId" in each]
    assert of_job == [(None, "PENDING"), ("PENDING", "SCHEDULED"), ("SCHEDULED", "RUNNING"), ("RUNNING", "COMPLETED")]
    assert of_task == [(None, "SCHEDULED"), ("SCHEDULED", "RUNNING"), ("RUNNING", "COMPLETED")]
    assert {each["nodeId"] for each in found if each.get("taskId") and each["newState"] == "RUNNING"} == {NODE}


# --- cancel, restart, delete


def test_cancel_stops_what_is_under_way(web: JobsApp) -> None:
    job_id = web.submit()["id"]
    web.start()
    claim = web.claim()

    assert web.ask("PUT", f"/jobs/{job_id}/cancel").get_json() == {"status": "OK"}

    found = web.get(f"/jobs/{job_id}")
    assert found["state"] == found["execution"][0]["state"] == "CANCELLED"
    assert not {"completedAt", "failedAt"} & found.keys()
    assert not web.parts.jobs.coordinator.complete(claim.claim_id, claim.task.id, "too late")


def test_only_what_is_under_way_can_be_cancelled(web: JobsApp) -> None:
    pending = web.submit()["id"]
    assert refusal(web.ask("PUT", f"/jobs/{pending}/cancel"), 400) == "job is not running"
    web.start()
    web.ask("PUT", f"/jobs/{pending}/cancel")

    assert refusal(web.ask("PUT", f"/jobs/{pending}/cancel"), 400) == "job is not running"
    assert refusal(web.ask("PUT", "/jobs/nosuch/cancel"), 404)


def test_restart_goes_on_where_the_job_stopped(web: JobsApp) -> None:
    job_id = web.submit()["id"]
    web.start()
    web.complete("7")
    web.fail("no")
    web.fail("no")
    assert web.get(f"/jobs/{job_id}")["state"] == "FAILED"

    assert web.ask("PUT", f"/jobs/{job_id}/restart").get_json() == {"status": "OK"}
    assert web.get(f"/jobs/{job_id}")["state"] == "RUNNING"
    web.complete()

    found = web.get(f"/jobs/{job_id}")
    assert (found["state"], found["result"]) == ("COMPLETED", "7 rows")
    assert [task["position"] for task in found["execution"]] == [1, 2, 2, 2]


def test_a_job_that_cannot_go_on_is_not_restarted(web: JobsApp) -> None:
    job_id = web.submit(tasks=DOCUMENT["tasks"][:1], output="{{ fromJSON(tasks.rows) }}")["id"]
    web.start()
    assert refusal(web.ask("PUT", f"/jobs/{job_id}/restart"), 400) == "job is SCHEDULED and can not be restarted"
    web.complete("{")

    assert web.get(f"/jobs/{job_id}")["state"] == "FAILED"
    assert refusal(web.ask("PUT", f"/jobs/{job_id}/restart"), 400) == "job has no more tasks to run"
    assert refusal(web.ask("PUT", "/jobs/nosuch/restart"), 404)


def test_only_ended_jobs_are_deleted(web: JobsApp) -> None:
    job_id = web.submit()["id"]
    web.start()
    task_id = web.get(f"/jobs/{job_id}")["execution"][0]["id"]
    assert refusal(web.ask("DELETE", f"/jobs/{job_id}"), 409)
    web.ask("PUT", f"/jobs/{job_id}/cancel")

    assert web.ask("DELETE", f"/jobs/{job_id}").get_json() == {"status": "OK"}

    assert web.ask("GET", f"/jobs/{job_id}").status_code == 404
    assert web.ask("GET", f"/tasks/{task_id}").status_code == 404
    assert web.ask("DELETE", f"/jobs/{job_id}").status_code == 404


# --- queues and nodes


def test_queues_count_what_waits_and_runs(web: JobsApp) -> None:
    for _ in range(3):
        web.submit(tasks=[{"name": "t", "run": "x", "queue": "video"}])
    web.start()
    web.claim("video")

    expected = {"name": "video", "size": 2, "subscribers": 0, "unacked": 1}
    assert web.get("/queues") == [expected]
    assert web.get("/queues/video") == expected


def test_purging_a_queue_cancels_what_waits_in_it(web: JobsApp) -> None:
    job_id = web.submit(tasks=[{"name": "t", "run": "x", "queue": "video"}])["id"]
    web.start()

    answer = web.ask("DELETE", "/queues/video")

    assert (answer.status_code, answer.data) == (200, b"")
    assert web.get("/queues") == []
    assert web.get(f"/jobs/{job_id}")["state"] == "CANCELLED"


@pytest.mark.parametrize("name", ["jobs", "completed", "x-5DYSYbGt"])
def test_queues_of_the_server_are_not_purged(twelve: JobsApp, name: str) -> None:
    assert refusal(twelve.ask("DELETE", f"/queues/{name}"), 400) == f"queue {name} is not a task queue"


def test_nodes_are_listed_by_name(web: JobsApp) -> None:
    report = NodeReport(
        id=NODE, name="Worker", kind="worker", hostname="edge-1", version="1.0", status="DOWN", detail="no engine",
        queues={"default": 4}, started_at=1_000_000, cpu_percent=12.5, task_count=0,
    )  # fmt: skip
    coordinator = web.parts.jobs.coordinator
    coordinator.heartbeat(report, {})
    coordinator.heartbeat(replace(report, id="c", name="Coordinator", kind="coordinator", queues={}), {})

    first, second = web.get("/nodes")

    assert (first["name"], "queue" in first) == ("Coordinator", False)
    assert second.pop("lastHeartbeatAt")
    assert second == {
        "id": NODE, "name": "Worker", "hostname": "edge-1", "version": "1.0", "status": "DOWN", "detail": "no engine",
        "queue": f"x-{NODE}", "queues": {"default": 4}, "startedAt": "1970-01-01T00:00:01Z",
        "cpuPercent": 12.5, "taskCount": 0,
    }  # fmt: skip
    assert web.get("/queues/default")["subscribers"] == 4


# --- health, and what is switched off


def test_health_tells_that_the_database_is_gone(web: JobsApp) -> None:
    assert web.client.get("/health").get_json()["status"] == "UP"
    with web.db.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE nodes")

    answer = web.client.get("/health")
    of_influx = web.client.get("/health", headers={"User-Agent": "influxdb-client-python/1.50"})

    assert (answer.status_code, answer.get_json()["status"]) == (503, "DOWN")
    assert "version" in answer.get_json()
    assert (of_influx.status_code, of_influx.get_json()["status"]) == (503, "fail")


def test_jobs_can_be_switched_off(tmp_path: Path) -> None:
    with JobsApp(tmp_path, **{"jobs.enabled": "false"}) as web:
        for path in ("/jobs", "/jobs/x", "/tasks/x", "/queues", "/nodes"):
            assert refusal(web.ask("GET", path), 404) == "jobs are switched off: [jobs] enabled = false"
            assert web.client.get(path).status_code == 401
