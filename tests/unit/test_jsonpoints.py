"""JSON bodies follow the rules of points, with JSON's own numbers and text times."""

from __future__ import annotations

import pyarrow as pa
import pytest

from arc.errors import Invalid
from arc.metrics.decode.jsonpoints import decode_json

NOW = 1_700_000_000_000_000


def decode_one(body, ndjson=False):
    [batch] = decode_json(body, NOW, ndjson)
    return batch


def times(batch):
    return batch.columns["time"].cast(pa.int64()).to_pylist()


def test_batch_of_rows():
    batch = decode_one(
        b'{"batch": [{"m": "cpu", "t": 1697472000000, "h": null, "tags": {}, "fields": {"usage": 45.2}}]}'
    )

    assert batch.columns["usage"].to_pylist() == [45.2]
    assert batch.columns["host"].to_pylist() == [None]
    assert times(batch) == [1697472000000000]


def test_text_times():
    rows = decode_one(
        b'[{"m":"c","t":"2023-10-16T16:00:00Z","fields":{"v":1}},'
        b'{"measurement":"c","timestamp":"2023-10-16T18:00:00.25+02:00","fields":{"v":1}}]'
    )
    columns = decode_one(b'{"m":"c","columns":{"time":["2023-10-16T16:00:00Z","2023-10-16T16:00:01Z"]}}')

    assert times(rows) == [1697472000000000, 1697472000250000]
    assert times(columns) == [1697472000000000, 1697472001000000]


def test_bad_text_time_names_the_item():
    with pytest.raises(Invalid, match=r"^timestamp 'soon' is not an RFC 3339 instant \(item 1\)$"):
        decode_json(b'[{"m":"c","fields":{"v":1}},{"m":"c","t":"soon","fields":{"v":1}}]', NOW, False)


@pytest.mark.parametrize(
    ("number", "value", "kind"),
    [
        (b"1", 1, pa.int64()),
        (b"1.0", 1.0, pa.float64()),
        (b"1e2", 100.0, pa.float64()),
        (b"9223372036854775807", 2**63 - 1, pa.int64()),
        (b"9223372036854775808", 2.0**63, pa.float64()),
        (b"-99999999999999999999", -1e20, pa.float64()),
    ],
)
def test_numbers(number, value, kind):
    column = decode_one(b'{"m":"c","fields":{"v":' + number + b"}}").columns["v"]

    assert column.to_pylist() == [value]
    assert column.type == kind


def test_ndjson_has_an_item_per_line():
    batch = decode_one(
        b'{"m":"c","fields":{"v":1}}\r\n\n{"m":"c","fields":{"v":2}}\n[{"m":"c","fields":{"v":3}}]', True
    )

    assert batch.columns["v"].to_pylist() == [1, 2, 3]


def test_bad_json_is_refused_with_its_line():
    with pytest.raises(Invalid, match=r"^Invalid JSON payload: .*column 2"):
        decode_json(b"[nope]", NOW, False)
    with pytest.raises(Invalid, match=r"^Invalid JSON payload: line 3: "):
        decode_json(b'{"m":"c","fields":{"v":1}}\n\n{"m":', NOW, True)


@pytest.mark.parametrize("ndjson", [False, True])
@pytest.mark.parametrize("body", [b"", b" \n"])
def test_empty_body(body, ndjson):
    with pytest.raises(Invalid, match=r"^Empty payload$"):
        decode_json(body, NOW, ndjson)


def test_bad_items_speak_of_json():
    with pytest.raises(Invalid, match=r"^Invalid JSON payload: Missing required field 'm' \(measurement\)$"):
        decode_json(b'{"fields":{"v":1}}', NOW, False)
