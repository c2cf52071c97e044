"""The lake takes rows, columns and the log's mark in one commit, and knows all of it after a restart."""

from __future__ import annotations

import shutil

import duckdb
import pyarrow as pa
import pytest

from arc.metrics.storage.lake import Lake, Stored, exact
from arc.metrics.storage.schema import ARROW_TYPES, TIME, TIME_TYPE, TableSchema


class Disk:
    """Lakes opened one after the other on one directory."""

    def __init__(self, path):
        self.path = path
        self._open = []

    def open(self):
        self.close()
        self._open.append(Lake(self.path / "lake", self.path / "tmp", threads=1))
        return self._open[-1]

    def close(self):
        while self._open:
            self._open.pop().close()


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "data")
    yield disk
    disk.close()


@pytest.fixture
def lake(disk):
    return disk.open()


def schema(measurement="cpu", in_lake=None, tags=(), database="db", **kinds):
    """in_lake: what the lake has of it already."""
    columns = {TIME: (TIME, TIME_TYPE), **{name.casefold(): (name, kind) for name, kind in kinds.items()}}
    return TableSchema(database, measurement, columns, tuple(tags), {TIME: TIME_TYPE, **in_lake} if in_lake else {})


def write(lake, schema, **values):
    """A file with these columns; `time` counts up."""
    rows = len(next(iter(values.values()), [0]))
    columns = {TIME: pa.array(range(rows), ARROW_TYPES[TIME_TYPE])}
    kinds = dict(schema.names_and_types())
    columns |= {name: pa.array(column, ARROW_TYPES[kinds[name]]) for name, column in values.items()}
    return schema, lake.write_file(schema, pa.table(columns))


def select(lake, what="* EXCLUDE (time)", table="db.cpu", version=None):
    at = "" if version is None else f" AT (VERSION => {version})"
    cursor = lake.cursor()
    try:
        return cursor.execute(f"SELECT {what} FROM lake.{table}{at} ORDER BY ALL").fetchall()
    finally:
        cursor.close()


def data_files(disk):
    return sorted(path.name for path in disk.path.glob("lake/files/**/*.parquet"))


def test_empty_lake_knows_nothing(lake):
    assert (lake.mark, lake.schemas(), lake.databases(), lake.stored()) == (0, [], [], {})


def test_commit_makes_rows_visible_with_the_mark(disk, lake):
    files = [
        write(lake, schema(v="BIGINT"), v=[1, 2]),
        write(lake, schema("mem", database="other", used="DOUBLE"), used=[0.5]),
    ]

    version = lake.commit(files, 7)

    assert select(lake) == [(1,), (2,)]
    assert select(lake, table="other.mem") == [(0.5,)]
    assert (lake.mark, lake.version) == (7, version)
    assert lake.databases() == ["db", "other"]
    stored = lake.stored()
    assert stored["db", "cpu"] == Stored(1, files[0][1].stat().st_size, 2, 0, 1)
    assert stored["other", "mem"].rows == 1


def test_all_types_come_back_as_they_went(disk, lake):
    kinds = {"i": "BIGINT", "d": "DOUBLE", "b": "BOOLEAN", "t": "VARCHAR", "x": "BLOB"}
    values = {"i": [2**62, None], "d": [0.1, None], "b": [True, None], "t": ["ä\0b", None], "x": [b"\0\xff", None]}

    lake.commit([write(lake, schema(**kinds), **values)], 1)

    [found] = disk.open().schemas()
    assert found.names_and_types() == ((TIME, TIME_TYPE), *kinds.items())
    assert select(disk.open()) == [(2**62, 0.1, True, "ä\0b", b"\0\xff"), (None,) * 5]


def test_restart_knows_version_mark_and_schemas(disk, lake):
    version = lake.commit([write(lake, schema(tags=["Host"], Host="VARCHAR", v="BIGINT"), Host=["a"], v=[1])], 7)

    again = disk.open()

    assert (again.version, again.mark) == (version, 7)
    [found] = again.schemas()
    assert (found.database, found.measurement, found.tags) == ("db", "cpu", ("Host",))
    assert found.columns == {
        "time": (TIME, TIME_TYPE),
        "host": ("Host", "VARCHAR"),
        "v": ("v", "BIGINT"),
    }
    assert found.in_lake == {TIME: TIME_TYPE, "Host": "VARCHAR", "v": "BIGINT"}
    assert select(again) == [("a", 1)]


