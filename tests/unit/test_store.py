"""The metric store: a row is seen from the moment its write is acknowledged, exactly once, whatever happens."""

from __future__ import annotations

import errno
import itertools
import shutil
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace

import duckdb
import msgpack
import pyarrow as pa
import pytest

from arc import clock
from arc.errors import Invalid, Unavailable
from arc.metrics import store as store_module
from arc.metrics.query.engine import QueryEngine
from arc.metrics.storage.schemas import Schemas
from arc.metrics.storage.wal import WriteAheadLog
from arc.metrics.store import MetricStore, StoreOptions

NOW_US = 1_700_000_000_000_000
LAZY = {"buffer_age_s": 3600.0, "threads": 1}  # nothing is flushed unless asked for
WAIT_S = 30.0


@pytest.fixture
def stores(tmp_path):
    """`stores(path, **options)` opens and starts a store; all are closed at the end."""
    opened = []

    def open_store(path=tmp_path / "data", **options):
        store = MetricStore(path, StoreOptions(**{**LAZY, **options}))
        opened.append(store)
        store.start()
        return store

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(stores):
    return stores()


@pytest.fixture
def queries(store):
    queries = QueryEngine(store)
    queries.start()
    yield queries
    queries.stop()


def columnar(measurement, **columns):
    """A body of these columns; time is the position unless given."""
    rows = len(next(iter(columns.values())))
    times = [NOW_US + position for position in range(rows)]
    return msgpack.packb({"m": measurement, "columns": {"time": times, **columns}})


def write(store, measurement="cpu", database="default", **columns):
    return store.write_msgpack(columnar(measurement, **columns), database)


def view(store, measurement="cpu", database="default"):
    [found] = store.views([(database, measurement)])
    return found


def rows(store, measurement="cpu", database="default"):
    """What a query would see: values of all columns but time, lake and buffer together, sorted."""
    found = view(store, measurement, database)
    names = [name for name, _ in found.columns if name != "time"]
    tables = [found.buffered] if found.buffered is not None else []
    if found.lake_version is not None:
        with closing(store.cursor()) as cursor:
            table = f'lake."{found.database}"."{found.measurement}" AT (VERSION => {found.lake_version})'
            tables.append(cursor.execute(f"SELECT * FROM {table}").to_arrow_table())
    values = [tuple(row.get(name) for name in names) for table in tables for row in table.to_pylist()]
    return sorted(values, key=str)


def values(store, measurement="cpu", database="default"):
    return [value for (value,) in rows(store, measurement, database)]


def files(store):
    return sorted(path.name for path in store.lake.files.glob("*/*/*.parquet"))


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def crash_image(store, path):
    """The data directory as a crash at this moment would leave it, at another place."""
    shutil.copytree(store.lake.directory.parent, path)
    return path


