"""Line protocol bodies into columns, good lines in spite of bad ones; spec metrics 2.6.2.

decode_lines -> linetext: where the lines are
             -> linecolumns: many plain lines of one shape at once
             -> linegrammar: every other line
             -> one type per column; what does not fit it is rejected like a line that cannot be read
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from arc.errors import Invalid
from arc.metrics.decode import linecolumns, timeunits
from arc.metrics.decode.batch import Batch, time_array
from arc.metrics.decode.columns import KINDS, BadValue, FoldedLists, arrow_column, can_mix
from arc.metrics.decode.linecolumns import Group
from arc.metrics.decode.linegrammar import BadLine, LineParser
from arc.metrics.decode.linetext import PAD, WHITE, find_lines
from arc.metrics.names import TIME, check_measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc.metrics.decode.linegrammar import Point
    from arc.metrics.decode.linetext import Positions
    from arc.metrics.decode.timeunits import Unit

    Numbered = tuple[int, Point]  # index of the line in the text

MAX_SHOWN = 200  # characters of a rejected line
MAX_REPORTED = 100  # rejected lines that an error lists
PRECISIONS = {
    **dict.fromkeys(("", "ns", "n", "nanosecond"), timeunits.NANOSECOND),
    **dict.fromkeys(("us", "u", "µ", "µs", "microsecond"), timeunits.MICROSECOND),
    **dict.fromkeys(("ms", "millisecond"), timeunits.MILLISECOND),
    **dict.fromkeys(("s", "second"), timeunits.SECOND),
    **dict.fromkeys(("m", "minute"), timeunits.MINUTE),
    **dict.fromkeys(("h", "hour"), timeunits.HOUR),
}
_PRECISION_NAMES = ", ".join(filter(None, PRECISIONS))


_NUMBER_TYPES = {pa.int64(), pa.float64()}
_KINDS_OF_TYPES = {pa.bool_(): "boolean", pa.int64(): "integer", pa.float64(): "float", pa.string(): "text"}

KnownKinds = Callable[[str], Mapping[str, str]]  # of a measurement: its columns, case folded, and what they hold


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is not stored. line_number: from 1. text: its beginning."""

    line_number: int
    text: str
    reason: str


class LinesRejected(Invalid):
    """Lines of a body are not stored."""

    def __init__(self, text: str, rejected: list[Rejected]) -> None:
        if rejected:  # Telegraf knows by these words that sending the line again is of no use
            text += f": unable to parse '{rejected[0].text}': {rejected[0].reason}"
            text += f" dropped={len(rejected)}"
        super().__init__(text)
        shown = sorted(rejected, key=lambda line: line.line_number)[:MAX_REPORTED]
        self.details = {"dropped": len(rejected), "errors": [asdict(line) for line in shown]}


@dataclass(frozen=True, slots=True)
class Lines:
    """What a body held. lines: how many, good and bad, without blank lines and comments."""

    batches: list[Batch]
    rejected: list[Rejected]
    lines: int


def decode_lines(body: bytes, precision: str, received_us: int, known: KnownKinds = lambda _: {}) -> Lines:
    """Rows of one inflated body; possibly none.

    precision: of the timestamps, in one of the spellings of InfluxDB's clients; "" is ns.
    received_us: time of lines without a usable timestamp.
    known: what is stored already; lines that do not go with it are rejected.
    Raises Invalid for an empty body, an unknown precision and a measurement that may not be called so.
    """
    unit = PRECISIONS.get(precision)
    if unit is None:
        raise Invalid(f'invalid precision "{precision[:40]}": must be one of {_PRECISION_NAMES}')
    if not body:
        raise Invalid("Empty request body")
    return _Decoder(body, unit, received_us, known).lines()


def without_lines(body: bytes, rejected: Iterable[Rejected]) -> bytes:
    """The body with these lines emptied, so that the others keep their numbers."""
    text = find_lines(body)
    numbers = [line.line_number for line in rejected]
    pieces, done = [], len(PAD)
    for index in np.flatnonzero(np.isin(text.numbers, numbers)).tolist():
        start, end = int(text.starts[index]), int(text.ends[index])
        pieces += [text.body[done:start], b"\n" * text.body.count(b"\n", start, end)]
        done = end
    return b"".join([*pieces, text.body[done : -len(PAD)]])


