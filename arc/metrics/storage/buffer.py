"""Write buffer: acknowledged rows wait here until a flush makes them part of the lake.

    MetricStore.write -> add -> (full or due) -> freeze -> files and lake commit -> thaw or drop

A flush freezes what there is; rows that arrive meanwhile collect beside it, and queries see both. MetricStore's lock
guards every call; nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from arc.metrics.decode.batch import Batch

Key = tuple[str, str]  # folded database, folded measurement
Chunk = dict[str, "pa.Array"]
_MERGE_FROM = 64  # chunks; from here on a reader's merged copy replaces them


@dataclass(slots=True)
class Rows:
    """Chunks of one measurement in the order of their arrival."""

    chunks: list[Chunk] = field(default_factory=list)
    rows: int = 0
    size_bytes: int = 0


class WriteBuffer:
    """Rows by measurement, in two generations: active, and frozen while a flush works on it."""

    def __init__(self) -> None:
        self._active: dict[Key, Rows] = {}
        self._frozen: dict[Key, Rows] = {}
        self._frozen_since_us: int | None = None
        self.rows = 0
        self.size_bytes = 0
        self.active_rows = 0  # those no flush works on
        self.oldest_us: int | None = None  # when the oldest of them arrived

    def add(self, key: Key, batch: Batch, size_bytes: int, received_us: int) -> None:
        """size_bytes: about what the batch takes; asking Arrow for it costs more than adding the batch."""
        rows = self._active.get(key)
        if rows is None:
            rows = self._active[key] = Rows()
        if self.oldest_us is None:
            self.oldest_us = received_us
        rows.chunks.append(batch.columns)
        rows.rows += batch.rows
        rows.size_bytes += size_bytes
        self.rows += batch.rows
        self.active_rows += batch.rows
        self.size_bytes += size_bytes

    def chunks(self, key: Key) -> list[Chunk]:
        """All rows of a measurement that are not in the lake."""
        return [
            chunk
            for generation in (self._frozen, self._active)
            if key in generation
            for chunk in generation[key].chunks
        ]

    def replace(self, key: Key, seen: list[Chunk], merged: Chunk) -> None:
        """Put one merged chunk in place of the many a reader has just gone through, if they still wait together."""
        rows = self._active.get(key)
        if rows is None or len(seen) < _MERGE_FROM or key in self._frozen:
            return
        if len(rows.chunks) >= len(seen) and rows.chunks[0] is seen[0] and rows.chunks[len(seen) - 1] is seen[-1]:
            rows.chunks[: len(seen)] = [merged]

    def freeze(self) -> dict[Key, Rows]:
        """Give all rows to a flush. Call thaw or drop before the next freeze."""
        self._frozen, self._active = self._active, {}
        self._frozen_since_us, self.oldest_us, self.active_rows = self.oldest_us, None, 0
        return self._frozen

    def thaw(self) -> None:
        """The flush failed: its rows wait again, before those that came later."""
        for key, later in self._active.items():
            earlier = self._frozen.get(key)
            if earlier is None:
                self._frozen[key] = later
            else:
                earlier.chunks += later.chunks
                earlier.rows += later.rows
                earlier.size_bytes += later.size_bytes
        self._active, self._frozen = self._frozen, {}
        self.oldest_us, self.active_rows = self._frozen_since_us or self.oldest_us, self.rows

    def drop(self) -> None:
        """The flush succeeded: its rows are in the lake."""
        self.rows -= sum(rows.rows for rows in self._frozen.values())
        self.size_bytes -= sum(rows.size_bytes for rows in self._frozen.values())
        self._frozen = {}

    def sizes(self) -> dict[Key, int]:
        """Rows by measurement."""
        sizes: dict[Key, int] = {}
        for generation in (self._frozen, self._active):
            for key, rows in generation.items():
                sizes[key] = sizes.get(key, 0) + rows.rows
        return sizes
