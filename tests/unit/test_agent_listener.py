"""An agent's actions over HTTP: the same answers as the server's, one token, nothing without it."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from arc.actions import testkinds
from arc.actions.attributes import Datastore, Shards, Version
from arc.actions.engine import ActionEngine
from arc.actions.node import Node
from arc.agent.listener import Listener
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "token-of-the-unit-tests"
ROOT = "/api/unstable"
PING = "agent.replicante.io/test.ping"
Answered = tuple[int, http.client.HTTPMessage, Any]


class Served:
    """A listener before an engine whose cycles are made by hand."""

    def __init__(self, directory: Path) -> None:
        self.engine = ActionEngine(directory, testkinds.kinds())
        datastore = Datastore("unenrolled", "edge-1", "ArcEdgeAgent", "1.0.0")
        node = Node(self.engine, Version("1.0.0"), lambda: datastore, Shards(lambda: (), lambda _: None))  # type: ignore[arg-type,return-value]
        self.listener = Listener("127.0.0.1:0", TOKEN, node, self.engine)
        self.listener.start()
        self.http = http.client.HTTPConnection("127.0.0.1", self.listener.port, timeout=10)

    def stop(self) -> None:
        self.http.close()
        self.listener.stop()
        self.engine.stop()

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answered:
        sent = {"Authorization": f"Bearer {TOKEN}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        self.http.request(method, ROOT + path, body, sent)
        answer = self.http.getresponse()
        content = answer.read()
        return answer.status, answer.headers, json.loads(content) if content else None

    def schedule(self, args: Any = None, query: str = "") -> str:
        status, _, body = self.ask("POST", f"/actions/schedule/{PING}{query}", json.dumps(args))
        assert status == 200, body
        return str(body["id"])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    try:
        yield served
    finally:
        served.stop()


def refusal(answered: Answered) -> tuple[int, str]:
    status, headers, body = answered
    assert body["variant"] == body["kind"]
    assert body["layers"] == [body["error"]]
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("application/json", "no-store")
    return status, body["kind"]


def test_an_action_from_its_schedule_to_its_end(served: Served) -> None:
    action_id = served.schedule({"count": 1}, "?requester=CORE_API&created_ts=2024-05-06T07:08:09Z")
    assert served.ask("GET", "/actions/queue")[2] == [{"kind": PING, "id": action_id, "state": "NEW"}]

    served.engine.cycle()

    _, headers, info = served.ask("GET", f"/actions/info/{action_id.upper()}/")
    assert info == served.engine.info(action_id)
    assert (info["action"]["requester"], info["action"]["created_ts"]) == ("CORE_API", "2024-05-06T07:08:09Z")
    assert served.ask("GET", f"/actions/info/{action_id}", If_None_Match=headers["ETag"])[0] == 304
    _, headers, finished = served.ask("GET", "/actions/finished?limit=5")
    assert ([each["id"] for each in finished], headers["X-Total-Count"]) == ([action_id], "1")


def test_span_of_the_request_is_kept_and_answered(served: Served) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    path = f"/actions/schedule/{PING}"

    status, headers, body = served.ask("POST", path, "null", Traceparent=f"00-{trace}-00f067aa0ba902b7-01")

    kept = served.ask("GET", f"/actions/info/{body['id']}")[2]["action"]["headers"]
    assert (status, kept) == (200, {"traceparent": headers["traceparent"]})
    assert headers["traceparent"].startswith(f"00-{trace}-")


def test_attributes_and_kinds(served: Served) -> None:
    assert set(served.ask("GET", "/info/agent/")[2]["version"]) == {"number", "checkout", "taint"}
    assert served.ask("GET", "/info/datastore")[2]["kind"] == "ArcEdgeAgent"
    assert served.ask("GET", "/shards")[2] == {"shards": []}
    assert served.ask("GET", "/actions/")[2] == {"actions": True}
    assert [kind["kind"] for kind in served.ask("GET", "/actions/available")[2]] == sorted(
        kind.name for kind in testkinds.kinds()
    )
    assert served.ask("HEAD", "/shards")[::2] == (200, None)


def test_root_is_a_line_of_text(served: Served) -> None:
    served.http.request("GET", f"{ROOT}/", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = served.http.getresponse()

    assert (answer.status, answer.headers.get_content_type()) == (200, "text/plain")
    assert answer.read().startswith(b"Arc:")


def test_known_revision_is_not_sent_again(served: Served) -> None:
    path = f"/actions/info/{served.schedule()}"

    _, headers, _ = served.ask("GET", path)

    assert served.ask("GET", path, if_none_match=headers["ETag"])[::2] == (304, None)
    assert len(headers["X-Request-Id"]) == 16


def test_refusals(served: Served) -> None:
    action_id = served.schedule()

    assert refusal(served.ask("GET", "/shards", Authorization="Bearer wrong")) == (401, "Unauthorized")
    assert refusal(served.ask("GET", "/nothing")) == (404, "NotFound")
    assert refusal(served.ask("GET", "/actions/info/abc")) == (404, "ActionNotFound")
    assert refusal(served.ask("GET", "/actions/finished?limit=0")) == (400, "InvalidRequest")
    assert refusal(served.ask("GET", f"/actions/finished?limit={'9' * 5000}")) == (400, "InvalidRequest")
    assert refusal(served.ask("POST", f"/actions/schedule/{PING}?requester=API&requester=API", "{}")) == (
        400, "InvalidJson",
    )  # fmt: skip
    assert refusal(served.ask("POST", f"/actions/cancel/{action_id}", '{"reason": "\\ud800"}')) == (400, "InvalidJson")
    assert refusal(served.ask("POST", f"/actions/schedule/{PING}", '{"count": "x"}')) == (400, "InvalidArgs")
    assert refusal(served.ask("POST", f"/actions/schedule/{PING}")) == (400, "InvalidJson")
    assert refusal(served.ask("POST", "/actions/schedule/x/y", "{}")) == (400, "ActionNotAvailable")
    assert refusal(served.ask("POST", f"/actions/schedule/{PING}?action_id={action_id}", "{}")) == (
        409, "ActionAlreadyExists",
    )  # fmt: skip
    status, headers, _ = served.ask("DELETE", "/actions/queue")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert refusal(served.ask("POST", f"/actions/schedule/{PING}", "1" * 262_145)) == (413, "TooLarge")


def test_address_that_is_none(served: Served) -> None:
    served.http.putrequest("GET", "http://[x/", skip_host=True)
    served.http.putheader("Authorization", f"Bearer {TOKEN}")
    served.http.endheaders()
    answer = served.http.getresponse()

    assert (answer.status, json.loads(answer.read())["kind"]) == (400, "InvalidRequest")


def test_cancel(served: Served) -> None:
    action_id = served.schedule()

    assert served.ask("POST", f"/actions/cancel/{action_id}", '{"reason": "enough"}')[2]["state"] == "CANCELLED"
    assert refusal(served.ask("POST", f"/actions/cancel/{action_id}")) == (409, "ActionFinished")


def test_wait_ends_with_a_stop(served: Served) -> None:
    action_id = served.schedule()
    served.http.request("GET", f"{ROOT}/actions/info/{action_id}?wait=60", headers={"Authorization": f"Bearer {TOKEN}"})
    began = time.monotonic()

    served.engine.begin_stop()

    assert served.http.getresponse().read()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("address", "token"), [("127.0.0.1:0", "short"), ("here", TOKEN), ("127.0.0.1:x", TOKEN),
                                                 ("127.0.0.1:65536", TOKEN)])  # fmt: skip
def test_what_cannot_be_listened_on_stops_the_start(address: str, token: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Listener(address, token, None, None)  # type: ignore[arg-type]
