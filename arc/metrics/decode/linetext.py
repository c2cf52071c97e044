"""Where the lines of a line protocol body are: a newline ends a line unless it stands inside quotes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

NEWLINE, RETURN, QUOTE, BACKSLASH, EQUALS = b'\n\r"\\='
WHITE = " \t\r\n\v\f"  # trimmed off both ends of a line
MAX_BLOCK = 4 << 20  # bytes
PAD = b"\n" * 8  # around the body, so that eight bytes can be read at every place of it

Positions = np.ndarray[Any, Any]  # int64, offsets in the padded body
Mask = np.ndarray[Any, Any]  # bool


@dataclass(slots=True)
class LineText:
    """A body and its lines, blank ones included.

    body: padded, valid UTF-8. starts, ends: of the lines in it, without what ends them. numbers: of the lines in the
    body as it came, from 1 (a line with a newline in a text has several; this is its first).
    """

    body: bytes
    starts: Positions
    ends: Positions
    numbers: Positions

    def line(self, index: int) -> str:
        return self.body[self.starts[index] : self.ends[index]].decode()

    def blocks(self) -> Iterator[tuple[int, LineText]]:
        """The text in pieces of whole lines, each with the index of its first line, to bound the memory of readers."""
        if len(self.body) <= MAX_BLOCK:
            yield 0, self
            return
        first = 0
        while first < len(self.starts):
            start = self.starts[first]
            end = max(int(np.searchsorted(self.ends, start + MAX_BLOCK)), first + 1)
            body = b"".join((PAD, self.body[start : self.ends[end - 1]], PAD))
            shift = start - len(PAD)
            lines = slice(first, end)
            yield first, LineText(body, self.starts[lines] - shift, self.ends[lines] - shift, self.numbers[lines])
            first = end


def find_lines(body: bytes) -> LineText:
    """The lines of a body; what is not UTF-8 in it is replaced."""
    if not _is_utf8(body):
        body = body.decode("utf-8", "replace").encode()
    padded = b"".join((PAD, body, b"\n", PAD))
    chars = np.frombuffer(padded, np.uint8, len(padded) - len(PAD))
    newlines = np.flatnonzero(chars == NEWLINE)[len(PAD) - 1 :]
    numbers = np.arange(1, len(newlines))
    if b'"' in body:
        is_end = np.ones(len(newlines), bool)
        for first, last in _texts_over_lines(padded, newlines):
            is_end[first:last] = False
        newlines = newlines[is_end]
        numbers = np.flatnonzero(is_end)[:-1] + 1
    ends = newlines[1:]
    return LineText(padded, newlines[:-1] + 1, ends - (chars[ends - 1] == RETURN), numbers)


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _texts_over_lines(body: bytes, newlines: Positions) -> Iterator[tuple[int, int]]:
    """Runs [first, last) of newlines that stand inside the text of a field.

    A quote left open begins such a text only if it begins the value of a field and is closed later by a quote that a
    separator or a line's end follows. Otherwise it was forgotten, and only its own line is odd.
    """
    quotes = unescaped_quotes(body)
    before = np.searchsorted(quotes, newlines)  # quotes before each newline
    done = 0
    for line in np.flatnonzero(np.diff(before) & 1).tolist():  # between newlines[line] and newlines[line + 1]
        if line < done or not _begins_text(body, int(newlines[line]), int(quotes[before[line + 1] - 1])):
            continue
        end = line + 1
        while (before[end] - before[line]) & 1:
            closing = before[end]
            if closing == len(quotes) or body[quotes[closing] + 1] not in b", \r\n":
                break
            end = int(np.searchsorted(newlines, quotes[closing]))
        else:
            yield line + 1, end
            done = end


def _begins_text(body: bytes, start: int, quote: int) -> bool:
    """Whether the quote begins a value behind the tags of the line that starts there."""
    return body[quote - 1] == EQUALS and b" " in body[start:quote]


def unescaped_quotes(body: bytes) -> Positions:
    quotes = np.flatnonzero(np.frombuffer(body, np.uint8) == QUOTE)
    return quotes[~are_escaped(body, quotes)] if BACKSLASH in body else quotes


def are_escaped(body: bytes, at: Positions) -> Mask:
    """Whether an odd number of backslashes stands before each of these places."""
    chars = np.frombuffer(body, np.uint8)
    are_escaped: Mask = chars[at - 1] == BACKSLASH
    for index in np.flatnonzero(are_escaped & (chars[at - 2] == BACKSLASH)).tolist():
        start = at[index] - 2
        while body[start - 1] == BACKSLASH:
            start -= 1
        are_escaped[index] = (at[index] - start) & 1
    return are_escaped
