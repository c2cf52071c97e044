"""The audit trail in the database: what is kept of an entry, how entries are found, when they go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arc import clock
from arc.access.audit import AuditRetention, AuditTrail
from arc.access.tokens import Identity
from arc.db.engine import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = 86_400 * clock.US_PER_S
ADA = Identity(3, "ada", frozenset({"admin"}))
BOB = Identity(7, "bob", frozenset({"write"}))


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[AuditTrail]:
    db = open_database(tmp_path)
    yield AuditTrail(db)
    db.close()


def add(trail: AuditTrail, action: str, name: str = "", who: Identity | None = ADA, status: int = 200) -> None:
    trail.record(action, name, {}, status=status, client="10.0.0.7", who=who)


def found(trail: AuditTrail, **wanted: object) -> list[str]:
    return [f"{entry.action} {entry.object}" for entry in trail.find(**{"limit": 100} | wanted)]  # type: ignore[arg-type]


def test_entry_is_found_as_it_was_recorded(trail: AuditTrail) -> None:
    before = clock.now_us()
    trail.record("token.create", "12", {"name": "ä"}, status=201, client="::1", who=ADA, request_id="r-1")

    [entry] = trail.find(1)

    assert before <= entry.at <= clock.now_us()
    assert (entry.token_id, entry.token_name, entry.client, entry.request_id) == (3, "ada", "::1", "r-1")
    assert (entry.action, entry.object, entry.details, entry.status) == ("token.create", "12", {"name": "ä"}, 201)


def test_what_is_too_long_is_cut(trail: AuditTrail) -> None:
    trail.record("job.submit", "x" * 300, {}, status=200, client="c" * 100)

    [entry] = trail.find(1)

    assert (len(entry.object), len(entry.client), entry.token_id, entry.token_name) == (255, 64, None, "")


def test_entries_are_found_newest_first_page_by_page(trail: AuditTrail) -> None:
    for number in range(5):
        add(trail, "job.submit", str(number))

    first = trail.find(2)
    second = trail.find(2, before=first[-1].id)

    assert [entry.object for entry in first + second] == ["4", "3", "2", "1"]


def test_entries_are_found_by_action_token_and_time(trail: AuditTrail) -> None:
    add(trail, "token.create", "a")
    add(trail, "token.revoke", "b", BOB)
    add(trail, "tokens", "c", None)
    between = trail.find(1)[0].at + 1
    while clock.now_us() <= between:
        pass
    add(trail, "action.schedule", "d", Identity(8, "7", frozenset()))

    assert found(trail, action="token.create") == ["token.create a"]
    assert found(trail, action="token") == ["token.revoke b", "token.create a"]
    assert found(trail, action="toke_") == []
    assert found(trail, token="bob") == ["token.revoke b"]
    assert found(trail, token="7") == ["action.schedule d", "token.revoke b"]  # a name and an id
    assert found(trail, token="9" * 100) == []
    assert found(trail, since_us=between) == ["action.schedule d"]
    assert found(trail, until_us=between, token="ada") == ["token.create a"]


def test_old_entries_are_deleted(trail: AuditTrail, monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = clock.now_us()
    loop = AuditRetention(trail, retention_days=2)
    for days, name in ((3, "old"), (2.5, "old too"), (1, "young")):
        monkeypatch.setattr(clock, "now_us", lambda at=now_us - int(days * DAY): at)
        add(trail, "job.submit", name)

    assert loop.step(now_us) == 2
    assert loop.step(now_us) == 0
    assert found(trail) == ["job.submit young"]
