"""Expressions of jobs: the examples of the specification with exact results, and the rules around templates."""

from __future__ import annotations

import pytest

from arc.jobs import expressions
from arc.jobs.expressions import ExpressionError, Scope

CFG = '{"a":[1,2,{"b":"c"}],"n":1.5,"big":12345678901,"nul":null,"s":"q"}'
INPUTS = {"x": "1", "name": "World", "run": "true", "csv": "a,b,c", "list": "[1,2,3]", "dash-key": "D", "cfg": CFG}
BASE = {"inputs": INPUTS, "secrets": {"pw": "s3"}, "tasks": {"t1": "out1"}, "job": {"id": "J1", "name": "JN"}}
SCOPE = Scope(**BASE)
LOOP = Scope(**BASE, item={"index": "0", "value": {"k": 7.0}})

# (row of the specification, template, result)
RESULTS = [
    (1, "plain text", "plain text"),
    (2, "{{ 1 + 1 }}", "2"),
    (3, "{{ 7 / 2 }}", "3.5"),
    (3, "{{ 6 / 2 }}", "3"),
    (4, "{{ 7 % 3 }}", "1"),
    (4, "{{ -7 % 3 }}", "-1"),
    (5, "{{ 2 ** 10 }}", "1024"),
    (5, "{{ 2 ** -1 }}", "0.5"),
    (5, "{{ -2 ** 2 }}", "-4"),
    (6, "{{ 0.1 + 0.2 }}", "0.30000000000000004"),
    (7, "{{ 1e3 }}", "1000"),
    (7, "{{ 10000000.0 }}", "1e+07"),
    (8, "{{ 1_000_000 }}", "1000000"),
    (8, "{{ 0xFF }}", "255"),
    (9, "{{ \"a\" + 'b' }}", "ab"),
    (10, "hello {{ inputs.name }}!", "hello World!"),
    (11, "{{inputs.name}}-{{inputs.x}}", "World-1"),
    (12, '{{ inputs["dash-key"] }}', "D"),
    (13, "{{ inputs.missing }}", ""),
    (14, '{{ inputs.missing == "" ? "dflt" : inputs.missing }}', "dflt"),
    (15, '{{ inputs.missing ?? "dflt" }}', ""),
    (16, '{{ inputs.x == "1" }}', "true"),
    (18, "{{ int(inputs.x) > 0 }}", "true"),
    (19, '{{ inputs.name == "World" and inputs.run == "true" }}', "true"),
    (20, '{{ inputs.x == "1" && inputs.name matches "(?i)world" }}', "true"),
    (21, '{{ not ("zz" in inputs) }}', "true"),
    (21, '{{ "zz" not in inputs }}', "true"),
    (22, '{{ inputs.x in ["1","2"] }}', "true"),
    (23, '{{ inputs.name contains "orl" }}', "true"),
    (23, '{{ inputs.name startsWith "Wo" }}', "true"),
    (23, '{{ inputs.name endsWith "d" }}', "true"),
    (24, '{{ inputs.x == "1" ? "yes" : "no" }}', "yes"),
    (25, '{{ if inputs.x == "1" { "A" } else { "B" } }}', "A"),
    (26, '{{ let y = inputs.x; y + "z" }}', "1z"),
    (27, "{{ [1,2,3] }}", "[1 2 3]"),
    (27, '{{ ["a","b"] }}', "[a b]"),
    (28, "{{ [1,2,3][-1] }}", "3"),
    (28, "{{ [1,2,3][1:2] }}", "[2]"),
    (30, "{{ 1..3 }}", "[1 2 3]"),
    (30, "{{ 5..1 }}", "[]"),
    (31, "{{ sequence(1,5) }}", "[1 2 3 4]"),
    (31, "{{ sequence(5,1) }}", "[]"),
    (32, "{{ randomInt(1) }}", "0"),
    (33, '{{ split(inputs.csv, ",") }}', "[a b c]"),
    (34, '{{ split(inputs.csv, ",") | map(upper(#)) | join("+") }}', "A+B+C"),
    (35, '{{ join(map([1,2], string(#)), ",") }}', "1,2"),
    (37, "{{ fromJSON(inputs.list) }}", "[1 2 3]"),
    (38, "{{ fromJSON(inputs.cfg).a[2].b }}", "c"),
    (39, "{{ fromJSON(inputs.cfg).n + 1 }}", "2.5"),
    (40, "{{ fromJSON(inputs.cfg).big }}", "1.2345678901e+10"),
    (41, '{{ int(fromJSON("12345678")) }}', "12345678"),
    (42, "{{ fromJSON(inputs.cfg).missing }}", "<nil>"),
    (43, '{{ fromJSON(inputs.cfg).nul ?? "d" }}', "d"),
    (45, "{{ fromJSON(inputs.cfg)?.nul?.deep }}", "<nil>"),
    (46, "{{ fromJSON(inputs.cfg).s == 1 }}", "false"),
    (48, '{{ toJSON({"a":1,"b":[1,2]}) }}', '{\n  "a": 1,\n  "b": [\n    1,\n    2\n  ]\n}'),
    (49, '{{ toJSON("a<b") }}', '"a\\u003cb"'),
    (50, "{{ map([1,2,3], # * 2) }}", "[2 4 6]"),
    (50, "{{ map([1,2,3], {# * 2}) }}", "[2 4 6]"),
    (51, "{{ filter(1..5, # % 2 == 0) }}", "[2 4]"),
    (52, '{{ filter([{"a":1},{"a":2}], .a > 1) }}', "[map[a:2]]"),
    (53, "{{ reduce([1,2,3], #acc + #, 10) }}", "16"),
    (54, "{{ sum(1..4) }}", "10"),
    (54, "{{ mean([1,2]) }}", "1.5"),
    (54, "{{ max(1,5,3) }}", "5"),
    (55, '{{ sort([3,1,2],"desc") }}', "[3 2 1]"),
    (56, "{{ groupBy([1,2,3], # % 2) }}", "map[0:[2] 1:[1 3]]"),
    (57, '{{ {"a":{"b":1} } }}', "map[a:map[b:1]]"),
    (59, '{{ len("héllo") }}', "5"),
    (59, '{{ indexOf("héllo","l") }}', "3"),
    (59, '{{ "héllo"[1:3] }}', "é"),
    (60, '{{ replace("aXbX","X","-") }}', "a-b-"),
    (60, '{{ trim("__x__","_") }}', "x"),
    (61, '{{ date("2023-08-14").Format("02 Jan 2006") }}', "14 Aug 2023"),
    (62, '{{ duration("90m") }}', "1h30m0s"),
    (62, '{{ duration("1h").Seconds() }}', "3600"),
    (65, "{{ nil }}", "<nil>"),
    (66, "{{ job.name }}", "JN"),
    (66, "{{ job.State }}", ""),
    (67, "{{ inputs }}", f"map[cfg:{CFG} csv:a,b,c dash-key:D list:[1,2,3] name:World run:true x:1]"),
    (69, "{{ int(item.index) + 1 }}", "1"),
    (70, "{{ item.value.nosuch }}", "<nil>"),
    (71, "{{ 5 / 0 }}", "+Inf"),
    (72, "{{ inputs.__class__ }}", ""),
]

