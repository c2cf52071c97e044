"""Compaction: which files it takes, what stays the same, what it leaves alone, and what it remembers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arc.errors import ConfigError, Invalid, Unavailable
from arc.metrics.upkeep.compaction import CycleRunning
from arc.metrics.upkeep.files import StoredFile
from arc.metrics.upkeep.merging import Sizes, apart, worn, worthwhile
from arc.metrics.upkeep.schedule import Schedule
from tests.unit.rig import HOUR, NOW, SECOND, Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = Sizes(min_files=3, target_bytes=1000)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as opened:
        yield opened


def file(number: int, size: int, *, deleted: int = 0, newest_us: int = 0) -> StoredFile:
    path = Path(f"{number}.parquet")
    return StoredFile(number, path, size, rows=100, deleted_rows=deleted, newest_us=newest_us, schema=1)


def everything(rig: Rig) -> list[tuple[object, ...]]:
    return sorted(rig.query("SELECT time, host, n FROM cpu"), key=str)


# ------------------------------------------------------------------------------------------- which files


def test_small_files_are_worth_a_merge_when_there_are_enough() -> None:
    files = [file(1, 100), file(2, 120), file(3, 90), file(4, 500)]

    assert [found.id for found in worthwhile(files, SIZES, NOW)] == [1, 2, 3]
    assert worthwhile(files[1:], SIZES, NOW) == []


def test_much_larger_files_wait_until_there_are_more_of_them() -> None:
    files = [file(1, 400), *(file(number, 10) for number in range(2, 6))]

    assert [found.id for found in worthwhile(files, SIZES, NOW)] == [2, 3, 4, 5]


def test_files_with_young_rows_are_left_alone() -> None:
    sizes = Sizes(min_files=2, target_bytes=1000, min_age_us=HOUR)
    files = [file(1, 100, newest_us=NOW - 2 * HOUR), file(2, 100, newest_us=NOW - HOUR), file(3, 100, newest_us=NOW)]

    assert [found.id for found in worthwhile(files, sizes, NOW)] == [1, 2]


def test_files_with_deleted_rows_are_rewritten_when_much_is_deleted_or_they_are_many_and_small() -> None:
    assert [found.id for found in worn([file(1, 900, deleted=30), file(2, 900, deleted=20)], SIZES)] == [1]
    assert worn([file(1, 100, deleted=1), file(2, 100, deleted=1)], SIZES) == []
    assert len(worn([file(number, 100, deleted=1) for number in range(3)], SIZES)) == 3


def test_files_to_merge_are_kept_apart_from_bad_ones_by_size() -> None:
    files = [file(number, 100 + number) for number in range(10)]

    assert [found.id for found in apart(files, [files[3]])] == [4, 5, 6, 7, 8, 9]
    assert [found.id for found in apart(files, [files[3], files[8]])] == [4, 5, 6, 7]
    assert apart(files[:1], [files[3]]) == []


# ---------------------------------------------------------------------------------------------- its effect


def test_many_small_files_become_one_and_no_row_changes(rig: Rig) -> None:
    rig.write_files(20)
    rig.write(time=[NOW - SECOND], host=["buffered"], n=[-1])
    before = everything(rig)
    assert [candidate.table for candidate in rig.upkeep.compaction.candidates(NOW)][:1] == [("default", "cpu")]

    assert rig.compact() == 1

    assert len(rig.files()) == 1
    assert everything(rig) == before
    assert rig.upkeep.compaction.candidates(NOW) == []


def test_a_step_takes_a_bounded_number_of_files(tmp_path: Path) -> None:
    with Rig(tmp_path, **{"compaction.max_files_per_batch": "4", "compaction.hourly_min_files": "3"}) as rig:
        rig.write_files(12)
        before = everything(rig)
        versions = rig.store.stats()["lake_version"]

        rig.compact("hourly")

        assert rig.store.stats()["lake_version"] >= versions + 4  # three merges of four files, then one of three
        assert len(rig.files()) == 1
        assert everything(rig) == before


def test_older_snapshots_stay_readable(rig: Rig) -> None:
    rig.write_files(20)
    version = rig.store.stats()["lake_version"]

    rig.compact()

    cursor = rig.store.cursor()
    count = "SELECT count(*), sum(n) FROM lake.default.cpu AT (VERSION => {})"
    assert cursor.execute(count.format(version)).fetchall() == [(200, sum(range(200)))]
    assert cursor.execute(count.format(version - 5)).fetchall() == [(150, sum(range(150)))]
    cursor.close()


def test_columns_that_came_later_and_widened_types_survive(rig: Rig) -> None:
    rig.write_files(10)
    for number in range(10):
        rig.write(time=[NOW + number], host=["x"], n=[0.5], load=[number])
        rig.store.flush()
    before = sorted(rig.query("SELECT n, load FROM cpu"), key=str)

    rig.compact()

    assert sorted(rig.query("SELECT n, load FROM cpu"), key=str) == before
    assert len(rig.files()) == 2  # one of each schema
    assert rig.query("SELECT count(*) FROM cpu WHERE n > 0.4 AND n < 0.6") == [(10,)]


def test_a_write_during_a_merge_is_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from arc.metrics.upkeep import compaction

    def merge_amid_writes(*args: object) -> None:
        merge_step(*args)
        rig.write_files(1, start=1000)

    merge_step = compaction.merge_step
    monkeypatch.setattr(compaction, "merge_step", merge_amid_writes)
    rig.write_files(20)

    rig.compact("hourly")

    assert rig.query("SELECT count(*), count(DISTINCT n) FROM cpu") == [(210, 210)]
    assert len(rig.files()) == 2


def test_files_with_deleted_rows_are_rewritten(tmp_path: Path) -> None:
    with Rig(tmp_path, **{"delete.enabled": "true"}) as rig:
        rig.write_files(12)
        rig.upkeep.deletion.delete("default", "cpu", "host = 'h1'", dry_run=False, confirm=True)
        before = everything(rig)

        rig.compact()

        assert [found.deleted_rows for found in rig.files()] == [0]
        assert everything(rig) == before
        assert rig.store.measurements()[0].rows == len(before)


def test_a_failing_measurement_does_not_stop_the_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from arc.metrics.upkeep import compaction

    def fail_for_cpu(cursor: object, table: tuple[str, str], *args: object) -> None:
        if table[1] == "cpu":
            raise RuntimeError("no luck")
        merge_step(cursor, table, *args)

    merge_step = compaction.merge_step
    monkeypatch.setattr(compaction, "merge_step", fail_for_cpu)
    rig.write_files(20)
    rig.write_files(20, measurement="mem")

    rig.compact("hourly")

    assert [(job.measurement, job.status, job.error) for job in rig.upkeep.compaction.jobs.recent(2)] == [
        ("mem", "completed", None),
        ("cpu", "failed", "no luck"),
    ]
    assert (len(rig.files("cpu")), len(rig.files("mem"))) == (20, 1)


@pytest.mark.parametrize("harm", ["cut", "garbled", "gone"])
def test_an_unreadable_file_is_left_out_and_reported_and_nothing_is_lost(rig: Rig, harm: str) -> None:
    rig.write_files(20, rows=100)
    before, victim = everything(rig), rig.files()[7]
    content = victim.path.read_bytes()
    broken = {"cut": content[: len(content) // 2], "garbled": content[:50] + bytes(400) + content[450:], "gone": b""}
    victim.path.write_bytes(broken[harm])
    if harm == "gone":
        victim.path.unlink()
    rig.reopen()  # what was read or written lately is in memory

    rig.compact("hourly")

    [job] = rig.upkeep.compaction.jobs.recent(1)
    assert (job.status, job.error) == ("completed", f"left out unreadable files: {victim.name}")
    assert len(rig.files()) <= 4
    assert victim.name in [found.name for found in rig.files()]
    assert victim.path.exists() == (harm != "gone")
    victim.path.write_bytes(content)
    rig.reopen()
    assert everything(rig) == before


# ------------------------------------------------------------------------------------------ when, and history


def test_a_tier_runs_when_its_schedule_comes_due(rig: Rig) -> None:
    compaction = rig.upkeep.compaction
    rig.write_files(20)
    due_us = compaction.next_runs()["hourly"]

    assert compaction.step(due_us - 1) == 0
    assert compaction.step(due_us) == 1
    assert compaction.step(due_us) == 0
    assert compaction.next_runs()["hourly"] == due_us + HOUR


def test_only_one_cycle_runs_at_a_time(rig: Rig) -> None:
    compaction = rig.upkeep.compaction

    cycle = compaction.trigger()

    with pytest.raises(CycleRunning) as refusal:
        compaction.trigger()
    assert refusal.value.cycle_id == cycle.id
    compaction.step(NOW)
    assert compaction.trigger(["daily"], "default", "cpu").id == cycle.id + 1


def test_a_cycle_may_cover_one_database_or_measurement_only(rig: Rig) -> None:
    rig.write_files(20)
    rig.write_files(20, measurement="mem")

    rig.upkeep.compaction.trigger(database="DEFAULT", measurement="Mem")
    rig.upkeep.compaction.step(NOW)

    assert (len(rig.files("cpu")), len(rig.files("mem"))) == (20, 1)


def test_unknown_tiers_and_a_disabled_compaction_are_refused(tmp_path: Path) -> None:
    with Rig(tmp_path, **{"compaction.enabled": "false"}) as rig:
        with pytest.raises(Unavailable, match="Compaction not initialized"):
            rig.upkeep.compaction.trigger()
        assert rig.upkeep.compaction.next_runs() == {}
    with Rig(tmp_path) as rig, pytest.raises(Invalid, match="unknown tier 'weekly'"):
        rig.upkeep.compaction.trigger(["weekly"])


def test_history_outlives_a_restart_and_closes_interrupted_jobs(rig: Rig) -> None:
    rig.write_files(20)
    rig.compact()
    rig.upkeep.compaction.jobs.start(9, "default", "cpu", "daily", NOW)

    rig.reopen()

    jobs = rig.upkeep.compaction.jobs
    assert [(job.tier, job.status, job.files_compacted) for job in jobs.recent(5)] == [
        ("daily", "failed", 0),
        ("hourly", "completed", 20),
    ]
    assert rig.upkeep.compaction.recovered == 1
    assert rig.upkeep.compaction.trigger().id == 10
    hourly = jobs.totals()["hourly"]
    assert (hourly.completed, hourly.files_compacted) == (1, 20)
    assert hourly.bytes_saved > 0


def test_a_stop_breaks_off_what_runs(rig: Rig) -> None:
    rig.write_files(20)
    before = everything(rig)
    rig.upkeep.compaction.start()
    rig.upkeep.compaction.trigger()

    rig.upkeep.compaction.stop()

    assert "compactor" not in [thread.name for thread in threading.enumerate()]
    assert everything(rig) == before


def test_schedules_are_utc_with_sunday_as_zero() -> None:
    sunday = Schedule("30 4 * * 0").next_after(NOW)  # NOW is a Sunday, noon

    assert sunday == NOW + 7 * 24 * HOUR - 7 * HOUR - HOUR // 2
    for text in ("61 * * * *", "never", "0 0 30 2 *"):
        with pytest.raises(ConfigError, match="cron expression"):
            Schedule(text)
