"""Actions and the death of their process: kill -9 at random moments, and restarts that an action asks for.

ARC_ACTION_KILLS: how often the process is killed (default 5).
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from arc.actions import nodekinds
from arc.actions.engine import ActionEngine
from arc.actions.host import Host
from arc.actions.store import ActionStore
from tests.integration.actions_driver import COUNT, STAGES, action_id
from tests.integration.server import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc.actions.records import ActionRecord, HistoryItem

KILLS = int(os.environ.get("ARC_ACTION_KILLS", "5"))
STAGE_S = 0.002 + 0.0005 * KILLS  # so that the work outlasts the kills
ROOT = Path(__file__).parents[2]

Done = set[tuple[int, str]]  # stages, each with the number of its action


@contextmanager
def driver(*args: object) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "tests.integration.actions_driver", *map(str, args)]
    process = subprocess.Popen(argv, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def opened(directory: Path) -> Iterator[ActionStore]:
    store = ActionStore(directory)
    try:
        yield store
    finally:
        store.close()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def done_stages(history: list[HistoryItem]) -> list[str]:
    """In the order in which they reported it."""
    events = [item.payload for item in reversed(history) if item.payload]
    return [STAGES[payload["stage"]] for payload in events if payload["state"] == "DONE"]


def reported_done(store: ActionStore, count: int) -> Done:
    return {(index, stage) for index in range(count) for stage in done_stages(store.get(action_id(index))[1])}


def test_killed_engine_repeats_no_stage_and_loses_nothing(tmp_path: Path) -> None:
    rng = random.Random(20240506)
    log = tmp_path / "log"
    before: list[tuple[int, Done]] = []  # per kill: lines of the log, and what had reported done by then

    for _ in range(KILLS):
        with driver("work", tmp_path, STAGE_S) as process:
            known = len(lines(log))
            wait_until(lambda known=known: len(lines(log)) > known, "a stage runs")  # type: ignore[misc]
            time.sleep(rng.uniform(0, 1.2 * COUNT * len(STAGES) * STAGE_S / KILLS))  # any moment
            process.kill()
            process.wait()
        acknowledged = len(lines(tmp_path / "acknowledged"))
        with opened(tmp_path) as store:
            before.append((len(lines(log)), reported_done(store, acknowledged)))
            assert store.queue(), "the work is over before the last kill"
    with driver("work", tmp_path, STAGE_S) as process:
        assert process.wait(120) == 0

    ran = [(int(index), stage) for index, stage in map(str.split, lines(log))]
    assert ran == sorted(ran), "the order was not kept"
    assert set(ran) == set(itertools.product(range(COUNT), STAGES))
    assert len(ran) - len(set(ran)) <= KILLS, "a kill repeats one stage at most"
    for count, finished in before:
        assert not finished & set(ran[count:]), "a stage that had reported done ran again"
    with opened(tmp_path) as store:
        assert store.queue() == []
        assert [each.id for each in store.finished(COUNT)] == [action_id(i) for i in reversed(range(COUNT))]
        for index in range(COUNT):
            check_history(*store.get(action_id(index)))


def check_history(record: ActionRecord, history: list[HistoryItem]) -> None:
    """Complete and monotonic: NEW, each stage once, DONE."""
    assert [item.state for item in history] == ["DONE", *["RUNNING"] * (len(STAGES) - 1), "NEW"]
    assert done_stages(history) == list(STAGES)
    assert all(newer.at >= older.at for newer, older in itertools.pairwise(history))
    assert record.state == "DONE"


@pytest.mark.parametrize("how", ["exec", "spawn"])
def test_restart_of_itself_ends_done_with_both_processes_in_its_history(tmp_path: Path, how: str) -> None:
    outside = ActionEngine(tmp_path, nodekinds.kinds(Host(restart=_never)))
    action = outside.schedule("arc.edge/agent.restart", {"delay_s": 0})
    try:
        with driver(how, tmp_path) as first:
            wait_until(lambda: outside.get(action.id)[0].state.is_final, "the action has ended")
            record, history = outside.get(action.id)
            found = record.payload["payload"]
            wait_until(lambda: first.poll() is not None and not psutil.pid_exists(found["new_pid"]), "both end")
    finally:
        outside.stop()

    assert record.state == "DONE"
    assert found["old_pid"] == first.pid
    assert (found["new_pid"] == first.pid) == (how == "exec")
    assert found["old_instance"] != found["new_instance"]
    assert found["old_instance"].startswith(f"{first.pid}-")
    assert [item.state for item in history] == ["DONE", "RUNNING", "RUNNING", "NEW"]
    assert first.returncode == 0


def _never() -> None:
    raise AssertionError("the engine of the test does not work")
