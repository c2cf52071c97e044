"""Continuous queries: windows, what is stored, running again, catching up, what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from arc import clock
from arc.errors import Cancelled, Invalid, NotFound
from tests.unit.rig import DAY, HOUR, NOW, SECOND, Rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arc.metrics.upkeep.continuous import ContinuousQuery

HOURLY = (
    "SELECT time_bucket(INTERVAL '1 hour', time) AS time, host, count(*) AS n, sum(v) AS total FROM default.cpu"
    " WHERE time >= {start_time} AND time < {end_time} GROUP BY ALL"
)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path, **{"continuous_queries.grace_s": "5"}) as opened:
        yield opened


def create(rig: Rig, **values: Any) -> ContinuousQuery:
    given = {
        "name": "hourly",
        "description": "",
        "database": "default",
        "source_measurement": "cpu",
        "destination_measurement": "cpu_1h",
        "query": HOURLY,
        "interval": "1h",
        "tag_columns": json.dumps(["host"]),
        "retention_days": None,
        "delete_source_after_days": None,
        "is_active": True,
    }
    return rig.upkeep.continuous.queries.create(NOW, **given | values)


def write(rig: Rig, *hours: float, v: float = 1.0) -> None:
    """A row for each number of hours after NOW."""
    times = [int(NOW + hour * HOUR) for hour in hours]
    rig.write(time=times, host=["a"] * len(times), v=[v] * len(times))


def run(rig: Rig, number: int, start: float, end: float, *, dry_run: bool = False) -> int:
    window = {"start_us": int(NOW + start * HOUR), "end_us": int(NOW + end * HOUR)}
    return rig.upkeep.continuous.execute(number, NOW + DAY, **window, dry_run=dry_run)[1].records


def stored(rig: Rig, measurement: str = "cpu_1h") -> list[tuple[float, int]]:
    """(hour, n) of the destination."""
    rows = rig.query(f"SELECT epoch_us(time), n FROM {measurement} ORDER BY time, n")
    return [((us - NOW) / HOUR, n) for us, n in rows]


def test_rows_of_a_window_are_stored_with_their_columns(rig: Rig) -> None:
    write(rig, 0, 0.5, 1)

    assert run(rig, create(rig).id, 0, 1) == 1

    assert rig.query("SELECT * FROM cpu_1h") == [(rig.query("SELECT min(time) FROM cpu")[0][0], "a", 2, 2.0)]
    [info] = [info for info in rig.store.measurements() if info.measurement == "cpu_1h"]
    assert [name for name, _ in info.columns] == ["time", "host", "n", "total"]
    assert rig.store.schema("default", "cpu_1h").tags == ("host",)


def test_running_a_window_again_replaces_what_it_stored(rig: Rig) -> None:
    number = create(rig).id
    write(rig, 0, 1, 2)
    run(rig, number, 0, 3)
    write(rig, 1.5)  # late

    assert run(rig, number, 0, 3) == 3
    assert stored(rig) == [(0, 1), (1, 2), (2, 1)]
    rig.compact()
    rig.reopen()
    assert run(rig, number, 0, 3) == 3
    assert stored(rig) == [(0, 1), (1, 2), (2, 1)]


def test_a_larger_window_replaces_those_within_it_and_no_others(rig: Rig) -> None:
    number = create(rig).id
    write(rig, 0, 1, 2, 3)
    for hour in range(4):
        run(rig, number, hour, hour + 1)

    assert run(rig, number, 1, 3) == 2
    assert stored(rig) == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_a_smaller_window_replaces_the_buckets_within_it(rig: Rig) -> None:
    write(rig, 0, 1, 2)
    number = create(rig).id
    run(rig, number, 0, 3)
    write(rig, 1.5)

    run(rig, number, 1, 2)

    assert stored(rig) == [(0, 1), (1, 2), (2, 1)]


def test_without_an_end_a_run_ends_at_a_whole_interval(rig: Rig) -> None:
    _, done = rig.upkeep.continuous.execute(create(rig).id, NOW + int(2.5 * HOUR), start_us=NOW)

    assert done.end_us == NOW + 2 * HOUR


def test_rows_of_others_in_the_destination_stay(rig: Rig) -> None:
    rig.write("cpu_1h", time=[NOW], n=[100])
    rig.store.flush()
    first, second = create(rig), create(rig, name="other", query=HOURLY.replace("count(*)", "7"))
    write(rig, 0)

    for _ in range(2):
        run(rig, first.id, 0, 1)
        run(rig, second.id, 0, 1)

    assert stored(rig) == [(0, 1), (0, 7), (0, 100)]


def test_an_empty_window_takes_back_what_it_had_stored(rig: Rig) -> None:
    number = create(rig, query=HOURLY.replace("GROUP BY", "AND v > 0 GROUP BY")).id
    assert run(rig, number, 0, 1) == 0
    assert rig.store.measurements() == []
    write(rig, 0)
    assert run(rig, number, 0, 1) == 1
    rig.upkeep.continuous.queries.update(number, NOW, query=HOURLY.replace("GROUP BY", "AND v > 5 GROUP BY"))

    assert run(rig, number, 0, 1) == 0
    assert stored(rig) == []


def test_without_placeholders_the_source_is_seen_through_the_window(rig: Rig) -> None:
    number = create(rig, query="SELECT host, count(*) AS n FROM cpu GROUP BY host").id
    write(rig, -0.5, 0, 0.5)
    rig.store.flush()
    write(rig, 0.9, 1)

    assert run(rig, number, 0, 1) == 1
    assert stored(rig) == [(0, 3)]  # at the beginning of the window, as the result has no time


def test_results_are_stored_in_the_nearest_type(rig: Rig) -> None:
    write(rig, 0)
    number = create(
        rig,
        query="SELECT sum(v)::HUGEINT AS whole, 1.25::DECIMAL(9, 2) AS part, DATE '2025-01-02' AS day, true AS yes,"
        " 'x'::BLOB AS raw, NULL AS nothing, uuid() IS NULL AS no, v AS _dropped FROM cpu GROUP BY v",
    ).id

    run(rig, number, 0, 1)

    types = dict(rig.store.schema("default", "cpu_1h").names_and_types())
    assert types == {
        "time": "TIMESTAMP WITH TIME ZONE", "whole": "BIGINT", "part": "DOUBLE", "day": "VARCHAR", "yes": "BOOLEAN",
        "raw": "BLOB", "nothing": "BIGINT", "no": "BOOLEAN",
    }  # fmt: skip
    assert rig.query("SELECT whole, part, day, yes, raw FROM cpu_1h") == [(1, 1.25, "2025-01-02", True, b"x")]


@pytest.mark.parametrize(
    ("select", "complaint"),
    [
        ("v AS time", '"time" of the result must be a timestamp'),
        ("NULL::TIMESTAMP AS time", '"time" of the result must not be null'),
        ("[v] AS list", "cannot be stored"),
        ("v AS a, v AS A", "the same name"),
        ("missing", "missing"),
    ],
)
def test_a_result_that_cannot_be_stored_fails_the_run(rig: Rig, select: str, complaint: str) -> None:
    number = create(rig, query=f"SELECT {select} FROM cpu").id
    write(rig, 0)

    with pytest.raises(Invalid, match=complaint):
        run(rig, number, 0, 1)

    [execution] = rig.upkeep.continuous.queries.executions(number, 5)
    assert (execution.status, execution.records_written) == ("failed", 0)
    assert complaint in str(execution.error_message)
    assert rig.upkeep.continuous.queries.get(number).last_processed_at is None


def test_a_dry_run_stores_nothing_and_shows_the_query(rig: Rig) -> None:
    write(rig, 0)
    number = create(rig).id

    query, done = rig.upkeep.continuous.execute(number, NOW + HOUR, dry_run=True)

    assert (done.status, done.records, done.start_us, done.end_us) == ("dry_run", 1, NOW, NOW + HOUR)
    assert "time >= '2025-10-19T12:00:00Z' AND time < '2025-10-19T13:00:00Z'" in done.sql
    assert [info.measurement for info in rig.store.measurements()] == ["cpu"]
    assert rig.upkeep.continuous.queries.get(number) == query
    assert rig.upkeep.continuous.queries.executions(number, 5) == []


def test_windows_follow_each_other_and_a_rerun_does_not_move_them_back(rig: Rig) -> None:
    continuous, number = rig.upkeep.continuous, create(rig).id
    write(rig, 0, 1)

    first = continuous.execute(number, NOW + HOUR)[1]
    second = continuous.execute(number, NOW + 2 * HOUR)[1]
    run(rig, number, 0, 1)

    assert (first.start_us, first.end_us) == (NOW, NOW + HOUR)
    assert (second.start_us, second.end_us) == (NOW + HOUR, NOW + 2 * HOUR)
    assert continuous.queries.get(number).last_processed_at == NOW + 2 * HOUR
    assert len(continuous.queries.executions(number, 10)) == 3
    with pytest.raises(Invalid, match="start_time must be before end_time"):
        run(rig, number, 1, 1)


def test_the_schedule_runs_whole_intervals_after_a_grace(rig: Rig) -> None:
    continuous, number = rig.upkeep.continuous, create(rig).id
    write(rig, -1, 0, 1)
    assert continuous.step(NOW) == 0  # 11:00 to 12:00 is over, but not its grace
    assert continuous.step(NOW + 5 * SECOND) == 1
    assert continuous.step(NOW + HOUR // 2) == 0
    assert continuous.step(NOW + HOUR + 5 * SECOND) == 1

    windows = [(each.start_at, each.end_at) for each in continuous.queries.executions(number, 10)]
    assert windows == [(NOW, NOW + HOUR), (NOW - HOUR, NOW)]
    assert stored(rig) == [(-1, 1), (0, 1)]


def test_missed_windows_are_made_up_for_one_by_one(rig: Rig) -> None:
    number = create(rig, query="SELECT count(*) AS n FROM cpu").id
    run(rig, number, 0, 1)
    write(rig, 1, 2, 2.5, 4)
    rig.reopen()

    assert rig.upkeep.continuous.step(NOW + 5 * HOUR + 10 * SECOND) == 4

    assert stored(rig) == [(1, 1), (2, 2), (3, 0), (4, 1)]
    assert rig.upkeep.continuous.queries.get(number).last_processed_at == NOW + 5 * HOUR


def test_a_window_that_fails_is_tried_again_after_a_while(rig: Rig) -> None:
    number = create(rig, query="SELECT count(*) AS n FROM cpu WHERE later = 1").id  # nothing to check it against yet
    write(rig, -0.5)
    continuous = rig.upkeep.continuous
    now_us = NOW + 10 * SECOND

    assert continuous.step(now_us) == 0
    assert continuous.step(now_us + SECOND) == 0
    assert len(continuous.queries.executions(number, 10)) == 1
    rig.write(time=[NOW - HOUR // 2], later=[1])
    assert continuous.step(now_us + 60 * SECOND) == 1
    assert stored(rig) == [(-1, 1)]


def test_a_crash_after_the_commit_leaves_no_row_twice(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    number = create(rig).id
    write(rig, -0.5)
    continuous = rig.upkeep.continuous
    with monkeypatch.context() as patch:
        patch.setattr(continuous.queries, "record", lambda *_, **__: None)  # the process ends here
        assert continuous.step(NOW + 10 * SECOND) == 1
    rig.reopen()

    assert rig.upkeep.continuous.step(NOW + 20 * SECOND) == 1
    assert stored(rig) == [(-1, 1)]
    assert rig.upkeep.continuous.queries.get(number).last_records_written == 1


def test_a_run_broken_off_by_a_stop_leaves_no_trace(rig: Rig) -> None:
    number = create(rig, query="SELECT count(*) AS n FROM cpu, range(100000) a, range(100000) b").id
    write(rig, -0.5)
    rig.queries.start()
    rig.upkeep.continuous.stop()

    with pytest.raises(Cancelled):
        rig.upkeep.continuous.execute(number, NOW)

    assert rig.upkeep.continuous.queries.executions(number, 5) == []
    assert [info.measurement for info in rig.store.measurements()] == ["cpu"]


def test_ten_seconds_are_the_shortest_interval(rig: Rig) -> None:
    query = create(rig, interval="10s")

    windows = list(query.windows(NOW))
    assert windows[0] == (NOW - HOUR, NOW - HOUR + 10 * SECOND)
    assert len(windows) == 360


def test_idle_queries_do_not_run_and_old_rows_of_active_ones_go(tmp_path: Path) -> None:
    with Rig(tmp_path, **{"delete.enabled": "true"}) as rig:
        create(rig, retention_days=30, delete_source_after_days=10)
        create(rig, name="idle", is_active=False, retention_days=1)
        rig.write(time=[NOW - 11 * DAY, NOW], v=[1.0, 2.0])
        rig.write("cpu_1h", time=[NOW - 31 * DAY, NOW - 29 * DAY], n=[1, 2])

        assert rig.upkeep.retention.run_all(NOW) == 2

        assert rig.query("SELECT v FROM cpu") == [(2.0,)]
        assert rig.query("SELECT n FROM cpu_1h") == [(2,)]
        rig.upkeep.continuous.step(NOW + HOUR)
        assert rig.upkeep.continuous.queries.executions(2, 5) == []


def test_deleting_a_query_may_take_along_what_it_wrote_and_nothing_else(rig: Rig) -> None:
    write(rig, 0)
    kept, dropped = create(rig).id, create(rig, name="x").id
    run(rig, kept, 0, 1)
    run(rig, dropped, 0, 1)

    rig.upkeep.continuous.delete(kept)
    rig.upkeep.continuous.delete(dropped, with_destination=True)

    assert stored(rig) == [(0, 1)]
    with pytest.raises(NotFound, match="Continuous query not found"):
        rig.upkeep.continuous.delete(kept)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"query": "SELECT {start_time} FROM cpu"}, "both {start_time} and {end_time}"),
        ({"query": "SELECT 1"}, "it must read default.cpu"),
        ({"query": "SELEC 1"}, "invalid query: "),
        ({"query": "SHOW TABLES"}, "it must be a SELECT"),
        ({"query": "EXPLAIN SELECT * FROM cpu"}, "it must be a SELECT"),
        ({"query": "SELECT * FROM read_csv('x')"}, "invalid query: File I/O"),
        ({"query": "DROP TABLE cpu"}, "invalid query: "),
        ({"query": " "}, "query must not be empty"),
        ({"interval": "often"}, "interval: "),
        ({"interval": "9s"}, "interval must be at least 10s, not 9s"),
        ({"destination_measurement": "a/b"}, "invalid measurement name"),
        ({"destination_measurement": "CPU"}, "must not be source_measurement"),
        ({"database": "a.b"}, "invalid database name"),
        ({"tag_columns": '["time"]'}, 'tag column "time" is reserved'),
        ({"tag_columns": '[""]'}, 'invalid tag column ""'),
    ],
)
def test_what_cannot_work_is_refused_at_once(rig: Rig, values: dict[str, str], complaint: str) -> None:
    with pytest.raises(Invalid) as refusal:
        create(rig, **values)
    assert complaint in str(refusal.value)
    assert rig.upkeep.continuous.queries.all() == []


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("SELECT nosuch FROM cpu", 'invalid query: Binder Error: Referenced column "nosuch" not found'),
        ("SELECT avg(host) FROM cpu", "invalid query: Binder Error: No function matches"),
        ("SELECT host, v FROM cpu GROUP BY host; -- end", "invalid query: Binder Error: column"),
        ("SELECT v AS time FROM cpu", 'invalid query: column "time" of the result must be a timestamp'),
        ("SELECT [v] AS l FROM cpu", 'invalid query: column "l" of the result is list'),
    ],
)
def test_what_does_not_suit_its_source_is_refused_at_once(rig: Rig, query: str, complaint: str) -> None:
    write(rig, 0)
    rig.store.flush()

    with pytest.raises(Invalid) as refusal:
        create(rig, query=query)

    assert complaint in str(refusal.value)


def test_a_query_that_does_not_suit_its_source_any_more_can_be_switched_off(rig: Rig) -> None:
    queries, number = rig.upkeep.continuous.queries, create(rig, query="SELECT nosuch FROM cpu").id
    write(rig, 0)

    with pytest.raises(Invalid, match="nosuch"):
        queries.update(number, NOW, description="still active")
    assert not queries.update(number, NOW, is_active=False).is_active


def test_names_are_unique(rig: Rig) -> None:
    create(rig)

    with pytest.raises(Invalid, match="Continuous query with name 'hourly' already exists"):
        create(rig)


def test_placeholders_may_stand_in_quotes(rig: Rig) -> None:
    write(rig, 0)
    number = create(rig, query=HOURLY.replace("{start_time}", "'{start_time}'")).id

    assert run(rig, number, 0, 1) == 1
    assert clock.rfc3339(NOW) == "2025-10-19T12:00:00Z"
