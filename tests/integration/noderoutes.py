"""A node's actions over HTTP, for tests: schedule, follow to the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.integration.server import wait_until

if TYPE_CHECKING:
    from tests.integration.server import Connection

OWN = "/api/unstable"
PING, LOOP = "agent.replicante.io/test.ping", "agent.replicante.io/test.loop"


def of_agent(identity: str) -> str:
    return f"/api/v1/agents/{identity}"


def get(client: Connection, path: str, root: str = OWN) -> Any:
    answer = client.request("GET", root + path)
    assert answer.status == 200, answer.body
    return answer.json()


def schedule(client: Connection, kind: str, args: Any = None, root: str = OWN, query: str = "") -> str:
    body, sent = json.dumps(args).encode(), {"Content-Type": "application/json"}
    answer = client.request("POST", f"{root}/actions/schedule/{kind}{query}", body, sent)
    assert answer.status == 200, answer.body
    action_id: str = answer.json()["id"]
    return action_id


def info(client: Connection, action_id: str, root: str = OWN) -> dict[str, Any]:
    found: dict[str, Any] = get(client, f"/actions/info/{action_id}", root)
    return found


def ended(client: Connection, action_id: str, root: str = OWN, timeout_s: float = 60.0) -> dict[str, Any]:
    """`action` and `history`, once it has ended."""

    def look() -> dict[str, Any] | None:
        try:
            found = info(client, action_id, root)
        except OSError:  # its server is being restarted
            client.close()
            return None
        return found if found["action"]["state"] in ("DONE", "FAILED") else None

    found: dict[str, Any] = wait_until(look, f"the end of action {action_id}", timeout_s)
    return found


def done(client: Connection, kind: str, args: Any = None, root: str = OWN) -> Any:
    """The payload of an action that must end well."""
    found = ended(client, schedule(client, kind, args, root), root)["action"]
    assert found["state"] == "DONE", found
    return found["state_payload"]
