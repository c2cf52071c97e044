"""Actions of machines over HTTP: who may see and schedule what, before and after an agent has reported."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from arc.actions import execkind, testkinds
from arc.actions.execkind import Allowed
from arc.db.fleet_tables import agent_nodes
from arc.fleet.intake import Speaker
from arc.web import actions as web_actions
from tests.unit.web import ADMIN, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from werkzeug.test import TestResponse

ROOT = "/api/v1/agents/edge-1"
PING, EXEC = "agent.replicante.io/test.ping", "arc.edge/exec"


class Relayed(WebApp):
    """A server with one agent, of project `press`."""

    def __init__(self, data_dir: Path, **options: str) -> None:
        super().__init__(data_dir, **options)
        self._seq = 0
        self.say({"type": "registration", "version": 1, "sender": "edge-1", "registration_id": "r", "payload": {},
                  "project": "press"})  # fmt: skip

    def say(self, message: dict[str, Any]) -> None:
        self._seq += 1
        receipt = self.parts.fleet.post("edge-1", Speaker(None), "e", [{"seq": self._seq, **message}])
        assert receipt.rejected == []

    def report(self) -> None:
        kinds = [*testkinds.kinds(), execkind.kind({"true": Allowed(("true",), env=("KEY",))})]
        version = {"number": "1.0.0", "checkout": "unknown", "taint": "unknown"}
        node = {"agent": {"version": version}, "datastore": {"id": "edge-1"}, "shards": {"shards": []}}
        self.say({"type": "actions", "node": node | {"kinds": [kind.as_dict() for kind in kinds]}})

    def get(self, path: str, headers: dict[str, str] = ADMIN) -> TestResponse:
        return self.client.get(ROOT + path, headers=headers)

    def schedule(self, kind: str, args: Any, headers: dict[str, str] = ADMIN, query: str = "") -> TestResponse:
        return self.client.post(f"{ROOT}/actions/schedule/{kind}{query}", json=args, headers=headers)

    def token_of(self, project: str) -> dict[str, str]:
        _, secret = self.tokens.create(f"of-{project}", permissions=["read", "write"], project=project)
        return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Relayed]:
    with Relayed(tmp_path) as app:
        yield app


def refusal(answer: TestResponse) -> tuple[int, str]:
    body = answer.get_json()
    assert body["layers"] == [body["error"]]
    return answer.status_code, body["kind"]


def test_agent_that_has_not_reported(web: Relayed) -> None:
    assert web.get("/actions").get_json() == {"actions": False}
    assert refusal(web.get("/shards")) == (503, "NodeUnreachable")
    assert refusal(web.get("/actions/available")) == (503, "NodeUnreachable")
    assert refusal(web.schedule(PING, {}, web.token("write"))) == (403, "Forbidden")

    action_id = web.schedule(PING, {"count": "anything, as nobody knows better"}).get_json()["id"]

    assert web.get("/actions/queue").get_json() == [{"kind": PING, "id": action_id, "state": "NEW"}]
    assert web.get(f"/actions/info/{action_id}").get_json()["action"]["args"] == "********"  # or a secret may be seen


def test_agent_that_has_reported(web: Relayed) -> None:
    web.report()

    assert web.get("/info/agent").get_json()["version"]["number"] == "1.0.0"
    assert web.get("/info/datastore").get_json()["id"] == "edge-1"
    assert PING in {kind["kind"] for kind in web.get("/actions/available").get_json()}
    answer = web.get("/shards")
    assert (answer.get_json(), "X-Arc-Stale" in answer.headers) == ({"shards": []}, False)
    assert int(answer.headers["Age"]) < 60
    assert refusal(web.schedule(PING, {"count": "x"})) == (400, "InvalidArgs")
    assert refusal(web.schedule("x/y", {})) == (400, "ActionNotAvailable")
    assert refusal(web.schedule(PING, {}, query="?action_id=x")) == (400, "InvalidId")
    assert refusal(web.get("/actions/info/x")) == (404, "ActionNotFound")
    assert refusal(web.client.delete(f"{ROOT}/actions/queue", headers=ADMIN)) == (405, "MethodNotAllowed")


def test_too_many_that_wait_for_the_agent(web: Relayed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arc.fleet.relay.MAX_WAITING", 1)
    web.report()
    web.schedule(PING, {})

    refused = web.schedule(PING, {})

    assert refusal(refused) == (429, "QueueFull")
    assert refused.headers["Retry-After"] == "5"


def test_age_of_a_report_is_since_the_agent_was_heard_of(web: Relayed) -> None:
    web.report()
    with web.db.transaction() as tx:
        tx.execute(update(agent_nodes).values(observed_at=0))

    web.parts.fleet.leave("edge-1", Speaker(None))

    headers = web.get("/shards").headers
    assert int(headers["Age"]) < 60
    assert (headers["X-Arc-Stale"], headers["X-Arc-Observed-At"]) == ("true", "1970-01-01T00:00:00Z")


def test_what_the_operator_wants_of_headers_and_requesters(tmp_path: Path) -> None:
    with Relayed(tmp_path, **{"actions.header_deny": "X-Company", "actions.requester_api": "true"}) as web:
        web.report()

        answer = web.schedule(PING, {}, ADMIN | {"X-Company": "a", "X-Team": "b"}, "?requester=API")

        shown = web.get(f"/actions/info/{answer.get_json()['id']}").get_json()["action"]
        assert (shown["requester"], set(shown["headers"])) == ("API", {"x-team", "traceparent"})


def test_who_may_what(web: Relayed) -> None:
    web.report()
    reader, writer = web.token("read"), web.token("write")

    assert web.get("/actions/queue", reader).status_code == 200
    assert refusal(web.schedule(PING, {}, reader)) == (403, "Forbidden")
    assert web.schedule(PING, {}, writer).status_code == 200
    assert refusal(web.schedule(EXEC, {"command": "true"}, writer)) == (403, "Forbidden")
    assert refusal(web.schedule(PING, {}, writer, "?requester=CORE_PLAYBOOK")) == (403, "Forbidden")
    assert web.client.get("/api/v1/agents/none/shards", headers=ADMIN).status_code == 404


def test_project_sees_its_own_machines_only(web: Relayed) -> None:
    web.report()
    ours, theirs = web.token_of("press"), web.token_of("paint")

    action_id = web.schedule(PING, {}, ours).get_json()["id"]

    assert web.get(f"/actions/info/{action_id}", ours).status_code == 200
    assert web.get(f"/actions/info/{action_id}", theirs).status_code == 403
    assert web.schedule(PING, {}, theirs).status_code == 403
    assert web.client.post(f"{ROOT}/actions/cancel/{action_id}", json={}, headers=theirs).status_code == 403


def test_secret_arguments_are_handed_on_and_not_shown(web: Relayed) -> None:
    web.report()

    answer = web.schedule(EXEC, {"command": "true", "env": {"KEY": "hunter2"}}, query="?requester=API")

    action_id = answer.get_json()["id"]
    messages, _ = web.parts.fleet.poll("edge-1", Speaker(None), 0.0, bool)
    assert messages[0]["args"]["env"] == {"KEY": "hunter2"}
    assert messages[0]["requester"] == "AGENT_API"
    shown = web.get(f"/actions/info/{action_id}").get_json()["action"]
    assert shown["args"] == {"command": "true", "env": "********"}
    again = web.schedule(EXEC, {"command": "true"}, query=f"?action_id={action_id}")
    assert refusal(again) == (409, "ActionAlreadyExists")


def test_waiting_for_a_change(web: Relayed) -> None:
    web.report()
    action_id = web.schedule(PING, {}).get_json()["id"]
    path = f"/actions/info/{action_id}"
    first = web.get(path)
    assert web.get(path, ADMIN | {"If-None-Match": first.headers["ETag"]}).status_code == 304

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(web.get, f"{path}?wait=60&revision=0")
        action = first.get_json()["action"] | {"state": "RUNNING"}
        web.say({"type": "actions", "copies": [{"seq": 1, "revision": 7, "info": {"action": action, "history": []}}]})
        changed = waiting.result(10)

    assert changed.get_json()["action"]["state"] == "RUNNING"
    assert changed.headers["ETag"] == '"7"'
    assert web.get(f"{path}?wait=60&revision=3").headers["ETag"] == '"7"'  # it has changed since
    assert web.get(f"{path}?wait=61").status_code == 400


def test_only_so_many_may_wait(web: Relayed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arc.web.actions.waiters", threading.BoundedSemaphore(1))
    web.report()
    action_id = web.schedule(PING, {}).get_json()["id"]

    with web_actions.waiters:
        answer = web.get(f"/actions/info/{action_id}?wait=60")  # does not wait

    assert answer.get_json()["action"]["state"] == "NEW"
