"""The action engine: order, states, history, crashes, refusals, clean-up. The clock is passed in, threads are few."""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from arc.actions import rules, testkinds
from arc.actions.engine import ActionEngine
from arc.actions.errors import (
    ActionAlreadyExists,
    ActionFinished,
    ActionNotAvailable,
    ActionNotFound,
    Draining,
    EngineElsewhere,
    Forbidden,
    InvalidArgs,
    InvalidId,
    InvalidRequester,
    NewerSchema,
    NotCancellable,
    QueueFull,
)
from arc.actions.kinds import Catalogue, Context, Kind, Outcome, done, failed, running
from arc.actions.records import TRANSITIONS, ActionRecord, HistoryItem, State
from arc.actions.store import MIGRATIONS
from arc.actions.worker import Clocks, EngineOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PING = "agent.replicante.io/test.ping"
LOOP = "agent.replicante.io/test.loop"
DAY_US = 86_400_000_000


@dataclass
class FakeTime:
    now_us: int = 1_700_000_000_000_000
    seconds: float = 1000.0

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.now_us, lambda: self.seconds)

    def pass_s(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)
        self.seconds += seconds


@dataclass
class Rig:
    """Engines on one directory, one after the other, as processes would be."""

    directory: Path
    kinds: list[Kind] = field(default_factory=lambda: testkinds.kinds(with_debug=True))
    time: FakeTime = field(default_factory=FakeTime)
    options: EngineOptions = field(default_factory=EngineOptions)
    engines: list[ActionEngine] = field(default_factory=list)

    def engine(self, *more: Kind, version: str = "1.0.0", **options: Any) -> ActionEngine:
        engine = ActionEngine(
            self.directory,
            [*self.kinds, *more],
            replace(self.options, **options),
            version=version,
            clocks=self.time.clocks(),
        )
        self.engines.append(engine)
        return engine


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    for engine in made.engines:
        engine.stop()


def run(engine: ActionEngine) -> int:
    """Cycles until nothing is waiting; returns how many there were."""
    for cycles in range(10_000):
        if engine.cycle() is None:
            return cycles
    raise AssertionError("the queue never gets empty")


def states(engine: ActionEngine, action_id: str) -> list[str]:
    return [item.state.value for item in engine.get(action_id)[1]]


def kind(name: str, invoke: Callable[[Context], Outcome | None], **rest: Any) -> Kind:
    return Kind(f"example.com/{name}", "For a test", invoke, **rest)


def test_ping_answers_once_per_step(rig: Rig) -> None:
    engine = rig.engine()
    action = engine.schedule(PING, {"count": 3})

    run(engine)

    record, history = engine.get(action.id)
    assert record.state is State.DONE
    assert [len(item.payload or ()) for item in history] == [3, 2, 1, 0]
    assert [item.state for item in history] == [State.DONE, State.RUNNING, State.RUNNING, State.NEW]


def test_actions_run_one_after_the_other_in_the_order_of_scheduling(rig: Rig) -> None:
    engine = rig.engine()
    first, second = engine.schedule(LOOP, {"target": 3}), engine.schedule(LOOP, {"target": 2})

    engine.cycle()

    assert [(each.id, each.state) for each in engine.queue()] == [(first.id, "RUNNING"), (second.id, "NEW")]
    run(engine)
    assert [each.id for each in engine.finished()] == [second.id, first.id]


def test_action_that_runs_goes_first_whatever_the_clock_says(rig: Rig) -> None:
    engine = rig.engine()
    first = engine.schedule(LOOP, {"target": 3})
    engine.cycle()
    rig.time.now_us -= DAY_US
    second = engine.schedule(LOOP, {"target": 3})

    run(engine)

    assert [each.id for each in engine.finished()] == [second.id, first.id]
    assert states(engine, first.id) == ["DONE", "RUNNING", "RUNNING", "NEW"]


def test_newest_event_and_record_always_agree(rig: Rig) -> None:
    engine = rig.engine()
    action = engine.schedule(PING, {"count": 4})

    for _ in range(6):
        record, history = engine.get(action.id)
        assert (history[0].state, history[0].payload) == (record.state, record.payload)
        assert all(item.action_id == action.id for item in history)
        engine.cycle()


