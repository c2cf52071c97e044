"""The fleet end to end: a real server, agents simulated over HTTP."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.server import ArcServer, Connection, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPTIONS = {"fleet.offline_after_s": "2", "fleet.deliver_within_s": "1", "fleet.long_poll_slots": "4"}


class SimulatedAgent:
    """Speaks the transport as the agent does: numbers its messages, polls, confirms, replies."""

    def __init__(self, server: ArcServer, agent_id: str, token: str) -> None:
        self.agent_id = agent_id
        self.connection = Connection(server.port, token)
        self._seq = 0

    @classmethod
    def enrolled(cls, server: ArcServer, agent_id: str) -> SimulatedAgent:
        with server.connect() as admin:
            secret = admin.request("POST", "/api/v1/agents/init").json()["token"]
            answer = admin.request("POST", f"/api/v1/agents/init/{secret}", {"identity": agent_id}).json()
        agent = cls(server, agent_id, answer["token"])
        agent.send({"type": "registration", "version": 1, "payload": {"os": "linux", "hostname": agent_id}})
        return agent

    def message(self, message: dict[str, Any]) -> dict[str, Any]:
        self._seq += 1
        return {"seq": self._seq, **message}

    def post(self, *messages: dict[str, Any]) -> Any:
        answer = self.connection.request("POST", self._path(), {"epoch": "e1", "messages": list(messages)})
        assert answer.status == 200, answer.body
        return answer.json()

    def send(self, *messages: dict[str, Any]) -> Any:
        return self.post(*map(self.message, messages))

    def poll(self, wait_s: float = 0) -> list[dict[str, Any]]:
        answer = self.connection.request("GET", f"{self._path()}?wait_s={wait_s}")
        assert answer.status == 200, answer.body
        messages: list[dict[str, Any]] = answer.json()["messages"]
        return messages

    def reply(self, request: dict[str, Any], number: int, state: str, payload: str = "", **more: Any) -> dict[str, Any]:
        echoed = {name: request[name] for name in ("version", "request_id", "agent", "action")}
        final = state in ("complete", "failed")
        return {"type": "reply", **echoed, "number": number, "state": state, "payload": payload, "final": final, **more}

    def carry_out(self, wait_s: float = 10) -> dict[str, Any]:
        """Fetch one request and complete it."""
        (request,) = self.poll(wait_s)
        self.send({"type": "received", "request_ids": [request["request_id"]]})
        self.send(self.reply(request, 1, "executing"), self.reply(request, 2, "executing", "hello\n"))
        self.send(self.reply(request, 3, "complete", exit_code=0))
        return request

    def _path(self) -> str:
        return f"/api/v1/agents/{self.agent_id}/messages"


class Admin:
    def __init__(self, server: ArcServer) -> None:
        self.connection = server.connect()

    def run(self, agent_id: str, **more: Any) -> str:
        body = {"to": agent_id, "timeout": 30, "agent": "execute", "action": "script", "payload": "echo hello", **more}
        request_id: str = self.connection.request("POST", "/api/v1/jobs", body).json()["request_id"]
        return request_id

    def job(self, request_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.connection.request("GET", f"/api/v1/jobs/{request_id}").json()
        return found

    def is_online(self, agent_id: str) -> bool:
        return bool(self.connection.request("GET", f"/api/v1/agents/{agent_id}").json()["online"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    with ArcServer(tmp_path_factory.mktemp("fleet") / "data", OPTIONS) as running:
        yield running


@pytest.fixture
def admin(server: ArcServer) -> Iterator[Admin]:
    made = Admin(server)
    yield made
    made.connection.close()


@pytest.fixture
def agent(server: ArcServer, request: pytest.FixtureRequest) -> Iterator[SimulatedAgent]:
    made = SimulatedAgent.enrolled(server, request.node.name.removeprefix("test_")[:60])
    yield made
    made.connection.close()


def test_command_runs_from_request_to_log(admin: Admin, agent: SimulatedAgent) -> None:
    worker = threading.Thread(target=agent.carry_out)
    worker.start()

    request_id = admin.run(agent.agent_id)

    worker.join(20)
    job = admin.job(request_id)
    assert (job["status"], job["exit_code"]) == ("complete", 0)
    assert job["started_at"] <= job["ended_at"]
    assert admin.connection.request("GET", f"/api/v1/jobs/{request_id}/log").body == b"hello\n"


def test_silent_agent_goes_offline_and_comes_back(admin: Admin, agent: SimulatedAgent) -> None:
    assert admin.is_online(agent.agent_id)

    wait_until(lambda: not admin.is_online(agent.agent_id), "the agent is offline", 10)

    agent.poll()
    assert admin.is_online(agent.agent_id)
    events = admin.connection.request("GET", f"/api/v1/agents/{agent.agent_id}/events").json()
    assert [each["event"] for each in events] == ["online", "offline", "online", "enrolled"]
    sql = f"SELECT event FROM arc.fleet_events WHERE agent = '{agent.agent_id}' ORDER BY time"
    wait_until(lambda: len(_rows(admin, sql)) == 4, "the points of the changes", 10)
    assert _rows(admin, sql) == [["enrolled"], ["online"], ["offline"], ["online"]]


def test_what_nobody_fetches_fails_unless_it_may_wait(admin: Admin, agent: SimulatedAgent) -> None:
    hasty, patient = admin.run(agent.agent_id), admin.run(agent.agent_id, deliver_within=600)

    wait_until(lambda: admin.job(hasty)["status"] == "failed", "the command has failed", 15)

    assert agent.carry_out()["request_id"] == patient
    assert admin.job(patient)["status"] == "complete"


def test_redelivered_messages_count_once(admin: Admin, agent: SimulatedAgent) -> None:
    request_id = admin.run(agent.agent_id)
    (request,) = agent.poll()
    replies = [agent.message(agent.reply(request, n, "executing", f"{n}\n")) for n in range(1, 6)]

    agent.post(*replies[:3])
    agent.post(*replies[:4])  # the answer to the first was lost
    agent.post(*replies)
    agent.send(agent.reply(request, 6, "complete"))

    assert admin.connection.request("GET", f"/api/v1/jobs/{request_id}/log").body == b"1\n2\n3\n4\n5\n"


def test_running_command_is_cancelled(admin: Admin, agent: SimulatedAgent) -> None:
    request_id = admin.run(agent.agent_id)
    (request,) = agent.poll()
    agent.send(agent.reply(request, 1, "executing"))

    answer = admin.connection.request("PUT", f"/api/v1/jobs/{request_id}/cancel")

    assert answer.json()["cancel_requested_at"]
    assert agent.poll(5) == [{"type": "cancel", "request_id": request_id}]
    agent.send(agent.reply(request, 2, "failed", "cancelled"))
    assert admin.job(request_id)["status"] == "failed"


def test_metrics_of_an_agent_can_be_queried(admin: Admin, agent: SimulatedAgent) -> None:
    agent.send({"type": "metrics", "lines": f"edge,host={agent.agent_id} load=1.5"})

    assert _rows(admin, f"SELECT load FROM host.edge WHERE host = '{agent.agent_id}'") == [[1.5]]


def test_more_agents_than_places_are_told_when_to_come_back(server: ArcServer) -> None:
    agents = [SimulatedAgent.enrolled(server, f"crowd-{number}") for number in range(6)]
    for each in agents:
        each.connection.send("GET", f"/api/v1/agents/{each.agent_id}/messages?wait_s=3")
        time.sleep(0.05)  # they come one after the other

    answers = [each.connection.receive().json() for each in agents]

    away = [answer for answer in answers if answer["retry_in_s"] > 0]
    assert len(away) == 2
    for each in agents:
        each.connection.close()


def test_stop_answers_the_polls_that_wait_and_a_new_start_remembers(tmp_path: Path) -> None:
    with ArcServer(tmp_path / "data", OPTIONS | {"fleet.deliver_within_s": "600"}) as server:
        agent = SimulatedAgent.enrolled(server, "press-07")
        agent.connection.send("GET", "/api/v1/agents/press-07/messages?wait_s=30")
        with server.connect() as admin:
            figures = {"Accept": "application/json"}
            wait_until(
                lambda: admin.request("GET", "/metrics", headers=figures).json()["agents_waiting"], "the poll waits"
            )
        before_s = time.monotonic()
        server.stop()
        assert time.monotonic() - before_s < 20
        assert agent.connection.receive().json()["messages"] == []
        agent.connection.close()

        server.start()
        restarted = Admin(server)
        assert restarted.is_online("press-07")
        request_id = restarted.run("press-07")
        restarted.connection.close()
        server.kill9()

        server.start()
        assert agent.carry_out()["request_id"] == request_id
        agent.connection.close()
        with server.connect() as admin:
            assert admin.request("GET", f"/api/v1/jobs/{request_id}").json()["status"] == "complete"


def _rows(admin: Admin, sql: str) -> list[list[Any]]:
    answer = admin.connection.request("POST", "/query", {"sql": sql})
    return answer.json()["data"] if answer.status == 200 else []
