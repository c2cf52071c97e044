"""Actions of a real agent: by way of the server, also while it is away; at its own address; its restart; its memory."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration import agents
from tests.integration import noderoutes as node
from tests.integration.agents import Edge
from tests.integration.server import Connection, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.server import ArcServer

ROOT = node.of_agent("edge-1")
SECRET = "listen-token-of-the-tests"
MAX_RSS = 25 * 2**20


@pytest.fixture
def edge(server: ArcServer, client: Connection, tmp_path: Path) -> Iterator[Edge]:
    client.request("DELETE", "/api/v1/agents/edge-1")
    edge = Edge(server, tmp_path, "edge-1", {"update-command": "false"}).enrol(client)
    plugins = edge.directory / "actions.d"
    plugins.mkdir()
    (plugins / "say.toml").write_text('description = "Say it"\n[exec]\nargv = ["echo"]\nargs = ["[a-z]+"]\n')
    try:
        yield edge
    finally:
        edge.end()


def reported(client: Connection) -> bool:
    return client.request("GET", f"{ROOT}/actions/available").status == 200


def start(edge: Edge, client: Connection) -> None:
    edge.start()
    wait_until(lambda: reported(client), "the report of the agent")


def test_agent_carries_out_what_the_server_hands_on(edge: Edge, client: Connection) -> None:
    start(edge, client)
    kinds = {kind["kind"] for kind in node.get(client, "/actions/available", ROOT)}

    action_id = node.schedule(client, "arc.edge/exec", {"command": "say", "args": ["hello"]}, ROOT)
    found = node.ended(client, action_id, ROOT)

    assert found["action"]["state_payload"]["payload"]["stdout"] == "hello\n"
    assert found["action"]["requester"] == "CORE_API"
    assert [event["state"] for event in found["history"]][-1] == "NEW"
    assert {"arc.edge/exec", "arc.edge/agent.restart", "arc.edge/agent.update", node.PING} <= kinds
    cluster = node.get(client, "/info/datastore")["cluster_id"]
    assert node.get(client, "/info/datastore", ROOT) == {
        "cluster_id": cluster, "id": "edge-1", "node_id": "edge-1", "kind": "ArcEdgeAgent", "version": "1.0.0",
    }  # fmt: skip
    refused = client.request("POST", f"{ROOT}/actions/schedule/{node.PING}", {"count": "x"})
    assert (refused.status, refused.json()["kind"]) == (400, "InvalidArgs")
    points = wait_until(lambda: client.query("SELECT agent, kind FROM arc.actions WHERE agent IS NOT NULL"), "a point")
    assert ["edge-1", "arc.edge/exec"] in points


def test_a_stop_waits_for_the_command_and_tells_how_it_ended(edge: Edge, client: Connection, tmp_path: Path) -> None:
    script = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo over"
    (edge.directory / "actions.d/wait.toml").write_text(f"[exec]\nargv = {json.dumps(['sh', '-c', script])}\n")
    start(edge, client)
    action_id = node.schedule(client, "arc.edge/exec", {"command": "wait"}, ROOT)
    wait_until((tmp_path / "begun").exists, "the command")

    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(edge.stop)
        wait_until(lambda: "stopping" in edge.stderr, "the stop")
        (tmp_path / "go").touch()
        assert stopped.result() == 0

    found = node.info(client, action_id, ROOT)["action"]
    assert (found["state"], found["state_payload"]["payload"]["stdout"]) == ("DONE", "over\n")


def test_action_for_an_agent_that_is_away_waits_for_it(edge: Edge, client: Connection) -> None:
    start(edge, client)
    edge.stop()
    action_id = node.schedule(client, node.PING, {"count": 2}, ROOT, "?created_ts=2024-05-06T07:08:09Z")
    doomed = node.schedule(client, node.PING, None, ROOT)
    queued = node.get(client, "/actions/queue", ROOT)
    answer = client.request("POST", f"{ROOT}/actions/cancel/{doomed}", {"reason": "enough"})
    stale = client.request("GET", f"{ROOT}/shards")

    start(edge, client)
    found = node.ended(client, action_id, ROOT)

    assert [(each["id"], each["state"]) for each in queued] == [(action_id, "NEW"), (doomed, "NEW")]
    assert answer.json() == {"id": doomed, "state": "CANCELLED"}
    assert (stale.json(), stale.headers["X-Arc-Stale"]) == ({"shards": []}, "true")
    assert found["action"]["state"] == "DONE"
    assert found["action"]["created_ts"] == "2024-05-06T07:08:09Z"
    assert node.info(client, doomed, ROOT)["action"]["state_payload"]["variant"] == "Cancelled"
    again = client.request("POST", f"{ROOT}/actions/schedule/{node.PING}?action_id={action_id}", {"count": 1})
    assert (again.status, again.json()["kind"]) == (409, "ActionAlreadyExists")


def test_agent_restarts_itself(edge: Edge, client: Connection) -> None:
    start(edge, client)
    pid = edge.pid

    found = node.ended(client, node.schedule(client, "arc.edge/agent.restart", {"delay_s": 0}, ROOT), ROOT)

    payload = found["action"]["state_payload"]["payload"]
    assert found["action"]["state"] == "DONE", found
    assert payload["old_pid"] == payload["new_pid"] == pid == edge.pid  # whoever started it still knows it
    assert payload["old_instance"] != payload["new_instance"]
    assert node.done(client, node.PING, None, ROOT)


def test_agent_in_the_background_restarts_as_another_process(edge: Edge, client: Connection) -> None:
    started = edge.command("start")
    old_pid = edge.pid
    old = psutil.Process(old_pid)  # knows it from a later process of the same id
    try:
        wait_until(lambda: reported(client), "the report of the agent")

        found = node.ended(client, node.schedule(client, "arc.edge/agent.restart", {"delay_s": 0}, ROOT), ROOT)

        payload = found["action"]["state_payload"]["payload"]
        assert found["action"]["state"] == "DONE", found
        assert (payload["old_pid"], payload["new_pid"]) == (old_pid, edge.pid)
        assert payload["old_pid"] != payload["new_pid"]
        noted = [event["state_payload"]["payload"] for event in found["history"] if event["state_payload"]]
        assert {(each or {}).get("old_pid") for each in noted} == {None, old_pid}
        assert node.done(client, node.PING, None, ROOT)
        assert (edge.command("status").stdout, started.returncode) == (f"running, process {edge.pid}\n", 0)
    finally:
        stopped = edge.command("stop")
    assert (stopped.stdout, edge.command("status").returncode) == ("the agent has stopped\n", 3)
    wait_until(lambda: not old.is_running(), "the end of the old process, which init learns of in its own time")


def test_agent_reads_its_configuration_again(edge: Edge, client: Connection) -> None:
    start(edge, client)
    conf, plugins = edge.directory / "arc.cfg", edge.directory / "actions.d"
    good, reload = conf.read_text(), "arc.edge/config.reload"

    def kinds() -> set[str]:
        return {kind["kind"] for kind in node.get(client, "/actions/available", ROOT)}

    conf.write_text(f"{good}service-allow: app\nfacts-dir: /elsewhere\nspool-size: 7\nlog-level: error\n")
    (plugins / "say.toml").unlink()
    found = node.done(client, reload, {}, ROOT)["payload"]
    wait_until(lambda: "arc.edge/service.start" in kinds(), "the report of other kinds")
    conf.write_text("spool-size: many\n")
    failed = node.ended(client, node.schedule(client, reload, {}, ROOT), ROOT)["action"]["state_payload"]
    conf.write_text(good)
    os.kill(edge.pid, signal.SIGHUP)
    wait_until(lambda: "arc.edge/service.start" not in kinds(), "what SIGHUP did")

    assert found["changed"] == ["plugins/say.toml", "service_allow"]  # a flag stands above the file's log-level
    assert found["requires_restart"] == ["facts_dir", "spool_size"]
    assert (failed["variant"], f"{conf}: spool_size: 'many'" in failed["error"]) == ("InvalidConfig", True)
    assert "arc.edge/exec" not in kinds()


def test_agent_without_actions_refuses_them(edge: Edge, client: Connection) -> None:
    with (edge.directory / "arc.cfg").open("a") as conf:
        conf.write("actions: no\n")
    edge.start()
    wait_until(lambda: client.request("GET", f"{ROOT}/actions").status == 200, "the registration of the agent")

    found = node.ended(client, node.schedule(client, node.PING, None, ROOT), ROOT)

    assert found["action"]["state_payload"]["variant"] == "ActionsDisabled"
    assert node.get(client, "/actions", ROOT) == {"actions": False}


SYSTEMCTL = """#!/bin/sh
case "$*" in
    *show*) printf 'MainPID=%s\nSubState=running\n' "$(cat {state}/agent.lock)" ;;
    *restart*) kill "$(cat {state}/agent.lock)" ;;  # whoever supervises it starts it again
