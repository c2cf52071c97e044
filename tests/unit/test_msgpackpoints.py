"""MessagePack bodies: the fast paths give what the slow path gives, and nothing but Invalid is ever raised."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from unittest import mock

import msgpack
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arc.errors import Invalid
from arc.metrics.decode import msgpackpoints, points
from arc.metrics.decode.msgpackpoints import decode_msgpack

NOW = 1_700_000_000_000_000
T_US = 1_697_472_000_000_000


def columnar(measurement="cpu", **columns):
    return {"m": measurement, "columns": columns}


def decode(payload):
    return decode_msgpack(msgpack.packb(payload), NOW)


def only(payload):
    [batch] = decode(payload)
    return batch


def shown(batches):
    """Batches as values that compare: NaN equals NaN, 1 differs from 1.0 and True."""
    return [
        (
            batch.measurement,
            batch.rows,
            batch.tags,
            [(name, str(c.type), repr(c.to_pylist())) for name, c in batch.columns.items()],
        )
        for batch in batches
    ]


def slow(body):
    """What the path for bodies of any shape makes of one, or why it refuses it."""
    try:
        return shown(points.items_to_batches(msgpackpoints._unpack(body), NOW))
    except Invalid as error:
        return str(error) if body else "Empty payload"


def fast(body):
    try:
        return shown(decode_msgpack(body, NOW))
    except Invalid as error:
        return str(error)


def refusal(payload):
    body = payload if isinstance(payload, bytes) else msgpack.packb(payload)
    with pytest.raises(Invalid) as caught:
        decode_msgpack(body, NOW)
    return str(caught.value)


def forbidden(*_):
    raise AssertionError("msgpack was asked")


def read_fast(payload, monkeypatch):
    """Batches of a payload that must not need the path for bodies of any shape."""
    monkeypatch.setattr(msgpackpoints, "_unpack", forbidden)
    return decode(payload)


def walked(payload, monkeypatch):
    """Batches of a payload that the walker must read alone: without objects of its values."""
    monkeypatch.setattr(msgpackpoints._Walker, "_any", forbidden)
    monkeypatch.setattr(msgpackpoints, "_row_batches", forbidden)
    return read_fast(payload, monkeypatch)


# Columns as clients pack them. Each strategy gives packed values: the same value can be packed in several ways.


def packed_text(text, head):
    data = text.encode()
    size = len(data)
    if head == "fix" and size < 32:
        return bytes((0xA0 | size,)) + data
    if head in ("fix", "8") and size < 256:
        return b"\xd9" + struct.pack(">B", size) + data
    return b"\xda" + struct.pack(">H", size) + data


NULLS = st.just(b"\xc0")
SMALL = st.integers(-32, 127).map(msgpack.packb)
INTEGERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1).map(msgpack.packb),
    st.integers(0, 255).map(lambda value: struct.pack(">BB", 0xCC, value)),
    st.integers(0, 2**16 - 1).map(lambda value: struct.pack(">BH", 0xCD, value)),
    st.integers(-(2**15), 2**15 - 1).map(lambda value: struct.pack(">Bh", 0xD1, value)),
    st.integers(-(2**31), 2**31 - 1).map(lambda value: struct.pack(">Bi", 0xD2, value)),
)
FLOATS = st.one_of(
    st.floats().map(lambda value: struct.pack(">Bd", 0xCB, value)),
    st.floats(width=32).map(lambda value: struct.pack(">Bf", 0xCA, value)),
)
ASCII = st.text(st.characters(max_codepoint=127), max_size=40)
UNICODE = st.text(max_size=40)
HEADS = st.sampled_from(["fix", "8", "16"])
BINARY = st.binary(max_size=40).map(msgpack.packb)
BOOLEANS = st.sampled_from([b"\xc2", b"\xc3"])
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
).map(msgpack.packb)
KINDS = st.sampled_from(
    [
        SMALL,
        INTEGERS,
        FLOATS,
        st.integers(2**63, 2**64 - 1).map(msgpack.packb),
        st.builds(packed_text, ASCII, st.just("fix")),
        st.builds(packed_text, ASCII, HEADS),
        st.builds(packed_text, UNICODE, HEADS),
        st.sampled_from(["a", "b", "cc", ""]).map(msgpack.packb),
        st.just(packed_text("x" * 40, "8")),
        BINARY,
        BOOLEANS,
        NESTED,
        NULLS,
        SMALL | FLOATS,
        st.one_of(SMALL, BOOLEANS, st.builds(packed_text, ASCII, HEADS)),
    ]
)
NAMES = st.sampled_from(["a", "B", "b", "_hidden", "", "straße", "n" * 200, "t", "Time"])
TIMES = st.sampled_from([T_US, T_US // 1000, T_US // 10**6, T_US * 1000, -1, 0]).map(msgpack.packb)


def packed_map(entries):
    head = bytes((0x80 | len(entries),)) if len(entries) < 16 else b"\xde" + struct.pack(">H", len(entries))
    return head + b"".join(msgpack.packb(key) + value for key, value in entries)


def packed_array(values):
    return (bytes((0x90 | len(values),)) if len(values) < 16 else b"\xdc" + struct.pack(">H", len(values))) + b"".join(
        values
    )


@st.composite
def columns(draw):
    rows = draw(st.integers(0, 20))
    entries = []
    for name in draw(st.lists(NAMES, max_size=4)):
        kind = draw(KINDS)
        values = kind | NULLS if draw(st.booleans()) else kind
        length = rows if draw(st.integers(0, 20)) else rows + 1
        entries.append((name, packed_array(draw(st.lists(values, min_size=length, max_size=length)))))
    if draw(st.booleans()):
        kind = draw(st.sampled_from([TIMES, TIMES, FLOATS, INTEGERS, NULLS, NESTED]))
        entries.insert(0, ("time", packed_array(draw(st.lists(kind, min_size=rows, max_size=rows)))))
    return packed_map(entries)


@st.composite
def bodies(draw):
    """Bodies of columnar items in every envelope, most of them good."""

    def item():
        measurement = draw(st.sampled_from(["cpu", "cpu", "cpu", "Mem-1", "1bad", "", 7]))
        entries = [("m", msgpack.packb(measurement)), ("columns", draw(columns()))]
        return packed_map(entries if draw(st.booleans()) else entries[::-1])

    items = [item() for _ in range(draw(st.sampled_from([1, 1, 1, 2, 0])))]
    shape = draw(st.sampled_from(["item", "array", "batch"]))
    if shape == "item":
        return b"".join(items)
    return packed_array(items) if shape == "array" else packed_map([("batch", packed_array(items))])


MEASUREMENTS = st.sampled_from(["cpu", "cpu", "cpu", "Mem-1"]).map(msgpack.packb)
TAG_VALUES = st.text(max_size=3).map(msgpack.packb)
ANY_VALUE = st.one_of(SMALL, INTEGERS, FLOATS, BOOLEANS, BINARY, NESTED, NULLS, st.just(b"\xd4\x05x"))
KEYS = [*"aabbcc", "A", "host", "Host", "time", "a_value", "_hidden", "straße", "", b"a"]
ODD_KEYS = st.sampled_from(["f", "time", "measurement", "m", "t", "fields", "other", b"m", b"fields"])


@st.composite
def maps_of(draw, values, min_size=0):
    """Keys that clash and keys that do not; one key can come twice."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=min_size, max_size=3))
    return packed_map([(key, draw(values)) for key in keys])


