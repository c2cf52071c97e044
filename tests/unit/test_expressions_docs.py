"""The examples in docs/expressions.md are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from arc.jobs import expressions
from arc.jobs.expressions import Scope, builtins
from arc.jobs.expressions.builtins import predicates

PAGE = (Path(__file__).parents[2] / "docs/expressions.md").read_text("utf-8")
EXAMPLES = [
    tuple(part.strip() for part in line.split("→"))
    for block in re.findall(r"^```expressions\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
INPUTS = {
    "name": "World",
    "x": "1",
    "csv": "a,b,c",
    "my-key": "D",
    "cfg": '{"a": [1, 2, {"b": "c"}], "n": 1.5, "none": null}',
}


@pytest.mark.parametrize(("template", "result"), EXAMPLES)
def test_an_example_gives_what_the_page_says(template: str, result: str) -> None:
    assert expressions.render(template, Scope(inputs=INPUTS)) == result


@pytest.mark.parametrize("name", [*builtins.TABLE, *predicates.TABLE])
def test_every_function_is_on_the_page(name: str) -> None:
    assert re.search(rf"`{name}\b", PAGE)


def test_the_error_on_the_page_is_the_one_that_is_raised() -> None:
    with pytest.raises(expressions.ExpressionError) as caught:
        expressions.render("{{ inputs.x == 1 }}", Scope(inputs=INPUTS))

    assert f"```\n{caught.value}\n```" in PAGE
