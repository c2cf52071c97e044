"""Tables that commands print."""

from __future__ import annotations

import pytest

from arc.commands.terminal import print_table


@pytest.mark.parametrize(
    ("columns", "rows", "lines"),
    [
        (["a", "name"], [[1, "x"], [12, None]], [" a  name", "--  ----", " 1  x", "12"]),
        (["ok", "v"], [[True, 1.5], [False, None]], ["ok       v", "-----  ---", "true   1.5", "false"]),
        (["text"], [["two\nlines"]], ["text", "----------", "two\\nlines"]),
        (["none"], [], ["none", "----"]),
    ],
)
def test_print_table(
    columns: list[str], rows: list[list[object]], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(columns, rows)

    assert capsys.readouterr().out.splitlines() == lines
