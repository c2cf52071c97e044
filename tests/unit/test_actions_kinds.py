"""Kinds of actions: names, stages, services, store, restart and reboot. Supervisors and machines are fakes."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from arc.actions import host as hosts
from arc.actions import nodekinds, services, storekinds
from arc.actions.engine import ActionEngine
from arc.actions.errors import ActionFailed, ActionNotAvailable, InvalidArgs, ServiceOpFailed
from arc.actions.host import Host, NodeOptions
from arc.actions.kinds import Catalogue, Context, Kind, Outcome, Stage, composite, done, failed
from arc.actions.nodeengine import NodeEngine, Setup
from arc.actions.records import State
from arc.actions.worker import Clocks, EngineOptions
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Node:
    """A node whose processes come and go on one directory, with a clock of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seconds = 1000.0
        self.engine: ActionEngine | None = None

    def boot(self, *kinds: Kind, interval_s: float = 1.0) -> ActionEngine:
        self.shut_down()
        clocks = Clocks(lambda: int(self.seconds * 1_000_000), lambda: self.seconds)
        self.engine = ActionEngine(self.directory, kinds, EngineOptions(interval_s=interval_s), clocks=clocks)
        return self.engine

    def run(self, most: int = 1000) -> None:
        """Cycle until nothing is waiting; the clock follows the pauses."""
        assert self.engine
        for _ in range(most):
            pause_s = self.engine.cycle()
            if pause_s is None:
                return
            self.seconds += pause_s

    def shut_down(self) -> None:
        if self.engine:
            self.engine.stop()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.shut_down()


def payloads(engine: ActionEngine, action_id: str) -> list[Any]:
    """Oldest first, without that of NEW."""
    return [item.payload for item in engine.get(action_id)[1]][-2::-1]


# --- names


@pytest.mark.parametrize("name", ["clean-up", "Example.com/x", "example.com/", "example.com/-x", "replicante.io/x",
                                  "agent.replicante.io/x", "example.com/" + "x" * 129])  # fmt: skip
def test_name_that_is_malformed_or_reserved(name: str) -> None:
    with pytest.raises(ConfigError):
        Catalogue([Kind(name, "", lambda context: done())])


@pytest.mark.parametrize("name", ["myreplicante.io/x", "example.com/a/b.c", "x/y"])
def test_good_name(name: str) -> None:
    assert Catalogue([Kind(name, "", lambda context: done())]).get(name).name == name


def test_two_kinds_of_one_name() -> None:
    kind = Kind("example.com/x", "", lambda context: done())

    with pytest.raises(ConfigError, match="two kinds"):
        Catalogue([kind, replace(kind, name="example.com/y", aliases=("example.com/x",))])


def test_catalogue_lists_each_kind_once_by_name() -> None:
    catalogue = Catalogue(hosts.kinds(Host(), NodeOptions()))

    assert [kind.name for kind in catalogue] == [
        "agent.replicante.io/test.fail",
        "agent.replicante.io/test.loop",
        "agent.replicante.io/test.ping",
        "agent.replicante.io/test.success",
        "arc.edge/agent.loglevel",
        "replicante.io/store.stop",
    ]
    assert catalogue.get("arc.edge/test.ping") is catalogue.get("agent.replicante.io/test.ping")


def test_debug_kinds_are_there_when_asked_for() -> None:
    names = [kind.name for kind in hosts.kinds(Host(), NodeOptions(debug_kinds=True))]

    assert {"agent.replicante.io/debug.success", "agent.replicante.io/debug.fail"} <= set(names)


# --- stages


def three_stages(seen: list[Any], *, is_scoped: bool, **more: Callable[[Context], Outcome | None]) -> Kind:
    def stage(name: str) -> Stage:
        def invoke(context: Context) -> Outcome | None:
            seen.append((name, context.args, context.state.value, context.payload))
            return more[name](context) if name in more else done(name)

        return Stage(name, invoke)

    return composite("example.com/three", "", map(stage, "abc"), is_scoped=is_scoped)


