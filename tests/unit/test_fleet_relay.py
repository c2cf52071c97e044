"""The relay of actions: what agents are told, what they report, and what the server shows meanwhile."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from arc import clock, config
from arc.errors import Conflict, Invalid, NotFound, Unavailable
from arc.fleet import relay as relays
from arc.fleet.service import Fleet
from tests.unit.fleetrig import EVERYONE, SECOND, FleetRig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PING = "agent.replicante.io/test.ping"
REBOOT, UPDATE = "arc.edge/node.reboot", "arc.edge/agent.update"


class RelayRig(FleetRig):
    """A fleet with one agent, or more, whose messages are numbered. options: of [fleet]."""

    def __init__(self, data_dir: Path, **options: str) -> None:
        super().__init__(data_dir, **options)
        self._seq = 0
        self.register()

    def schedule(self, action_id: str = "a-1", kind: str = PING, agent_id: str = "edge-1") -> None:
        action = {"id": action_id, "kind": kind, "state": "NEW", "state_payload": None, "finished_ts": None}
        event = {"action_id": action_id, "timestamp": "2025-10-19T12:00:00Z", "state": "NEW", "state_payload": None}
        self.fleet.schedule_action(
            agent_id, {"id": action_id, "kind": kind, "args": None}, {"action": action, "history": [event]}
        )

    def told(self, agent_id: str = "edge-1") -> list[tuple[str, str]]:
        messages, _ = self.fleet.poll(agent_id, EVERYONE, 0.0, lambda: False)
        return [(message["op"], message["id"]) for message in messages if message["type"] == "action"]

    def told_ids(self, agent_id: str) -> list[str]:
        return [action_id for _, action_id in self.told(agent_id)]

    def say(self, agent_id: str = "edge-1", **said: Any) -> list[tuple[int, str]]:
        """Post one message; what of it was rejected."""
        self._seq += 1
        return self.post({"seq": self._seq, "type": "actions", **said}, agent_id=agent_id).rejected

    def report(
        self, action_id: str, state: str, *, seq: int = 1, revision: int = 1, kind: str = PING, agent_id: str = "edge-1"
    ) -> list[tuple[int, str]]:
        return self.say(agent_id, copies=[copy(action_id, state, seq, revision, kind)])

    def refuse(self, action_id: str, kind: str) -> None:
        self.say(answers=[{"op": "schedule", "id": action_id, "error": {"kind": kind, "message": "no"}}])

    def shown(self, action_id: str = "a-1", agent_id: str = "edge-1") -> tuple[str, str | None]:
        """State, and the variant of its payload."""
        action = self.fleet.relay.info(agent_id, action_id)[0]["action"]
        return action["state"], (action["state_payload"] or {}).get("variant")

    def reboot(self, *agent_ids: str) -> None:
        """Schedule a reboot of each, with the agent's id and `-r`."""
        for agent_id in agent_ids:
            self.schedule(f"{agent_id}-r", REBOOT, agent_id)

    def rebooted(self, agent_id: str, state: str = "DONE", revision: int = 9) -> None:
        self.report(f"{agent_id}-r", state, revision=revision, kind=REBOOT, agent_id=agent_id)


def copy(action_id: str, state: str, seq: int, revision: int, kind: str = PING) -> dict[str, Any]:
    action = {"id": action_id, "kind": kind, "state": state, "state_payload": {"n": revision}}
    finished_at = clock.now_us() if state in ("DONE", "FAILED") else None
    return {"seq": seq, "revision": revision, "finished_at": finished_at, "info": {"action": action, "history": []}}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RelayRig]:
    monkeypatch.setattr("arc.fleet.service.HANDED_S", -1.0)  # each poll is told everything again
    with RelayRig(tmp_path) as rig:
        yield rig


def test_agent_is_told_until_it_has_answered(rig: RelayRig) -> None:
    rig.schedule("a-1")
    rig.schedule("a-2")

    assert rig.told() == rig.told() == [("schedule", "a-1"), ("schedule", "a-2")]
    rig.report("a-1", "NEW")
    assert rig.told() == [("schedule", "a-2")]
    rig.refuse("a-2", "ActionAlreadyExists")  # it has had it: the answer before was lost

    assert rig.told() == []
    assert rig.shown("a-2") == ("NEW", None)


