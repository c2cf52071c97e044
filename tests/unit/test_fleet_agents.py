"""Agents: merging of facts, tags, who is there, the history of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from arc import clock
from arc.errors import Invalid
from arc.fleet.agents import InvalidTags
from arc.fleet.messages import Registration
from arc.fleet.records import AgentNotFound, OtherProject
from tests.unit.fleetrig import NOW, SECOND, FleetRig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FleetRig]:
    with FleetRig(tmp_path) as made:
        yield made


def events(rig: FleetRig, agent_id: str = "edge-1") -> list[str]:
    return [each.event for each in reversed(rig.fleet.agents.events(agent_id))]


@pytest.mark.parametrize(
    ("before", "payload", "after"),
    [
        (None, {"online": False}, {"online": True}),
        ({"online": True}, {"online": False}, {"online": False}),
        ({"online": False, "os": "linux"}, {"memory_used": 5}, {"memory_used": 5, "online": True, "os": "linux"}),
        ({"hostname": "h", "n": {"x": 1}}, {"hostname": None, "n": {"y": 2}}, {"n": {"y": 2}, "online": True}),
        ({"online": False}, {"online": None}, {"online": True}),
        (None, {"fqdn": None, "k": 1}, {"fqdn": None, "k": 1, "online": True}),
        ({"k": 1}, {}, {"k": 1, "online": True}),
    ],
)
def test_registration_is_merged_into_the_facts(
    rig: FleetRig, before: dict[str, Any] | None, payload: dict[str, Any], after: dict[str, Any]
) -> None:
    if before is not None:
        rig.register(**before)
        rig.register(online=before.get("online", True))  # the first one is online whatever it says

    rig.register(**payload)

    assert rig.facts() == after


def test_update_moves_its_own_marks_and_leaves_the_others(rig: FleetRig) -> None:
    rig.register(os="linux")
    rig.fleet.agents.set_tags("edge-1", {"site": "north"}, NOW)

    rig.register(now_us=NOW + SECOND, project="plant-b")

    agent = rig.fleet.agents.get("edge-1")
    assert (agent.created_at, agent.updated_at, agent.project) == (NOW, NOW + SECOND, "plant-b")
    assert agent.tags == {"site": "north"}


def test_same_registration_id_counts_once_within_a_minute_unless_it_says_goodbye(rig: FleetRig) -> None:
    def send(payload: dict[str, Any], now_us: int) -> None:
        registration = Registration("id-1", "", "", payload)
        with rig.db.transaction() as tx:
            rig.fleet.agents.register(
                tx, "edge-1", registration, project="", organization="", token_id=None, now_us=now_us
            )

    send({"k": 1}, NOW)
    send({"k": 2}, NOW + SECOND)
    assert rig.facts()["k"] == 1

    send({"online": False}, NOW + 2 * SECOND)
    assert rig.facts()["online"] is False

    send({"k": 3}, NOW + 120 * SECOND)
    assert rig.facts()["k"] == 3


def test_display_name_is_tag_then_hostname_then_id(rig: FleetRig) -> None:
    def name() -> str:
        return rig.fleet.agents.get("edge-1").display_name

    rig.register()
    assert name() == "edge-1"
    rig.register(hostname="host-1")
    assert name() == "host-1"
    rig.fleet.agents.set_tags("edge-1", {"name": " "}, NOW)
    assert name() == " "
    rig.fleet.agents.delete_tag("edge-1", "name", NOW)
    assert name() == "host-1"


def test_tags_are_stored_together_or_not_at_all(rig: FleetRig) -> None:
    rig.register()

    with pytest.raises(InvalidTags) as refusal:
        rig.fleet.agents.set_tags("edge-1", {"ok": "1", "a-b": "x", "rack": "", "line\n": "y", "": "z"}, NOW)

    assert refusal.value.details["errors"] == {
        "tags": {
            "": ["Tag key  is not alphanumeric [a-z0-9A-Z]."],
            "a-b": ["Tag key a-b is not alphanumeric [a-z0-9A-Z]."],
            "line\n": ["Tag key line\n is not alphanumeric [a-z0-9A-Z]."],
            "rack": ["Tag key rack is empty."],
        }
    }
    assert rig.fleet.agents.get("edge-1").tags == {}


def test_agents_are_listed_by_name_and_only_those_of_the_project(rig: FleetRig) -> None:
    for agent_id, project in (("b", "one"), ("a", "one"), ("C", "two")):
        rig.register(agent_id, project=project)

    assert [each.agent_id for each in rig.fleet.agents.search("", 1, 25).items] == ["C", "a", "b"]
    assert [each.agent_id for each in rig.fleet.agents.search("", 1, 25, "one").items] == ["a", "b"]
    last = rig.fleet.agents.search("", 9, 2)
    assert ([each.agent_id for each in last.items], last.number, last.pages, last.total) == (["b"], 2, 2, 3)


def test_agent_of_another_project_is_refused(rig: FleetRig) -> None:
    rig.register(project="one")

    with pytest.raises(OtherProject, match="one is not project two"):
        rig.fleet.agents.get("edge-1", "two")


def test_tags_are_bounded(rig: FleetRig) -> None:
    rig.register()
    tags = {f"t{number:02}": "x" * 1000 for number in range(63)} | {"k" * 128: "y"}
    rig.fleet.agents.set_tags("edge-1", tags, NOW)
    rig.fleet.agents.set_tags("edge-1", {"t00": "z"}, NOW)  # it has this one

    with pytest.raises(InvalidTags) as refused:
        rig.fleet.agents.set_tags("edge-1", {"new": "1", "t01": "x" * 1001, "k" * 129: "1", "t02": "a\0b"}, NOW)

    assert refused.value.details["errors"] == {
        "tags": {
            "k" * 129: [f"Tag key {'k' * 129} is longer than 128 characters."],
            "new": ["Tag key new is too many: an agent has at most 64 tags."],
            "t01": ["Tag key t01 has a value of more than 1000 characters."],
            "t02": ["Tag key t02 has a value with U+0000."],
        }
    }
    assert rig.fleet.agents.get("edge-1").tags == tags | {"t00": "z"}


def test_filter_sees_what_facts_and_tags_are_now(rig: FleetRig) -> None:
    def matches(q: str) -> bool:
        return bool(rig.fleet.agents.search(q, 1, 25).items)

    rig.register(os="linux", memory=40)
    assert matches("@memory = 40")
    rig.register(memory=41, os=None)
    assert matches("@memory = 41")
    assert not matches('@os = "linux"')
    rig.fleet.agents.set_tags("edge-1", {"line": "007"}, NOW)
    assert matches("line = 7")


def test_too_many_facts_are_refused(rig: FleetRig) -> None:
    with pytest.raises(Invalid, match="at most 1000 facts"):
        rig.register(**{f"f{n}": n for n in range(1000)})


def test_deleted_agent_comes_back_with_what_it_says_next(rig: FleetRig) -> None:
    rig.register(os="linux", hostname="h")
    rig.fleet.agents.set_tags("edge-1", {"site": "north"}, NOW)

    rig.fleet.delete_agent("edge-1")

    with pytest.raises(AgentNotFound):
        rig.fleet.agents.get("edge-1")
    rig.register(memory=1)
    assert rig.facts() == {"memory": 1, "online": True}
    assert rig.fleet.agents.get("edge-1").tags == {}
    assert events(rig) == ["online", "deleted", "online"]


def test_silent_agent_goes_offline_and_is_back_at_the_first_sign_of_life(rig: FleetRig) -> None:
    rig.post({"seq": 1, "type": "registration", "payload": {"os": "linux"}})
    seen_at = rig.fleet.presence.last_seen("edge-1")
    assert seen_at is not None

    rig.fleet.sweeper.step(seen_at + 44 * SECOND)
    assert rig.facts()["online"] is True
    rig.fleet.sweeper.step(seen_at + 46 * SECOND)
    assert rig.facts()["online"] is False

    rig.post()
    assert rig.facts()["online"] is True
    assert events(rig) == ["online", "offline", "online"]


def test_sign_of_life_while_silence_is_being_stored_counts(rig: FleetRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.post({"seq": 1, "type": "registration", "payload": {}})
    store = rig.fleet.agents.go_offline

    def store_slowly(agent_ids: Sequence[str], now_us: int, detail: str) -> list[str]:
        gone = store(agent_ids, now_us, detail)
        rig.fleet.presence.seen("edge-1", now_us + 1)
        return gone

    monkeypatch.setattr(rig.fleet.agents, "go_offline", store_slowly)
    rig.fleet.sweeper.step(clock.now_us() + 46 * SECOND)

    assert rig.fleet.agent("edge-1").is_online
    assert events(rig) == ["online", "offline", "online"]


def test_every_change_is_an_event_and_a_point(rig: FleetRig) -> None:
    rig.post({"seq": 1, "type": "registration", "payload": {}})
    rig.post({"seq": 2, "type": "registration", "payload": {"online": False}})

    rig.fleet.sweeper.step(NOW)

    body, database = rig.lines.written[-1]
    assert database == "arc"
    heads = [line.split(b" ")[0] for line in body.splitlines()]
    assert heads == [b"fleet_events,agent=edge-1,event=online", b"fleet_events,agent=edge-1,event=offline"]


def test_after_a_start_an_online_agent_has_the_full_time_again(rig: FleetRig) -> None:
    rig.register()

    rig.fleet.presence.begin(rig.fleet.agents.online(), NOW + 3600 * SECOND)

    assert rig.fleet.presence.silent(NOW + 3600 * SECOND) == []
    assert rig.fleet.presence.silent(NOW + 3601 * SECOND) == ["edge-1"]


def test_heartbeats_are_stored_in_batches(rig: FleetRig) -> None:
    rig.post({"seq": 1, "type": "registration", "payload": {}})
    first = rig.fleet.agents.get("edge-1").last_seen_at
    rig.post()

    assert rig.fleet.agents.get("edge-1").last_seen_at == first
    assert rig.fleet.agent("edge-1").last_seen_at > first
    assert rig.fleet.agents.save_seen(rig.fleet.presence.unsaved()) == 1
    assert rig.fleet.agents.get("edge-1").last_seen_at == rig.fleet.presence.last_seen("edge-1")
    assert rig.fleet.presence.unsaved() == {}
