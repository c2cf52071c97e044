"""What commands show: tables, and how far something got."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_NUMBERS = {int, float, type(None)}


@contextmanager
def progress(label: str, length: int = 0) -> Iterator[Callable[..., None]]:
    """A bar on standard error, which does not draw itself in a pipe.

    Call what is yielded with how much was done, and with the length where it was not known before.
    """
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:

        def advance(done: int, length: int = 0) -> None:
            bar.length = length or bar.length
            bar.update(done)

        yield advance


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as their widest value, numbers to the right."""
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    by_column = zip(*rows, strict=True) if rows else [()] * len(columns)
    right = [{type(value) for value in column} <= _NUMBERS for column in by_column]
    for line in (list(columns), ["-" * width for width in widths], *cells):
        padded = (
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(line, widths, right, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("\n", "\\n")