def test_agent_is_told_after_a_restart_of_the_server(rig: RelayRig) -> None:
    rig.schedule()

    rig.fleet = Fleet(rig.db, config.load(None, {}, {}), rig.tokens, rig.lines.write)
    rig.fleet.relay.start()

    assert rig.told() == [("schedule", "a-1")]


def test_what_an_agent_refuses_has_failed(rig: RelayRig) -> None:
    rig.schedule()

    rig.refuse("a-1", "InvalidArgs")

    assert rig.shown() == ("FAILED", "InvalidArgs")
    assert rig.told() == []
    assert [event["state"] for event in rig.fleet.relay.info("edge-1", "a-1")[0]["history"]] == ["FAILED", "NEW"]


def test_refusal_that_may_pass_is_tried_again(rig: RelayRig) -> None:
    rig.schedule()

    for _ in range(relays.MAX_ATTEMPTS - 1):
        rig.refuse("a-1", "QueueFull")
    assert rig.told() == [("schedule", "a-1")]
    rig.refuse("a-1", "QueueFull")

    assert rig.shown() == ("FAILED", "QueueFull")


def test_copies_follow_the_agent_and_what_has_ended_stays(rig: RelayRig) -> None:
    rig.report("a-1", "RUNNING", revision=2)
    rig.report("a-1", "NEW", revision=1)  # it was late
    assert rig.shown() == ("RUNNING", None)

    rig.report("a-1", "DONE", revision=3)
    rig.report("a-1", "FAILED", revision=4)

    assert rig.shown() == ("DONE", None)
    assert rig.fleet.relay.queue("edge-1") == []
    assert rig.fleet.relay.finished("edge-1", 10, None) == ([{"kind": PING, "id": "a-1", "state": "DONE"}], 1)


def test_lists_are_in_the_order_of_execution(rig: RelayRig) -> None:
    rig.schedule("later")
    rig.report("b", "NEW", seq=2)
    rig.report("a", "RUNNING", seq=1)
    assert [action["id"] for action in rig.fleet.relay.queue("edge-1")] == ["a", "b", "later"]

    for number, name in enumerate(("a", "b", "c")):
        rig.report(name, "DONE", seq=number + 1, revision=5)

    page, total = rig.fleet.relay.finished("edge-1", 2, None)
    assert ([action["id"] for action in page], total) == (["c", "b"], 3)
    assert [action["id"] for action in rig.fleet.relay.finished("edge-1", 2, "b")[0]] == ["a"]


def test_cancel_before_and_after_the_agent_was_told(rig: RelayRig) -> None:
    rig.schedule("a-1")
    assert rig.fleet.cancel_action("edge-1", "a-1", "enough") == "CANCELLED"
    assert rig.shown("a-1") == ("FAILED", "Cancelled")
    with pytest.raises(Conflict):
        rig.fleet.cancel_action("edge-1", "a-1", "")

    rig.schedule("a-2")
    rig.told()
    assert rig.fleet.cancel_action("edge-1", "a-2", "enough") == "NEW"
    assert rig.told() == [("schedule", "a-2"), ("cancel", "a-2")]
    rig.say(answers=[{"op": "cancel", "id": "a-2", "error": None}])
    assert rig.told() == [("schedule", "a-2")]


def test_only_a_report_without_it_loses_an_action(rig: RelayRig) -> None:
    rig.report("a-1", "RUNNING")
    rig.schedule("a-2")  # the agent does not know of it yet

    rig.say(known=["a-1"])
    assert rig.shown() == ("RUNNING", None)
    rig.say(known=[])

    assert rig.shown() == ("FAILED", "Lost")
    assert rig.shown("a-2") == ("NEW", None)
    rig.report("a-1", "DONE", revision=2)
    assert rig.shown() == ("DONE", None)


@pytest.mark.parametrize(
    "said",
    [
        {"copies": {"a": 1}},
        {"copies": [{"seq": 1}]},
        {"copies": [copy("a", "DONE", 1, 1) | {"finished_at": None}]},
        {"copies": [copy("a", "LOST", 1, 1)]},
        {"copies": [copy("a" * 37, "NEW", 1, 1)]},
        {"copies": [copy("a", "NEW", 1, 2**31)]},
        {"answers": ["x"]},
        {"known": "x"},
        {"node": []},
    ],
)
def test_what_makes_no_sense_is_rejected(rig: RelayRig, said: dict[str, Any]) -> None:
    assert len(rig.say(**said)) == 1


