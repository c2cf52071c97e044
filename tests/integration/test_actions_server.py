"""Actions of a started server: what it says of itself, store kinds, restart of the process, the command."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tests.integration import noderoutes as node
from tests.integration.server import LAUNCHER, NO_FLUSH, TOKEN, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.server import ArcServer, Connection


def rows(count: int, measurement: str = "cpu") -> dict[str, Any]:
    times = [1_760_875_200_000 + n for n in range(count)]
    return {"m": measurement, "columns": {"time": times, "v": [float(n) for n in range(count)]}}


def shards(client: Connection) -> dict[str, dict[str, Any]]:
    return {shard["id"]: shard for shard in node.get(client, "/shards")["shards"]}


def offset(client: Connection, database: str = "default") -> int:
    mark = shards(client)[database]["commit_offset"]
    assert mark["unit"] == "wal"
    value: int = mark["value"]
    return value


def command(server: ArcServer, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, LAUNCHER, "action", *words, "--url", server.url, "--token", TOKEN]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_identity_and_offsets_survive_a_restart(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(options={"node.display_name": "Plant 7"} | NO_FLUSH).start()
    with server.connect() as client:
        store = node.get(client, "/info/datastore")
        version = node.get(client, "/info/agent")["version"]
        assert list(shards(client)) == ["_meta"]
        client.store(rows(10))
        written = offset(client)
        client.store(rows(1, "late"))
        grown = offset(client)
        client.store(rows(1), database="other")
        assert offset(client) == grown  # the write to another database is none to this one

    server.restart()
    with server.connect() as client:
        assert node.get(client, "/info/datastore") == store
        restarted = offset(client)

    assert written < grown < restarted
    assert set(version) == {"number", "checkout", "taint"}
    assert (store["kind"], store["node_id"]) == ("Arc", store["id"])
    assert store["cluster_display_name"] == "Plant 7"


def test_store_kinds_do_what_they_say(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(options=NO_FLUSH).start()
    with server.connect() as client:
        client.store(rows(10))
        before = offset(client)
        assert node.done(client, "arc.edge/store.flush", {})["rows"] == 10
        assert offset(client) == before

        assert node.done(client, "arc.edge/store.verify", {"deep": True})["issues"] == []
        assert node.done(client, "arc.edge/store.compact", {"database": "default"})["measurements"] == 0
        points = client.query("SELECT kind, state FROM arc.actions ORDER BY time")

        counted = client.request("GET", "/api/unstable/introspect/metrics").body.decode()
        threads = [thread["short_name"] for thread in node.get(client, "/introspect/threads")["threads"]]

    assert 'arc_actions_finished_total{kind="arc.edge/store.flush",state="DONE",variant=""} 1.0' in counted
    assert "actions" in threads
    assert points[0] == ["arc.edge/store.flush", "DONE"]
    assert len(points) == 3


def test_stopped_store_takes_no_writes_until_it_is_resumed(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(options=NO_FLUSH).start()
    with server.connect() as client:
        client.store(rows(5))

        stopped = node.done(client, "replicante.io/store.stop")
        assert stopped["flushed_rows"] >= 5
        assert client.write(rows(1)).status == 503
        assert shards(client)["default"]["role"] == "OTHER"

        node.done(client, "arc.edge/store.resume")
        client.store(rows(1))
        assert shards(client)["default"]["role"] == "PRIMARY"


def test_backup_by_action_can_be_restored(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(options=NO_FLUSH).start()
    with server.connect() as client:
        client.store(rows(1000))
        made = node.done(client, "arc.edge/store.backup", {"include_config": True})["payload"]
        client.store(rows(1, "after"))
        store = node.get(client, "/info/datastore")
    backup, target = server.data_dir / "backups" / made["backup_id"], server.data_dir.with_name("restored")
    words = [sys.executable, LAUNCHER, "restore", str(backup), "--data", str(target)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)

    with make_server("restored") as restored, restored.connect() as client:
        assert client.query("SELECT count(*) FROM cpu") == [[1000]]
        assert node.get(client, "/info/datastore") == store
        assert node.get(client, "/actions/queue") == []  # the backup itself does not go on there
    assert made["files"] > 1


def test_backup_that_was_cut_off_is_made_again(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(options=NO_FLUSH).start()
    with server.connect() as client:
        for number in range(20):
            client.store(rows(100, f"m{number}"))
        action_id = node.schedule(client, "arc.edge/store.backup")
        wait_until(lambda: node.info(client, action_id)["action"]["state"] != "NEW", "the first step", pause_s=0.001)

    server.kill9()
    server.start()

    with server.connect() as client:
        found = node.ended(client, action_id)["action"]
        backups = client.request("GET", "/api/v1/backup").json()["backups"]
    assert found["state"] == "DONE", found
    assert found["state_payload"]["payload"]["backup_id"] in {backup["backup_id"] for backup in backups}
    assert not list((server.data_dir / "tmp").glob("backup-stage-*"))


def test_server_restarts_itself(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()
    with server.connect() as client:
        client.store(rows(3))
        action_id = node.schedule(client, "arc.edge/agent.restart", {"delay_s": 0})

        found = node.ended(client, action_id)

        payload = found["action"]["state_payload"]["payload"]
        assert found["action"]["state"] == "DONE", found
        assert payload["old_pid"] == payload["new_pid"] == server.pid  # the process lives on with another program
        assert payload["old_instance"] != payload["new_instance"]
        assert [event["state"] for event in found["history"]][-1] == "NEW"
        wait_until(lambda: client.request("GET", "/ready").status == 200, "the server to be ready")
        assert client.query("SELECT count(*) FROM cpu") == [[3]]
        assert node.get(client, "/actions/queue") == []


BAD_CONF = {
    '[actions]\nqueue_max = "many"\n': "arc.conf: actions.queue_max = 'many': must be a whole number",
    "[actions]\nqueue_maxx = 5\n": "arc.conf: unknown option actions.queue_maxx",
    "[actions\n": "arc.conf: ",
}


def test_configuration_is_read_again(server: ArcServer, client: Connection, tmp_path: Path) -> None:
    (tmp_path / "say.toml").write_text('[exec]\nargv = ["echo", "hello"]\n')
    conf = server.data_dir.parent / "arc.conf"
    reload, say = "arc.edge/config.reload", {"command": "say"}
    text = '[log]\nlevel = "DEBUG"\n[server]\nthreads = 3\nhost = "10.0.0.1"\n[actions]\ninterval_s = 0.1\n'
    try:
        conf.write_text(f'{text}plugins = "{tmp_path}"\n')
        planned = node.done(client, reload, {"dry_run": True})["payload"]
        found = node.done(client, reload)["payload"]
        said = node.done(client, "arc.edge/exec", say)["payload"]["stdout"]
        client.store(rows(1))
        for bad, complaint in BAD_CONF.items():
            conf.write_text(bad)
            failed = node.ended(client, node.schedule(client, reload))["action"]["state_payload"]
            assert (failed["variant"], complaint in failed["error"]) == ("InvalidConfig", True), failed
        assert node.done(client, "arc.edge/exec", say)["payload"]["stdout"] == "hello\n"  # all is as it was
    finally:
        conf.unlink()
    server.signal(signal.SIGHUP)
    wait_until(
        lambda: "arc.edge/exec" not in [kind["kind"] for kind in node.get(client, "/actions/available")], "SIGHUP"
    )
    gone = client.request("POST", "/api/unstable/actions/schedule/arc.edge/exec", say)

    assert planned == found
    assert found["changed"] == ["actions.interval_s", "actions.plugins", "log.level", "plugins/say.toml"]
    assert found["requires_restart"] == ["server.threads"]  # the environment stands above the file, so not its host
    assert said == "hello\n"
    assert "DEBUG arc." in server.stderr  # writes are logged at that level
    assert (gone.status, gone.json()["kind"]) == (400, "ActionNotAvailable")


def test_stop_answers_who_waits_for_a_change(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()
    with server.connect() as client, server.connect() as waiting:
        node.schedule(client, node.LOOP, {"target": 1000})
        action_id = node.schedule(client, node.PING)  # nothing happens to it meanwhile
        waiting.send("GET", f"/api/unstable/actions/info/{action_id}?wait=60")
        wait_until(lambda: client.request("GET", "/api/v1/metrics").json()["http_requests_active"] > 1, "the wait")

        server.stop()

        assert waiting.receive().status == 200


def test_a_store_that_cannot_be_asked_is_an_error_of_the_datastore_only(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(options={"auth.enabled": "false"}, token=None).start()  # tokens are in that store, too
    with server.connect() as client, closing(sqlite3.connect(server.data_dir / "arc.db")) as database:
        whole = node.get(client, "/info/datastore")
        database.execute("ALTER TABLE settings RENAME TO away")

        answer = client.request("GET", "/api/unstable/info/datastore")

        assert (answer.status, answer.json()["kind"]) == (500, "InternalError")
        assert "cluster_id" not in answer.json()
        assert node.get(client, "/info/agent").keys() == {"version"}
        database.execute("ALTER TABLE away RENAME TO settings")
        assert node.get(client, "/info/datastore") == whole


def test_a_stop_finishes_the_step_and_says_so_meanwhile(make_server: Callable[..., ArcServer], tmp_path: Path) -> None:
    script = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo over"
    (tmp_path / "wait.toml").write_text(f"[exec]\nargv = {json.dumps(['sh', '-c', script])}\n")
    server = make_server(options={"actions.plugins": str(tmp_path)}).start()
    with server.connect() as client:
        action_id = node.schedule(client, "arc.edge/exec", {"command": "wait"})
        wait_until((tmp_path / "begun").exists, "the step")

        server.signal(signal.SIGTERM)
        wait_until(lambda: client.request("GET", "/ready").status == 503, "the stop")

        assert client.request("GET", "/ready").json()["reason"] == "the server is stopping"
        refusal = client.request("POST", f"/api/unstable/actions/schedule/{node.PING}", b"null")
        assert (refusal.status, refusal.json()["kind"]) == (503, "Draining")
        assert node.info(client, action_id)["action"]["state"] == "RUNNING"
        (tmp_path / "go").touch()
        assert server.wait() == 0

    with server.start().connect() as client:
        ended = node.ended(client, action_id)["action"]
        assert ended["state"] == "DONE", ended
        assert ended["state_payload"]["payload"]["stdout"] == "over\n"


def test_actions_are_off_where_everybody_could_schedule_them(make_server: Callable[..., ArcServer]) -> None:
    opened = {"auth.enabled": "false", "server.host": "0.0.0.0"}
    server = make_server(options=opened, token=None).start()
    with server.connect() as client:
        assert node.get(client, "/actions") == {"actions": False}
        assert client.request("GET", "/api/unstable/actions/queue").status == 404
        assert node.get(client, "/info/datastore")["kind"] == "Arc"
    server.stop()

    insisting = make_server("other", options=opened | {"actions.enabled": "true"}, token=None)
    insisting.spawn()
    assert insisting.wait() == 2
    assert "[actions] enabled" in insisting.stderr


def test_command(server: ArcServer, client: Connection, tmp_path: Path) -> None:
    kinds = json.loads(command(server, "kinds", "--json").stdout)
    assert "arc.edge/store.backup" in {kind["kind"] for kind in kinds}
    assert "how many answers" in command(server, "kinds", node.PING).stdout

    watched = command(server, "schedule", node.PING, "count=2", "--watch")
    assert (watched.returncode, watched.stdout.count("Pong")) == (0, 3)
    failed = command(server, "schedule", "arc.edge/test.fail", "--watch")
    assert (failed.returncode, "this kind fails" in failed.stderr) == (1, True)

    action_id = command(server, "schedule", node.LOOP, "--args", '{"target": 900}').stdout.strip()
    later = command(server, "schedule", node.PING).stdout.strip()
    assert command(server, "cancel", later, "--reason", "enough").returncode == 0
    assert "cancelled: enough" in command(server, "show", later).stdout
    assert action_id in command(server, "list").stdout
    refused = command(server, "schedule", node.PING, "count=x")
    assert (refused.returncode, refused.stderr) == (1, "arc: args.count: expected an integer from 0 to 1000\n")

    ended = command(server, "export").stdout
    action = json.loads(ended.splitlines()[-1])
    assert action["action"]["id"] == later
    action["action"]["id"] = action_id = str(uuid.uuid4()).upper()
    (tmp_path / "ended.ndjson").write_text(ended + json.dumps(action).replace(later, action_id))
    imported = command(server, "import", str(tmp_path / "ended.ndjson"))
    assert imported.stderr == f"1 imported, {ended.count(chr(10))} known already\n"
    assert node.info(client, action_id)["action"]["state_payload"] == action["action"]["state_payload"]
    (tmp_path / "bad.ndjson").write_text('\n{"action": 1}\n')
    refused = command(server, "import", str(tmp_path / "bad.ndjson"))
    assert (refused.returncode, refused.stderr.startswith("arc: line 2: needs the members action")) == (1, True)