@st.composite
def rows(draw, kind):
    """One row item, usual in most, with fields of a kind."""
    entries = [("m", draw(MEASUREMENTS)), ("fields", draw(maps_of(kind, min_size=1)))]
    texts = TAG_VALUES | NULLS
    times = TIMES | NULLS | st.floats(-1e10, 1e12).map(msgpack.packb)
    usual = [("t", times), ("t", times), ("h", texts), ("tags", maps_of(texts)), ("tags", NULLS)]
    entries += [(key, draw(values)) for key, values in draw(st.lists(st.sampled_from(usual), max_size=3))]
    if not draw(st.integers(0, 20)):
        entries.append((draw(ODD_KEYS), draw(ANY_VALUE | MEASUREMENTS | maps_of(ANY_VALUE))))
    return packed_map(draw(st.permutations(entries)))


@st.composite
def row_bodies(draw):
    kind = draw(KINDS)
    kind = draw(st.sampled_from([kind, kind, kind | NULLS, ANY_VALUE]))
    items = packed_array(draw(st.lists(rows(kind), max_size=6)))
    return packed_map([("batch", items)]) if draw(st.booleans()) else items


@settings(max_examples=150, deadline=None)
@given(row_bodies())
def test_rows_give_what_the_slow_path_gives(body):
    assert fast(body) == slow(body)