def test_one_id_is_one_action_and_a_queue_has_an_end(rig: RelayRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "MAX_WAITING", 2)
    rig.schedule("a-1")
    with pytest.raises(Conflict):
        rig.schedule("a-1")
    rig.schedule("a-2")

    with pytest.raises(Unavailable):
        rig.schedule("a-3")


def test_ended_action_is_a_point_once(rig: RelayRig) -> None:
    rig.report("a-1", "DONE", revision=2)
    rig.report("a-1", "DONE", revision=2)
    rig.fleet.news.ship()

    lines = [line for body, _ in rig.lines.written for line in body.decode().splitlines() if line.startswith("actions")]
    assert [line.rpartition(" ")[0] for line in lines] == [f'actions,agent=edge-1,kind={PING},state=DONE id="a-1"']


def test_copies_go_with_their_agent_and_with_time(rig: RelayRig) -> None:
    rig.report("a-1", "DONE")
    rig.report("a-2", "RUNNING", seq=2)
    assert rig.fleet.relay.prune(clock.now_us() + 1) == 1
    with pytest.raises(NotFound):
        rig.shown("a-1")

    rig.fleet.delete_agent("edge-1")

    with pytest.raises(NotFound):
        rig.shown("a-2")


def test_agent_is_asked_once_to_report(rig: RelayRig) -> None:
    rig.fleet.ask_for_report("edge-1")

    assert (rig.told(), rig.told()) == ([("report", "")], [])


def test_report_is_kept_with_its_time(rig: RelayRig) -> None:
    assert rig.fleet.relay.report("edge-1") is None
    rig.say(node={"kinds": []})
    rig.say(node={"kinds": [{"kind": PING}]})

    found, observed_at = rig.fleet.relay.report("edge-1") or ({}, 0)
    assert json.dumps(found) == json.dumps({"kinds": [{"kind": PING}]})
    assert observed_at <= clock.now_us()


@pytest.fixture
def three(rig: RelayRig) -> RelayRig:
    """Two more agents."""
    rig.register("edge-2")
    rig.register("edge-3")
    return rig


def test_second_reboot_waits_for_the_end_of_the_first(three: RelayRig) -> None:
    three.reboot("edge-1", "edge-2")
    assert three.told_ids("edge-1") == ["edge-1-r"]

    for state in ("NEW", "RUNNING"):
        assert three.told_ids("edge-2") == []
        assert three.shown("edge-2-r", "edge-2") == ("NEW", None)
        three.rebooted("edge-1", state, revision=1 + (state == "RUNNING"))
    assert three.told_ids("edge-2") == []
    three.rebooted("edge-1")

    assert three.told_ids("edge-2") == three.told_ids("edge-2") == ["edge-2-r"]


@pytest.mark.parametrize(("limit", "handed"), [("0", 3), ("1", 1), ("2", 2), ("3", 3)])
def test_so_many_machines_may_be_out_of_service_at_a_time(tmp_path: Path, limit: str, handed: int) -> None:
    with RelayRig(tmp_path, max_unavailable=limit) as rig:
        agents = ["edge-1", "edge-2", "edge-3"]
        for agent_id in agents[1:]:
            rig.register(agent_id)
        rig.reboot(*agents)

        assert sum(rig.told_ids(agent_id) != [] for agent_id in agents) == handed


def test_what_comes_after_a_held_action_keeps_its_order(three: RelayRig) -> None:
    three.reboot("edge-1")
    three.told("edge-1")
    three.schedule("before", agent_id="edge-2")
    three.reboot("edge-2")
    three.schedule("after", agent_id="edge-2")
    three.schedule("other", agent_id="edge-3")

    assert three.told_ids("edge-2") == ["before"]
    assert three.told_ids("edge-3") == ["other"]
    assert [each["id"] for each in three.fleet.relay.queue("edge-2")] == ["before", "edge-2-r", "after"]
    three.fleet.cancel_action("edge-2", "edge-2-r", "")

    assert three.told_ids("edge-2") == ["before", "after"]


def test_machine_has_one_such_action_at_a_time(three: RelayRig) -> None:
    three.reboot("edge-1")
    three.schedule("update", UPDATE)

    assert three.told_ids("edge-1") == ["edge-1-r"]
    three.rebooted("edge-1")

    assert three.told_ids("edge-1") == ["update"]


