"""Tokens: what they open, how they change, and that a change counts at once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, event, insert

from arc import clock
from arc.access import tokens as module
from arc.access.tokens import ADMIN_PERMISSIONS, Identity, LastUsedWriter, TokenNotFound, TokenStore
from arc.db.engine import Database, open_database
from arc.db.tables import api_tokens, settings
from arc.errors import Denied, Invalid, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def tokens(db: Database) -> TokenStore:
    return TokenStore(db)


def is_good(tokens: TokenStore, secret: str) -> bool:
    try:
        tokens.authenticate(secret)
    except Unauthenticated:
        return False
    return True


def test_secret_opens_what_its_token_may(tokens: TokenStore) -> None:
    token, secret = tokens.create("probe", "a sensor", ["write"], project="lab", organization="acme")

    identity = tokens.authenticate(secret)

    assert identity == Identity(token.id, "probe", frozenset({"write"}), "lab", "acme")
    identity.require("write")
    with pytest.raises(Denied, match="Permission denied: read permission required"):
        identity.require("read")


@pytest.mark.parametrize("secret", ["", "unknown", "ünknöwn", "\udcff", "x" * 10_000])
def test_unknown_secret_opens_nothing(tokens: TokenStore, secret: str) -> None:
    with pytest.raises(Unauthenticated, match="Invalid or missing API token"):
        tokens.authenticate(secret)


def test_admin_may_all_but_act_as_an_agent() -> None:
    admin = Identity(1, "admin", frozenset({"admin"}))

    assert [admin.may(permission) for permission in module.PERMISSIONS] == [True, True, True, True, False]
    assert not Identity(2, "nobody", frozenset()).may("read")


def test_defaults_are_read_and_write(tokens: TokenStore) -> None:
    token, _ = tokens.create("plain")

    assert token.permissions == ("read", "write")
    assert tokens.list() == [token]
    assert (token.enabled, token.expires_at, token.last_used_at, token.project) == (True, None, None, None)


def test_permissions_come_in_any_order_and_as_comma_text(tokens: TokenStore) -> None:
    assert tokens.create("a", permissions=["write", "read", "write"])[0].permissions == ("read", "write")
    assert tokens.create("b", permissions="admin, read")[0].permissions == ("read", "admin")
    assert tokens.create("c", permissions=[])[0].permissions == ()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"name": ""}, "name must be"),
        ({"name": "x" * 101}, "name must be"),
        ({"name": 7}, "name must be"),
        ({"name": "x", "description": "d" * 501}, "description must be"),
        ({"name": "x", "permissions": ["root"]}, "unknown permission 'root'"),
        ({"name": "x", "permissions": 7}, "permissions must be"),
        ({"name": "x", "permissions": [["read"]]}, "unknown permission"),
        ({"name": "x", "expires_at_us": "soon"}, "expires_at must be"),
        ({"name": "x", "project": ""}, "project and organization must be"),
        ({"name": "x\0"}, r"name must not contain U\+0000"),
        ({"name": "x", "description": "\0"}, r"description must not contain U\+0000"),
    ],
)
def test_values_that_break_a_rule_are_refused(tokens: TokenStore, values: dict[str, object], complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        tokens.create(**values)  # type: ignore[arg-type]

    assert tokens.list() == []


def test_name_is_taken_once(tokens: TokenStore) -> None:
    tokens.create("x")
    other, _ = tokens.create("y")

    with pytest.raises(Invalid, match="Token with name 'x' already exists"):
        tokens.create("x")
    with pytest.raises(Invalid, match="Token with name 'x' already exists"):
        tokens.update(other.id, name="x")


def test_update_changes_what_it_names(tokens: TokenStore) -> None:
    token, secret = tokens.create("x", "before", ["read"])
    tokens.authenticate(secret)

    changed = tokens.update(token.id, name="y", permissions=["write"])

    assert (changed.name, changed.description, changed.permissions) == ("y", "before", ("write",))
    assert tokens.authenticate(secret).permissions == {"write"}
    assert tokens.update(token.id) == changed


def test_rotated_secret_is_dead_at_once(tokens: TokenStore) -> None:
    token, old = tokens.create("x")
    tokens.authenticate(old)

    same, new = tokens.rotate(token.id)

    assert not is_good(tokens, old)
    assert is_good(tokens, new)
    assert (same.id, same.name, same.permissions) == (token.id, token.name, token.permissions)


def test_revoked_token_is_dead_at_once_and_can_come_back(tokens: TokenStore) -> None:
    token, secret = tokens.create("x")
    tokens.authenticate(secret)

    assert not tokens.revoke(token.id).enabled

    assert not is_good(tokens, secret)
    tokens.update(token.id, enabled=True)
    assert is_good(tokens, secret)


def test_deleted_token_is_gone_and_its_id_is_not_reused(tokens: TokenStore) -> None:
    token, secret = tokens.create("x")
    tokens.authenticate(secret)

    tokens.delete(token.id)

    assert not is_good(tokens, secret)
    assert tokens.create("x")[0].id > token.id


def test_token_ends_with_its_time_also_when_cached(tokens: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = tokens.create("x", expires_at_us=clock.now_us() + 3600 * clock.US_PER_S)
    assert is_good(tokens, secret)
    later = clock.now_us() + 3601 * clock.US_PER_S

    monkeypatch.setattr(clock, "now_us", lambda: later)

    assert not is_good(tokens, secret)


def test_unknown_id_is_not_found(tokens: TokenStore) -> None:
    for call in (tokens.get, tokens.rotate, tokens.revoke, tokens.delete, tokens.update):
        with pytest.raises(TokenNotFound):
            call(7)


def test_checked_token_is_remembered(db: Database, tokens: TokenStore) -> None:
    _, secret = tokens.create("x")
    statements: list[str] = []
    event.listen(db._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    for _ in range(3):
        tokens.authenticate(secret)

    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 1
    stats = tokens.cache_stats()
    assert (stats["cache_size"], stats["total_requests"], stats["cache_hits"]) == (1, 3, 2)
    assert stats["hit_rate_percent"] == pytest.approx(66.67)


def test_cache_is_bounded(tokens: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_SIZE", 2)
    secrets = [tokens.create(str(number))[1] for number in range(4)]

    for secret in secrets:
        tokens.authenticate(secret)

    assert tokens.cache_stats()["cache_size"] == 2


def test_cache_is_kept_for_its_time(db: Database) -> None:
    tokens = TokenStore(db, cache_ttl_s=0)
    _, secret = tokens.create("x")

    tokens.authenticate(secret)
    tokens.authenticate(secret)

    assert tokens.cache_stats()["cache_hits"] == 0


def test_change_of_another_process_counts_at_once(tokens: TokenStore, tmp_path: Path) -> None:
    token, secret = tokens.create("x")
    tokens.authenticate(secret)
    other = Database(f"sqlite:///{tmp_path}/arc.db")

    TokenStore(other).revoke(token.id)
    other.close()

    assert not is_good(tokens, secret)


def test_commits_that_change_no_token_leave_the_cache_alone(tokens: TokenStore, db: Database) -> None:
    _, secret = tokens.create("x")
    tokens.authenticate(secret)

    with db.transaction() as tx:
        tx.execute(insert(settings).values(name="of no interest", value="1"))
    tokens.write_last_used()
    tokens.authenticate(secret)

    assert tokens.cache_stats()["cache_hits"] == 1


def test_change_past_the_store_counts_at_once(tokens: TokenStore, db: Database) -> None:
    token, secret = tokens.create("x")
    tokens.authenticate(secret)

    with db.transaction() as tx:
        tx.execute(delete(api_tokens).where(api_tokens.c.id == token.id))

    assert not is_good(tokens, secret)


def test_use_is_noted_in_memory_and_stored_later(tokens: TokenStore) -> None:
    token, secret = tokens.create("x")
    before = clock.now_us()

    tokens.authenticate(secret)

    assert tokens.write_last_used() == 1
    assert tokens.write_last_used() == 0
    used_at = tokens.get(token.id).last_used_at
    assert used_at is not None
    assert used_at >= before


def test_last_used_writer_stores_once_more_at_its_stop(tokens: TokenStore) -> None:
    token, secret = tokens.create("x")
    writer = LastUsedWriter(tokens, interval_s=3600)
    writer.start()
    tokens.authenticate(secret)

    writer.stop()

    assert tokens.write_last_used() == 0
    assert tokens.get(token.id).last_used_at


def test_first_start_makes_an_admin_once(tokens: TokenStore) -> None:
    secret = tokens.bootstrap()

    assert secret is not None
    assert len(secret) == 43
    assert tokens.authenticate(secret).permissions == set(ADMIN_PERMISSIONS)
    assert tokens.bootstrap() is None
    assert [token.name for token in tokens.list()] == ["admin"]


def test_configured_first_token_is_not_given_back(tokens: TokenStore) -> None:
    assert tokens.bootstrap("configured" * 4) is None

    assert tokens.authenticate("configured" * 4).name == "admin"


def test_recovery_adds_an_admin_and_keeps_the_others(tokens: TokenStore) -> None:
    first = tokens.bootstrap() or ""
    old = tokens.recover() or ""

    new = tokens.recover() or ""

    assert is_good(tokens, first)
    assert not is_good(tokens, old)
    assert tokens.authenticate(new).may("admin")
    assert [token.name for token in tokens.list()] == ["admin", "arc-recovery"]


def test_recovery_with_a_configured_token_is_done_once(tokens: TokenStore) -> None:
    tokens.bootstrap()

    assert tokens.recover("configured" * 4) is None
    assert tokens.recover("configured" * 4) is None

    assert tokens.authenticate("configured" * 4).name == "arc-recovery"


def test_database_holds_only_the_hash(tokens: TokenStore, db: Database, tmp_path: Path) -> None:
    _, secret = tokens.create("x")
    tokens.authenticate(secret)
    tokens.write_last_used()

    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert secret.encode() not in content
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in content
