"""The audit trail over HTTP: which requests leave an entry, what is in it, and what never is."""

from __future__ import annotations

import json
import logging
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from arc.access.audit import AuditTrail
from arc.actions import execkind, testkinds
from arc.actions.attributes import Datastore, Role, Shard, Shards, Version
from arc.actions.engine import ActionEngine
from arc.actions.execkind import Allowed
from arc.actions.node import Node
from arc.actions.worker import EngineOptions
from arc.cli import main
from arc.commands import client
from arc.db.engine import open_database
from arc.errors import Unavailable
from arc.fleet.intake import Speaker
from tests.unit.web import ADMIN, SECRET, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from werkzeug.test import TestResponse

PING, EXEC = "agent.replicante.io/test.ping", "arc.edge/exec"
HIDDEN = "hunter2"
JOB = {"name": "j", "inputs": {"password": HIDDEN}, "secrets": {"key": HIDDEN}, "tasks": [{"name": "t", "run": "x"}]}

# What may change something and still leaves no entry. Whoever adds a route thinks of one, or names it here.
SILENT = {
    *("write_msgpack", "write_lines", "write_json", "write_arrow", "flush", "flush_line_protocol"),
    *("import_csv", "import_parquet", "import_line_protocol", "create_database", "create_bucket"),
    *("query", "query_arrow", "query_msgpack", "query_stream", "query_estimate", "flux_query", "cancel_query"),
    *("clear_query_cache", "invalidate_token_cache", "reload_continuous_queries"),
    *("trigger_compaction", "trigger_hourly_compaction", "trigger_daily_compaction"),
    *("clean_up_wal", "flush_wal", "recover_wal"),  # none of them takes rows away
    *("restore_backup", "delete_by_predicate"),  # always refused
    "post_agent_messages",  # the transport of agents
}


