"""Writes, queries, deletes and drops at once: every answer is one that some order of them explains."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from arc.errors import Invalid
from tests.unit.rig import NOW, Rig
from tests.unit.test_web_upkeep import Api
from tests.unit.web import ADMIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITERS, DROPS = 8, 4
THREADS, ROUNDS = 4, 5


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path, **{"delete.enabled": "true"}) as opened:
        yield opened


def test_a_database_is_dropped_again_and_again_while_eight_writers_write_to_it(rig: Rig) -> None:
    """What is there in the end are the last rows of each writer, without a gap, whatever type its column has now."""
    stop, acknowledged = threading.Event(), [0] * WRITERS

    def write(writer: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            odd: Any = number if writer % 2 else str(number)  # each kind of writer spoils the column for the other
            try:
                rig.write("load", "plant", time=[NOW + number], writer=[writer], n=[number], odd=[odd])
            except Invalid:
                number -= 1
                continue
            acknowledged[writer] = number

    def found() -> dict[int, tuple[int, ...]]:
        rows = rig.query("SELECT writer, count(*), count(DISTINCT n), min(n), max(n) FROM plant.load GROUP BY writer")
        return {writer: tuple(numbers) for writer, *numbers in rows}

    with ThreadPoolExecutor(WRITERS) as pool:
        work = [pool.submit(write, writer) for writer in range(WRITERS)]
        for drop in range(DROPS):
            while not rig.store.measurements("plant"):
                assert not any(each.done() for each in work)
            rig.store.flush() if drop % 2 else rig.query("SELECT count(*) FROM plant.load")
            rig.store.drop_database("plant")
        stop.set()
    for each in work:
        each.result()

    before = found()
    for writer, (count, different, least, most) in before.items():
        assert count == different == most - least + 1
        assert most == acknowledged[writer]
    rig.reopen()
    assert found() == before


def test_cached_answers_are_exact_while_rows_come_and_go(rig: Rig) -> None:
    """Four threads, each with rows of its own in one measurement: all see at once what they did, and nobody else's."""
    api, hits = Api(rig), list[bool]()
    rig.write(time=[NOW], host=["nobody"], n=[0])

    def asked(host: str) -> list[int]:
        sql = f"SELECT n FROM cpu WHERE host = '{host}' ORDER BY n"  # one text for all rounds, so that it is cached
        first, second = (api.client.post("/query", json={"sql": sql}, headers=ADMIN) for _ in range(2))
        assert first.get_json()["data"] == second.get_json()["data"]
        hits.append(second.headers["X-Cache"] == "HIT")
        return [n for (n,) in first.get_json()["data"]]

    def work(thread: int) -> None:
        host, model = f"h{thread}", set[int]()
        for number in range(1, ROUNDS + 1):
            rig.write(time=[NOW, NOW], host=[host, host], n=[number, -number])
            model |= {number, -number}
            assert asked(host) == sorted(model)
            gone = {n for n in model if n < 0 or n % 2}
            body = {"database": "default", "measurement": "cpu", "where": f"host = '{host}' AND (n < 0 OR n % 2 = 1)"}
            api.ask("POST", "/api/v1/delete", {**body, "confirm": True})
            model -= gone
            assert asked(host) == sorted(model)

    with ThreadPoolExecutor(THREADS) as pool:
        for each in [pool.submit(work, thread) for thread in range(THREADS)]:
            each.result()

    assert rig.query("SELECT count(*) FROM cpu") == [(1 + THREADS * (ROUNDS // 2),)]
    assert any(hits)


@pytest.mark.parametrize(
    ("where", "order_by"),
    [
        ("1=1) OR (1=1", ""),
        ("n > 0) UNION SELECT * FROM other.secret WHERE (1=1", ""),
        ("n > 0; DROP TABLE cpu", ""),
        ("n > 0) -- ", ""),
        ("n > 0) /* ", ""),
        ("n > 0 LIMIT 1", ""),
        ("read_text('/etc/passwd') = ''", ""),
        ("n IN (SELECT n FROM read_csv('/etc/passwd'))", ""),
        ("EXISTS (FROM duckdb_settings())", ""),
        ("", "time; DROP TABLE cpu"),
        ("", "time LIMIT 5; --"),
        ("", "time) UNION SELECT * FROM (SELECT 1"),
        ("", "(SELECT content FROM read_text('/etc/passwd'))"),
        ("", "getenv('HOME')"),
        ("", "time LIMIT 1000000 --"),
    ],
)
def test_parts_of_a_statement_stay_parts(rig: Rig, where: str, order_by: str) -> None:
    rig.write(time=[NOW], n=[1])
    api = Api(rig)
    query = {
        "end_time": "1970-01-01",
        **({"where": where} if where else {}),
        **({"order_by": order_by} if order_by else {}),
    }

    for path in ("/query/cpu", "/api/v1/query/cpu/csv"):
        answer = api.client.get(path, query_string=query, headers={"Authorization": api.reader["Authorization"]})

        assert answer.status_code == 400, answer.text


def test_a_condition_may_end_in_a_comment_and_hold_a_sub_query(rig: Rig) -> None:
    rig.write(time=[NOW, NOW + 1], n=[1, 2])
    api = Api(rig)

    answer = api.client.get(
        "/query/cpu", query_string={"where": "n = (SELECT max(n) FROM cpu) -- newest"}, headers=api.reader
    )

    assert [row[1] for row in answer.get_json()["data"]] == [2]
