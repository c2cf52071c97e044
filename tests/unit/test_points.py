"""Points as Python objects become columns by the rules of MessagePack and JSON writes."""

from __future__ import annotations

import msgpack
import pyarrow as pa
import pytest

from arc.errors import Invalid
from arc.metrics.decode.columns import arrow_column
from arc.metrics.decode.points import columnar_item, items_to_batches

NOW = 1_700_000_000_000_000
T_MS = 1697472000000
T_US = T_MS * 1000


def rows_of(batch):
    """Rows as maps, time in microseconds."""
    columns = {name: column.to_pylist() for name, column in batch.columns.items() if name != "time"}
    columns["time"] = batch.columns["time"].cast(pa.int64()).to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def one_row(item):
    [batch] = items_to_batches([item], NOW)
    [row] = rows_of(batch)
    return row


def refusal(*objects, **options):
    with pytest.raises(Invalid) as caught:
        items_to_batches(objects, NOW, **options)
    return str(caught.value)


def test_row_item_becomes_time_host_tags_fields():
    item = {"m": "cpu", "t": T_MS, "h": "a", "tags": {"region": "eu"}, "fields": {"usage": 45.2, "n": 3, "ok": True}}

    [batch] = items_to_batches([{"batch": [item]}], NOW)

    assert batch.measurement == "cpu"
    assert list(batch.columns) == ["time", "host", "region", "usage", "n", "ok"]
    assert [str(column.type) for column in batch.columns.values()] == [
        "timestamp[us, tz=UTC]", "string", "string", "double", "int64", "bool",
    ]  # fmt: skip
    assert batch.tags == ("host", "region")
    assert rows_of(batch) == [{"time": T_US, "host": "a", "region": "eu", "usage": 45.2, "n": 3, "ok": True}]


@pytest.mark.parametrize(
    ("part", "host"),
    [
        ({}, "unknown"),
        ({"h": None}, None),
        ({"h": "a"}, "a"),
        ({"h": 12}, "host_12"),
        ({"h": b"a"}, "a"),
        ({"tags": {"host": "b"}}, "b"),
        ({"tags": {"Host": "b"}}, "b"),
        ({"h": None, "tags": {"host": "b"}}, "b"),
        ({"h": "a", "tags": {"host": "b"}}, "a"),
    ],
)
def test_where_the_host_comes_from(part, host):
    row = one_row({"m": "cpu", "t": T_MS, "fields": {"v": 1}, **part})

    assert row == {"time": T_US, "host": host, "v": 1}


def test_hosts_of_different_origin_in_one_batch():
    items = [
        {"m": "cpu", "fields": {"v": 1}, **part} for part in ({"h": "a"}, {}, {"tags": {"host": "b"}}, {"h": None})
    ]

    [batch] = items_to_batches([items], NOW)

    assert batch.columns["host"].to_pylist() == ["a", "unknown", "b", None]


def test_other_spellings_of_keys():
    assert one_row({"measurement": "cpu", "timestamp": T_MS, "f": {"v": 1}})["time"] == T_US
    assert one_row({"m": 7, "time": T_MS, "fields": {}, "f": [1, "x"]}) == {
        "time": T_US, "host": "unknown", "field_0": 1, "field_1": "x",
    }  # fmt: skip
    assert items_to_batches([{"m": 7, "f": [1]}], NOW)[0].measurement == "measurement_7"


def test_t_goes_before_its_other_spellings():
    assert one_row({"m": "cpu", "t": None, "time": T_MS, "f": {"v": 1}})["time"] == NOW


def test_binary_keys_of_old_packers():
    item = {b"m": b"cpu", b"t": T_MS, b"tags": {b"region": b"eu"}, b"fields": {b"v": 1}}

    [batch] = items_to_batches([{b"batch": [item]}], NOW)

    assert batch.measurement == "cpu"
    assert rows_of(batch) == [{"time": T_US, "host": "unknown", "region": "eu", "v": 1}]


def test_tag_values_become_text():
    tags = {"a": 1, "b": 1.5, "c": True, "d": None, "e": b"x", "f": [1]}

    assert one_row({"m": "cpu", "t": T_MS, "h": None, "tags": tags, "fields": {"v": 1}}) == {
        "time": T_US, "host": None, "a": "1", "b": "1.5", "c": "true", "d": None, "e": "x", "f": "[1]", "v": 1,
    }  # fmt: skip


def test_field_named_like_a_tag_gets_another_name():
    row = one_row({"m": "x", "h": "a", "tags": {"usage": "t"}, "fields": {"Usage": 1, "host": 2, "time": 3}, "t": T_MS})

    assert row == {"time": T_US, "host": "a", "usage": "t", "Usage_value": 1, "host_value": 2, "time_value": 3}


def test_a_new_name_never_takes_that_of_another_field():
    row = one_row({"m": "x", "t": T_MS, "tags": {"v": "t"}, "fields": {"v": 1, "v_value": 2}})

    assert row == {"time": T_US, "host": "unknown", "v": "t", "v_value_value": 1, "v_value": 2}


