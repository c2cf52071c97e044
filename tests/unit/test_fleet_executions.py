"""Executions: states, logs, sweeps, cancelling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arc.errors import Conflict, Invalid, TooLarge
from arc.fleet.executions import Filters
from arc.fleet.logs import LogNotFound
from arc.fleet.messages import MAX_PAYLOAD, BadAttribute, Command, Fields, Reply
from arc.fleet.records import AgentNotFound, OtherProject, Status
from tests.unit.fleetrig import EVERYONE, NOW, SECOND, USER, FleetRig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

DAY = 86_400 * SECOND


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FleetRig]:
    with FleetRig(tmp_path) as made:
        made.register()
        yield made


def log_of(rig: FleetRig, request_id: str) -> str:
    return rig.fleet.executions.logs.read(request_id)


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (["executing"], "executing"),
        (["executing", "complete"], "complete"),
        (["failed", "executing"], "failed"),
        (["complete", "failed"], "complete"),
        (["failed", "complete"], "complete"),
        (["EXECUTING", "Failed"], "failed"),
    ],
)
def test_reply_never_lowers_the_status(rig: FleetRig, told: list[str], status: str) -> None:
    request_id = rig.run().request_id

    for number, state in enumerate(told, 1):
        rig.reply(request_id, state, number=number)

    assert rig.status(request_id) == status


def test_reply_sets_times_and_exit_code(rig: FleetRig) -> None:
    request_id = rig.run().request_id

    rig.reply(request_id, "executing", now_us=NOW + 1)
    rig.reply(request_id, "failed", number=2, now_us=NOW + 9, exit_code=3, ended_at=NOW + 5)

    ended = rig.fleet.executions.get(request_id)
    assert (ended.received_at, ended.started_at, ended.ended_at, ended.exit_code) == (NOW + 1, NOW + 1, NOW + 5, 3)
    assert ended.updated_at == NOW + 9


def test_repeated_number_has_no_effect(rig: FleetRig) -> None:
    request_id = rig.run().request_id
    rig.reply(request_id, "executing", payload="a", now_us=NOW + 1)

    outcome = rig.reply(request_id, "complete", payload="b", now_us=NOW + 2)

    assert not outcome.is_new
    assert (rig.status(request_id), log_of(rig, request_id)) == ("executing", "a")
    assert rig.fleet.executions.get(request_id).updated_at == NOW + 1


def test_repeated_reply_has_no_effect_after_the_log_was_joined_and_a_late_success_has(rig: FleetRig) -> None:
    request_id = rig.run().request_id
    rig.reply(request_id, "executing", payload="a")
    rig.reply(request_id, "failed", number=2, payload="b")
    rig.fleet.executions.logs.aggregate(NOW + 300 * SECOND)

    for state, number in (("executing", 1), ("failed", 2)):
        assert not rig.reply(request_id, state, number=number, now_us=NOW + DAY).is_new
    assert rig.fleet.executions.get(request_id).updated_at == NOW
    assert rig.reply(request_id, "complete", number=3).ended
    assert not rig.reply(request_id, "complete", number=3).is_new
    assert (rig.status(request_id), log_of(rig, request_id)) == ("complete", "ab")


def test_empty_heartbeat_counts_once_and_is_no_part(rig: FleetRig) -> None:
    request_id = rig.run().request_id

    assert rig.reply(request_id, "executing").is_new
    assert not rig.reply(request_id, "executing").is_new
    with pytest.raises(LogNotFound):
        log_of(rig, request_id)


def test_log_is_joined_in_the_order_of_numbers(rig: FleetRig) -> None:
    request_id = rig.run().request_id

    rig.reply(request_id, "executing", number=3, payload="c\n")
    rig.reply(request_id, "executing", number=2, payload="b\x01ü\n")
    rig.reply(request_id, "failed", number=4, payload="exit status 3")

    assert log_of(rig, request_id) == "b\x01ü\nc\nexit status 3"
    assert [part.number for part in rig.fleet.executions.logs.parts(request_id, 2)] == [3, 4]
    assert rig.fleet.executions.logs.parts(request_id, 4) == []


def test_final_reply_without_text_is_an_empty_log(rig: FleetRig) -> None:
    request_id = rig.run().request_id

    rig.reply(request_id, "complete")

    assert log_of(rig, request_id) == ""


def test_reply_of_an_unknown_job_has_no_effect_and_one_of_anothers_is_refused(rig: FleetRig) -> None:
    request_id = rig.run().request_id

    assert not rig.reply("no such", "complete").is_new
    with pytest.raises(Invalid, match="another agent's"):
        rig.reply(request_id, "complete", agent_id="edge-2")
    assert rig.status(request_id) == "queued"


@pytest.mark.parametrize(
    ("change", "attribute"),
    [
        ({"version": 0}, "version"),
        ({"request_id": None}, "requestID"),
        ({"agent": ""}, "agent"),
        ({"action": None}, "action"),
        ({"state": "done"}, "state"),
        ({"state": None}, "state"),
        ({"number": -1}, "number"),
        ({"sender": "edge-2"}, "sender"),
        ({"exit_code": 2**40}, "exit_code"),
        ({"ended_at": 10**18}, "ended_at"),
    ],
)
def test_bad_reply_names_its_attribute(change: dict[str, Any], attribute: str) -> None:
    good = {"version": 1, "request_id": "r", "agent": "rpc", "action": "ping", "state": "complete", "number": 1}

    with pytest.raises(BadAttribute, match=f"attribute '{attribute}' is missing or invalid"):
        Reply.parse(Fields(good | change), "edge-1")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"to": ""}, "attribute 'to'"),
        ({"to": None, "timeout": 0}, "attribute 'to'"),
        ({"timeout": 0, "agent": ""}, "attribute 'timeout'"),
        ({"timeout": 86_401}, "attribute 'timeout'"),
        ({"timeout": None}, "attribute 'timeout'"),
        ({"timeout": "60"}, "timeout must be a whole number"),
        ({"timeout": 60.5}, "timeout must be a whole number"),
        ({"timeout": True}, "timeout must be a whole number"),
        ({"agent": "", "action": ""}, "attribute 'agent'"),
        ({"action": None}, "attribute 'action'"),
        ({"payload": {}}, "payload must be a text"),
        ({"version": "1"}, "version must be a whole number"),
    ],
)
def test_bad_command_is_refused_for_the_first_of_its_faults(change: dict[str, Any], complaint: str) -> None:
    good = {"to": "edge-1", "timeout": 60, "agent": "rpc", "action": "ping"}

    with pytest.raises(Invalid, match=complaint):
        Command.parse(Fields(good | change))


def test_payload_that_an_agent_would_not_read_is_refused() -> None:
    command = {"to": "edge-1", "timeout": 60, "agent": "execute", "action": "script"}
    largest = "x" * MAX_PAYLOAD

    assert Command.parse(Fields(command | {"payload": largest})).payload == largest
    with pytest.raises(TooLarge):
        Command.parse(Fields(command | {"payload": largest + "x"}))


def test_names_of_keys_match_in_any_case() -> None:
    command = Command.parse(Fields({"TO": "a", "Timeout": 86_400, "agent": "rpc", "action": "ping", "extra": 1}))

    assert (command.agent_id, command.timeout_s, command.payload) == ("a", 86_400, "")


def test_command_needs_a_known_agent_of_the_project(rig: FleetRig) -> None:
    rig.register("edge-2", project="one")
    for agent_id, project, error in (("no such", None, AgentNotFound), ("edge-2", "two", OtherProject)):
        with pytest.raises(error):
            rig.fleet.run(Command(agent_id, 1, "rpc", "ping", ""), USER, project)

    assert rig.fleet.run(Command("edge-2", 1, "rpc", "ping", ""), USER, "one").project == "one"
    assert rig.fleet.counters.executed == 1


def test_what_nobody_fetches_in_time_fails(rig: FleetRig) -> None:
    normal, patient = rig.run().request_id, rig.run(within_s=3600).request_id

    assert rig.fleet.executions.fail_unfetched(NOW + 60 * SECOND - 1) == []
    failed = rig.fleet.executions.fail_unfetched(NOW + 60 * SECOND)

    assert [each.request_id for each in failed] == [normal]
    assert (rig.status(normal), rig.status(patient)) == ("failed", "queued")
    assert rig.fleet.executions.get(normal).ended_at == NOW + 60 * SECOND


def test_silent_execution_fails_a_minute_after_its_time_limit(rig: FleetRig) -> None:
    request_id = rig.run(timeout_s=10).request_id
    rig.reply(request_id, "executing", now_us=NOW)

    assert rig.fleet.executions.fail_unfetched(NOW + DAY) == []
    assert rig.fleet.executions.fail_expired(NOW + 70 * SECOND - 1) == []
    assert len(rig.fleet.executions.fail_expired(NOW + 70 * SECOND)) == 1

    rig.reply(request_id, "complete", number=2, now_us=NOW + DAY, ended_at=NOW + 5, exit_code=0)
    ended = rig.fleet.executions.get(request_id)
    assert (ended.status, ended.ended_at, ended.exit_code) == (Status.COMPLETE, NOW + 5, 0)


def test_confirmed_request_waits_for_its_time_limit(rig: FleetRig) -> None:
    request_id = rig.run(timeout_s=10, within_s=60).request_id
    with rig.db.transaction() as tx:
        rig.fleet.executions.received(tx, "edge-2", [request_id], NOW)
        assert rig.fleet.executions.pending("edge-1")
        rig.fleet.executions.received(tx, "edge-1", [request_id], NOW + SECOND)

    assert rig.fleet.executions.pending("edge-1") == []
    assert rig.fleet.executions.fail_unfetched(NOW + DAY) == []
    assert len(rig.fleet.executions.fail_expired(NOW + 71 * SECOND)) == 1


def test_parts_are_joined_five_minutes_after_the_last(rig: FleetRig) -> None:
    request_id, running = rig.run().request_id, rig.run().request_id
    rig.reply(request_id, "executing", payload="ä")
    rig.reply(request_id, "complete", number=2, payload="b")
    rig.reply(running, "executing", payload="c")
    logs = rig.fleet.executions.logs

    assert logs.aggregate(NOW + 300 * SECOND - 1) == []
    assert logs.aggregate(NOW + 300 * SECOND) == [3]
    rig.reply(request_id, "complete", number=3, payload="late")

    assert log_of(rig, request_id) == "äb"
    assert [part.number for part in logs.parts(request_id)] == [0]
    assert logs.parts(request_id, 2) == []
    assert logs.aggregate(NOW + 84_600 * SECOND) == [1]  # a part as old as this is joined, over or not
    assert log_of(rig, running) == "c"


def test_old_executions_go_with_their_logs(rig: FleetRig) -> None:
    old, touched = rig.run().request_id, rig.run().request_id
    rig.reply(old, "complete", payload="x")
    rig.reply(touched, "executing", now_us=NOW + DAY)

    assert rig.fleet.executions.prune(NOW) == 1

    with pytest.raises(LogNotFound):
        log_of(rig, old)
    assert rig.status(touched) == "executing"


def test_history_is_filtered(rig: FleetRig) -> None:
    rig.register("edge-2", project="one")
    first, second = rig.run(), rig.run("edge-2", now_us=NOW + SECOND)
    rig.reply(first.request_id, "complete")

    def found(project: str | None = None, **filters: Any) -> list[str]:
        return [each.request_id for each in rig.fleet.executions.search(Filters(**filters), 1, 25, project).items]

    assert found() == [second.request_id, first.request_id]
    assert found(agent_id="edge-1") == found(status=Status.COMPLETE) == [first.request_id]
    assert found(since_us=NOW + 1) == found(project="one") == [second.request_id]
    assert found(until_us=NOW + SECOND) == [first.request_id]
    assert found(user_id="ada", plugin="execute") == found()
    assert found(user_id="bob") == found(plugin="rpc") == found(agent_id="x' OR '1'='1") == []


def test_unfetched_command_is_cancelled_at_once(rig: FleetRig) -> None:
    request_id = rig.run().request_id

    cancelled = rig.fleet.cancel(request_id)

    assert (cancelled.status, log_of(rig, request_id)) == (Status.FAILED, "cancelled")
    with pytest.raises(Conflict, match="job is not running"):
        rig.fleet.cancel(request_id)


def test_running_command_is_cancelled_by_its_agent(rig: FleetRig) -> None:
    execution = rig.fleet.run(Command("edge-1", 10, "execute", "script", ""), USER)
    request_id = execution.request_id
    assert [each["type"] for each in poll(rig)] == ["request"]

    asked = rig.fleet.cancel(request_id)  # it may be on its way, so its agent is asked

    assert asked.status is Status.QUEUED
    assert poll(rig) == [{"type": "cancel", "request_id": request_id}]
    assert poll(rig) == []  # not at once again
    rig.reply(request_id, "failed", payload="cancelled")
    assert rig.status(request_id) == "failed"


def test_request_is_handed_out_until_it_is_confirmed(rig: FleetRig, monkeypatch: pytest.MonkeyPatch) -> None:
    request_id = rig.fleet.run(Command("edge-1", 10, "rpc", "ping", ""), USER).request_id
    assert [each["request_id"] for each in poll(rig)] == [request_id]
    assert poll(rig) == []

    monkeypatch.setattr("arc.fleet.service.HANDED_S", 0.0)
    assert [each["request_id"] for each in poll(rig)] == [request_id]
    rig.post({"seq": 1, "type": "received", "request_ids": [request_id]})
    assert poll(rig) == []


def test_answer_hands_out_what_an_agent_reads_and_the_next_one_the_rest(rig: FleetRig) -> None:
    payloads = ("x" * MAX_PAYLOAD, "y", "z")
    asked = [rig.fleet.run(Command("edge-1", 10, "execute", "script", text), USER).request_id for text in payloads]

    assert [each["request_id"] for each in poll(rig)] == asked[:1]
    assert [each["request_id"] for each in poll(rig)] == asked[1:]
    assert poll(rig) == []


def poll(rig: FleetRig) -> list[dict[str, Any]]:
    return rig.fleet.poll("edge-1", EVERYONE, 0, bool)[0]