def test_stages_run_in_order_one_per_step(node: Node) -> None:
    engine = node.boot(three_stages([], is_scoped=True))
    action = engine.schedule("example.com/three", None)

    node.run()

    assert payloads(engine, action.id) == [
        {"payload": "a", "stage": 0, "state": "DONE"},
        {"payload": "b", "stage": 1, "state": "DONE"},
        {"payload": "c", "stage": 2, "state": "DONE"},
    ]
    assert [item.state for item in engine.get(action.id)[1]] == ["DONE", "RUNNING", "RUNNING", "NEW"]
    assert engine.kinds()[0].stages == ("a", "b", "c")


def test_scoped_stage_sees_only_its_own(node: Node) -> None:
    seen: list[Any] = []
    engine = node.boot(three_stages(seen, is_scoped=True))
    engine.schedule("example.com/three", {"b": 5})
    engine.schedule("example.com/three", None)

    node.run()

    assert seen[:3] == [("a", {}, "NEW", None), ("b", 5, "NEW", None), ("c", {}, "NEW", None)]
    assert [args for _, args, _, _ in seen[3:]] == [None, None, None]


def test_shared_stage_begins_with_what_the_last_one_left(node: Node) -> None:
    seen: list[Any] = []
    engine = node.boot(three_stages(seen, is_scoped=False))
    engine.schedule("example.com/three", {"b": 5})

    node.run()

    assert seen == [("a", {"b": 5}, "NEW", None), ("b", {"b": 5}, "NEW", "a"), ("c", {"b": 5}, "NEW", "b")]


def test_failing_stage_ends_the_action(node: Node) -> None:
    seen: list[Any] = []
    engine = node.boot(three_stages(seen, is_scoped=True, b=lambda context: failed("no")))
    action = engine.schedule("example.com/three", None)

    node.run()

    record = engine.get(action.id)[0]
    assert (record.state, record.payload) == ("FAILED", {"payload": "no", "stage": 1, "state": "FAILED"})
    assert [name for name, *_ in seen] == ["a", "b"]


def test_raising_stage_is_named_in_the_error(node: Node) -> None:
    def broken(context: Context) -> Outcome:
        raise ActionFailed("broken")

    engine = node.boot(three_stages([], is_scoped=True, b=broken))
    action = engine.schedule("example.com/three", None)

    node.run()

    assert engine.get(action.id)[0].payload["progress"] == {"payload": None, "stage": 1, "state": "NEW"}


def test_stage_that_reports_nothing_is_shown_as_running_once(node: Node) -> None:
    steps = iter([None, None, done("at last")])
    engine = node.boot(three_stages([], is_scoped=True, b=lambda context: next(steps)))
    action = engine.schedule("example.com/three", None)

    node.run()

    assert [payload["state"] for payload in payloads(engine, action.id)] == ["DONE", "RUNNING", "DONE", "DONE"]


def test_stages_nest(node: Node) -> None:
    inner = composite("example.com/inner", "", (Stage("x", lambda c: done("x")), Stage("y", lambda c: done("y"))))
    outer = composite("example.com/outer", "", (Stage("in", inner.invoke), Stage("z", lambda c: done("z"))))
    engine = node.boot(outer)
    action = engine.schedule("example.com/outer", None)

    node.run()

    assert [(p["stage"], p["state"]) for p in payloads(engine, action.id)] == [(0, "RUNNING"), (0, "DONE"), (1, "DONE")]


def test_stage_that_this_version_does_not_have(node: Node) -> None:
    engine = node.boot(three_stages([], is_scoped=True))
    action = engine.schedule("example.com/three", None)
    engine.cycle()
    engine.cycle()
    engine = node.boot(composite("example.com/three", "", (Stage("a", lambda context: done()),)))

    node.run()

    assert engine.get(action.id)[0].payload["variant"] == "ActionDecode"


# --- services


@dataclass
class FakeSupervisor:
    """A service that comes up after so many looks at it. pids: what the looks show; the last one stays."""

    pids: list[str | None] = field(default_factory=lambda: [None])
    calls: list[str] = field(default_factory=list)
    error: str = ""

    def pid(self) -> str | None:
        if self.error:
            raise ServiceOpFailed(self.error)
        return self.pids.pop(0) if len(self.pids) > 1 else self.pids[0]

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def restart(self) -> None:
        self.calls.append("restart")


