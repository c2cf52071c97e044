"""Importing files into a real store: types, times, all or nothing."""

from __future__ import annotations

import gzip
import io
import itertools
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arc import clock
from arc.errors import Invalid, TooLarge, Unavailable, Unreadable
from arc.metrics import importing
from arc.metrics.decode import csvfile
from arc.metrics.importing import Importer
from arc.metrics.store import MetricStore, StoreOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arc.metrics.importing import Imported

DAY_US = clock.parse_rfc3339("2025-10-19T00:00:00Z")
LIMIT = 10 << 20
_NUMBERS = itertools.count()


class Target:
    """A store with a database that no other test uses."""

    def __init__(self, store: MetricStore, database: str, tmp_path: Path) -> None:
        self.store, self.database = store, database
        self.importer = Importer(store, tmp_path, LIMIT)

    def csv(self, content: str | bytes, **options: Any) -> Imported:
        file = io.BytesIO(content if isinstance(content, bytes) else content.encode())
        return self.importer.import_csv(file, self.database, "m", **options)

    def parquet(self, table: pa.Table, **options: Any) -> Imported:
        return self.importer.import_parquet(parquet(table), self.database, "m", **options)

    def lines(self, content: bytes, **options: Any) -> Imported:
        return self.importer.import_lines(io.BytesIO(content), self.database, **options)

    def cells(self, *values: str) -> list[Any]:
        """What becomes of the cells of one CSV column."""
        self.csv("time,v\n" + "".join(f"{number + 1},{value}\n" for number, value in enumerate(values)))
        return [row["v"] for row in self.rows()]

    def rows(self, measurement: str = "m") -> list[dict[str, Any]]:
        """What is stored, by time; all of it must be in the lake."""
        cursor = self.store.cursor()
        try:
            found = cursor.execute(f"FROM lake.{self.database}.{measurement} ORDER BY time").to_arrow_table()
        finally:
            cursor.close()
        return found.set_column(0, "time", found.column("time").cast(pa.int64())).to_pylist()

    def measurements(self) -> list[str]:
        return [info.measurement for info in self.store.measurements(self.database)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricStore]:
    store = MetricStore(tmp_path_factory.mktemp("store"), StoreOptions(buffer_age_s=3600, buffer_bytes=1 << 20))
    store.start()
    yield store
    store.close()


@pytest.fixture
def target(store: MetricStore, tmp_path: Path) -> Target:
    return Target(store, f"db{next(_NUMBERS)}", tmp_path)


def parquet(table: pa.Table) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (["1", "-2", "", " +3 "], [1, -2, None, 3]),
        (["1", "1.5", "-1e3", ".5", "NaN"], [1.0, 1.5, -1000.0, 0.5, "nan"]),
        (["1", "99999999999999999999"], [1.0, 1e20]),
        (["1", "0", ""], [1, 0, None]),
        (["true", "FALSE", "1", "", "0"], [True, False, True, None, False]),
        (["1", "", "x"], ["1", "", "x"]),
        (["0x10", "1_000"], ["0x10", "1_000"]),
        (['"a ""b"" c"', '"two\nlines"'], ['a "b" c', "two\nlines"]),
    ],
)
def test_a_csv_column_has_the_narrowest_type_of_all_its_cells(
    target: Target, given: list[str], stored: list[Any]
) -> None:
    found = target.cells(*given)

    assert ["nan" if value != value else value for value in found] == stored
    assert [type(value) for value in found if value is not None and value == value] == [
        type(value) for value in stored if value not in (None, "nan")
    ]


def test_a_type_is_widened_by_a_cell_behind_the_sample(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvfile, "SAMPLE_ROWS", 2)

    assert target.cells("1", "2", "2.5") == [1.0, 2.0, 2.5]


def test_an_empty_column_is_known_and_takes_any_type_later(target: Target) -> None:
    target.csv("time,v,w\n1,,x\n")
    target.csv("time,v\n2,true\n")

    assert [(row["v"], row["w"]) for row in target.rows()] == [(None, "x"), (True, None)]


