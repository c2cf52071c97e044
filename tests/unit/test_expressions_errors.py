"""Error texts of expressions: reason and place, at compile time and at run time."""

from __future__ import annotations

import pytest

from arc.jobs import expressions
from arc.jobs.expressions import ExpressionError, Scope, Summary

SCOPE = Scope(inputs={"x": "1", "run": "true"}, secrets={}, tasks={}, job={}, item={"index": "0", "value": 7})
MIX = "Operator ({}) and coalesce expressions (??) cannot be mixed. Wrap either by parentheses."

COMPILE = [
    # names, also where they would not be reached
    ("true or nosuch", "unknown name nosuch", 9),
    ("nosuch(1)", "unknown name nosuch", 1),
    ("inputs.x.y", "type string has no field y", 10),
    ("inputs.x[0]", "type string[int] is undefined", 9),
    # syntax
    ("some text here", 'unexpected token Identifier("text")', 6),
    ("1 +", "unexpected token EOF", 3),
    ("1 + )", 'unexpected token Bracket(")")', 5),
    ("[1, 2, 3,,]", 'unexpected token Operator(",")', 10),
    ("1 2", 'unexpected token Number("2")', 3),
    ("1 'a'", 'unexpected token String("a")', 3),
    ("[{a: 1}] | first().a", 'unexpected token Operator(".")', 19),
    ('id "hello', "literal not terminated", 10),
    (r'"\xQA"', "invalid char escape", 3),
    ("früh ♥", "unrecognized character: U+2665 '♥'", 6),
    ("a /* b", "unclosed comment", 7),
    ("nil ?? 1 + 2", MIX.format("+"), 10),
    ("true and nil ?? false == true", MIX.format("=="), 23),
    ("map([1], {a: 1})", 'unexpected token Operator(":")', 12),
    (
        "9223372036854775808",
        "integer literal is too large",
        1,
    ),
    ("# + 1", "cannot use pointer accessor outside predicate", 1),
    (".a", "cannot use pointer accessor outside predicate", 1),
    # operators
    ("1 == 1 == 1", "invalid operation: == (mismatched types bool and int)", 8),
    ('"a" + 1', "invalid operation: + (mismatched types string and int)", 5),
    ("(1 < 2) < 3", "invalid operation: < (mismatched types bool and int)", 9),
    ("not inputs.run", "invalid operation: not (mismatched type string)", 1),
    ("not inputs.x == '1'", "invalid operation: not (mismatched type string)", 1),
    ("-'a'", "invalid operation: - (mismatched type string)", 1),
    ("1.5 % 2", "invalid operation: % (mismatched types float64 and int)", 5),
    ("1 in 'a'", "invalid operation: in (mismatched types int and string)", 3),
    ("inputs.x ? 1 : 2", "non-bool expression (type string) used as condition", 8),
    ("if inputs.x { 1 } else { 2 }", "non-bool expression (type string) used as condition", 11),
    ("5 / 2 % 0", "invalid operation: % (mismatched types float64 and int)", 7),
    ("inputs + 1", "invalid operation: + (mismatched types map[string]string and int)", 8),
    ("1 + [nil]", "invalid operation: + (mismatched types int and []interface {})", 3),
    ("nil + 1", "invalid operation: + (mismatched types unknown and int)", 5),
    ('inputs.x matches "["', "error parsing regexp: missing ]: [", 10),
    # calls
    ("upper()", "not enough arguments to call upper", 1),
    ('upper("a", "b")', "too many arguments to call upper", 1),
    ("filter([1])", "not enough arguments to call filter", 1),
    ("upper(1)", "cannot use int as argument (type string) to call upper ", 7),
    ("filter(inputs.x, true)", "builtin filter takes only array (got string)", 15),
    ("len(1)", "invalid argument for len (type int)", 1),
    ("filter([1], # + 1)", "predicate should return boolean (got int)", 13),
    ("[1]['a']", "array elements can only be selected using an integer (got string)", 5),
    ("{a: 1}[0]", "cannot use int to get an element from map[string]interface {}", 8),
    ("let len = 1; len", "cannot redeclare builtin len", 5),
    ("let a = 1; let a = 2; a", "cannot redeclare variable a", 16),
    ("now().nosuch()", "type time.Time has no method nosuch", 7),
]

