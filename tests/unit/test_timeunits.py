"""The same instant comes out of every unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc.errors import Invalid
from arc.metrics.decode.timeunits import (
    HOUR,
    MAX_US,
    MIN_US,
    NANOSECOND,
    SECOND,
    column_to_us,
    text_to_us,
    to_us,
    unit_of,
)

INSTANT_US = 1_697_472_000_000_000


@pytest.mark.parametrize("value", [1697472000, 1697472000000, 1697472000000000, 1697472000000000000])
def test_size_tells_the_unit(value):
    assert to_us(value) == INSTANT_US
    assert to_us(float(value)) == INSTANT_US
    assert to_us(-value) == -INSTANT_US
    assert column_to_us(np.array([value, value])).tolist() == [INSTANT_US, INSTANT_US]


def test_fractions_of_seconds_survive():
    assert to_us(1697472000.25) == INSTANT_US + 250_000
    assert column_to_us(np.array([1697472000.25])).tolist() == [INSTANT_US + 250_000]


def test_first_element_decides_for_the_column():
    assert column_to_us(np.array([1697472000, 1])).tolist() == [INSTANT_US, 1_000_000]
    assert column_to_us(np.array([1697472000000, 1])).tolist() == [INSTANT_US, 1000]


def test_nanoseconds_are_rounded_down():
    assert to_us(-1, NANOSECOND) == -1
    assert column_to_us(np.array([-1, 1999]), NANOSECOND).tolist() == [-1, 1]


def test_a_given_unit_stands():
    assert to_us(2, HOUR) == 7_200_000_000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -(10**30)])
def test_what_no_calendar_holds_is_refused(value):
    with pytest.raises(Invalid, match="outside the years 0001-9999"):
        to_us(value)


def test_one_value_beyond_the_calendar_refuses_the_column():
    with pytest.raises(Invalid, match="timestamp 9000000000000000000 is outside"):
        column_to_us(np.array([1, 9 * 10**18, 2]))
    with pytest.raises(Invalid, match="timestamp nan is outside"):
        column_to_us(np.array([1.0, np.nan]))


def test_calendar_ends():
    assert to_us(MAX_US // 10**6, SECOND) == MAX_US - 999_999
    assert to_us(MIN_US // 10**6, SECOND) == MIN_US
    with pytest.raises(Invalid):
        to_us(MAX_US // 10**6 + 1, SECOND)


def test_empty_column():
    assert column_to_us(np.array([], dtype=np.uint32)).dtype == np.int64


@pytest.mark.parametrize("dtype", [">u8", "<i8", ">u4", "u2", ">f4", "f8"])
def test_every_dtype_comes_in(dtype):
    assert column_to_us(np.array([60, 61], dtype=dtype)).tolist() == [60_000_000, 61_000_000]


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4)
    | st.lists(st.integers(0, 2**64 - 1).map(np.uint64), min_size=1, max_size=4)
    | st.lists(st.floats(width=64), min_size=1, max_size=4)
)
def test_columns_and_single_values_agree(values):
    column = np.array(values)
    try:
        expected = [to_us(value.item(), unit_of(column[0].item())) for value in column]
    except Invalid:
        with pytest.raises(Invalid):
            column_to_us(column)
    else:
        assert column_to_us(column).tolist() == expected


def test_text_instants():
    assert text_to_us("2023-10-16T16:00:00Z") == INSTANT_US
    assert text_to_us("2023-10-16T18:00:00.25+02:00") == INSTANT_US + 250_000
    with pytest.raises(Invalid, match="'soon' is not an RFC 3339 instant"):
        text_to_us("soon")