@pytest.mark.parametrize(
    ("cell", "options", "us"),
    [
        ("2025-10-19T00:00:00Z", {}, DAY_US),
        ("2025-10-19T02:00:00.25+02:00", {}, DAY_US + 250_000),
        ("2025-10-19 00:00:01", {}, DAY_US + 1_000_000),
        ("2025-10-19", {}, DAY_US),
        (str(DAY_US // 1_000_000), {}, DAY_US),
        (f"{DAY_US // 1_000_000}.5", {}, DAY_US + 500_000),
        (str(DAY_US * 1000 + 999), {}, DAY_US),
        ("7", {"time_format": "epoch_ms"}, 7_000),
        ("1.5", {"time_format": "epoch_ms"}, 1_500),
    ],
)
def test_csv_times(target: Target, cell: str, options: dict[str, str], us: int) -> None:
    target.csv(f"v,TS\n1,{cell}\n", time_column="ts", **options)

    assert target.rows() == [{"time": us, "v": 1}]


def test_csv_of_other_shapes(target: Target) -> None:
    done = target.csv("\ufeff# by hand\n# twice\ntime;a;b\r\n1;x;2\r\n\r\n7200;y\r\n", delimiter=";", skip_rows=2)

    assert target.rows() == [{"time": 1_000_000, "a": "x", "b": 2}, {"time": 7_200_000_000, "a": "y", "b": None}]
    assert (done.rows, done.columns, len(done.hours)) == (2, ["time", "a", "b"], 2)
    assert (done.first_us, done.last_us) == (1_000_000, 7_200_000_000)


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("", Invalid, "file contains no rows"),
        ("time,v\n", Invalid, "file contains no rows"),
        ("time,,v\n1,2,3\n", Invalid, "column 2 of the header has no name"),
        ("time,v,V\n1,2,3\n", Invalid, 'column "V" is in the header twice'),
        ("ts,v\n1,2\n", Invalid, 'time column "time" not found; columns are: ts, v'),
        ("time,v\n1,2\n2,3,4\n", Unreadable, "line 3: 3 cells for 2 columns"),
        ('time,v\n1,"2\n3,4\n', Unreadable, "line 3: unexpected end of data"),
        ('time,v\n1\n2,"2\n3,4\n', Unreadable, "line 4: unexpected end of data"),
        ("time,v\n1,2\n,3\n", Unreadable, "row 2: no time"),
        ("time,v\n2025-10-19,2\nnoon,3\n", Unreadable, "row 2: 'noon' is no time"),
        ("time,v\nepoch,2\n", Unreadable, "row 1: 'epoch' is no time"),
        ("time,v\n9999999999999999999,2\nnan,1\n", Unreadable, "outside the years"),
        (b"time,v\n1,2\n2,\xff\xfe\n", Unreadable, "not UTF-8"),
        (gzip.compress(b"time,v\n1,2\n", mtime=0)[:-9], Unreadable, "invalid gzip"),
        (gzip.compress(bytes(LIMIT + 1)), TooLarge, "File too large (max 10MB)"),
        (bytes(LIMIT + 1), TooLarge, "File too large (max 10MB)"),
    ],
)
def test_bad_csv_is_refused_whole(target: Target, text: str | bytes, error: type[Exception], reason: str) -> None:
    with pytest.raises(error) as caught:
        target.csv(text)

    assert type(caught.value) is error
    assert reason in str(caught.value)
    assert target.measurements() == []
    assert target.importer.counters.errors == 1


def test_bad_parameters(target: Target) -> None:
    for options in ({"time_format": "epoch"}, {"delimiter": ""}, {"delimiter": '"'}):
        with pytest.raises(Invalid):
            target.csv("time,v\n1,2\n", **options)
    with pytest.raises(Invalid):
        target.importer.import_csv(io.BytesIO(b"time,v\n1,2\n"), "no/db", "m")


def test_parquet_types_and_times(target: Target) -> None:
    table = pa.table(
        {
            "v": pa.array([Decimal("1.25"), None]),
            "ts": pa.array([DAY_US * 1000, DAY_US * 1000 + 1_000_001_000], pa.timestamp("ns")),
            "s": ["a", "b"],
            "l": [[1], None],
        }
    )

    done = target.parquet(table, time_column="ts")

    assert target.rows() == [
        {"time": DAY_US, "v": 1.25, "s": "a", "l": "[1]"},
        {"time": DAY_US + 1_000_001, "v": None, "s": "b", "l": None},
    ]
    assert (done.rows, done.columns) == (2, ["time", "v", "s", "l"])


@pytest.mark.parametrize(
    ("table", "error", "reason"),
    [
        (pa.table({"time": pa.array([1, None])}), Unreadable, "time must not be null"),
        (pa.table({"time": ["x"]}), Unreadable, "time must be a timestamp or a number"),
        (pa.table({"ts": [1]}), Invalid, 'time column "time" not found; columns are: ts'),
        (pa.table({"time": pa.array([], pa.int64())}), Invalid, "file contains no rows"),
        (pa.table({"time": [1], "v": ["a"], "V": ["b"]}), Invalid, "two columns have the same name"),
    ],
)
def test_bad_parquet_is_refused(target: Target, table: pa.Table, error: type[Exception], reason: str) -> None:
    with pytest.raises(error) as caught:
        target.parquet(table)

    assert type(caught.value) is error
    assert reason in str(caught.value)
    assert target.measurements() == []