def test_columns_that_held_only_nulls_are_remembered(disk, lake):
    lake.commit([write(lake, schema(v="BIGINT", Later="NULL"), v=[1])], 1)

    [found] = disk.open().schemas()

    assert found.names_and_types() == ((TIME, TIME_TYPE), ("v", "BIGINT"), ("Later", "NULL"))
    assert found.in_lake == {TIME: TIME_TYPE, "v": "BIGINT"}


def test_null_column_that_gets_a_type_is_a_column_like_any_other(disk, lake):
    lake.commit([write(lake, schema(v="BIGINT", Later="NULL"), v=[1])], 1)
    lake = disk.open()
    [known] = lake.schemas()
    known.columns["later"] = ("Later", "VARCHAR")

    lake.commit([write(lake, known, v=[2], Later=["x"])], 2)

    [found] = disk.open().schemas()
    assert found.names_and_types() == ((TIME, TIME_TYPE), ("v", "BIGINT"), ("Later", "VARCHAR"))
    assert select(disk.open(), "v, Later") == [(1, None), (2, "x")]


def test_new_column_is_null_in_older_rows(lake):
    lake.commit([write(lake, schema(v="BIGINT"), v=[1])], 1)

    lake.commit([write(lake, schema(in_lake={"v": "BIGINT"}, v="BIGINT", w="VARCHAR"), v=[2], w=["x"])], 2)

    assert select(lake, "v, w") == [(1, None), (2, "x")]


def test_file_may_lack_columns_of_the_table(lake):
    known = schema(in_lake={"v": "BIGINT", "w": "VARCHAR"}, v="BIGINT", w="VARCHAR")
    lake.commit([write(lake, schema(v="BIGINT", w="VARCHAR"), v=[1], w=["x"])], 1)

    lake.commit([write(lake, known, v=[2])], 2)

    assert select(lake, "v, w") == [(1, "x"), (2, None)]


def test_integers_become_floats_exactly(disk, lake):
    lake.commit([write(lake, schema(v="BIGINT"), v=[1, -(2**53)])], 1)

    lake.commit([write(lake, schema(in_lake={"v": "BIGINT"}, v="DOUBLE"), v=[0.5])], 2)

    assert select(lake) == [(-(2.0**53),), (0.5,), (1.0,)]
    again = disk.open()
    assert select(again) == [(-(2.0**53),), (0.5,), (1.0,)]
    assert [found.widened for found in again.schemas()] == [{"v"}]


def test_integers_in_older_files_are_compared_as_floats(lake):
    lake.commit([write(lake, schema(v="BIGINT"), v=[1, 2])], 1)

    lake.commit([write(lake, schema(in_lake={"v": "BIGINT"}, v="DOUBLE"), v=[0.5])], 2)

    v = exact("v")
    conditions = f"{v} > 0.7", f"{v} >= 1.2", f"{v} = 1.4", f"{v} < 1.4", f"{v} IN (1, 0.6)"
    found = [[value for (value,) in select(lake, table=f"db.cpu WHERE {condition}")] for condition in conditions]
    assert found == [[1.0, 2.0], [2.0], [], [0.5, 1.0], [1.0]]


def test_older_version_shows_what_it_showed(lake):
    first = lake.commit([write(lake, schema(v="BIGINT"), v=[1])], 1)

    lake.commit([write(lake, schema(in_lake={"v": "BIGINT"}, v="DOUBLE", w="DOUBLE"), v=[0.5], w=[1.5])], 2)

    assert select(lake, version=first) == [(1,)]


def test_names_are_quoted(disk, lake):
    odd = schema("select-it", database="group", **{'a "quoted" col': "BIGINT", "ends'": "NULL", "order": "DOUBLE"})

    lake.commit([write(lake, odd, **{'a "quoted" col': [1], "order": [0.5]})], 1)

    again = disk.open()
    [found] = again.schemas()
    assert [name for name, _ in found.names_and_types()] == [TIME, 'a "quoted" col', "order", "ends'"]
    assert select(again, table='"group"."select-it"') == [(1, 0.5)]


def test_files_lie_in_the_folder_of_their_measurement_for_the_owner_only(disk, lake):
    _, path = write(lake, schema(v="BIGINT"), v=[1])

    assert path.parent == disk.path / "lake" / "files" / "db" / "cpu"
    assert disk.path.joinpath("lake").stat().st_mode & 0o77 == 0


def test_file_that_cannot_be_written_leaves_nothing(disk, lake, monkeypatch):
    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("arc.metrics.storage.lake._sync", fail)

    with pytest.raises(OSError, match="No space"):
        write(lake, schema(v="BIGINT"), v=[1])

    assert data_files(disk) == []