def test_place_is_for_who_has_waited_longest(three: RelayRig, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    three.reboot("edge-1", "edge-2", "edge-3")
    for agent_id in ("edge-1", "edge-3", "edge-2"):
        three.told(agent_id)
    monkeypatch.setattr(three.fleet.hub, "wake", woken.append)

    three.rebooted("edge-1")

    assert woken == ["edge-2"]
    assert three.told_ids("edge-3") == []
    three.fleet.leave("edge-2", EVERYONE)  # it is offline now, and must not be waited for
    assert three.told_ids("edge-3") == ["edge-3-r"]


def test_agent_that_never_asks_is_not_waited_for(three: RelayRig) -> None:
    three.reboot("edge-1", "edge-2")

    assert three.told_ids("edge-2") == ["edge-2-r"]


@pytest.mark.parametrize("end", ["failed", "lost", "refused", "deleted", "silent"])
def test_action_that_ends_otherwise_makes_room(three: RelayRig, end: str) -> None:
    three.reboot("edge-1", "edge-2")
    three.told("edge-1")
    if end == "refused":
        three.refuse("edge-1-r", "InvalidArgs")
    else:
        three.rebooted("edge-1", "RUNNING", revision=1)
        assert three.told_ids("edge-2") == []

    now_us = clock.now_us()
    if end == "failed":
        three.rebooted("edge-1", "FAILED")
    elif end == "lost":
        three.say(known=[])
    elif end == "deleted":
        three.fleet.delete_agent("edge-1")
    elif end == "silent":
        now_us += 1801 * SECOND

    assert three.fleet.relay.messages("edge-2", lambda *_, **__: True, now_us)


def test_reboot_that_was_scheduled_on_the_machine_itself_counts(three: RelayRig) -> None:
    three.rebooted("edge-1", "RUNNING", revision=1)  # the server was not asked, and cannot hold it back
    three.reboot("edge-2")

    assert three.told_ids("edge-2") == []
    three.rebooted("edge-1")
    assert three.told_ids("edge-2") == ["edge-2-r"]


def test_held_actions_are_held_after_a_restart_of_the_server(three: RelayRig) -> None:
    three.reboot("edge-1", "edge-2")
    three.told("edge-1")

    three.fleet = Fleet(three.db, config.load(None, {}, {}), three.tokens, three.lines.write)
    three.fleet.relay.start()

    assert three.told_ids("edge-2") == []
    three.rebooted("edge-1")
    assert three.told_ids("edge-2") == ["edge-2-r"]


def test_waiter_is_answered_when_the_agent_reports_a_change(rig: RelayRig) -> None:
    rig.schedule("a-1")
    rig.schedule("a-2")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rig.fleet.relay.wait_for_change, "edge-1", "a-1", 0, 30.0)
        rig.report("a-2", "NEW", revision=1, seq=2)  # of another action: it goes on waiting
        rig.report("a-1", "NEW", revision=1)
        waiting.result(10)

    rig.fleet.relay.wait_for_change("edge-1", "a-1", 0, 30.0)  # it has come already
    assert rig.fleet.relay.info("edge-1", "a-1")[1] == 1


def test_waiting_ends_with_the_time_the_server_and_a_cancel(rig: RelayRig) -> None:
    rig.schedule()
    rig.fleet.relay.wait_for_change("edge-1", "a-1", 0, 0.01)
    with pytest.raises(NotFound):
        rig.fleet.relay.wait_for_change("edge-1", "none", 0, 30.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rig.fleet.relay.wait_for_change, "edge-1", "a-1", 0, 30.0)
        rig.fleet.cancel_action("edge-1", "a-1", "")
        waiting.result(10)

        waiting = pool.submit(rig.fleet.relay.wait_for_change, "edge-1", "a-1", 1, 30.0)
        rig.fleet.stop_waiting()
        waiting.result(10)

    assert rig.shown() == ("FAILED", "Cancelled")


def test_reason_of_a_cancel_has_no_nul(rig: RelayRig) -> None:
    rig.schedule()

    with pytest.raises(Invalid, match=r"reason must not contain U\+0000"):
        rig.fleet.cancel_action("edge-1", "a-1", "a\0b")
