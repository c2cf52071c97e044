"""Hub: agents that wait for work, and who wakes them.

long poll -> Hub.wait -> (work at once | a place to wait, woken by wake(agent_id) | no place: when to ask again)
A waiting poll holds a thread of the server, so there are only so many places. Agents that have just been busy come
first: for them an idle one gives up its place. The others are told to come back after a time that grows with their
number, so that all of them together ask at most POLLS_PER_S times a second.
"""

from __future__ import annotations

import math
import random
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Message = TypeVar("Message")

POLLS_PER_S = 60.0  # of all agents without a place
MIN_RETRY_S = 2.0
BUSY_S = 60.0  # how long an agent counts as busy after something was done with it
LOOK_S = 3.0  # how often a waiting poll looks whether its client is still there
AGAIN_S = 5.5  # until a poll looks once more: what was handed to the one before it may have got lost on the way


class _Waiter:
    def __init__(self, *, is_busy: bool) -> None:
        self.is_busy = is_busy
        self.is_dismissed = False
        self.woken = threading.Event()


class Hub(Generic[Message]):
    """Any thread may call it.

    slots: polls that may wait at a time. max_retry_s: the longest an agent without a place stays away.
    online: how many agents there are.
    """

    def __init__(self, slots: int, max_retry_s: float, online: Callable[[], int]) -> None:
        self._slots = slots
        self._max_retry_s = max_retry_s
        self._online = online
        self._lock = threading.Lock()  # guards what follows
        self._waiting: dict[str, _Waiter] = {}  # the longest first
        self._busy_until: dict[str, float] = {}  # monotonic seconds
        self._is_closed = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def wake(self, agent_id: str) -> None:
        """There is something for the agent."""
        with self._lock:
            self._busy_until[agent_id] = time.monotonic() + BUSY_S
            if waiter := self._waiting.get(agent_id):
                waiter.woken.set()

    def keep_busy(self, agent_id: str) -> None:
        """The agent has something to do, so there may be more for it soon."""
        with self._lock:
            self._busy_until[agent_id] = time.monotonic() + BUSY_S

    def wait(
        self, agent_id: str, timeout_s: float, fetch: Callable[[], list[Message]], is_gone: Callable[[], bool]
    ) -> tuple[list[Message], float]:
        """What `fetch` gives, as soon as it gives something, and after how many seconds to ask again."""
        waiter = self._enter(agent_id) if timeout_s > 0 else None
        if waiter is None:
            messages = fetch()
            return messages, 0.0 if messages else self.retry_s()
        try:
            # Only now: whatever comes after this look wakes the waiter.
            messages, began = fetch(), time.monotonic()
            again_at = began + AGAIN_S
            while not (messages or waiter.is_dismissed or is_gone()):
                left_s = began + timeout_s - time.monotonic()
                if left_s <= 0:
                    return [], 0.0
                if waiter.woken.wait(min(left_s, LOOK_S)):
                    waiter.woken.clear()
                elif time.monotonic() < again_at:
                    continue
                else:
                    again_at = math.inf
                if not (waiter.is_dismissed or is_gone()):  # a client that is gone would lose it
                    messages = fetch()
        finally:
            self._leave(agent_id, waiter)
        return messages, 0.0 if messages else self.retry_s()

    def retry_s(self) -> float:
        """Spread, so that agents that came together do not come back together."""
        crowd = max(self._online() - self._slots, 0)
        wanted_s = min(max(crowd / POLLS_PER_S, MIN_RETRY_S), max(self._max_retry_s, MIN_RETRY_S))
        return round(wanted_s * random.uniform(0.75, 1.25), 2)  # noqa: S311

    def close(self) -> None:
        """Let all go that wait; nobody waits from now on."""
        with self._lock:
            self._is_closed = True
            for waiter in self._waiting.values():
                _dismiss(waiter)

    def _enter(self, agent_id: str) -> _Waiter | None:
        with self._lock:
            if self._is_closed:
                return None
            waiter = _Waiter(is_busy=self._is_busy(agent_id))
            if older := self._waiting.pop(agent_id, None):
                _dismiss(older)  # its client has given it up, or there are two of the same name
            elif len(self._waiting) >= self._slots and not self._make_room(waiter):
                return None
            self._waiting[agent_id] = waiter
            return waiter

    def _make_room(self, newcomer: _Waiter) -> bool:
        idle = next((found for found, waiter in self._waiting.items() if not waiter.is_busy), None)
        if not newcomer.is_busy or idle is None:
            return False
        _dismiss(self._waiting.pop(idle))
        return True

    def _leave(self, agent_id: str, waiter: _Waiter) -> None:
        with self._lock:
            if self._waiting.get(agent_id) is waiter:
                del self._waiting[agent_id]

    def _is_busy(self, agent_id: str) -> bool:
        until = self._busy_until.get(agent_id, 0.0)
        if until < time.monotonic():
            self._busy_until.pop(agent_id, None)
            return False
        return True


def _dismiss(waiter: _Waiter) -> None:
    waiter.is_dismissed = True
    waiter.woken.set()
