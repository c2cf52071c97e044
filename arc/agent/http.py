"""HTTP/1.1 as the agent needs it: a connection that stays open, answers of known length, in chunks or until the end.

Connection(url).request(method, path, body) -> Answer
http.client would do the same, but it loads ssl and the e-mail parser: 5 MB on a machine that may have 64.
TLS is loaded when an address says https.
"""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from io import BufferedReader

CONNECT_S = 10.0  # seconds
BLOCK_BYTES = 65_536
MAX_LINE_BYTES = 65_536
MAX_HEADERS = 200
MAX_ANSWER_BYTES = 32 * 2**20
MAX_REDIRECTS = 10

_URL = re.compile(r"(https?)://(\[[^]/]+\]|[^]/:?#@\s]+)(?::(\d{1,5}))?(/[^#\s]*|\?[^#\s]*)?(?:#\S*)?", re.IGNORECASE)
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}


class BadAnswer(OSError):
    """What came back is no HTTP, or was cut off."""


class Url(NamedTuple):
    scheme: str
    host: str
    port: int
    path: str  # with the query

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises ValueError."""
        match = _URL.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no address such as https://arc.example:8000")
        scheme, path = match[1].lower(), match[4] or "/"
        port = int(match[3] or _PORTS[scheme])
        return cls(scheme, match[2].strip("[]"), port, path if path.startswith("/") else f"/{path}")

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def join(self, location: str) -> str:
        """Where a redirect leads to."""
        if "://" in location:
            return location
        if location.startswith("//"):
            return f"{self.scheme}:{location}"
        base = "" if location.startswith("/") else self.path.partition("?")[0].rpartition("/")[0] + "/"
        return f"{self.scheme}://{self.authority}{base}{location}"


class Answer(NamedTuple):
    status: int
    reason: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Connection:
    """One connection to one server, opened when needed and kept. One thread at a time; abort() from any.

    ca_file: certificates to trust instead of the system's.
    """

    def __init__(self, url: str, ca_file: str = "", connect_s: float = CONNECT_S) -> None:
        self._url = Url.parse(url)
        self._ca_file = ca_file
        self._connect_s = connect_s
        self._socket: socket.socket | None = None
        self._reader: BufferedReader | None = None

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """Send and read the whole answer. Raises OSError.

        A connection that the server closed meanwhile is opened anew, so a request must be safe to send twice.
        timeout_s: without a byte.
        """
        was_open = self._socket is not None
        try:
            status, reason, fields = self._exchange(method, path, body, headers or {}, timeout_s)
        except (ConnectionError, BadAnswer):
            self.close()
            if not was_open:
                raise
            status, reason, fields = self._exchange(method, path, body, headers or {}, timeout_s)
        try:
            content = _joined(self._body(method, status, fields))
        except BaseException:
            self.close()
            raise
        if fields.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, reason, fields, content)

    def open(
        self, path: str, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str, dict[str, str], Iterator[bytes]]:
        """GET; status, reason, headers and the blocks of the body, which the caller reads. Raises OSError."""
        status, reason, fields = self._exchange("GET", path, b"", headers, timeout_s)
        return status, reason, fields, self._body("GET", status, fields)

    def abort(self) -> None:
        """End what another thread waits for."""
        if (held := self._socket) is not None:
            try:
                socket.socket.shutdown(held, socket.SHUT_RDWR)  # TLS's own would change it under the reader's feet
            except OSError:  # not connected any more
                pass

    def close(self) -> None:
        reader, held, self._reader, self._socket = self._reader, self._socket, None, None
        for each in (reader, held):
            if each is not None:
                try:
                    each.close()
                except OSError:
                    pass

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str, dict[str, str]]:
        try:
            connected = self._socket or self._connect()
            connected.settimeout(timeout_s)
            connected.sendall(self._head(method, path, len(body), headers) + body)
            return self._answer_head()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> socket.socket:
        host = self._url.host.encode() if self._url.host.isascii() else self._url.host  # text loads the tables of IDNA
        connected = socket.create_connection((host, self._url.port), self._connect_s)  # type: ignore[arg-type]
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._url.scheme == "https":
                connected = _secured(connected, self._url.host, self._ca_file)
        except BaseException:
            connected.close()
            raise
        self._socket, self._reader = connected, connected.makefile("rb")
        return connected

    def _head(self, method: str, path: str, size: int, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._url.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if size or method == "POST":
            lines.append(f"Content-Length: {size}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line break in a header")
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")

    def _answer_head(self) -> tuple[int, str, dict[str, str]]:
        while True:
            version, _, rest = self._line().partition(" ")
            code, _, reason = rest.partition(" ")
            if not version.startswith("HTTP/1.") or not code.isdecimal():
                raise BadAnswer(f"no HTTP from {self._url.authority}: {version[:40]!r}")
            fields = self._fields()
            if int(code) >= 200:  # what comes before is interim
                if version == "HTTP/1.0" and "keep-alive" not in fields.get("connection", "").lower():
                    fields["connection"] = "close"
                return int(code), reason, fields

    def _fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        for _ in range(MAX_HEADERS):
            line = self._line()
            if not line:
                return fields
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        raise BadAnswer("too many headers")

    @property
    def _open_reader(self) -> BufferedReader:
        if self._reader is None:
            raise BadAnswer("the connection is closed")
        return self._reader

    def _line(self) -> str:
        line = self._open_reader.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise BadAnswer("the server closed the connection" if not line else "a line without end")
        return line.decode("latin-1").rstrip("\r\n")

    def _body(self, method: str, status: int, fields: Mapping[str, str]) -> Iterator[bytes]:
        if method == "HEAD" or status in (204, 304):
            return
        if "chunked" in fields.get("transfer-encoding", "").lower():
            yield from self._chunks()
        elif (length := fields.get("content-length")) is not None:
            if not length.isdecimal():
                raise BadAnswer(f"length {length[:40]!r}")
            yield from self._exactly(int(length))
        else:
            yield from self._until_the_end()

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size_text = self._line().partition(";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError:
                raise BadAnswer(f"size of a chunk {size_text[:40]!r}") from None
            if size == 0:
                self._fields()
                return
            yield from self._exactly(size)
            self._line()

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            block = self._open_reader.read1(min(size, BLOCK_BYTES))  # what is there: a slow server may take hours
            if not block:
                raise BadAnswer("the answer was cut off")
            size -= len(block)
            yield block

    def _until_the_end(self) -> Iterator[bytes]:
        while block := self._open_reader.read1(BLOCK_BYTES):
            yield block
        self.close()


def download(
    url: str, path: str, timeout_s: float, check: Callable[[], object], headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Save what is at an address, redirects followed. Status and reason; above 299 nothing is saved.

    check: asked whenever something has come; what it raises ends the download. timeout_s: without a byte.
    Raises OSError, ValueError for what is no address.
    """
    for _ in range(MAX_REDIRECTS):
        connection = Connection(url)
        try:
            status, reason, fields, blocks = connection.open(Url.parse(url).path, headers or {}, timeout_s)
            if status in _REDIRECTS and "location" in fields:
                url = Url.parse(url).join(fields["location"])
                continue
            if status < 300:
                with open(path, "wb") as out:
                    for block in blocks:
                        check()
                        out.write(block)
            return status, reason
        finally:
            connection.close()
    raise BadAnswer(f"stopped after {MAX_REDIRECTS} redirects")


def _joined(blocks: Iterator[bytes]) -> bytes:
    found, size = [], 0
    for block in blocks:
        found.append(block)
        size += len(block)
        if size > MAX_ANSWER_BYTES:
            raise BadAnswer("the answer is too large")
    return b"".join(found)


def _secured(connected: socket.socket, host: str, ca_file: str) -> socket.socket:
    import ssl

    context = ssl.create_default_context(cafile=os.fspath(ca_file) if ca_file else None)
    return context.wrap_socket(connected, server_hostname=host)
