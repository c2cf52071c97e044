"""Which measurements queries read by the names of their files, and that they see the same rows as through the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.rig import NOW, SECOND, Rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path, **{"delete.enabled": "true"}) as opened:
        yield opened


def named(rig: Rig) -> int:
    """How many files the queries of cpu name; 0 when they go through the lake."""
    [view] = rig.store.views([("default", "cpu")])
    assert view is not None
    return len(view.files)


def numbers(rig: Rig) -> list[int]:
    return [n for (n,) in rig.query("SELECT n FROM cpu ORDER BY n")]


def test_few_plain_files_are_named_beside_what_is_buffered(rig: Rig) -> None:
    rig.write_files(3, rows=2)
    rig.write(time=[NOW], n=[6], later=["x"])

    assert named(rig) == 3
    assert numbers(rig) == [0, 1, 2, 3, 4, 5, 6]
    assert rig.query("SELECT max(later), min(host) FROM cpu") == [("x", "h0")]


def test_many_files_are_left_to_the_lake_until_they_are_merged(rig: Rig) -> None:
    rig.write_files(13, rows=2)
    assert (named(rig), numbers(rig)) == (0, list(range(26)))

    rig.compact()

    assert (named(rig), numbers(rig)) == (1, list(range(26)))


@pytest.mark.parametrize(
    ("column", "value"), [("later", "x"), ("n", 1.5), ("host", None)], ids=["new", "wider", "without"]
)
def test_files_of_different_columns_are_left_to_the_lake(rig: Rig, column: str, value: object) -> None:
    rig.write_files(1, rows=2)
    columns = {"n": [2], "host": ["h2"], column: [value]}
    rig.write(time=[NOW], **{name: values for name, values in columns.items() if values != [None]})
    rig.store.flush()

    assert named(rig) == 0
    assert rig.query("SELECT count(*), count(host) FROM cpu") == [(3, 2 if column == "host" else 3)]
    assert rig.query(f"SELECT max({column}) FROM cpu") == [(value or "h1",)]


def test_deleted_rows_are_left_to_the_lake(rig: Rig) -> None:
    rig.write_files(2, rows=3)

    rig.upkeep.deletion.delete("default", "cpu", "n IN (1, 3, 4, 5)", dry_run=False, confirm=True)

    assert (named(rig), numbers(rig)) == (0, [0, 2])


def test_a_file_that_went_whole_leaves_the_others_named(rig: Rig) -> None:
    rig.write_files(2, rows=3)

    rig.upkeep.deletion.delete("default", "cpu", "n < 3", dry_run=False, confirm=True)

    assert (named(rig), numbers(rig)) == (1, [3, 4, 5])


def test_the_files_of_an_older_version_are_not_those_merged_after_it(rig: Rig) -> None:
    rig.write_files(11, rows=2)
    [before] = rig.store.views([("default", "cpu")])
    rig.write_files(1, rows=2, start=22)
    rig.compact()
    assert before is not None

    files = rig.store.lake._files_at(rig.store.schema("default", "cpu"), before.lake_version or 0)

    assert len(before.files) == 11
    assert not files  # the merged file has rows of later versions
    assert (named(rig), numbers(rig)) == (1, list(range(24)))


def test_a_column_that_a_later_file_lacks_is_null_there(rig: Rig) -> None:
    rig.write_files(1, rows=2)
    rig.write(time=[NOW], n=[2])
    rig.store.flush()

    assert rig.query("SELECT count(*), count(host), count(*) FILTER (host IS NULL) FROM cpu") == [(3, 2, 1)]
    assert rig.query("SELECT n FROM cpu WHERE host IS NULL") == [(2,)]
    assert rig.query("SELECT count(*) FROM cpu WHERE host IS NOT NULL") == [(2,)]


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [1, 2, 0]])
def test_texts_too_long_for_statistics_are_found(rig: Rig, order: list[int]) -> None:
    texts = ["m", "z" * 5000, "b"]
    for number, v in zip(order, [1, 1, 1.5], strict=True):  # widened: through the lake
        rig.write(time=[NOW], text=[texts[number]], v=[v])
        rig.store.flush()

    assert named(rig) == 0
    assert rig.query("SELECT count(*) FROM cpu WHERE text > 'n'") == [(1,)]
    assert rig.query("SELECT count(*) FROM cpu WHERE text = 'm'") == [(1,)]
    assert rig.query("SELECT count(*) FROM cpu WHERE text < 'c'") == [(1,)]


def test_a_directory_with_signs_of_patterns_is_left_to_the_lake(tmp_path: Path) -> None:
    with Rig(tmp_path / "a[b]*") as rig:
        rig.write_files(2, rows=2)

        assert (named(rig), numbers(rig)) == (0, [0, 1, 2, 3])


def test_a_drop_and_a_new_beginning(rig: Rig) -> None:
    rig.write_files(2, rows=2)
    assert named(rig) == 2

    rig.store.drop_database("default")
    assert rig.store.views([("default", "cpu")]) == [None]
    rig.write(time=[NOW + SECOND], n=[7])
    rig.store.flush()

    assert (named(rig), numbers(rig)) == (1, [7])
