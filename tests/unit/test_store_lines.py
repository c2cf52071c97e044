"""Lines in the metric store: what is rejected, what is stored, and that a replay finds exactly that."""

from __future__ import annotations

import gzip
import shutil

import msgpack
import pytest

from arc.errors import Invalid
from arc.metrics.store import MetricStore, StoreOptions

LAZY = {"buffer_age_s": 3600.0, "threads": 1}  # nothing is flushed unless asked for
ITEM = b'{"m": "n", "t": 1760875200, "h": "a", "fields": {"v": 1}}'


@pytest.fixture
def stores(tmp_path):
    opened = []

    def open_store(path=tmp_path / "data"):
        store = MetricStore(path, StoreOptions(**LAZY))
        opened.append(store)
        store.start()
        return store

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(stores):
    return stores()


def buffered(store, measurement="m"):
    [found] = store.views([("default", measurement)])
    return [] if found is None else [row | {"time": int(row["time"].timestamp())} for row in found.buffered.to_pylist()]


def replayed(store, stores, tmp_path):
    """A store over a copy of the data as a crash at this moment would leave it."""
    return stores(shutil.copytree(store.lake.directory.parent, tmp_path / "crashed"))


def refused(store, body):
    with pytest.raises(Invalid) as caught:
        store.write_lines(body, "default", "s")
    return str(caught.value)


def test_good_lines_are_stored_and_bad_ones_reported(store, stores, tmp_path):
    done = store.write_lines(b"m v=1 1\nnonsense\nm v=2 2\n\nm v= 3", "default", "s")

    assert done.rows == 2
    assert [(line.line_number, line.text) for line in done.rejected] == [(2, "nonsense"), (5, "m v= 3")]
    assert store.stats()["rejected_lines"] == 2
    assert buffered(store) == [{"time": 1, "v": 1.0}, {"time": 2, "v": 2.0}]
    assert buffered(replayed(store, stores, tmp_path)) == buffered(store)


def test_compressed_body_is_replayed_with_its_precision(store, stores, tmp_path):
    store.write_lines(gzip.compress(b"m v=1 1"), "default", "h")

    assert buffered(store) == [{"time": 3600, "v": 1.0}]
    assert buffered(replayed(store, stores, tmp_path)) == buffered(store)


def test_line_without_a_time_keeps_its_time_in_a_replay(store, stores, tmp_path):
    store.write_lines(b"m v=1\nbad", "default")

    assert buffered(replayed(store, stores, tmp_path)) == buffered(store)


def test_line_that_clashes_with_what_is_stored_is_rejected_alone(store, stores, tmp_path):
    store.write_lines(b"m v=1 1", "default", "s")

    done = store.write_lines(b'm v="text",w="a" 2\nM V=3,w="b" 3\nm v=4i 4\nother v="text" 5', "default", "s")

    assert [(line.line_number, line.reason) for line in done.rejected] == [(1, 'column "v": cannot mix float and text')]
    assert [row["v"] for row in buffered(store)] == [1.0, 3.0, 4.0]
    assert buffered(store, "other")[0]["v"] == "text"
    again = replayed(store, stores, tmp_path)
    assert buffered(again) == buffered(store)
    assert again.counters.replay_errors == 0


def test_stored_type_decides_between_lines_of_one_body(store):
    store.write_lines(b'm v="stored" 1', "default", "s")

    done = store.write_lines(b'm v=1 2\nm v="good" 3', "default", "s")

    assert [line.line_number for line in done.rejected] == [1]
    assert [row["v"] for row in buffered(store)] == ["stored", "good"]


def test_line_that_lost_a_race_for_the_type_of_its_column_is_rejected(store, monkeypatch):
    known, asked = store.schema, []

    def schema(database, measurement):
        before = known(database, measurement)
        if not asked:
            asked.append(measurement)
            store.write_lines(b'm v="text" 1', "default", "s")
        return before

    monkeypatch.setattr(store, "schema", schema)

    done = store.write_lines(b"m v=1 2\nm w=1 3", "default", "s")

    assert [(line.line_number, line.reason) for line in done.rejected] == [(1, 'column "v": cannot mix text and float')]
    assert [row.get("v") for row in buffered(store)] == ["text", None]


def test_replay_does_not_depend_on_the_type_a_column_had_when_it_was_written(store, stores, tmp_path):
    store.write_msgpack(msgpack.packb({"m": "m", "t": 1, "fields": {"v": "text"}}), "default")
    store.write_lines(b'm v=2 2\nm v="b",w=1i 3\nm w=2.5 4', "default", "s")

    assert buffered(replayed(store, stores, tmp_path)) == buffered(store)


def test_multi_line_texts_survive_the_removal_of_bad_lines(store, stores, tmp_path):
    body = b'm s="a\nb" 1\nbad "x\ny" line\nm s="c" 2\nbad'

    done = store.write_lines(body, "default", "s")

    assert buffered(store)[0]["s"] == "a\nb"
    assert done.rejected[-1].line_number == 6
    assert buffered(replayed(store, stores, tmp_path)) == buffered(store)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Empty request body"),
        (b"\n# comment\n", "No valid records in request"),
        (b"bad", "No valid records in request: unable to parse 'bad': "),
        (b"1m v=1", "invalid measurement name"),
    ],
)
def test_request_without_a_good_line_is_refused(store, body, text):
    assert refused(store, body).startswith(text)
    assert store.stats()["rejected"] == 1
    assert store.measurements() == []


def test_unknown_precision_is_refused(store):
    with pytest.raises(Invalid, match='invalid precision "x": must be one of ns'):
        store.write_lines(b"m v=1", "default", "x")


@pytest.mark.parametrize(("body", "ndjson"), [(b"[" + ITEM + b"," + ITEM + b"]", False), (ITEM + b"\n" + ITEM, True)])
def test_json_is_replayed(store, stores, tmp_path, body, ndjson):
    assert store.write_json(body, "default", ndjson) == 2

    assert buffered(store, "n") == 2 * [{"time": 1760875200, "host": "a", "v": 1}]
    assert buffered(replayed(store, stores, tmp_path), "n") == buffered(store, "n")


def test_json_that_clashes_is_refused_whole(store):
    store.write_json(ITEM, "default")

    with pytest.raises(Invalid, match="cannot mix"):
        store.write_json(ITEM.replace(b": 1}", b': "x"}') + b"\n" + ITEM, "default", ndjson=True)
    assert len(buffered(store, "n")) == 1