class TestWrite:
    def test_row_is_seen_at_once(self, store):
        assert write(store, v=[1, 2]) == 2

        assert values(store) == [1, 2]
        assert view(store).lake_version is None

    def test_row_is_seen_once_before_and_after_a_flush(self, store):
        write(store, v=[1])
        store.flush()
        write(store, v=[2])

        assert values(store) == [1, 2]
        assert store.flush() == 1
        assert values(store) == [1, 2]
        assert view(store).buffered is None

    def test_unknown_measurement_has_no_view(self, store):
        write(store, v=[1])

        assert store.views([("default", "mem"), ("other", "cpu"), ("DEFAULT", "CPU")])[:2] == [None, None]

    def test_names_compare_without_case_and_keep_the_first_spelling(self, store):
        write(store, "Cpu", "Factory", Usage=[1])
        write(store, "CPU", "factory", USAGE=[2])
        store.flush()
        write(store, "cpu", "FACTORY", usage=[3])

        assert values(store, "cpu", "factory") == [1, 2, 3]
        assert store.databases() == ["Factory"]
        [info] = store.measurements("FACTORY")
        assert (info.database, info.measurement, info.columns[1]) == ("Factory", "Cpu", ("Usage", "BIGINT"))

    def test_equal_measurements_of_two_databases_never_mix(self, stores, store):
        write(store, database="a", v=[1])
        write(store, database="b", v=["text"])
        store.flush()
        write(store, database="a", v=[2])
        store.close()

        again = stores()
        assert values(again, database="a") == [1, 2]
        assert values(again, database="b") == ["text"]
        assert again.databases() == ["a", "b"]

    def test_bad_database_name_leaves_no_trace(self, store):
        for name in ("../x", "a/b", "1a", "x" * 65, "", "system"):
            with pytest.raises(Invalid):
                write(store, database=name, v=[1])

        assert store.databases() == []
        assert store.wal.entries == 0
        assert list(store.lake.files.iterdir()) == []

    def test_batch_of_several_measurements(self, store):
        items = [{"m": name, "t": NOW_US, "h": "a", "fields": {"v": 1}} for name in ("cpu", "mem", "disk")]

        assert store.write_msgpack(msgpack.packb({"batch": items}), "default") == 3

        assert [info.measurement for info in store.measurements()] == ["cpu", "disk", "mem"]

    def test_differing_columns_give_the_union(self, stores, store):
        write(store, a=[1])
        write(store, b=["x"])
        store.flush()
        write(store, c=[0.5], a=[2])
        expected = [(1, None, None), (2, None, 0.5), (None, "x", None)]

        assert rows(store) == expected
        store.close()
        assert rows(stores()) == expected

    def test_writers_in_parallel_share_syncs_and_lose_nothing(self, store):
        def send(writer):
            for number in range(25):
                write(store, v=[writer * 100 + number])

        threads = [threading.Thread(target=send, args=(writer,)) for writer in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(values(store)) == sorted(writer * 100 + number for writer in range(8) for number in range(25))
        assert store.wal.entries == 200
        assert store.wal.syncs <= 200

    def test_closed_store_takes_no_write(self, store):
        store.close()

        with pytest.raises(Unavailable):
            write(store, v=[1])
        with pytest.raises(Unavailable):
            store.views([("default", "cpu")])


class TestTurns:
    """Large bodies are decoded one at a time."""

    LARGE = columnar("large", v=[float(number) for number in range(40_000)])

    @pytest.fixture
    def decoders(self, monkeypatch):
        """Holds up the decoding of large bodies until `go` is set; `inside` are those that wait there."""
        held = SimpleNamespace(go=threading.Event(), inside=deque(), most=0)
        real = store_module.formats.decode

        def decode(kind, body, *rest):
            if len(body) < len(self.LARGE):
                return real(kind, body, *rest)
            held.inside.append(body)
            held.most = max(held.most, len(held.inside))
            assert held.go.wait(WAIT_S)
            decoded = real(kind, body, *rest)
            held.inside.pop()
            return decoded

        monkeypatch.setattr(store_module.formats, "decode", decode)
        yield held
        held.go.set()

    def test_large_bodies_take_turns_and_small_ones_need_none(self, store, decoders, monkeypatch):
        monkeypatch.setattr(store_module, "_TURN_S", WAIT_S)
        with ThreadPoolExecutor(3) as pool:
            large = [pool.submit(store.write_msgpack, self.LARGE, "default") for _ in range(3)]
            wait_until(lambda: decoders.inside)

            write(store, v=[1])

            decoders.go.set()
            assert [each.result(WAIT_S) for each in large] == [40_000] * 3
        assert decoders.most == 1
        assert values(store) == [1]

    def test_none_waits_long_for_one_that_takes_long(self, store, decoders, monkeypatch):
        monkeypatch.setattr(store_module, "_TURN_S", 0.01)
        with ThreadPoolExecutor(2) as pool:
            large = [pool.submit(store.write_msgpack, self.LARGE, "default") for _ in range(2)]

            wait_until(lambda: len(decoders.inside) == 2)

            decoders.go.set()
            assert [each.result(WAIT_S) for each in large] == [40_000] * 2

    def test_a_refused_body_gives_its_turn_back(self, store):
        for _ in range(2):
            with pytest.raises(Invalid):
                store.write_msgpack(b"\xc1" * 300_000, "default")
        assert store.write_msgpack(self.LARGE, "default") == 40_000


class TestTypes:
    def test_conflict_names_the_column_and_leaves_no_trace(self, store):
        write(store, v=[1])
        entries = store.wal.entries

        with pytest.raises(Invalid, match='column "v": cannot mix integer and text'):
            write(store, new=[1], v=["text"])

        assert store.wal.entries == entries
        assert view(store).columns == (("time", "TIMESTAMP WITH TIME ZONE"), ("v", "BIGINT"))
        assert values(store) == [1]
        assert store.stats()["rejected"] == 1

    def test_conflict_in_one_measurement_refuses_the_whole_request(self, store):
        write(store, "mem", v=[1])
        items = [{"m": "cpu", "columns": {"v": [1]}}, {"m": "mem", "columns": {"v": [True]}}]

        with pytest.raises(Invalid):
            store.write_msgpack(msgpack.packb({"batch": items}), "default")

        assert [info.measurement for info in store.measurements()] == ["mem"]
        write(store, "cpu", v=["text"])  # nothing of the refused request holds a type

    def test_conflict_with_what_the_lake_holds_after_a_restart(self, stores, store):
        write(store, v=[1])
        store.close()

        with pytest.raises(Invalid, match="stores it as BIGINT"):
            write(stores(), v=[True])

    def test_integers_then_floats_are_floats(self, stores, store):
        """Whether the integers, the floats, both or none are in the lake."""
        cases = list(itertools.product([False, True], repeat=2))
        for number, flushes in enumerate(cases):
            for column, flush in zip(([1, 2], [0.5]), flushes, strict=True):
                write(store, f"m{number}", v=column)
                if flush:
                    store.flush()
            assert values(store, f"m{number}") == [0.5, 1.0, 2.0]
            assert view(store, f"m{number}").columns[1] == ("v", "DOUBLE")
        store.close()

        again = stores()
        for number, _ in enumerate(cases):
            write(again, f"m{number}", v=[7])
            assert values(again, f"m{number}") == [0.5, 1.0, 2.0, 7.0]

    def test_widened_column_is_told_to_the_query(self, stores, store):
        write(store, v=[1], w=[1])
        store.flush()
        write(store, v=[0.5], w=[2])
        assert view(store).widened == frozenset()  # the lake of this instant still has integers only

        store.flush()

        assert view(store).widened == {"v"}
        store.close()
        assert view(stores()).widened == {"v"}

    def test_queries_compare_integers_of_a_float_column_as_floats(self, store, queries):
        """DuckDB alone would round the constant to the integers of the older file."""
        write(store, v=[1, 2])
        store.flush()
        write(store, v=[0.5])

        for _ in range(2):  # first with the floats in the buffer
            found = [
                queries.run(f"SELECT v FROM cpu WHERE {condition} ORDER BY v").table.column("v").to_pylist()
                for condition in ("v > 0.7", "v >= 1.2", "v = 1.4", "v < 1.4", "v IN (1, 0.6)")
            ]
            assert found == [[1.0, 2.0], [2.0], [], [0.5, 1.0], [1.0]]
            store.flush()

    def test_all_null_column_survives_until_it_gets_a_type(self, stores, store):
        write(store, v=[1], later=[None])
        assert view(store).columns[2] == ("later", "NULL")
        store.close()

        store = stores()
        assert view(store).columns[2] == ("later", "NULL")
        write(store, v=[2], later=["x"])
        store.close()

        assert rows(stores()) == [(1, None), (2, "x")]

    def test_measurement_of_nulls_only(self, stores, store):
        write(store, later=[None, None])
        store.flush()
        store.close()

        store = stores()
        assert rows(store) == [(None,), (None,)]
        write(store, later=[True])
        assert rows(store) == [(None,), (None,), (True,)]


class TestFlush:
    def test_nothing_to_flush(self, store):
        assert store.flush() == 0
        assert files(store) == []

    def test_flush_makes_a_file_per_measurement_and_empties_the_log(self, store):
        write(store, "cpu", v=[1])
        write(store, "cpu", v=[2])
        write(store, "mem", v=[3])

        assert store.flush() == 3

        assert len(files(store)) == 2
        assert store.wal.segments() == []
        stats = store.stats()
        assert (stats["flushes"], stats["flushed_rows"], stats["buffered_rows"]) == (1, 3, 0)

    def test_full_buffer_is_flushed_by_itself(self, stores):
        store = stores(buffer_rows=10)

        write(store, v=list(range(10)))

        wait_until(lambda: store.stats()["flushed_rows"] == 10)
        assert values(store) == list(range(10))

    def test_full_log_segment_is_flushed(self, stores):
        store = stores(wal_segment_bytes=100)

        write(store, v=list(range(100)))

        wait_until(lambda: store.stats()["flushed_rows"] == 100)

    def test_old_rows_are_flushed_by_themselves(self, stores):
        store = stores(buffer_age_s=0.05)

        write(store, v=[1])

        wait_until(lambda: store.stats()["flushed_rows"] == 1)

    def test_busy_neighbour_does_not_delay_the_quiet(self, store, monkeypatch):
        now_us = NOW_US
        monkeypatch.setattr(clock, "now_us", lambda: now_us)
        write(store, "quiet", v=[1])
        age_us = int(store.options.buffer_age_s * clock.US_PER_S)
        for _ in range(5):
            now_us += age_us // 5
            write(store, "busy", v=[1])

        assert not store.flush_is_due(NOW_US + age_us - 1)
        assert store.flush_is_due(NOW_US + age_us)

    def test_rows_that_arrive_during_a_flush_wait_for_the_next(self, store, monkeypatch):
        real = store.lake.commit

        def commit(*args):
            write(store, v=[2])
            assert values(store) == [1, 2]
            return real(*args)

        write(store, v=[1])
        with monkeypatch.context() as patch:
            patch.setattr(store.lake, "commit", commit)

            assert store.flush() == 1

        assert values(store) == [1, 2]
        assert view(store).buffered.num_rows == 1
        assert len(store.wal.segments()) == 1

    def test_column_that_appears_during_a_flush(self, store, monkeypatch):
        real = store.lake.commit

        def commit(*args):
            write(store, v=[0.5], w=["x"])
            return real(*args)

        write(store, v=[1])
        with monkeypatch.context() as patch:
            patch.setattr(store.lake, "commit", commit)
            store.flush()

        assert rows(store) == [(0.5, "x"), (1, None)]
        store.flush()
        assert rows(store) == [(0.5, "x"), (1.0, None)]

    @pytest.mark.parametrize(
        ("part", "error"),
        [
            ("write_file", OSError(errno.ENOSPC, "No space left on device")),
            ("write_file", pa.ArrowException("odd")),
            ("commit", duckdb.IOException("No space left on device")),
        ],
    )
    def test_failed_flush_keeps_the_rows_and_the_next_one_succeeds(self, stores, store, monkeypatch, part, error):
        def fail(*_):
            raise error

        write(store, v=[1])
        with monkeypatch.context() as patch:
            patch.setattr(store.lake, part, fail)
            with pytest.raises(Unavailable) as caught:
                store.flush()
            write(store, v=[2])
            assert values(store) == [1, 2]

        assert caught.value.retry_after_s >= 1
        assert store.stats()["flush_failures"] == 1
        assert store.flush() == 2
        assert values(store) == [1, 2]
        assert store.wal.segments() == []
        store.close()
        assert values(stores()) == [1, 2]

    def test_file_that_fails_takes_the_others_of_its_flush_back(self, store, monkeypatch):
        real = store.lake.write_file

        def second_fails(schema, table):
            if schema.measurement == "mem":
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(schema, table)

        write(store, "cpu", v=[1])
        write(store, "mem", v=[1])
        monkeypatch.setattr(store.lake, "write_file", second_fails)

        with pytest.raises(Unavailable):
            store.flush()

        assert files(store) == []
        monkeypatch.undo()

    def test_flush_that_could_not_be_undone_is_found_committed(self, store, monkeypatch):
        """COMMIT took place, its answer was an error, and the catalog could not be asked: the files must stay."""
        real = store.lake.commit

        def commit(*args):
            real(*args)
            raise duckdb.FatalException("database has been invalidated")

        write(store, v=[1])
        with monkeypatch.context() as patch:
            patch.setattr(store.lake, "commit", commit)
            with pytest.raises(Unavailable):
                store.flush()

        assert len(files(store)) == 1

    def test_many_small_chunks_are_merged_by_a_reader(self, store):
        for value in range(100):
            write(store, v=[value])

        first, second = view(store), view(store)

        assert first.buffered.num_rows == second.buffered.num_rows == 100
        assert store.flush() == 100
        assert sorted(values(store)) == list(range(100))


class TestShortage:
    def test_full_buffer_refuses_until_it_is_flushed(self, stores, monkeypatch):
        store = stores(buffer_bytes=1)

        def no_space(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(store.lake, "write_file", no_space)
            write(store, v=[1])
            with pytest.raises(Unavailable, match="buffer full"):
                write(store, v=[2])

        store.flush()
        write(store, v=[3])
        assert values(store) == [1, 3]

    def test_write_the_log_cannot_take_is_refused_and_not_seen(self, stores, store, monkeypatch):
        def no_space(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        write(store, v=[1])
        with monkeypatch.context() as patch:
            patch.setattr(store.wal, "append", no_space)
            with pytest.raises(Unavailable, match="No space left"):
                write(store, v=[2])

        assert values(store) == [1]
        write(store, v=[3])
        store.close()
        assert values(stores()) == [1, 3]

    def test_defect_while_a_group_is_stored_acknowledges_none_of_it(self, store, monkeypatch):
        """Those who waited for the one that failed must not take its silence for success."""
        started, go_on = threading.Event(), threading.Event()
        errors = []

        def broken(entries):
            started.set()
            assert go_on.wait(WAIT_S)
            if entries:
                raise MemoryError

        def send():
            try:
                write(store, v=[1])
            except BaseException as error:
                errors.append(error)

        with monkeypatch.context() as patch:
            patch.setattr(store.wal, "append", broken)
            threads = [threading.Thread(target=send) for _ in range(3)]
            threads[0].start()
            assert started.wait(WAIT_S)  # holds the lock; the other two wait and will be one group
            for thread in threads[1:]:
                thread.start()
            wait_until(lambda: len(store._waiting) == 2)
            go_on.set()
            for thread in threads:
                thread.join()

        assert len(errors) == 3
        assert view(store) is None


class TestRestart:
    def test_close_flushes_what_is_buffered(self, stores, store):
        write(store, v=[1])

        store.close()

        assert store.wal.segments() == []
        assert values(stores()) == [1]

    def test_close_that_cannot_flush_leaves_it_to_the_log(self, stores, store, monkeypatch):
        def no_space(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        write(store, v=[1])
        with monkeypatch.context() as patch:
            patch.setattr(store.lake, "write_file", no_space)
            store.close()

        assert values(stores()) == [1]

    def test_crash_before_a_flush(self, stores, store, tmp_path):
        write(store, v=[1])
        write(store, v=[0.5], w=["x"])

        again = stores(crash_image(store, tmp_path / "crashed"))

        assert rows(again) == [(0.5, "x"), (1.0, None)]
        assert again.stats()["wal_replayed_entries"] == 2
        again.close()
        assert rows(stores(tmp_path / "crashed")) == [(0.5, "x"), (1.0, None)]

    def test_crash_between_files_and_commit(self, stores, store, tmp_path, monkeypatch):
        def crash(*_):
            crash_image(store, tmp_path / "crashed")
            raise duckdb.IOException("the process is gone")

        write(store, v=[1])
        with monkeypatch.context() as patch:
            patch.setattr(store.lake, "commit", crash)
            with pytest.raises(Unavailable):
                store.flush()

        again = stores(tmp_path / "crashed")
        assert files(again) == []  # what no commit knows is removed
        assert values(again) == [1]
        again.flush()
        assert values(again) == [1]

    def test_crash_between_commit_and_removal_of_the_segment(self, stores, store, tmp_path, monkeypatch):
        write(store, v=[1])
        with monkeypatch.context() as patch:
            patch.setattr(store.wal, "remove_through", lambda _: crash_image(store, tmp_path / "crashed"))
            store.flush()

        again = stores(tmp_path / "crashed")

        assert values(again) == [1]
        assert again.stats()["wal_replayed_entries"] == 0
        assert again.wal.segments() == []

    def test_crash_after_a_failed_flush(self, stores, store, tmp_path, monkeypatch):
        def fail(*_):
            raise duckdb.IOException("no")

        write(store, v=[1])
        with monkeypatch.context() as patch:
            patch.setattr(store.lake, "commit", fail)
            with pytest.raises(Unavailable):
                store.flush()
        write(store, v=[2])

        again = stores(crash_image(store, tmp_path / "crashed"))

        assert values(again) == [1, 2]
        assert again.flush() == 2
        assert values(again) == [1, 2]

    def test_crash_again_and_again(self, stores, tmp_path):
        path = tmp_path / "0"
        for number in range(4):
            store = stores(path)
            assert (values(store) if number else []) == list(range(number))
            write(store, v=[number])
            if number == 1:
                store.flush()
            path = crash_image(store, tmp_path / str(number + 1))

        assert values(stores(path)) == [0, 1, 2, 3]

    def test_replay_of_more_than_the_buffer_holds_flushes_in_between(self, stores, store, tmp_path):
        for number in range(6):
            write(store, v=[2 * number, 2 * number + 1])
            store.wal.rotate()

        again = stores(crash_image(store, tmp_path / "crashed"), buffer_rows=4, buffer_age_s=3600)

        assert sorted(values(again)) == list(range(12))
        assert again.stats()["flushed_rows"] >= 8
        again.close()
        assert sorted(values(stores(tmp_path / "crashed"))) == list(range(12))

    def test_replay_that_fails_half_way_loses_nothing(self, stores, store, tmp_path, monkeypatch):
        """A stop after it must not take the part that was read for the whole."""
        for number in range(3):
            write(store, v=[number])
            store.wal.rotate()
        path = crash_image(store, tmp_path / "crashed")
        real = WriteAheadLog.read

        def second_fails(self, number):
            if number == 2:
                raise OSError(errno.EIO, "Input/output error")
            return real(self, number)

        with monkeypatch.context() as patch:
            patch.setattr(WriteAheadLog, "read", second_fails)
            broken = MetricStore(path, StoreOptions(**LAZY))
            with pytest.raises(OSError, match="Input/output"):
                broken.start()
            broken.close()  # as the server does when it stops

        assert values(stores(path)) == [0, 1, 2]

    def test_entry_that_cannot_be_replayed_does_not_keep_the_rest(self, stores, store, tmp_path, monkeypatch, caplog):
        write(store, v=[1])
        write(store, v=[2])
        path = crash_image(store, tmp_path / "crashed")
        calls = itertools.count()
        real = Schemas.reserve

        def first_fails(self, database, batches):
            if next(calls) == 0:
                raise Invalid("cannot be read any more")
            return real(self, database, batches)

        monkeypatch.setattr(Schemas, "reserve", first_fails)

        again = stores(path)

        assert values(again) == [2]
        assert again.counters.replay_errors == 1
        assert "could not be replayed" in caplog.text

    def test_server_time_of_rows_without_time_stays_that_of_their_receipt(self, stores, store, tmp_path):
        store.write_msgpack(msgpack.packb({"m": "cpu", "columns": {"v": [1]}}), "default")
        before = view(store).buffered.column("time").to_pylist()

        again = stores(crash_image(store, tmp_path / "crashed"))

        assert view(again).buffered.column("time").to_pylist() == before

    def test_database_called_main(self, stores, store):
        write(store, database="main", v=[1])
        store.close()

        again = stores()

        assert again.databases() == ["main"]
        assert values(again, database="main") == [1]


class TestListing:
    def test_measurements_tell_files_rows_and_columns(self, store):
        write(store, "cpu", v=[1, 2], later=[None, None])
        store.flush()
        write(store, "cpu", v=[3])
        write(store, "mem", "other", v=[0.5])

        cpu, mem = store.measurements()

        assert (cpu.database, cpu.measurement) == ("default", "cpu")
        assert (cpu.file_count, cpu.rows, cpu.buffered_rows) == (1, 3, 1)
        assert cpu.total_size_bytes > 0
        assert cpu.columns == [("time", "TIMESTAMP WITH TIME ZONE"), ("v", "BIGINT"), ("later", "NULL")]
        assert (mem.database, mem.file_count, mem.rows) == ("other", 0, 1)
        assert [info.measurement for info in store.measurements("OTHER")] == ["mem"]
        assert store.measurements("unknown") == []

    def test_figures(self, store):
        write(store, v=[1, 2])

        stats = store.stats()

        assert (stats["requests"], stats["rows"], stats["buffered_rows"], stats["wal_entries"]) == (1, 2, 2, 1)
        assert stats["buffered_by_measurement"] == {"default.cpu": 2}
        assert stats["buffered_bytes"] > 0
        assert stats["oldest_buffered_s"] >= 0