def test_failed_commit_leaves_neither_rows_nor_mark_nor_columns(disk, lake):
    lake.commit([write(lake, schema(v="BIGINT"), v=[1])], 1)
    good = write(lake, schema(in_lake={"v": "BIGINT"}, v="BIGINT", w="BIGINT"), v=[2], w=[2])
    gone = write(lake, schema("mem", v="BIGINT"), v=[2])
    gone[1].unlink()

    with pytest.raises(duckdb.Error):
        lake.commit([good, gone], 2)

    assert (select(lake), lake.mark) == ([(1,)], 1)
    again = disk.open()
    assert (select(again), again.mark) == ([(1,)], 1)
    assert [found.measurement for found in again.schemas()] == ["cpu"]


def test_commit_works_after_one_that_failed(lake):
    known = schema(v="BIGINT", Later="NULL")
    files = [write(lake, known, v=[1])]
    gone = write(lake, schema("mem", v="BIGINT"), v=[2])
    gone[1].unlink()
    with pytest.raises(duckdb.Error):
        lake.commit([*files, gone], 1)

    lake.commit([write(lake, known, v=[1])], 1)

    assert select(lake) == [(1,)]
    [found] = lake.schemas()
    assert found.columns["later"] == ("Later", "NULL")


def test_error_after_the_commit_took_place_is_no_error(lake, monkeypatch):
    """The connection may break while the answer to COMMIT is on its way."""
    real = lake._writer

    class Breaking:
        def execute(self, sql, *values):
            found = real.execute(sql, *values)
            if sql == "COMMIT":
                raise duckdb.IOException("the answer did not arrive")
            return found

    files = [write(lake, schema(v="BIGINT"), v=[1])]
    with monkeypatch.context() as patch:
        patch.setattr(lake, "_writer", Breaking())

        lake.commit(files, 5)

    assert lake.mark == 5
    assert select(lake, version=lake.version) == [(1,)]


def test_other_transactions_repeat_the_mark(disk, lake):
    lake.commit([write(lake, schema(v="BIGINT"), v=[1, 2])], 5)

    with lake.transaction("delete some") as cursor:
        cursor.execute("DELETE FROM lake.db.cpu WHERE v = 1")

    again = disk.open()
    assert again.mark == 5
    assert select(again) == [(2,)]


def test_start_removes_files_no_commit_knows(disk, lake, caplog):
    lake.commit([write(lake, schema(v="BIGINT"), v=[1])], 1)
    _, orphan = write(lake, schema("mem", v="BIGINT"), v=[2])
    foreign = orphan.with_name("mine.parquet")
    shutil.copy(orphan, foreign)

    again = disk.open()

    assert not orphan.exists()
    assert foreign.exists()
    assert orphan.name in caplog.text
    assert select(again) == [(1,)]


def test_data_directory_may_move(disk, lake):
    lake.commit([write(lake, schema(v="BIGINT"), v=[1])], 1)
    disk.close()
    moved = disk.path.with_name("it's moved")
    disk.path.rename(moved)
    disk.path = moved

    for value in (2, 3):  # opened twice: the second time it has files of both places
        lake = disk.open()
        [known] = lake.schemas()
        lake.commit([write(lake, known, v=[value])], value)

    assert select(disk.open()) == [(1,), (2,), (3,)]
    assert len(data_files(disk)) == 3
    assert disk.open().stored()["db", "cpu"].rows == 3


def test_relative_directory_is_the_one_at_the_start(disk, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    disk.path = disk.path.relative_to(tmp_path)
    lake = disk.open()
    monkeypatch.chdir("/")

    lake.commit([write(lake, schema(v="BIGINT"), v=[1])], 1)

    assert select(lake) == [(1,)]


def test_databases_may_have_names_the_engine_knows(disk, lake):
    names = ["lake", "main", "memory", "pg_temp", "sys", "tmp"]
    lake.commit([write(lake, schema(database=name, v="BIGINT"), v=[1]) for name in names], 1)

    again = disk.open()

    assert again.databases() == names
    assert [found.database for found in again.schemas()] == names
    assert {value for name in names for value in select(again, table=f'"{name}".cpu')} == {(1,)}


def test_what_a_query_could_reach_is_sealed(disk, lake):
    cursor = lake.cursor()

    with pytest.raises(duckdb.Error):
        cursor.execute("SELECT * FROM read_text('/etc/hostname')")
    with pytest.raises(duckdb.Error):
        cursor.execute("SET enable_external_access = true")

    cursor.close()
