"""Three agents as processes and a server: registration, executions, metrics, commands, orderly ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration import agents
from tests.integration.agents import Edge
from tests.integration.server import LAUNCHER, TOKEN, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.server import ArcServer, Connection

NAMES = ("press-01", "press-02", "press-03")


@pytest.fixture(scope="module")
def edges(server: ArcServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Edge]]:
    directory = tmp_path_factory.mktemp("edges")
    made: dict[str, Edge] = {}
    with server.connect() as admin:
        try:
            for name in NAMES:
                made[name] = Edge(server, directory, name).enrol(admin).start()
            agents.wait_online(admin, *NAMES)
            yield made
        finally:
            for edge in made.values():
                edge.end()


@pytest.fixture
def edge(edges: dict[str, Edge], client: Connection) -> Edge:
    """One that runs, whatever the test before did to it."""
    edge = edges["press-01"]
    if not edge.is_running:
        edge.start()
    agents.wait_online(client, edge.identity)
    return edge


def test_agents_register_with_their_facts(edges: dict[str, Edge], client: Connection) -> None:
    for name in NAMES:
        facts = wait_until(lambda name=name: _complete(agents.facts(client, name)), f"facts of {name}")

        assert facts["identity"] == name
        assert facts["agents"] == {"chef": "disabled", "execute": "enabled", "rpc": "enabled"}
        assert facts["os"] == "linux"
        assert facts["memory_total"] >= facts["memory_used"] > 0


def test_each_agent_answers_for_itself(edges: dict[str, Edge], client: Connection) -> None:
    jobs = {name: agents.run(client, name, "execute", "script", f"echo I am {name}") for name in NAMES}

    for name, request_id in jobs.items():
        assert agents.ended(client, request_id)["status"] == "complete"
        assert agents.log_of(client, request_id) == f"I am {name}\n"


def test_execution_shows_its_output_as_it_comes(edge: Edge, client: Connection, tmp_path: Path) -> None:
    go = tmp_path / "go"
    request_id = agents.run(
        client, edge.identity, "execute", "script", f"echo begun; until [ -e {go} ]; do sleep 0.05; done; exit 4"
    )

    agents.wait_log(client, request_id, lambda log: log == "begun\n", "output")
    assert agents.job(client, request_id)["status"] == "executing"
    go.touch()
    job = agents.ended(client, request_id)

    assert (job["status"], job["exit_code"]) == ("failed", 4)
    assert job["created_at"] <= job["started_at"] <= job["ended_at"]
    assert agents.log_of(client, request_id) == "begun\nexit status 4"


def test_cancelled_execution_ends_with_its_processes(edge: Edge, client: Connection) -> None:
    request_id = agents.run(client, edge.identity, "execute", "script", "sleep 60 & echo $!; wait")
    log = agents.wait_log(client, request_id, lambda log: log.endswith("\n"), "a process id")

    assert client.request("PUT", f"/api/v1/jobs/{request_id}/cancel").status == 200

    assert agents.ended(client, request_id)["status"] == "failed"
    assert agents.log_of(client, request_id) == log + "cancelled"
    wait_until(lambda: not _is_alive(int(log)), "the end of the child")


def test_metrics_arrive_under_the_name_of_the_agent(edges: dict[str, Edge], client: Connection) -> None:
    def hosts() -> list[object]:
        return [host for (host,) in client.query("SELECT DISTINCT host FROM host.mem ORDER BY host")]

    wait_until(lambda: client.request("GET", "/api/v1/databases/host").status == 200, "the database")
    wait_until(lambda: _tried(hosts) == list(NAMES), "metrics of all three")


def test_changed_custom_fact_arrives_and_goes(edge: Edge, client: Connection) -> None:
    path = edge.directory / "facts.d" / "site.json"
    path.parent.mkdir(exist_ok=True)

    path.write_text('{"site": "north", "line": 7}')
    wait_until(lambda: agents.facts(client, edge.identity).get("site") == "north", "the fact")
    path.write_text('{"line": 8}')
    wait_until(lambda: agents.facts(client, edge.identity).get("line") == 8, "the change")

    assert "site" not in agents.facts(client, edge.identity)
    path.unlink()
    wait_until(lambda: "line" not in agents.facts(client, edge.identity), "the end of the fact")


def test_commands_follow_the_life_of_an_agent(server: ArcServer, client: Connection, tmp_path: Path) -> None:
    edge = Edge(server, tmp_path, "press-09")
    assert edge.command("status").returncode == 3
    refused = edge.command("init", "--server", server.url, "--enrolment-token", "no-such-token")
    assert (refused.returncode, refused.stderr) == (1, "arc agent: invalid registration token given\n")
    edge.enrol(client)
    config = edge.directory / "arc.cfg"
    assert config.stat().st_mode & 0o777 == 0o600

    assert edge.command("start").returncode == 0
    try:
        assert edge.command("status").returncode == 0
        agents.wait_online(client, "press-09")
        second = edge.command()
        assert second.returncode == 1
        assert "runs in" in second.stderr
    finally:
        assert edge.command("stop").returncode == 0
    assert edge.command("status").returncode == 3
    assert agents.facts(client, "press-09")["online"] is False

    words = ("rpc", "ping", "-i", "press-09", "-t", "1", "--server", server.url, "--token", TOKEN)
    silent = edge.command("run", *words)
    assert silent.returncode == 1
    assert "no reply for 3 s" in silent.stderr


def test_agent_is_one_file_that_the_server_hands_out(server: ArcServer, client: Connection, tmp_path: Path) -> None:
    answer = client.request("GET", "/api/v1/agents/program")
    path = tmp_path / "arc-agent.pyz"
    path.write_bytes(answer.body)
    edge = Edge(server, tmp_path, "press-08", program=str(path)).enrol(client)

    assert edge.command("start").returncode == 0
    try:
        agents.wait_online(client, "press-08")
        request_id = agents.run(client, "press-08", "execute", "command", "echo one file")
        assert agents.ended(client, request_id)["status"] == "complete"
        assert agents.log_of(client, request_id) == "one file\n"
    finally:
        assert edge.command("stop").returncode == 0


def test_run_prints_the_output_of_another_machine(edge: Edge, server: ArcServer) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, LAUNCHER, "agent", "run", *words, "--server", server.url, "--token", TOKEN]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    good = run("execute", "script", "-i", edge.identity, "-p", "echo one; sleep 0.1; echo two")
    bad = run("execute", "command", "-i", edge.identity, "-p", "false")
    unknown = run("rpc", "ping", "-i", "nobody")

    assert (good.returncode, good.stdout) == (0, "one\ntwo\n")
    assert (bad.returncode, bad.stdout) == (1, "exit status 1\n")
    assert unknown.returncode == 1


def test_sigterm_lets_executions_finish_and_serves_new_ones_meanwhile(
    edge: Edge, client: Connection, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = f"echo begun; until [ -e {go} ]; do sleep 0.05; done; echo ended"
    request_id = agents.run(client, edge.identity, "execute", "script", script)
    agents.wait_log(client, request_id, lambda log: log, "output")

    os.kill(edge.pid, signal.SIGTERM)
    wait_until(lambda: "stopping" in edge.stderr, "the signal")
    assert agents.ended(client, agents.run(client, edge.identity, "rpc", "ping"))["status"] == "complete"
    assert edge.is_running
    go.touch()

    assert agents.ended(client, request_id)["status"] == "complete"
    wait_until(lambda: not edge.is_running, "the end of the agent")
    assert agents.log_of(client, request_id) == "begun\nended\n"
    assert agents.facts(client, edge.identity)["online"] is False


def test_sigint_stops_at_once_and_the_next_start_says_so(edge: Edge, client: Connection) -> None:
    request_id = agents.run(client, edge.identity, "execute", "script", "echo $$; sleep 60")
    log = agents.wait_log(client, request_id, lambda log: log, "output")

    assert edge.stop(signal.SIGINT) == 0
    assert not _is_alive(int(log))
    assert agents.job(client, request_id)["status"] == "executing"
    assert agents.facts(client, edge.identity)["online"] is False
    edge.start()

    assert agents.ended(client, request_id)["status"] == "failed"
    assert agents.log_of(client, request_id) == log + "agent was restarted"


def test_agent_is_small_and_loads_nothing_big(edge: Edge, client: Connection) -> None:
    """The modules of a started agent, told by a plug-in of the agent itself; the limit on memory is an operator's."""
    (edge.directory / "plugins").mkdir(exist_ok=True)
    (edge.directory / "plugins" / "look.py").write_text(
        "import json, sys\nfrom arc.agent.plugins import Plugin\n"
        "class Look(Plugin):\n    name, actions = 'look', ('modules',)\n"
        "    def modules(self, task):\n        return json.dumps(sorted(sys.modules))\n"
    )
    edge.stop()
    edge.start()
    agents.wait_online(client, edge.identity)

    request_id = agents.run(client, edge.identity, "look", "modules")
    assert agents.ended(client, request_id)["status"] == "complete"
    modules = {name for name in json.loads(agents.log_of(client, request_id)) if not name.startswith("__editable__")}
    loaded = {name.partition(".")[0] for name in modules}

    assert loaded - set(sys.stdlib_module_names) <= {"__main__", "arc", "psutil", "_distutils_hack"}
    assert not modules & {"ssl", "_ssl", "asyncio", "http.client", "hashlib", "email", "click", "encodings.idna"}
    ours = {name.split(".")[1] for name in modules if name.startswith("arc.")}
    assert ours <= {"agent", "actions", "clock", "errors", "loop", "hoststats", "__main__"}
    status = (edge.directory / "state" / "agent.lock").read_text()
    rss_kb = int(_proc_field(int(status), "VmRSS"))
    assert rss_kb < 25 * 1024


def _complete(facts: dict[str, object]) -> dict[str, object] | None:
    return facts if "agents" in facts and "memory_total" in facts else None


def _tried(query: object) -> object:
    try:
        return query()  # type: ignore[operator]
    except AssertionError:  # no such measurement yet
        return None


def _proc_field(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/status") as status:
        return next(line.split()[1] for line in status if line.startswith(name))


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
