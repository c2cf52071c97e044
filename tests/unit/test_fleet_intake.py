"""Intake: each message of an agent has its effect once, in order, and only in its own name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from arc.errors import Denied, Invalid, Unavailable
from arc.fleet.intake import Speaker
from arc.fleet.messages import read_json
from tests.unit.fleetrig import FleetRig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FleetRig]:
    with FleetRig(tmp_path) as made:
        yield made


def hello(seq: int = 1, **payload: Any) -> dict[str, Any]:
    return {"seq": seq, "type": "registration", "payload": payload}


def nested(levels: int) -> dict[str, Any]:
    made: Any = 1
    for _ in range(levels):
        made = {"a": made}
    return {"a": made}


def test_messages_of_an_epoch_count_once(rig: FleetRig) -> None:
    assert rig.post(hello(1, k=1), hello(2, k=2)).last_seq == 2

    assert rig.post(hello(1, k=1), hello(2, k=2)).last_seq == 2
    assert rig.facts()["k"] == 2
    assert rig.post(hello(2, k=9), hello(3, k=3)).last_seq == 3
    assert rig.facts()["k"] == 3
    assert rig.post(hello(1, k=4), epoch="e2").last_seq == 1
    assert rig.facts()["k"] == 4


def test_messages_take_effect_in_the_order_of_their_numbers(rig: FleetRig) -> None:
    rig.post(hello(2, k=2), hello(1, k=1))

    assert rig.facts()["k"] == 2


def test_rejected_message_counts_as_delivered_and_keeps_no_other(rig: FleetRig) -> None:
    rig.post(hello(1))
    request_id = rig.run().request_id
    reply = {"type": "reply", "request_id": request_id, "agent": "rpc", "action": "ping", "state": "complete"}

    receipt = rig.post({"seq": 2, "type": "reply"}, {"seq": 3, "type": "what"}, {"seq": 4, "final": True, **reply})

    assert receipt.last_seq == 4
    assert receipt.rejected == [
        (2, "attribute 'requestID' is missing or invalid"),
        (3, "unknown type of message 'what'"),
    ]
    assert rig.status(request_id) == "complete"
    assert rig.fleet.counters.succeeded == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 0}, "attribute 'version'"),
        ({"sender": "edge-2"}, "attribute 'sender'"),
        ({"payload": "null"}, "attribute 'payload'"),
        ({"payload": "[1]"}, "attribute 'payload'"),
        ({"payload": "{"}, "attribute 'payload'"),
        ({"payload": None}, "attribute 'payload'"),
        ({"payload": '{"a": NaN}'}, "attribute 'payload'"),
        ({"payload": '{"a": 1' + "0" * 400 + "}"}, "attribute 'payload'"),
        ({"payload": '{"a": "\\ud800"}'}, "attribute 'payload'"),
        ({"payload": '{"a": ' + "[" * 2000 + "]" * 2000 + "}"}, "attribute 'payload'"),
        ({"payload": nested(51)}, "attribute 'payload'"),
        ({"version": "1"}, "version must be a whole number"),
        ({"project": "p" * 101}, "attribute 'project'"),
        ({"organization": "o" * 101}, "attribute 'organization'"),
        ({"project": "a\0b"}, "project must not contain U+0000"),
    ],
)
def test_bad_registration_is_dropped(rig: FleetRig, change: dict[str, Any], complaint: str) -> None:
    receipt = rig.post(hello(1) | change)

    assert complaint in receipt.rejected[0][1]
    assert rig.fleet.agents.search("", 1, 25).total == 0


def test_payload_may_be_the_text_of_an_object(rig: FleetRig) -> None:
    rig.post(hello(1) | {"payload": '{"os": "linux\\u0000"}'})

    assert rig.facts() == {"os": "linux\ufffd", "online": True}


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (r'"a\u0000b"', "a\ufffdb"),
        (r'"\u0000\u0000"', "\ufffd\ufffd"),
        (r'"\\u0000"', r"\u0000"),  # a backslash and five characters
        (r'"\\\u0000"', "\\\ufffd"),
        (r'"\\\\u0000"', r"\\u0000"),
        (r'{"\u0000": [null, "\n\u0000"]}', {"\ufffd": [None, "\n\ufffd"]}),
        ('"plain"', "plain"),
    ],
)
def test_nul_of_an_agent_is_replaced(sent: str, read: Any) -> None:
    assert read_json(sent.encode()) == read


def test_project_is_that_of_the_token(rig: FleetRig) -> None:
    speaker = Speaker(7, "edge-1", "plant-a", "dom1")

    rig.fleet.post("edge-1", speaker, "e1", [hello(1)])
    receipt = rig.fleet.post("edge-1", speaker, "e1", [hello(2) | {"project": "plant-b"}])

    agent = rig.fleet.agents.get("edge-1")
    assert (agent.project, agent.organization) == ("plant-a", "dom1")
    assert receipt.rejected == [(2, "the token is not for project 'plant-b'")]


def test_bound_token_speaks_for_one_agent_only(rig: FleetRig) -> None:
    with pytest.raises(Denied, match="does not speak for 'edge-2'"):
        rig.fleet.post("edge-2", Speaker(7, "edge-1"), "e1", [hello(1)])
    with pytest.raises(Denied):
        rig.fleet.poll("edge-2", Speaker(7, "edge-1"), 0, bool)


def test_unbound_token_speaks_for_those_it_registered(rig: FleetRig) -> None:
    rig.fleet.post("edge-1", Speaker(7), "e1", [hello(1)])

    assert rig.fleet.post("edge-1", Speaker(7), "e1", [hello(2)]).last_seq == 2
    with pytest.raises(Denied):
        rig.fleet.post("edge-1", Speaker(8), "e1", [hello(3)])


def test_who_is_not_registered_neither_reports_nor_gets_work(rig: FleetRig) -> None:
    rig.post(hello(1))
    request_id = rig.run().request_id
    rig.fleet.delete_agent("edge-1")

    receipt = rig.fleet.post("edge-1", Speaker(9), "e9", [{"seq": 1, "type": "received", "request_ids": [request_id]}])

    assert receipt.rejected == [(1, "the agent is not registered")]
    messages, retry_s = rig.fleet.poll("edge-1", Speaker(9), 0, bool)
    assert messages == []
    assert retry_s > 0


def test_metrics_go_to_database_host_under_the_name_of_the_agent(rig: FleetRig) -> None:
    lines = "cpu,core=1,host=edge-1 usage=1 1\nmem,host=edge-1 used=2i 1\n\n# note"

    receipt = rig.post(hello(1), {"seq": 2, "type": "metrics", "lines": lines})

    assert receipt.rejected == []
    assert (lines.encode(), "host") in rig.lines.written


@pytest.mark.parametrize(
    "line",
    [
        "cpu usage=1",
        "cpu,host=edge-2 usage=1",
        "cpu,host=edge-11 usage=1",
        "cpu,x=1 host=1",
        "cpu,host=edge-1,host=edge-2 usage=1",
        "cpu,host=edge-1,HOST=edge-2 usage=1",
    ],
)
def test_metrics_of_another_host_are_refused(rig: FleetRig, line: str) -> None:
    receipt = rig.post(hello(1), {"seq": 2, "type": "metrics", "lines": line})

    assert receipt.rejected == [(2, "line 1 lacks the tag host=edge-1")]
    assert rig.lines.written == []


def test_batch_waits_while_metrics_cannot_be_stored(rig: FleetRig) -> None:
    rig.lines.fails_with = Unavailable("not yet")
    with pytest.raises(Unavailable):
        rig.post(hello(1), {"seq": 2, "type": "metrics", "lines": "cpu,host=edge-1 usage=1"})

    rig.lines.fails_with = None
    assert rig.post(hello(1), {"seq": 2, "type": "metrics", "lines": "cpu,host=edge-1 usage=1"}).last_seq == 2


@pytest.mark.parametrize("messages", [[1], [{"seq": 0}], [{"seq": "1"}], [{}], [{"seq": 2**70}]])
def test_what_is_no_batch_is_refused_whole(rig: FleetRig, messages: list[Any]) -> None:
    with pytest.raises(Invalid):
        rig.fleet.post("edge-1", Speaker(None), "e1", [hello(1), *messages])
