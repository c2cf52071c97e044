"""MessagePack bodies into columns.

    decode_msgpack -> _Walker reads maps and keys byte by byte; each array of a columnar item becomes a column:
        equal-width elements (numbers, booleans, equally long or short ASCII text): strided numpy views of the body
        anything else: msgpack reads that array, arrow_column types it
    rows of usual keys and types -> msgspec makes a points.Row of each -> points.rows_to_batches
    any other body (odd keys, several objects), or a bad one -> msgpack reads it whole -> points.items_to_batches

MessagePack marks every element with its type, so an array whose markers are all equal has its values at equal
distances: one comparison of the markers proves it, one numpy call takes the values, and no Python object is made
per value. Formats: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
import msgspec
import numpy as np
import pyarrow as pa

from arc.errors import Invalid
from arc.metrics.decode import points
from arc.metrics.decode.batch import TIME_TYPE
from arc.metrics.decode.columns import arrow_column
from arc.metrics.decode.timeunits import column_to_us

if TYPE_CHECKING:
    from arc.metrics.decode.batch import Batch

# marker -> width of the value behind it, its numpy type in the body, its type in the column
_NUMBERS = {
    0xCA: (4, ">f4", np.float64),
    0xCB: (8, ">f8", np.float64),
    0xCC: (1, "u1", np.int64),
    0xCD: (2, ">u2", np.int64),
    0xCE: (4, ">u4", np.int64),
    0xCF: (8, ">i8", np.int64),
    0xD0: (1, "i1", np.int64),
    0xD1: (2, ">i2", np.int64),
    0xD2: (4, ">i4", np.int64),
    0xD3: (8, ">i8", np.int64),
}
# head of a text below 32 bytes, or of a null -> length of the text; anything else -> 0xff
_TEXT_SIZES = bytes(head & 0x1F if 0xA0 <= head <= 0xC0 else 0xFF for head in range(0x100))
_ASCII, _NOT_ASCII = bytes(range(0x80)), bytes(range(0x80, 0x100))


class _Odd(Exception):
    """The body has a shape that is not read the fast way."""


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    batch: list[points.Row]


_ROWS = msgspec.msgpack.Decoder(_Envelope | list[points.Row])


def decode_msgpack(body: bytes, received_us: int) -> list[Batch]:
    """Rows of one inflated body, at least one; spec metrics 2.6.1.

    received_us: microseconds UTC, the time of rows without one. Raises Invalid; nothing is taken in part.
    """
    if not body:
        raise Invalid("Empty payload")
    batches = _usual_batches(body, received_us)
    if batches is None:
        batches = points.items_to_batches(_unpack(body), received_us)
    if not any(batch.rows for batch in batches):
        raise Invalid("No records in payload")
    return batches


def _usual_batches(body: bytes, received_us: int) -> list[Batch] | None:
    """What a body holds that most clients could have sent; None for any other, and for what is to be refused."""
    for read in (_columnar_batches, _row_batches):
        try:
            return read(body, received_us)
        except (_Odd, Invalid):
            continue
    return None


def _columnar_batches(body: bytes, received_us: int) -> list[Batch]:
    return _Walker(body, received_us).batches()


def _row_batches(body: bytes, received_us: int) -> list[Batch]:
    try:
        rows = _ROWS.decode(body)
    except ValueError:  # other keys or types, text that is not UTF-8, more than one object
        raise _Odd from None
    return points.rows_to_batches(rows.batch if isinstance(rows, _Envelope) else rows, received_us)


def _unpack(body: bytes) -> list[Any]:
    """All objects of a body; several may follow each other."""
    unpacker = msgpack.Unpacker(
        raw=False, strict_map_key=False, unicode_errors="replace", timestamp=0, max_buffer_size=max(len(body), 1)
    )
    unpacker.feed(body)
    objects: list[Any] = []
    try:
        while unpacker.tell() < len(body):
            if objects and body[unpacker.tell()] == 0:
                _check_padding(body[unpacker.tell() :])
                break
            objects.append(unpacker.unpack())
    except msgpack.OutOfData:
        raise Invalid("Invalid MessagePack payload: the body ends inside an object") from None
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as exc:
        reason = str(exc) or type(exc).__name__
        raise Invalid(f"Invalid MessagePack payload: {reason}") from None
    return objects


def _check_padding(rest: bytes) -> None:
    """Zeros may follow the last object: axios sends all of the buffer behind the view that encode() returns."""
    if rest.strip(b"\0"):
        raise ValueError("zero bytes between two objects")


class _Walker:
    """Reads `item`, `[item, ...]` and `{"batch": [item, ...]}` of columnar items; raises _Odd at anything else."""

    def __init__(self, body: bytes, received_us: int) -> None:
        self.body = body
        self.at = 0
        self.received_us = received_us

    def batches(self) -> list[Batch]:
        try:
            batches = self._envelope()
        except (IndexError, UnicodeDecodeError):
            raise _Odd from None
        if self.at != len(self.body):
            raise _Odd
        return batches

    def _envelope(self) -> list[Batch]:
        if not _is_map(self.body[0]):
            return self._items()
        if self._peek_only_key() == "batch":
            return self._items()
        return [self._item()]

    def _peek_only_key(self) -> str:
        """The key of a map with one entry, read past; otherwise nothing is read."""
        start = self.at
        if self._map_length() == 1:
            key = self._text()
            if key == "batch":
                return key
        self.at = start
        return ""

    def _items(self) -> list[Batch]:
        return [self._item() for _ in range(self._array_length())]

    def _item(self) -> Batch:
        measurement: str | None = None
        columns: dict[str, pa.Array] | None = None
        for _ in range(self._map_length()):
            key = self._text()
            if key == "m" and measurement is None:
                measurement = self._text()
            elif key == "columns" and columns is None:
                columns = self._columns()
            else:
                raise _Odd
        if measurement is None or not columns:
            raise _Odd
        return points.batch_of_columns(measurement, columns, self.received_us)

    def _columns(self) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {}
        for _ in range(self._map_length()):
            name = self._text()
            if name in columns:
                raise _Odd
            columns[name] = self._column(name)
        return columns

    def _column(self, name: str) -> pa.Array:
        start = self.at
        length = self._array_length()
        if length == 0:
            raise _Odd
        marker = self.body[self.at]
        values = None
        if marker in _NUMBERS:
            values = self._numbers(marker, length)
        elif name == "time":
            raise _Odd
        elif marker >= 0xD9 or marker == 0xC0 or 0xA0 <= marker <= 0xBF:
            column = self._equally_long_text(length) or self._short_text(length)
            if column is not None:
                return column
        elif marker in (0xC2, 0xC3):
            column = self._booleans(length)
            if column is not None:
                return column
        elif marker < 0x80:
            values = self._small_integers(length)
        if values is None:
            return self._any(start, name)
        return _time_array(values) if name == "time" else _number_array(values)

    def _numbers(self, marker: int, length: int) -> np.ndarray | None:
        width, kind, target = _NUMBERS[marker]
        step = width + 1
        end = self.at + step * length
        if end > len(self.body):
            return None
        if self.body[self.at : end : step] != bytes((marker,)) * length:
            return None
        values = np.ndarray((length,), kind, self.body, self.at + 1, (step,)).astype(target)
        if marker == 0xCF and np.minimum.reduce(values) < 0:
            return None  # beyond int64: the column becomes DOUBLE, msgpack's way
        self.at = end
        return values

    def _small_integers(self, length: int) -> np.ndarray | None:
        end = self.at + length
        if end > len(self.body):
            return None
        chunk = self.body[self.at : end]
        if not chunk.isascii():
            return None
        self.at = end
        return np.frombuffer(chunk, np.uint8).astype(np.int64)

    def _booleans(self, length: int) -> pa.Array | None:
        end = self.at + length
        chunk = self.body[self.at : end]
        if len(chunk) != length or chunk.translate(None, b"\xc2\xc3"):
            return None
        self.at = end
        return pa.array(np.frombuffer(chunk, np.uint8) == 0xC3)

    def _equally_long_text(self, length: int) -> pa.Array | None:
        """Texts of one length, ASCII: head and text alternate at equal distances."""
        first = self.body[self.at]
        if 0xA0 <= first <= 0xBF:
            head, size = 1, first & 0x1F
        elif first == 0xD9:
            head, size = 2, self.body[self.at + 1]
        else:
            return None
        step = head + size
        end = self.at + step * length
        if end > len(self.body):
            return None
        heads = _every(step, head, length, self.body, self.at)
        if heads != self.body[self.at : self.at + head] * length:
            return None
        data = _every(step, size, length, self.body, self.at + head)
        if not data.isascii():
            return None
        self.at = end
        return _text_array(np.arange(length + 1, dtype=np.int32) * np.int32(size), data, length)

    def _short_text(self, length: int) -> pa.Array | None:
        """Texts below 32 bytes and nulls, ASCII.

        Only the heads are above 0x7f then. That each head's length leads to the next one, and that there are no
        other high bytes, proves it for the whole run; what is left without them is the text.
        """
        guess = (self.body[self.at] & 0x1F) + 4
        for window in (guess * length, 32 * length):
            heads = self.body[self.at : self.at + window].translate(None, _ASCII)[:length]
            if len(heads) == length:
                break
        else:
            return None
        sizes = heads.translate(_TEXT_SIZES)
        if b"\xff" in sizes:
            return None
        offsets = np.zeros(length + 1, np.int32)
        np.add.accumulate(np.frombuffer(sizes, np.uint8), out=offsets[1:], dtype=np.int32)
        end = int(offsets[-1]) + length
        run = self.body[self.at : self.at + end]
        data = run.translate(None, _NOT_ASCII)
        if len(run) < end or len(data) != end - length:
            return None
        if np.frombuffer(run, np.uint8)[offsets[:-1] + np.arange(length)].tobytes() != heads:
            return None
        self.at += end
        if b"\xc0" not in heads:
            return _text_array(offsets, data, length)
        valid = np.frombuffer(heads, np.uint8) != 0xC0
        if not valid.any():
            return pa.nulls(length)
        return _text_array(offsets, data, length, valid)

    def _any(self, start: int, name: str) -> pa.Array:
        """The array at `start` read by msgpack."""
        if name == "time":
            raise _Odd  # times have rules of their own
        unpacker = msgpack.Unpacker(
            raw=False, strict_map_key=False, unicode_errors="replace", timestamp=0, max_buffer_size=len(self.body)
        )
        unpacker.feed(memoryview(self.body)[start:])
        try:
            values = unpacker.unpack()
        except Exception:
            raise _Odd from None  # the whole body is read once more, for one wording of errors
        self.at = start + unpacker.tell()
        return arrow_column(name, values)

    def _map_length(self) -> int:
        marker = self.body[self.at]
        if 0x80 <= marker <= 0x8F:
            self.at += 1
            return marker & 0x0F
        return self._length(marker, 0xDE, 0xDF)

    def _array_length(self) -> int:
        marker = self.body[self.at]
        if 0x90 <= marker <= 0x9F:
            self.at += 1
            return marker & 0x0F
        return self._length(marker, 0xDC, 0xDD)

    def _length(self, marker: int, short: int, long: int) -> int:
        width = 2 if marker == short else 4 if marker == long else 0
        if not width:
            raise _Odd
        length = int.from_bytes(self.body[self.at + 1 : self.at + 1 + width], "big")
        self.at += 1 + width
        if length > len(self.body):
            raise _Odd
        return length

    def _text(self) -> str:
        marker = self.body[self.at]
        if 0xA0 <= marker <= 0xBF:
            head, size = 1, marker & 0x1F
        elif marker in (0xD9, 0xC4):
            head, size = 2, self.body[self.at + 1]
        else:
            raise _Odd
        start = self.at + head
        end = start + size
        if end > len(self.body):
            raise _Odd
        self.at = end
        return self.body[start:end].decode()


def _is_map(marker: int) -> bool:
    return 0x80 <= marker <= 0x8F or marker in (0xDE, 0xDF)


def _time_array(values: np.ndarray) -> pa.Array:
    times = column_to_us(values)
    return pa.Array.from_buffers(TIME_TYPE, len(times), [None, pa.py_buffer(times)])


def _number_array(values: np.ndarray) -> pa.Array:
    kind = pa.float64() if values.dtype == np.float64 else pa.int64()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _every(step: int, size: int, length: int, body: bytes, at: int) -> bytes:
    """`size` bytes at every `step`."""
    return np.ndarray((length,), f"V{size}", body, at, (step,)).tobytes() if size else b""


def _text_array(
    offsets: np.ndarray, data: bytes | np.ndarray, length: int, valid: np.ndarray | None = None
) -> pa.Array:
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.string(), length, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)])
