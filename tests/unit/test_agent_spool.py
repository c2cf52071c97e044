"""Spool and journal: order, numbers, bounds, what survives a restart."""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from arc import clock
from arc.agent import journal as journals
from arc.agent.journal import Journal
from arc.agent.spool import Spool, SpoolFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MB = 2**20


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "spool.db")


@pytest.fixture
def spool(path: str) -> Iterator[Spool]:
    spool = Spool(path, "edge-1", MB)
    yield spool
    spool.close()


def waiting(spool: Spool) -> list[tuple[int, dict[str, Any]]]:
    return [(seq, json.loads(body)) for seq, body in spool.batch(100 * MB, 100_000)]


def test_messages_wait_in_order_until_they_are_confirmed(spool: Spool) -> None:
    for number in range(5):
        spool.append("reply", {"number": number})

    spool.acknowledge(2)

    assert waiting(spool) == [(seq, {"type": "reply", "number": seq - 1}) for seq in (3, 4, 5)]


def test_batch_is_bounded_but_never_empty(spool: Spool) -> None:
    for _ in range(5):
        spool.append("reply", {"payload": "x" * 1000})

    assert len(spool.batch(2500, 100)) == 2
    assert len(spool.batch(10, 100)) == 1
    assert len(spool.batch(MB, 3)) == 3


def test_restart_keeps_messages_epoch_and_numbers(spool: Spool, path: str) -> None:
    spool.append("reply", {"number": 1})
    spool.append("reply", {"number": 2})
    spool.acknowledge(2)
    epoch = spool.epoch
    spool.close()

    again = Spool(path, "edge-1", MB)
    again.append("reply", {"number": 3})

    assert again.epoch == epoch
    assert waiting(again) == [(3, {"type": "reply", "number": 3})]  # not 1: the server has seen that
    again.close()


def test_another_identity_starts_with_an_empty_spool(spool: Spool, path: str) -> None:
    spool.append("reply", {"number": 1})
    spool.close()

    other = Spool(path, "edge-2", MB)

    assert waiting(other) == []
    assert other.epoch != spool.epoch
    other.close()


def test_damaged_spool_is_put_aside(path: str, tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"this is no database at all" * 1000)

    spool = Spool(path, "edge-1", MB)
    spool.append("reply", {})

    assert len(waiting(spool)) == 1
    assert (tmp_path / "spool.db.old").exists()
    spool.close()


def test_damage_inside_the_file_is_found_at_the_start(spool: Spool, path: str) -> None:
    for _ in range(100):
        spool.append("reply", {"payload": "x" * 10_000})
    spool.close()
    with open(path, "r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xff" * 4096 * 20)

    again = Spool(path, "edge-1", MB)

    assert waiting(again) == []
    again.close()


def test_lost_messages_begin_a_new_epoch(spool: Spool, path: str) -> None:
    spool.append("reply", {})
    spool.acknowledge(1)
    spool.close()
    again = Spool(path, "edge-1", MB)
    epoch = again.epoch

    again.append("reply", {})
    again.check_epoch(1)
    assert again.epoch == epoch
    again.check_epoch(2)  # the server knows one more than the file did when it was opened

    assert again.epoch != epoch
    assert again.note("epoch") == again.epoch
    again.close()


def test_full_spool_drops_the_oldest_metrics_first_and_replies_never(spool: Spool) -> None:
    for number in range(12):
        spool.append("metrics", {"lines": "x" * 100_000, "number": number})
    assert min(message["number"] for _, message in waiting(spool)) > 0

    for _ in range(11):
        assert spool.has_room
        spool.append("reply", {"payload": "y" * 100_000})
    spool.append("metrics", {"lines": "z" * 100_000})

    assert [message["type"] for _, message in waiting(spool)] == ["reply"] * 11
    assert not spool.has_room
    spool.acknowledge(waiting(spool)[3][0])
    assert spool.has_room


def test_size_is_counted_again_after_a_restart(spool: Spool, path: str) -> None:
    for _ in range(11):
        spool.append("reply", {"payload": "y" * 100_000})
    spool.close()

    again = Spool(path, "edge-1", MB)

    assert not again.has_room
    again.close()


def test_failed_write_is_told_and_leaves_nothing(spool: Spool, path: str) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("DROP TABLE messages")
    other.close()

    with pytest.raises(SpoolFailed, match="cannot be written"):
        Journal(spool).accept("one", "rpc", "ping")
    assert Journal(spool).unfinished() == []


def test_text_that_is_no_unicode_is_sent_as_well_as_it_can_be(spool: Spool) -> None:
    spool.append("reply", {"payload": "\ud800 €"})

    assert waiting(spool)[0][1]["payload"] == "? €"


def test_waiter_wakes_for_what_is_due_and_for_the_end(spool: Spool) -> None:
    stop, woken = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        while not stop.is_set():
            spool.wait_due(stop)
            woken.release()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert woken.acquire(timeout=5)  # what a former process left is due at once

    spool.append("reply", {}, delay_s=0.05)
    assert woken.acquire(timeout=5)
    stop.set()
    spool.wake()
    waiter.join(5)

    assert not waiter.is_alive()


def test_request_is_accepted_once(spool: Spool) -> None:
    journal = Journal(spool)

    assert journal.accept("one", "rpc", "ping")
    assert not journal.accept("one", "rpc", "ping")

    assert [message["request_ids"] for _, message in waiting(spool)] == [["one"], ["one"]]


def test_replies_are_numbered_from_1_and_end_with_the_final_one(spool: Spool) -> None:
    journal = Journal(spool)
    journal.accept("one", "rpc", "ping")

    for state, is_final in (("executing", False), ("executing", False), ("complete", True), ("failed", True)):
        journal.reply("one", {"state": state}, is_final=is_final)

    replies = [message for _, message in waiting(spool) if message["type"] == "reply"]
    assert [(reply["number"], reply["state"], reply["final"]) for reply in replies] == [
        (1, "executing", False),
        (2, "executing", False),
        (3, "complete", True),
    ]


def test_unfinished_executions_are_known_with_their_process(spool: Spool) -> None:
    journal = Journal(spool)
    for request_id in ("one", "two"):
        journal.accept(request_id, "execute", "script")
    journal.started("one", 42, "boot 7")
    journal.reply("two", {}, is_final=True)

    assert journal.unfinished() == [("one", "execute", "script", 42, "boot 7")]


def test_journal_forgets_what_ended_a_day_ago(spool: Spool) -> None:
    journal = Journal(spool)
    for request_id in ("ended", "runs"):
        journal.accept(request_id, "rpc", "ping")
    journal.reply("ended", {}, is_final=True)

    journal.prune(clock.now_us() + journals.KEPT_US - 60 * clock.US_PER_S)
    assert not journal.accept("ended", "rpc", "ping")
    journal.prune(clock.now_us() + journals.KEPT_US + clock.US_PER_S)

    assert journal.accept("ended", "rpc", "ping")
    assert not journal.accept("runs", "rpc", "ping")
