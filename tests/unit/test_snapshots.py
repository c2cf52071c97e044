"""Snapshots and files that nobody needs any more go, others stay, and so does every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from arc import clock
from tests.unit.rig import DAY, NOW, SECOND, Rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as opened:
        yield opened


def on_disk(rig: Rig) -> int:
    return len(list(rig.store.lake.files.rglob("*.parquet")))


def later(rig: Rig) -> int:
    return clock.now_us() + rig.upkeep.snapshots.age_us + 10 * SECOND


def test_merged_files_leave_the_disk_when_no_query_can_read_them(rig: Rig) -> None:
    rig.write_files(20)
    rig.compact()

    assert rig.upkeep.snapshots.step(clock.now_us()) == 0
    assert on_disk(rig) == 21
    assert rig.upkeep.snapshots.step(later(rig)) == 20
    assert on_disk(rig) == 1
    assert rig.query("SELECT count(*), sum(n) FROM cpu") == [(200, sum(range(200)))]


def test_only_old_snapshots_are_forgotten(rig: Rig) -> None:
    rig.write_files(3)
    version = rig.store.stats()["lake_version"]
    count = f"SELECT count(*) FROM lake.default.cpu AT (VERSION => {version - 1})"
    cursor = rig.store.cursor()

    rig.upkeep.snapshots.step(clock.now_us())
    assert cursor.execute(count).fetchall() == [(20,)]
    rig.upkeep.snapshots.step(later(rig))
    with pytest.raises(duckdb.Error, match="No snapshot found"):
        cursor.execute(count)

    cursor.close()
    assert rig.query("SELECT count(*) FROM cpu") == [(30,)]


def test_writes_deletes_and_merges_go_on_after_it(tmp_path: Path) -> None:
    with Rig(tmp_path, **{"delete.enabled": "true"}) as rig:
        for start in (0, 200, 400):
            rig.write_files(20, start=start)
            rig.upkeep.deletion.delete("default", "cpu", f"n = {start + 7}", dry_run=False, confirm=True)
            rig.upkeep.snapshots.step(later(rig))
            rig.compact()

        rig.upkeep.snapshots.step(later(rig))
        rig.reopen()

        assert rig.query("SELECT count(*), count(DISTINCT n) FROM cpu") == [(597, 597)]
        assert on_disk(rig) == len(rig.files()) + sum(found.deleted_rows > 0 for found in rig.files())


def test_a_start_removes_what_a_broken_off_merge_left(rig: Rig) -> None:
    def merge_and_die() -> None:
        with rig.store.upkeep() as lake, lake.beside("merge") as cursor:
            cursor.execute("CALL ducklake_merge_adjacent_files('lake', 'cpu', schema => 'default')")
            raise RuntimeError("the process ends here")

    rig.write_files(20)
    with pytest.raises(RuntimeError):
        merge_and_die()
    assert on_disk(rig) == 21

    rig.reopen()

    assert on_disk(rig) == 20
    assert rig.query("SELECT count(*) FROM cpu") == [(200,)]


def test_snapshots_outlive_the_longest_query(tmp_path: Path) -> None:
    with Rig(tmp_path, **{"query.timeout_s": "3600"}) as rig:
        assert rig.upkeep.snapshots.age_us > 3600 * SECOND


def test_old_history_is_dropped(rig: Rig) -> None:
    jobs = rig.upkeep.compaction.jobs
    jobs.start(1, "default", "cpu", "hourly", NOW)
    jobs.start(2, "default", "cpu", "hourly", NOW + DAY)

    rig.upkeep.snapshots.step(NOW + 30 * DAY + SECOND)

    assert [job.cycle_id for job in jobs.recent(5)] == [2]
