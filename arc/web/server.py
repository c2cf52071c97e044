"""The HTTP server: Waitress, set up for large bodies, many idle connections and a stop that loses nothing.

main thread: poll sockets, parse requests -> request threads: WSGI application -> sockets
                                          -> write thread: likewise, for small writes, group by group (grouping.py)
A stop first waits for what has to be finished, and answers requests meanwhile. Then it closes the listening socket and
idle connections, and goes on polling until running requests are answered or their time is up.
"""

from __future__ import annotations

# mypy: allow-subclassing-any
import copy
import logging
import re
import threading
import time
from collections import deque
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

import orjson
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, create_server
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import RequestEntityTooLarge, build_http_date

from arc.web.application import SECURITY_HEADERS, sane_request_id
from arc.web.errors import error_body
from arc.web.grouping import WriteThread
from arc.web.parse import IMPORT_PATHS, too_large_text
from arc.web.sockets import Sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from _typeshed.wsgi import WSGIApplication
    from waitress.adjustments import Adjustments

log = logging.getLogger(__name__)
_served = threading.local()  # .channel: what the thread serves

MAX_CONNECTIONS = 10_000
RECV_BYTES = 256 * 1024  # per call; Waitress' 8 KiB cost a 650 kB body a third of its time
OUT_BUFFER_BYTES = 16 * 2**20  # of an answer that wait for a slow reader; then its thread waits too
PIECE_BYTES = 2**20  # of an answer that are handed to the socket at a time
MAX_GROUP = 16  # writes; all of a group are in memory at once, inflated and decoded
GROUPED_BYTES = 2**18  # larger writes have threads of their own: there decoding outweighs all that grouping saves
IDLE_S = 120  # connections without a request are closed after this
IMPORT_MEMORY_BYTES = 2**20  # of a file to import; the rest waits on disk
DISCARD_FACTOR = 10  # how many times the limit of an oversized body is read and dropped before the line is cut


_IMPORT = re.compile(rb"POST\s+%b" % IMPORT_PATHS.encode())


