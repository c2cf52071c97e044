"""An agent in a network of its own, whose link is cut and comes back: nothing lost, nothing twice, order kept."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration import agents
from tests.integration.agents import Edge
from tests.integration.server import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.server import ArcServer

OFFLINE_AFTER_S = 3.0
SUBNET = f"10.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}"
HOST_ADDRESS, EDGE_ADDRESS = f"{SUBNET}.1", f"{SUBNET}.2"


class Link:
    """A network namespace and the pair of interfaces that leads into it."""

    def __init__(self) -> None:
        self.namespace = f"arc{os.getpid()}"
        self._outside, self._inside = f"av{os.getpid()}", f"ai{os.getpid()}"

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]

    def make(self) -> None:
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._outside, "type", "veth", "peer", "name", self._inside, "netns", self.namespace)
        _ip("addr", "add", f"{HOST_ADDRESS}/24", "dev", self._outside)
        _ip("link", "set", self._outside, "up")
        _ip("-n", self.namespace, "addr", "add", f"{EDGE_ADDRESS}/24", "dev", self._inside)
        _ip("-n", self.namespace, "link", "set", self._inside, "up")
        _ip("-n", self.namespace, "link", "set", "lo", "up")

    def cut(self) -> None:
        _ip("link", "set", self._outside, "down")

    def restore(self) -> None:
        _ip("link", "set", self._outside, "up")

    def remove(self) -> None:
        subprocess.run(["ip", "link", "delete", self._outside], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", self.namespace], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def link() -> Iterator[Link]:
    if os.geteuid() != 0:
        pytest.skip("needs root for a network namespace")
    link = Link()
    try:
        link.make()
        yield link
    finally:
        link.remove()


def test_agent_survives_the_loss_of_its_network(
    make_server: Callable[..., ArcServer], link: Link, tmp_path: Path
) -> None:
    options = {
        "server.host": "0.0.0.0",
        "fleet.offline_after_s": str(OFFLINE_AFTER_S),
        "fleet.long_poll_s": "1",
    }
    server = make_server(options=options).start()
    url = f"http://{HOST_ADDRESS}:{server.port}"
    with server.connect() as admin:
        edge = Edge(server, tmp_path, "far-away", {"poll-time": "1"}, link.prefix, url).enrol(admin).start()
        try:
            agents.wait_online(admin, edge.identity)
            go = tmp_path / "go"
            script = (
                f"for i in $(seq 1 1000); do echo line $i; sleep 0.01; [ -e {go} ] && break; done; echo last; exit 6"
            )
            running = agents.run(admin, edge.identity, "execute", "script", script, timeout=120)
            agents.wait_log(admin, running, lambda log: "line 1\n" in log, "output")

            link.cut()
            wait_until(lambda: not agents.is_online(admin, edge.identity), "offline", OFFLINE_AFTER_S * 4)
            seen = agents.log_of(admin, running)
            waiting = [agents.run(admin, edge.identity, "rpc", "ping") for _ in range(3)]
            go.touch()  # the script ends while nobody hears it
            wait_until(lambda: f"job {running}: failed" in edge.stderr, "the end of the script")
            assert agents.job(admin, running)["status"] == "executing"
            link.restore()

            wait_until(lambda: agents.is_online(admin, edge.identity), "online again", 60)
            job = agents.ended(admin, running, 60)
            assert (job["status"], job["exit_code"]) == ("failed", 6)
            log = agents.log_of(admin, running)
            assert log.startswith(seen)
            numbers = [int(number) for number in re.findall(r"line (\d+)\n", log)]
            assert numbers == list(range(1, len(numbers) + 1))
            assert log == "".join(f"line {number}\n" for number in numbers) + "last\nexit status 6"
            for request_id in waiting:
                assert agents.ended(admin, request_id)["status"] == "complete"
                assert agents.log_of(admin, request_id) == "pong"
            events = admin.request("GET", f"/api/v1/agents/{edge.identity}/events").json()
            assert [event["event"] for event in events][:2] == ["online", "offline"]  # the newest first
        finally:
            edge.end()