def test_what_ended_never_changes_again(rig: Rig) -> None:
    engine = rig.engine()
    action = engine.schedule(PING, None)
    run(engine)
    before = engine.get(action.id)
    engine.schedule(LOOP, {"target": 5})
    run(engine)
    engine.stop()

    assert rig.engine().get(action.id) == before


def test_client_sees_ten_members_and_whole_seconds(rig: Rig) -> None:
    rig.time.now_us = 1_714_979_289_999_999
    engine = rig.engine()
    action = engine.schedule(PING, {}, headers=[("X-Team", "a")])

    waiting = engine.info(action.id)["action"]
    run(engine)
    ended = engine.info(action.id)

    assert waiting == {
        "id": action.id, "kind": PING, "args": {}, "headers": {"x-team": "a"}, "requester": "AGENT_API",
        "created_ts": "2024-05-06T07:08:09Z", "scheduled_ts": "2024-05-06T07:08:09Z", "finished_ts": None,
        "state": "NEW", "state_payload": None,
    }  # fmt: skip
    assert ended["action"]["finished_ts"] == "2024-05-06T07:08:09Z"
    assert ended["history"][-1] == {
        "action_id": action.id, "timestamp": "2024-05-06T07:08:09Z", "state": "NEW", "state_payload": None,
    }  # fmt: skip


def test_fast_action_never_shows_running(rig: Rig) -> None:
    engine = rig.engine()
    action = engine.schedule("agent.replicante.io/test.success", None)

    run(engine)

    assert states(engine, action.id) == ["DONE", "NEW"]


def test_debug_progress_has_empty_payloads(rig: Rig) -> None:
    engine = rig.engine()
    action = engine.schedule("agent.replicante.io/debug.progress", None)

    run(engine)

    assert [(item.state, item.payload) for item in engine.get(action.id)[1]] == [
        ("DONE", None), ("RUNNING", None), ("NEW", None),
    ]  # fmt: skip


@pytest.mark.parametrize(("args", "lines"), [(None, 1), ({}, 1), ({"count": 0}, 1), ({"count": 2}, 2)])
def test_ping_counts(rig: Rig, args: Any, lines: int) -> None:
    engine = rig.engine()
    action = engine.schedule(PING, args)

    run(engine)

    assert len(engine.get(action.id)[0].payload) == lines


@pytest.mark.parametrize(("args", "target"), [(None, 10), ({"target": 3}, 3), ({"target": "x"}, 10), ([], 10)])
def test_loop_counts_to_its_target(rig: Rig, args: Any, target: int) -> None:
    engine = rig.engine()
    action = engine.schedule(LOOP, args)

    run(engine)

    record, history = engine.get(action.id)
    assert record.payload == {"count": target, "target": target}
    assert len(history) == target + 1


def test_step_that_reports_nothing_leaves_no_event_but_the_first(rig: Rig) -> None:
    engine = rig.engine(kind("slow", lambda context: done() if context.attempt == 4 else None))
    action = engine.schedule("example.com/slow", None)

    run(engine)

    assert states(engine, action.id) == ["DONE", "RUNNING", "NEW"]


def test_same_payload_again_is_an_event(rig: Rig) -> None:
    engine = rig.engine(kind("again", lambda context: done() if context.attempt == 3 else running("same")))
    action = engine.schedule("example.com/again", None)

    run(engine)

    assert states(engine, action.id) == ["DONE", "RUNNING", "RUNNING", "NEW"]


def test_pause_only_while_an_action_goes_on(rig: Rig) -> None:
    engine = rig.engine(interval_s=7.0)
    engine.schedule(LOOP, {"target": 2})

    assert engine.cycle() == 7.0
    assert engine.cycle() == 0
    assert engine.cycle() is None


# --- failures


def test_handler_that_raises_fails_its_action_and_the_next_one_runs(rig: Rig) -> None:
    def broken(context: Context) -> Outcome:
        if context.attempt == 1:
            return running({"came": "far"})
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error

    engine = rig.engine(kind("broken", broken))
    action, other = engine.schedule("example.com/broken", None), engine.schedule(PING, None)

    run(engine)

    record = engine.get(action.id)[0]
    assert record.state is State.FAILED
    assert record.payload == {
        "error": "outer", "layers": ["outer", "'inner'"], "trace": None, "variant": "RuntimeError",
        "progress": {"came": "far"},
    }  # fmt: skip
    assert engine.get(other.id)[0].state is State.DONE