def test_columns_with_underscore_are_dropped():
    assert one_row({"m": "x", "t": T_MS, "tags": {"_a": "b"}, "fields": {"_b": 1}}) == {"time": T_US, "host": "unknown"}


def test_differing_keys_give_the_union():
    items = [
        {"m": "cpu", "t": 1, "h": "a", "fields": {"x": 1}},
        {"m": "mem", "t": 2, "h": "a", "fields": {"free": 9}},
        {"m": "cpu", "t": 3, "h": "a", "tags": {"r": "eu"}, "fields": {"y": "text", "x": 2.5}},
        {"m": "cpu", "t": 4, "h": "a", "fields": {"x": None}},
    ]

    cpu, mem = items_to_batches([items], NOW)

    assert list(cpu.columns) == ["time", "host", "r", "x", "y"]
    assert rows_of(cpu) == [
        {"time": 1_000_000, "host": "a", "r": None, "x": 1.0, "y": None},
        {"time": 3_000_000, "host": "a", "r": "eu", "x": 2.5, "y": "text"},
        {"time": 4_000_000, "host": "a", "r": None, "x": None, "y": None},
    ]
    assert rows_of(mem) == [{"time": 2_000_000, "host": "a", "free": 9}]


def test_names_that_differ_in_case_share_a_column():
    items = [{"m": "c", "t": 1, "fields": {"Load": 1}}, {"m": "c", "t": 2, "fields": {"load": 2.5}}]

    [batch] = items_to_batches([items], NOW)

    assert batch.columns["Load"].to_pylist() == [1.0, 2.5]
    assert "load" not in batch.columns


def test_both_cases_in_one_row_are_refused():
    good = {"m": "c", "t": 1, "fields": {"v": 1}}
    bad = {"m": "c", "t": 1, "fields": {"Load": 1, "load": 2}}

    assert refusal(bad) == 'columns "Load" and "load" differ only in case'
    assert refusal([good, bad]).endswith("differ only in case (item 1)")


def test_units_of_rows_are_their_own():
    items = [{"m": "c", "t": t, "f": {"v": 1}} for t in (1697472000, T_MS, T_US, T_US * 1000, 1697472000.25, -1, None)]

    [batch] = items_to_batches([items], NOW)

    assert [row["time"] for row in rows_of(batch)] == [T_US] * 4 + [T_US + 250_000, -1_000_000, NOW]


def test_timestamp_extension_is_a_time():
    assert one_row({"m": "c", "t": msgpack.Timestamp(1697472000, 5_000), "f": {"v": 1}})["time"] == T_US + 5


def test_columnar_item():
    lists = {"v": [1.5, None], "time": [T_MS, T_MS + 1], "http.method": ["GET", None], "_x": [1, 2], "n": [None, None]}

    [batch] = items_to_batches([{"m": "c", "columns": lists, "fields": "ignored"}], NOW)

    assert list(batch.columns) == ["time", "v", "http.method", "n"]
    assert rows_of(batch) == [
        {"time": T_US, "v": 1.5, "http.method": "GET", "n": None},
        {"time": T_US + 1000, "v": None, "http.method": None, "n": None},
    ]
    assert batch.columns["n"].type == pa.null()
    assert batch.tags == ()


def test_columnar_time_unit_comes_from_the_first_element():
    batch = columnar_item({"m": "c", "columns": {"time": [T_MS, 1, 2.5]}}, NOW)

    assert [row["time"] for row in rows_of(batch)] == [T_US, 1000, 2500]


def test_columnar_item_without_time():
    batch = columnar_item({"m": "c", "columns": {"v": [1, 2]}}, NOW)

    assert [row["time"] for row in rows_of(batch)] == [NOW, NOW]


def test_columnar_names_in_two_cases_fill_each_other():
    batch = columnar_item({"m": "c", "columns": {"V": [1, None, None], "v": [None, 2.5, None]}}, NOW)

    assert batch.columns["V"].to_pylist() == [1.0, 2.5, None]
    with pytest.raises(Invalid, match='columns "V" and "v" differ only in case'):
        columnar_item({"m": "c", "columns": {"V": [1, 2], "v": [None, 2.5]}}, NOW)


def test_envelopes():
    row = {"m": "a", "f": {"v": 1}}
    columnar = {"m": "b", "columns": {"v": [1, 2, 3]}}

    batches = items_to_batches([{"batch": [row, {"batch": [columnar, row]}]}, [row], row], NOW)

    assert {(batch.measurement, batch.rows) for batch in batches} == {("b", 3), ("a", 4)}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, 1, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([2.5, 2**60], pa.float64()),
        ([2**63, 1], pa.float64()),
        ([-(2**63), 2**63 - 1], pa.int64()),
        ([True, None], pa.bool_()),
        (["a", None], pa.string()),
        ([b"a", None], pa.binary()),
        ([None, None], pa.null()),
        ([], pa.null()),
    ],
)
def test_type_of_a_column(values, kind):
    column = arrow_column("x", values)

    assert column.type == kind
    assert column.to_pylist() == values


def test_lists_and_maps_become_json_text():
    assert arrow_column("x", [[1, None], {"a": b"b", 1: 2.5}, "text"]).to_pylist() == [
        "[1,null]", '{"a":"b","1":2.5}', "text",
    ]  # fmt: skip


