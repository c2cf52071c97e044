"""Agents and commands over HTTP: shapes, pages, errors, projects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.web import ADMIN, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from werkzeug.test import TestResponse

JOB = {"to": "edge-1", "timeout": 60, "agent": "rpc", "action": "ping"}


class Api:
    """Requests of an administrator; `headers` may say otherwise."""

    def __init__(self, web: WebApp) -> None:
        self.web = web
        self.agent = web.token("agent")
        self._seq = 0

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] = ADMIN, status: int = 200
    ) -> TestResponse:
        answer = self.web.client.open(path, method=method, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer

    def get(self, path: str, **more: Any) -> Any:
        return self.ask("GET", path, **more).get_json()

    def register(self, agent_id: str = "edge-1", project: str = "", **facts: Any) -> None:
        message = {"type": "registration", "project": project, "payload": facts}
        self.send(agent_id, message)

    def send(self, agent_id: str, message: dict[str, Any]) -> None:
        self._seq += 1
        body = {"epoch": "e", "messages": [{"seq": self._seq, **message}]}
        answer = self.ask("POST", f"/api/v1/agents/{agent_id}/messages", body, self.agent)
        assert answer.get_json()["rejected"] == []

    def run(self, **more: Any) -> str:
        request_id: str = self.ask("POST", "/api/v1/jobs", JOB | more).get_json()["request_id"]
        return request_id

    def reply(self, request_id: str, state: str, **more: Any) -> None:
        reply = {"type": "reply", "request_id": request_id, "agent": "rpc", "action": "ping", "state": state, **more}
        self.send("edge-1", reply)

    def bound_to(self, project: str, *permissions: str) -> dict[str, str]:
        name = f"{project}-{'-'.join(permissions)}"
        _, secret = self.web.tokens.create(name, permissions=permissions, project=project)
        return {"X-Auth-Token": secret}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with WebApp(tmp_path) as web:
        yield Api(web)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """For tests that change nothing; it has the agent edge-1."""
    with WebApp(tmp_path_factory.mktemp("shared")) as web:
        api = Api(web)
        api.register(a=1, b=2)
        yield api


def test_agent_has_the_keys_clients_read(api: Api) -> None:
    api.register(os="linux", fqdn=None)

    agent = api.get("/api/v1/agents/edge-1?facts=os,fqdn,nothing")

    assert agent["facts"] == {"os": "linux", "fqdn": None}
    assert "tags" not in agent
    assert agent.keys() - {"facts"} == {
        "display_name", "agent_id", "project", "organization", "created_at", "updated_at", "updated_with",
        "updated_by", "online", "last_seen_at",
    }  # fmt: skip
    assert api.get("/api/v1/agents/edge-1/facts") == {"os": "linux", "fqdn": None, "online": True}
    assert api.get("/api/v1/agents/edge-1/tags") == {}


@pytest.mark.parametrize(
    ("query", "facts"),
    [
        ("", None),
        ("?facts=", None),
        ("?facts=nothing", None),
        ("?facts=a,%20b", {"a": 1}),
        ("?facts=all", {"a": 1, "b": 2, "online": True}),
        ("?facts=all,b", {"b": 2}),
        ("?facts=ALL", None),
        ("?facts=a&facts=b", {"a": 1}),
        ("?facts=a,a", {"a": 1}),
    ],
)
def test_facts_are_chosen(shared: Api, query: str, facts: dict[str, Any] | None) -> None:
    assert shared.get(f"/api/v1/agents/edge-1{query}").get("facts") == facts


def test_list_is_paged_and_says_where_the_others_are(api: Api) -> None:
    for number in range(5):
        api.register(f"edge-{number}", os="linux")

    answer = api.ask("GET", "/api/v1/agents?per_page=2&q=%40os%20%3D%20%22linux%22&facts=os,online&page=2&x=&x=1")

    assert [each["agent_id"] for each in answer.get_json()] == ["edge-2", "edge-3"]
    headers = answer.headers
    assert (headers["Pagination-Elements"], headers["Pagination-Pages"], headers["Pagination-Per-Page"]) == (
        "5",
        "3",
        "2",
    )
    url = "/api/v1/agents?facts=os%2Conline&page={}&per_page=2&q=%40os+%3D+%22linux%22&x=&x=1"
    pages = (("self", 2), ("first", 1), ("prev", 1), ("next", 3), ("last", 3))
    assert headers["Link"] == ",".join(f'<{url.format(number)}>;rel="{name}"' for name, number in pages)


@pytest.mark.parametrize(
    ("page", "names"),
    [("1", ["self", "next", "last"]), ("3", ["self", "first", "prev"]), ("99", ["self", "first", "prev"])],
)
def test_links_of_the_first_and_the_last_page(api: Api, page: str, names: list[str]) -> None:
    for number in range(3):
        api.register(f"edge-{number}")

    link = api.ask("GET", f"/api/v1/agents?per_page=1&page={page}").headers["Link"]

    assert re.findall(r'rel="(\w+)"', link) == names


def test_links_of_an_empty_list(shared: Api) -> None:
    answer = shared.ask("GET", "/api/v1/jobs")

    assert answer.get_json() == []
    assert answer.headers["Pagination-Pages"] == answer.headers["Pagination-Elements"] == "0"
    pages = (("self", 0), ("first", 1), ("prev", 1), ("next", 0), ("last", 0))
    expected = ",".join(f'</api/v1/jobs?page={number}&per_page=25>;rel="{name}"' for name, number in pages)
    assert answer.headers["Link"] == expected


@pytest.mark.parametrize(
    ("query", "per_page"),
    [("", "25"), ("per_page=0", "25"), ("per_page=x", "25"), ("per_page=1_0", "25"), ("per_page=101", "100"),
     ("per_page=%2B2", "2"), ("per_page=-5", "25"), ("per_page=" + "9" * 30, "100"), ("page=" + "9" * 30, "25"),
     ("page=0&per_page=0&agent_id=", "25"), ("per_page=3&per_page=7", "3")],
)  # fmt: skip
def test_odd_page_sizes_are_put_right(shared: Api, query: str, per_page: str) -> None:
    answer = shared.ask("GET", f"/api/v1/jobs?{query}")

    assert answer.headers["Pagination-Per-Page"] == per_page


def test_bad_filter_says_where_it_is_wrong(shared: Api) -> None:
    body = shared.get("/api/v1/agents?q=%40os%20%3D%3D%20%22linux%22", status=400)

    assert body["title"] == "Invalid selector expression."
    assert body["detail"] == body["error"] == "syntax error. Column: 5"
    assert body["status"] == body["code"] == 400
    assert body["source"] == {
        "pointer": "(GET) /api/v1/agents?q=%40os%20%3D%3D%20%22linux%22",
        "parameter": "map[]",
    }
    assert body["id"] != shared.get("/api/v1/agents?q=%20", status=400)["id"]


def test_tags_are_set_overwritten_and_removed_without_a_body(api: Api) -> None:
    api.register()
    for body in ({"site": "north", "line": "7"}, {"site": "south"}, None, {}):
        answer = api.ask("POST", "/api/v1/agents/edge-1/tags", body, status=204)
        assert (answer.data, answer.content_type) == (b"", None)

    for key in ("line", "no_such"):
        assert api.ask("DELETE", f"/api/v1/agents/edge-1/tags/{key}", status=204).content_type is None

    assert api.get("/api/v1/agents/edge-1/tags") == {"site": "south"}
    form = {**ADMIN, "Content-Type": "application/x-www-form-urlencoded"}
    assert api.web.client.post("/api/v1/agents/edge-1/tags", data=b'{"a": "1"}', headers=form).status_code == 204


def test_bad_tags_are_refused_key_by_key(api: Api) -> None:
    api.register()

    body = api.ask("POST", "/api/v1/agents/edge-1/tags", {"a-b": "1", "rack": None, "ok": "1"}, status=400).get_json()

    assert body["errors"] == {
        "tags": {"a-b": ["Tag key a-b is not alphanumeric [a-z0-9A-Z]."], "rack": ["Tag key rack is empty."]}
    }
    assert api.get("/api/v1/agents/edge-1/tags") == {}


@pytest.mark.parametrize("body", [[], "text", {"a": 1}, {"a": ["b"]}])
def test_what_are_no_tags_is_refused(shared: Api, body: Any) -> None:
    assert (
        shared.ask("POST", "/api/v1/agents/edge-1/tags", body, status=400).get_json()["title"]
        == "Error saving agent tags."
    )


def test_unknown_agent_is_named(shared: Api) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/facts"), ("GET", "/tags"), ("GET", "/events")):
        body = shared.ask(method, f"/api/v1/agents/no%20such{path}", status=404).get_json()
        assert body["title"] == 'Agent with id "no such" not found'
        assert body["detail"] == "no agent with id 'no such'"


def test_deleted_agent_leaves_its_jobs(api: Api) -> None:
    api.register()
    request_id = api.run()

    assert api.ask("DELETE", "/api/v1/agents/edge-1", status=204).content_type is None

    assert api.get(f"/api/v1/jobs/{request_id}")["to"] == "edge-1"
    assert [each["event"] for each in api.get("/api/v1/agents", headers=ADMIN)] == []


def test_events_tell_when_an_agent_came_and_went(api: Api) -> None:
    api.register()
    api.register(online=False)

    events = api.get("/api/v1/agents/edge-1/events")

    assert [each["event"] for each in events] == ["offline", "online"]


def test_job_has_the_keys_clients_read(api: Api) -> None:
    api.register()
    body = JOB | {"request_id": "mine", "sender": "me", "version": 7, "payload": "x"}

    job = api.get(f"/api/v1/jobs/{api.run(**body)}")

    assert (job["version"], job["status"], job["payload"], job["to"]) == (1, "queued", "x", "edge-1")
    assert job["request_id"] != "mine"
    assert job["sender"] != "me"
    assert job["user"] == {"id": "admin", "name": "admin", "roles": ["admin", "delete", "read", "write"]}
    assert job["exit_code"] is job["started_at"] is job["ended_at"] is None


def test_job_is_followed_from_queue_to_end(api: Api) -> None:
    api.register()
    request_id = api.run()
    path = f"/api/v1/jobs/{request_id}"
    assert api.get(f"{path}/log", status=404)["title"] == f'Logs for Job with id "{request_id}" not found.'

    api.reply(request_id, "executing", number=1)
    assert api.get(path)["status"] == "executing"
    api.get(f"{path}/log", status=404)
    api.reply(request_id, "executing", number=2, payload="häl")
    api.reply(request_id, "failed", number=3, payload="exit status 3", final=True, exit_code=3)

    log = api.ask("GET", f"{path}/log")
    assert (log.text, log.content_type) == ("hälexit status 3", "text/plain; charset=utf-8")
    job = api.get(path)
    assert (job["status"], job["exit_code"]) == ("failed", 3)
    parts = api.get(f"{path}/log?after=2", headers=ADMIN | {"Accept": "application/json"})
    assert parts["status"] == "failed"
    assert [(each["number"], each["content"], each["final"]) for each in parts["parts"]] == [(3, "exit status 3", True)]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"to": ""}, "attribute 'to' is missing or invalid"),
        ({"timeout": 0}, "attribute 'timeout' is missing or invalid"),
        ({"timeout": 60.5}, "timeout must be a whole number"),
        ({"payload": 1}, "payload must be a text"),
        ({"deliver_within": 0}, "attribute 'deliver_within' is missing or invalid"),
    ],
)
def test_bad_job_is_refused(shared: Api, change: dict[str, Any], detail: str) -> None:
    body = shared.ask("POST", "/api/v1/jobs", JOB | change, status=400).get_json()

    assert (body["title"], body["detail"]) == ("Error creating a job.", detail)


def test_job_for_an_unknown_agent_is_refused(api: Api) -> None:
    body = api.ask("POST", "/api/v1/jobs", JOB, status=404).get_json()

    assert (body["title"], body["code"]) == ("Error creating a job.", 404)


def test_body_that_is_no_json_is_refused(shared: Api) -> None:
    for data in (b"", b"{", b'{"to": "edge-1"} x', b"[]"):
        assert shared.web.client.post("/api/v1/jobs", data=data, headers=ADMIN).status_code == 400


def test_viewer_reads_and_only_admins_change(api: Api) -> None:
    api.register()
    reader = api.web.token("read")

    api.get("/api/v1/agents/edge-1", headers=reader)
    for method, path in (
        ("POST", "/api/v1/jobs"),
        ("POST", "/api/v1/agents/edge-1/tags"),
        ("DELETE", "/api/v1/agents/edge-1"),
        ("POST", "/api/v1/agents/init"),
        ("PUT", "/api/v1/jobs/x/cancel"),
    ):
        body = api.ask(method, path, JOB, reader, 403).get_json()
        assert (body["title"], body["code"]) == ("", 403)


def test_bound_token_sees_its_own_project_only(api: Api) -> None:
    api.register(project="one")
    request_id = api.run()
    other, same = api.bound_to("two", "read", "admin"), api.bound_to("one", "read", "admin")

    for path in ("agents", "jobs"):
        answer = api.ask("GET", f"/api/v1/{path}", headers=other)
        assert (answer.get_json(), answer.headers["Pagination-Elements"]) == ([], "0")
        assert len(api.get(f"/api/v1/{path}", headers=same)) == 1
    for path in (
        "agents/edge-1",
        "agents/edge-1/facts",
        "agents/edge-1/tags",
        f"jobs/{request_id}",
        f"jobs/{request_id}/log",
    ):
        assert "one is not project two" in api.get(f"/api/v1/{path}", headers=other, status=403)["detail"]
    api.ask("DELETE", "/api/v1/agents/edge-1", headers=other, status=403)
    api.ask("POST", "/api/v1/jobs", JOB, other, 403)
    api.ask("PUT", f"/api/v1/jobs/{request_id}/cancel", headers=other, status=403)
    assert api.ask("POST", "/api/v1/jobs", JOB, same).get_json()["request_id"]


def test_nul_of_a_machine_is_replaced(api: Api) -> None:
    api.register(**{"a\0b": "c\0d"})
    api.register(more={"x": ["\0"]})
    request_id = api.run()
    api.reply(request_id, "complete", final=True, number=1, payload="one\0two")

    assert api.get("/api/v1/agents/edge-1/facts") == {"a\ufffdb": "c\ufffdd", "more": {"x": ["\ufffd"]}, "online": True}
    assert api.ask("GET", f"/api/v1/jobs/{request_id}/log").text == "one\ufffdtwo"


@pytest.mark.parametrize(
    ("method", "path", "body", "complaint"),
    [
        ("GET", "agents/edge%00-1", None, "the address"),
        ("DELETE", "agents/edge-1/tags/a%00b", None, "the address"),
        ("GET", "agents?q=a%20%3D%20%22%00%22", None, "the address"),
        ("GET", "agents/edge-1/actions/info/%00", None, "the address"),
        ("POST", "agents/edge-1/tags", {"site": "a\0b"}, "Tag key site has a value with U+0000"),
        ("POST", "jobs", JOB | {"payload": "echo \0"}, "payload must not contain U+0000"),
        ("POST", "jobs", JOB | {"to": "\0"}, "to must not contain U+0000"),
        ("POST", "agents/init", {"CN": "a\0b"}, "cn must not contain U+0000"),
    ],
)
def test_nul_of_a_user_is_refused(shared: Api, method: str, path: str, body: Any, complaint: str) -> None:
    assert complaint in shared.ask(method, f"/api/v1/{path}", body, status=400).get_json()["detail"]


def test_queued_job_is_cancelled(api: Api) -> None:
    api.register()
    first, second = api.run(), api.run()

    assert api.ask("PUT", f"/api/v1/jobs/{first}/cancel").get_json()["status"] == "failed"
    assert api.ask("DELETE", f"/api/v1/jobs/{second}").get_json()["status"] == "failed"

    assert api.ask("DELETE", f"/api/v1/jobs/{second}", status=409).get_json()["detail"] == "job is not running"
    assert api.ask("GET", f"/api/v1/jobs/{first}/log").text == "cancelled"
    api.ask("PUT", "/api/v1/jobs/no-such/cancel", status=404)


def test_history_is_filtered(api: Api) -> None:
    api.register()
    done, waiting = api.run(), api.run(agent="execute")
    api.reply(done, "complete", final=True)

    def found(query: str) -> list[str]:
        return [each["request_id"] for each in api.get(f"/api/v1/jobs?{query}")]

    assert found("state=Complete") == found("plugin=rpc") == [done]
    assert found("state=queued&user=admin") == [waiting]
    assert found("user=nobody") == found("until=2000-01-01T00:00:00Z") == found("agent_id=it's") == []
    assert found("since=2000-01-01T00:00:00Z&agent_id=edge-1") == [waiting, done]
    for query in ("state=done", "since=yesterday", "until=x"):
        api.get(f"/api/v1/jobs?{query}", status=400)


def test_health_of_the_original(shared: Api) -> None:
    assert shared.web.client.get("/healthcheck").text.startswith("Arc api-server ")
    ready = shared.web.client.get("/readiness")
    assert (ready.text, ready.content_type) == ("Ready!!!", "text/plain; charset=utf-8")


def test_readiness_without_a_database(shared: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("gone")

    monkeypatch.setattr(shared.web.parts.fleet, "ping", fail)

    answer = shared.web.client.get("/readiness")

    assert (answer.status_code, answer.get_json()["error"]) == (502, "Ping to the DB failed")
