"""Attributes and actions over HTTP, with the real engine behind them; its cycles are made by hand."""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from arc.actions import execkind, testkinds
from arc.actions.attributes import Datastore, Role, Shard, Shards, Version
from arc.actions.engine import ActionEngine
from arc.actions.execkind import Allowed
from arc.actions.node import Node
from arc.actions.worker import EngineOptions
from arc.web.action_figures import FAMILIES, families
from tests.unit.test_actions_rules import old
from tests.unit.web import ADMIN, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from werkzeug.test import TestResponse

ROOT = "/api/unstable"
PING = "agent.replicante.io/test.ping"
ANYTHING = "agent.replicante.io/test.success"
WHEN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


class NodeApp(WebApp):
    """A server with a node of three kinds."""

    def __init__(self, data_dir: Path, **options: str) -> None:
        super().__init__(data_dir, **options)
        kinds = [*testkinds.kinds(), execkind.kind({"true": Allowed(("true",))})]
        self.engine = ActionEngine(data_dir / "actions", kinds, EngineOptions(queue_max=10))
        self.shards = {"_meta": Shard("_meta", Role.PRIMARY, 5), "default/cpu": Shard("default/cpu", Role.PRIMARY)}
        self.serve(self.engine)

    def serve(self, engine: ActionEngine | None) -> None:
        datastore = Datastore("plant-7", "press-03:8000", "Arc", "1.0.0")
        node = Node(engine, Version("1.0.0"), lambda: datastore, Shards(lambda: self.shards, self.shards.__getitem__))
        self.app.extensions["arc"] = replace(self.parts, node=node)

    def __exit__(self, *_: object) -> None:
        self.engine.stop()
        super().__exit__()

    def get(self, path: str, **kwargs: Any) -> TestResponse:
        return self.client.get(ROOT + path, headers=ADMIN, **kwargs)

    def schedule(self, kind: str, args: Any = None, *, headers: dict[str, str] | None = None, query: str = "",
                 data: str | bytes | None = None) -> TestResponse:  # fmt: skip
        body = json.dumps(args) if data is None else data
        sent = {"Content-Type": "application/json"} | ADMIN | (headers or {})
        return self.client.post(f"{ROOT}/actions/schedule/{kind}{query}", data=body, headers=sent)

    def take_in(self, lines: list[Any] | bytes) -> TestResponse:
        data = lines if isinstance(lines, bytes) else "\n".join(map(json.dumps, lines)).encode()
        sent = ADMIN | {"Content-Type": "application/x-ndjson"}
        return self.client.post(f"{ROOT}/actions/import", data=data, headers=sent)

    def run(self) -> None:
        while self.engine.cycle() is not None:
            pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[NodeApp]:
    with NodeApp(tmp_path) as app:
        yield app


def check_error(answer: TestResponse, status: int, code: str) -> None:
    body = answer.get_json()
    assert (answer.status_code, body["kind"], body["variant"]) == (status, code, code), body
    assert body["layers"] == [body["error"]]
    assert body["trace"] is None
    assert answer.headers["Cache-Control"] == "no-store"


def test_attributes(web: NodeApp) -> None:
    assert web.get("/info/agent").get_json() == {
        "version": {"number": "1.0.0", "checkout": "unknown", "taint": "unknown"}
    }
    assert web.get("/info/datastore").get_json()["id"] == "press-03:8000"
    assert web.get("/shards/").get_json()["shards"] == [
        {"id": "_meta", "role": "PRIMARY", "commit_offset": {"unit": "seconds", "value": 5}, "lag": None},
        {"id": "default/cpu", "role": "PRIMARY", "commit_offset": None, "lag": None},
    ]
    assert web.get("/").mimetype == "text/plain"
    assert web.get("/actions").get_json() == web.get("/actions/").get_json() == {"actions": True}


def test_an_action_from_its_schedule_to_its_end(web: NodeApp) -> None:
    answer = web.schedule(PING, {"count": 2}, headers={"X-Team": "a", "Cookie": "secret"})
    action_id = answer.get_json()["id"]
    assert (answer.status_code, set(answer.get_json())) == (200, {"id"})
    assert web.get("/actions/queue").get_json() == [{"kind": PING, "id": action_id, "state": "NEW"}]
    assert web.get("/actions/finished").get_json() == []

    web.run()

    finished = web.get("/actions/finished")
    assert finished.get_json() == [{"kind": PING, "id": action_id, "state": "DONE"}]
    assert finished.headers["X-Total-Count"] == "1"
    info = web.get(f"/actions/info/{action_id.upper()}").get_json()
    assert info["action"]["headers"] == {"x-team": "a", "traceparent": answer.headers["traceparent"]}
    assert info["action"]["requester"] == "AGENT_API"
    assert [event["state"] for event in info["history"]] == ["DONE", "RUNNING", "NEW"]