def test_what_json_cannot_hold_is_refused():
    deep: object = 1
    for _ in range(400):
        deep = [deep]

    assert refusal({"m": "c", "t": 1, "fields": {"x": deep}}).startswith("a list or map cannot be stored as JSON")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1, True], 'column "x": cannot mix integer and boolean'),
        ([None, 1.5, 1, "a"], 'column "x": cannot mix float and text'),
        (["a", 1], 'column "x": cannot mix text and integer'),
        (["a", b"a"], 'column "x": cannot mix text and binary'),
        ([msgpack.ExtType(5, b"")], 'column "x": cannot store a exttype'),
    ],
)
def test_mixtures_are_refused(values, text):
    assert refusal({"m": "c", "columns": {"x": values}}) == text
    items = [{"m": "c", "t": 1, "fields": {"x": value}} for value in values]
    assert refusal({"m": "c", "columns": {"y": [1]}}, *items) == f"{text} (item {len(values)})"


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"f": {"v": 1}}, "Missing required field 'm' (measurement)"),
        ({"m": None, "f": {"v": 1}}, "Missing required field 'm' (measurement)"),
        ({"m": 1.5, "f": {"v": 1}}, "'m' (measurement) must be text, not float"),
        ({"m": [], "f": {"v": 1}}, "'m' (measurement) must be text, not an array"),
        ({"m": "c"}, "Missing required field 'fields' or 'f'"),
        ({"m": "c", "fields": {}}, "Missing required field 'fields' or 'f'"),
        ({"m": "c", "f": {}}, "Missing required field 'fields' or 'f'"),
        ({"m": "c", "fields": "x"}, "'fields' must be a map or an array, not text"),
        ({"m": "c", "f": {"v": 1}, "tags": "x"}, "'tags' must be a map, not text"),
        ({"m": "c", "f": {5: 1}}, "names must be text, not integer"),
        ({"m": "c", "columns": {}}, "Columnar format requires 'columns' dict"),
        ({"m": "c", "columns": None}, "Columnar format requires 'columns' dict"),
        ({"m": "c", "columns": {"v": 1}}, 'Columnar format: column "v" must be an array, not integer'),
        (
            {"m": "c", "columns": {"v": [1], "w": [1, 2]}},
            'Columnar format: array length mismatch: column "w" has 2, not 1',
        ),
        (5, "expected an item or an array of items, not integer"),
    ],
)
def test_bad_shapes_are_refused(item, text):
    good = {"m": "c", "f": {"v": 1}}

    assert refusal([item]) == f"Invalid MessagePack payload: {text}"
    assert refusal({"batch": [item]}, payload="JSON") == f"Invalid JSON payload: {text}"
    assert refusal([good, item, good]).startswith(f"Invalid MessagePack payload: {text}")
    if item != 5:
        assert refusal([good, good, item, item]).endswith(" (item 2)")


@pytest.mark.parametrize(
    "item",
    [
        {"m": "../x", "f": {"v": 1}},
        {"m": "../x", "columns": {"v": [1]}},
        {"m": "", "f": {"v": 1}},
        {"m": "1a", "f": {"v": 1}},
    ],
)
def test_bad_measurement_names_are_refused(item):
    assert refusal(item).startswith(f'invalid measurement name "{item["m"]}": must start with a letter')
    assert refusal([item, item]).endswith(" (item 0)")


@pytest.mark.parametrize("item", [{"m": "c", "f": {"": 1}}, {"m": "c", "columns": {"": [1]}}])
def test_empty_column_name_is_refused(item):
    assert refusal(item) == "column name must not be empty"


@pytest.mark.parametrize("value", ["2023-10-16T16:00:00Z", "", True, [1], {}])
def test_time_that_is_no_number_is_refused(value):
    assert "time must be a number, not" in refusal({"m": "c", "t": value, "f": {"v": 1}})
    assert "time must be a number, not" in refusal({"m": "c", "columns": {"time": [value], "v": [1]}})
    assert refusal([{"m": "c", "t": t, "f": {"v": 1}} for t in (1, value)]).endswith(" (item 1)")


def test_null_in_a_time_column_is_refused():
    assert refusal({"m": "c", "columns": {"time": [1, None]}}) == "time must be a number, not null"


def test_times_beyond_the_calendar_are_refused():
    assert refusal([{"m": "c", "t": t, "f": {"v": 1}} for t in (1, 1e300)]) == (
        "timestamp 1e+300 is outside the years 0001-9999 (item 1)"
    )
    assert "outside the years" in refusal({"m": "c", "columns": {"time": [1, 10**18]}})


@pytest.mark.parametrize("body", [[], {"batch": []}, [[]], {"m": "c", "columns": {"time": [], "v": []}}])
def test_nothing_to_write_is_refused(body):
    assert refusal(body) == "No records in payload"


def test_endless_nesting_is_refused():
    body = []
    for _ in range(400):
        body = {"batch": [body]}

    assert refusal(body) == "Invalid MessagePack payload: batches are nested too deeply"
