"""Line protocol bodies into columns, good lines in spite of bad ones; spec metrics 2.6.2.

decode_lines -> linetext: where the lines are
             -> linecolumns: many plain lines of one shape at once
             -> linegrammar: every other line
             -> one type per column; what does not fit it is rejected like a line that cannot be read
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from arc.errors import Invalid
from arc.metrics import linecolumns, timeunits
from arc.metrics.batch import Batch, time_array
from arc.metrics.columns import KINDS, FoldedLists, arrow_column, can_mix
from arc.metrics.linegrammar import BadLine, LineParser
from arc.metrics.linetext import WHITE, find_lines
from arc.metrics.names import TIME, check_measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc.metrics.linecolumns import Group
    from arc.metrics.linegrammar import Point
    from arc.metrics.linetext import Positions
    from arc.metrics.timeunits import Unit

    Numbered = tuple[int, Point]  # index of the line in the text

MAX_SHOWN = 200  # characters of a rejected line
PRECISIONS = {
    **dict.fromkeys(("", "ns", "n", "nanosecond"), timeunits.NANOSECOND),
    **dict.fromkeys(("us", "u", "µ", "µs", "microsecond"), timeunits.MICROSECOND),
    **dict.fromkeys(("ms", "millisecond"), timeunits.MILLISECOND),
    **dict.fromkeys(("s", "second"), timeunits.SECOND),
    **dict.fromkeys(("m", "minute"), timeunits.MINUTE),
    **dict.fromkeys(("h", "hour"), timeunits.HOUR),
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is not stored. line_number: from 1. text: its beginning."""

    line_number: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lines:
    """What a body held. lines: how many, good and bad, without blank lines and comments."""

    batches: list[Batch]
    rejected: list[Rejected]
    lines: int


def decode_lines(body: bytes, precision: str, received_us: int) -> Lines:
    """Rows of one inflated body; possibly none.

    precision: of the timestamps, in one of the spellings of InfluxDB's clients; "" is ns.
    received_us: time of lines without a usable timestamp.
    Raises Invalid for an empty body, an unknown precision and a measurement that may not be called so.
    """
    unit = PRECISIONS.get(precision)
    if unit is None:
        raise Invalid(f'invalid precision "{precision[:40]}": must be ns, us, ms, or s')
    if not body:
        raise Invalid("Empty request body")
    return _Decoder(body, unit, received_us).lines()


@dataclass(slots=True)
class _Rows:
    """Of one measurement: lines read together and lines read one by one."""

    groups: list[Group] = field(default_factory=list)
    points: list[Numbered] = field(default_factory=list)


class _Decoder:
    def __init__(self, body: bytes, unit: Unit, received_us: int) -> None:
        self._text = find_lines(body)
        self._parser = LineParser(unit, received_us)
        self._groups, self._rest = linecolumns.read_groups(self._text, self._parser, unit, received_us)
        self._rejected: list[Rejected] = []

    def lines(self) -> Lines:
        measurements: dict[str, _Rows] = defaultdict(_Rows)
        for group in self._groups:
            measurements[group.batch.measurement].groups.append(group)
        for index, point in self._points(self._rest):
            measurements[point.measurement].points.append((index, point))
        batches: list[Batch] = []
        for measurement, rows in measurements.items():
            check_measurement(measurement)
            batches += self._batches(rows)
        self._rejected.sort(key=lambda line: line.line_number)
        return Lines(batches, self._rejected, sum(batch.rows for batch in batches) + len(self._rejected))

    def _points(self, indexes: Positions) -> Iterator[Numbered]:
        """The lines one by one, without those that cannot be read."""
        for index in indexes.tolist():
            try:
                point = self._parser.parse(self._text.line(index))
            except BadLine as error:
                self._reject(index, str(error))
            else:
                if point is not None:
                    yield index, point

    def _batches(self, rows: _Rows) -> list[Batch]:
        """In the order of their first lines, with one type per column."""
        try:
            return _united(rows)
        except Invalid:  # kinds that do not go together: line by line it shows which come too late
            together = (point for group in rows.groups for point in self._points(group.lines))
            points = sorted([*together, *rows.points], key=lambda numbered: numbered[0])
            return _united(_Rows(points=self._of_one_kind(points)))

    def _of_one_kind(self, points: list[Numbered]) -> list[Numbered]:
        """Rejects, in the order of lines, each that does not go with those before it."""
        kinds: dict[str, str] = {}
        good = []
        for index, point in points:
            found = {name: KINDS[type(value)] for name, value in point.columns().items()}
            for name, kind in found.items():
                known = kinds.get(name.casefold(), kind)
                if not can_mix(known, kind):
                    self._reject(index, f'column "{name}": cannot mix {known} and {kind}')
                    break
            else:
                good.append((index, point))
                kinds = {**{name.casefold(): kind for name, kind in found.items()}, **kinds}
        return good

    def _reject(self, index: int, reason: str) -> None:
        text = self._text.line(index).strip(WHITE)[:MAX_SHOWN]
        self._rejected.append(Rejected(int(self._text.numbers[index]), text, reason))


def _united(rows: _Rows) -> list[Batch]:
    """Batches with one type per column. Raises Invalid where a column would need two."""
    firsts = [(int(group.lines[0]), group.batch) for group in rows.groups]
    if rows.points:
        firsts.append((rows.points[0][0], _batch_of_points([point for _, point in rows.points])))
    batches = [batch for _, batch in sorted(firsts, key=lambda first: first[0])]
    types: dict[str, set[pa.DataType]] = defaultdict(set)
    for batch in batches:
        for name, column in batch.columns.items():
            types[name.casefold()].add(column.type)
    for batch in batches:
        for name, column in batch.columns.items():
            if len(types[name.casefold()]) > 1:
                batch.columns[name] = _as_float(column)
    return batches


def _as_float(column: pa.Array) -> pa.Array:
    """The type that integers and floats have in common. Raises Invalid for anything else."""
    if column.type not in (pa.int64(), pa.float64()):
        raise Invalid(f"no common type for {column.type} and others")
    return column.cast(pa.float64(), safe=False)


def _batch_of_points(points: list[Point]) -> Batch:
    """Points of one measurement; what a line lacks is null. Raises BadValue for a column of mixed kinds."""
    shapes: dict[int, list[int]] = defaultdict(list)
    for position, point in enumerate(points):
        shapes[id(point.names)].append(position)
    lists = FoldedLists(len(points))
    tags: dict[str, None] = {}
    for positions in shapes.values():
        rows = [points[position] for position in positions]
        for key, name in rows[0].names.tags:
            tags[lists.add(name, [row.tags[key] for row in rows], positions)] = None
        for key, name in rows[0].names.fields:
            lists.add(name, [row.fields[key] for row in rows], positions)
    times = np.array([point.time_us for point in points], np.int64)
    columns = {name: arrow_column(name, values) for name, values in lists.columns.values()}
    return Batch(points[0].measurement, {TIME: time_array(times), **columns}, len(points), tuple(tags))