def test_handler_may_fail_by_itself_with_a_payload_of_its_own(rig: Rig) -> None:
    engine = rig.engine(kind("no", lambda context: failed({"why": "because"})))
    action = engine.schedule("example.com/no", None)

    run(engine)

    assert engine.get(action.id)[0].payload == {"why": "because"}


@pytest.mark.parametrize(
    ("outcome", "variant"),
    [
        (Outcome(State.NEW), "IllegalTransition"),
        (running("x" * 65_535), "PayloadTooLarge"),
        (running(float("nan")), "ValueError"),
        (running({1, 2}), "TypeError"),
    ],
)
def test_outcome_that_cannot_be_stored_fails_the_action(rig: Rig, outcome: Outcome, variant: str) -> None:
    engine = rig.engine(kind("odd", lambda context: running("before") if context.attempt == 1 else outcome))
    action = engine.schedule("example.com/odd", None)

    run(engine)

    record = engine.get(action.id)[0]
    assert (record.state, record.payload["variant"], record.payload["progress"]) == ("FAILED", variant, "before")


def test_system_exit_of_a_handler_does_not_end_the_thread(rig: Rig) -> None:
    def leave(context: Context) -> Outcome:
        raise SystemExit(3)

    engine = rig.engine(kind("leave", leave))
    action = engine.schedule("example.com/leave", None)

    run(engine)

    assert engine.get(action.id)[0].payload["variant"] == "SystemExit"


def test_states_follow_one_table() -> None:
    live, final = {State.NEW, State.RUNNING}, {State.DONE, State.FAILED}

    assert TRANSITIONS[None] == {State.NEW}
    assert all(TRANSITIONS[state] == {State.RUNNING, *final} for state in live)
    assert all(not TRANSITIONS[state] and state.is_final for state in final)


