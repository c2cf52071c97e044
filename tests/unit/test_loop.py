"""PeriodicLoop: passes, wake-ups, failures, the stop."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    import pytest

WAIT_S = 10.0  # longest a test waits for a pass


class Counting(PeriodicLoop):
    """Counts its passes; fails in the first when told to."""

    name = "counting"

    def __init__(self, interval_s: float, *, fails_first: bool = False) -> None:
        super().__init__(interval_s)
        self.passes = 0
        self.fails_first = fails_first
        self.has_passed = threading.Semaphore(0)

    def step(self, now_us: int) -> int:
        self.passes += 1
        self.has_passed.release()
        if self.fails_first and self.passes == 1:
            raise ValueError("bad pass")
        return 1


def test_passes_repeat() -> None:
    loop = Counting(0.001)
    loop.start()

    assert loop.has_passed.acquire(timeout=WAIT_S)
    assert loop.has_passed.acquire(timeout=WAIT_S)

    loop.stop()


def test_wake_does_not_wait_for_the_interval() -> None:
    loop = Counting(3600)
    loop.start()

    loop.wake()

    assert loop.has_passed.acquire(timeout=WAIT_S)
    loop.stop()


def test_failed_pass_is_logged_and_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    loop = Counting(0.001, fails_first=True)
    with caplog.at_level(logging.ERROR):
        loop.start()
        assert loop.has_passed.acquire(timeout=WAIT_S)
        assert loop.has_passed.acquire(timeout=WAIT_S)
        loop.stop()

    assert "counting: pass failed" in caplog.text


def test_stop_ends_the_thread_and_may_be_repeated() -> None:
    loop = Counting(3600)
    loop.start()
    assert loop.is_running

    loop.stop()
    loop.stop()

    assert not loop.is_running
    assert loop.passes == 0


def test_stop_before_the_start_is_harmless() -> None:
    loop = Counting(1)

    loop.stop()

    assert not loop.is_running
