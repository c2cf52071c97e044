"""Hub: who waits for work, who is woken, who is sent away."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import pytest

from arc.fleet import hub
from arc.fleet.hub import MIN_RETRY_S, Hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Polls:
    """Polls in threads of their own, over boxes of messages."""

    def __init__(self, slots: int = 2, online: int = 0) -> None:
        self.hub: Hub[str] = Hub(slots, 20.0, lambda: online)
        self.boxes: dict[str, deque[str]] = {}
        self.answers: list[tuple[str, list[str], float]] = []
        self._threads: list[threading.Thread] = []

    def put(self, agent_id: str, message: str) -> None:
        self.boxes.setdefault(agent_id, deque()).append(message)
        self.hub.wake(agent_id)

    def fetch(self, agent_id: str) -> list[str]:
        box = self.boxes.setdefault(agent_id, deque())
        return [box.popleft() for _ in range(len(box))]

    def now(self, agent_id: str, timeout_s: float = 0.0, is_gone: Callable[[], bool] = bool) -> tuple[list[str], float]:
        return self.hub.wait(agent_id, timeout_s, lambda: self.fetch(agent_id), is_gone)

    def start(self, agent_id: str) -> None:
        """A poll that waits when this returns."""
        before = self.hub.waiting

        def run() -> None:
            self.answers.append((agent_id, *self.now(agent_id, 30.0)))

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        self.until(lambda: self.hub.waiting > before or self.answers)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def close(self) -> None:
        self.hub.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def polls() -> Iterator[Polls]:
    made = Polls()
    yield made
    made.close()


def test_waiting_poll_is_woken_by_its_message(polls: Polls) -> None:
    polls.start("a")

    polls.put("b", "for another")
    polls.put("a", "ping")

    polls.until(lambda: polls.answers)
    assert polls.answers == [("a", ["ping"], 0.0)]
    assert polls.hub.waiting == 0


def test_message_that_is_there_already_is_answered_at_once(polls: Polls) -> None:
    polls.put("a", "ping")

    assert polls.now("a", 30.0) == (["ping"], 0.0)


def test_poll_ends_empty_at_its_time_limit(polls: Polls) -> None:
    assert polls.now("a", 0.01) == ([], 0.0)


def test_poll_of_a_client_that_is_gone_ends(polls: Polls) -> None:
    messages, _ = polls.now("a", 30.0, is_gone=lambda: True)

    assert messages == []


def test_client_that_goes_while_it_waits_is_handed_nothing(polls: Polls) -> None:
    gone = threading.Event()
    poll = threading.Thread(target=polls.now, args=("a", 30.0, gone.is_set), daemon=True)
    poll.start()
    polls.until(lambda: polls.hub.waiting)

    gone.set()
    polls.put("a", "ping")

    poll.join(5)
    assert polls.now("a") == (["ping"], 0.0)


def test_poll_looks_again_for_what_its_predecessor_lost(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LOOK_S", 0.01)
    monkeypatch.setattr(hub, "AGAIN_S", 0.02)
    found = iter([[], ["ping"]])  # nobody wakes it in between

    assert polls.hub.wait("a", 30.0, lambda: next(found), bool) == (["ping"], 0.0)


def test_without_a_place_the_answer_comes_at_once(polls: Polls) -> None:
    polls.start("a")
    polls.start("b")

    messages, retry_s = polls.now("c", 30.0)

    assert messages == []
    assert 0.75 * MIN_RETRY_S <= retry_s <= 1.25 * MIN_RETRY_S
    polls.put("c", "ping")
    assert polls.now("c") == (["ping"], 0.0)


def test_busy_agent_takes_the_place_of_an_idle_one(polls: Polls) -> None:
    polls.hub.keep_busy("a")
    polls.start("a")
    polls.start("b")
    polls.hub.keep_busy("c")

    waiter = threading.Thread(target=polls.now, args=("c", 30.0), daemon=True)
    waiter.start()

    polls.until(lambda: polls.answers)
    agent_id, messages, retry_s = polls.answers[0]
    assert (agent_id, messages) == ("b", [])
    assert retry_s > 0
    polls.hub.close()
    waiter.join(5)


def test_newer_poll_of_the_same_agent_ends_the_older(polls: Polls) -> None:
    polls.start("a")

    assert polls.now("a", 0.01) == ([], 0.0)

    polls.until(lambda: polls.answers)
    assert polls.answers[0][1] == []
    assert polls.answers[0][2] > 0


def test_close_ends_all_polls(polls: Polls) -> None:
    polls.start("a")

    polls.hub.close()

    polls.until(lambda: polls.answers)
    assert polls.now("b", 30.0)[0] == []


@pytest.mark.parametrize(("online", "least_s", "most_s"), [(10, 1.5, 2.5), (364, 3.75, 6.25), (100_000, 15.0, 25.0)])
def test_the_more_agents_have_no_place_the_longer_they_stay_away(online: int, least_s: float, most_s: float) -> None:
    hub: Hub[str] = Hub(64, 20.0, lambda: online)

    assert all(least_s <= hub.retry_s() <= most_s for _ in range(20))
