"""The write thread: small writes that arrive together are answered together.

main thread: one pass over the sockets -> writes that are complete -> hand_over -> waits a moment
write thread: the first half of each (decode), then the second half of each, the first of which does one append and
one sync for all -> answers -> main thread

Threads that compete for the interpreter lock pay for every change of turns, and a write takes dozens of short
native calls, each a chance to change turns. So the main thread lets the write thread work alone, but not for long: a
slow disk or a slow body must not keep it from its sockets.
"""

from __future__ import annotations

import logging
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

REST_S = 0.02  # the longest the main thread waits for a group; a usual one takes a tenth of it


class Write(Protocol):
    """A connection with a request to write."""

    def begin(self) -> None:
        """The first half of it. Never raises."""

    def service(self) -> None:
        """The second half, and the answer."""


class WriteThread:
    """Owns the thread; its methods are for the main thread of the server, but is_current.

    wake: makes the main thread look at its sockets again.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._is_awaited = False
        self._groups: SimpleQueue[Sequence[Write]] = SimpleQueue()
        self._answered: SimpleQueue[None] = SimpleQueue()
        self._under_way = 0  # groups
        self._thread = threading.Thread(target=self._run, name="writes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hand_over(self, group: Sequence[Write]) -> None:
        """Have a group answered; most often it is when this returns."""
        while not self._answered.empty():
            self._answered.get()
            self._under_way -= 1
        self._groups.put(group)
        self._under_way += 1
        if self._under_way > 1:
            return
        self._is_awaited = True
        try:
            self._answered.get(timeout=REST_S)
            self._under_way -= 1
        except Empty:
            pass
        self._is_awaited = False  # before the next look at the sockets: what was answered by now is seen there

    def is_current(self) -> bool:
        return threading.get_ident() == self._thread.ident

    def close(self) -> None:
        """End the thread after what was handed over; may be called twice."""
        if self._thread.is_alive():
            self._groups.put(())
            self._thread.join(timeout=1)

    def _run(self) -> None:
        while group := self._groups.get():
            for write in group:
                write.begin()
            for write in group:
                try:
                    write.service()
                except Exception:  # one broken connection must not cost the others their answers
                    log.exception("answering a write failed")
            self._answered.put(None)
            if not self._is_awaited:
                self._wake()
