"""Names that are stored are harmless as paths and as SQL identifiers."""

from __future__ import annotations

import pytest

from arc.errors import Invalid
from arc.metrics.names import RESERVED, check_database, check_measurement, column_names, is_stored


@pytest.mark.parametrize("name", ["default", "D", "a-b_c9", "x" * 64])
def test_good_database_names(name):
    assert check_database(name) is None


@pytest.mark.parametrize("name", ["", "../x", "a/b", "1a", "x" * 65, "a b", "a\n", "é", "a.b", "_x", 'a"'])
def test_bad_database_names(name):
    with pytest.raises(Invalid) as caught:
        check_database(name)

    assert str(caught.value) == (
        "invalid database name: must start with a letter and contain only "
        "alphanumeric characters, underscores, or hyphens (max 64 characters)"
    )


@pytest.mark.parametrize("name", [*sorted(RESERVED), "System", "INFORMATION_SCHEMA"])
def test_reserved_database_names(name):
    with pytest.raises(Invalid, match=r"^invalid database name: "):
        check_database(name)


@pytest.mark.parametrize("name", ["cpu", "C-1_x", "x" * 128])
def test_good_measurement_names(name):
    assert check_measurement(name) is None


@pytest.mark.parametrize("name", ["", "../x", "a/b", "1a", "x" * 129, "a\n", "_a", "ü"])
def test_bad_measurement_names(name):
    with pytest.raises(Invalid, match=r'^invalid measurement name "(?s:.*)": must start with a letter'):
        check_measurement(name)


def test_columns_with_an_underscore_in_front_are_not_stored():
    assert is_stored("http.method")
    assert not is_stored("_monotonic")


def test_empty_column_name_is_refused():
    with pytest.raises(Invalid, match="column name must not be empty"):
        is_stored("")


def test_columns_of_a_row():
    tags, fields = column_names(["host", "time", "_x"], ["usage", "Host", "time", "_y", "time_value"])

    assert tags == ["host", "time_value", None]
    assert fields == ["usage", "Host_value", "time_value_value", None, "time_value_value_value"]


@pytest.mark.parametrize("name", ["a\0b", "line\nbreak", "\x7f", "x" * 256])
def test_column_names_that_sql_could_not_quote_or_nobody_could_read_are_refused(name):
    with pytest.raises(Invalid, match="no control characters"):
        is_stored(name)
