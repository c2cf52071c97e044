"""The sockets of the server on a selector, so that a connection on which nothing happens costs nothing.

Waitress asks every connection, before every look at the sockets, whether it wants to read or to write. With the
connections of a fleet that is most of what a request costs. Here a connection is asked when something has happened to
it: the main thread has read or written, or another thread says so; and all of them now and then, because Waitress
also closes idle ones.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.server import BaseWSGIServer

if TYPE_CHECKING:
    from waitress.channel import HTTPChannel

SWEEP_S = 5.0


class Sockets(dict[int, Any]):
    """Waitress' map from descriptors to what listens and talks there. Its methods are for the main thread."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()  # between asking what somebody wants and having it registered
        self._registered: dict[int, int] = {}  # events by descriptor
        self._changed: deque[int] = deque()
        self._listeners: list[int] = []
        self._next_sweep_s = 0.0

    def __setitem__(self, fd: int, what: Any) -> None:
        super().__setitem__(fd, what)
        self._changed.append(fd)
        if isinstance(what, BaseWSGIServer):
            self._listeners.append(fd)

    def __delitem__(self, fd: int) -> None:
        super().__delitem__(fd)
        with self._lock:
            if self._registered.pop(fd, 0):
                self._selector.unregister(fd)

    def has_changed(self, channel: HTTPChannel) -> bool:
        """Any thread tells that it has done something to a connection; whether the main thread has to look at once."""
        fd = channel._fileno
        if fd is None:
            return False
        with self._lock:
            if _wanted(channel) == self._registered.get(fd, 0):
                return False
        self._changed.append(fd)
        return True

    def poll(self, timeout_s: float) -> None:
        """Wait until a socket is ready, and have everything done that is."""
        self._register_changes()
        for key, events in self._selector.select(timeout_s):
            if events & selectors.EVENT_READ and self.get(key.fd) is key.data:
                wasyncore.read(key.data)
            if events & selectors.EVENT_WRITE and self.get(key.fd) is key.data:
                wasyncore.write(key.data)
            self._changed.append(key.fd)

    def close(self) -> None:
        wasyncore.close_all(self)
        self._selector.close()

    def _register_changes(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + SWEEP_S
            self._changed.extend(self)
        self._changed.extend(self._listeners)  # they count connections
        while self._changed:
            self._register(self._changed.popleft())

    def _register(self, fd: int) -> None:
        what = self.get(fd)
        if what is None:
            return
        with self._lock:
            before, wanted = self._registered.get(fd, 0), _wanted(what)
            if wanted == before:
                return
            if not wanted:
                self._selector.unregister(fd)
            elif before:
                self._selector.modify(fd, wanted, what)
            else:
                self._selector.register(fd, wanted, what)
            self._registered[fd] = wanted


def _wanted(what: Any) -> int:
    """Events. What listens is never written to."""
    reads = selectors.EVENT_READ if what.readable() else 0
    return reads | (selectors.EVENT_WRITE if what.writable() and not what.accepting else 0)
