"""CSV files into columns: types by column over the whole file; spec metrics 2.17.2.

CsvFile: header -> types guessed by the first rows -> verified over all rows, wider where they did not hold
    -> tables(): the rows again, a bounded piece at a time, in these types
DuckDB reads the file, outside of the interpreter lock and in bounded memory; an odd one is written anew first.
Nothing is handed out before the last row was found readable, so a bad file is refused whole.
"""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any, TextIO

import duckdb
import pyarrow as pa

from arc.errors import Invalid, Unreadable
from arc.metrics.decode import timeunits
from arc.metrics.names import TIME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arc.metrics.decode.timeunits import Unit

SAMPLE_ROWS = 10_000
_MAX_CELLS = 2_000_000  # of a table that tables() yields
_MAX_ROWS = 100_000
_MAX_HEADER = 1 << 20  # characters
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f]")  # what no name of a column has, but the first line of Parquet does

_FLOAT = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(?i:nan|inf|infinity)"
# What a column may be, narrowest first: does a cell fit, and what becomes of it. {0} is the column.
_FITS = {
    "integer": "regexp_full_match(trim({0}), '[+-]?[0-9]+') AND try_cast({0} AS BIGINT) IS NOT NULL",
    "float": f"regexp_full_match(trim({{0}}), '{_FLOAT.replace('{', '{{')}') AND try_cast({{0}} AS DOUBLE) IS NOT NULL",
    "boolean": "lower(trim({0})) IN ('true', 'false', '1', '0')",
    "text": "true",
}
_VALUES = {
    "integer": "CAST({0} AS BIGINT)",
    "float": "CAST({0} AS DOUBLE)",
    "boolean": "lower(trim({0})) IN ('true', '1')",
    "text": "coalesce({0}, '')",
    "instant": "CAST({0} AS TIMESTAMPTZ)",
}
_INSTANT = r"regexp_matches(trim({0}), '^[0-9]{{4}}-') AND isfinite(try_cast({0} AS TIMESTAMPTZ))"
_KINDS = list(_FITS)


