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
    refused: int = 0  # 503: sent again after the time the server asked for
    errors: list[str] = field(default_factory=list)  # anything else; it ends a connection
    elapsed_s: float = 0.0
    cpu_s: float = 0.0


class Channel:
    """One connection: sends a request, waits for its answer, sends the next."""

    def __init__(self, port: int, requests: list[bytes], order: Iterator[int], sent: Sent) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.resume_at = 0.0  # perf_counter of the end of a rest the server asked for
        self._requests, self._order, self._sent = requests, order, sent
        self._number = -1
        self._begin(next(order))

    def advance(self, is_over: bool) -> int:
        """Go on until something makes us wait: the event to wait for; 0 for a rest, or for the end once is_over."""
        if not self._rest:
            status = self._receive()
            if not status:
                return selectors.EVENT_READ
            if status == 503:
                self._begin(self._number)
                return 0
            if is_over:
                return 0
            self._begin(next(self._order))
        return selectors.EVENT_READ if self._send() else selectors.EVENT_WRITE

    def _begin(self, number: int) -> None:
        self._number = number
        self._rest = memoryview(self._requests[number])
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

    def _receive(self) -> int:
        """Status of the answer, 0 while it is not complete. Raises ConnectionError unless it is 204 or 503."""
        data = self.socket.recv(1 << 16)
        self._answer += data
        head, blank, body = self._answer.partition(b"\r\n\r\n")
        if not data or not head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 503")):
            raise ConnectionError(head.decode(errors="replace").partition("\r\n")[0] or "connection closed")
        if not blank:
            return 0
        if head.startswith(b"HTTP/1.1 503"):
            return self._refused(head, body)
        self._sent.latencies_s.append(time.perf_counter() - self._began_at)
        self._sent.acknowledged[self._number] += 1
        return 204

    def _refused(self, head: bytes, body: bytes) -> int:
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(headers[b"content-length"]):
            return 0
        self._sent.refused += 1
        self.resume_at = time.perf_counter() + int(headers[b"retry-after"])
        return 503


def send_all(port: int, requests: list[bytes], senders: int, seconds: float) -> Sent:
    """Keep `senders` connections busy for the time, then let the last answers come in."""
    sent, order = Sent(acknowledged=[0] * len(requests)), cycle(range(len(requests)))
    start, cpu_s = time.perf_counter(), time.process_time()
    resting = [Channel(port, requests, order, sent) for _ in range(senders)]
    with selectors.DefaultSelector() as selector:
        while resting or selector.get_map():
            now = time.perf_counter()
            for channel in [channel for channel in resting if channel.resume_at <= now]:
                resting.remove(channel)
                selector.register(channel.socket, selectors.EVENT_WRITE, channel)
            for key, _ in selector.select(0.01 if resting else None):
                serve(selector, key, sent, resting, is_over=now - start > seconds)
    sent.elapsed_s, sent.cpu_s = time.perf_counter() - start, time.process_time() - cpu_s
    return sent


def serve(
    selector: selectors.BaseSelector, key: selectors.SelectorKey, sent: Sent, resting: list[Channel], is_over: bool
) -> None:
    """Take the channel of a ready socket a step further; rest it or close it when it says so."""
    channel: Channel = key.data
    try:
        event = channel.advance(is_over)
    except OSError as exc:
        sent.errors.append(str(exc))
        event, is_over = 0, True
    if event and event != key.events:
        selector.modify(key.fileobj, event, channel)
    elif not event:
        selector.unregister(key.fileobj)
        if is_over:
            channel.socket.close()
        else:
            resting.append(channel)


def run_senders(port: int, requests: list[bytes], senders: int, seconds: float) -> Sent:
    """send_all in a process of its own, so that it has its own interpreter."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(send_all, port, requests, senders, seconds).result()