def test_span_of_the_request_is_kept_and_answered(web: NodeApp) -> None:
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    sent = {"Traceparent": f"00-{trace}-{caller}-01", "Tracestate": "a=1", "X-B3-TraceId": "1", "ot-baggage-user": "x"}

    answer = web.schedule(PING, headers=sent)

    kept = web.get(f"/actions/info/{answer.get_json()['id']}").get_json()["action"]["headers"]
    assert kept.pop("traceparent") == answer.headers["traceparent"]
    assert kept == {"tracestate": "a=1", "x-b3-traceid": "1", "ot-baggage-user": "x"}
    assert answer.headers["traceparent"].startswith(f"00-{trace}-")
    assert caller not in answer.headers["traceparent"]
    assert web.schedule(PING, headers={"traceparent": "caf\xe9"}).status_code == 200


def test_catalogue_has_schemas_to_make_forms_of(web: NodeApp) -> None:
    kinds = {kind["kind"]: kind for kind in web.get("/actions/available").get_json()}

    assert list(kinds) == sorted(kinds)
    assert kinds[PING]["args_schema"]["properties"]["count"]["maximum"] == 1000
    assert kinds["arc.edge/exec"]["stages"] == ["start", "wait"]


@pytest.mark.parametrize("args", [[1, 2], "x", 2**64 - 1, True, None, "\0", {"args": {"a": 1}, "action_id": "x"}])
def test_the_whole_body_is_the_arguments(web: NodeApp, args: Any) -> None:
    action_id = web.schedule(ANYTHING, args).get_json()["id"]

    assert web.get(f"/actions/info/{action_id}").get_json()["action"]["args"] == args


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 65 + "]" * 65, "[" * 100_000, b"\xff"),
        *("[1e999]", '{"a": 18446744073709551616}', "-9223372036854775809", '"\\ud800"'),
    ],
)
def test_body_that_is_no_json(web: NodeApp, body: str | bytes) -> None:
    check_error(web.schedule(ANYTHING, data=body), 400, "InvalidJson")
    assert web.get("/actions/queue").get_json() == []


def test_refusals_have_the_keys_that_clients_read(web: NodeApp) -> None:
    bad = web.schedule(PING, {"count": "x"})
    check_error(bad, 400, "InvalidArgs")
    assert bad.get_json()["details"] == {"path": "args.count", "expected": "an integer from 0 to 1000"}
    check_error(web.schedule("agent.replicante.io/none"), 400, "ActionNotAvailable")
    check_error(web.schedule(PING, {}, query="?action_id=x"), 400, "InvalidId")
    check_error(web.schedule(PING, {}, query="?created_ts=2020-01-01T00:00:00%2B02:00"), 400, "InvalidTime")
    check_error(web.schedule(PING, {}, query="?requester=FOO"), 400, "InvalidRequester")
    check_error(web.schedule(PING, {}, query=f"?action_id={uuid.UUID(int=1)}&action_id=x"), 400, "InvalidJson")
    check_error(web.schedule(PING, {}, headers={"X-Team": "caf\xe9"}), 400, "ActionEncode")
    check_error(web.schedule(PING, data=b" " * 262_145), 413, "TooLarge")
    check_error(web.get("/actions/info/abc"), 404, "ActionNotFound")
    check_error(web.get("/actions/finished?limit=0"), 400, "InvalidRequest")
    assert web.get("/actions/queue").get_json() == []


