"""The transport of agents and enrolment over HTTP."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.unit.web import ADMIN, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MESSAGES = "/api/v1/agents/edge-1/messages"
HELLO = {"epoch": "e1", "messages": [{"seq": 1, "type": "registration", "version": 1, "payload": {"os": "linux"}}]}
INIT = "/api/v1/agents/init"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebApp]:
    with WebApp(tmp_path) as app:
        yield app


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebApp]:
    """For tests whose traces disturb no other."""
    with WebApp(tmp_path_factory.mktemp("shared")) as app:
        yield app


@pytest.fixture(scope="module")
def agent(shared: WebApp) -> dict[str, str]:
    return shared.token("agent")


def enrol(web: WebApp, identity: str = "edge-1") -> dict[str, Any]:
    token = web.client.post(INIT, headers=ADMIN).get_json()["token"]
    answer = web.client.post(f"{INIT}/{token}", json={"identity": identity})
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def test_batch_is_acknowledged_with_its_last_number(web: WebApp) -> None:
    agent = web.token("agent")

    answer = web.client.post(MESSAGES, json=HELLO, headers=agent)

    assert answer.get_json() == {"last_seq": 1, "rejected": []}
    assert web.client.post(MESSAGES, json=HELLO, headers=agent).get_json() == {"last_seq": 1, "rejected": []}


def test_batch_may_be_compressed(web: WebApp) -> None:
    body = gzip.compress(json.dumps(HELLO).encode())

    answer = web.client.post(MESSAGES, data=body, headers=web.token("agent") | {"Content-Encoding": "gzip"})

    assert answer.get_json()["last_seq"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"epoch": "e", "messages": {}}', 400),
        (b'{"epoch": "", "messages": []}', 400),
        (b'{"epoch": "e", "messages": [1]}', 400),
        (b" " * (2**20 + 1), 413),
        (gzip.compress(b" " * (2**20 + 1)), 413),
    ],
)
def test_what_is_no_batch_is_refused(shared: WebApp, agent: dict[str, str], body: bytes, status: int) -> None:
    assert shared.client.post(MESSAGES, data=body, headers=agent).status_code == status


def test_administrator_does_not_speak_for_agents(shared: WebApp) -> None:
    assert shared.client.post(MESSAGES, json=HELLO, headers=ADMIN).status_code == 403
    assert shared.client.get(MESSAGES, headers=ADMIN).status_code == 403


def test_request_is_fetched_confirmed_and_not_fetched_again(web: WebApp) -> None:
    agent = web.token("agent")
    web.client.post(MESSAGES, json=HELLO, headers=agent)
    job = {"to": "edge-1", "timeout": 60, "agent": "rpc", "action": "ping"}
    request_id = web.client.post("/api/v1/jobs", json=job, headers=ADMIN).get_json()["request_id"]

    (message,) = web.client.get(f"{MESSAGES}?wait_s=30", headers=agent).get_json()["messages"]

    assert message.pop("sender")
    assert message == {
        "version": 1, "to": "edge-1", "request_id": request_id, "timeout": 60, "agent": "rpc", "action": "ping",
        "payload": "", "type": "request",
    }  # fmt: skip
    received = {"epoch": "e1", "messages": [{"seq": 2, "type": "received", "request_ids": [request_id]}]}
    web.client.post(MESSAGES, json=received, headers=agent)
    assert web.client.get(MESSAGES, headers=agent).get_json()["messages"] == []


def test_waiting_poll_is_woken_by_a_new_job(web: WebApp) -> None:
    agent = web.token("agent")
    web.client.post(MESSAGES, json=HELLO, headers=agent)
    found: list[dict[str, Any]] = []
    poll = threading.Thread(
        target=lambda: found.append(web.client.get(f"{MESSAGES}?wait_s=30", headers=agent).get_json())
    )
    poll.start()

    job = {"to": "edge-1", "timeout": 60, "agent": "rpc", "action": "ping"}
    web.client.post("/api/v1/jobs", json=job, headers=ADMIN)

    poll.join(10)
    assert [each["type"] for each in found[0]["messages"]] == ["request"]


def test_goodbye_makes_an_agent_offline_at_once(web: WebApp) -> None:
    agent = web.token("agent")
    web.client.post(MESSAGES, json=HELLO, headers=agent)

    web.client.get(f"{MESSAGES}?offline=true", headers=agent)

    assert web.client.get("/api/v1/agents/edge-1", headers=ADMIN).get_json()["online"] is False


@pytest.mark.parametrize("wait", ["-1", "x", "nan", "inf"])
def test_bad_waiting_time_is_refused(shared: WebApp, agent: dict[str, str], wait: str) -> None:
    assert shared.client.get(f"{MESSAGES}?wait_s={wait}", headers=agent).status_code == 400


def test_enrolled_agent_speaks_for_itself_only(web: WebApp) -> None:
    credential = enrol(web)
    agent = {"Authorization": f"Bearer {credential['token']}"}

    assert credential.keys() == {"token", "identity", "project", "organization", "server"}
    assert web.client.post(MESSAGES, json=HELLO, headers=agent).status_code == 200
    for method in ("GET", "POST"):
        answer = web.client.open("/api/v1/agents/edge-2/messages", method=method, json=HELLO, headers=agent)
        assert answer.status_code == 403
    assert web.client.get("/api/v1/agents", headers=agent).status_code == 403


def test_new_enrolment_ends_the_old_credential(shared: WebApp) -> None:
    old, new = enrol(shared)["token"], enrol(shared)["token"]

    assert shared.client.post(MESSAGES, json=HELLO, headers={"x-api-key": old}).status_code == 401
    assert shared.client.post(MESSAGES, json=HELLO, headers={"x-api-key": new}).status_code == 200


def test_enrolment_answers_five_keys_with_the_address_the_caller_used(shared: WebApp) -> None:
    forwarded = {"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "a.example, arc.example:8443"}

    made = shared.client.post(INIT, headers=ADMIN | forwarded).get_json()

    assert list(made) == ["token", "url", "endpoint_url", "update_url", "renew_cert_url"]
    assert made["url"] == f"https://arc.example:8443/api/v1/agents/init/{made['token']}"
    assert made["endpoint_url"] == "https://arc.example:8443"


def test_address_for_new_machines_may_be_configured(tmp_path: Path) -> None:
    with WebApp(tmp_path, **{"fleet.public_url": "https://arc.example/"}) as web:
        assert web.client.post(INIT, headers=ADMIN).get_json()["endpoint_url"] == "https://arc.example"


@pytest.mark.parametrize("body", [{"CN": "a b"}, {"CN": 1}, {"names": 1}, {"names": [{"O": 1}]}, [], "x"])
def test_bad_subject_is_refused(shared: WebApp, body: Any) -> None:
    assert shared.client.post(INIT, json=body, headers=ADMIN).status_code == 400


def test_exchange_is_refused_for_a_secret_nobody_made(shared: WebApp) -> None:
    answer = shared.client.post(f"{INIT}/nonsense", json={"identity": "edge-1"})

    assert (answer.status_code, answer.get_json()["error"]) == (403, "Token not found")


def test_exchange_without_an_identity_is_refused(shared: WebApp) -> None:
    token = shared.client.post(INIT, headers=ADMIN).get_json()["token"]

    assert shared.client.post(f"{INIT}/{token}", json={}).status_code == 400


@pytest.mark.parametrize("kind", ["text/x-shellscript", "text/cloud-config"])
def test_script_installs_and_starts_the_agent(shared: WebApp, kind: str) -> None:
    headers = ADMIN | {"Accept": kind, "Host": "arc.example:8000"}

    answer = shared.client.post(INIT, json={"CN": "press-07"}, headers=headers)

    assert answer.content_type == kind
    script = answer.text if kind == "text/x-shellscript" else yaml.safe_load(answer.text)["runcmd"][0][2]
    assert "http://arc.example:8000/api/v1/agents/program" in script
    assert "agent init --server http://arc.example:8000 --enrolment-token " in script
    assert "--identity press-07" in script
    assert subprocess.run([shutil.which("sh") or "sh", "-n"], input=script.encode()).returncode == 0


@pytest.mark.parametrize("kind", ["text/x-shellscript, */*", "text/html", ""])
def test_any_other_accept_means_json(shared: WebApp, kind: str) -> None:
    assert shared.client.post(INIT, headers=ADMIN | {"Accept": kind}).is_json


def test_program_is_for_holders_of_some_token(web: WebApp) -> None:
    token = web.client.post(INIT, headers=ADMIN).get_json()["token"]
    path = "/api/v1/agents/program"

    for good in ({"X-Enrolment-Token": token}, web.token("agent")):
        answer = web.client.get(path, headers=good)
        assert (answer.status_code, answer.content_type) == (200, "application/zip")
        assert answer.data.startswith(b"#!/usr/bin/env python3\nPK")
        assert web.client.get(path, headers=good | {"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert web.client.get(f"{path}?token={token}").status_code == 200
    assert web.client.get(path, headers={"X-Enrolment-Token": "x"}).status_code == 403
    assert web.client.get(path).status_code == 401
