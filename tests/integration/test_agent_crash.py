"""kill -9 of the server and of agents while executions run: each ends in a state that is true, no log has a gap.

ARC_FLEET_KILLS: how often each of the two is killed; 20 in the full run.
"""

from __future__ import annotations

import os
import random
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration import agents
from tests.integration.agents import Edge
from tests.integration.server import ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.server import Connection

KILLS = int(os.environ.get("ARC_FLEET_KILLS", "3"))
NAMES = ("crash-01", "crash-02", "crash-03")
LINES = 30
# Writes numbered lines for about a second and, at its very end, the proof that it got there.
SCRIPT = "for i in $(seq 1 {lines}); do echo line $i; sleep 0.03; done; touch {proof}; exit {code}"


class Work:
    """Executions that were asked for, and what each must leave behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.wanted: dict[str, tuple[Path, int]] = {}  # proof and exit code by request id

    def ask(self, admin: Connection, identity: str) -> str:
        number = len(self.wanted)
        proof, code = self._directory / f"proof-{number}", number % 3
        script = SCRIPT.format(lines=LINES, proof=proof, code=code)
        request_id = agents.run(admin, identity, "execute", "script", script)
        self.wanted[request_id] = (proof, code)
        return request_id

    def check(self, admin: Connection) -> list[str]:
        """How each ended: complete, failed, or cut off by the end of its agent."""
        return [self._check_one(admin, request_id) for request_id in self.wanted]

    def _check_one(self, admin: Connection, request_id: str) -> str:
        job = agents.ended(admin, request_id, timeout_s=60)
        proof, code = self.wanted[request_id]
        answer = admin.request("GET", f"/api/v1/jobs/{request_id}/log", headers={"Accept": "application/json"})
        parts = answer.json()["parts"]
        numbers = [part["number"] for part in parts]
        log = "".join(part["content"] for part in parts)
        lines = [int(number) for number in re.findall(r"line (\d+)\n", log)]

        assert lines == list(range(1, len(lines) + 1)), "a gap or a double in the log"
        assert numbers == sorted(set(numbers))
        assert numbers in ([1], list(range(2, len(numbers) + 2))), "a gap between parts"  # 1 is the empty heartbeat
        assert [part["final"] for part in parts] == [False] * (len(parts) - 1) + [True]
        if log.endswith("agent was restarted"):
            assert job["status"] == "failed"
            return "cut off"
        assert proof.exists()
        assert lines == list(range(1, LINES + 1))
        assert job["exit_code"] == code
        assert job["status"] == ("failed" if code else "complete")
        assert log.endswith(f"exit status {code}" if code else f"line {LINES}\n")
        return str(job["status"])


@pytest.fixture
def fleet(make_server: Callable[..., ArcServer], tmp_path: Path) -> Iterator[tuple[ArcServer, list[Edge]]]:
    server = make_server(options={"fleet.deliver_within_s": "600"}).start()
    edges = []
    try:
        with server.connect() as admin:
            edges = [Edge(server, tmp_path, name).enrol(admin).start() for name in NAMES]
            agents.wait_online(admin, *NAMES)
        yield server, edges
    finally:
        for edge in edges:
            edge.end()


def test_killed_server_loses_no_reply(fleet: tuple[ArcServer, list[Edge]], tmp_path: Path) -> None:
    server, edges = fleet
    work, chance = Work(tmp_path), random.Random(5)

    for _ in range(KILLS):
        with server.connect() as admin:
            asked = [work.ask(admin, edge.identity) for edge in edges]
            wait_until(lambda asked=asked: agents.job(admin, asked[0])["status"] != "queued", "a begin", 60)
        time.sleep(chance.uniform(0.0, 1.5))  # the moment of the kill is the point of this test
        server.kill9()
        server.start()

    with server.connect() as admin:
        endings = work.check(admin)
    assert "cut off" not in endings  # no agent was restarted
    assert len(endings) == KILLS * len(edges)


def test_killed_agent_tells_the_truth_at_its_next_start(fleet: tuple[ArcServer, list[Edge]], tmp_path: Path) -> None:
    server, edges = fleet
    work, chance = Work(tmp_path), random.Random(6)

    with server.connect() as admin:
        for round_number in range(KILLS):
            victim = edges[round_number % len(edges)]
            for edge in edges:
                work.ask(admin, edge.identity)
            time.sleep(chance.uniform(0.0, 1.5))  # the moment of the kill is the point of this test
            victim.kill9()
            victim.start()
        endings = work.check(admin)

    assert len(endings) == KILLS * len(edges)
    assert endings.count("cut off") <= KILLS * KILLS
    wait_until(lambda: not _scripts_that_run(tmp_path), "the end of all scripts")


def _scripts_that_run(directory: Path) -> list[str]:
    """Processes of executions of this test."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    environment = file.read()
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    command = file.read()
            except OSError:
                continue
            if b"ARC_REQUEST_ID=" in environment and b"execute" in command and str(directory).encode() in environment:
                found.append(name)
    return found