@settings(max_examples=100, deadline=None)
@given(row_bodies())
def test_rows_with_different_keys_give_together_what_they_give_apart(body):
    def apart(tags, fields):
        shape = points._Shape(tags, fields)
        shape.is_plain = False
        return shape

    together = slow(body)

    with mock.patch.object(points, "_shape_of", apart):
        assert slow(body) == together


@settings(max_examples=100, deadline=None)
@given(bodies())
def test_walker_gives_what_the_slow_path_gives(body):
    assert fast(body) == slow(body)


@settings(max_examples=100, deadline=None)
@given(bodies(), st.data())
def test_truncated_body_is_refused_or_read_alike(body, data):
    body = body[: data.draw(st.integers(0, len(body)))]

    assert fast(body) == slow(body)


@settings(max_examples=100, deadline=None)
@given(bodies().filter(bool), st.data())
@example(b"\xdd\xff\xff\xff\xff", None)
@example(b"\x82\xa1m\xa1a\xa7columns\x81\xa1v\xdd\xff\xff\xff\xff", None)
@example(b"\x82\xa1m\xa1a\xa7columns\x81\xa1v\xc6\xff\xff\xff\xff", None)
def test_mutated_body_is_refused_or_read_alike(body, data):
    body = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3)) if data else 0):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    assert fast(bytes(body)) == slow(bytes(body))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_noise_is_refused_or_read_alike(body):
    assert fast(body) == slow(body)


class TestWalker:
    """What usual clients send is read without a Python object per value."""

    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            ([0.5, -1.0, float("inf")], "double"),
            ([1, 2, 127], "int64"),
            ([1000, 2000], "int64"),
            ([-(2**40), -(2**41)], "int64"),
            ([True, False, True], "bool"),
            (["web-1", "web-2"], "string"),
            (["a", "", "ccc", None, "x" * 31], "string"),
            (["x" * 40, "y" * 40], "string"),
            ([None, "a"], "string"),
            ([None, None], "null"),
        ],
    )
    def test_column(self, monkeypatch, values, kind):
        [batch] = walked(columnar(time=[T_US + row for row in range(len(values))], v=values), monkeypatch)

        assert str(batch.columns["v"].type) == kind
        assert batch.columns["v"].to_pylist() == values
        assert list(batch.columns) == ["time", "v"]

    @pytest.mark.parametrize("envelope", [lambda item: item, lambda item: [item], lambda item: {"batch": [item]}])
    def test_envelope(self, monkeypatch, envelope):
        [batch] = walked(envelope(columnar(v=[1, 2])), monkeypatch)

        assert (batch.measurement, batch.rows, batch.tags) == ("cpu", 2, ())

    def test_columns_stay_valid_when_the_body_is_gone(self):
        """Arrow must not look into memory that is used for something else by then."""
        body = bytearray(msgpack.packb(columnar(v=list(range(1000, 2000)), t=["ab"] * 1000, u=["x" * 40] * 1000)))
        [batch] = decode_msgpack(bytes(body), NOW)
        body[:] = bytes(len(body))

        for column in batch.columns.values():
            column.validate(full=True)
        assert batch.columns["v"].to_pylist() == list(range(1000, 2000))


