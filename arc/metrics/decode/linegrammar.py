"""The grammar of line protocol, one line at a time; spec metrics 2.6.2.

    measurement("," tag "=" value)* SP field "=" value ("," field "=" value)* [SP timestamp]

This is what every line means; linecolumns.py reads many plain lines of one shape at once, to this effect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arc.errors import Invalid
from arc.metrics.decode.columns import twice
from arc.metrics.decode.linetext import WHITE
from arc.metrics.decode.timeunits import MAX_US, MIN_US
from arc.metrics.names import column_names

if TYPE_CHECKING:
    from collections.abc import Collection

    from arc.metrics.decode.timeunits import Unit

Value = bool | int | float | str

# Text between separators: quotes keep separators inside them, a backslash takes the meaning of the next character.
_PIECES = {
    separator: re.compile(rf'(?:[^{separator}\\"]++|\\.?|"(?:[^"\\]++|\\.?)*+(?:"|\Z))++', re.DOTALL)
    for separator in " ,"
}
_UNQUOTED = {separator: re.compile(rf"(?:[^{separator}\\]++|\\.?)++", re.DOTALL) for separator in " ,"}
_QUOTED_TAG = re.compile(r'(?:^|[,=])"')
_KEY_AND_VALUE = re.compile(r"((?:[^=\\]++|\\.)*+)=(.*)", re.DOTALL)
ESCAPED = re.compile(r'\\([,= "\\])')
_OPEN_END = re.compile(r"(?:[^\\]++|\\.)*+", re.DOTALL)  # matches all unless the last character is escaped
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
BOOLEANS = {"t": True, "true": True, "f": False, "false": False}  # in any case
_NUMBER_START = frozenset("+-.0123456789iInN")
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


class BadLine(Invalid):
    """A line is not stored; the text says why."""


class Names:
    """What the tags and fields of some lines are stored as: pairs of key and column, without those that are not stored.

    Raises BadLine where two columns differ only in case.
    """

    def __init__(self, tags: Collection[str], fields: Collection[str]) -> None:
        tag_columns, field_columns = column_names(tags, fields)
        self.tags = [(key, column) for key, column in zip(tags, tag_columns, strict=True) if column]
        self.fields = [(key, column) for key, column in zip(fields, field_columns, strict=True) if column]
        seen: dict[str, str] = {}
        for _, column in self.tags + self.fields:
            if column.casefold() in seen:
                raise BadLine(twice(seen[column.casefold()], column))
            seen[column.casefold()] = column


@dataclass(slots=True)
class Point:
    """One line.

    tags, fields: as written, without what is ignored. names: what they are stored as.
    """

    measurement: str
    time_us: int
    tags: dict[str, str]
    fields: dict[str, Value]
    names: Names

    def columns(self) -> dict[str, Value]:
        """The values as stored, without the time."""
        tags = {column: self.tags[key] for key, column in self.names.tags}
        return {**tags, **{column: self.fields[key] for key, column in self.names.fields}}


class LineParser:
    """Parses the lines of one request.

    unit: of the timestamps. received_us: time of lines without a usable one.
    """

    def __init__(self, unit: Unit, received_us: int) -> None:
        self._unit = unit
        self._received_us = received_us
        self._heads: dict[str, tuple[str, dict[str, str]]] = {}
        self._names: dict[tuple[str, ...], Names] = {}

    def parse(self, line: str) -> Point | None:
        """The point in a line without its newline; None for a comment or a blank line. Raises BadLine."""
        line = line.strip(WHITE)
        if not line or line[0] == "#":
            return None
        if line[0] == ",":
            raise BadLine("missing measurement")
        head = _UNQUOTED[" "].findall(line)[0] if '"' in line else ""
        if '"' not in head or _QUOTED_TAG.search(head):
            words = _split(line, " ")
            return self._point(words, *self._head(words[0]))
        # Inside of a tag a quote is a sign like any other: size=5"
        return self._point([head, *_split(line[len(head) :], " ")], *_measurement_and_tags(_UNQUOTED[","], head))

    def _point(self, words: list[str], measurement: str, tags: dict[str, str]) -> Point:
        if len(words) < 2:
            raise BadLine("missing fields")
        fields = _fields(words[1])
        time_us = self._time_us(words[2]) if len(words) > 2 else self._received_us
        return Point(measurement, time_us, tags, fields, self._names_of(tags, fields))

    def _head(self, word: str) -> tuple[str, dict[str, str]]:
        """Measurement and tags; they come again in many lines."""
        head = self._heads.get(word)
        if head is None:
            head = self._heads[word] = _measurement_and_tags(_PIECES[","], word)
        return head

    def _names_of(self, tags: dict[str, str], fields: dict[str, Value]) -> Names:
        key = (*tags, "", *fields)
        names = self._names.get(key)
        if names is None:
            names = self._names[key] = Names(tags, fields)
        return names

    def _time_us(self, word: str) -> int:
        """What no clock can say is taken as if it were not there, as all generations of the original did."""
        if not _INTEGER.fullmatch(word):
            return self._received_us
        value = int(word)
        us = value * self._unit.multiply // self._unit.divide
        if value not in _INT64 or us not in _INT64:
            return self._received_us
        if not MIN_US <= us <= MAX_US:
            raise BadLine(f"timestamp {value} is outside the years 0001-9999")
        return us


def _measurement_and_tags(pieces: re.Pattern[str], word: str) -> tuple[str, dict[str, str]]:
    measurement, *tags = pieces.findall(word)
    return _unescape(measurement), _tags(tags)


def _split(text: str, separator: str) -> list[str]:
    """Pieces between separators; several separators in a row count as one."""
    if "\\" in text or '"' in text:
        return _PIECES[separator].findall(text)
    return [piece for piece in text.split(separator) if piece]


def _key_and_value(piece: str) -> tuple[str, str]:
    """Split at the first unescaped "="; the value is still escaped. ("", "") without one."""
    if "\\" not in piece:
        key, equals, value = piece.partition("=")
        return (key, value) if equals else ("", "")
    match = _KEY_AND_VALUE.fullmatch(piece)
    return (_unescape(match[1]), match[2]) if match else ("", "")


def _tags(pieces: list[str]) -> dict[str, str]:
    """The last of equal keys counts; a tag with an empty value is no tag."""
    tags = {}
    for piece in pieces:
        key, value = _key_and_value(piece)
        if key:
            tags[key] = _unescape(value)
    return {key: value for key, value in tags.items() if value}


def _fields(word: str) -> dict[str, Value]:
    fields: dict[str, Value] = {}
    for piece in _split(word, ","):
        key, text = _key_and_value(piece)
        if key and text:
            value = _field_value(text)
            if value is not None:
                fields[key] = value
    if not fields:
        raise BadLine("no valid field")
    return fields


def _field_value(text: str) -> Value | None:
    """None for a number that is out of range."""
    if text[0] == '"':
        return _string(text)
    if text[0] in _NUMBER_START and text.isascii() and "_" not in text:
        try:
            return float(text)
        except ValueError:
            if text[-1] in "iu" and _INTEGER.match(text):
                return _integer(text)
    boolean = BOOLEANS.get(text.lower())
    return _unescape(text) if boolean is None else boolean


def _integer(text: str) -> int | None:
    """Digits and a suffix: i or u."""
    if not _INTEGER.fullmatch(text, endpos=len(text) - 1):
        return None
    value = int(text[:-1])
    return value if value in (_INT64 if text[-1] == "i" else _UINT64) else None


def _string(text: str) -> str:
    """Text in quotes; without a closing one, what follows the opening one."""
    closed = len(text) > 1 and text[-1] == '"' and _OPEN_END.fullmatch(text, endpos=len(text) - 1)
    return _unescape(text[1:-1] if closed else text[1:])


def _unescape(text: str) -> str:
    return ESCAPED.sub(r"\1", text) if "\\" in text else text