def test_store_that_cannot_be_read(web: NodeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(web.engine.store, "queue", fail)
    monkeypatch.setattr(web.app.extensions["arc"].node.shards, "as_dict", fail)

    check_error(web.get("/actions/queue"), 500, "InternalError")
    check_error(web.get("/shards"), 500, "InternalError")
    assert web.get("/info/agent").status_code == 200


def test_known_id_and_full_queue(web: NodeApp) -> None:
    query = f"?action_id={uuid.UUID(int=1)}&created_ts=2020-01-01T00:00:00Z&requester=CORE_API"
    assert web.schedule(PING, {}, query=query).get_json() == {"id": str(uuid.UUID(int=1))}
    for _ in range(9):
        web.schedule(PING, {})

    check_error(web.schedule(PING, {}, query=query), 409, "ActionAlreadyExists")
    full = web.schedule(PING, {})
    check_error(full, 429, "QueueFull")
    assert full.headers["Retry-After"] == "5"
    action = web.get(f"/actions/info/{uuid.UUID(int=1)}").get_json()["action"]
    assert (action["created_ts"], action["requester"]) == ("2020-01-01T00:00:00Z", "CORE_API")


def test_envelope_when_asked_for(web: NodeApp) -> None:
    sent = {"Content-Type": "application/vnd.arc.action-envelope+json"}
    envelope = {"args": {"count": 2}, "action_id": str(uuid.UUID(int=2)), "requester": "CORE_PLAYBOOK"}

    assert web.schedule(PING, envelope, headers=sent).get_json() == {"id": str(uuid.UUID(int=2))}
    action = web.get(f"/actions/info/{uuid.UUID(int=2)}").get_json()["action"]
    assert (action["args"], action["requester"]) == ({"count": 2}, "CORE_PLAYBOOK")
    check_error(web.schedule(PING, envelope | {"x": 1}, headers=sent), 400, "InvalidJson")
    check_error(web.schedule(PING, envelope, headers=sent, query="?requester=API"), 400, "InvalidJson")
    check_error(web.schedule(PING, [], headers=sent), 400, "InvalidJson")


def test_who_may_what(web: NodeApp) -> None:
    reader, writer = web.token("read"), web.token("write")

    assert web.client.get(f"{ROOT}/actions/queue").status_code == 401
    assert web.client.get(f"{ROOT}/actions/queue", headers=reader).status_code == 200
    check_error(web.schedule(PING, {}, headers=reader), 403, "Forbidden")
    assert web.schedule(PING, {}, headers=writer).status_code == 200
    check_error(web.schedule("arc.edge/exec", {"command": "true"}, headers=writer), 403, "Forbidden")
    check_error(web.schedule(PING, {}, headers=writer, query="?requester=CORE_API"), 403, "Forbidden")
    assert web.schedule("arc.edge/exec", {"command": "true"}).status_code == 200


def test_routes_and_methods_that_are_not_there(web: NodeApp) -> None:
    check_error(web.get("/nothing"), 404, "NotFound")
    refused = web.client.delete(f"{ROOT}/actions/queue", headers=ADMIN)
    check_error(refused, 405, "MethodNotAllowed")
    assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert "kind" not in web.client.get("/nothing", headers=ADMIN).get_json()


def test_what_is_counted(web: NodeApp) -> None:
    action_id = web.schedule(PING, {"count": 1}).get_json()["id"]
    web.schedule(PING, {"count": "x"})
    web.schedule(PING, {"count": 2})
    web.engine.cycle()

    found = {family.name: list(family.samples) for family in families(web.engine)}

    assert {family.name.removesuffix("_total") for family in FAMILIES} == set(found)
    assert [(sample.labels, sample.value) for sample in found["arc_actions_scheduled"]] == [
        ({"kind": PING, "requester": "AGENT_API"}, 2.0)
    ]
    assert [sample.labels for sample in found["arc_actions_rejected"]] == [{"reason": "InvalidArgs"}]
    assert found["arc_actions_queue_length"][0].value == 1
    assert found["arc_actions_oldest_new_seconds"][0].value >= 0
    assert action_id not in str(found)


def test_cancel(web: NodeApp) -> None:
    action_id = web.schedule(PING, {}).get_json()["id"]

    answer = web.client.post(f"{ROOT}/actions/cancel/{action_id}", json={"reason": "enough"}, headers=ADMIN)

    assert answer.get_json() == {"id": action_id, "state": "CANCELLED"}
    assert web.get(f"/actions/info/{action_id}").get_json()["action"]["state_payload"]["variant"] == "Cancelled"
    check_error(web.client.post(f"{ROOT}/actions/cancel/{action_id}", headers=ADMIN), 409, "ActionFinished")


def test_waiting_for_a_change(web: NodeApp) -> None:
    action_id = web.schedule(PING, {}).get_json()["id"]
    first = web.get(f"/actions/info/{action_id}")
    unchanged = web.client.get(
        f"{ROOT}/actions/info/{action_id}", headers=ADMIN | {"If-None-Match": first.headers["ETag"]}
    )
    assert unchanged.status_code == 304

    stepping = threading.Thread(target=web.engine.cycle)
    stepping.start()
    changed = web.get(f"/actions/info/{action_id}?wait=30&revision=1")
    stepping.join()

    assert changed.get_json()["action"]["state"] == "DONE"
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_actions_that_are_switched_off(web: NodeApp) -> None:
    web.serve(None)

    assert web.get("/actions").get_json() == {"actions": False}
    check_error(web.get("/actions/queue"), 404, "ActionsDisabled")
    check_error(web.schedule(PING, {}), 404, "ActionsDisabled")
    assert web.get("/info/agent").status_code == 200


def test_requester_as_the_first_clients_know_it(tmp_path: Path) -> None:
    with NodeApp(tmp_path, **{"actions.requester_api": "true"}) as web:
        shown = [
            web.get(f"/actions/info/{web.schedule(PING, query=query).get_json()['id']}").get_json()["action"][
                "requester"
            ]
            for query in ("?requester=API", "", "?requester=CORE_API")
        ]

        assert shown == ["API", "API", "CORE_API"]
        assert web.engine.get(web.engine.queue()[0].id)[0].requester == "AGENT_API"


def test_health_tells_of_an_outcome_that_cannot_be_stored(web: NodeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    assert web.client.get("/health").get_json()["checks"] == []
    monkeypatch.setattr(ActionEngine, "fault", "disk full: /secret/path")

    known = web.client.get("/health")
    to_influx = web.client.get("/health", headers={"User-Agent": "influxdb-client-python/1.50"})

    assert (known.status_code, known.get_json()["status"]) == (200, "UP")
    message = "the outcome of a step cannot be stored; the log says why"
    assert known.get_json()["checks"] == [{"name": "actions", "status": "FAILED", "message": message}]
    assert to_influx.get_json()["checks"][0]["status"] == "fail"


# --- export and import


def test_old_actions_are_imported_and_shown_as_ours(web: NodeApp) -> None:
    web.schedule(PING)
    web.run()

    answer = web.take_in([old()])

    assert answer.get_json() == {"imported": 1, "skipped": 0}
    found = web.get("/actions/info/9a1f2f6e-1f0a-47a0-8e6b-2f3a0f5f7d02").get_json()
    assert found["action"] == old()["action"] | {
        "id": "9a1f2f6e-1f0a-47a0-8e6b-2f3a0f5f7d02",
        "requester": "AGENT_API",
        "headers": {"x-b3-traceid": "463ac35c9f6413ad"},
        "created_ts": "2019-08-06T07:08:09Z",
        "scheduled_ts": "2019-08-06T07:08:09Z",
    }
    assert [event["state"] for event in found["history"]] == ["DONE", "RUNNING", "NEW"]
    assert {event["action_id"] for event in found["history"]} == {found["action"]["id"]}
    assert [each["kind"] for each in web.get("/actions/finished").get_json()] == [PING, found["action"]["kind"]]
    assert web.take_in([old()]).get_json() == {"imported": 0, "skipped": 1}
    check_error(web.schedule(PING, query=f"?action_id={old()['action']['id']}"), 409, "ActionAlreadyExists")
    assert web.engine.cycle() is None


def test_what_one_node_exports_another_imports(web: NodeApp, tmp_path: Path) -> None:
    for count in range(3):
        web.schedule(PING, {"count": count + 1}, headers={"X-Team": "a"})
    web.engine.schedule("arc.edge/exec", {"command": "true", "stdin": "secret"})
    web.engine.cancel(web.engine.queue()[-1].id, "enough")
    web.run()
    web.schedule(PING)
    exported = web.get("/actions/export").data

    (tmp_path / "other").mkdir()
    with NodeApp(tmp_path / "other") as other:
        assert other.take_in(exported + b"\n").get_json() == {"imported": 4, "skipped": 0}
        again = other.get("/actions/export").data
        listed = other.get("/actions/finished").get_json()

    assert again == exported
    assert b"secret" not in exported
    assert listed == web.get("/actions/finished").get_json()
    assert len(listed) == 4


def test_import_with_one_bad_action_takes_in_nothing(web: NodeApp) -> None:
    refused = web.take_in([old(), old(str(uuid.UUID(int=3)), state="RUNNING")])

    check_error(refused, 400, "InvalidImport")
    expected = 'one of "DONE", "FAILED"'
    assert refused.get_json()["details"] == {"line": 2, "path": "action.state", "expected": expected}
    assert web.get("/actions/finished").get_json() == []


def test_import_takes_admin(web: NodeApp) -> None:
    refused = web.client.post(f"{ROOT}/actions/import", data=b"", headers=web.token("write"))

    check_error(refused, 403, "Forbidden")
    assert web.client.get(f"{ROOT}/actions/export", headers=web.token("read")).mimetype == "application/x-ndjson"
