"""JSON bodies into columns: the items of MessagePack bodies, written in JSON; spec metrics 2.6.4.

Times may be RFC 3339 text. Whole numbers beyond int64 are floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from arc.errors import Invalid
from arc.metrics.decode.points import items_to_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc.metrics.decode.batch import Batch


def decode_json(body: bytes, received_us: int, ndjson: bool) -> list[Batch]:
    """Rows of one inflated body, at least one.

    received_us: time of rows without one. ndjson: one object per line.
    Raises Invalid; nothing is taken in part.
    """
    if not body.strip():
        raise Invalid("Empty payload")
    objects = list(_lines(body)) if ndjson else [_parse(body)]
    return items_to_batches(objects, received_us, "JSON", text_times=True)


def _lines(body: bytes) -> Iterator[Any]:
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            yield _parse(line, f"line {number}: ")


def _parse(text: bytes, where: str = "") -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"Invalid JSON payload: {where}{error}") from None
