"""Many plain lines of line protocol at once: one numpy or Arrow call per column instead of one parse per line.

    separators found -> lines that may be of one shape (all; where shapes are many, those whose keys hash alike)
                     -> compared with the first of them: what stands between the values, byte by byte
                     -> values cut out of the body, those of a kind in one go, and converted

A line is plain when it has no quote left open and is written like the first of its group: same measurement, same keys
without escapes, same kinds of values, nothing left out. All others stay with linegrammar, which also reads the first
line of each group, so that both ways agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arc.errors import Invalid
from arc.metrics.decode.batch import Batch, time_array
from arc.metrics.decode.linegrammar import BOOLEANS, ESCAPED
from arc.metrics.decode.linetext import BACKSLASH, NEWLINE, QUOTE, are_escaped, unescaped_quotes
from arc.metrics.decode.timeunits import column_to_us
from arc.metrics.names import TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arc.metrics.decode.linegrammar import LineParser, Point
    from arc.metrics.decode.linetext import LineText, Mask, Positions
    from arc.metrics.decode.timeunits import Unit

    Array = np.ndarray[Any, Any]

MAX_UNSORTED_GROUPS = 8
MAX_HALVINGS = 4  # of lines among which one spoils the others
MIN_GROUP = 64  # lines; about where the calls for a group cost as much as parsing its lines
_SCANNED = 1 << 17  # bytes at a time: what the processor keeps at hand, and what needs no fresh memory
_COMMA, _EQUALS, _SPACE = b",= "
_FLOAT, _INTEGER, _UNSIGNED, _TEXT, _BOOLEAN, _TAG, _TIME = range(1, 8)
_KIND_BY_LAST_BYTE = np.zeros(256, np.uint8)
for _bytes, _kind in (
    (b".0123456789", _FLOAT),
    (b"i", _INTEGER),
    (b"u", _UNSIGNED),
    (b'"', _TEXT),
    (b"tTfFeE", _BOOLEAN),
):
    _KIND_BY_LAST_BYTE[list(_bytes)] = _kind
_TRUE = pa.array([word for word, value in BOOLEANS.items() if value])
_FALSE = pa.array([word for word, value in BOOLEANS.items() if not value])
_LOW_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
# Not by numpy.random, whose modules nothing else needs.
_WEIGHTS = np.array([Random(number).getrandbits(64) | 1 for number in range(64)], np.uint64)  # noqa: S311 - for hashing


class _NotPlain(Exception):
    """Lines that have to be parsed one by one."""


_UNREADABLE = (_NotPlain, Invalid, pa.ArrowInvalid)  # not this way


@dataclass(slots=True)
class Group:
    """Lines of one measurement.

    lines: their indexes in the text, ascending. batch: None when a column of it would need two types.
    """

    measurement: str
    lines: Positions
    batch: Batch | None


def read_groups(text: LineText, parser: LineParser, unit: Unit, received_us: int) -> tuple[list[Group], Positions]:
    """Plain lines as columns, and the indexes of all other lines."""
    if len(text.starts) < MIN_GROUP:
        return [], np.arange(len(text.starts))
    reader = _Reader(text, parser, unit, received_us)
    reader.read()
    return reader.groups, np.flatnonzero(reader.is_left)


class _Reader:
    """Separators: those outside of quotes, line by line, each line's last being its end.

    _at: their places in the body. _kind: which they are. _first, _count: index of each line's first, and how many.
    """

    def __init__(self, text: LineText, parser: LineParser, unit: Unit, received_us: int) -> None:
        self.groups: list[Group] = []
        self.is_left = np.ones(len(text.starts), bool)
        self._text = text
        self._parser = parser
        self._unit = unit
        self._received_us = received_us
        self._chars = np.frombuffer(text.body, np.uint8)
        self._words = np.ndarray((len(text.body) - 7,), "<u8", text.body, 0, (1,))  # the eight bytes at each place
        self._is_odd = np.zeros(len(text.starts), bool)  # those with a quote left open
        self._at = self._separators()
        kinds = self._chars.take(self._at).tobytes().replace(b"\r", b"\n")
        self._kind = np.frombuffer(kinds, np.uint8)
        newlines = np.flatnonzero(self._kind == NEWLINE)
        self._first = np.concatenate(([0], newlines[:-1] + 1))
        self._count = newlines - self._first + 1

    def _separators(self) -> Positions:
        """Finds the odd lines on the way."""
        chars, text = self._chars, self._text
        is_separator = np.empty(len(chars), bool)
        for begin in range(0, len(chars), _SCANNED):
            part = chars[begin : begin + _SCANNED]
            found = part == _COMMA
            found |= part == _EQUALS
            found |= part == _SPACE
            is_separator[begin : begin + _SCANNED] = found
        if BACKSLASH in text.body:
            separators = np.flatnonzero(is_separator)
            is_separator[separators[are_escaped(text.body, separators)]] = False
        is_separator[text.ends] = True
        separators = np.flatnonzero(is_separator)
        return separators[~self._are_quoted(separators)] if QUOTE in text.body else separators

    def _are_quoted(self, separators: Positions) -> Mask:
        quotes = unescaped_quotes(self._text.body)
        lines = np.searchsorted(self._text.ends, quotes)
        self._is_odd |= (np.bincount(lines, minlength=len(self._is_odd)) & 1).astype(bool)
        quotes, lines = (array[~self._is_odd[lines]] for array in (quotes, lines))
        opening = quotes[::2]  # and a closing one behind each
        # Of a quote inside a word the grammar knows whether it hides separators.
        self._is_odd[lines[::2][self._chars[opening - 1] != _EQUALS]] = True
        inside = np.searchsorted(separators, quotes).reshape(-1, 2)
        inside = inside[inside[:, 0] < inside[:, 1]]
        depth = np.zeros(len(separators) + 1, np.int8)
        depth[inside[:, 0]] += 1
        depth[inside[:, 1]] -= 1
        are_quoted: Mask = np.cumsum(depth[:-1], dtype=np.int8) > 0
        return are_quoted

    def read(self) -> None:
        """Fills groups and clears is_left where a line went into one."""
        lines = np.flatnonzero(~self._is_odd)
        try:  # most bodies have few shapes; then there is no need to sort
            for _ in range(MAX_UNSORTED_GROUPS):
                lines = self._add_group(lines)
        except _UNREADABLE:
            pass
        if len(lines) >= MIN_GROUP:
            for candidates in self._by_hash(lines):
                self._read(candidates, MAX_HALVINGS)

    def _read(self, lines: Positions, halvings: int) -> None:
        """Adds groups for as many of the lines as possible."""
        while len(lines) >= MIN_GROUP:
            try:
                lines = self._add_group(lines)
            except _UNREADABLE:  # one of them is the reason, hardly all; the better half may do without it
                if halvings:
                    self._read(lines[: len(lines) // 2], halvings - 1)
                    self._read(lines[len(lines) // 2 :], halvings - 1)
                return

    def _add_group(self, lines: Positions) -> Positions:
        """A group of the lines that are written like the first; returns the others."""
        group = self._group(lines)
        self.groups.append(group)
        self.is_left[group.lines] = False
        return lines[self.is_left[lines]]

    def _by_hash(self, lines: Positions) -> Iterator[Positions]:
        """Lines that seem to be of one shape, enough of them for a group."""
        lines, hashes = self._line_hashes(lines)
        order = np.argsort(hashes, kind="stable")
        changes = np.flatnonzero(np.diff(hashes[order])) + 1
        bounds = np.concatenate(([0], changes, [len(order)]))
        for run in np.flatnonzero(np.diff(bounds) >= MIN_GROUP):
            yield lines[order[bounds[run] : bounds[run + 1]]]

    def _line_hashes(self, lines: Positions) -> tuple[Positions, Array]:
        """Those of the lines that have keys, and for each a hash of its measurement, its keys and where they stand."""
        is_wanted = np.zeros(len(self._first), bool)
        is_wanted[lines] = True
        equals = np.flatnonzero(np.repeat(is_wanted, self._count) & (self._kind == _EQUALS))
        lines = np.searchsorted(self._first, equals, "right") - 1
        places = equals - self._first[lines]
        if not places.all():  # no good line begins with a key
            equals, lines, places = equals[places > 0], lines[places > 0], places[places > 0]
        hashes = self._token_hashes(self._at[equals - 1] + 1, self._at[equals])
        hashes += self._kind[equals - 1]
        hashes *= _WEIGHTS[places & 63]
        begins = np.flatnonzero(np.diff(lines, prepend=-1))
        lines = lines[begins]
        if not len(lines):
            return lines, lines
        hashes = np.add.reduceat(hashes, begins)
        hashes += self._token_hashes(self._text.starts[lines], self._at[self._first[lines]])
        hashes += self._count[lines].astype(np.uint64) * _WEIGHTS[0]
        return lines, hashes

    def _token_hashes(self, starts: Positions, ends: Positions) -> Array:
        """Of the length, the first eight and the last eight bytes: enough to tell most keys apart."""
        lengths = ends - starts
        hashes: Array = self._words[starts] & _LOW_BYTES[np.minimum(lengths, 8)]
        if lengths.max(initial=0) > 8:
            tails = self._words[ends - 8] * _WEIGHTS[1]
            tails[lengths <= 8] = 0
            hashes ^= tails
        hashes += lengths.astype(np.uint64) * _WEIGHTS[2]
        return hashes

    def _group(self, lines: Positions) -> Group:
        """Raises _NotPlain where the first line, or nearly every line, has to be parsed by itself."""
        shape = self._first_shape(lines)
        lines = lines[self._count[lines] == shape.separators]
        bounds = self._bounds(lines, shape)
        gaps = shape.gaps()
        lines, bounds = _kept(lines, bounds, _have_lengths(bounds, gaps, shape.kinds))
        pieces = _Pieces(self._text.body, bounds)
        fits = pieces.have_gaps(gaps)
        fits &= self._have_kinds(bounds, shape)
        if not fits.all():
            lines, bounds = _kept(lines, bounds, fits)
            pieces = _Pieces(self._text.body, bounds)
        point = shape.point
        tags = tuple(column for _, column in point.names.tags)
        return Group(point.measurement, lines, Batch(point.measurement, self._columns(shape, pieces), len(lines), tags))

    def _first_shape(self, lines: Positions) -> _Shape:
        point = self._parser.parse(self._text.line(lines[0])) if len(lines) else None
        if point is None:
            raise _NotPlain
        first, count = int(self._first[lines[0]]), int(self._count[lines[0]])
        tags, keys = len(point.tags), len(point.tags) + len(point.fields)
        if count - 2 * keys not in (1, 2):  # more or fewer than there would be if it were plain
            raise _NotPlain
        ends = self._at[first + 2 * tags + 2 : first + 2 * keys + 1 : 2]
        kinds = _KIND_BY_LAST_BYTE[self._chars[ends - 1]].tolist()
        if not all(kinds):
            raise _NotPlain
        return _Shape(point, [*[_TAG] * tags, *kinds, *[_TIME] * (count - 2 * keys - 1)])

    def _bounds(self, lines: Positions, shape: _Shape) -> Array:
        """Where each line begins, where each of its values begins and ends, and where the line ends: a row for each."""
        separators, shifts = shape.bounds()
        bounds: Array = self._at.take(self._first[lines] + separators[:, None])  # indexing would be slower
        bounds += shifts[:, None]
        bounds[0] = self._text.starts[lines]
        return bounds

    def _have_kinds(self, bounds: Array, shape: _Shape) -> Mask:
        """Which lines have fields that seem to be of the shape's kinds, as far as the gaps do not tell."""
        fits: Mask = np.ones(bounds.shape[1], bool)
        for kind, ends in zip(shape.kinds, bounds[2::2], strict=False):
            if kind == _TEXT:
                fits &= self._chars[ends - 1] != BACKSLASH
            elif kind in (_FLOAT, _BOOLEAN):
                fits &= _KIND_BY_LAST_BYTE[self._chars[ends - 1]] == kind
        return fits

    def _columns(self, shape: _Shape, pieces: _Pieces) -> dict[str, pa.Array]:
        point, values = shape.point, pieces.values(shape.kinds)
        tags = dict(zip(point.tags, values, strict=False))
        fields = dict(zip(point.fields, values[len(tags) :], strict=False))
        if shape.has_time:
            times = column_to_us(values[-1].to_numpy(), self._unit)
        else:
            times = np.full(pieces.lines, self._received_us, np.int64)
        return {
            TIME: time_array(times),
            **{column: tags[key] for key, column in point.names.tags},
            **{column: fields[key] for key, column in point.names.fields},
        }


