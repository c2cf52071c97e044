"""The web application: every surface under one roof, and the entry that all requests pass.

server -> Entry -> hot route | Flask -> before_request: gate -> handler -> answer | errors.respond -> audit
Entry does what every answer needs, whoever makes it: request id, one spelling of the path, CORS, common headers.
Hot routes, of writes and of agents that ask for work, skip Flask because Flask costs as much as decoding a small write
(7,600 against 3,300 requests per CPU second); they share access and errors with everything else.
"""

from __future__ import annotations

import logging
import posixpath
import random
import re
import time
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from flask import Flask, current_app, request
from flask.json.provider import JSONProvider
from werkzeug.routing import Rule

from arc import logs
from arc.web import (
    actions,
    agent_actions,
    audit,
    backup,
    compaction,
    continuous_queries,
    dashboard,
    databases,
    deletion,
    documentation,
    errors,
    fleet,
    fleet_enrolment,
    fleet_figures,
    fleet_jobs,
    fleet_transport,
    health,
    importing,
    influx,
    jobs,
    logview,
    monitoring,
    parse,
    query,
    query_management,
    queues,
    retention,
    schedulers,
    system,
    tasks,
    tokens,
    wal,
    write,
)
from arc.web.auth import ANY, Gate
from arc.web.counters import UNKNOWN
from arc.web.parts import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from arc.web.parts import Parts
    from arc.web.surface import Finish, HotRoute

log = logging.getLogger(__name__)

SURFACES = tuple(
    module.surface
    for module in (
        health,
        write,
        importing,
        query,
        query_management,
        databases,
        influx,
        deletion,
        compaction,
        retention,
        continuous_queries,
        schedulers,
        jobs,
        tasks,
        queues,
        fleet,
        fleet_enrolment,
        fleet_jobs,
        fleet_transport,
        actions,
        agent_actions,
        tokens,
        audit,
        monitoring,
        logview,
        wal,
        backup,
        system,
        dashboard,
        documentation,
    )
)
# Of writes; these have no variables.
HOT_PATHS = frozenset(path for surface in SURFACES for _, path in surface.hot_routes if "<" not in path)
Headers = list[tuple[str, str]]

SECURITY_HEADERS: Headers = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("X-XSS-Protection", "1; mode=block"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Permissions-Policy", "geolocation=(), microphone=(), camera=()"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
]
PREFLIGHT_HEADERS: Headers = [
    ("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Content-Encoding, x-api-key, x-arc-database, X-Request-ID",
    ),
    ("Access-Control-Max-Age", "600"),
]
EXPOSED_HEADERS = "X-Request-Id, X-Arc-Query-ID, X-Row-Count, X-Execution-Time-Ms, X-Wait-Time-Ms, Retry-After"
_SANE_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def create_app(handed: Parts) -> Flask:
    """The WSGI application; what it serves is in SURFACES."""
    app = Flask("arc.web", static_folder=None)
    app.request_class = parse.ArcRequest
    app.url_rule_class = _Rule
    app.json = _Orjson(app)
    for surface in SURFACES:
        app.register_blueprint(surface)
    auth = handed.config.section("auth")
    public = [path for surface in SURFACES for path in surface.public_paths]
    gate = Gate(handed.tokens, enabled=auth["enabled"], public=[*public, *auth["allowlist"]])
    app.extensions |= {"arc": handed, "arc.gate": gate}
    app.before_request(_note_route)
    app.before_request(influx.influxql_instead_of_sql)
    app.before_request(_check_access)
    app.after_request(audit.record)
    app.after_request(fleet_figures.note_sizes)
    app.register_error_handler(Exception, errors.respond)
    app.wsgi_app = Entry(app.wsgi_app, gate, handed)  # type: ignore[method-assign]
    return app


class _HotRoutes:
    """Which of the routes ahead of Flask a request is for."""

    def __init__(self) -> None:
        routes = {key: route for surface in SURFACES for key, route in surface.hot_routes.items()}
        self._exact = {key: route for key, route in routes.items() if "<" not in key[1]}
        self._variable = [
            (method, re.compile(re.sub("<[^>]+>", "([^/]+)", path)), path, route)
            for (method, path), route in routes.items()
            if "<" in path
        ]

    def find(self, method: str, path: str) -> tuple[HotRoute, str, tuple[str, ...]] | None:
        """The route, its path as it is written in the code, and the values of its variables."""
        route = self._exact.get((method, path))
        if route is not None:
            return route, path, ()
        for its_method, pattern, its_path, route in self._variable:
            if its_method == method and (found := pattern.fullmatch(path)):
                return route, its_path, tuple(map(_as_text, found.groups()))
        return None


def _as_text(value: str) -> str:
    """WSGI hands over the bytes of a path as if they were Latin-1."""
    return value.encode("latin-1").decode("utf-8", "replace")