# (row, template, stage, reason, column)
FAILURES = [
    (17, "{{ inputs.x == 1 }}", "compiling", "invalid operation: == (mismatched types string and int)", 10),
    (29, "{{ [1,2,3][5] }}", "evaluating", "index out of range: 5 (array length is 3)", 8),
    (36, '{{ join([1,2], ",") }}', "evaluating", "interface conversion: interface {} is int, not string", 1),
    (44, "{{ fromJSON(inputs.cfg).nul.deep }}", "evaluating", "cannot fetch deep from <nil>", 26),
    (47, '{{ fromJSON("bad") }}', "evaluating", "invalid character 'b' looking for beginning of value", 1),
    (58, '{{ {"a":{"b":1}} }}', "compiling", "unexpected token EOF", 11),
    (63, "{{ nosuch }}", "compiling", "unknown name nosuch", 1),
    (64, "{{ inputs.run and true }}", "compiling", "invalid operation: and (mismatched types string and bool)", 12),
    (68, "{{ item.index + 1 }}", "evaluating", "invalid operation: string + int", 12),
    (71, "{{ 5 % 0 }}", "compiling", "integer divide by zero", 3),
    (72, '{{ __import__("os") }}', "compiling", "unknown name __import__", 1),
]


def block_of(template: str) -> str:
    return template.removeprefix("{{").partition("}}")[0].strip()


@pytest.mark.parametrize(("row", "template", "result"), RESULTS)
def test_examples_of_the_specification(row: int, template: str, result: str) -> None:
    assert expressions.render(template, LOOP if "item" in template else SCOPE) == result


