"""Logging: one line per record on standard error or in a file, and the last records in memory.

setup() -> root logger -> text or JSON lines + LogRing (what /logs shows)
Every line carries the id of the request it belongs to. Values of `extra=` become fields of the line.
Nothing here can know a secret when it sees one: callers never log tokens, bodies or headers.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from arc import clock

RING_SIZE = 10_000  # records kept in memory
QUIET = ("alembic", "waitress.queue", "urllib3")  # they speak at INFO of what no operator needs

request_id: ContextVar[str] = ContextVar("request_id", default="")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "arc_entry"}


@dataclass(frozen=True)
class Entry:
    """One record. at_us: microseconds since the epoch, UTC; exception: the traceback or empty."""

    at_us: int
    level: str
    logger: str
    message: str
    request_id: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    exception: str = ""

    @classmethod
    def of(cls, record: logging.LogRecord) -> Entry:
        """Made once per record, whichever handler comes first."""
        known: Entry | None = vars(record).get("arc_entry")
        if known is None:
            known = record.arc_entry = cls._read(record)
        return known

    @classmethod
    def _read(cls, record: logging.LogRecord) -> Entry:
        exception = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        at_us = int(record.created * clock.US_PER_S)
        return cls(at_us, record.levelname, record.name, record.getMessage(), request_id.get(), fields, exception)

    def as_dict(self) -> dict[str, Any]:
        """The keys of a JSON line; empty ones left out."""
        line = {"time": clock.rfc3339(self.at_us), "level": self.level, "logger": self.logger, "message": self.message}
        rest = {"request_id": self.request_id, "exception": self.exception}
        return line | self.fields | {key: value for key, value in rest.items() if value}


class TextFormatter(logging.Formatter):
    """`2025-10-19T12:00:00.25Z INFO arc.app: listening url=http://... request_id=...`"""

    def format(self, record: logging.LogRecord) -> str:
        entry = Entry.of(record)
        fields = entry.fields | ({"request_id": entry.request_id} if entry.request_id else {})
        pairs = "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        line = f"{clock.rfc3339(entry.at_us)} {entry.level} {entry.logger}: {_one_line(entry.message)}{pairs}"
        return f"{line}\n{entry.exception}" if entry.exception else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(Entry.of(record).as_dict(), default=str, ensure_ascii=False)


class LogRing(logging.Handler):
    """The last records, oldest first."""

    def __init__(self, size: int = RING_SIZE) -> None:
        super().__init__()
        self._entries: deque[Entry] = deque(maxlen=size)

    def emit(self, record: logging.LogRecord) -> None:
        self._entries.append(Entry.of(record))

    def entries(self) -> list[Entry]:
        self.acquire()  # emit() is called under the same lock
        try:
            return list(self._entries)
        finally:
            self.release()


def setup(level: str = "INFO", line_format: str = "text", file: str = "") -> LogRing:
    """Send all logging to `file` (standard error when empty) and to the ring, which is returned."""
    shutdown()
    out: logging.Handler = (
        logging.handlers.WatchedFileHandler(file, encoding="utf-8") if file else logging.StreamHandler()
    )
    out.setFormatter(JsonFormatter() if line_format == "json" else TextFormatter())
    ring = LogRing()
    root = logging.getLogger()
    root.setLevel(level)
    root.handlers += [out, ring]
    _ours.extend([out, ring])
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return ring


def shutdown() -> None:
    """Take down what setup() set up; without effect when nothing is."""
    while _ours:
        handler = _ours.pop()
        logging.getLogger().removeHandler(handler)
        handler.close()


_ours: list[logging.Handler] = []


def _one_line(text: str) -> str:
    """A client's line break must not look like a second record."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _quoted(value: Any) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)
