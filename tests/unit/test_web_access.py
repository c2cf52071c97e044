"""Who gets in: public paths, transports of the token, permissions."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from arc.web.auth import ANY, PUBLIC
from tests.unit.web import ADMIN, SECRET, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask import Flask
    from werkzeug.routing import Rule
    from werkzeug.test import TestResponse

PUBLIC_PATHS = {"/", "/health", "/ready", "/ping", "/docs", "/docs/start.js", "/docs/*", "/redoc", "/openapi.json"}
PUBLIC_PATHS |= {"/healthcheck", "/readiness", "/static/*"}
ENROLMENT_PATHS = {"/api/v1/agents/init/<token>", "/api/v1/agents/program"}  # they ask for an enrolment token


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebApp]:
    with WebApp(tmp_path) as app:
        yield app


def routes(app: Flask) -> list[tuple[str, str, str]]:
    """(method, path, what it needs) of every route; 1 or the name of an existing page file stand for parameters."""
    return [
        (method, re.sub("<int:.*?>", "1", re.sub("<[^:]*?>", file_of(rule), rule.rule)), needs_of(app, rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    ]


def file_of(rule: Rule) -> str:
    return "main.js" if rule.rule.startswith("/static/") else "redoc.js"


def needs_of(app: Flask, rule: Rule) -> str:
    needs: str = app.view_functions[rule.endpoint].needs  # type: ignore[attr-defined]
    return needs


def error_of(answer: TestResponse) -> dict[str, Any]:
    """The body of a refusal; the MessagePack query refuses in MessagePack."""
    return msgpack.unpackb(answer.data) if answer.mimetype == "application/msgpack" else answer.get_json()


def test_public_paths_are_these_and_no_others(web: WebApp) -> None:
    public = {rule.rule for rule in web.app.url_map.iter_rules() if needs_of(web.app, rule) == PUBLIC}

    assert {path.replace("<name>", "*") for path in public} == PUBLIC_PATHS | ENROLMENT_PATHS


def test_every_public_route_answers_without_a_token(web: WebApp) -> None:
    for method, path, needs in routes(web.app):
        if needs == PUBLIC and not path.startswith("/api/v1/agents/"):
            assert web.client.open(path, method=method).status_code in (200, 204), path


def test_every_other_route_refuses_without_a_token(web: WebApp) -> None:
    checked = 0
    for method, path, needs in routes(web.app):
        if needs != PUBLIC:
            answer = web.client.open(path, method=method)
            assert answer.status_code == error_of(answer)["status"] == 401, path
            checked += 1
    assert checked > 30


def test_every_route_with_a_permission_refuses_a_token_without_it(web: WebApp) -> None:
    bare = web.token()

    for method, path, needs in routes(web.app):
        if needs not in (PUBLIC, ANY):
            answer = web.client.open(path, method=method, headers=bare)
            assert answer.status_code == 403, path
            assert error_of(answer)["detail"] == f"Permission denied: {needs} permission required"


def test_read_token_cannot_write_and_write_token_cannot_query(web: WebApp) -> None:
    reader, writer = web.token("read"), web.token("write")

    assert web.client.post("/write/v2/msgpack", data=b"x", headers=reader).status_code == 403
    assert web.client.post("/write/v2/msgpack", data=b"x", headers=writer).status_code == 204
    assert web.client.post("/query", json={"sql": "SELECT 1"}, headers=writer).status_code == 403
    assert web.client.post("/query", json={"sql": "SELECT 1"}, headers=reader).status_code == 200


def test_unknown_paths_are_told_to_holders_of_a_token_only(web: WebApp) -> None:
    assert web.client.get("/no/such").status_code == 401
    assert web.client.get("/no/such", headers=web.token()).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {SECRET}"},
        {"Authorization": f"bearer  {SECRET} "},
        {"Authorization": f"Token {SECRET}"},
        {"Authorization": SECRET},
        {"Authorization": "Basic " + base64.b64encode(f"anyone:{SECRET}".encode()).decode()},
        {"x-api-key": SECRET},
        {"X-Auth-Token": SECRET},
    ],
)
@pytest.mark.parametrize("path", ["/auth/verify", "/write/v2/msgpack"])
def test_token_is_read_from_each_transport(web: WebApp, path: str, headers: dict[str, str]) -> None:
    assert web.client.open(path, method="GET" if "auth" in path else "POST", headers=headers).status_code in (200, 204)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong", "x-api-key": SECRET},
        {"Authorization": "", "x-api-key": SECRET},
        {"Authorization": "Basic !!!", "x-api-key": SECRET},
        {"Authorization": f"Digest {SECRET}"},
        {"x-api-key": "wrong", "X-Auth-Token": SECRET},
        {"Authorization": "Bearer w\xe4hlerisch"},
    ],
)
def test_first_transport_decides_even_if_its_token_is_bad(web: WebApp, headers: dict[str, str]) -> None:
    assert web.client.get("/auth/verify", headers=headers).status_code == 401


def test_token_in_the_query_string_counts_on_influx_paths_only(web: WebApp) -> None:
    assert web.client.post(f"/query?u=x&p={SECRET}", json={"sql": "SELECT 1"}).status_code == 200
    assert web.client.post("/query?p=wrong", json={"sql": "SELECT 1"}).status_code == 401
    assert web.client.post(f"/query?p={SECRET}", json={}, headers={"x-api-key": "wrong"}).status_code == 401
    assert web.client.get(f"/measurements?p={SECRET}").status_code == 401


def test_revoked_token_is_refused_at_once(web: WebApp) -> None:
    headers = web.token("read")
    assert web.client.get("/auth/verify", headers=headers).status_code == 200

    web.tokens.revoke(2)

    assert web.client.get("/auth/verify", headers=headers).status_code == 401


def test_allowlist_opens_exact_paths_and_segments(tmp_path: Path) -> None:
    with WebApp(tmp_path, **{"auth.allowlist": "/auth/verify,/write/v2/msgpack/*"}) as web:
        assert web.client.get("/write/v2/msgpack/spec").status_code == 200
        assert web.client.get("/write/v2/msgpack/../flush").status_code == 401
        assert web.client.get("/write/v2/msgpackX").status_code == 401
        assert web.client.get("/auth/verify/x").status_code == 401
        assert web.client.get("/healthXYZ").status_code == 401


def test_without_authentication_everybody_may_do_everything(tmp_path: Path) -> None:
    with WebApp(tmp_path, **{"auth.enabled": "false"}) as web:
        assert web.client.get("/auth/tokens").status_code == 200
        assert web.client.get("/auth/verify").get_json()["token_info"] == {"name": "anonymous"}
        assert web.client.post("/write/v2/msgpack", data=b"x").status_code == 204


def test_admin_implies_reading_and_writing(web: WebApp) -> None:
    assert web.client.post("/query", json={"sql": "SELECT 1"}, headers=web.token("admin")).status_code == 200
    assert web.client.get("/auth/tokens", headers=ADMIN).status_code == 200
