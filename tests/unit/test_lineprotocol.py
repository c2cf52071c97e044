"""Line protocol: every rule of its grammar, and that reading many lines at once changes nothing."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc.errors import Invalid
from arc.metrics.decode import linecolumns, linetext
from arc.metrics.decode.linegrammar import LineParser
from arc.metrics.decode.lineprotocol import Rejected, decode_lines

NOW = 1_700_000_000_000_000
T_NS = 1697472000000000000
T_US = T_NS // 1000
ONE_BY_ONE = 10**9  # lines; no group is ever that large


def rows_of(lines):
    """All rows as maps: measurement as "m", the time in microseconds, no nulls."""
    rows = []
    for batch in lines.batches:
        columns = {**batch.columns, "time": batch.columns["time"].cast(pa.int64())}
        for values in zip(*(column.to_pylist() for column in columns.values()), strict=True):
            row = dict(zip(columns, values, strict=True))
            rows.append({"m": batch.measurement} | {key: value for key, value in row.items() if value is not None})
    return rows


def decode(text, precision="ns"):
    body = text if isinstance(text, bytes) else text.encode()
    return decode_lines(body, precision, NOW)


def one_row(text, precision="ns"):
    lines = decode(text, precision)
    assert lines.rejected == []
    [row] = rows_of(lines)
    return row


def one_reason(text):
    lines = decode(text)
    assert lines.batches == []
    [rejected] = lines.rejected
    return rejected.reason


def test_a_line_becomes_a_row():
    lines = decode(f'cpu,host=a,region=eu usage=1.5,n=3i,ok=t,state="up" {T_NS}\n')

    [batch] = lines.batches
    assert (batch.measurement, batch.rows, batch.tags, lines.lines) == ("cpu", 1, ("host", "region"), 1)
    assert [(name, str(column.type)) for name, column in batch.columns.items()] == [
        ("time", "timestamp[us, tz=UTC]"),
        ("host", "string"),
        ("region", "string"),
        ("usage", "double"),
        ("n", "int64"),
        ("ok", "bool"),
        ("state", "string"),
    ]
    assert rows_of(lines) == [
        {"m": "cpu", "time": T_US, "host": "a", "region": "eu", "usage": 1.5, "n": 3, "ok": True, "state": "up"}
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1e-3", -0.001),
        ("+1E5", 100000.0),
        ("Inf", math.inf),
        ("-inf", -math.inf),
        ("infinity", math.inf),
        ("1e999", math.inf),
        ("1i", 1),
        ("-5i", -5),
        ("9223372036854775807i", 2**63 - 1),
        ("7u", 7),
        ("18446744073709551615u", 2.0**64),
        ("t", True),
        ("T", True),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("tRuE", True),
        ("f", False),
        ("F", False),
        ("false", False),
        ("FALSE", False),
        ('"text"', "text"),
        ('""', ""),
        ('"a \\"b\\" \\\\ c"', 'a "b" \\ c'),
        ('"a, b = c"', "a, b = c"),
        ('"a\nb"', "a\nb"),
        ('"open', "open"),
        ('"', ""),
        ('"it\'s \\n"', "it's \\n"),
        ("word", "word"),
        ("wifi", "wifi"),
        ("i", "i"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("nan(1)", "nan(1)"),
        ("1e", "1e"),
        ("é", "é"),
        ("a\\ b", "a b"),
        ("a=b", "a=b"),
    ],
)
def test_field_values(text, value):
    row = one_row(f"m v={text}")

    assert row["v"] == value
    assert type(row["v"]) is type(value)


def test_nan_is_stored():
    assert math.isnan(one_row("m v=NaN")["v"])


@pytest.mark.parametrize("text", ["9223372036854775808i", "-1u", "18446744073709551616u", "12x3i", "1.5i", ""])
def test_a_number_that_cannot_be_is_dropped_with_its_field(text):
    assert one_row(f"m v={text},w=1")["w"] == 1.0
    assert "v" not in one_row(f"m v={text},w=1")
    assert one_reason(f"m v={text}") == "no valid field"


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        (r"m,a\ b=c\ d v=1", {"a b": "c d", "v": 1.0}),
        (r"m,a\,b=c\,d v=1", {"a,b": "c,d", "v": 1.0}),
        (r"m,a\=b=c\=d v=1", {"a=b": "c=d", "v": 1.0}),
        (r"m,a=c\\d v=1", {"a": "c\\d", "v": 1.0}),
        (r"m,a=c\d\"e v=1", {"a": 'c\\d"e', "v": 1.0}),
        (r"m v\ w=1,x\,y=2,p\=q=3", {"v w": 1.0, "x,y": 2.0, "p=q": 3.0}),
        ('m,a="b c, d=e" v=1', {"a": '"b c, d=e"', "v": 1.0}),
        ("m,,a=b,,c=d,   v=1,,w=2,   ", {"a": "b", "c": "d", "v": 1.0, "w": 2.0}),
        ("m,a=,b=c v=1", {"b": "c", "v": 1.0}),
        ("m,a,=x,b=c v=1,w,=2", {"b": "c", "v": 1.0}),
        ("m,a=1,b=2,a=3 v=1,w=2,v=3", {"a": "3", "b": "2", "v": 3.0, "w": 2.0}),
        ("m,a=b=c v=1", {"a": "b=c", "v": 1.0}),
        ("m,v=tag v=1,V=2", {"v": "tag", "v_value": 1.0, "V_value_value": 2.0}),
        ("m,time=x v=1,time=2", {"time_value": "x", "v": 1.0, "time_value_value": 2.0}),
        ("m,_t=x v=1,_f=2", {"v": 1.0}),
    ],
)
def test_tags_and_keys(line, columns):
    assert one_row(line) == {"m": "m", "time": NOW, **columns}


@pytest.mark.parametrize(
    ("word", "time_us"),
    [
        (str(T_NS), T_US),
        ("+5000", 5),
        ("-1", -1),
        ("1999", 1),
        ("soon", NOW),
        ("1.5", NOW),
        ("9223372036854775808", NOW),
        (f"{T_NS} extra words", T_US),
    ],
)
def test_timestamps(word, time_us):
    assert one_row(f"m v=1 {word}")["time"] == time_us


@pytest.mark.parametrize(
    ("names", "value", "time_us"),
    [
        (["", "ns", "n", "nanosecond"], 1697472000000000000, T_US),
        (["us", "u", "µ", "microsecond"], 1697472000000000, T_US),
        (["ms", "millisecond"], 1697472000000, T_US),
        (["s", "second"], 1697472000, T_US),
        (["m", "minute"], 28291200, T_US),
        (["h", "hour"], 471520, T_US),
        (["s"], -1, -1_000_000),
        (["h"], 2**63 - 1, NOW),
    ],
)
def test_precisions(names, value, time_us):
    assert {one_row(f"m v=1 {value}", name)["time"] for name in names} == {time_us}


def test_unknown_precision_is_refused():
    with pytest.raises(Invalid) as caught:
        decode("m v=1", "x")

    names = "ns, n, nanosecond, us, u, µ, µs, microsecond, ms, millisecond, s, second, m, minute, h, hour"
    assert str(caught.value) == f'invalid precision "x": must be one of {names}'


def test_years_no_calendar_has_are_rejected():
    [rejected] = decode("m v=1 999999999999", "s").rejected

    assert rejected.reason == "timestamp 999999999999 is outside the years 0001-9999"


def test_comments_blank_lines_and_crlf():
    lines = decode("# a comment, v=1\r\n\r\n  \t\n  m v=1 1000\r\n #x\n\tm,a=b v=2 2000 \r\nm v=3")

    assert rows_of(lines) == [
        {"m": "m", "time": 1, "v": 1.0},
        {"m": "m", "time": 2, "a": "b", "v": 2.0},
        {"m": "m", "time": NOW, "v": 3.0},
    ]
    assert lines.lines == 3


def test_empty_body_is_refused():
    with pytest.raises(Invalid, match=r"^Empty request body$"):
        decode("")


def test_a_body_may_hold_nothing():
    assert decode("\n# nothing\n").batches == []


def test_bad_lines_are_rejected_and_good_ones_stored():
    lines = decode(f"m v=1\n\nno fields\nm\n,a=b v=1\n# c\nm v=\nm {'x' * 300}\nm v=2")

    assert [row["v"] for row in rows_of(lines)] == [1.0, 2.0]
    assert lines.rejected == [
        Rejected(3, "no fields", "no valid field"),
        Rejected(4, "m", "missing fields"),
        Rejected(5, ",a=b v=1", "missing measurement"),
        Rejected(7, "m v=", "no valid field"),
        Rejected(8, f"m {'x' * 198}", "no valid field"),
    ]
    assert lines.lines == 7


def test_line_numbers_count_newlines_inside_texts():
    lines = decode('m v="a\nb\nc"\nbad\nm v="open\nbad\nm v="x"')

    assert [row["v"] for row in rows_of(lines)] == ["a\nb\nc", "open", "x"]
    assert [rejected.line_number for rejected in lines.rejected] == [4, 6]


def test_a_quote_in_a_tag_does_not_swallow_the_next_line():
    lines = decode('m,size=5" v=1\nm,size=5" v=2\nm,size=" v=3\nm w="x"')

    assert [(rejected.line_number, rejected.reason) for rejected in lines.rejected] == [(3, "missing fields")]
    assert [(row.get("v"), row.get("w")) for row in rows_of(lines)] == [(1.0, None), (2.0, None), (None, "x")]


def test_a_text_over_lines_may_be_followed_by_more():
    lines = decode('m v="a\nb",w="c\n=1 d",x=1i 1000\r\nm v="e\\"\nf",x=2i 2000\nm x=3i 3000')

    assert rows_of(lines) == [
        {"m": "m", "time": 1, "v": "a\nb", "w": "c\n=1 d", "x": 1},
        {"m": "m", "time": 2, "v": 'e"\nf', "x": 2},
        {"m": "m", "time": 3, "x": 3},
    ]


@pytest.mark.parametrize("name", ["../x", "a/b", "1a", "x" * 129, "a\\ b", "ü"])
def test_bad_measurement_name_refuses_the_request(name):
    with pytest.raises(Invalid, match=r"^invalid measurement name"):
        decode(f"good v=1\n{name} v=1")


def test_bad_utf8_is_replaced():
    assert one_row(b'm,a=\xff v="\xe9t\xc3\xa9"') == {"m": "m", "time": NOW, "a": "\ufffd", "v": "\ufffdté"}


def test_lines_that_differ_in_one_tag_stay_two_rows():
    lines = decode(f"m,unusual=a v=1 {T_NS}\nm,unusual=b v=1 {T_NS}\nm,unusual=b w=1 {T_NS}")

    assert len(rows_of(lines)) == 3


def test_measurements_are_separated_and_missing_columns_are_null():
    lines = decode("a x=1\nb y=2i\na z=t\na x=3,z=f")

    assert {batch.measurement: batch.rows for batch in lines.batches} == {"a": 3, "b": 1}
    [a] = [batch for batch in lines.batches if batch.measurement == "a"]
    assert a.columns["x"].to_pylist() == [1.0, None, 3.0]
    assert a.columns["z"].to_pylist() == [None, True, False]


def test_integers_and_floats_become_floats():
    lines = decode("m v=1i\nm v=2.5")

    assert [row["v"] for row in rows_of(lines)] == [1.0, 2.5]


def test_first_kind_of_a_column_decides_and_other_lines_are_rejected():
    lines = decode('m v=1i,w=1\nm v="text",w=t\nm v=2.5,w="x"\nm v=3,w=2\nm,v=x w=1')

    assert [row.get("v") for row in rows_of(lines)] == [1.0, 3.0]
    assert lines.rejected == [
        Rejected(2, 'm v="text",w=t', 'column "v": cannot mix integer and text'),
        Rejected(3, 'm v=2.5,w="x"', 'column "w": cannot mix float and text'),
        Rejected(5, "m,v=x w=1", 'column "v": cannot mix integer and text'),
    ]


def test_a_rejected_line_decides_no_column():
    lines = decode("m v=1\nm v=t,w=1\nm w=t")

    assert rows_of(lines) == [{"m": "m", "time": NOW, "v": 1.0}, {"m": "m", "time": NOW, "w": True}]


def test_names_that_differ_in_case_share_a_column():
    lines = decode("m Load=1\nm load=2")

    assert rows_of(lines) == [{"m": "m", "time": NOW, "Load": 1.0}, {"m": "m", "time": NOW, "Load": 2.0}]
    assert one_reason("m Load=1,load=2") == 'columns "Load" and "load" differ only in case'


def plain_lines(count, shape):
    return [shape.format(i=i, time=T_NS + i * 1000) for i in range(count)]


def comparable(lines):
    types = {
        (batch.measurement, name.casefold(), str(column.type))
        for batch in lines.batches
        for name, column in batch.columns.items()
    }
    rows = sorted(repr(sorted((key.casefold(), repr(value)) for key, value in row.items())) for row in rows_of(lines))
    tags = {(batch.measurement, tag.casefold()) for batch in lines.batches for tag in batch.tags}
    return types, rows, tags, lines.rejected, lines.lines


SHAPES = [
    "cpu,host=server{i},region=us-east usage_idle={i}.25,usage_user=1.2 {time}",
    "mem used={i}i,free=7u {time}",
    'disk,path=/dev/sd{i} ok=true,state="read only {i}"',
    "a_measurement_with_a_long_name,a_tag_key_with_a_long_name=v a_field_key_with_a_long_name=-{i}e-3 {time}",
    'm,ü=ö{i} _x={i},ä="ß" {time}',
]


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_lines_are_read_together(shape, monkeypatch):
    body = "\n".join(plain_lines(100, shape)).encode()
    parsed = []
    parse = LineParser.parse
    monkeypatch.setattr(LineParser, "parse", lambda self, line: (parsed.append(line), parse(self, line))[1])

    [together] = decode_lines(body, "ns", NOW).batches
    read_one_by_one = len(parsed)
    monkeypatch.setattr(linecolumns, "MIN_GROUP", ONE_BY_ONE)
    [one_by_one] = decode_lines(body, "ns", NOW).batches

    assert read_one_by_one == 1
    assert together.columns == one_by_one.columns
    assert together.tags == one_by_one.tags


def test_odd_lines_among_plain_ones():
    lines = [line for shape in SHAPES for line in plain_lines(80, shape)]
    lines[10:10] = ["# a comment", "", "cpu", r"cpu,host=a\ b usage_idle=1,usage_user=2", 'disk ok=t,state="open']
    lines[90:90] = [
        "cpu,host=,region=x usage_idle=1,usage_user=1 5",
        "cpu,host=a,region=b usage_idle=1i,usage_user=1 5",
    ]
    lines[110:110] = ['disk,path=/ ok=t,state="two\nlines"', "mem used=x,free=1u 7", f"mem used={2**63}i,free=1u 8"]
    body = "\r\n".join(lines).encode()

    together = decode_lines(body, "ns", NOW)

    assert comparable(together) == outcome(body, "ns", ONE_BY_ONE)
    assert [rejected.text for rejected in together.rejected] == ["cpu", "mem used=x,free=1u 7"]
    assert len(together.batches) == len(SHAPES) + 2  # the odd lines of cpu and disk


KEYS = st.sampled_from(
    ["a", "b", "host", "Host", "time", "_x", "a_key_of_20_letters_", "é", r"a\ b", r"a\=b", 'q"', ""]
)
TAG_VALUES = ["a", "some_longer_value", "é", "b"] * 5 + ["", r"a\ b", '"a b"', 'q"', "a=b"]
FIELD_VALUES = [
    ["1", "2.5", "-3e2", ".5"] * 5 + ["+1", "NaN", "1e999", "0x1", "1_0", "1e", "7i", "word", "5\t", "nan(1)"],
    ["7i", "-8i", "0i", "123456789i"] * 5 + ["99999999999999999999i", "0x1i", "+1i", "i", "1.5", "9u", "--1i"],
    ["9u", "0u"] * 5 + ["-1u", "9999999999999999999u", "u", "1"],
    ["t", "FALSE", "true", "F"] * 5 + ["tre", "e", "1"],
    ['"x"', '"a b,c=d"', '"é"', '""', '"a, \nb"'] * 3 + ['"open', r'"a\"b"', 'open"', "word", '"', '"a"b"'],
]
TIMES = [
    ["", "", "", "", " 1"],
    [f" {T_NS}", " 1", " -1"] * 5 + [" soon", f" {10**20}", " 1 2", " ", "  5", " 0x1", " 1\t"],
]


@st.composite
def shapes(draw):
    """Writes lines that are mostly alike."""
    tags = draw(st.lists(st.tuples(KEYS, st.just(TAG_VALUES)), max_size=2))
    fields = draw(st.lists(st.tuples(KEYS, st.sampled_from(FIELD_VALUES)), min_size=1, max_size=2))
    return tags, fields, draw(st.sampled_from(TIMES))


@st.composite
def bodies(draw):
    lines = []
    known = draw(st.lists(shapes(), min_size=1, max_size=3))
    for _ in range(draw(st.integers(2, 15))):
        tags, fields, times = draw(st.sampled_from(known))
        pairs = [[f"{key}={draw(st.sampled_from(values))}" for key, values in part] for part in (tags, fields)]
        lines.append(f"{','.join(['m', *pairs[0]])} {','.join(pairs[1])}{draw(st.sampled_from(times))}")
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines)


def outcome(body, precision, min_group, max_block=10**9):
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linecolumns, "MIN_GROUP", min_group)
            patch.setattr(linetext, "MAX_BLOCK", max_block)
            return comparable(decode_lines(body, precision, NOW))
    except Invalid:
        return "refused"


def check_ways_agree(body, precision="ns"):
    one_by_one = outcome(body, precision, ONE_BY_ONE)

    assert outcome(body, precision, 2) == one_by_one
    assert outcome(body, precision, 2, max_block=len(body) // 2) == one_by_one


@settings(max_examples=100, deadline=None)
@given(bodies(), st.sampled_from(["ns", "s", "h"]))
def test_reading_together_changes_nothing(body, precision):
    check_ways_agree(body.encode(), precision)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text('ab1i, =\\"\n\r#t.é', max_size=12), min_size=1, max_size=8).map("\nm a=1\n".join))
def test_reading_together_changes_nothing_of_nonsense(body):
    check_ways_agree(f"m a=1\n{body}".encode())


@pytest.mark.parametrize(
    "line",
    [
        'm,a=q",a=q" v=1 1',
        'm,a=q",b=q" v=1 1',
        'm,a="q,a=q" v=1 1',
        'm v=q"w,v=q" 1',
        "m v=1i,v=2i 1",
        'm v="a\\",w="b" 1',
        'm v=a"b",w=c"d" 1',
        "m v=1i",
        'm v="x",w=T',
    ],
)
def test_alike_lines_mean_what_each_means_alone(line):
    check_ways_agree("\n".join([line] * 4).encode())


@pytest.mark.parametrize(
    ("line", "tag", "field"),
    [
        ('m,t=5"\\ disk v="x" 1', '5" disk', "x"),
        ('m,t=5" v="x y",w=1', '5"', "x y"),
        ('m,t=a"b"c v=1i', 'a"b"c', 1),
        ('m,t="a b" v=1i', '"a b"', 1),
    ],
)
def test_quotes_in_tags_are_kept_as_the_clients_of_influxdb_send_them(line, tag, field):
    row = one_row(line)

    assert (row["t"], row["v"]) == (tag, field)


def test_nul_in_a_name_is_refused():
    with pytest.raises(Invalid, match="control characters"):
        decode_lines(b"z a\0b=1 1", "ns", 0)
