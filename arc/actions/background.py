"""Long steps: they run in a thread of their own, and the engine looks in at each invocation."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.actions.records import Json

AT_ONCE_S = 0.05  # seconds to wait for work that has just begun; much is done by then


class Background:
    """Work by key. Only the engine's thread calls run()."""

    def __init__(self) -> None:
        self._works: dict[str, _Work] = {}

    def run(self, key: str, work: Callable[[], Json]) -> tuple[bool, Json]:
        """(False, None) until the work is finished, then once (True, what it returned). Raises what it raised."""
        known = self._works.get(key)
        if known is None:
            known = self._works[key] = _Work(key, work)
            known.start()
            known.join(AT_ONCE_S)
        if known.is_alive():
            return False, None
        del self._works[key]
        if known.error:
            raise known.error
        return True, known.result

    def join(self, timeout_s: float) -> None:
        ends = time.monotonic() + timeout_s
        for work in self._works.values():
            work.join(max(0.0, ends - time.monotonic()))


class _Work(threading.Thread):
    def __init__(self, key: str, work: Callable[[], Json]) -> None:
        super().__init__(name=f"action {key}", daemon=True)
        self._work = work
        self.result: Json = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:
            self.error = error
