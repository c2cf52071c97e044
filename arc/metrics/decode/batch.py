"""What every decoder of a write request produces: the rows of one measurement, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import numpy as np

TIME_TYPE = pa.timestamp("us", tz="UTC")


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


def time_array(times_us: np.ndarray[Any, Any]) -> pa.Array:
    """The "time" column of a batch. times_us: int64; not copied."""
    return pa.array(times_us).view(TIME_TYPE)