@pytest.mark.parametrize(("row", "template", "stage", "reason", "column"), FAILURES)
def test_failing_examples_of_the_specification(row: int, template: str, stage: str, reason: str, column: int) -> None:
    expression = block_of(template)

    with pytest.raises(ExpressionError) as caught:
        expressions.render(template, LOOP if "item" in template else SCOPE)

    assert str(caught.value) == (
        f"error {stage} expression: {expression}: {reason} (1:{column})\n | {expression}\n | {'.' * (column - 1)}^"
    )


def test_every_row_of_the_specification_is_here() -> None:
    assert {row for row, *_ in RESULTS} | {row for row, *_ in FAILURES} == set(range(1, 73))


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("", ""),
        ("{{}}", "{{}}"),
        ("{{}} {{ 1 }}", "{{}} 1"),
        ("{{ {'a': 1}.a } }", "{{ {'a': 1}.a } }"),
        ("{{ 1\n+ 1 }}", "{{ 1\n+ 1 }}"),
        ("{{\n1 + 1\n}}", "2"),
        ("a {{ 1 }} b {{ 2 }} c", "a 1 b 2 c"),
        ("{{ 1 }", "{{ 1 }"),
        ("ä{{ inputs.name }}ö", "äWorldö"),
        ("{{ '}' }}}", "}}"),
    ],
)
def test_templates(template: str, result: str) -> None:
    assert expressions.render(template, SCOPE) == result


def test_an_expression_field_is_a_value_and_ignores_what_stands_around_its_first_block() -> None:
    assert expressions.evaluate("before {{ [1, 2] }} after {{ nosuch }}", SCOPE) == [1, 2]
    assert expressions.evaluate('split(inputs.csv, ",")', SCOPE) == ["a", "b", "c"]
    assert expressions.evaluate("{{ 1 == 1 }}", SCOPE) is True


def test_what_comes_out_of_an_expression_is_not_evaluated_again() -> None:
    scope = Scope(inputs={"sly": "{{ secrets.pw }}"}, secrets={"pw": "s3"})

    assert expressions.render("{{ inputs.sly }}", scope) == "{{ secrets.pw }}"


@pytest.mark.parametrize(
    "text", ["", "{{ nosuch.x }}", "a {{ 1 == 1 }} b", "word", "nosuch(1)", "{{ item.value.a + 1 }}"]
)
def test_the_rule_for_fields_accepts(text: str) -> None:
    assert expressions.check(text) is None


@pytest.mark.parametrize("text", ["some text here", "{{ 1 + }}", "{{", '{{ "a" + 1 }}', "{{ 5 % 0 }}", "{{ # }}"])
def test_the_rule_for_fields_refuses(text: str) -> None:
    with pytest.raises(ExpressionError, match="error compiling expression"):
        expressions.check(text)