def test_parquet_that_is_none_or_a_part_of_one(target: Target) -> None:
    whole = parquet(pa.table({"time": list(range(1000))})).getvalue()

    for damaged in (b"", b"time,v\n1,2\n", whole[:-1], whole[:100] + bytes(100) + whole[200:]):
        with pytest.raises(Unreadable):
            target.importer.import_parquet(io.BytesIO(damaged), "db", "m")


def test_a_long_text_behind_a_million_references_is_too_large(target: Target) -> None:
    table = pa.table({"time": pa.array(range(100_000)), "s": pa.array(["x" * 10_000] * 100_000)})

    with pytest.raises(TooLarge):
        target.parquet(table)


LINES = b'cpu,host=a v=1 1\n# note\nmem,host=b used=7i 2\ncpu,host=b v=2.5,s="two\nlines" 3\n'


def test_lines(target: Target) -> None:
    done = target.lines(gzip.compress(LINES), precision="s")

    assert (done.rows, done.measurements) == (3, ["cpu", "mem"])
    assert target.rows("mem") == [{"time": 2_000_000, "host": "b", "used": 7}]
    assert [row["s"] for row in target.rows("cpu")] == [None, "two\nlines"]
    assert target.store.schema(target.database, "cpu").tags == ("host",)


def test_lines_of_one_measurement(target: Target) -> None:
    done = target.lines(LINES, measurement="mem", precision="s")

    assert (done.rows, done.measurements) == (1, ["mem"])
    assert target.measurements() == ["mem"]


@pytest.mark.parametrize("size", [1, 7, 20, 64])
def test_lines_are_read_in_pieces_of_whole_lines(target: Target, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(importing, "_LINES_BYTES", size)

    done = target.lines(LINES.rstrip(), precision="s")

    assert done.rows == 3
    with pytest.raises(Unreadable, match=r"^line 6: missing fields: 'bad'"):
        target.lines(LINES + b"bad\n")


def test_lines_that_do_not_go_with_earlier_ones_are_refused_whole(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_LINES_BYTES", 8)

    with pytest.raises(Invalid, match="cannot mix float and text"):
        target.lines(b'cpu v=1 1\ncpu v="x" 2\n')
    with pytest.raises(Unreadable, match="line 2: not UTF-8"):
        target.lines(b"cpu v=1 1\ncpu,h=\xff v=1 2\n")
    with pytest.raises(Invalid, match="precision"):
        target.lines(LINES, precision="days")
    assert target.measurements() == []


def test_what_does_not_go_with_stored_rows_is_refused(target: Target) -> None:
    target.csv("time,v\n1,1\n")

    with pytest.raises(Invalid, match=r'column "v": cannot mix integer and text; db\d+\.m stores it as BIGINT'):
        target.csv("time,v\n2,x\n")

    assert len(target.rows()) == 1


def test_a_file_larger_than_the_buffer_waits_for_flushes(target: Target) -> None:
    count = 150_000

    done = target.csv("time,s\n" + "".join(f"{number},text{number}\n" for number in range(count)))

    assert done.rows == count
    assert len({row["s"] for row in target.rows()}) == count


def test_large_pieces_are_written_in_parts(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_BODY_BYTES", 1000)

    before = target.store.counters.requests

    done = target.csv("time,s\n" + "".join(f"{number},{'x' * 90}\n" for number in range(1, 101)))

    assert done.rows == 100
    assert [row["time"] for row in target.rows()] == [second * 1_000_000 for second in range(1, 101)]
    assert target.store.counters.requests - before > 5


def test_imports_leave_no_files_and_run_one_at_a_time(target: Target, tmp_path: Path) -> None:
    class Nosy(io.BytesIO):
        """Imports another file while it is read itself."""

        def read(self, size: int | None = -1, /) -> bytes:
            with pytest.raises(Unavailable, match="another import is running"):
                target.csv("time,v\n1,2\n")
            return super().read(size)

    target.importer.import_csv(Nosy(b"time,v\n1,2\n"), target.database, "m")

    assert target.importer.counters.requests == 1
    assert list(tmp_path.iterdir()) == []