RUN = [
    ("fromJSON('{}').a.b", "cannot fetch b from <nil>", 18),
    ("fromJSON('1').a", "cannot fetch a from float64", 15),
    ("fromJSON('[1]')[-2]", "index out of range: -1 (array length is 1)", 16),
    ("item.index + item.value", "invalid operation: string + int", 12),
    ("fromJSON('[]') + fromJSON('1')", "invalid operation: []interface {} + float64", 16),
    ('int("x")', "invalid operation: int(x)", 1),
    ("item.index and true", "interface conversion: interface {} is string, not bool", 12),
    ("not item.index", "interface conversion: interface {} is string, not bool", 1),
    ("item.index ? 1 : 2", "interface conversion: interface {} is string, not bool", 6),
    ("upper(item.value)", "interface conversion: interface {} is int, not string", 1),
    ('date("bad")', "invalid date bad", 1),
    ('duration("1d")', 'time: invalid duration "1d"', 1),
    ('fromBase64("#")', "illegal base64 data at input byte 0", 1),
    ("1..10000000", "memory budget exceeded", 2),
    ('repeat("a", 10000000)', "memory budget exceeded", 1),
    ("randomInt(0)", "invalid argument to Intn", 1),
    ('randomInt("1")', "invalid arg type string", 1),
    ("5 % item.value % fromJSON('0')", "invalid operation: int % float64", 16),
    ("5 % (item.value - 7)", "integer divide by zero", 3),
    ("fromJSON('')", "unexpected end of JSON input", 1),
    ("fromJSON('{a}')", "invalid character 'a' looking for beginning of object key string", 1),
    ('"a" matches item.index + "["', "error parsing regexp: missing ]: [", 5),
    ('timezone("../../etc/passwd")', "unknown time zone ../../etc/passwd", 1),
    ("1 in item.value", 'operator "in" not defined on int', 3),
    ("reduce([], #acc)", "reduce of empty array with no initial value", 1),
    ("sort(fromJSON('[1,\"a\"]'))", "invalid operation: float64 < string", 1),
    ("filter(item.value, true)", "builtin filter takes only array (got int)", 13),
]


def expected(stage: str, expression: str, reason: str, column: int) -> str:
    return f"error {stage} expression: {expression}: {reason} (1:{column})\n | {expression}\n | {'.' * (column - 1)}^"


@pytest.mark.parametrize(("expression", "reason", "column"), COMPILE)
def test_compile_errors(expression: str, reason: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        expressions.evaluate(expression, SCOPE)

    assert str(caught.value) == expected("compiling", expression, reason, column)


@pytest.mark.parametrize(("expression", "reason", "column"), RUN)
def test_run_errors(expression: str, reason: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        expressions.evaluate(expression, SCOPE)

    assert str(caught.value) == expected("evaluating", expression, reason, column)


def test_the_pointer_stands_below_the_line_that_fails() -> None:
    with pytest.raises(ExpressionError) as caught:
        expressions.evaluate("1 +\n  nosuch", SCOPE)

    assert str(caught.value).endswith("unknown name nosuch (2:3)\n |   nosuch\n | ..^")


def test_an_error_shows_no_more_than_the_beginning_of_a_long_expression() -> None:
    with pytest.raises(ExpressionError) as caught:
        expressions.evaluate(f"nosuch + '{'a' * 5_000}'", SCOPE)

    assert len(str(caught.value)) < 1_200


def test_summaries_have_fixed_fields() -> None:
    scope = Scope(job=Summary("JobSummary", {"State": "FAILED", "Tags": ["nightly"]}))

    assert expressions.evaluate('{{ job.State == "FAILED" and "nightly" in job.Tags }}', scope) is True
    with pytest.raises(ExpressionError, match="type JobSummary has no field state"):
        expressions.evaluate('{{ job.state == "FAILED" }}', scope)
    with pytest.raises(ExpressionError, match="unknown name inputs"):
        expressions.evaluate("{{ inputs.x }}", scope)