class Audited(WebApp):
    """A server with a node of its own and an agent."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        kinds = [*testkinds.kinds(), execkind.kind({"true": Allowed(("true",), env=("KEY",))})]
        self.engine = ActionEngine(data_dir / "actions", kinds, EngineOptions())
        datastore = Datastore("plant-7", "press-03:8000", "Arc", "1.0.0")
        node = Node(
            self.engine, Version("1.0.0"), lambda: datastore, Shards(dict, {"": Shard("", Role.PRIMARY)}.__getitem__)
        )
        self.app.extensions["arc"] = replace(self.parts, node=node)
        said = {"type": "registration", "version": 1, "sender": "edge-1", "registration_id": "r", "payload": {}}
        assert self.parts.fleet.post("edge-1", Speaker(None), "e", [{"seq": 1, **said}]).rejected == []
        self.writer = self.token("write")
        self.seen = 0

    def __exit__(self, *_: object) -> None:
        self.engine.stop()
        super().__exit__()

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] = ADMIN, status: int = 200
    ) -> TestResponse:
        answer = self.client.open(path, method=method, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer

    def new(self) -> list[dict[str, Any]]:
        """The entries since the last call, oldest first."""
        entries = self.ask("GET", "/api/v1/audit").get_json()["entries"]
        fresh = [entry for entry in reversed(entries) if entry["id"] > self.seen]
        self.seen = max([self.seen, *(entry["id"] for entry in fresh)])
        return fresh


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    with Audited(tmp_path_factory.mktemp("audited")) as app:
        yield app


@pytest.fixture
def web(shared: Audited) -> Audited:
    shared.new()
    return shared


def short(entry: dict[str, Any]) -> tuple[str, str, dict[str, Any], int]:
    return entry["action"], entry["object"], entry["details"], entry["status"]


def test_action_leaves_who_where_what(web: Audited) -> None:
    sent = {**web.writer, "X-Request-Id": "r-7"}
    action_id = web.ask("POST", f"/api/unstable/actions/schedule/{PING}", {}, sent).get_json()["id"]
    web.ask("POST", f"/api/unstable/actions/cancel/{action_id}", {"reason": HIDDEN}, web.writer)

    scheduled, cancelled = web.new()
    assert short(scheduled) == ("action.schedule", action_id, {"kind": PING}, 200)
    assert (scheduled["token"], scheduled["client"], scheduled["request_id"]) == ("only-write", "127.0.0.1", "r-7")
    assert scheduled["token_id"] == web.tokens.list()[-1].id
    assert short(cancelled) == ("action.cancel", action_id, {}, 200)


def test_what_was_not_allowed_is_recorded_and_what_failed_is_not(web: Audited) -> None:
    web.ask("POST", f"/api/unstable/actions/schedule/{EXEC}", {"command": "true"}, web.writer, 403)
    web.ask("DELETE", "/auth/tokens/1", None, web.writer, 403)
    web.ask("POST", f"/api/unstable/actions/schedule/{PING}", {"count": "x"}, web.writer, 400)
    web.ask("DELETE", "/auth/tokens/99", None, ADMIN, 404)
    web.ask("DELETE", "/auth/tokens/1", None, {}, 401)
    web.ask("GET", "/auth/tokens")

    assert [short(entry) for entry in web.new()] == [
        ("action.schedule", "", {"kind": EXEC}, 403),
        ("token.delete", "1", {}, 403),
    ]


def test_actions_and_commands_of_machines(web: Audited) -> None:
    action_id = web.ask("POST", f"/api/v1/agents/edge-1/actions/schedule/{PING}", {}).get_json()["id"]
    web.ask("POST", f"/api/v1/agents/edge-1/actions/cancel/{action_id}", {})
    command = {"to": "edge-1", "timeout": 60, "agent": "rpc", "action": "ping", "payload": HIDDEN}
    request_id = web.ask("POST", "/api/v1/jobs", command).get_json()["request_id"]
    web.ask("PUT", f"/api/v1/jobs/{request_id}/cancel")
    web.ask("POST", "/api/v1/agents/edge-1/tags", {"role": HIDDEN}, status=204)
    web.ask("DELETE", "/api/v1/agents/edge-1/tags/role", status=204)

    found = web.new()
    assert [short(entry) for entry in found] == [
        ("action.schedule", action_id, {"agent_id": "edge-1", "kind": PING}, 200),
        ("action.cancel", action_id, {"agent_id": "edge-1"}, 200),
        ("command.run", request_id, {"agent_id": "edge-1", "agent": "rpc", "action": "ping"}, 200),
        ("command.cancel", request_id, {}, 200),
        ("agent.tag", "edge-1", {}, 204),
        ("agent.untag", "edge-1", {"key": "role"}, 204),
    ]
    assert HIDDEN not in str(found)


def test_life_of_a_token(web: Audited) -> None:
    made = web.ask("POST", "/api/v1/auth/tokens", {"name": "edge", "permissions": ["write"]}, status=201).get_json()
    path = f"/auth/tokens/{made['id']}"
    web.ask("PATCH", path, {"permissions": ["write", "admin"]})
    rotated = web.ask("POST", f"{path}/rotate").get_json()
    web.ask("POST", f"{path}/revoke")
    web.ask("DELETE", path)

    found = web.new()
    named = {"name": "edge", "permissions": ["write", "admin"], "enabled": True}
    assert [short(entry) for entry in found] == [
        ("token.create", str(made["id"]), named | {"permissions": ["write"]}, 201),
        ("token.update", str(made["id"]), named, 200),
        ("token.rotate", str(made["id"]), named, 200),
        ("token.revoke", str(made["id"]), named | {"enabled": False}, 200),
        ("token.delete", str(made["id"]), named | {"enabled": False}, 200),
    ]
    for secret in (SECRET, made["token"], rotated["token"]):
        assert secret not in str(found)


def test_enrolment_leaves_no_secret_and_strangers_leave_nothing(web: Audited) -> None:
    secret = web.ask("POST", "/api/v1/agents/init", {"cn": "press-03"}).get_json()["token"]
    web.ask("POST", "/api/v1/agents/init/wrong", {"identity": "press-03"}, {}, 403)
    web.ask("POST", f"/api/v1/agents/init/{secret}", {"identity": "press-03"}, {})
    web.ask("DELETE", "/api/v1/agents/nobody", status=404)

    made, exchanged = web.new()
    assert short(made) == ("enrolment.create", "press-03", {}, 200)
    assert short(exchanged) == ("enrolment.exchange", "press-03", {}, 200)
    assert (made["token"], exchanged["token"], exchanged["token_id"]) == ("admin", "", None)
    assert secret not in str([made, exchanged])


def test_secret_arguments_are_nowhere(web: Audited, caplog: pytest.LogCaptureFixture) -> None:
    args = {"command": "true", "env": {"KEY": HIDDEN}}
    with caplog.at_level(logging.DEBUG):
        action_id = web.ask("POST", f"/api/unstable/actions/schedule/{EXEC}", args).get_json()["id"]
        while web.engine.cycle() is not None:
            pass

    info = web.ask("GET", f"/api/unstable/actions/info/{action_id}").get_json()
    assert info["action"]["args"]["env"] == "********"
    [entry] = web.new()
    assert short(entry) == ("action.schedule", action_id, {"kind": EXEC}, 200)
    assert HIDDEN not in str([info, entry, caplog.records, caplog.text])
    assert action_id in caplog.text


def test_jobs(web: Audited) -> None:
    job_id = web.ask("POST", "/jobs", JOB).get_json()["id"]
    waited = web.ask("POST", "/jobs", JOB | {"wait": {"timeout": "10ms"}}, status=408).get_json()["id"]
    web.parts.jobs.coordinator.starter.step(0)
    web.ask("PUT", f"/jobs/{job_id}/cancel")
    web.ask("PUT", f"/jobs/{job_id}/restart")
    web.ask("DELETE", "/queues/nosuch", None, web.token("read"), 403)

    found = web.new()
    assert [short(entry) for entry in found] == [
        ("job.submit", job_id, {}, 200),
        ("job.submit", waited, {}, 408),
        ("job.cancel", job_id, {}, 200),
        ("job.restart", job_id, {}, 200),
        ("queue.purge", "nosuch", {}, 403),
    ]
    assert HIDDEN not in str(found)


def test_asking_what_a_route_can_is_no_deed(web: Audited) -> None:
    web.client.options("/auth/tokens/1", headers=ADMIN)
    web.client.options("/auth/tokens/1", headers=web.writer)
    web.client.head("/api/v1/backup/b-1/archive", headers=web.writer)

    assert web.new() == []


def test_deed_counts_when_the_trail_cannot_be_written(
    web: Audited, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise Unavailable("no space for the metadata database")

    monkeypatch.setattr(web.audit, "record", full)

    made = web.ask("POST", "/auth/tokens", {"name": "untold"}).get_json()

    assert f"not in the audit trail: token.create {made['id']}" in caplog.text


def test_list_is_filtered_and_for_admins(web: Audited) -> None:
    for number in range(3):
        web.ask("POST", "/auth/tokens", {"name": f"listed-{number}"})
    web.ask("POST", "/auth/tokens", {"name": "x"}, web.writer, 403)
    first, second, third, denied = web.new()

    def ids(query: str) -> list[int]:
        return [entry["id"] for entry in web.ask("GET", f"/api/v1/audit?{query}").get_json()["entries"]]

    assert ids("limit=2") == [denied["id"], third["id"]]
    assert ids(f"limit=2&before={third['id']}") == [second["id"], first["id"]]
    assert ids("action=token&token=only-write&limit=1") == [denied["id"]]
    assert ids(f"since={third['at']}") == [denied["id"], third["id"]]
    assert ids(f"until={second['at']}&limit=1") == [first["id"]]
    assert web.ask("GET", "/api/v1/audit?limit=2").get_json()["count"] == 2
    web.ask("GET", "/api/v1/audit?since=yesterday", status=400)
    web.ask("GET", "/api/v1/audit?limit=0", status=400)
    web.ask("GET", "/api/v1/audit", None, web.writer, 403)


def test_every_route_that_changes_something_is_audited_or_known_not_to_be(web: Audited) -> None:
    silent = {
        rule.endpoint.rpartition(".")[2]
        for rule in web.app.url_map.iter_rules()
        if {"POST", "PUT", "PATCH", "DELETE"} & (rule.methods or set())
        and not web.app.view_functions[rule.endpoint].audit  # type: ignore[union-attr]
    }

    assert silent == SILENT


def test_trail_on_the_command_line(
    web: Audited, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Local(AbstractContextManager["Local"]):
        def request(self, method: str, path: str, params: dict[str, Any]) -> SimpleNamespace:
            said = {name: value for name, value in params.items() if value is not None}
            answer = web.client.open(path, method=method, query_string=said, headers=ADMIN)
            return SimpleNamespace(json=answer.get_json)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(client, "Client", lambda url, token: Local())
    web.ask("DELETE", "/auth/tokens/1", None, web.writer, 403)

    assert main(["audit", "--by", "only-write", "--action", "token", "--limit", "1"]) == 0
    columns, _, row = capsys.readouterr().out.splitlines()
    assert columns.split() == ["id", "at", "token", "client", "action", "object", "status", "details"]
    assert row.split()[2:] == ["only-write", "127.0.0.1", "token.delete", "1", "403", "{}"]
    assert main(["audit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == web.new()[-1]


def test_commands_that_change_tokens_are_in_the_trail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(tmp_path)]
    for command in ("create", "rotate", "revoke", "delete"):
        assert main(["token", command, "probe", *data]) == 0
    secrets = [line for line in capsys.readouterr().out.splitlines() if line]

    db = open_database(tmp_path)
    found = AuditTrail(db).find(10)
    db.close()
    assert [entry.action for entry in reversed(found)] == [
        "token.create", "token.rotate", "token.revoke", "token.delete",
    ]  # fmt: skip
    assert {(entry.object, entry.client, entry.details["name"]) for entry in found} == {("1", "command line", "probe")}
    assert not [secret for secret in secrets if secret in str(found)]
    assert len(secrets) == 2
