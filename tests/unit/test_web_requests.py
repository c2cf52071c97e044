"""What holds for every answer: error body, request id, headers, CORS, HEAD, 405, slashes, body limit."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

import pytest

from arc.errors import Cancelled, Conflict, Invalid, NotFound, TimedOut, TooLarge, Unavailable
from tests.unit.web import ADMIN, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from werkzeug.test import TestResponse

ORIGIN = "https://grafana.example"
WRITE = "/write/v2/msgpack"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebApp]:
    with WebApp(tmp_path) as app:
        yield app


@pytest.fixture
def cors(tmp_path: Path) -> Iterator[WebApp]:
    with WebApp(tmp_path, **{"server.cors_enabled": "true", "server.cors_origins": ORIGIN}) as app:
        yield app


def assert_error(answer: TestResponse, status: int, code: str, text: str) -> None:
    body = answer.get_json()
    assert answer.status_code == body["status"] == status
    assert body["code"] == code
    assert body["success"] is False
    assert text in body["detail"]
    assert body["message"] == body["detail"]
    assert body["error"]


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (Invalid("no such column"), 400, "invalid"),
        (NotFound("no such thing"), 404, "not found"),
        (Conflict("busy"), 409, "conflict"),
        (Cancelled("stopped"), 409, "conflict"),
        (TooLarge("too much"), 413, "request too large"),
        (TimedOut("too slow"), 408, "timeout"),
        (Unavailable("full", retry_after_s=7), 503, "unavailable"),
    ],
)
@pytest.mark.parametrize("path", ["/query", WRITE])
def test_domain_errors_become_one_body(web: WebApp, path: str, raised: Exception, status: int, code: str) -> None:
    web.queries.fails_with = web.store.fails_with = raised

    answer = web.client.post(path, json={"sql": "SELECT 1"}, headers=ADMIN)

    assert_error(answer, status, code, str(raised))
    assert answer.headers.get("Retry-After") == ("7" if status == 503 else None)


def test_time_out_is_504_on_the_newer_path(web: WebApp) -> None:
    web.queries.fails_with = TimedOut("too slow")

    assert_error(web.client.post("/api/v1/query", json={"sql": "SELECT 1"}, headers=ADMIN), 504, "timeout", "too slow")


@pytest.mark.parametrize("path", ["/query", WRITE])
def test_defect_is_500_without_detail_and_logged_with_its_request(
    web: WebApp, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    web.queries.fails_with = web.store.fails_with = RuntimeError("secret inner state")

    answer = web.client.post(path, json={"sql": "SELECT 1"}, headers=ADMIN)

    assert_error(answer, 500, "internal error", "Internal server error")
    assert "secret inner state" not in answer.text
    assert "RuntimeError: secret inner state" in caplog.text


def test_missing_token_is_401(web: WebApp) -> None:
    answer = web.client.get("/measurements")

    assert_error(answer, 401, "unauthorized", "Invalid or missing API token")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_unknown_path_names_verb_and_path(web: WebApp) -> None:
    answer = web.client.put("/no/such", headers=ADMIN)

    assert_error(answer, 404, "not found", "Not Found")
    assert answer.get_json()["error"] == "Cannot PUT /no/such"


@pytest.mark.parametrize(("path", "allowed"), [(WRITE, "POST"), ("/query", "POST"), ("/auth/tokens/1", "PATCH")])
def test_wrong_verb_is_405_and_says_what_is_allowed(web: WebApp, path: str, allowed: str) -> None:
    answer = web.client.put(path, headers=ADMIN)

    assert_error(answer, 405, "method not allowed", "Method Not Allowed")
    assert allowed in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/query", WRITE])
def test_body_above_the_limit_is_413(tmp_path: Path, path: str) -> None:
    with WebApp(tmp_path, **{"server.max_body_size": "1MB"}) as web:
        answer = web.client.post(path, data=b" " * (2**20 + 1), headers=ADMIN)

    assert_error(answer, 413, "request too large", "Payload too large (max 1MB)")
    assert web.store.writes == []


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/query", b"{", "Invalid request body: "),
        ("/query", b"{}", "SQL query is required"),
        ("/query", b"", "SQL query is required"),
        ("/query", b'{"sql": ""}', "SQL query is required"),
        ("/query", b'{"sql": 1}', "sql: "),
        ("/query", b'{"sql": "SELECT 1", "limit": 0}', "limit: "),
        ("/query", b"[1]", "dictionary"),
        ("/auth/tokens", b"{}", "name: Field required"),
        ("/auth/tokens", b'{"name": "x", "permissions": ["fly"]}', "permissions.0: "),
        ("/auth/tokens", b'{"name": "x", "expires_in": "soon"}', "expires_in: "),
        ("/auth/tokens", b'{"name": "x", "expires_at": "soon"}', "expires_at: "),
    ],
)
def test_unfit_body_is_400_and_names_the_field(web: WebApp, path: str, body: bytes, text: str) -> None:
    assert_error(web.client.post(path, data=body, headers=ADMIN), 400, "invalid", text)


def test_json_is_read_whatever_its_content_type(web: WebApp) -> None:
    headers = {**ADMIN, "Content-Type": "application/x-www-form-urlencoded"}

    assert web.client.post("/query", data=b'{"sql": "SELECT 1"}', headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/query", WRITE, "/no/such"])
def test_every_answer_carries_a_request_id(web: WebApp, path: str) -> None:
    echoed = web.client.post(path, headers={"X-Request-ID": "edge-7/42"})
    made = web.client.post(path, headers={"X-Request-ID": "with blank"})
    too_long = web.client.post(path, headers={"X-Request-ID": "x" * 129})

    assert echoed.headers["X-Request-Id"] == "edge-7/42"
    assert uuid.UUID(made.headers["X-Request-Id"]).version == 4
    assert uuid.UUID(too_long.headers["X-Request-Id"]).version == 4


def test_requests_are_logged_without_their_query_string(web: WebApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    web.client.get("/measurements?p=very-secret")

    assert "GET /measurements" in caplog.text
    assert "very-secret" not in caplog.text


@pytest.mark.parametrize("path", ["/health", WRITE, "/docs"])
def test_security_headers_stand_once(web: WebApp, path: str) -> None:
    headers = web.client.post(path, headers=ADMIN, data=b"x").headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert len(headers.getlist("Content-Security-Policy")) == 1


def test_pages_bring_a_content_policy_of_their_own(web: WebApp) -> None:
    policies = web.client.get("/docs").headers.getlist("Content-Security-Policy")

    assert len(policies) == 1
    assert "script-src 'self'" in policies[0]


@pytest.mark.parametrize("path", ["/health", "/", "/docs", "/openapi.json"])
def test_head_answers_as_get_without_a_body(web: WebApp, path: str) -> None:
    get, head = web.client.get(path), web.client.head(path)

    assert head.status_code == get.status_code == 200
    assert head.data == b""
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize("path", ["/health/", "/./health", "/auth/../health", "/health///"])
def test_spelling_of_slashes_does_not_matter(web: WebApp, path: str) -> None:
    assert web.client.get(path).get_json()["status"] == "UP"


def test_trailing_slash_reaches_a_write_route(web: WebApp) -> None:
    assert web.client.post(WRITE + "/", data=b"x", headers=ADMIN).status_code == 204


def test_dots_do_not_open_a_protected_path(web: WebApp) -> None:
    assert web.client.get("/docs/../auth/tokens").status_code == 401


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_without_cors_no_answer_mentions_it(web: WebApp, method: str) -> None:
    headers = {**ADMIN, "Origin": ORIGIN, "Access-Control-Request-Method": "POST"}

    for path in ("/health", "/query", WRITE):
        answer = web.client.open(path, method=method, headers=headers)
        assert not [name for name in answer.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118


def test_options_names_the_verbs_to_holders_of_a_token(web: WebApp) -> None:
    assert web.client.options("/query").status_code == 401
    assert "POST" in web.client.options("/query", headers=ADMIN).headers["Allow"]


def test_listed_origin_is_echoed_and_others_are_not(cors: WebApp) -> None:
    listed = cors.client.get("/health", headers={"Origin": ORIGIN})
    other = cors.client.get("/health", headers={"Origin": "https://evil.example"})

    assert listed.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Origin" in listed.headers["Vary"]
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize("path", ["/query", WRITE, "/auth/tokens"])
def test_preflight_needs_no_token(cors: WebApp, path: str) -> None:
    answer = cors.client.options(path, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})

    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]


def test_refusals_carry_cors_headers_too(cors: WebApp) -> None:
    for path in (WRITE, "/query"):
        answer = cors.client.post(path, headers={"Origin": ORIGIN})
        assert answer.status_code == 401
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_star_allows_any_origin_without_credentials(tmp_path: Path) -> None:
    with WebApp(tmp_path, **{"server.cors_enabled": "true", "server.cors_origins": "*"}) as web:
        answer = web.client.get("/health", headers={"Origin": "https://anywhere.example"})

    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