@dataclass(slots=True)
class _Shape:
    """How lines of a group are written: values, and between them gaps that are the same in all of the lines.

    point: the first line's. kinds: of the values, the timestamp among them if there is one.
    """

    point: Point
    kinds: list[int]

    @property
    def has_time(self) -> bool:
        return self.kinds[-1] == _TIME

    @property
    def separators(self) -> int:
        return 2 * len(self.kinds) + (not self.has_time)

    def gaps(self) -> list[bytes]:
        """What stands before each value and, at last, behind the last of them."""
        tags = [f",{key}=" for key in self.point.tags]
        fields = [f",{key}=" for key in self.point.fields]
        heads = [*tags, " " + fields[0][1:], *fields[1:], *[" "] * self.has_time, ""]
        heads[0] = self.point.measurement + heads[0]
        before = [*(_KINDS[kind].before for kind in self.kinds), ""]
        behind = ["", *(_KINDS[kind].behind for kind in self.kinds)]
        return ["".join(parts).encode() for parts in zip(behind, heads, before, strict=True)]

    def bounds(self) -> tuple[Positions, Positions]:
        """For each row of _Reader._bounds the number of a separator, and how far from it the bound is."""
        last = self.separators - 1
        numbers = [0, *range(1, last + 1 - self.has_time), *[last - 1, last] * self.has_time, last]
        shifts = [(1 + len(_KINDS[kind].before), -len(_KINDS[kind].behind)) for kind in self.kinds]
        return np.array(numbers), np.array([0, *chain.from_iterable(shifts), 0])