class TestUsualRows:
    """What usual clients send as rows is read without a map of each."""

    @pytest.mark.parametrize("envelope", [lambda *rows: list(rows), lambda *rows: {"batch": rows}])
    def test_envelope(self, monkeypatch, envelope):
        row = {"m": "cpu", "t": T_US, "fields": {"v": 1.5}}
        tagged = {**row, "h": "a", "tags": {"region": "eu"}, "fields": {"v": 2, "ok": True, "n": None}}

        [batch] = read_fast(envelope(row, tagged, {**row, "h": None, "tags": None}), monkeypatch)

        assert batch.tags == ("host", "region")
        assert {name: column.to_pylist() for name, column in batch.columns.items() if name != "time"} == {
            "host": ["unknown", "a", None], "region": [None, "eu", None],
            "v": [1.5, 2.0, 1.5], "ok": [None, True, None], "n": [None, None, None],
        }  # fmt: skip

    def test_names_that_make_way_for_others_do_so_row_by_row(self, monkeypatch):
        row = {"m": "cpu", "fields": {"v": "field"}}

        [batch] = read_fast([row, {**row, "tags": {"v": "tag"}}, row], monkeypatch)

        assert batch.columns["v"].to_pylist() == ["field", "tag", "field"]
        assert batch.columns["v_value"].to_pylist() == [None, "field", None]


