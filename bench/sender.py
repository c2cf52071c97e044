"""Load generator: one process, one thread, keep-alive sockets, requests that were built beforehand.

It shares the machine with the server it measures, so it does nothing per request but send, receive and look at
the clock. run_senders() starts it in a process of its own.
"""

from __future__ import annotations

import selectors
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing import get_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Sent:
    """What the senders did. elapsed_s: first byte sent to last answer received."""

    acknowledged: list[int] = field(default_factory=list)  # per request body: how often a 204 came back
    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0
    cpu_s: float = 0.0


class Channel:
    """One connection: sends a request, waits for its answer, sends the next."""

    def __init__(self, port: int, requests: list[bytes], order: Iterator[int], sent: Sent) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._requests, self._order, self._sent = requests, order, sent
        self._begin()

    def advance(self, is_over: bool) -> int:
        """Go on until the socket makes us wait: the event to wait for, or 0 when this channel is done."""
        if not self._rest:
            if not self._receive():
                return selectors.EVENT_READ
            if is_over:
                return 0
            self._begin()
        return selectors.EVENT_READ if self._send() else selectors.EVENT_WRITE

    def _begin(self) -> None:
        self._number = next(self._order)
        self._rest = memoryview(self._requests[self._number])
        self._answer = b""
        self._began_at = time.perf_counter()

    def _send(self) -> bool:
        """Whether the whole request is out."""
        try:
            while self._rest:
                self._rest = self._rest[self.socket.send(self._rest) :]
        except BlockingIOError:
            return False
        return True

    def _receive(self) -> bool:
        """Whether the answer is complete; a 204 has no body. Anything else is an error and ends the channel."""
        data = self.socket.recv(1 << 16)
        self._answer += data
        if not data or not self._answer.startswith(b"HTTP/1.1 204"):
            raise ConnectionError(self._answer.decode(errors="replace") or "the server closed the connection")
        if not self._answer.endswith(b"\r\n\r\n"):
            return False
        self._sent.latencies_s.append(time.perf_counter() - self._began_at)
        self._sent.acknowledged[self._number] += 1
        return True


def send_all(port: int, requests: list[bytes], senders: int, seconds: float) -> Sent:
    """Keep `senders` connections busy for the time, then let the last answers come in."""
    sent, order = Sent(acknowledged=[0] * len(requests)), cycle(range(len(requests)))
    start, cpu_s = time.perf_counter(), time.process_time()
    with selectors.DefaultSelector() as selector:
        for _ in range(senders):
            channel = Channel(port, requests, order, sent)
            selector.register(channel.socket, selectors.EVENT_WRITE, channel)
        while selector.get_map():
            for key, _ in selector.select():
                serve(selector, key, sent, is_over=time.perf_counter() - start > seconds)
    sent.elapsed_s, sent.cpu_s = time.perf_counter() - start, time.process_time() - cpu_s
    return sent


def serve(selector: selectors.BaseSelector, key: selectors.SelectorKey, sent: Sent, is_over: bool) -> None:
    """Take the channel of a ready socket a step further."""
    try:
        event = key.data.advance(is_over)
    except OSError as exc:
        sent.errors.append(str(exc))
        event = 0
    if not event:
        selector.unregister(key.fileobj)
        key.data.socket.close()
    elif event != key.events:
        selector.modify(key.fileobj, event, key.data)


def run_senders(port: int, requests: list[bytes], senders: int, seconds: float) -> Sent:
    """send_all in a process of its own, so that it has its own interpreter."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(send_all, port, requests, senders, seconds).result()