def test_every_block_of_a_template_is_checked() -> None:
    expressions.check_template("some text here, {{ nosuch }}")
    with pytest.raises(ExpressionError):
        expressions.check_template("{{ nosuch }} {{ 1 + }}")


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        # pipes: all on the left is the argument, the call is the left operand of what follows
        ('inputs.name + "" | lower()', "world"),
        ('"a" == "a" | string()', "true"),
        ('"a" | upper() == "A"', "true"),
        ('"x" | upper() + "b"', "Xb"),
        ("[1,2] | len() * 3", "6"),
        ("[1,2] | len() * 3 + 1 - 2 ** 2", "3"),
        ("[1,2,3] | filter(# > 1) | len() > 1", "true"),
        ("[1,2,3] | map(# + 1) | first() in [2] and true | string()", "true"),
        ('true ? "a" : "b" | upper()', "a"),
        # coalescing
        ("1 + nil ?? 2", "3"),
        ("not nil ?? true", "false"),
        ("nil ?? 1 | string()", "1"),
        ("nil ?? nil ?? 3", "3"),
        ("(nil ?? 1) + 2", "3"),
        ("2 * nil ?? 3 + 1", "7"),
        # comparison
        ("1 < 2 < 3", "true"),
        ("3 > 2 > 1", "true"),
        ("1 < 3 < 2", "false"),
        ("1 == 1.0", "true"),
        ('[1,{"a":[2]}] == [1.0,{"a":[2]}]', "true"),
        ('"B" < "a"', "true"),
        ('fromJSON("true") == 1', "false"),
        # arithmetic
        ("9223372036854775807 + 1", "-9223372036854775808"),
        ("-7 % 3", "-1"),
        ("0xff + 0b11 + 0o17", "273"),
        (".5 + 1", "1.5"),
        ("2 ** 3 ** 2", "512"),
        ("2 ^ 3", "8"),
        ("-1 / 0.0", "-Inf"),
        ("0 / 0", "NaN"),
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("not false and false", "false"),
        ("not (1 == 2)", "true"),
        # literals
        (r'"a\tb\x41\u00e9\101\\"', "a\tbAéA\\"),
        ("`a\\n`", "a\\n"),
        ("[1, 2,]", "[1 2]"),
        ('{a: 1, "b": 2, ("c" + "d"): 3, 4: 5}', "map[4:5 a:1 b:2 cd:3]"),
        ("1 /* one */ + // two\n 2", "3"),
        # control
        ("1; 2", "2"),
        ("let a = 1; let b = a + 1; a + b", "3"),
        ("if false { 1 } else if true { 2 } else { 3 }", "2"),
        ("true ?: false", "true"),
        # predicates
        ("map([5,6], #index)", "[0 1]"),
        ("map(1..2, ({a: #}))", "[map[a:1] map[a:2]]"),
        ("[all(1..3, # > 0), none(1..3, # > 3), any(1..3, # == 2), one(1..3, # == 2)]", "[true true true true]"),
        ("[find(1..9, # > 3), findIndex(1..9, # > 3), findLast(1..9, # < 3), findLastIndex(1..9, # < 3)]", "[4 3 2 1]"),
        ("find([1], # > 3)", "<nil>"),
        ("[count([true,false,true]), count(1..4, # > 2), sum([1,2], # * 10)]", "[2 2 30]"),
        ("sortBy([{a:2},{a:1}], .a)", "[map[a:1] map[a:2]]"),
        ('sortBy([1,3,2], #, "desc")', "[3 2 1]"),
        ("reduce(1..4, #acc * #)", "24"),
        ("map([[1,2],[3]], map(#, # * 2))", "[[2 4] [6]]"),
        # functions
        ('[trimPrefix("foobar","foo"), trimSuffix("foobar","bar"), upper("a"), lower("B")]', "[bar foo A b]"),
        ('split("a,b,c", ",", 2)', "[a b,c]"),
        ('splitAfter("a,b,c", ",")', "[a, b, c]"),
        ('replace("aaaa", "a", "b", 2)', "bbaa"),
        ('[repeat("ab", 2), join(["a","b"]), string([1])]', "[abab ab [1]]"),
        ('[indexOf("abcabc","c"), lastIndexOf("abcabc","c"), indexOf("a","z")]', "[2 5 -1]"),
        ('[hasPrefix("ab","a"), hasSuffix("ab","a")]', "[true false]"),
        ("[abs(-5), ceil(1.2), floor(-1.2), round(2.5), round(-2.5), round(0.49999999999999994)]", "[5 2 -2 3 -3 0]"),
        ("[min([3,1]), median([1,2,3,4]), float('1.5'), int(2.9), int('-7')]", "[1 2.5 1.5 2 -7]"),
        ("[first([1,2]), last([1,2]), get([1], 5), get({a: 1}, 'a')]", "[1 2 <nil> 1]"),
        (
            "[take([1,2,3], 2), reverse([1,2]), uniq([1,1,2]), concat([1],[2]), flatten([1,[2,[3]]])]",
            "[[1 2] [2 1] [1 2] [1 2] [1 2 3]]",
        ),
        (
            "[keys({b: 1, a: 2}), values({b: 1, a: 2}), toPairs({a: 1}), fromPairs([['a', 1]])]",
            "[[a b] [2 1] [[a 1]] map[a:1]]",
        ),
        ("[toBase64('hi'), fromBase64('aGk=')]", "[aGk= hi]"),
        ("[bitand(6,3), bitor(6,3), bitxor(6,3), bitnand(6,3), bitnot(0)]", "[2 7 5 4 -1]"),
        ("[bitshl(1,3), bitshr(-8,1), bitushr(-1,60), bitshl(1,64)]", "[8 -4 15 0]"),
        ("map([nil, true, 1, 1.5, 's', [], {}], type(#))", "[nil bool int float string array map]"),
        ("randomInt() >= 0", "true"),
        (
            "toJSON([1e21, 1e-7, 100000000.0, 1.5, nil, true, [], {}])",
            "[\n  1e+21,\n  1e-7,\n  100000000,\n  1.5,\n  null,\n  true,\n  [],\n  {}\n]",
        ),
        # names
        ("$env.inputs.x", "1"),
        ("inputs.in", ""),
        ('"x" in inputs', "true"),
        ('fromJSON("null")?.a.b.c', "<nil>"),
    ],
)
def test_the_language(expression: str, result: str) -> None:
    assert expressions.to_text(expressions.evaluate(expression, SCOPE)) == result