class CsvFile:
    """A CSV file with a header, read twice. Raises Invalid for a header that does not do, Unreadable for the rest.

    connection: a DuckDB instance of its own. time_column: its name in the header.
    unit: of times, which must be numbers then; None takes texts too, and the size of the first number tells its unit.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        path: Path,
        *,
        time_column: str = TIME,
        delimiter: str = ",",
        skip_rows: int = 0,
        unit: Unit | None = None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._delimiter = delimiter
        self._skip_rows = skip_rows
        self.names = _checked_header(self._header())
        self._time = _position(self.names, time_column)
        self.unit = unit
        self._columns = [f"c{number}" for number in range(len(self.names))]
        try:
            self._settle_types()
        except duckdb.Error as error:
            raise _unreadable(error) from None

    def tables(self) -> Iterator[pa.Table]:
        """The rows in order, `time` first: integers, floats or timestamps."""
        time = self._columns[self._time]
        order = sorted(self._columns, key=lambda column: (column != time, self._kinds[column] == "null"))
        typed = [column for column in order if self._kinds[column] != "null"]
        wanted = ", ".join(f"{_VALUES[self._kinds[column]].format(column)} AS {column}" for column in typed)
        rows = max(1, min(_MAX_ROWS, _MAX_CELLS // len(typed)))
        names = dict(zip(self._columns, self.names, strict=True)) | {time: TIME}
        try:
            reader = self._connection.execute(f"SELECT {wanted} FROM {self._source()}").to_arrow_reader(rows)  # noqa: S608
            for batch in reader:
                nulls = [pa.nulls(batch.num_rows)] * (len(order) - len(typed))
                yield pa.table(batch.columns + nulls, [names[column] for column in order])
        except duckdb.Error as error:
            raise _unreadable(error) from None

    def _settle_types(self) -> None:
        if not self._is_regular():
            self._rewrite()
            self._count()
        if not self.rows:
            raise Invalid("file contains no rows")
        self._kinds = self._guess()
        self._settle_time()
        while wrong := self._unfit():
            for column in wrong:
                self._kinds[column] = _KINDS[_KINDS.index(self._kinds[column]) + 1]

    def _is_regular(self) -> bool:
        """Whether DuckDB can read it: rows of equal length, lines that all end alike. No row at all means neither."""
        try:
            self._count()
        except duckdb.InvalidInputException:
            return False
        return bool(self.rows)

    def _count(self) -> None:
        [(self.rows, *self._filled)] = self._query(f"count(*), {', '.join(f'count({c})' for c in self._columns)}")

    def _rewrite(self) -> None:
        """Put a regular file in the place of an odd one: slower, but the reader is more patient and knows its line."""
        regular = self._path.with_name(f"{self._path.name}.regular")
        try:
            with self._text() as file, regular.open("w", encoding="utf-8", newline="") as out:
                reader = csv.reader(file, delimiter=self._delimiter, strict=True)
                writer = csv.writer(out, delimiter=self._delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
                writer.writerows(self._padded(row) for row in reader if row)
            regular.replace(self._path)
        except (csv.Error, Unreadable, UnicodeDecodeError) as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise Unreadable(f"line {self._skip_rows + reader.line_num}: {reason}") from None
        finally:
            regular.unlink(missing_ok=True)
        self._skip_rows = 0

    def _padded(self, row: list[str]) -> list[str]:
        width = len(self.names)
        if any(row[width:]):
            raise Unreadable(f"{len(row)} cells for {width} columns")
        return row[:width] + [""] * (width - len(row))

    def _guess(self) -> dict[str, str]:
        """The narrowest kind of each column that fits the first rows; null where all cells of the file are empty."""
        tests = [_all_fit(column, kind) for column in self._columns for kind in _KINDS]
        [sampled] = self._query(", ".join(tests), f"(FROM {self._source()} LIMIT {SAMPLE_ROWS})")
        kinds = {}
        for number, column in enumerate(self._columns):
            fitting = sampled[number * len(_KINDS) : (number + 1) * len(_KINDS)]
            kinds[column] = _KINDS[fitting.index(True)] if self._filled[number] else "null"
        return kinds

    def _settle_time(self) -> None:
        """Raises Unreadable for the first cell that is no time."""
        column = self._columns[self._time]
        if self.unit or self._kinds[column] in ("integer", "float"):
            [(is_integer,)] = self._query(_all_fit(column, "integer"))
            self._kinds[column] = "integer" if is_integer else "float"
            test = _FITS[self._kinds[column]]
        else:
            self._kinds[column], test = "instant", _INSTANT
        numbered = f"(SELECT row_number() OVER () AS n, {column} FROM {self._source()})"  # noqa: S608
        bad = self._query(f"n, {column}", f"{numbered} WHERE coalesce({test.format(column)}, false) = false LIMIT 1")
        if bad:
            [(number, cell)] = bad
            raise Unreadable(f"row {number}: {'no time' if cell is None else f'{cell[:60]!r} is no time'}")
        if self._kinds[column] != "instant":
            self._check_range(_VALUES[self._kinds[column]].format(column))

    def _check_range(self, time: str) -> None:
        [(first,)] = self._query(time, f"{self._source()} LIMIT 1")
        self.unit = self.unit or timeunits.unit_of(first)
        for extreme in self._query(f"min({time}), max({time})")[0]:
            try:
                timeunits.to_us(extreme, self.unit)
            except Invalid as error:
                raise Unreadable(str(error)) from None

    def _unfit(self) -> list[str]:
        """Columns that turn out to be wider than the first rows showed."""
        tested = [column for column in self._columns if self._kinds[column] in ("integer", "float", "boolean")]
        if not tested:
            return []
        [fits] = self._query(", ".join(_all_fit(column, self._kinds[column]) for column in tested))
        return [column for column, fit in zip(tested, fits, strict=True) if not fit]

    def _query(self, what: str, source: str = "") -> list[tuple[Any, ...]]:
        return self._connection.execute(f"SELECT {what} FROM {source or self._source()}").fetchall()  # noqa: S608

    def _source(self) -> str:
        columns = ", ".join(f"{column}: 'VARCHAR'" for column in self._columns)
        return (
            f"read_csv({_literal(str(self._path))}, auto_detect = false, header = true, skip = {self._skip_rows}, "
            f"delim = {_literal(self._delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}})"
        )

    def _header(self) -> list[str]:
        try:
            with self._text("replace") as file:  # the rest of the file is looked at later
                header = next(csv.reader(io.StringIO(file.read(_MAX_HEADER)), delimiter=self._delimiter), [])
        except csv.Error as error:
            raise Unreadable(f"header: {error}") from None
        if _BINARY.search("".join(header)):
            raise Unreadable("the file is binary, not CSV")
        return header

    def _text(self, errors: str = "strict") -> TextIO:
        """The file from its header on, without a byte order mark."""
        file = self._path.open(encoding="utf-8-sig", errors=errors, newline="")
        for _ in range(self._skip_rows):
            file.readline()
        return file


def _checked_header(header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    if not names:
        raise Invalid("file contains no rows")
    for number, name in enumerate(names):
        if not name:
            raise Invalid(f"column {number + 1} of the header has no name")
        if name.casefold() in {other.casefold() for other in names[:number]}:
            raise Invalid(f'column "{name}" is in the header twice')
    return names


def _position(names: list[str], time_column: str) -> int:
    found = [number for number, name in enumerate(names) if name.casefold() == time_column.casefold()]
    if not found:
        raise Invalid(f'time column "{time_column}" not found; columns are: {", ".join(names)}')
    return found[0]


def _all_fit(column: str, kind: str) -> str:
    return f"coalesce(bool_and({_FITS[kind].format(column)}) FILTER ({column} IS NOT NULL), true)"


def _unreadable(error: duckdb.Error) -> Unreadable:
    """The first lines say what and where; then come hints about DuckDB's own options."""
    lines = str(error).removeprefix("Invalid Input Error: ").splitlines()
    end = next((number for number, line in enumerate(lines) if line.startswith("Possible")), len(lines))
    return Unreadable(" ".join(line.strip() for line in lines[:end] if line.strip())[:500])


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
