"""Tokens over HTTP: their life, and the keys every generation of clients reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arc import clock
from tests.unit.web import ADMIN, SECRET, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASES = ("/auth", "/api/v1/auth")
KEYS = {"id", "name", "description", "created_at", "last_used_at", "enabled", "expires_at", "permissions"}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebApp]:
    with WebApp(tmp_path) as app:
        yield app


@pytest.mark.parametrize(("base", "status"), [("/auth", 200), ("/api/v1/auth", 201)])
def test_created_token_works_and_its_secret_is_shown_once(web: WebApp, base: str, status: int) -> None:
    answer = web.client.post(f"{base}/tokens", json={"name": "edge"}, headers=ADMIN)

    made = answer.get_json()
    assert answer.status_code == status
    assert made.keys() >= KEYS | {"success", "message", "token", "new_token"}
    assert made["permissions"] == ["read", "write"]
    assert web.client.get(f"{base}/verify", headers={"x-api-key": made["token"]}).get_json()["valid"] is True
    assert made["token"] not in web.client.get(f"{base}/tokens", headers=ADMIN).text
    assert made["token"] not in web.client.get(f"{base}/tokens/{made['id']}", headers=ADMIN).text


@pytest.mark.parametrize(
    ("given", "permissions"),
    [
        ({}, ["read", "write"]),
        ({"permissions": []}, []),
        ({"permissions": None}, ["read", "write"]),
        ({"permissions": "write, read"}, ["read", "write"]),
        ({"permissions": ["agent"]}, ["agent"]),
        ({"is_admin": True}, ["read", "write", "delete", "admin"]),
    ],
)
def test_permissions_are_taken_in_every_spelling(web: WebApp, given: dict[str, object], permissions: list[str]) -> None:
    made = web.client.post("/auth/tokens", json={"name": "x", **given}, headers=ADMIN).get_json()

    assert made["permissions"] == permissions


def test_expiry_is_an_instant_or_a_duration(web: WebApp) -> None:
    at = web.client.post("/auth/tokens", json={"name": "a", "expires_at": "2030-01-01T00:00:00Z"}, headers=ADMIN)
    before_us = clock.now_us()
    after = web.client.post("/auth/tokens", json={"name": "b", "expires_in": "90m"}, headers=ADMIN).get_json()

    assert at.get_json()["expires_at"] == "2030-01-01T00:00:00Z"
    assert 0 <= clock.parse_rfc3339(after["expires_at"]) - before_us - 90 * 60 * 10**6 < 60 * 10**6
    for bad in ("soon", "999999999w"):
        refused = web.client.post("/auth/tokens", json={"name": "c", "expires_in": bad}, headers=ADMIN)
        assert refused.status_code == 400
        assert refused.get_json()["detail"].startswith("expires_in: ")


def test_expired_token_is_refused(web: WebApp) -> None:
    body = {"name": "old", "expires_at": "2020-01-01T00:00:00Z"}
    secret = web.client.post("/auth/tokens", json=body, headers=ADMIN).get_json()["token"]

    assert web.client.get("/auth/verify", headers={"x-api-key": secret}).status_code == 401


def test_token_name_is_taken_once(web: WebApp) -> None:
    web.client.post("/auth/tokens", json={"name": "twin"}, headers=ADMIN)

    answer = web.client.post("/api/v1/auth/tokens", json={"name": "twin"}, headers=ADMIN)

    assert answer.status_code == 400
    assert answer.get_json()["error"] == "Token with name 'twin' already exists"


@pytest.mark.parametrize("base", BASES)
def test_list_and_detail_have_the_keys_of_both_generations(web: WebApp, base: str) -> None:
    listed = web.client.get(f"{base}/tokens", headers=ADMIN).get_json()
    one = web.client.get(f"{base}/tokens/1", headers=ADMIN).get_json()

    assert listed["tokens"] == listed["data"]
    assert listed["count"] == len(listed["data"]) == 1
    assert (listed["success"], listed["status"]) == (True, "success")
    assert one["token"]["name"] == one["name"] == "admin"
    assert one["token"].keys() >= KEYS


@pytest.mark.parametrize("base", BASES)
def test_change_touches_only_what_it_names(web: WebApp, base: str) -> None:
    body = {"name": "edge", "description": "old", "expires_in": "7d", "project": "p"}
    made = web.client.post("/auth/tokens", json=body, headers=ADMIN).get_json()

    changed = web.client.patch(f"{base}/tokens/{made['id']}", json={"description": "new"}, headers=ADMIN).get_json()
    cleared = web.client.patch(f"{base}/tokens/{made['id']}", json={"expires_at": None}, headers=ADMIN).get_json()

    assert changed["description"] == "new"
    assert {key: changed[key] for key in ("name", "expires_at", "project")} == {
        key: made[key] for key in ("name", "expires_at", "project")
    }
    assert changed["success"] is True
    assert cleared["expires_at"] is None


@pytest.mark.parametrize("base", BASES)
def test_rotation_kills_the_old_secret_at_once(web: WebApp, base: str) -> None:
    made = web.client.post("/auth/tokens", json={"name": "edge"}, headers=ADMIN).get_json()
    assert web.client.get("/auth/verify", headers={"x-api-key": made["token"]}).status_code == 200

    rotated = web.client.post(f"{base}/tokens/{made['id']}/rotate", headers=ADMIN).get_json()

    assert rotated["token"] == rotated["new_token"] != made["token"]
    assert (rotated["id"], rotated["name"]) == (made["id"], made["name"])
    assert web.client.get("/auth/verify", headers={"x-api-key": made["token"]}).status_code == 401
    assert web.client.get("/auth/verify", headers={"x-api-key": rotated["token"]}).status_code == 200


@pytest.mark.parametrize("base", BASES)
def test_revoked_and_deleted_tokens_are_dead(web: WebApp, base: str) -> None:
    made = web.client.post("/auth/tokens", json={"name": "edge"}, headers=ADMIN).get_json()
    headers = {"x-api-key": made["token"]}

    revoked = web.client.post(f"{base}/tokens/{made['id']}/revoke", headers=ADMIN).get_json()
    after_revoke = web.client.get("/auth/verify", headers=headers).status_code
    web.client.patch(f"{base}/tokens/{made['id']}", json={"enabled": True}, headers=ADMIN)
    after_enable = web.client.get("/auth/verify", headers=headers).status_code
    deleted = web.client.delete(f"{base}/tokens/{made['id']}", headers=ADMIN).get_json()

    assert revoked["success"] is True
    assert (after_revoke, after_enable) == (401, 200)
    assert deleted == {"success": True, "message": "Token deleted successfully", "token_id": made["id"]}
    assert web.client.get("/auth/verify", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/revoke"), ("GET", "/permissions")],
)
@pytest.mark.parametrize("token_id", [99, 2**63 - 1])
def test_unknown_token_is_404(web: WebApp, method: str, path: str, token_id: int) -> None:
    answer = web.client.open(f"/auth/tokens/{token_id}{path}", method=method, json={}, headers=ADMIN)

    assert answer.status_code == 404
    assert answer.get_json()["detail"] == "Token not found"


def test_bad_token_is_told_that_it_is_not_valid(web: WebApp) -> None:
    answer = web.client.get("/auth/verify", headers={"x-api-key": "wrong"})

    assert answer.status_code == 401
    assert answer.get_json()["valid"] is False
    assert answer.get_json()["status"] == 401


def test_verify_tells_what_the_token_may_do(web: WebApp) -> None:
    answer = web.client.get("/api/v1/auth/verify", headers=ADMIN).get_json()

    assert answer["permissions"] == ["admin", "delete", "read", "write"]
    assert answer["token_info"]["name"] == "admin"


def test_permissions_of_a_token_are_listed(web: WebApp) -> None:
    answer = web.client.get("/auth/tokens/1/permissions", headers=ADMIN).get_json()

    assert answer["permissions"][0]["database"] == "*"
    assert answer["rbac_enabled"] is False


def test_cache_is_reported_and_emptied(web: WebApp) -> None:
    web.client.get("/auth/verify", headers=ADMIN)
    before = web.client.get("/auth/cache/stats", headers=ADMIN).get_json()

    emptied = web.client.post("/auth/cache/invalidate", headers=ADMIN).get_json()

    assert before["cache_size"] == before["stats"]["cache_size"] == 1
    assert emptied["message"] == "Authentication cache invalidated successfully"
    assert web.tokens.cache_stats()["cache_size"] == 0


def test_no_rate_limit(web: WebApp) -> None:
    statuses = {web.client.get("/auth/tokens", headers=ADMIN).status_code for _ in range(500)}

    assert statuses == {200}


def test_errors_do_not_repeat_a_secret(web: WebApp) -> None:
    answer = web.client.get("/auth/verify", headers={"Authorization": f"Bearer {SECRET}x"})

    assert SECRET not in answer.text
