"""A blocking call in a thread of its own, so that its caller can stop waiting for it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.runtimes.base import Deadline

T = TypeVar("T")


class Background(Generic[T]):
    """Calls `call` at once. One that its caller left must end on its own: its connection closes, or it times out."""

    def __init__(self, name: str, call: Callable[[], T]) -> None:
        self._call = call
        self._changed = threading.Event()
        self._is_done = False
        self._value: T | None = None
        self.error: BaseException | None = None  # what the call raised
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def result(self, deadline: Deadline, on_tick: Callable[[], None] | None = None, tick_s: float = 3600.0) -> T:
        """What the call returns or raises; on_tick() every tick_s seconds meanwhile.

        Raises TaskStopped when the deadline or a stop comes first.
        """
        next_tick = time.monotonic() + tick_s
        with deadline.stop.calling(self._changed.set):
            while not self._is_done:
                deadline.check()
                if time.monotonic() >= next_tick:
                    next_tick += tick_s
                    if on_tick is not None:
                        on_tick()
                waits = (next_tick - time.monotonic(), deadline.remaining_s())
                self._changed.wait(max(0.0, min(wait for wait in waits if wait is not None)))
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # set by then

    def join(self, timeout_s: float) -> None:
        """Wait until the call has ended, whatever its outcome."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as exc:  # raised where the result is asked for
            self.error = exc
        self._is_done = True
        self._changed.set()
