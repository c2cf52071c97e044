"""Two real agents that are to restart at the same time: the server lets the second wait for the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration import noderoutes as node
from tests.integration.agents import Edge
from tests.integration.server import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.server import ArcServer, Connection

RESTART = "arc.edge/agent.restart"


def has_reported(client: Connection, root: str) -> bool:
    return client.request("GET", f"{root}/shards").status == 200


def test_one_agent_restarts_after_the_other(server: ArcServer, client: Connection, tmp_path: Path) -> None:
    names = ("turn-1", "turn-2")
    edges = [Edge(server, tmp_path, name).enrol(client) for name in names]
    first, second = (node.of_agent(name) for name in names)
    try:
        for edge in edges:
            edge.start()
        wait_until(lambda: all(has_reported(client, root) for root in (first, second)), "the reports of both")

        one = node.schedule(client, RESTART, {"delay_s": 0}, first)
        wait_until(lambda: node.info(client, one, first)["action"]["state"] != "NEW", "the first to begin")
        two = node.schedule(client, RESTART, {"delay_s": 0}, second)
        changed = client.request("GET", f"{second}/actions/info/{two}?wait=60&revision=0")

        assert changed.json()["action"]["id"] == two
        assert node.info(client, one, first)["action"]["state"] == "DONE"
        assert node.ended(client, two, second)["action"]["state"] == "DONE"
    finally:
        for edge in edges:
            edge.end()
