"""Arrow bodies: which types become what, and what a stranger's bytes cannot do."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc.errors import Invalid, TooLarge
from arc.metrics.decode.arrowpoints import arrow_body, decode_arrow

NOW_US = 1_760_875_200_000_000
INSTANT = dt.datetime.fromtimestamp(NOW_US / 1e6, dt.UTC)


def body(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def decoded(table: pa.Table, compression: str | None = None) -> dict[str, pa.Array]:
    [batch] = decode_arrow(body(table, compression), "cpu", NOW_US)
    assert batch.measurement == "cpu"
    assert batch.rows == len(batch.columns["time"])
    return batch.columns


@pytest.mark.parametrize(
    ("column", "type_", "values"),
    [
        (pa.array([1, None], pa.int8()), pa.int64(), [1, None]),
        (pa.array([1, 2], pa.uint64()), pa.int64(), [1, 2]),
        (pa.array([1, 2**63], pa.uint64()), pa.float64(), [1.0, 2.0**63]),
        (pa.array([1.5], pa.float32()), pa.float64(), [1.5]),
        (pa.array([Decimal("1.25")]), pa.float64(), [1.25]),
        (pa.array(["a", None], pa.large_string()), pa.string(), ["a", None]),
        (pa.array(["a", "a", None]).dictionary_encode(), pa.string(), ["a", "a", None]),
        (pa.RunEndEncodedArray.from_arrays([2, 3], ["x", "y"]), pa.string(), ["x", "x", "y"]),
        (pa.array([b"\x00\xff"], pa.binary(2)), pa.binary(), [b"\x00\xff"]),
        (pa.array([True, None]), pa.bool_(), [True, None]),
        (pa.nulls(2), pa.null(), [None, None]),
        (pa.array([INSTANT], pa.timestamp("ns", "Europe/Berlin")), pa.string(), ["2025-10-19T12:00:00.000000000Z"]),
        (pa.array([dt.date(2025, 10, 19)]), pa.string(), ["2025-10-19"]),
        (pa.array([7], pa.duration("ms")), pa.int64(), [7]),
        (pa.array([[1, None], None]), pa.string(), ["[1,null]", None]),
        (pa.array([{"a": 1}]), pa.string(), ['{"a":1}']),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_types(column: pa.Array, type_: pa.DataType, values: list[Any]) -> None:
    stored = decoded(pa.table({"v": column}))["v"]

    assert stored.type == type_
    assert stored.to_pylist() == values


@pytest.mark.parametrize(
    "times",
    [
        pa.array([INSTANT], pa.timestamp("ns")),
        pa.array([INSTANT], pa.timestamp("s", "America/New_York")),
        pa.array([NOW_US]),
        pa.array([NOW_US // 1_000_000], pa.uint32()),
        pa.array([NOW_US / 1e6]),
        pa.array([NOW_US * 1000]).dictionary_encode(),
    ],
    ids=str,
)
def test_times_of_any_unit(times: pa.Array) -> None:
    columns = decoded(pa.table({"v": [1], "time": times}))

    assert list(columns) == ["time", "v"]
    assert columns["time"].cast(pa.int64()).to_pylist() == [NOW_US]


def test_without_times_rows_are_of_now() -> None:
    assert decoded(pa.table({"v": [1, 2]}))["time"].cast(pa.int64()).to_pylist() == [NOW_US] * 2


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_inside(compression: str) -> None:
    table = pa.table({"v": list(range(1000)), "s": pa.array(["x"] * 1000).dictionary_encode()})

    assert decoded(table, compression)["v"].to_pylist() == list(range(1000))


def test_tags_travel_in_the_schema() -> None:
    columns = {"time": pa.array([NOW_US]), "host": pa.array(["a"]), "v": pa.array([1])}

    [batch] = decode_arrow(arrow_body(columns, ("host",)), "cpu", NOW_US)

    assert batch.tags == ("host",)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (pa.table({"time": pa.array([NOW_US, None])}), "time must not be null (row 1)"),
        (pa.table({"time": ["yesterday"]}), "time must be a timestamp or a number, not string"),
        (pa.table({"time": pa.array([2**62], pa.timestamp("s"))}), "outside the years 0001-9999"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["v", "v"]), 'column "v" is there twice'),
        (pa.table({"v": [1], "V": [2]}), "differ only in case"),
        (pa.table({"v": pa.array([], pa.int64())}), "No records in payload"),
        (pa.table({}), "No records in payload"),
        (pa.table({"v": [1]}).replace_schema_metadata({"arc.tags": "x"}), "arc.tags must be a JSON array"),
    ],
)
def test_what_is_refused(table: pa.Table, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode_arrow(body(table), "cpu", NOW_US)

    assert text in str(caught.value)


def test_small_bodies_cannot_grow_large() -> None:
    long_text = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 10_000]))

    with pytest.raises(TooLarge):
        decode_arrow(body(pa.table({"v": long_text}), "zstd"), "cpu", NOW_US)
    with pytest.raises(TooLarge):
        decode_arrow(body(pa.table({"v": pa.array(np.zeros((1 << 25) + 1))}), "zstd"), "cpu", NOW_US)


def test_offsets_outside_of_the_text_are_found() -> None:
    good = body(pa.table({"v": ["abc", "def"]}))

    with pytest.raises(Invalid):
        decode_arrow(good.replace(b"\3\0\0\0\6\0\0\0", b"\3\0\0\0\x60\0\0\0"), "cpu", NOW_US)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_bodies_are_invalid_or_decoded(data: st.DataObject) -> None:
    table = pa.table({"time": [1, 2], "s": pa.array(["a", "b"]).dictionary_encode(), "l": [[1], [2, 3]]})
    broken = bytearray(body(table, data.draw(st.sampled_from([None, "lz4"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))

    try:
        decode_arrow(bytes(broken[: data.draw(st.integers(0, len(broken)))]), "cpu", NOW_US)
    except (Invalid, TooLarge):
        pass


def test_names_that_are_no_text_are_refused() -> None:
    with pytest.raises(Invalid, match="Invalid Arrow payload"):
        decode_arrow(body(pa.table({"abcd": [1]})).replace(b"abcd", b"\xffbcd"), "m", 0)
