"""Many plain lines of line protocol at once: one numpy or Arrow call per column instead of one parse per line.

    separators found -> lines hashed by their keys -> groups compared with their first line, byte by byte
                     -> columns cut out of the body and converted

A line is plain when it has no quote left open and is written like the first of its group: same measurement, same keys
without escapes, same kinds of values, nothing left out. All others stay with linegrammar, which also reads the first
line of each group, so that both ways agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

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
    from collections.abc import Iterator

    from arc.metrics.decode.linegrammar import LineParser, Point
    from arc.metrics.decode.linetext import LineText, Mask, Positions
    from arc.metrics.decode.timeunits import Unit

    Array = np.ndarray[Any, Any]
    Token = tuple[Positions, Positions]  # where one token starts and ends in each line of a group

MAX_UNSORTED_GROUPS = 8
MAX_HALVINGS = 4  # of lines among which one spoils the others
MIN_GROUP = 64  # lines; about where the calls for a group cost as much as parsing its lines
_COMMA, _EQUALS, _SPACE = b",= "
_INTEGER_BYTES, _FLOAT_BYTES = b"-0123456789", b"+-.0123456789eE"
_FLOAT, _INTEGER, _UNSIGNED, _TEXT, _BOOLEAN = range(1, 6)
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
        self._words = _words(text.body)
        self._is_odd = np.zeros(len(text.starts), bool)  # those with a quote left open
        self._at = self._separators()
        kinds = self._chars[self._at].tobytes().replace(b"\r", b"\n")
        self._kind = np.frombuffer(kinds, np.uint8)
        self._kind_words = _words(kinds + bytes(8))
        newlines = np.flatnonzero(self._kind == NEWLINE)
        self._first = np.concatenate(([0], newlines[:-1] + 1))
        self._count = newlines - self._first + 1

    def _separators(self) -> Positions:
        """Finds the odd lines on the way."""
        chars, text = self._chars, self._text
        is_separator = chars == _COMMA
        is_separator |= chars == _EQUALS
        is_separator |= chars == _SPACE
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
        quotes = quotes[~self._is_odd[lines]]  # an opening and a closing one by turns
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
        point, shape = self._first_point(lines)
        lines = lines[self._count[lines] == len(shape)]
        first = self._first[lines]
        fits = self._is_token((self._text.starts[lines], self._at[first]), point.measurement)
        fits &= _equal(self._kind_words, first, shape)
        lines = _kept(lines, fits)
        tokens = self._tokens(lines, len(shape))
        fits = self._are_like(point, tokens)
        lines = _kept(lines, fits)
        if not fits.all():
            tokens = [(starts[fits], ends[fits]) for starts, ends in tokens]
        tags = tuple(column for _, column in point.names.tags)
        batch = Batch(point.measurement, self._columns(point, tokens), len(lines), tags)
        return Group(point.measurement, lines, batch)

    def _first_point(self, lines: Positions) -> tuple[Point, bytes]:
        """The first line's point and separators, if it has a point and is plain."""
        point = self._parser.parse(self._text.line(lines[0])) if len(lines) else None
        if point is None:
            raise _NotPlain
        first, count = int(self._first[lines[0]]), int(self._count[lines[0]])
        at = self._at[first : first + count].tolist()
        for key, start, end in zip((*point.tags, *point.fields), at[::2], at[1::2], strict=False):
            if self._text.body[start + 1 : end] != key.encode():
                raise _NotPlain
        return point, _separators_of(point, count)

    def _tokens(self, lines: Positions, count: int) -> list[Token]:
        """What stands between the separators: measurement, then keys and values in turn, then the timestamp if any."""
        ends = [self._at[self._first[lines] + index] for index in range(count)]
        starts = [self._text.starts[lines], *(end + 1 for end in ends[:-1])]
        return list(zip(starts, ends, strict=True))

    def _are_like(self, point: Point, tokens: list[Token]) -> Array:
        """Which lines have the point's keys, no empty tag, and fields of the first line's kinds."""
        fits = np.ones(len(tokens[0][0]), bool)
        for token, key in zip(tokens[1::2], (*point.tags, *point.fields), strict=False):
            fits &= self._is_token(token, key)
        values = tokens[2::2]
        for starts, ends in values[: len(point.tags)]:
            fits &= ends > starts
        for starts, ends in values[len(point.tags) :]:
            kinds = self._kinds(ends)
            fits &= kinds == kinds[0]
            if kinds[0] == _TEXT:
                fits &= (self._chars[starts] == QUOTE) & (ends - starts > 1) & (self._chars[ends - 2] != BACKSLASH)
        return fits

    def _is_token(self, token: Token, text: str) -> Array:
        starts, ends = token
        expected = text.encode()
        fits: Array = ends - starts == len(expected)
        fits &= _equal(self._words, starts, expected)
        return fits

    def _kinds(self, ends: Positions) -> Array:
        kinds: Array = _KIND_BY_LAST_BYTE[self._chars[ends - 1]]
        return kinds

    def _columns(self, point: Point, tokens: list[Token]) -> dict[str, pa.Array]:
        values = tokens[2::2]
        tags = dict(zip(point.tags, values, strict=False))
        # also the fields that are not stored: a line counts only if it has one that can be read
        fields = {key: self._field(token) for key, token in zip(point.fields, values[len(tags) :], strict=False)}
        return {
            TIME: time_array(self._times(tokens)),
            **{column: self._unescaped(tags[key]) for key, column in point.names.tags},
            **{column: fields[key] for key, column in point.names.fields},
        }

    def _times(self, tokens: list[Token]) -> Array:
        if len(tokens) % 2:  # measurement, keys and values only
            return np.full(len(tokens[0][0]), self._received_us, np.int64)
        numbers = self._numbers(tokens[-1], _INTEGER_BYTES, pa.int64())
        return column_to_us(numbers.to_numpy(), self._unit)

    def _field(self, token: Token) -> pa.Array:
        starts, ends = token
        kind = self._kinds(ends[:1])[0]
        if kind == _FLOAT:
            return self._numbers(token, _FLOAT_BYTES, pa.float64())
        if kind == _INTEGER:
            return self._numbers((starts, ends - 1), _INTEGER_BYTES, pa.int64())
        if kind == _UNSIGNED:
            return self._numbers((starts, ends - 1), _INTEGER_BYTES[1:], pa.int64())
        if kind == _TEXT:
            return self._unescaped((starts + 1, ends - 1))
        return self._booleans(token)

    def _booleans(self, token: Token) -> pa.Array:
        words = pc.ascii_lower(self._texts(token))
        is_true = pc.is_in(words, value_set=_TRUE)
        if not pc.all(pc.xor(is_true, pc.is_in(words, value_set=_FALSE))).as_py():
            raise _NotPlain
        return is_true

    def _numbers(self, token: Token, allowed: bytes, kind: pa.DataType) -> pa.Array:
        """Arrow reads a few spellings that are no numbers here (0x1f, nan(1)); hence the look at the bytes."""
        texts = self._texts(token)
        size = int((token[1] - token[0]).sum())
        if texts.buffers()[2].slice(0, size).to_pybytes().translate(None, allowed):
            raise _NotPlain
        return texts.cast(kind)

    def _unescaped(self, token: Token) -> pa.Array:
        texts = self._texts(token)
        if BACKSLASH not in self._text.body:
            return texts
        return pc.replace_substring_regex(texts, pattern=ESCAPED.pattern, replacement=r"\1")

    def _texts(self, token: Token) -> pa.Array:
        """An array whose every second element is the token, the others being what lies between; then only those."""
        starts, ends = token
        offsets = np.empty(2 * len(starts) + 1, np.int32)
        offsets[:-1:2] = starts
        offsets[1::2] = ends
        offsets[-1] = ends[-1]
        both = pa.Array.from_buffers(
            pa.string(), 2 * len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(self._text.body)]
        )
        return both.take(pa.array(np.arange(0, 2 * len(starts), 2, dtype=np.int32)))


def _separators_of(point: Point, count: int) -> bytes:
    """Those of a line with exactly these tags and fields. count: of its separators, which tells of a timestamp."""
    plain = b",=" * len(point.tags) + b" =" + b",=" * (len(point.fields) - 1)
    if count - len(plain) not in (1, 2):
        raise _NotPlain
    return plain + b" \n"[-(count - len(plain)) :]


def _kept(lines: Positions, fits: Array) -> Positions:
    """The lines that fit, if the first does and they are enough."""
    if not fits[0] or np.count_nonzero(fits) < MIN_GROUP:
        raise _NotPlain
    kept: Positions = lines[fits]
    return kept


def _words(data: bytes) -> Array:
    """The eight bytes from each place on, as numbers."""
    return np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))


def _equal(words: Array, at: Positions, expected: bytes) -> Array:
    """Where the expected bytes stand at these places."""
    equal: Array = np.ones(len(at), bool)
    for begin in range(0, len(expected), 8):
        piece = expected[begin : begin + 8]
        found = words[np.minimum(at + begin, len(words) - 1)]  # a shorter token may stand at the very end
        if len(piece) < 8:
            found &= _LOW_BYTES[len(piece)]
        equal &= found == int.from_bytes(piece, "little")
    return equal