def service_kinds(supervisor: FakeSupervisor, wait_s: float = 30, graceful: Any = None) -> list[Kind]:
    return services.original_kinds(supervisor, wait_s, graceful)


def test_service_that_runs_already(node: Node) -> None:
    supervisor = FakeSupervisor(["17"])
    engine = node.boot(*service_kinds(supervisor))
    action = engine.schedule("replicante.io/service.start", {"anything": 1})

    node.run()

    assert payloads(engine, action.id) == [{"attempt": 0, "message": "the service is running", "pid": "17"}]


def test_service_that_takes_its_time_is_asked_once(node: Node) -> None:
    supervisor = FakeSupervisor([None, None, "17"])
    engine = node.boot(*service_kinds(supervisor))
    action = engine.schedule("replicante.io/service.start", None)

    node.run()

    assert payloads(engine, action.id) == [
        {"attempt": 1, "message": None, "pid": None},
        {"attempt": 2, "message": None, "pid": None},
        {"attempt": 2, "message": "the service is running", "pid": "17"},
    ]
    assert supervisor.calls == ["start"]


@pytest.mark.parametrize(("interval_s", "wait_s", "looks"), [(1.0, 30, 30), (0.5, 5, 10), (0.4, 1, 3)])
def test_service_that_never_comes(node: Node, interval_s: float, wait_s: float, looks: int) -> None:
    engine = node.boot(*service_kinds(FakeSupervisor(), wait_s), interval_s=interval_s)
    action = engine.schedule("replicante.io/service.start", None)

    node.run()

    record = engine.get(action.id)[0]
    assert (record.state, record.payload["attempt"]) == ("FAILED", looks)


def test_service_that_stops(node: Node) -> None:
    engine = node.boot(*service_kinds(FakeSupervisor(["17", None])))
    action = engine.schedule("replicante.io/service.stop", None)

    node.run()

    assert payloads(engine, action.id) == [
        {"attempt": 1, "message": None, "pid": "17"},
        {"attempt": 1, "message": "the service is not running", "pid": None},
    ]


def test_supervisor_that_refuses(node: Node) -> None:
    engine = node.boot(*service_kinds(FakeSupervisor(error="Unit not found")))
    action = engine.schedule("replicante.io/service.start", None)

    node.run()

    assert engine.get(action.id)[0].payload["variant"] == "ServiceOpFailed"


@pytest.mark.parametrize("name", ["graceful.restart", "gracefulrestart"])
def test_graceful_restart_has_three_stages(node: Node, name: str) -> None:
    supervisor = FakeSupervisor(["17", None, "18"])
    engine = node.boot(*service_kinds(supervisor))
    action = engine.schedule(f"replicante.io/service.{name}", {})

    node.run()

    found = payloads(engine, action.id)
    assert [(payload["stage"], payload["state"]) for payload in found] == [(0, "DONE"), (1, "DONE"), (2, "DONE")]
    assert isinstance(found[0]["payload"], str)  # there is no store to stop
    assert found[2]["payload"] == {"attempt": 0, "message": "the service is running", "pid": "18"}
    assert supervisor.calls == ["stop", "start"]


def test_graceful_stop_uses_the_hook_of_the_store(node: Node) -> None:
    host = Host(stop_store=lambda args: {"message": "flushed", "flushed_rows": 3})
    kinds = service_kinds(FakeSupervisor([None]), graceful=storekinds.graceful_stop(host))
    engine = node.boot(*kinds)
    action = engine.schedule("replicante.io/service.graceful.stop", None)

    node.run()

    assert payloads(engine, action.id)[0]["payload"] == {"message": "flushed", "flushed_rows": 3}


def test_arguments_of_stages_must_be_an_object(node: Node) -> None:
    engine = node.boot(*service_kinds(FakeSupervisor()))

    with pytest.raises(InvalidArgs):
        engine.schedule("replicante.io/service.restart", "x")


