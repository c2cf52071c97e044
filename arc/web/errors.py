"""Errors as HTTP answers: families become status codes, texts become the one error body.

domain raises ArcError -> answer_for -> (status, headers, JSON body)
The same function serves Flask, the hot write routes ahead of it and, through error_body, the server itself.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from flask import Response, request
from werkzeug.exceptions import HTTPException

from arc import clock, errors
from arc.actions.errors import QueueFull
from arc.fleet import relay

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)

# First match wins, so a family stands before its base.
STATUS: dict[type[errors.ArcError], int] = {
    errors.Unreadable: 422,  # of files only; what is wrong with a request itself is a 400
    errors.Invalid: 400,
    errors.Unauthenticated: 401,
    errors.Denied: 403,
    errors.NotFound: 404,
    errors.TimedOut: 408,
    errors.Conflict: 409,
    errors.Cancelled: 409,
    errors.TooLarge: 413,
    errors.Unsupported: 501,
    QueueFull: 429,
    relay.QueueFull: 429,
    errors.Unavailable: 503,
}
# The words InfluxDB's own clients know.
CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    408: "timeout",
    409: "conflict",
    413: "request too large",
    422: "unprocessable entity",
    429: "too many requests",
    500: "internal error",
    501: "not implemented",
    503: "unavailable",
    504: "timeout",
}


def status_of(exc: errors.ArcError, path: str) -> int:
    """The status code of an error; 500 for a family that no request should meet."""
    if isinstance(exc, errors.TimedOut) and path.startswith("/api/v1/"):
        return 504  # what clients of the /api/v1 generation know a time-out by
    return next((code for kind, code in STATUS.items() if isinstance(exc, kind)), 500)


def error_body(status: int, text: str, **more: Any) -> dict[str, Any]:
    """The error object of every route: each client finds the key it reads. `more` adds or replaces keys."""
    return {
        "status": status,
        "detail": text,
        "message": text,
        "error": text,
        "success": False,
        "code": CODES.get(status, HTTPStatus(status).phrase.lower()),
        "timestamp": clock.rfc3339(clock.now_us()),
        **more,
    }


def answer_for(exc: Exception, environ: WSGIEnvironment, **more: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body for whatever a request ended with; what is no ArcError is logged as a defect."""
    status, headers, text = 500, [("Content-Type", "application/json")], "Internal server error"
    if isinstance(exc, errors.ArcError):
        status, text, more = status_of(exc, environ["PATH_INFO"]), str(exc), {**exc.details, **more}
    elif isinstance(exc, HTTPException):
        status, text = exc.code or 500, exc.name
        headers += [(name, value) for name, value in exc.get_headers() if name == "Allow"]
    if status == 404 and isinstance(exc, HTTPException):
        # Command-line clients recognise an unknown route by these first words.
        more["error"] = f"Cannot {environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
    if status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))
    if isinstance(exc, errors.Unavailable):
        headers.append(("Retry-After", str(exc.retry_after_s)))
    if status >= 500 and not isinstance(exc, errors.ArcError):
        log.error("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"], exc_info=exc)
    return status, headers, orjson.dumps(error_body(status, text, **more))


def respond(exc: Exception, **more: Any) -> Response:
    """The error as a Flask answer; surfaces that promise more keys name them."""
    status, headers, body = answer_for(exc, request.environ, **more)
    return Response(body, status, headers)
