"""EXPLAIN without what is nobody's business: names of files and buffers, the statement as rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

_FILES = "Filename(s):"


def without_internals(rows: pa.Table, statement: str, sql: str, buffers: Iterable[str]) -> pa.Table:
    """The result of EXPLAIN as its user may see it. statement: what ran in place of `sql`."""
    texts = []
    for text in rows.column("explain_value").to_pylist():
        text = _without_file_names(text.replace(statement, sql))
        for name in buffers:
            text = text.replace(name, "buffer")
        texts.append(text)
    return rows.set_column(1, "explain_value", pa.array(texts, pa.string()))


def _without_file_names(plan: str) -> str:
    """Blank the file names in the boxes of a plan; boxes stand side by side, so a cell is a range of columns."""
    lines = plan.split("\n")
    for number, line in enumerate(lines):
        while _FILES in lines[number]:
            left = lines[number].rindex("│", 0, lines[number].index(_FILES)) + 1
            right = line.index("│", left)
            _blank(lines, number, left, right)
    return "\n".join(lines)


def _blank(lines: list[str], first: int, left: int, right: int) -> None:
    """Blank the text of one cell, from its first line to the next empty one."""
    for number in range(first, len(lines)):
        text = lines[number][left:right]
        if not text.strip() or "─" in text:
            return
        lines[number] = lines[number][:left] + " " * len(text) + lines[number][right:]
