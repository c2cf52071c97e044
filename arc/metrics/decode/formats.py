"""The formats of a write, by the numbers under which the write-ahead log keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.metrics.decode.arrowpoints import decode_arrow
from arc.metrics.decode.jsonpoints import decode_json
from arc.metrics.decode.lineprotocol import decode_lines
from arc.metrics.decode.msgpackpoints import decode_msgpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.metrics.decode.batch import Batch

MSGPACK = 1  # stored on disk, so never reuse a number
LINES = 2  # options: the precision
JSON = 3  # options: "ndjson" or nothing
ARROW = 4  # options: the measurement
NAMES = {MSGPACK: "msgpack", LINES: "lineprotocol", JSON: "json", ARROW: "arrow"}  # in figures

_DECODERS: dict[int, Callable[[bytes, int, str], list[Batch]]] = {
    MSGPACK: lambda body, received_us, _: decode_msgpack(body, received_us),
    LINES: lambda body, received_us, precision: decode_lines(body, precision, received_us).batches,
    JSON: lambda body, received_us, layout: decode_json(body, received_us, layout == "ndjson"),
    ARROW: lambda body, received_us, measurement: decode_arrow(body, measurement, received_us),
}


def decode(kind: int, body: bytes, received_us: int, options: str) -> list[Batch]:
    """Rows of an inflated body. Raises Invalid, but for bad lines, which are left out."""
    return _DECODERS[kind](body, received_us, options)


def size_bytes(kind: int, body: bytes, batches: list[Batch]) -> int:
    """About what the rows take. For most bodies that is their length; an Arrow body can be compressed inside."""
    if kind != ARROW:
        return len(body)
    return sum(column.nbytes for batch in batches for column in batch.columns.values())