class _Pieces:
    """Lines of one shape cut up: gaps and values by turns, a gap first and last."""

    def __init__(self, body: bytes, bounds: Array) -> None:
        offsets = np.ascontiguousarray(bounds.T, np.int32)
        self.lines = len(offsets)
        self._first = np.arange(0, offsets.size, len(bounds))  # of each line
        self._pieces = pa.Array.from_buffers(  # beside those also what lies between two lines
            pa.string(), offsets.size - 1, [None, pa.py_buffer(offsets), pa.py_buffer(body)]
        )

    def have_gaps(self, gaps: list[bytes]) -> Mask:
        """Which lines have these gaps. All gaps have the right length already."""
        numbers = self._first[:, None] + np.arange(0, 2 * len(gaps), 2)
        found, expected = _content(self._pieces.take(pa.array(numbers.ravel()))), b"".join(gaps)
        if found == expected * self.lines:
            return np.ones(self.lines, bool)
        same = np.frombuffer(found, np.uint8).reshape(self.lines, -1) == np.frombuffer(expected, np.uint8)
        are_same: Mask = same.all(axis=1)
        return are_same

    def values(self, kinds: list[int]) -> list[pa.Array]:
        """Those of each kind are converted together, as a call takes about as long as a hundred values."""
        values: list[pa.Array] = [None] * len(kinds)
        for read in {_KINDS[kind].read for kind in kinds}:
            numbers = [number for number, kind in enumerate(kinds) if _KINDS[kind].read is read]
            indexes = self._first + (2 * np.array(numbers) + 1)[:, None]
            together = read(self._pieces.take(pa.array(indexes.ravel())))
            for index, number in enumerate(numbers):
                values[number] = together.slice(index * self.lines, self.lines)
        return values