class _Decoder:
    def __init__(self, body: bytes, unit: Unit, received_us: int, known: KnownKinds) -> None:
        self._known = known
        self._text = find_lines(body)
        self._parser = LineParser(unit, received_us)
        self._unit = unit
        self._received_us = received_us
        self._rejected: list[Rejected] = []

    def lines(self) -> Lines:
        batches: list[Batch] = []
        for measurement, groups in self._groups().items():
            check_measurement(measurement)
            batches += self._batches(groups, self._known(measurement))
        self._rejected.sort(key=lambda line: line.line_number)
        return Lines(batches, self._rejected, sum(batch.rows for batch in batches) + len(self._rejected))

    def _groups(self) -> dict[str, list[Group]]:
        """By measurement."""
        groups: dict[str, list[Group]] = defaultdict(list)
        for first, block in self._text.blocks():
            together, rest = linecolumns.read_groups(block, self._parser, self._unit, self._received_us)
            for group in together:
                group.lines += first
                groups[group.measurement].append(group)
            for group in _groups_of_points(self._points(rest + first)):
                groups[group.measurement].append(group)
        return groups

    def _points(self, lines: Positions) -> Iterator[Numbered]:
        """The lines one by one, without those that cannot be read."""
        for index in lines.tolist():
            try:
                point = self._parser.parse(self._text.line(index))
            except BadLine as error:
                self._reject(index, str(error))
            else:
                if point is not None:
                    yield index, point

    def _batches(self, groups: list[Group], known: Mapping[str, str]) -> list[Batch]:
        """Of one measurement, in the order of lines, with one type per column."""
        batches = _united(groups)
        if batches is None or not all(
            _fits(batch, known) for batch in batches
        ):  # line by line it shows which come too late
            points = self._points(np.sort(np.concatenate([group.lines for group in groups])))
            batches = _united(_groups_of_points(self._of_one_kind(points, known)))
        return batches or []

    def _of_one_kind(self, points: Iterator[Numbered], known: Mapping[str, str]) -> Iterator[Numbered]:
        """Rejects each that does not go with what is known and those before it."""
        kinds = dict(known)
        for index, point in points:
            found = {name: KINDS[type(value)] for name, value in point.columns().items()}
            for name, kind in found.items():
                first = kinds.get(name.casefold(), kind)
                if not can_mix(first, kind):
                    self._reject(index, f'column "{name}": cannot mix {first} and {kind}')
                    break
            else:
                yield index, point
                kinds = {**{name.casefold(): kind for name, kind in found.items()}, **kinds}

    def _reject(self, index: int, reason: str) -> None:
        text = self._text.line(index).strip(WHITE)[:MAX_SHOWN]
        self._rejected.append(Rejected(int(self._text.numbers[index]), text, reason))


def _fits(batch: Batch, known: Mapping[str, str]) -> bool:
    """Whether the columns of a batch can be stored beside what is there."""
    for name, column in batch.columns.items():
        kind = known.get(name.casefold())
        if kind is not None and not can_mix(kind, _KINDS_OF_TYPES[column.type]):
            return False
    return True


def _united(groups: list[Group]) -> list[Batch] | None:
    """Batches with one type per column; None where a column would need two."""
    batches = [group.batch for group in sorted(groups, key=lambda group: group.lines[0]) if group.batch]
    types: dict[str, set[pa.DataType]] = defaultdict(set)
    for batch in batches:
        for name, column in batch.columns.items():
            types[name.casefold()].add(column.type)
    mixed = {name for name, found in types.items() if len(found) > 1}
    if len(batches) < len(groups) or any(types[name] != _NUMBER_TYPES for name in mixed):
        return None
    for batch in batches:
        for name in batch.columns:
            if name.casefold() in mixed:
                batch.columns[name] = batch.columns[name].cast(pa.float64(), safe=False)
    return batches


def _groups_of_points(points: Iterator[Numbered]) -> list[Group]:
    """One per measurement."""
    measurements: dict[str, list[Numbered]] = defaultdict(list)
    for index, point in points:
        measurements[point.measurement].append((index, point))
    groups = []
    for measurement, numbered in measurements.items():
        lines = np.array([index for index, _ in numbered])
        try:
            groups.append(Group(measurement, lines, _batch_of_points([point for _, point in numbered])))
        except BadValue:
            groups.append(Group(measurement, lines, None))
    return groups


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
