"""Wakes threads that wait: for work in a queue, for the end of a job."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class WorkSignals:
    """A thread looks, asks the database, and waits if there was nothing; a signal in between ends the wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._conditions: dict[str, threading.Condition] = {}
        self._sent: defaultdict[str, int] = defaultdict(int)
        self._waiting: defaultdict[str, int] = defaultdict(int)
        self._seen = threading.local()
        self._is_closed = False

    def look(self, queue: str) -> None:
        """What was signalled until now is seen by this thread."""
        with self._lock:
            self._seen.__dict__[queue] = self._sent[queue]

    def send(self, queue: str) -> None:
        """One task came into the queue: one thread need wake."""
        with self._lock:
            self._sent[queue] += 1
            self._condition(queue).notify()

    def send_all(self, queue: str) -> None:
        with self._lock:
            self._sent[queue] += 1
            self._condition(queue).notify_all()

    def wait(self, queue: str, timeout_s: float) -> None:
        """Until a signal that this thread has not seen, the end of the time, or close()."""
        ends_at = time.monotonic() + timeout_s
        with self._lock:
            seen = self._seen.__dict__.get(queue, 0)
            self._waiting[queue] += 1
            try:
                while self._sent[queue] == seen and not self._is_closed:
                    left_s = ends_at - time.monotonic()
                    if left_s <= 0 or not self._condition(queue).wait(left_s):
                        return
            finally:
                self._waiting[queue] -= 1

    def waited_for(self) -> list[str]:
        """Queues that threads wait for now."""
        with self._lock:
            return [queue for queue, count in self._waiting.items() if count]

    def close(self) -> None:
        """Nobody waits from now on."""
        with self._lock:
            self._is_closed = True
            for condition in self._conditions.values():
                condition.notify_all()

    def _condition(self, queue: str) -> threading.Condition:
        return self._conditions.setdefault(queue, threading.Condition(self._lock))


class EndWaiters:
    """Threads that wait for the end of a job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, list[threading.Event]] = {}
        self.is_closed = False

    @contextmanager
    def waiting_for(self, job_id: str) -> Iterator[threading.Event]:
        event = threading.Event()
        with self._lock:
            self._events.setdefault(job_id, []).append(event)
        try:
            yield event
        finally:
            with self._lock:
                self._events[job_id].remove(event)
                if not self._events[job_id]:
                    del self._events[job_id]

    def tell(self, job_id: str) -> None:
        with self._lock:
            for event in self._events.get(job_id, ()):
                event.set()

    def close(self) -> None:
        self.is_closed = True
        with self._lock:
            for events in self._events.values():
                for event in events:
                    event.set()
