"""Listener: this node's attributes and actions over HTTP, for programs on this machine or in its network.

`agent --listen 127.0.0.1:8001 --listen-token ...` -> http.server, a thread per connection -> /api/unstable/*
The routes and answers are those of the server (arc/web/actions.py). One token may do everything.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from arc import clock, errors
from arc.actions import rules, tracing
from arc.actions.body import CONTROL, ENVELOPE, MAX_BODY_BYTES, opened, strict_json
from arc.actions.errors import InvalidJson, QueueFull
from arc.errors import ArcError, ConfigError, Invalid, NotFound, TooLarge, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

    from arc.actions.engine import ActionEngine
    from arc.actions.node import Node

log = logging.getLogger(__name__)

ROOT = "/api/unstable"
MIN_TOKEN = 16  # characters
IDLE_S = 30.0  # seconds without a request until a connection is closed
MAX_CONNECTIONS = 16
MAX_WAITERS = 4  # requests that may wait for a change
TEXT = {"Content-Type": "text/plain; charset=utf-8"}
STATUS: tuple[tuple[type[ArcError], int], ...] = (  # first match wins
    (QueueFull, 429),
    (Invalid, 400),
    (Unauthenticated, 401),
    (errors.Denied, 403),
    (NotFound, 404),
    (errors.Conflict, 409),
    (TooLarge, 413),
    (errors.Unavailable, 503),
)
_DIGITS = re.compile(r"[0-9]{1,20}")
CODES = {Unauthenticated: "Unauthorized", Invalid: "InvalidRequest"}  # of errors that other parts raise


class MethodNotAllowed(ArcError):
    def __init__(self, allowed: str) -> None:
        super().__init__(f"this route takes {allowed}")
        self.allowed = allowed


class Answer(NamedTuple):
    body: Any
    headers: dict[str, str] | None = None
    status: int = 200


class Request(NamedTuple):
    """rest: of the path, behind the route. query: the first value of each name. repeated: names with more than one."""

    rest: str
    query: dict[str, str]
    repeated: frozenset[str]
    headers: Message
    body: bytes


class Listener:
    """address: `HOST:PORT`. Raises ConfigError."""

    def __init__(self, address: str, token: str, node: Node, engine: ActionEngine) -> None:
        if len(token) < MIN_TOKEN:
            raise ConfigError(f"listen needs a listen_token of at least {MIN_TOKEN} characters")
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            raise ConfigError(f"listen: {address!r} is no address such as 127.0.0.1:8001")
        routes = Routes(node, engine)
        try:
            self._server = _Server((host.strip("[]") or "127.0.0.1", int(port)), token, routes)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen on {address}: {getattr(error, 'strerror', error)}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="listener", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()
        log.info("actions of this node are served at http://%s:%d%s", *self._server.server_address[:2], ROOT)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(5.0)
        self._server.server_close()


class Routes:
    """By method and path below the root; a path that ends in a slash takes what follows."""

    def __init__(self, node: Node, engine: ActionEngine) -> None:
        self._engine = engine
        self._waiters = threading.BoundedSemaphore(MAX_WAITERS)
        self._routes: dict[str, tuple[str, Callable[[Request], Answer]]] = {
            "": ("GET", lambda _: Answer("Arc: attributes and actions of this node\n", TEXT)),
            "/info/agent": ("GET", lambda _: Answer({"version": node.version.as_dict()})),
            "/info/datastore": ("GET", lambda _: Answer(node.datastore().as_dict())),
            "/shards": ("GET", lambda _: Answer(node.shards.as_dict())),
            "/actions": ("GET", lambda _: Answer({"actions": True})),
            "/actions/available": ("GET", lambda _: Answer([kind.as_dict() for kind in self._engine.kinds()])),
            "/actions/queue": ("GET", lambda _: Answer([action.as_dict() for action in self._engine.queue()])),
            "/actions/finished": ("GET", self._finished),
            "/actions/info/": ("GET", self._info),
            "/actions/schedule/": ("POST", self._schedule),
            "/actions/cancel/": ("POST", self._cancel),
        }

    def find(self, method: str, path: str) -> tuple[Callable[[Request], Answer], str]:
        """The handler, and what follows its path. Raises NotFound, MethodNotAllowed."""
        for route, (allowed, handler) in self._routes.items():
            full = ROOT + route
            takes_rest = route.endswith("/") and path.startswith(full) and path != full
            if takes_rest or path.rstrip("/") == full:
                if method not in (allowed, "HEAD" if allowed == "GET" else allowed):
                    raise MethodNotAllowed("GET, HEAD" if allowed == "GET" else allowed)
                return handler, path.removeprefix(full) if takes_rest else ""
        raise NotFound(f"there is nothing at {path}")

    def _finished(self, request: Request) -> Answer:
        limit = _number(request.query, "limit", 100, 1, 1000)
        found = self._engine.finished(limit, request.query.get("before"))
        total = str(self._engine.store.finished_count())
        return Answer([action.as_dict() for action in found], {"X-Total-Count": total})

    def _info(self, request: Request) -> Answer:
        action_id = request.rest.rstrip("/")
        revision = self._engine.get(action_id)[0].revision
        wait_s = _number(request.query, "wait", 0, 0, 60)
        known = _number(request.query, "revision", revision, 0, 2**63)
        if wait_s and known == revision and self._waiters.acquire(blocking=False):
            try:
                self._engine.wait_for_change(action_id, revision, wait_s)
            finally:
                self._waiters.release()
            revision = self._engine.get(action_id)[0].revision
        etag = f'"{revision}"'
        if etag in request.headers.get("If-None-Match", ""):
            return Answer(None, {"ETag": etag}, 304)
        return Answer(self._engine.info(action_id), {"ETag": etag})

    def _schedule(self, request: Request) -> Answer:
        if request.repeated.intersection(CONTROL):
            raise InvalidJson("action_id, created_ts and requester may each be given once")
        said = {name: request.query[name] for name in CONTROL if name in request.query}
        args = strict_json(request.body)
        if request.headers.get_content_type() == ENVELOPE:
            args, said = opened(args, said)
        created = said.get("created_ts")
        record = self._engine.schedule(
            request.rest.rstrip("/"),
            args,
            action_id=said.get("action_id"),
            created_us=None if created is None else rules.created_us(created),
            requester=said.get("requester"),
            headers=tracing.in_own_span(request.headers.items()),
            requested_by="listener",
        )
        return Answer({"id": record.id}, tracing.answer_headers(record.headers))

    def _cancel(self, request: Request) -> Answer:
        body = strict_json(request.body) if request.body else {}
        reason = body.get("reason", "") if isinstance(body, dict) else None
        if not isinstance(reason, str) or len(reason) > 1000:
            raise InvalidJson("reason must be a text of at most 1000 characters")
        record = self._engine.cancel(request.rest.rstrip("/"), reason)
        if record.state.is_final:
            return Answer({"id": record.id, "state": "CANCELLED"})
        return Answer({"id": record.id, "state": record.state.value, "cancel_requested": True})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a caller that waits for a change must not hold up a stop

    def __init__(self, address: tuple[str, int], token: str, routes: Routes) -> None:
        self.token = token.encode()
        self.routes = routes
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a caller went away", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Arc", ""
    timeout = IDLE_S

    def parse_request(self) -> bool:
        """Every method comes to one place, which knows what is allowed."""
        if not super().parse_request():
            return False
        self._answer()
        return False

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def _answer(self) -> None:
        self._request_id = os.urandom(8).hex()
        try:
            self._send(self._find_answer())
        except ArcError as error:
            self._send(_refusal(error))
        except Exception:
            log.exception("%s %.200s failed request_id=%s", self.command, self.path, self._request_id)
            self._send(Answer(_error_body(500, "Internal server error", "InternalError"), status=500))

    def _find_answer(self) -> Answer:
        body = self._read_body()  # in any case, or what is left of it would be taken for the next request
        self._check_token()
        try:
            url = urlsplit(self.path)
        except ValueError as error:
            raise Invalid(f"this is no address: {error}") from None
        handler, rest = self.server.routes.find(self.command, unquote(url.path))
        given = parse_qs(url.query, keep_blank_values=True)
        query = {name: values[0] for name, values in given.items()}
        repeated = frozenset(name for name, values in given.items() if len(values) > 1)
        return handler(Request(rest, query, repeated, self.headers, body))

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not _DIGITS.fullmatch(length) or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise Invalid("a body needs a Content-Length")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise TooLarge(f"the arguments of an action may have {MAX_BODY_BYTES} bytes")
        return self.rfile.read(int(length))

    def _check_token(self) -> None:
        scheme, _, secret = self.headers.get("Authorization", "").partition(" ")
        given = secret.strip() if scheme.lower() in ("bearer", "token") else self.headers.get("X-Api-Key", "")
        if not secrets.compare_digest(given.encode(), self.server.token):
            raise Unauthenticated("invalid or missing token")

    def _send(self, answer: Answer) -> None:
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        content = b"" if answer.status == 304 else text.encode()
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))} if content else {}
        headers |= {"Cache-Control": "no-store", "X-Request-Id": self._request_id}
        for name, value in (headers | (answer.headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _refusal(error: ArcError) -> Answer:
    if isinstance(error, MethodNotAllowed):
        return Answer(_error_body(405, str(error), "MethodNotAllowed"), {"Allow": error.allowed}, 405)
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, errors.Unavailable) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    code = CODES.get(type(error), type(error).__name__)
    return Answer(_error_body(status, str(error), code, dict(error.details)), headers, status)


def _error_body(status: int, text: str, code: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "status": status,
        "detail": text,
        "message": text,
        "error": text,
        "success": False,
        "code": HTTPStatus(status).phrase.lower(),
        "timestamp": clock.rfc3339(clock.now_us()),
        "kind": code,
        "variant": code,
        "layers": [text],
        "trace": None,
        "details": details or {},
    }


def _number(query: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise Invalid(f"{name} must be a whole number from {least} to {most}")
    return int(text)
