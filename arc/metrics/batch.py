"""What every decoder of a write request produces: the rows of one measurement, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True)
class Batch:
    """Rows of one measurement out of one request.

    columns: "time" first (timestamp[us, tz=UTC], never null); the others int64, double, string, bool, binary, or
    pa.null() for a column in which every value is null. All have the same length.
    tags: names of the columns that came as tags.
    """

    measurement: str
    columns: dict[str, pa.Array]
    rows: int
    tags: tuple[str, ...] = ()