class ArcServer:
    """Listens when it is made, serves in run().

    max_body_bytes: a larger body gets 413; max_import_bytes: likewise for a file to import.
    stop_timeout_s: seconds that a stop takes at most. on_stop: called as it begins, for answers that wait.
    is_finishing: whether something still runs that must not be cut off, and that people may want to ask about.
    """

    def __init__(
        self,
        app: WSGIApplication,
        host: str,
        port: int,
        threads: int,
        *,
        max_body_bytes: int = 100 * 2**20,
        max_import_bytes: int = 500 * 2**20,
        stop_timeout_s: float = 30,
        grouped: Collection[str] = (),
        on_stop: Callable[[], None] = lambda: None,
        is_finishing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._map = Sockets()
        self._dispatcher = _Dispatcher(grouped, self._map.has_changed, self._wake)
        self._stop_timeout_s = stop_timeout_s
        self._on_stop = on_stop
        self._is_finishing = is_finishing
        self._stopping = False
        self._idle = threading.Event()  # set while run() is not at work
        self._idle.set()
        try:
            self._listen(app, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", max_body_bytes)
        except BaseException:
            self._map.close()
            raise
        self._listeners = [found for found in self._map.values() if isinstance(found, BaseWSGIServer)]
        for listener in self._listeners:
            listener.channel_class = _Channel
            listener.pull_trigger = self._dispatcher.wake
            listener.adj.of_imports = _for_imports(listener.adj, max_import_bytes)
        self._dispatcher.start(threads)
        self.port = int(self._listeners[0].effective_port)

    def run(self) -> None:
        """Serve until stop(), SystemExit or KeyboardInterrupt; then finish what runs and return."""
        self._idle.clear()
        try:
            while not self._stopping:
                self._poll()
        except (SystemExit, KeyboardInterrupt):
            pass
        try:
            self._drain()
        finally:
            self._idle.set()

    def stop(self) -> None:
        """Let run() return; from any thread or a signal handler."""
        self._stopping = True
        if not self._idle.is_set():
            self._wake()

    def close(self) -> None:
        """Stop, and give back sockets and threads; may be called twice."""
        if not self._idle.is_set():
            self.stop()
            self._idle.wait()
        self._dispatcher.shutdown(timeout=1)
        self._dispatcher.join()
        self._map.close()

    def _listen(self, app: WSGIApplication, address: str, max_body_bytes: int) -> None:
        create_server(
            app,
            map=self._map,
            _dispatcher=self._dispatcher,
            listen=address,
            ident="Arc",
            connection_limit=_connection_limit(),
            channel_timeout=IDLE_S,
            channel_request_lookahead=1,  # keeps reading while a request runs, so that a hang-up is noticed
            recv_bytes=RECV_BYTES,
            inbuf_overflow=max_body_bytes + 1,  # above it a body goes through a temporary file
            outbuf_overflow=OUT_BUFFER_BYTES + PIECE_BYTES,  # likewise an answer
            outbuf_high_watermark=OUT_BUFFER_BYTES,
            max_request_body_size=max_body_bytes + 1,  # Waitress refuses what reaches its limit, we what is above ours
            expose_tracebacks=False,
        )

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.trigger.pull_trigger()

    def _poll(self, timeout_s: float = 1) -> None:
        self._map.poll(timeout_s)
        self._dispatcher.hand_over_writes()

    def _drain(self) -> None:
        """Take no more connections, answer what was asked, close the rest."""
        deadline = time.monotonic() + self._stop_timeout_s
        self._on_stop()
        while self._is_finishing() and time.monotonic() < deadline:
            self._poll(0.1)
        for listener in self._listeners:
            listener.accepting = False
            listener.socket.close()
            listener.del_channel(self._map)
        while self._busy_channels() and time.monotonic() < deadline:
            self._poll(0.1)
        left = len(self._busy_channels())
        if left:
            log.warning("%d requests still ran after %.0f s and were cut off", left, self._stop_timeout_s)

    def _busy_channels(self) -> list[_Channel]:
        """Connections with a request or an answer under way; closes all others."""
        channels = [found for found in list(self._map.values()) if isinstance(found, _Channel)]
        busy = [channel for channel in channels if channel.requests or channel.total_outbufs_len]
        for channel in channels:
            if channel not in busy:
                channel.handle_close()
        return busy


class _Task(WSGITask):
    """One request of the application."""

    content_length: int | None = None
    _answer: Iterable[bytes] | None = None

    def begin(self) -> None:
        """Call the application; what it returns, or raises, waits for execute()."""
        self.start()
        try:
            self._answer = self._ask()
        except Exception as exc:
            self._answer = _raising(exc)

    def execute(self) -> None:
        answer = self._ask() if self._answer is None else self._answer
        try:
            for piece in answer:
                if self.content_length is None and isinstance(answer, list) and len(answer) == 1:
                    self.content_length = len(piece)
                if piece:
                    self.write(piece)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        if self.request.command != "HEAD" and self.content_bytes_written < (self.content_length or 0):
            self.close_on_finish = True  # its reader would wait for the rest

    def _ask(self) -> Iterable[bytes]:
        answer: Iterable[bytes] = self.channel.server.application(self.get_environment(), self._start_response)
        return answer

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None and self.wrote_header:
            raise exc_info[1]
        self.complete = True
        self.status, self.response_headers = status, headers
        for name, value in headers:
            if "\n" in value or "\r" in value:
                raise ValueError(f"a line break in header {name}")
            if name.lower() == "content-length":
                self.content_length = int(value)
        return self.write

    def write(self, data: bytes) -> None:
        """In pieces, so that a large answer waits for its reader instead of being copied whole into the buffer."""
        for start in range(0, len(data) or 1, PIECE_BYTES):
            super().write(data[start : start + PIECE_BYTES])

    def build_response_header(self) -> bytes:
        """Status line and headers; decides whether the connection stays open.

        Waitress' own closes it after every answer without a Content-Length, so also after 204, which every write
        gets, and it spends more on the spelling and order of headers than a small write costs otherwise.
        """
        ends_known = not self.has_body
        lines = [f"HTTP/{self.version} {self.status}"]
        wish = self.request.headers.get("CONNECTION", "").lower()
        for name, value in self.response_headers:
            if name == "Content-Length":
                if not self.has_body:
                    continue  # RFC 9110: not with 204
                ends_known = True
            lines.append(f"{name}: {value}")
        if not ends_known and self.content_length is not None:
            lines.append(f"Content-Length: {self.content_length}")
            ends_known = True
        if not ends_known and self.version == "1.1" and self.request.command != "HEAD":
            lines.append("Transfer-Encoding: chunked")
            ends_known = self.chunked_response = True
        if not ends_known or wish == "close" or (self.version == "1.0" and wish != "keep-alive"):
            self.close_on_finish = True
            lines.append("Connection: close")
        elif self.version == "1.0":
            lines.append("Connection: Keep-Alive")
        lines += [f"Server: {self.channel.server.adj.ident}", f"Date: {build_http_date(self.start_time)}", "", ""]
        return "\r\n".join(lines).encode("latin-1")


def _raising(exc: Exception) -> Iterator[bytes]:
    raise exc
    yield  # type: ignore[unreachable]  # raises when it is iterated over, not before


class _ErrorTask(ErrorTask):
    """Errors that the application never sees, in the shape of all others."""

    def execute(self) -> None:
        error = self.request.error
        text = str(error.body)
        if isinstance(error, RequestEntityTooLarge):
            text = too_large_text(self.request.adj.max_request_body_size - 1)
        body = orjson.dumps(error_body(error.code, text))
        self.status = f"{error.code} {error.reason}"
        request_id = sane_request_id(self.request.headers.get("X_REQUEST_ID"))
        self.response_headers += [("Content-Type", "application/json"), ("X-Request-Id", request_id), *SECURITY_HEADERS]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


def _for_imports(settings: Adjustments, max_bytes: int) -> Adjustments:
    """A file to import waits on disk: it may be larger than what is worked on in memory."""
    changed = copy.copy(settings)
    changed.max_request_body_size, changed.inbuf_overflow = max_bytes + 1, IMPORT_MEMORY_BYTES
    return changed


class _Nowhere:
    """A buffer that keeps nothing."""

    def append(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass

    def __len__(self) -> int:
        return 0


class _Memory:
    """A body in the pieces it came in, which are not copied unless there are several."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def append(self, data: bytes) -> None:
        self._pieces.append(data)

    def getfile(self) -> BytesIO:
        return BytesIO(b"".join(self._pieces))

    def close(self) -> None:
        self._pieces.clear()

    def __len__(self) -> int:
        return sum(map(len, self._pieces))


class _Parser(HTTPRequestParser):
    """Reads a body that is too large to its end and keeps none of it.

    Most clients look for an answer only after they have sent everything; cut off earlier they see a broken
    connection instead of the 413.
    """

    adj: Adjustments
    _is_discarding = False

    def parse_header(self, header_plus: bytes) -> None:
        if _IMPORT.match(header_plus):
            self.adj = self.adj.of_imports
        super().parse_header(header_plus)
        if self.body_rcv is not None and self.adj.inbuf_overflow >= self.adj.max_request_body_size:
            self.body_rcv.buf = _Memory()

    def received(self, data: bytes) -> int:
        if self._is_discarding:
            return self._discard(data)
        consumed: int = super().received(data)
        waits = self.expect_continue and self.body_bytes_received == 0  # for our word before it sends
        if isinstance(self.error, RequestEntityTooLarge) and self.body_rcv is not None and not waits:
            self._is_discarding = True
            self.body_rcv.getbuf().close()
            self.body_rcv.buf = _Nowhere()
            self.completed = self.body_rcv.completed
        return consumed

    def _discard(self, data: bytes) -> int:
        consumed: int = self.body_rcv.received(data)
        self.body_bytes_received += consumed
        enough = self.body_bytes_received > DISCARD_FACTOR * self.adj.max_request_body_size
        self.completed = self.body_rcv.completed or bool(self.body_rcv.error) or enough
        return consumed


class _Channel(HTTPChannel):
    error_task_class = _ErrorTask
    parser_class = _Parser
    _begun: _Task | None = None

    def begin(self) -> None:
        self._begun = _Task(self, self.requests[0])
        self._begun.begin()

    def service(self) -> None:
        _served.channel = self
        super().service()

    def task_class(self, _: HTTPChannel, request: HTTPRequestParser) -> _Task:
        task, self._begun = self._begun, None
        return task or _Task(self, request)

    def write_soon(self, data: bytes) -> int:
        """To the socket at once if nothing waits before it; Waitress takes everything through a buffer."""
        sent = 0
        if not self.total_outbufs_len:
            with suppress(OSError), self.outbuf_lock:
                if self.connected:  # asked under the lock: the main thread may close it at any other moment
                    sent = self.socket.send(data)
        return sent if sent == len(data) else sent + super().write_soon(data[sent:])

    def send_continue(self) -> None:
        if self.request.error:
            self.request.expect_continue = False  # the answer is the error, not "go on"
        else:
            super().send_continue()


class _LastFirst:
    """A condition that wakes the thread which has waited shortest: what it needs is still in the processor's caches.

    Python's wakes the one that has waited longest, so that few requests go round all the threads of a server.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._waiting: list[threading.Lock] = []

    def wait(self) -> None:
        """The caller holds the lock, and does so again when this returns."""
        gate = threading.Lock()
        gate.acquire()
        self._waiting.append(gate)
        self._lock.release()
        gate.acquire()
        self._lock.acquire()

    def notify(self) -> None:
        if self._waiting:
            self._waiting.pop().release()

    def notify_all(self) -> None:
        while self._waiting:
            self.notify()


class _Dispatcher(ThreadedTaskDispatcher):
    """Request threads and the write thread."""

    # A queue is what a pool of threads is for; a warning per waiting request would make overload worse.
    queue_logger = logging.getLogger(f"{__name__}.queue")
    queue_logger.setLevel(logging.ERROR)

    def __init__(
        self, grouped: Collection[str], has_changed: Callable[[_Channel], bool], wake: Callable[[], None]
    ) -> None:
        super().__init__()
        self.queue_cv = _LastFirst(self.lock)
        self._has_changed = has_changed
        self._wake = wake
        self._grouped = frozenset(grouped)
        self._writes: deque[_Channel] = deque()
        self._write_thread = WriteThread(wake)
        self._started: list[threading.Thread] = []

    def start(self, threads: int) -> None:
        self._write_thread.start()
        self.set_thread_count(threads)

    def add_task(self, channel: _Channel) -> None:
        """Any thread: the one that has served a connection may find that more has come."""
        if self._is_grouped(channel.requests[0]):
            self._writes.append(channel)
            if hasattr(_served, "channel") and not self._write_thread.is_current():
                self._wake()
        else:
            super().add_task(channel)

    def hand_over_writes(self) -> None:
        while self._writes:  # a connection with more than one has added the next meanwhile
            count = min(len(self._writes), MAX_GROUP)
            self._write_thread.hand_over([self._writes.popleft() for _ in range(count)])

    def wake(self) -> None:
        """Of the main thread, by the thread that serves a connection, if it has to look at that connection.

        The write thread wakes it once for all of a group.
        """
        if self._has_changed(_served.channel) and not self._write_thread.is_current():
            self._wake()

    def _is_grouped(self, request: _Parser) -> bool:
        return (
            not request.error
            and request.command == "POST"
            and request.path in self._grouped
            and (request.content_length <= GROUPED_BYTES and not request.chunked)
        )

    def start_new_thread(self, target: Any, thread_no: int) -> None:
        thread = threading.Thread(target=target, name=f"request-{thread_no}", args=(thread_no,), daemon=True)
        self._started.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait for threads that were told to end; one that is stuck in a request is left to die with the process."""
        self._write_thread.close()
        for thread in self._started:
            thread.join(timeout=1)


def _connection_limit() -> int:
    """How many connections the process may hold; raises its own limit of open files as far as it can."""
    try:
        import resource
    except ImportError:  # Windows has no such limit, but select() has
        return 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 1000  # the rest are files, pipes and databases
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(100, min(MAX_CONNECTIONS, soft - 1000))
