"""Hostile expressions are refused before they cost time or memory, and reach nothing but their scope."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc

import pytest

from arc.jobs import expressions
from arc.jobs.expressions import ExpressionError, Scope, limits

SCOPE = Scope(
    inputs={"a": "a" * 100_000, "json": "[" * 100_000, "digits": "9" * 100_000, "many": "a," * 200_000},
    secrets={},
    tasks={},
    job={},
    item={"index": "0" * 1_000_000, "value": ["ab"] * 50_000},
)
DOUBLED = "reduce(1..40, #acc + #acc, 'a')"
NESTED_LISTS = "reduce(1..40, [#acc, #acc], 1)"

HOSTILE = {
    # deep nesting
    "parentheses": "(" * 20_000 + "1" + ")" * 20_000,
    "open parentheses": "(" * 60_000,
    "lists": "[" * 5_000 + "]" * 5_000,
    "maps": "{a:" * 5_000 + "1" + "}" * 5_000,
    "negations": "not " * 10_000 + "true",
    "signs": "-" * 30_000 + "1",
    "powers": "2**" * 10_000 + "2",
    "conditionals": "true ? 1 : " * 5_000 + "1",
    "branches": "if true { " * 5_000 + "1" + " } else { 1 }" * 1_000,
    "bindings": "".join(f"let a{n} = 1; " for n in range(4_000)) + "1",
    "calls": "upper(" * 5_000 + "'a'" + ")" * 5_000,
    "predicates": "map([1], " * 2_000 + "1" + ")" * 2_000,
    "members": "item" + ".a" * 20_000,
    "pipes": "'a'" + " | upper()" * 4_000,
    "values within values": "reduce(1..5000, [#acc], 1)",
    "json": "fromJSON(inputs.json)",
    # long
    "characters": "1" + "+1" * 100_000,
    "nodes": "1" + "+1" * 30_000,
    "elements": "[" + "1," * 30_000 + "]",
    "a number": "9" * 60_000,
    "digits of an input": "int(inputs.digits)",
    # ranges and repeats
    "range": "1..10000000",
    "widest range": "-9223372036854775807..9223372036854775806",
    "ranges": "[1..400000, 1..400000, 1..400000]",
    "ranges of ranges": "map(1..100000, 1..100000)",
    "sequence": "sequence(0, 9223372036854775807)",
    "repeat": 'repeat("a", 10000000)',
    "repeat of repeat": 'repeat(repeat("a", 1000000), 1000000)',
    "repeat of nothing": 'repeat("", 9223372036854775807)',
    "doubling": DOUBLED,
    "replace": "replace(repeat('a', 100000), 'a', repeat('b', 100000))",
    "join": "join(split(repeat(',', 100000), ','), repeat('b', 100000))",
    "text of nested lists": f"string({NESTED_LISTS})",
    "json of nested lists": f"toJSON({NESTED_LISTS})",
    "flattened nested lists": f"flatten({NESTED_LISTS})",
    "concatenation": "concat(" + "item.value," * 100 + "item.value)",
    "shift": "1..bitshl(1, 62)",
    # loops
    "loops": "map(1..1000, map(1..1000, # * 2))",
    "counting": "count(1..500000, # % 2 == 0)",
    "comparison of nested lists": f"{NESTED_LISTS} == {NESTED_LISTS}",
    "search in a loop": "count(1..100000, inputs.a contains 'zz')",
    "list search in a loop": "count(1..100000, 'c' in item.value)",
    "split in a loop": "map(1..100000, split(inputs.many, ','))",
    "slice in a loop": "map(1..100000, inputs.a[1:2])",
    "byte in a loop": "map(1..100000, item.index[0])",
    "sort in a loop": "map(1..100000, len(sort(item.value)))",
    # regular expressions
    "nested repetition": "count(1..100000, (inputs.a + 'b') matches '(a+)+$')",
    "large repetition": "inputs.a matches '(a{1,100}){1,100}'",
    "product of repetitions": "inputs.a matches '((a{1,1000}){1,1000}){1,1000}'",
    "long expression": f"inputs.a matches '{'(a|b)*' * 5_000}'",
    "computed expression": "inputs.a matches repeat('(a?){100}', 100)",
    "states": "count(1..1000, inputs.a matches '(a|b)*a(a|b){300}c')",
    "match in a loop": "count(1..100000, inputs.a matches '(a+)+$b')",
    "layout of a date": f"date(repeat('1', 150) + 'x', '{'1' * 150}')",
    "length of time": "duration(inputs.digits + 's')",
    # attributes
    "class": "''.__class__",
    "class of an element": "item.value.__class__.__mro__",
    "method of a string": "'{0.__class__}'.format(1)",
    "method of a list": "item.value.append(1)",
    "import": "__import__('os').system('true')",
    "builtins": "__builtins__",
    "eval": "eval('1')",
    "attributes of a time": "now().moment.tzinfo",
    "method behind the method": "now().Format.__globals__",
    "environment": "$env.__class__.__init__",
    "zone": "timezone('../../../../etc/passwd')",
}

MAX_BYTES = 50_000_000
# Those that would take most; the others end before they make anything.
HUNGRY = [
    "open parentheses",
    "nodes",
    "elements",
    "values within values",
    "ranges",
    "ranges of ranges",
    "repeat of repeat",
    "doubling",
    "replace",
    "join",
    "text of nested lists",
    "json of nested lists",
    "flattened nested lists",
    "concatenation",
    "counting",
    "split in a loop",
    "states",
]
# The limit is 0.05 s. Ten times as much says that something runs outside the budget, whatever the machine.
FAR_TOO_LONG_S = 10 * limits.MAX_CPU_S


@pytest.fixture(autouse=True, scope="module")
def _grammar_is_loaded() -> None:
    expressions.evaluate("'a' matches 'a'", SCOPE)


@pytest.mark.parametrize("expression", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_expression_is_refused(expression: str) -> None:
    started = time.thread_time()
    with pytest.raises(ExpressionError, match=r"^error "):
        expressions.evaluate(expression, SCOPE)

    assert time.thread_time() - started < FAR_TOO_LONG_S


@pytest.mark.parametrize("name", HUNGRY)
def test_a_hostile_expression_takes_little_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ExpressionError):
            expressions.evaluate(HOSTILE[name], SCOPE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < MAX_BYTES


@pytest.mark.parametrize(
    "template", ["{{" + " " * 200_000, "{{\n" * 50_000, "{{ a " * 50_000 + "\n b }}", "{{}}" * 50_000, "}}" * 100_000]
)
def test_a_hostile_template_without_a_block_stays_as_it_is(template: str) -> None:
    started = time.thread_time()

    assert expressions.render(template, SCOPE) == template
    assert time.thread_time() - started < FAR_TOO_LONG_S


def test_a_long_sum_and_a_long_list_are_fine() -> None:
    assert expressions.evaluate(" + ".join(["1"] * 400), SCOPE) == 400
    assert expressions.evaluate("[" + "1," * 400 + "]", SCOPE) == [1] * 400


def test_reasonable_depth_is_fine() -> None:
    assert expressions.evaluate("(" * 50 + "1" + ")" * 50, SCOPE) == 1
    assert expressions.evaluate("upper(" * 90 + "'a'" + ")" * 90, SCOPE) == "A"


def test_ten_thousand_elements_of_json_are_fine() -> None:
    scope = Scope(inputs={"rows": str([{"id": number} for number in range(10_000)]).replace("'", '"')})

    assert expressions.evaluate("len(fromJSON(inputs.rows))", scope) == 10_000
    assert len(expressions.evaluate("{{ fromJSON(inputs.rows) }}", scope)) == 10_000  # type: ignore[arg-type]


def test_small_work_is_never_refused_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CPU_S", 0.0)

    assert expressions.evaluate("sum(map(1..1000, # * 2))", SCOPE) == 1_001_000
    with pytest.raises(ExpressionError, match="time limit exceeded"):
        expressions.evaluate("sum(map(1..20000, # * 2))", SCOPE)


def test_all_blocks_of_a_template_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TOTAL_CPU_S", 0.05)

    with pytest.raises(ExpressionError, match="all expressions together take longer"):
        expressions.render("{{ sum(1..9999) }}" * 1_000, SCOPE)


def test_the_parser_is_loaded_with_the_first_expression_only() -> None:
    code = (
        "import sys; from arc.jobs import expressions as e; e.render('plain', e.Scope());"
        "print({'lark', 're2'} & {*sys.modules})"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "set()"