class Entry:
    """What every request passes first."""

    def __init__(self, flask: WSGIApplication, gate: Gate, parts: Parts) -> None:
        self._flask = flask
        self._hot = _HotRoutes()
        self._gate = gate
        self._parts = parts
        options = parts.config.section("server")
        self._max_body_bytes = options["max_body_size"]
        self._origins = frozenset(options["cors_origins"] if options["cors_enabled"] else ())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request_id = environ["arc.request_id"] = sane_request_id(environ.get("HTTP_X_REQUEST_ID"))
        environ["arc.started_s"] = time.perf_counter()
        environ["PATH_INFO"] = normal_path(environ["PATH_INFO"])
        logs.request_id.set(request_id)
        mine = self._parts.requests.mine()
        mine.begin()
        common = [("X-Request-Id", request_id), *self._cors(environ)]

        def start(status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
            given = {name for name, _ in headers}  # a page may bring a content policy of its own
            took_s = time.perf_counter() - environ["arc.started_s"]
            mine.answer(environ.get("arc.route", UNKNOWN), int(status[:3]), took_s)
            _log_access(environ, status, took_s)
            return start_response(
                status, headers + common + [h for h in SECURITY_HEADERS if h[0] not in given], exc_info
            )

        if self._origins and _is_preflight(environ):
            start("204 No Content", PREFLIGHT_HEADERS)
            return []
        method = environ["REQUEST_METHOD"]
        hot = self._hot.find("GET" if method == "HEAD" else method, environ["PATH_INFO"])
        if hot is None:
            return self._flask(environ, start)
        route, path, variables = hot
        environ["arc.route"] = (method, path)
        return self._begin(route, variables, environ, start)

    def _begin(
        self, route: HotRoute, variables: tuple[str, ...], environ: WSGIEnvironment, start: StartResponse
    ) -> Iterable[bytes]:
        """Does the first half of a request; who iterates over what it returns has the second half done.

        So a server that begins several writes before it asks for any answer has them committed together.
        """
        try:
            self._gate.admit(environ, route.needs)
            parse.check_size(environ, self._max_body_bytes)
            finish = route.handler(self._parts, environ, *variables)
        except Exception as exc:
            return _refusal(exc, environ, start)
        return _finished(finish, environ, start)

    def _cors(self, environ: WSGIEnvironment) -> Headers:
        origin = environ.get("HTTP_ORIGIN")
        if not self._origins or not origin:
            return []
        if "*" in self._origins:
            return [("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", EXPOSED_HEADERS)]
        if origin not in self._origins:
            return []
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", EXPOSED_HEADERS),
            ("Vary", "Origin"),
        ]


def _finished(finish: Finish, environ: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
    logs.request_id.set(environ["arc.request_id"])  # others may have begun since
    try:
        answer = finish()
    except Exception as exc:
        yield from _refusal(exc, environ, start)
        return
    if answer is None:
        start("204 No Content", [])
        return
    body = orjson.dumps(answer)
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    if environ["REQUEST_METHOD"] != "HEAD":
        yield body


def _refusal(exc: Exception, environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
    status, headers, body = errors.answer_for(exc, environ)
    start(f"{status} {HTTPStatus(status).phrase}", [*headers, ("Content-Length", str(len(body)))])
    return [body]


def sane_request_id(given: str | None) -> str:
    """The client's own id when it is short and printable, else a new one."""
    if given and _SANE_REQUEST_ID.fullmatch(given):
        return given
    # Unique is enough, nobody guards a secret with it; uuid4() asks the kernel each time.
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def normal_path(path: str) -> str:
    """One spelling per route: no trailing, doubled or dot segments, for routing and for access alike."""
    if not path.endswith("/") and "//" not in path and "/." not in path:
        return path
    return posixpath.normpath("/" + path.lstrip("/"))


def _note_route() -> None:
    if request.url_rule is not None:
        request.environ["arc.route"] = (request.method, request.url_rule.rule)


def _check_access() -> None:
    view = current_app.view_functions.get(request.endpoint or "")
    needs: str = getattr(view, "needs", ANY)  # unknown routes too are for holders of a token only
    gate: Gate = current_app.extensions["arc.gate"]
    gate.admit(request.environ, needs)
    parse.check_size(request.environ, parse.size_limit(request.path, parts().config.section("server")))


def _is_preflight(environ: WSGIEnvironment) -> bool:
    return environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ


def _log_access(environ: WSGIEnvironment, status: str, took_s: float) -> None:
    """One line per request. A write that worked is a line at DEBUG only: there may be thousands in a second.

    The query string stays out: it may hold a token. arc.logged_path: what to say in place of a path that holds one;
    arc.is_routine: another request of which there may be thousands; so are the reads of an open dashboard.
    """
    is_live = environ["REQUEST_METHOD"] == "GET" and "HTTP_X_ARC_LIVE" in environ and status < "4"
    is_routine = status.startswith("204") or is_live or environ.get("arc.is_routine", False)
    level = logging.DEBUG if is_routine else logging.INFO
    if log.isEnabledFor(level):
        path = environ.get("arc.logged_path", environ["PATH_INFO"])
        fields = {"status": int(status[:3]), "ms": round(took_s * 1000, 1), "client": environ.get("REMOTE_ADDR", "")}
        log.log(level, "%s %s", environ["REQUEST_METHOD"], path, extra=fields)


class _Rule(Rule):
    """A route that only matches. To compile what writes its URL took most of a start's routing, and nobody asks."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., Any]:
        return _not_built


def _not_built(*_: object) -> None:
    """No URL is made of a route."""


class _Orjson(JSONProvider):
    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return orjson.loads(s)