def test_restart_of_the_own_service_is_finished_by_the_next_process(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = FakeSupervisor([str(os.getpid())])
    engine = node.boot(*service_kinds(supervisor))
    action = engine.schedule("replicante.io/service.graceful.restart", None)
    node.run(most=3)
    assert supervisor.calls == ["restart"]
    assert payloads(engine, action.id)[-1]["payload"]["message"] is None  # asked, and still there

    supervisor.pids = ["4711"]
    engine = node.boot(*service_kinds(supervisor))
    node.run()

    record = engine.get(action.id)[0]
    assert (record.state, record.crashes) == ("DONE", 0)
    assert record.payload["payload"]["pid"] == "4711"
    assert supervisor.calls == ["restart", "start"]


def test_restart_of_the_own_service_that_never_happens(node: Node) -> None:
    engine = node.boot(*service_kinds(FakeSupervisor([str(os.getpid())]), wait_s=3))
    action = engine.schedule("replicante.io/service.restart", None)

    node.run()

    assert engine.get(action.id)[0].payload["payload"]["message"] == "the service took too long"


class FakeSystemd(FakeSupervisor):
    unit = ""


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    fake = FakeSystemd()
    monkeypatch.setattr(services, "_unit_of", lambda args: fake)
    return fake


def test_unit_must_be_on_the_list(node: Node) -> None:
    engine = node.boot(*services.unit_kinds(["nginx.service", "app-*"]))

    for unit in ("app-1.service", "nginx.service"):
        assert engine.schedule("arc.edge/service.start", {"unit": unit}).state is State.NEW
    for unit in ("sshd.service", "-app-1", "app-1;reboot", "app-1 x", "app-1\n"):
        with pytest.raises(InvalidArgs, match=r"args\.unit"):
            engine.schedule("arc.edge/service.start", {"unit": unit})


def test_own_unit_cannot_be_stopped(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "own_unit", lambda: "arc-agent.service")
    engine = node.boot(*services.unit_kinds(["*"]))

    for unit in ("arc-agent", "arc-agent.service"):
        with pytest.raises(InvalidArgs, match="own"):
            engine.schedule("arc.edge/service.stop", {"unit": unit})
    assert engine.schedule("arc.edge/service.restart", {"unit": "arc-agent"}).state is State.NEW


def test_unit_that_stays_up_after_a_restart(node: Node, systemd: FakeSystemd) -> None:
    systemd.pids = ["17", None, "18"]
    engine = node.boot(*services.unit_kinds(["app"]))
    action = engine.schedule("arc.edge/service.restart", {"unit": "app", "settle_s": 4})

    node.run()

    record = engine.get(action.id)[0]
    assert record.state is State.DONE
    assert record.payload["payload"] == {
        "attempt": 0, "message": "the service is running", "pid": "18", "unit": "app", "restarts_seen": 0,
    }  # fmt: skip
    assert node.seconds >= 1004


def test_unit_that_falls_over_after_a_restart(node: Node, systemd: FakeSystemd) -> None:
    systemd.pids = ["17", None, "18", "18", "19"]
    engine = node.boot(*services.unit_kinds(["app"]))
    action = engine.schedule("arc.edge/service.restart", {"unit": "app"})

    node.run()

    record = engine.get(action.id)[0]
    assert (record.state, record.payload["payload"]["restarts_seen"]) == ("FAILED", 1)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl on the PATH that notes how it was called and shows one unit."""
    program, calls = tmp_path / "bin" / "systemctl", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n'
        'case "$*" in *show*) printf "MainPID=17\\nSubState=running\\nActiveState=active\\nMemoryCurrent=4096\\n";;\n'
        '*broken*) echo "Unit broken not found." >&2; exit 5;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return calls


def test_systemd_is_asked_without_waiting(node: Node, systemctl: Path) -> None:
    engine = node.boot(*services.unit_kinds(["*"]))
    action = engine.schedule("arc.edge/service.start", {"unit": "app", "scope": "user"})
    status = engine.schedule("arc.edge/service.status", {"unit": "app"})
    broken = engine.schedule("arc.edge/service.reload", {"unit": "broken"})

    node.run()

    assert systemctl.read_text().splitlines()[:2] == [
        "--user start --no-block -- app",
        "--user show --property=MainPID,SubState -- app",
    ]
    assert engine.get(action.id)[0].payload["pid"] == "17"
    assert engine.get(status.id)[0].payload == {
        "active_state": "active", "sub_state": "running", "pid": "17", "since": None, "memory_bytes": 4096,
    }  # fmt: skip
    assert "Unit broken not found." in engine.get(broken.id)[0].payload["error"]


def test_pid_command_that_prints_a_blank_line_means_not_running(tmp_path: Path) -> None:
    supervisor = hosts.supervisor(
        NodeOptions(
            service_supervisor="commands",
            service_pid_command=["echo"],
            service_start_command=["true"],
            service_stop_command=["false"],
        )
    )
    assert supervisor

    assert supervisor.pid() is None
    supervisor.start()
    with pytest.raises(ServiceOpFailed, match="false ended with status 1"):
        supervisor.stop()


def test_supervisor_without_what_it_needs() -> None:
    with pytest.raises(ConfigError, match="service_unit"):
        hosts.kinds(Host(), NodeOptions(service_supervisor="systemd"))


# --- the store


def test_store_kinds_hand_their_arguments_on(node: Node) -> None:
    asked: list[Any] = []

    def task(args: dict[str, Any]) -> dict[str, Any]:
        asked.append(args)
        return {"rows": 3}

    engine = node.boot(*storekinds.kinds(Host(flush=task, compact=task)))
    action = engine.schedule("arc.edge/store.flush", {"database": "cpu"})
    engine.schedule("arc.edge/store.compact", None)

    node.run()

    assert engine.get(action.id)[0].payload == {"rows": 3}
    assert asked == [
        {"database": "cpu", "measurement": None},
        {"database": None, "measurement": None, "tier": "hourly"},
    ]
    with pytest.raises(InvalidArgs, match="databse"):
        engine.schedule("arc.edge/store.flush", {"databse": "cpu"})


def test_verify_fails_when_there_are_issues(node: Node) -> None:
    found = {"checked": 7, "issues": [f"file {number}" for number in range(150)]}
    engine = node.boot(*storekinds.kinds(Host(verify=lambda args: found)))
    action = engine.schedule("arc.edge/store.verify", {})

    node.run()

    record = engine.get(action.id)[0]
    assert (record.state, record.payload["variant"]) == ("FAILED", "VerifyFailed")
    assert (record.payload["checked"], record.payload["issue_count"], len(record.payload["issues"])) == (7, 150, 100)


@pytest.mark.parametrize(("issues", "state"), [([], "DONE"), (["bad checksum"], "FAILED")])
def test_backup_is_read_before_it_counts(node: Node, issues: list[str], state: str) -> None:
    host = Host(backup=lambda args: {"backup_id": "b1"} | args, check_backup=lambda backup_id: issues)
    engine = node.boot(*storekinds.kinds(host))
    action = engine.schedule("arc.edge/store.backup", {"include_config": True})

    node.run()

    record, history = engine.get(action.id)
    assert record.state == state
    assert history[1].payload["payload"] == {"backup_id": "b1", "include_metadata": True, "include_config": True}


def test_stop_of_a_node_without_store_says_so(node: Node) -> None:
    engine = node.boot(*storekinds.kinds(Host()))
    action = engine.schedule("replicante.io/store.stop", None)

    node.run()

    assert engine.get(action.id)[0].payload == "this node has no store to stop"


# --- the node


def test_restart_is_finished_by_the_next_process(node: Node) -> None:
    asked: list[str] = []
    drained = iter([False, False, True])
    host = Host(restart=lambda: asked.append("restart"), drain=lambda: next(drained))
    engine = node.boot(*nodekinds.kinds(host))
    first_instance = engine.instance
    action = engine.schedule("arc.edge/agent.restart", {"delay_s": 3})
    node.run(most=6)
    assert asked == ["restart"]

    engine = node.boot(*nodekinds.kinds(host))
    node.run()

    record = engine.get(action.id)[0]
    assert (record.state, record.payload["stage"]) == ("DONE", 2)
    found = record.payload["payload"]
    assert (found["old_instance"], found["new_instance"]) == (first_instance, engine.instance)
    assert asked == ["restart"]


def test_restart_that_never_happens(node: Node) -> None:
    engine = node.boot(*nodekinds.kinds(Host(restart=lambda: None)))
    action = engine.schedule("arc.edge/agent.restart", None)

    node.run()

    assert engine.get(action.id)[0].state is State.FAILED


@pytest.mark.parametrize(("version", "state"), [("2.0.0", "DONE"), ("1.0.0", "FAILED")])
def test_update_is_good_when_the_new_version_runs(node: Node, tmp_path: Path, version: str, state: str) -> None:
    note = tmp_path / "installed"
    host = Host("1.0.0", restart=lambda: None)
    command = ["sh", "-c", f'echo "$0" > {note}']
    engine = node.boot(*nodekinds.kinds(host, update_command=command))
    action = engine.schedule("arc.edge/agent.update", {"version": "2.0.0"})
    while not payloads(engine, action.id) or payloads(engine, action.id)[-1]["stage"] != 1:
        engine.cycle()
    assert note.read_text() == "2.0.0\n"

    engine = node.boot(*nodekinds.kinds(replace(host, version=version), update_command=command))
    node.run()

    assert engine.get(action.id)[0].state == state


def test_update_that_cannot_be_installed(node: Node) -> None:
    engine = node.boot(*nodekinds.kinds(Host(restart=lambda: None), update_command=["false"]))
    action = engine.schedule("arc.edge/agent.update", {"version": "2.0.0"})

    node.run()

    assert engine.get(action.id)[0].payload["variant"] == "ExitStatus"


class Machine:
    """Reboots when asked, if it can."""

    def __init__(self) -> None:
        self.boot_id, self.asked = "one", 0

    def host(self) -> Host:
        return Host(boot_id=lambda: self.boot_id, flush=lambda args: {})

    def reboot(self) -> None:
        self.asked += 1


def test_reboot_is_done_when_the_boot_id_has_changed(node: Node) -> None:
    machine = Machine()
    engine = node.boot(*nodekinds.kinds(machine.host(), machine.reboot))
    action = engine.schedule("arc.edge/node.reboot", {"reason": "kernel", "delay_s": 0})
    node.run(most=4)
    assert machine.asked == 1

    machine.boot_id = "two"
    node.seconds += 40
    engine = node.boot(*nodekinds.kinds(machine.host(), machine.reboot))
    node.run()

    record = engine.get(action.id)[0]
    assert record.state is State.DONE
    found = record.payload["payload"]
    assert (found["old_boot_id"], found["new_boot_id"], machine.asked) == ("one", "two", 1)
    assert found["down_s"] >= 40
    with pytest.raises(InvalidArgs, match="600 s"):
        engine.schedule("arc.edge/node.reboot", {"reason": "again"})


def test_reboot_that_never_happens(node: Node) -> None:
    machine = Machine()
    engine = node.boot(*nodekinds.kinds(machine.host(), machine.reboot))
    action = engine.schedule("arc.edge/node.reboot", {"reason": "kernel", "max_wait_s": 60})

    node.run()

    assert engine.get(action.id)[0].state is State.FAILED
    assert machine.asked == 1


def test_reboot_is_asked_for_again_when_the_process_died_before_it_could(node: Node) -> None:
    machine = Machine()
    engine = node.boot(*nodekinds.kinds(machine.host(), machine.reboot))
    engine.schedule("arc.edge/node.reboot", {"reason": "kernel", "delay_s": 0})
    node.run(most=3)

    node.boot(*nodekinds.kinds(machine.host(), machine.reboot))
    node.run(most=3)

    assert machine.asked == 2


@pytest.mark.parametrize(("command", "logged"), [("true", ""), ("false", "node.shutdown failed")])
def test_shutdown_is_done_before_the_command_is_given(
    node: Node, caplog: pytest.LogCaptureFixture, command: str, logged: str
) -> None:
    options = NodeOptions(shutdown_command=["sh", "-c", f"touch {node.directory}/asked; {command}"])
    engine = node.boot(*hosts.kinds(Host(node_id="edge-1"), options))
    name = "arc.edge/node.shutdown"
    for wrong in ("edge-2", ""):
        with pytest.raises(InvalidArgs, match=r"args\.confirm: expected the id of this node, edge-1"):
            engine.schedule(name, {"reason": "moved", "confirm": wrong})

    action = engine.schedule(name, {"reason": "moved", "confirm": "edge-1"})
    node.run()

    record = engine.get(action.id)[0]
    assert (record.state, record.payload["payload"]) == ("DONE", {"message": "asked to shut down"})
    assert (node.directory / "asked").exists()
    assert engine.catalogue.get(name).permission == "admin"
    assert logged in caplog.text


# --- configuration


class Reloadable:
    """An engine whose configuration is a dictionary that tests change. fixed: an option that needs a restart."""

    def __init__(self, directory: Path) -> None:
        self.plugins = directory / "plugins"
        self.plugins.mkdir()
        self.options: dict[str, Any] = {"interval_s": 1.0, "queue_max": 5, "port": 1, "level": "warning"}
        self.told = 0
        self.engine = NodeEngine(directory, Host(), self.read(), self.read)

    def read(self) -> Setup:
        def tell() -> None:
            self.told += 1

        if self.options["port"] is None:
            raise ConfigError("arc.conf: port = 'x': must be a whole number")
        live = {name: self.options[name] for name in ("interval_s", "queue_max", "level")}
        engine = EngineOptions(interval_s=live["interval_s"], queue_max=live["queue_max"])
        node = NodeOptions(plugins=hosts.read_plugins(str(self.plugins)))
        return Setup(live, {"port": self.options["port"]}, engine, node, live["level"], tell)

    def allow(self, name: str, program: str = "true") -> None:
        (self.plugins / f"{name}.toml").write_text(f'[exec]\nargv = ["{program}"]\n')

    def reload(self, **args: Any) -> Any:
        action = self.engine.schedule(nodekinds.RELOAD, args)
        while self.engine.cycle() is not None:
            pass
        return self.engine.get(action.id)[0].payload

    def commands(self) -> list[str]:
        kind = self.engine.catalogue.find("arc.edge/exec")
        return list(kind.args["properties"]["command"]["enum"]) if kind and kind.args else []


@pytest.fixture
def reloadable(tmp_path: Path) -> Iterator[Reloadable]:
    level = logging.getLogger().level
    made = Reloadable(tmp_path)
    yield made
    made.engine.stop()
    logging.getLogger().setLevel(level)


def test_reload_puts_in_force_what_needs_no_restart(reloadable: Reloadable) -> None:
    reloadable.allow("disk")
    reloadable.options |= {"queue_max": 7, "port": 2, "level": "error"}

    found = reloadable.reload()

    assert found == {"payload": {
        "changed": ["level", "plugins/disk.toml", "queue_max"], "requires_restart": ["port"], "unchanged_count": 1,
    }, "stage": 1, "state": "DONE"}  # fmt: skip
    assert (reloadable.engine.options.queue_max, reloadable.commands()) == (7, ["disk"])
    assert logging.getLogger().level == logging.ERROR
    assert reloadable.told == 1
    again = reloadable.reload()["payload"]
    assert again == {"changed": [], "requires_restart": ["port"], "unchanged_count": 4}


def test_reload_sees_commands_that_change_and_go(reloadable: Reloadable) -> None:
    reloadable.allow("disk")
    reloadable.allow("say")
    reloadable.reload()

    (reloadable.plugins / "say.toml").unlink()
    reloadable.allow("disk", "false")

    assert reloadable.reload()["payload"]["changed"] == ["plugins/disk.toml", "plugins/say.toml"]
    assert reloadable.commands() == ["disk"]
    (reloadable.plugins / "disk.toml").unlink()
    reloadable.reload()
    with pytest.raises(ActionNotAvailable):
        reloadable.engine.schedule("arc.edge/exec", {"command": "disk"})


def test_dry_run_of_a_reload_changes_nothing(reloadable: Reloadable) -> None:
    reloadable.allow("disk")
    reloadable.options["interval_s"] = 2.0

    first, second = reloadable.reload(dry_run=True), reloadable.reload(dry_run=True)

    assert first == second
    assert first["payload"]["changed"] == ["interval_s", "plugins/disk.toml"]
    assert (reloadable.engine.options.interval_s, reloadable.commands(), reloadable.told) == (1.0, [], 0)


@pytest.mark.parametrize("wrong", ["option", "plug-in"])
def test_reload_of_what_cannot_be_used_leaves_all_as_it_was(reloadable: Reloadable, wrong: str) -> None:
    reloadable.options["queue_max"] = 7
    if wrong == "option":
        reloadable.options["port"] = None
    else:
        (reloadable.plugins / "bad.toml").write_text("[exec]\nargv = []\n")

    found = reloadable.reload()

    assert found["variant"] == "InvalidConfig"
    assert ("arc.conf: port = 'x'" if wrong == "option" else "bad.toml: argv must not be empty") in found["error"]
    assert (reloadable.engine.options.queue_max, reloadable.told) == (5, 0)


def test_reload_that_a_new_process_finishes(reloadable: Reloadable, tmp_path: Path) -> None:
    reloadable.options["queue_max"] = 7
    action = reloadable.engine.schedule(nodekinds.RELOAD, None)
    reloadable.engine.cycle()
    reloadable.engine.stop()

    reloadable.engine = NodeEngine(tmp_path, Host(), reloadable.read(), reloadable.read)
    reloadable.engine.cycle()

    record = reloadable.engine.get(action.id)[0]
    assert (record.state, record.payload["payload"]["changed"]) == ("DONE", ["queue_max"])
    assert reloadable.engine.options.queue_max == 7


def test_signal_asks_for_a_reload(reloadable: Reloadable, caplog: pytest.LogCaptureFixture) -> None:
    reloadable.engine.ask_to_reload()
    reloadable.engine.begin_stop()
    reloadable.engine.ask_to_reload()

    [queued] = reloadable.engine.queue()
    record = reloadable.engine.get(queued.id)[0]
    assert (record.kind, record.requested_by) == (nodekinds.RELOAD, "SIGHUP")
    assert "not read again: the node is stopping" in caplog.text


class FakeTimer:
    def __init__(self, delay_s: float, call: Callable[[], None]) -> None:
        self.delay_s, self.call, self.is_cancelled = delay_s, call, False

    def start(self) -> None:
        timers.append(self)

    def cancel(self) -> None:
        self.is_cancelled = True


timers: list[FakeTimer] = []


def test_log_level_reverts_by_itself(node: Node) -> None:
    timers.clear()
    logger = logging.getLogger("arc.test_of_levels")
    logger.setLevel("WARNING")
    levels = nodekinds.LogLevels(FakeTimer)  # type: ignore[arg-type]
    engine = node.boot(replace(nodekinds.log_level(), invoke=levels))
    first = engine.schedule("arc.edge/agent.loglevel", {"level": "debug", "logger": logger.name, "ttl_s": 60})
    engine.schedule("arc.edge/agent.loglevel", {"level": "error", "logger": logger.name, "ttl_s": 5})

    node.run()

    assert engine.get(first.id)[0].payload == {
        "previous": "warning", "current": "debug", "reverts_at": "1970-01-01T00:17:40Z",
    }  # fmt: skip
    assert logger.level == logging.ERROR
    assert [(timer.delay_s, timer.is_cancelled) for timer in timers] == [(60, True), (5, False)]
    timers[-1].call()
    assert logger.level == logging.WARNING  # as it was before anybody asked


def test_level_that_is_set_for_good_stays() -> None:
    timers.clear()
    logger = logging.getLogger("arc.test_of_good_levels")
    levels = nodekinds.LogLevels(FakeTimer)  # type: ignore[arg-type]
    args = {"level": "debug", "logger": logger.name, "ttl_s": 60}
    levels(Context("1", "", args, {}, State.NEW, None, 0, ""))

    levels.set(logger.name, "error")

    assert (logger.level, timers[-1].is_cancelled) == (logging.ERROR, True)


def test_long_task_does_not_hold_the_engine(node: Node) -> None:
    release = threading.Event()

    def task(args: dict[str, Any]) -> dict[str, Any]:
        release.wait(20)
        return {"rows": 1}

    engine = node.boot(*storekinds.kinds(Host(flush=task)))
    action = engine.schedule("arc.edge/store.flush", None)

    assert engine.cycle() == 1.0
    assert engine.get(action.id)[0].state is State.RUNNING
    release.set()
    node.run(most=100)

    assert engine.get(action.id)[0].payload == {"rows": 1}