def _texts(texts: pa.Array) -> pa.Array:
    if BACKSLASH in _content(texts):
        return pc.replace_substring_regex(texts, pattern=ESCAPED.pattern, replacement=r"\1")
    return texts


def _booleans(texts: pa.Array) -> pa.Array:
    words = pc.ascii_lower(texts)
    is_true = pc.is_in(words, value_set=_TRUE)
    if not pc.all(pc.xor(is_true, pc.is_in(words, value_set=_FALSE))).as_py():
        raise _NotPlain
    return is_true


def _floats(texts: pa.Array) -> pa.Array:
    return _numbers(texts, b"+-.0123456789eE", pa.float64())


def _integers(texts: pa.Array) -> pa.Array:
    return _numbers(texts, b"-0123456789", pa.int64())


def _unsigned(texts: pa.Array) -> pa.Array:
    return _numbers(texts, b"0123456789", pa.int64())


def _numbers(texts: pa.Array, allowed: bytes, kind: pa.DataType) -> pa.Array:
    """Arrow reads a few spellings that are no numbers here (0x1f, nan(1)); hence the look at the bytes."""
    if _content(texts).translate(None, allowed):
        raise _NotPlain
    return texts.cast(kind)


def _content(texts: pa.Array) -> bytes:
    """All of them. They must not be a slice."""
    data: bytes = texts.buffers()[2].to_pybytes()
    return data


class _Kind(NamedTuple):
    """before, behind: what belongs to the value and is the same for all of this kind."""

    read: Callable[[pa.Array], pa.Array]
    before: str = ""
    behind: str = ""


_KINDS = {
    _FLOAT: _Kind(_floats),
    _INTEGER: _Kind(_integers, behind="i"),
    _UNSIGNED: _Kind(_unsigned, behind="u"),
    _TEXT: _Kind(_texts, '"', '"'),
    _BOOLEAN: _Kind(_booleans),
    _TAG: _Kind(_texts),
    _TIME: _Kind(_integers),
}


def _have_lengths(bounds: Array, gaps: list[bytes], kinds: list[int]) -> Mask:
    """Which lines have gaps as long as these, and values where there must be some."""
    lengths = np.diff(bounds, axis=0)
    expected = np.array([len(gap) for gap in gaps])
    shortest = np.array([kind != _TEXT for kind in kinds], np.int64)
    fits: Mask = (lengths[::2] == expected[:, None]).all(axis=0)
    fits &= (lengths[1::2] >= shortest[:, None]).all(axis=0)
    return fits


def _kept(lines: Positions, bounds: Array, fits: Mask) -> tuple[Positions, Array]:
    """The lines that fit, if the first does and they are enough."""
    if not fits[0] or np.count_nonzero(fits) < MIN_GROUP:
        raise _NotPlain
    return lines[fits], bounds[:, fits]
