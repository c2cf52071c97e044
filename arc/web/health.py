"""What Arc is and how it does: /, /health, /ready, and InfluxDB's /ping."""

from __future__ import annotations

import logging

from flask import Response, jsonify, make_response, request
from pydantic import BaseModel, ConfigDict, Field

import arc
from arc import clock
from arc.web import dashboard
from arc.web.auth import PUBLIC
from arc.web.parts import parts
from arc.web.surface import Surface

log = logging.getLogger(__name__)

INFLUX_VERSION = "1.8.10-arc"  # clients read the generation off the first digit

surface = Surface("health", "Health", "Is Arc there, is it ready, and which version is it? No token needed.")


class Service(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"service": "Arc Core", "version": "1.0.0"}})

    service: str
    version: str
    status: str
    docs: str
    redoc: str
    openapi: str
    health: str
    auth: bool


class FailedCheck(BaseModel):
    name: str
    status: str = Field(description="FAILED; to InfluxDB's clients fail")
    message: str


class Health(BaseModel):
    status: str
    service: str
    name: str
    message: str
    version: str
    timestamp: str
    time: str
    uptime: str
    uptime_sec: float
    storage: str
    checks: list[FailedCheck] = Field(description="What is wrong beside that; empty: nothing")


class Readiness(BaseModel):
    status: str
    checks: dict[str, bool]
    details: dict[str, bool]
    errors: list[str]
    message: str
    reason: str | None
    timestamp: str
    time: str
    uptime_sec: float


class PingQuery(BaseModel):
    verbose: bool = False


@surface.api("GET", "/", needs=PUBLIC, answers={200: Service})
def root() -> Response:
    """What this service is, where its documentation stands, whether it wants a token; to browsers the dashboard."""
    answer = dashboard.page() or jsonify(
        service="Arc Core",
        version=arc.__version__,
        status="running",
        docs="/docs",
        redoc="/redoc",
        openapi="/openapi.json",
        health="/health",
        auth=parts().config.get("auth", "enabled"),
    )
    answer.vary.add("Accept")
    return answer


@surface.api("GET", "/health", needs=PUBLIC, answers={200: Health, 503: Health})
def health() -> Response:
    """200 as long as the process serves, 503 when it cannot read its database; /ready says whether it can work.

    What is wrong with a part that others do not need stands in `checks`. Programs written with InfluxDB's 2.x clients
    compare `status` with `pass`, so these clients are answered that.
    """
    is_influx, is_up = request.headers.get("User-Agent", "").startswith("influxdb-client"), _is_database_there()
    up, down = ("pass", "fail") if is_influx else ("UP", "DOWN")
    now, uptime_s = clock.rfc3339(clock.now_us()), parts().uptime_s()
    answer = jsonify(
        status=up if is_up else down,
        service="Arc",
        name="arc",
        message="ready for queries and writes" if is_up else "the metadata database cannot be read",
        version=arc.__version__,
        timestamp=now,
        time=now,
        uptime=_go_duration(uptime_s),
        uptime_sec=round(uptime_s, 3),
        storage="local",
        checks=_failed_checks("fail" if is_influx else "FAILED"),
    )
    answer.status_code = 200 if is_up else 503
    return answer


@surface.api("GET", "/ready", needs=PUBLIC, answers={200: Readiness, 503: Readiness})
def ready() -> Response:
    """200 when reads and writes work; 503 while the write-ahead log is being replayed, and once the server stops."""
    reason = _why_not_ready()
    is_ready = reason is None
    now = clock.rfc3339(clock.now_us())
    answer = jsonify(
        status="ready" if is_ready else "not_ready",
        checks={"database": True, "api_server": True, "scheduler": True},
        details={
            "query_engine_initialized": is_ready,
            "scheduler_running": True,
            "active_storage_connection": is_ready,
        },
        errors=[] if reason is None else [reason],
        message="Service fully operational" if is_ready else "Service not ready",
        reason=reason,
        timestamp=now,
        time=now,
        uptime_sec=round(parts().uptime_s(), 3),
    )
    answer.status_code = 200 if is_ready else 503
    return answer


@surface.api("GET", "/ping", needs=PUBLIC, answers={204: None, 200: {"description": "With `verbose=true`"}})
def ping(query: PingQuery) -> Response:
    """What InfluxDB 1.x clients ask before they write."""
    answer = jsonify(version=INFLUX_VERSION) if query.verbose else make_response("", 204)
    answer.headers["X-Influxdb-Version"] = INFLUX_VERSION
    answer.headers["X-Influxdb-Build"] = "OSS"
    answer.headers["Request-Id"] = request.environ["arc.request_id"]
    return answer


def _why_not_ready() -> str | None:
    if parts().is_stopping.is_set():
        return "the server is stopping"
    return None if parts().store.is_ready else "the write-ahead log is being replayed"


def _is_database_there() -> bool:
    try:
        parts().jobs.reader.nodes()  # few rows, but out of the file
    except Exception:  # whatever it is, no job and no token can be looked up
        log.exception("the metadata database cannot be read")
        return False
    return True


def _failed_checks(word: str) -> list[dict[str, str]]:
    """Without the reason, which may name files: everybody may ask."""
    node = parts().node
    if node is None or node.engine is None or node.engine.fault is None:
        return []
    return [{"name": "actions", "status": word, "message": "the outcome of a step cannot be stored; the log says why"}]


def _go_duration(seconds: float) -> str:
    """`1h23m45.6s`, as the command-line client reads it."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.1f}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