class TestChecklist:
    """Rows 10-23 and 30-32 of the metrics specification, as far as the decoder decides them."""

    def test_quick_example(self):
        point = {"m": "cpu", "t": 1697472000000, "h": "server01", "fields": {"usage": 45.2}}

        batch = only({"batch": [point]})

        assert {name: column.to_pylist() for name, column in batch.columns.items()} == {
            "time": [datetime(2023, 10, 16, 16, tzinfo=UTC)], "host": ["server01"], "usage": [45.2],
        }  # fmt: skip

    @pytest.mark.parametrize("tags", [{}, {"tags": None}, {"tags": {}}])
    def test_python_and_javascript_clients_without_tags(self, tags):
        batch = only({"batch": [{"m": "cpu", "t": T_US, "h": None, **tags, "fields": {"v": 45}}]})

        assert batch.columns["host"].to_pylist() == [None]
        assert batch.columns["v"].type == pa.int64()

    def test_javascript_mixes_whole_and_broken_numbers(self):
        batch = only({"batch": [{"m": "cpu", "t": T_US, "h": None, "fields": {"v": value}} for value in (45, 45.2)]})

        assert batch.columns["v"].type == pa.float64()
        assert only(columnar(v=[45, 45.2, None])).columns["v"].to_pylist() == [45.0, 45.2, None]

    def test_go_client_packs_times_as_int64(self):
        body = (
            b"\x83\xa1m\xa3cpu\xa1t\xd3"
            + struct.pack(">q", 1697472000000)
            + b"\xa6fields\x81\xa1v\xcb"
            + struct.pack(">d", 1)
        )

        [batch] = decode_msgpack(body, NOW)

        assert batch.columns["time"].cast(pa.int64()).to_pylist() == [T_US]
        assert batch.columns["host"].to_pylist() == ["unknown"]

    def test_batch_of_several_measurements(self):
        items = [{"m": name, "t": T_US, "fields": {"v": 1}} for name in ("cpu", "mem", "cpu")]

        assert [(batch.measurement, batch.rows) for batch in decode({"batch": items})] == [("cpu", 2), ("mem", 1)]

    @pytest.mark.parametrize(
        ("part", "host"),
        [({}, "unknown"), ({"tags": {"host": "b"}}, "b"), ({"h": None}, None), ({"h": 12}, "host_12")],
    )
    def test_host(self, part, host):
        assert only({"m": "cpu", "t": T_US, "fields": {"v": 1}, **part}).columns["host"].to_pylist() == [host]

    def test_measurement_as_integer(self):
        assert only({"m": 7, "t": T_US, "fields": {"v": 1}}).measurement == "measurement_7"

    def test_fields_as_array(self):
        assert list(only({"m": "cpu", "t": T_US, "f": [1, "x"]}).columns) == ["time", "host", "field_0", "field_1"]

    def test_envelopes(self):
        point = {"m": "cpu", "t": T_US, "fields": {"v": 1}}
        for payload in (point, [point], {"batch": [point]}, {"batch": [{"batch": [point]}]}):
            assert only(payload).rows == 1
        three = msgpack.packb(point) * 3
        assert [batch.rows for batch in decode_msgpack(three, NOW)] == [3]
        assert sum(batch.rows for batch in decode_msgpack(msgpack.packb(columnar(v=[1])) * 3, NOW)) == 3

    def test_columnar_values_are_identical(self):
        rows = 10_000
        sent = {
            "host": [f"host-{row % 7}" for row in range(rows)],
            "f": [row / 3 for row in range(rows)],
            "i": [row * 1_000_003 - 2**33 for row in range(rows)],
            "b": [row % 3 == 0 for row in range(rows)],
            "t": ["é" * (row % 5) for row in range(rows)],
            "n": [None if row % 10 else row for row in range(rows)],
        }

        batch = only(columnar(time=[T_US + row for row in range(rows)], **sent))

        assert batch.columns["time"].cast(pa.int64()).to_pylist() == [T_US + row for row in range(rows)]
        assert {name: batch.columns[name].to_pylist() for name in sent} == sent

    def test_columns_of_different_length(self):
        assert "array length mismatch" in refusal(columnar(a=[1, 2], b=[1]))
        assert "array length mismatch" in refusal(columnar(time=[T_US], a=[1, 2]))

    @pytest.mark.parametrize(
        "item", [{"m": "cpu", "columns": {}}, {"m": "cpu", "columns": None}, {"m": "cpu", "columns": []}]
    )
    def test_no_columns(self, item):
        assert refusal(item)

    @pytest.mark.parametrize("payload", [columnar(v=[]), {"batch": []}, []])
    def test_no_rows(self, payload):
        assert refusal(payload) == "No records in payload"

    def test_missing_time_is_that_of_the_server(self):
        assert only(columnar(v=[1, 2])).columns["time"].cast(pa.int64()).to_pylist() == [NOW, NOW]

    @pytest.mark.parametrize(
        "values", [[None, 1], [1.5, None], [None, "a", "é"], ["a" * 40, None], [None, True], [b"x", None]]
    )
    def test_nulls_stay_nulls(self, values):
        assert only(columnar(v=values)).columns["v"].to_pylist() == values

    def test_column_of_nulls_has_no_type(self):
        assert only(columnar(v=[None, None])).columns["v"].type == pa.null()
        assert only({"m": "cpu", "t": T_US, "fields": {"v": None, "w": 1}}).columns["v"].type == pa.null()

    @pytest.mark.parametrize("time", [None, "2023-10-16T16:00:00Z", True, [1], b"1"])
    def test_times_that_are_no_numbers(self, time):
        assert refusal(columnar(time=[T_US, time], v=[1, 2]))
        assert refusal(columnar(time=[time], v=[1]))
        if time is not None:  # in a row it means: the server's time
            assert refusal({"m": "cpu", "t": time, "fields": {"v": 1}})

    def test_bad_item_is_named(self):
        good = {"m": "cpu", "t": T_US, "fields": {"v": 1}}

        assert "(item 1)" in refusal({"batch": [good, {"m": "cpu", "t": T_US}, good]})
        assert "(item 2)" in refusal({"batch": [good, columnar(v=[1]), columnar("1bad", v=[1])]})
        assert "(item 1)" in refusal({"batch": [columnar(v=[1]), columnar(v=[1, "a"])]})

    @pytest.mark.parametrize("factor", [1e-6, 1e-3, 1, 1e3])
    def test_unit_is_told_by_the_size(self, factor):
        value = int(T_US * factor)

        assert only(columnar(time=[value], v=[1])).columns["time"].cast(pa.int64()).to_pylist() == [T_US]
        assert only({"m": "cpu", "t": value, "fields": {"v": 1}}).columns["time"].cast(pa.int64()).to_pylist() == [T_US]

    def test_fractions_of_seconds(self):
        for payload in (columnar(time=[1697472000.25], v=[1]), {"m": "cpu", "t": 1697472000.25, "fields": {"v": 1}}):
            assert only(payload).columns["time"].cast(pa.int64()).to_pylist() == [T_US + 250_000]

    def test_before_1970(self):
        for payload in (columnar(time=[-1], v=[1]), {"m": "cpu", "t": -1, "fields": {"v": 1}}):
            assert only(payload).columns["time"].cast(pa.int64()).to_pylist() == [-1_000_000]

    @pytest.mark.parametrize("time", [float("nan"), float("inf"), -float("inf"), 1e300])
    def test_times_outside_the_calendar(self, time):
        assert "outside the years" in refusal(columnar(time=[T_US, time], v=[1, 2]))
        assert "outside the years" in refusal(columnar(time=[time], v=[1]))

    @pytest.mark.parametrize("time", [2**63 - 1, -(2**63), 2**64 - 1])
    def test_largest_integers_are_nanoseconds(self, time):
        for payload in (columnar(time=[time], v=[1]), {"m": "cpu", "t": time, "fields": {"v": 1}}):
            assert only(payload).columns["time"].cast(pa.int64()).to_pylist() == [time // 1000]


class TestOddities:
    def test_bodies_that_are_no_points(self):
        for body in (b"", b"\xc1", b"\x01", b"\xa3abc", b"\xc0", b"\x81\xa1m", b"\0", b"\x90\x90"):
            assert refusal(body)

    def test_empty_body(self):
        assert refusal(b"") == "Empty payload"

    def test_zeros_behind_the_object_are_padding(self):
        """Some clients send all of the buffer behind the encoded view."""
        body = msgpack.packb(columnar(v=[1, 2]))

        [batch] = decode_msgpack(body + bytes(100), NOW)

        assert batch.rows == 2

    def test_deep_nesting_is_refused(self):
        assert refusal(b"\x91" * 100_000 + b"\xc0")
        assert refusal(b"\x82\xa1m\xa1a\xa7columns\x81\xa1v\x91" + b"\x91" * 100_000 + b"\xc0")

    def test_integers_above_int64_become_floats(self):
        assert only(columnar(v=[2**64 - 1, 1])).columns["v"].to_pylist() == [float(2**64 - 1), 1.0]

    def test_bad_utf8_is_replaced(self):
        body = msgpack.packb(columnar(v=["ab"])).replace(b"ab", b"a\xff")

        [batch] = decode_msgpack(body, NOW)

        assert batch.columns["v"].to_pylist() == ["a�"]

    def test_names_that_differ_in_case_share_a_column_unless_both_have_a_value(self):
        assert only(columnar(v=[1, None], V=[None, 2])).columns["v"].to_pylist() == [1, 2]
        assert "differ only in case" in refusal(columnar(v=[1, None], V=[3, 2]))

    def test_mixture_names_column_and_types(self):
        assert 'column "v": cannot mix integer and text' in refusal(columnar(v=[1, "a"]))

    def test_column_named_twice_takes_the_last_as_maps_do(self):
        body = b"\x82\xa1m\xa3cpu\xa7columns\x82\xa1v\x91\x01\xa1v\x91\x02"

        [batch] = decode_msgpack(body, NOW)

        assert batch.columns["v"].to_pylist() == [2]