esac
"""


def test_agent_is_restarted_by_its_supervisor(
    edge: Edge, client: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "systemctl").write_text(SYSTEMCTL.format(state=edge.directory / "state"))
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with (edge.directory / "arc.cfg").open("a") as file:
        file.write("service_unit: arc-agent.service\n")
    start(edge, client)
    old_pid = edge.pid
    action_id = node.schedule(client, "replicante.io/service.restart", {}, ROOT)
    wait_until(lambda: not edge.is_running, "the end of the first process", 60)

    edge.start()
    found = node.ended(client, action_id, ROOT)

    assert found["action"]["state"] == "DONE", found
    pids = [event["state_payload"]["payload"]["pid"] for event in reversed(found["history"]) if event["state_payload"]]
    assert pids[0] == str(old_pid) != str(edge.pid) == pids[-1]


def test_killed_agent_goes_on_with_its_action(edge: Edge, client: Connection) -> None:
    start(edge, client)
    action_id = node.schedule(client, node.LOOP, {"target": 4}, ROOT)
    wait_until(lambda: node.info(client, action_id, ROOT)["action"]["state"] == "RUNNING", "the first step")

    edge.kill9()
    edge.start()
    found = node.ended(client, action_id, ROOT)

    counts = [event["state_payload"]["count"] for event in reversed(found["history"]) if event["state_payload"]]
    assert counts == [1, 2, 3, 4]


def test_lost_actions_are_told_from_silent_ones(edge: Edge, client: Connection) -> None:
    start(edge, client)
    action_id = node.schedule(client, node.LOOP, {"target": 1000}, ROOT)
    wait_until(lambda: node.info(client, action_id, ROOT)["action"]["state"] == "RUNNING", "the first step")
    edge.kill9()
    assert node.info(client, action_id, ROOT)["action"]["state"] == "RUNNING"
    for name in ("actions.db", "actions.db-wal", "actions.db-shm"):
        (edge.directory / "state" / name).unlink(missing_ok=True)

    edge.start()

    assert node.ended(client, action_id, ROOT)["action"]["state_payload"]["variant"] == "Lost"


def test_agent_reports_again_to_a_server_that_lost_all(edge: Edge, client: Connection) -> None:
    start(edge, client)
    action_id = node.schedule(client, node.PING, None, ROOT)
    node.ended(client, action_id, ROOT)

    client.request("DELETE", "/api/v1/agents/edge-1")
    assert client.request("GET", f"{ROOT}/actions/info/{action_id}").status == 404

    wait_until(lambda: reported(client), "the report that was asked for")
    wait_until(lambda: client.request("GET", f"{ROOT}/actions/info/{action_id}").status == 200, "the copy")


def test_agent_that_listens(edge: Edge, client: Connection, server: ArcServer) -> None:
    port = free_port()
    listening = Edge(server, edge.directory.parent, "edge-1", {"listen": f"127.0.0.1:{port}", "listen-token": SECRET})
    start(listening, client)
    try:
        with Connection(port, SECRET) as local, Connection(port, "x" * 20) as stranger:
            action_id = node.schedule(local, node.PING, {"count": 1})
            found = node.ended(local, action_id)
            assert found["action"]["requester"] == "AGENT_API"
            assert [each["id"] for each in node.get(local, "/actions/finished")] == [action_id]
            assert node.get(local, "/shards/") == {"shards": []}
            assert stranger.request("GET", "/api/unstable/shards").status == 401
            assert local.request("DELETE", "/api/unstable/shards").headers["Allow"] == "GET, HEAD"
            bad = local.request("POST", f"/api/unstable/actions/schedule/{node.PING}", b'{"count": 1, "count": 2}')
            assert (bad.status, bad.json()["kind"]) == (400, "InvalidJson")
            assert local.request("POST", f"/api/unstable/actions/cancel/{action_id}").status == 409
        copied = wait_until(lambda: node.get(client, "/actions/finished", ROOT), "the copy at the server")
        assert json.dumps(copied) == json.dumps([{"kind": node.PING, "id": action_id, "state": "DONE"}])
    finally:
        listening.end()


def test_memory_of_an_agent_with_its_engine(edge: Edge, client: Connection) -> None:
    start(edge, client)
    for _ in range(20):
        node.done(client, "arc.edge/test.success", None, ROOT)

    agents.wait_online(client, "edge-1")
    assert psutil.Process(edge.pid).memory_info().rss < MAX_RSS