def test_outcome_that_cannot_be_stored_yet_waits_and_the_handler_is_not_asked_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def count(context: Context) -> Outcome:
        asked.append(context.attempt)
        return done("stored")

    engine = rig.engine(kind("count", count))
    action = engine.schedule("example.com/count", None)
    store_change = engine.store.change
    monkeypatch.setattr(engine.store, "change", _full_disk)

    assert [engine.cycle() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert engine.fault == "database or disk is full"
    monkeypatch.setattr(engine.store, "change", store_change)
    run(engine)

    assert engine.fault is None
    assert asked == [1]
    assert engine.get(action.id)[0].payload == "stored"


def _full_disk(*args: Any) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_deadline_gives_a_last_chance_and_then_fails(rig: Rig) -> None:
    seen: list[str | None] = []

    def endless(context: Context) -> Outcome:
        seen.append(context.cancel_reason)
        return running()

    engine = rig.engine(kind("endless", endless, deadline_s=2))
    action = engine.schedule("example.com/endless", None)
    engine.cycle()
    rig.time.pass_s(1.5)
    engine.cycle()
    engine.stop()
    rig.time.pass_s(1.0)  # while no process runs; the clock went forward
    engine = rig.engine(kind("endless", endless, deadline_s=2))

    engine.cycle()

    assert seen == [None, None, "the time is over"]
    assert engine.get(action.id)[0].payload["variant"] == "Deadline"


def test_time_inside_of_steps_counts_too(rig: Rig) -> None:
    seen: list[float] = []

    def slow(context: Context) -> Outcome:
        seen.append(context.running_s)
        rig.time.pass_s(2)
        return running()

    engine = rig.engine(kind("slow", slow))
    engine.schedule("example.com/slow", None)
    for _ in range(3):
        engine.cycle()
        rig.time.pass_s(1)

    assert seen == [0, 3, 6]


def test_history_keeps_its_first_and_its_last_events(rig: Rig) -> None:
    engine = rig.engine(history_max=10)
    action = engine.schedule(PING, {"count": 30})

    run(engine)

    history = engine.get(action.id)[1]
    assert len(history) == 10
    assert [item.state for item in history] == ["DONE", *["RUNNING"] * 8, "NEW"]
    assert [len(item.payload or ()) for item in history] == [30, *range(29, 21, -1), 0]


# --- processes that die


def die_once(deaths: int) -> Callable[[Context], Outcome]:
    """Dies in its first steps; BaseException goes through the engine as the death of the process would."""

    def invoke(context: Context) -> Outcome:
        if context.attempt <= deaths:
            raise _Death
        return done({"attempt": context.attempt, "recovered": context.is_recovered})

    return invoke


class _Death(BaseException):
    """The process ends here."""


def crash(engine: ActionEngine) -> None:
    with pytest.raises(_Death):
        engine.cycle()
    engine.stop()


def test_step_in_which_the_process_died_is_repeated_with_a_mark(rig: Rig) -> None:
    dying = kind("dying", die_once(1))
    engine = rig.engine(dying)
    action = engine.schedule("example.com/dying", None)
    crash(engine)

    engine = rig.engine(dying)
    assert engine.get(action.id)[0].is_begun
    run(engine)

    assert engine.get(action.id)[0].payload == {"attempt": 2, "recovered": True}


def test_kind_that_cannot_be_repeated_fails_instead(rig: Rig) -> None:
    dying = kind("dying", die_once(1), on_crash="fail")
    engine = rig.engine(dying)
    action = engine.schedule("example.com/dying", None)
    crash(engine)

    engine = rig.engine(dying)
    run(engine)

    assert engine.get(action.id)[0].payload["variant"] == "Interrupted"


def test_action_that_kills_each_process_is_given_up(rig: Rig) -> None:
    dying = kind("dying", die_once(99))
    engine = rig.engine(dying)
    action, other = engine.schedule("example.com/dying", None), engine.schedule(PING, None)
    for _ in range(4):
        crash(engine)
        engine = rig.engine(dying)

    run(engine)

    assert engine.get(action.id)[0].payload["variant"] == "ActionCrashed"
    assert engine.get(other.id)[0].state is State.DONE


def test_kind_that_is_gone_fails_its_action(rig: Rig) -> None:
    engine = rig.engine(kind("gone", lambda context: done()))
    action = engine.schedule("example.com/gone", None)
    engine.stop()

    engine = rig.engine()
    run(engine)

    assert engine.get(action.id)[0].payload["variant"] == "ActionNotAvailable"


def test_arguments_are_checked_again_by_another_version(rig: Rig) -> None:
    strict = {"type": "object", "properties": {"size": {"type": "integer"}}}
    engine = rig.engine(kind("picky", lambda context: done()))
    action = engine.schedule("example.com/picky", {"size": "big"})
    engine.stop()

    engine = rig.engine(kind("picky", lambda context: done(), args=strict), version="2.0.0")
    run(engine)

    assert engine.get(action.id)[0].payload["variant"] == "InvalidArgs"


def test_follow_up_comes_when_the_record_is_on_disk(rig: Rig) -> None:
    seen: list[str] = []

    def step(context: Context) -> Outcome:
        return done(then=lambda: seen.append(engine.get(context.id)[0].state))

    engine = rig.engine(kind("then", step))
    engine.schedule("example.com/then", None)

    run(engine)

    assert seen == ["DONE"]


def test_follow_up_that_fails_fails_the_action(rig: Rig) -> None:
    def refuse() -> None:
        raise OSError("no")

    engine = rig.engine(kind("then", lambda context: running("asked", then=refuse)))
    action = engine.schedule("example.com/then", None)

    run(engine)

    record = engine.get(action.id)[0]
    assert (record.payload["error"], record.payload["progress"]) == ("no", "asked")


def test_counters_tell_what_was_done(rig: Rig) -> None:
    engine = rig.engine(kind("gone", lambda context: done()))
    engine.schedule("example.com/gone", None)
    engine.stop()
    engine = rig.engine(kind("no", lambda context: failed()))
    engine.schedule(LOOP, {"target": 3})
    engine.schedule("example.com/no", None)
    engine.cancel(engine.schedule(PING, None).id)

    run(engine)

    assert engine.counters.invocations == {LOOP: 3, "example.com/no": 1}
    assert set(engine.counters.seconds) == {LOOP, "example.com/no"}
    assert engine.counters.finished == {
        ("_unknown", "FAILED", "ActionNotAvailable"): 1,
        (LOOP, "DONE", ""): 1,
        ("example.com/no", "FAILED", ""): 1,
        (PING, "FAILED", "Cancelled"): 1,
    }
    assert engine.counters.last_cycle_at == rig.time.now_us


# --- what is refused


def test_wrong_arguments_are_refused_and_nothing_is_stored(rig: Rig) -> None:
    engine = rig.engine()

    with pytest.raises(InvalidArgs, match="integer from 0 to 1000") as caught:
        engine.schedule(PING, {"count": "x"}, action_id=str(uuid.UUID(int=1)))

    assert caught.value.details["path"] == "args.count"
    assert engine.queue() == []
    engine.schedule(PING, None, action_id=str(uuid.UUID(int=1)))  # the id was not used up


@pytest.mark.parametrize("name", ["agent.replicante.io/none", "test.ping", f"{PING}/"])
def test_unknown_kind(rig: Rig, name: str) -> None:
    with pytest.raises(ActionNotAvailable):
        rig.engine().schedule(name, None)


@pytest.mark.parametrize("args", [[1, 2], "x", 7, True, None, {"args": {"a": 1}, "action_id": "x"}])
def test_any_json_is_kept_where_any_is_allowed(rig: Rig, args: Any) -> None:
    engine = rig.engine()

    action = engine.schedule("agent.replicante.io/test.success", args)

    assert engine.get(action.id)[0].args == args


def test_id_of_the_caller_counts_once(rig: Rig) -> None:
    engine = rig.engine()
    wanted = "0B8F4D0E-6C1C-4D55-9F0B-3F2B7F6B1C11"
    action = engine.schedule(PING, {"count": 2}, action_id=wanted)

    with pytest.raises(ActionAlreadyExists) as caught:
        engine.schedule(PING, {"count": 7}, action_id=wanted.lower())

    assert action.id == wanted.lower()
    assert caught.value.details == {"existing": {"id": action.id, "kind": PING, "state": "NEW"}}
    assert engine.get(wanted)[0].args == {"count": 2}


def test_known_id_is_told_even_when_the_queue_is_full(rig: Rig) -> None:
    engine = rig.engine(queue_max=1)
    action = engine.schedule(PING, None)

    with pytest.raises(ActionAlreadyExists):
        engine.schedule(PING, None, action_id=action.id)


def test_full_queue_refuses_until_one_has_ended(rig: Rig) -> None:
    engine = rig.engine(queue_max=2)
    engine.schedule(PING, None)
    engine.schedule(PING, None)

    with pytest.raises(QueueFull) as caught:
        engine.schedule(PING, None)

    assert caught.value.retry_after_s == 5
    engine.cycle()
    assert engine.schedule(PING, None).state is State.NEW


@pytest.mark.parametrize("text", ["x", "0b8f4d0e6c1c4d559f0b3f2b7f6b1c11", "{0b8f4d0e-6c1c-4d55-9f0b-3f2b7f6b1c11}"])
def test_malformed_id(rig: Rig, text: str) -> None:
    with pytest.raises(InvalidId):
        rig.engine().schedule(PING, None, action_id=text)


def test_requesters(rig: Rig) -> None:
    engine = rig.engine()

    assert engine.schedule(PING, None, requester="API").requester == "AGENT_API"
    assert engine.schedule(PING, None, requester="CORE_PLAYBOOK").requester == "CORE_PLAYBOOK"
    with pytest.raises(InvalidRequester):
        engine.schedule(PING, None, requester="FOO")
    with pytest.raises(Forbidden):
        engine.schedule(PING, None, requester="CORE_API", may_claim=False)


@pytest.mark.parametrize("action_id", ["abc", str(uuid.UUID(int=5)), ""])
def test_unknown_action(rig: Rig, action_id: str) -> None:
    with pytest.raises(ActionNotFound):
        rig.engine().get(action_id)


@pytest.mark.parametrize("text", ["2020-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_time_of_creation_may_be_any(rig: Rig, text: str) -> None:
    engine = rig.engine()

    action = engine.schedule(PING, None, created_us=rules.created_us(text))

    assert engine.info(action.id)["action"]["created_ts"] == text
    assert action.scheduled_at == rig.time.now_us


def test_cooldown_refuses_too_early_a_repetition(rig: Rig) -> None:
    engine = rig.engine(kind("rare", lambda context: done(), cooldown_s=600))
    first = engine.schedule("example.com/rare", None)
    rig.time.pass_s(599)

    with pytest.raises(InvalidArgs, match="600 s"):
        engine.schedule("example.com/rare", None)
    with pytest.raises(ActionAlreadyExists):
        engine.schedule("example.com/rare", None, action_id=first.id)
    rig.time.pass_s(1)

    assert engine.schedule("example.com/rare", None).state is State.NEW


def test_cooldown_is_not_about_what_was_done_elsewhere(rig: Rig) -> None:
    engine = rig.engine(kind("rare", lambda context: done(), cooldown_s=600))
    record, history = elsewhere(1)
    engine.store.add_ended([(replace(record, kind="example.com/rare", scheduled_at=rig.time.now_us), history)])

    assert engine.schedule("example.com/rare", None).state is State.NEW


# --- cancel


def test_waiting_action_is_cancelled_at_once(rig: Rig) -> None:
    engine = rig.engine()
    action = engine.schedule(PING, None)

    engine.cancel(action.id, "not needed")

    record, history = engine.get(action.id)
    assert (record.state, record.payload["variant"]) == ("FAILED", "Cancelled")
    assert "not needed" in history[0].payload["error"]
    assert engine.cycle() is None
    with pytest.raises(ActionFinished):
        engine.cancel(action.id)


def test_running_action_is_asked_where_its_kind_can_stop(rig: Rig) -> None:
    def patient(context: Context) -> Outcome | None:
        return failed({"cancelled": context.cancel_reason}) if context.cancel_reason else None

    engine = rig.engine(kind("patient", patient, is_cancellable=True))
    action, other = engine.schedule("example.com/patient", None), engine.schedule(LOOP, {"target": 2})
    engine.cycle()

    assert engine.cancel(action.id, "enough").state is State.RUNNING
    engine.cycle()
    assert engine.get(action.id)[0].payload == {"cancelled": "enough"}
    engine.cycle()
    with pytest.raises(NotCancellable):
        engine.cancel(other.id)


# --- clean-up


def fill(engine: ActionEngine, count: int) -> list[str]:
    ids = [engine.schedule("agent.replicante.io/test.success", None).id for _ in range(count)]
    run(engine)
    return ids


def test_clean_up_takes_the_oldest_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arc.actions.worker.PRUNE_LIMIT", 5)
    engine = rig.engine(keep=4)
    ids = fill(engine, 12)
    waiting = engine.schedule(PING, None)

    assert engine.prune() == 5
    assert [each.id for each in engine.finished()] == ids[:4:-1]
    assert engine.prune() == 3
    assert engine.prune() == 0
    assert [each.id for each in engine.finished()] == ids[:7:-1]
    assert engine.get(waiting.id)[0].state is State.NEW
    with sqlite3.connect(engine.store.path) as database:
        (events,) = database.execute("SELECT count(*) FROM history").fetchone()
    database.close()
    assert events == 4 * 2 + 1


def test_clean_up_comes_at_the_start_and_every_hour(rig: Rig) -> None:
    engine = rig.engine(keep=1)
    fill(engine, 3)
    assert len(engine.finished()) == 3  # it came before there was anything to clean up

    rig.time.pass_s(3600)
    engine.cycle()

    assert len(engine.finished()) == 1


def test_id_of_a_deleted_action_counts_as_used_for_a_while(rig: Rig) -> None:
    engine = rig.engine(keep=1, id_memory_days=30)
    old, _ = fill(engine, 2)
    engine.prune()

    with pytest.raises(ActionAlreadyExists) as caught:
        engine.schedule(PING, None, action_id=old)
    assert caught.value.details["existing"] == {"id": old, "kind": "agent.replicante.io/test.success", "state": None}
    rig.time.now_us += 30 * DAY_US
    engine.prune()

    assert engine.schedule(PING, None, action_id=old).id == old


def test_clean_up_spares_what_a_copy_does_not_have_yet(rig: Rig) -> None:
    engine = rig.engine(keep=2)
    ids = fill(engine, 6)
    number, _ = engine.changed_since(0, limit=3)
    engine.acknowledge(number)

    engine.prune()
    assert [each.id for each in engine.finished()] == ids[:2:-1]

    ids += fill(engine, 22)
    engine.prune()
    assert [each.id for each in engine.finished()] == ids[:7:-1]  # never more than ten times as many
    engine.acknowledge(engine.changed_since(number)[0])
    engine.prune()
    assert [each.id for each in engine.finished()] == ids[:25:-1]


def test_copy_follows_all_changes(rig: Rig) -> None:
    engine = rig.engine()
    first, second = engine.schedule(LOOP, {"target": 2}), engine.schedule(PING, None)

    number, found = engine.changed_since(0)
    assert [(copy["seq"], copy["info"]["action"]["id"]) for copy in found] == [(1, first.id), (2, second.id)]
    engine.cycle()
    number, found = engine.changed_since(number)
    assert [copy["info"] for copy in found] == [engine.info(first.id)]
    run(engine)
    number, found = engine.changed_since(number, limit=1)
    assert [copy["info"] for copy in found] == [engine.info(first.id)]
    number, found = engine.changed_since(number, limit=1)
    assert [copy["info"] for copy in found] == [engine.info(second.id)]
    assert engine.changed_since(number) == (number, [])


def test_pages_of_what_has_ended(rig: Rig) -> None:
    engine = rig.engine()
    ids = fill(engine, 7)

    first = engine.finished(3)
    rest = engine.finished(10, before=first[-1].id)

    assert [each.id for each in first + rest] == ids[::-1]
    assert engine.store.finished_count() == 7


# --- what ended elsewhere


def elsewhere(number: int, events: int = 2) -> tuple[ActionRecord, list[HistoryItem]]:
    action_id = str(uuid.UUID(int=number))
    record = ActionRecord(
        action_id, "x/y", None, 1, 1, 1, {}, "AGENT_API", finished_at=1, state=State.DONE, revision=events
    )
    states = [State.DONE, *[State.RUNNING] * (events - 2), State.NEW]
    return record, [HistoryItem(action_id, 1, state, None) for state in states]


def test_actions_that_ended_elsewhere_come_before_all_others(rig: Rig) -> None:
    engine = rig.engine(keep=3, history_max=10)
    ours, waiting = fill(engine, 1)[0], engine.schedule(PING, None)

    assert engine.store.add_ended([elsewhere(1), elsewhere(2, events=30), elsewhere(1, events=3)]) == 2
    assert engine.store.add_ended([elsewhere(3), elsewhere(2)]) == 1

    listed = [each.id for each in engine.finished()]
    assert listed == [ours, *(str(uuid.UUID(int=number)) for number in (2, 1, 3))]
    assert states(engine, listed[1]) == ["DONE", *["RUNNING"] * 8, "NEW"]
    assert states(engine, listed[2]) == ["DONE", "NEW"]
    run(engine)
    assert engine.get(waiting.id)[0].state is State.DONE
    assert engine.prune() == 2
    assert engine.store.add_ended([elsewhere(3)]) == 0  # it was here and is deleted


# --- files and threads


def test_newer_schema_is_not_touched(rig: Rig, tmp_path: Path) -> None:
    rig.engine().stop()
    with sqlite3.connect(tmp_path / "actions.db") as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()

    with pytest.raises(NewerSchema):
        rig.engine()


def test_file_belongs_to_its_owner_only(rig: Rig) -> None:
    assert os.stat(rig.engine().store.path).st_mode & 0o777 == 0o600


def test_second_engine_of_a_directory_only_reads(rig: Rig) -> None:
    first, second = rig.engine(), rig.engine()
    assert first.start()
    action = first.schedule(PING, None)

    assert not second.start()

    with pytest.raises(EngineElsewhere):
        second.schedule(PING, None)
    assert second.get(action.id)[0].kind == PING
    first.stop()
    assert rig.engine().start()


def wait_until_idle(engine: ActionEngine, action_id: str) -> None:
    """Until this action has ended."""
    record = engine.get(action_id)[0]
    while not record.state.is_final:
        assert engine.wait_for_change(action_id, record.revision, 20), "the action does not come forward"
        record = engine.get(action_id)[0]


def test_thread_wakes_up_for_a_new_action_and_hurries_through_quick_ones(rig: Rig) -> None:
    engine = rig.engine(interval_s=3600.0)
    engine.start()

    ids = [engine.schedule("agent.replicante.io/test.success", None).id for _ in range(20)]
    wait_until_idle(engine, ids[-1])

    assert [each.id for each in engine.finished()] == ids[::-1]


def test_many_callers_schedule_at_once(rig: Rig) -> None:
    engine = rig.engine()
    made: list[tuple[int, str]] = []

    def schedule() -> None:
        for _ in range(10):
            record = engine.schedule("agent.replicante.io/test.success", None)
            made.append((record.seq, record.id))

    callers = [threading.Thread(target=schedule) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert [each.id for each in engine.queue()] == [action_id for _, action_id in sorted(made)]
    assert len({seq for seq, _ in made}) == 80


def test_one_id_at_once_makes_one_action(rig: Rig) -> None:
    engine = rig.engine()
    outcomes: list[str] = []

    def schedule() -> None:
        try:
            engine.schedule(PING, None, action_id=str(uuid.UUID(int=7)))
            outcomes.append("scheduled")
        except ActionAlreadyExists:
            outcomes.append("known")

    callers = [threading.Thread(target=schedule) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert sorted(outcomes) == ["known"] * 19 + ["scheduled"]
    assert len(engine.queue()) == 1


def test_stop_waits_for_the_step_and_takes_no_more(rig: Rig) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(context: Context) -> Outcome:
        entered.set()
        leave.wait(20)
        return running("stored")

    engine = rig.engine(kind("slow", slow))
    action, other = engine.schedule("example.com/slow", None), engine.schedule(PING, None)
    engine.start()
    assert entered.wait(20)
    assert [each.state for each in engine.queue()] == ["NEW", "NEW"]  # a read does not wait for the step

    stopping = threading.Thread(target=engine.stop, args=(20,))
    stopping.start()
    assert engine.wait_for_change(action.id, action.revision, 20)  # a waiting caller is let go
    with pytest.raises(Draining):
        engine.schedule(PING, None)
    leave.set()
    stopping.join()

    engine = rig.engine(kind("slow", slow))
    assert engine.get(action.id)[0].payload == "stored"
    assert engine.get(other.id)[0].state is State.NEW


def test_observer_sees_each_change_and_cannot_break_it(tmp_path: Path) -> None:
    seen: list[str] = []

    def observe(record: Any) -> None:
        seen.append(record.state)
        raise RuntimeError("observer")

    engine = ActionEngine(tmp_path, testkinds.kinds(), on_change=observe)
    engine.schedule(LOOP, {"target": 2})

    run(engine)
    engine.stop()

    assert seen == ["NEW", "RUNNING", "DONE"]


# --- other kinds and options while it runs


def test_replaced_kinds_and_options_count_at_once(rig: Rig) -> None:
    old, new = kind("old", lambda context: done()), kind("new", lambda context: done("new"))
    engine = rig.engine(old)
    waiting = engine.schedule(old.name, None)

    engine.replace(Catalogue([*rig.kinds, new]), replace(engine.options, queue_max=1, header_deny=["x-team"]))

    with pytest.raises(ActionNotAvailable):
        engine.schedule(old.name, None)
    with pytest.raises(QueueFull):
        engine.schedule(new.name, None)
    run(engine)
    assert engine.get(waiting.id)[0].payload["variant"] == "ActionNotAvailable"
    action = engine.schedule(new.name, None, headers=[("X-Team", "a"), ("X-Site", "b")])
    run(engine)
    assert engine.get(action.id)[0].payload == "new"
    assert action.headers == {"x-site": "b"}


def test_action_that_runs_goes_on_under_replaced_options(rig: Rig) -> None:
    engine = rig.engine()
    action = engine.schedule(LOOP, {"target": 20})
    assert engine.cycle() == 1.0

    engine.replace(engine.catalogue, replace(engine.options, interval_s=5.0, history_max=10))

    assert engine.cycle() == 5.0
    run(engine)
    assert engine.get(action.id)[0].payload == {"count": 20, "target": 20}
    assert len(states(engine, action.id)) == 10
