"""/logs: the last records of the server's own log, out of the ring that arc/logs.py fills.

What may stand in a record is decided by those who log: no SQL, tokens or bodies. An exception that nobody expected
may quote any of them, so of exceptions this shows type and place, and the text only of errors of the operating system.
"""

from __future__ import annotations

import builtins
import logging
import re
from typing import TYPE_CHECKING, Any, Literal

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field, field_validator

from arc import clock
from arc.web.compression import compress
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.logs import Entry

_FRAME = re.compile(r'  File "[^"]+", line \d+, in \S+')
_LAST_LINE = re.compile(r"(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?")

surface = Surface("logs", "Logs", "The server's own log.")


class LogsQuery(BaseModel):
    limit: int = Field(100, ge=1, le=1000, description="At most so many")
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None = Field(None, description="The least level")
    since_minutes: int = Field(60, ge=1, le=1440, description="How far back")
    request_id: str | None = Field(None, description="Only records of the request with this `X-Request-Id`")

    @field_validator("level", mode="before")
    @classmethod
    def _fold(cls, given: str) -> str | None:
        folded = given.upper()
        return {"": None, "WARN": "WARNING"}.get(folded, folded)


class LogRecords(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "timestamp": "2025-10-19T12:00:01Z",
                "logs": [
                    {
                        "timestamp": "2025-10-19T12:00:00.25Z",
                        "level": "INFO",
                        "logger": "arc.web.application",
                        "component": "arc.web.application",
                        "message": "POST /query",
                        "service": "arc",
                        "request_id": "7c0e0f5c-0f0b-4f5e-9d3c-5f6c4a3e2b1a",
                        "extra": {"status": 200, "ms": 3.1, "client": "10.0.0.7"},
                    }
                ],
                "count": 1,
                "filters": {"limit": 100, "level": None, "since_minutes": 60, "request_id": None},
                "limit": 100,
                "level_filter": None,
                "since_minutes": 60,
            }
        }
    )

    timestamp: str
    logs: list[dict[str, Any]] = Field(description="Newest first")
    count: int
    filters: dict[str, Any]
    limit: int
    level_filter: str | None
    since_minutes: int


@surface.api("GET", "/logs", "/api/v1/logs", needs="admin", answers={200: LogRecords})
def list_logs(query: LogsQuery) -> Response:
    """The last records of the log, newest first; the server keeps 10,000 in memory."""
    now_us = clock.now_us()
    found = [record_json(entry) for entry in _select(parts().log_ring.entries(), query, now_us)]
    answer = jsonify(
        timestamp=clock.rfc3339(now_us),
        logs=found,
        count=len(found),
        filters=query.model_dump(),
        limit=query.limit,
        level_filter=query.level,
        since_minutes=query.since_minutes,
    )
    return compress(answer)


def record_json(entry: Entry) -> dict[str, Any]:
    record = {
        "timestamp": clock.rfc3339(entry.at_us),
        "level": entry.level,
        "logger": entry.logger,
        "component": entry.logger,
        "message": entry.message,
        "service": "arc",
    }
    rest = {"request_id": entry.request_id, "exception": _exception(entry.exception), "extra": _texts(entry.fields)}
    return record | {name: value for name, value in rest.items() if value}


def _select(entries: list[Entry], query: LogsQuery, now_us: int) -> list[Entry]:
    from_us = now_us - query.since_minutes * 60 * clock.US_PER_S
    least = logging.getLevelNamesMapping()[query.level or "NOTSET"]
    found = [
        entry
        for entry in entries
        if entry.at_us >= from_us
        and logging.getLevelNamesMapping().get(entry.level, logging.INFO) >= least
        and (query.request_id is None or entry.request_id == query.request_id)
    ]
    return found[: -query.limit - 1 : -1]


def _exception(traceback: str) -> dict[str, str] | None:
    """Type, place and, of an error of the operating system, text of the last exception of a traceback."""
    lines = traceback.splitlines()
    frames = [number for number, line in enumerate(lines) if _FRAME.fullmatch(line)]
    after = lines[frames[-1] + 1 :] if frames else lines
    ending = next((match for line in after if (match := _LAST_LINE.fullmatch(line))), None)
    if ending is None:
        return None
    kind = getattr(builtins, ending["type"], None)
    is_harmless = isinstance(kind, type) and issubclass(kind, OSError)
    return {
        "type": ending["type"],
        "message": (ending["message"] or "") if is_harmless else "",
        "traceback": "\n".join(lines[number].strip() for number in frames),
    }


def _texts(fields: dict[str, Any]) -> dict[str, Any]:
    """Values that JSON knows stay as they are."""
    return {
        name: value if isinstance(value, str | int | float | bool | None) else str(value)
        for name, value in fields.items()
    }
