"""Executions against a server over a real socket: dispatch, replies, cancellation, loss of the server, recovery."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from arc.agent import executions as dispatch
from arc.agent import link as links
from arc.agent import plugins
from arc.agent.client import Client
from arc.agent.executions import Executions
from arc.agent.journal import Journal
from arc.agent.link import Link
from arc.agent.plugins import Plugin, Task
from arc.agent.processes import MARK, files_of, start_of
from arc.agent.spool import Spool, SpoolFailed
from tests.unit.fakeserver import FakeServer, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Odd(Plugin):
    name = "odd"
    actions = ("crash", "hold", "much")

    def __init__(self) -> None:
        self.go = threading.Event()

    def crash(self, task: Task) -> str:
        raise RuntimeError("no luck")

    def hold(self, task: Task) -> str:
        task.heartbeat("waiting\n")
        self.go.wait(10)
        return "done"

    def much(self, task: Task) -> str:
        return "x" * 150_000


class Rig:
    """An agent without facts and metrics, and its server."""

    def __init__(self, tmp_path: Path, server: FakeServer) -> None:
        self.server = server
        self.odd = Odd()
        self.reconnects = 0
        self.spool = Spool(str(tmp_path / "spool.db"), "edge-1", 2**20)
        self.journal = Journal(self.spool)
        self.plugins = {plugin.name: plugin for plugin in [*plugins.builtin(), self.odd]}
        self.executions = Executions(self.journal, self.plugins, "edge-1", lambda: self.spool.has_room)
        handlers = {
            "request": self.executions.accept,
            "cancel": lambda message: self.executions.cancel(message["request_id"]),
        }
        self.link = Link(Client(server.url, "secret", "edge-1"), self.spool, handlers, 0.3, self._on_reconnect)

    def _on_reconnect(self) -> None:
        self.reconnects += 1

    def start(self) -> None:
        self.spool.append("registration", {"payload": {"online": True}})
        self.link.start()

    def stop(self) -> None:
        self.odd.go.set()
        self.executions.stop_all("stopped by the test", 10)
        self.link.stop(5)
        self.spool.close()

    def final(self, request_id: str) -> dict[str, Any]:
        """The last reply, once it is there; all before are numbered without a gap."""

        def is_there() -> bool:
            return any(reply["final"] for reply in self.server.replies(request_id))

        self.server.wait_for(is_there)
        replies = self.server.replies(request_id)
        assert [reply["number"] for reply in replies] == list(range(1, len(replies) + 1))
        assert [reply["final"] for reply in replies] == [False] * (len(replies) - 1) + [True]
        return replies[-1]

    def log(self, request_id: str) -> str:
        return "".join(reply["payload"] for reply in self.server.replies(request_id))


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def rig(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(links, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(links, "REFUSED_RETRY_S", 0.1)
    rig = Rig(tmp_path, server)
    rig.start()
    yield rig
    rig.stop()


@pytest.mark.parametrize(
    ("plugin", "action", "payload", "state", "text"),
    [
        ("rpc", "ping", "", "complete", "pong"),
        ("rpc", "version", "", "complete", "1.0.0"),
        ("rpc", "sleep", "0", "complete", "Slept for 0 second(s)"),
        ("rpc", "sleep", "-3", "complete", "Slept for -3 second(s)"),
        ("rpc", "sleep", " 1", "failed", 'strconv.Atoi: parsing " 1": invalid syntax'),
        ("rpc", "sleep", "9" * 30, "failed", f'strconv.Atoi: parsing "{"9" * 30}": value out of range'),
        ("rpc", "enable", "", "complete", ""),
        ("execute", "disable", "", "complete", ""),
        ("execute", "command", "echo hi", "complete", ""),
        ("execute", "script", "exit 3", "failed", "exit status 3"),
        ("RPC", "ping", "", "failed", "Agent not found\n"),
        ("rpc", "Ping", "", "failed", "Action not found\n"),
        ("rpc", "find", "", "failed", "Action not found\n"),
        ("chef", "zero", "", "failed", "Agent not enabled\n"),
        ("chef", "nothing", "", "failed", "Agent not enabled\n"),
        ("chef", "enable", "", "failed", "enabling chef agent failed"),
        ("chef", "disable", "", "complete", ""),
        ("odd", "crash", "", "failed", "RuntimeError: no luck"),
    ],
)
def test_actions_end_as_specified(rig: Rig, plugin: str, action: str, payload: str, state: str, text: str) -> None:
    rig.server.give(request("one", plugin, action, payload))

    final = rig.final("one")

    assert (final["state"], final["payload"]) == (state, text)
    assert (final["sender"], final["agent"], final["action"]) == ("edge-1", plugin, action)


def test_exit_code_and_times_come_with_the_final_reply(rig: Rig) -> None:
    rig.server.give(request("one", "execute", "script", "exit 3"))

    final = rig.final("one")

    assert final["exit_code"] == 3
    assert 0 < final["started_at"] <= final["ended_at"]


def test_dispatch_errors_are_the_only_reply(rig: Rig) -> None:
    rig.server.give(request("one", "nothing", "ping"))

    assert rig.final("one")["number"] == 1


def test_sleep_ends_at_its_time_limit(rig: Rig) -> None:
    rig.server.give(request("one", "rpc", "sleep", "60") | {"timeout": 1})

    assert rig.final("one")["payload"] == "context deadline exceeded"
    assert rig.server.replies("one")[0]["state"] == "executing"


def test_long_text_comes_in_pieces(rig: Rig) -> None:
    rig.server.give(request("one", "odd", "much"))

    rig.final("one")

    assert rig.log("one") == "x" * 150_000
    assert len(rig.server.replies("one")) == 3


@pytest.mark.parametrize(
    "broken",
    [{"version": 0}, {"sender": ""}, {"to": None}, {"timeout": 0}, {"timeout": 86_401}, {"agent": 7}, {"payload": 1}],
)
def test_invalid_request_is_dropped_without_a_reply(rig: Rig, broken: dict[str, Any]) -> None:
    rig.server.give(request("bad") | broken, request("good"))

    rig.final("good")

    assert rig.server.replies("bad") == []


def test_unknown_message_does_not_end_the_agent(rig: Rig) -> None:
    rig.server.give({"type": "surprise"}, {"no": "type"}, {"type": "cancel"}, request("good"))

    assert rig.final("good")["payload"] == "pong"


def test_request_that_comes_twice_is_carried_out_once(rig: Rig) -> None:
    rig.server.give(request("one"), request("one"))
    rig.final("one")
    rig.server.give(request("one"), request("two"))
    rig.final("two")

    assert len(rig.server.replies("one")) == 1


def test_slow_action_is_confirmed_before_it_replies(rig: Rig) -> None:
    rig.server.give(request("one", "odd", "hold"))

    rig.server.wait_for(lambda: rig.server.of_type("received"))

    assert rig.server.of_type("received")[0]["request_ids"] == ["one"]
    assert not any(reply["final"] for reply in rig.server.replies("one"))


@pytest.mark.parametrize("script", ["sleep 60", "trap 'exit 0' TERM; sleep 60 & wait"])
def test_cancelled_process_ends_with_cancelled(rig: Rig, script: str) -> None:
    rig.server.give(request("one", "execute", "script", script))
    rig.server.wait_for(lambda: rig.server.replies("one"))

    rig.server.give({"type": "cancel", "request_id": "one"}, {"type": "cancel", "request_id": "one"})

    final = rig.final("one")
    assert (final["state"], final["payload"]) == ("failed", "cancelled")


def test_cancelled_sleep_ends_at_once(rig: Rig) -> None:
    rig.server.give(request("one", "rpc", "sleep", "15"), {"type": "cancel", "request_id": "one"})

    assert rig.final("one")["payload"] == "cancelled"


def test_request_that_was_cancelled_on_its_way_never_begins(rig: Rig) -> None:
    rig.server.give({"type": "cancel", "request_id": "one"})
    assert rig.final("one")["payload"] == "cancelled"

    rig.server.give(request("one"), request("two"))
    rig.final("two")

    assert len(rig.server.replies("one")) == 1


def test_cancel_of_what_has_ended_changes_nothing(rig: Rig) -> None:
    rig.server.give(request("one"))
    rig.final("one")
    rig.server.give({"type": "cancel", "request_id": "one"}, request("two"))
    rig.final("two")

    assert [reply["payload"] for reply in rig.server.replies("one")] == ["pong"]


def test_nothing_is_lost_or_doubled_or_out_of_order_when_answers_get_lost(rig: Rig) -> None:
    rig.server.lose_answers = 5

    for number in range(20):
        rig.server.give(request(f"r{number}"))
    for number in range(20):
        rig.final(f"r{number}")

    seqs = [message["seq"] for message in rig.server.received]
    assert seqs == sorted(set(seqs))
    sent = [seq for batch in rig.server.posts for seq in batch]
    assert len(sent) > len(set(sent))  # some did go twice


def test_what_happens_while_the_server_is_away_arrives_when_it_is_back(rig: Rig) -> None:
    rig.server.give(request("one", "odd", "hold"))
    rig.server.wait_for(lambda: rig.server.replies("one"))

    with rig.server.lock:
        rig.server.answer_status = 503
        rig.server.lock.notify_all()
    rig.odd.go.set()
    rig.server.wait_for(lambda: rig.executions.wait_idle(0))
    assert not any(reply["final"] for reply in rig.server.replies("one"))
    with rig.server.lock:
        rig.server.answer_status = 200

    assert rig.final("one")["payload"] == "done"
    rig.server.wait_for(lambda: rig.reconnects)


def test_message_that_the_server_will_never_take_does_not_hold_up_the_others(rig: Rig) -> None:
    rig.server.refuse = lambda message: 413 if message.get("request_id") == "bad" else None

    rig.server.give(request("bad"), request("good"))

    rig.final("good")
    rig.server.wait_for(lambda: rig.spool.waiting == 0)
    assert rig.server.replies("bad") == []


def test_message_that_breaks_the_server_is_given_up_in_the_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "STUCK_ANSWERS", 3)
    monkeypatch.setattr(links, "STUCK_S", 0.0)
    rig.server.refuse = lambda message: 500 if message.get("request_id") == "bad" else None

    for request_id in ("first", "bad", "last"):
        rig.spool.append("reply", {"request_id": request_id}, delay_s=0.0 if request_id == "last" else 1.0)

    rig.server.wait_for(lambda: rig.spool.waiting == 0)
    assert [reply["request_id"] for reply in rig.server.of_type("reply")] == ["first", "last"]


def test_server_that_is_broken_costs_no_message(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "STUCK_ANSWERS", 3)
    rig.server.refuse = lambda message: 500
    tried = len(rig.server.posts)

    rig.spool.append("reply", {"request_id": "x"})
    rig.server.wait_for(lambda: len(rig.server.posts) > tried + 5)
    rig.server.refuse = lambda message: None

    rig.server.wait_for(lambda: rig.server.replies("x"))


def test_wrong_token_is_tried_again(rig: Rig) -> None:
    with rig.server.lock:
        rig.server.answer_status = 401
        rig.server.lock.notify_all()
    tried = len(rig.server.posts)
    rig.spool.append("reply", {"request_id": "x"})
    rig.server.wait_for(lambda: len(rig.server.posts) > tried + 1)
    with rig.server.lock:
        rig.server.answer_status = 200

    rig.server.wait_for(lambda: rig.server.replies("x"))


def test_stop_ends_what_runs_with_a_reason(rig: Rig) -> None:
    rig.server.give(request("one", "execute", "script", "sleep 60"))
    rig.server.wait_for(lambda: rig.server.replies("one"))

    rig.executions.stop_all("agent was stopped", 10)

    assert rig.final("one")["payload"] == "agent was stopped"
    rig.server.give(request("two"))
    rig.server.wait_for(lambda: not rig.server.work)
    assert rig.journal.unfinished() == []


def test_stop_at_once_leaves_no_process_and_no_reply(rig: Rig) -> None:
    rig.server.give(request("one", "execute", "script", "echo $$; sleep 60"))
    rig.server.wait_for(lambda: rig.log("one"))

    rig.executions.stop_all("", 10, abandon=True)

    assert not os.path.exists(f"/proc/{int(rig.log('one'))}")
    assert [left.request_id for left in rig.journal.unfinished()] == ["one"]


def test_idle_agent_closes_and_begins_nothing_more(rig: Rig) -> None:
    rig.server.give(request("one", "odd", "hold"))
    rig.server.wait_for(lambda: rig.server.replies("one"))

    assert not rig.executions.close_when_idle()
    rig.server.give(request("two"))  # still served
    rig.final("two")
    rig.odd.go.set()
    rig.final("one")

    rig.server.wait_for(rig.executions.close_when_idle)


def test_start_ends_what_a_killed_agent_left(
    tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    (temporary / f"{files_of('cut-off')}1" / "bin").mkdir(parents=True)
    (temporary / f"{files_of('cut-off')}2.sh").touch()
    (temporary / f"{files_of('another')}3.sh").touch()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    rig = Rig(tmp_path, server)
    rig.journal.accept("cut-off", "execute", "script")
    environment = os.environ | {MARK: "cut-off"}
    stray = subprocess.Popen(["sleep", "60"], process_group=0, env=environment)
    nameless = subprocess.Popen(["env", "-i", "sleep", "60"], process_group=0)
    rig.journal.started("cut-off", nameless.pid, start_of(nameless.pid))

    rig.executions.recover()
    rig.start()

    final = rig.final("cut-off")
    assert (final["state"], final["payload"], final["number"]) == ("failed", "agent was restarted", 1)
    assert stray.wait(5) == nameless.wait(5) == -signal.SIGKILL
    assert os.listdir(temporary) == [f"{files_of('another')}3.sh"]
    rig.stop()


def test_disk_that_is_full_delays_a_reply(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "DISK_FULL_S", 0.01)
    failures, store = [1, 2, 3], rig.journal.reply

    def reply(*args: Any, **kwargs: Any) -> None:
        if failures:
            failures.pop()
            raise SpoolFailed("the disk is full")
        store(*args, **kwargs)

    monkeypatch.setattr(rig.journal, "reply", reply)
    rig.server.give(request("one"))

    assert rig.final("one")["payload"] == "pong"
