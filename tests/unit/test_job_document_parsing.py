"""Bodies become documents: content types, JSON, YAML with source texts, and bodies that mean harm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from arc.errors import Invalid
from arc.jobs.documents.models import JobDocument, ScheduledJobDocument, Task
from arc.jobs.documents.parsing import MAX_VALUES, parse
from arc.jobs.documents.unbuilt import refuse_unbuilt
from arc.jobs.documents.values import MAX_DEPTH

JSON = "application/json"
YAML = "text/yaml"
MANUAL = Path(__file__).parents[2] / "docs" / "job-documents.md"
HELLO = {"name": "hello", "tasks": [{"name": "say it", "run": "echo hi"}]}


def from_json(document: object, **options: type) -> JobDocument:
    return parse(json.dumps(document).encode(), JSON, **options)


def from_yaml(text: str) -> JobDocument:
    return parse(text.encode(), YAML)


def refusal(body: bytes | str, content_type: str | None) -> str:
    with pytest.raises(Invalid) as caught:
        parse(body.encode() if isinstance(body, str) else body, content_type)
    return str(caught.value)


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "Application/JSON"])
def test_json_is_read(content_type):
    document = parse(json.dumps(HELLO).encode(), content_type)

    assert document.as_submitted() == HELLO
    assert document.tasks[0].run == "echo hi"


@pytest.mark.parametrize("content_type", ["text/yaml", "application/x-yaml", "TEXT/yaml;charset=utf-8"])
def test_yaml_is_read(content_type):
    assert parse(b"name: hello\ntasks: [{name: say it, run: echo hi}]", content_type).as_submitted() == HELLO


def test_content_type_is_needed_and_known():
    assert refusal("{}", None) == "missing content type"
    assert refusal("{}", "application/yaml") == "unknown content type: application/yaml"
    assert refusal("{}", "") == "unknown content type: "


# JSON


def test_json_keys_match_in_any_case_and_the_last_one_counts():
    body = b'{"Name": "a", "NAME": "hello", "Tasks": [{"naMe": "say it", "run": "no", "run": "echo hi"}]} trailing'

    assert parse(body, JSON).as_submitted() == HELLO


def test_keys_of_maps_keep_their_case():
    document = from_json({**HELLO, "inputs": {"Name": "a", "name": "b"}})

    assert document.inputs == {"Name": "a", "name": "b"}


def test_null_is_absent_and_in_a_map_empty():
    body = {
        "name": "hello",
        "output": None,
        "tasks": [{"name": "t", "retry": None, "env": {"A": None}, "tags": [None]}],
    }

    assert from_json(body).as_submitted() == {"name": "hello", "tasks": [{"name": "t", "env": {"A": ""}, "tags": [""]}]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": 1}, "name: must be a text"),
        ({"tags": "a"}, "tags: must be a list"),
        ({"tasks": {"name": "t"}}, "tasks: must be a list"),
        ({"tasks": ["t"]}, "tasks[0]: must be an object"),
        ({"inputs": []}, "inputs: must be an object"),
        ({"tasks": [{"name": "t", "env": {"A": 1}}]}, "tasks[0].env.A: must be a text"),
        ({"tasks": [{"name": "t", "limits": {"cpus": 1}}]}, "tasks[0].limits.cpus: must be a text"),
        ({"tasks": [{"name": "t", "priority": 1.5}]}, "tasks[0].priority: must be a whole number"),
        ({"tasks": [{"name": "t", "priority": "1"}]}, "tasks[0].priority: must be a whole number"),
        ({"tasks": [{"name": "t", "priority": True}]}, "tasks[0].priority: must be a whole number"),
        ({"tasks": [{"name": "t", "priority": 10**30}]}, "tasks[0].priority: must be a whole number"),
        (
            {"tasks": [{"name": "t", "retry": {"limit": 1, "scalingFactor": True}}]},
            "tasks[0].retry.scalingFactor: must be a number",
        ),
        (
            {"tasks": [{"name": "t", "subjob": {"name": "s", "tasks": [{"name": "u"}], "detached": "yes"}}]},
            "tasks[0].subjob.detached: must be true or false",
        ),
        ({"nosuch": None}, "nosuch: unknown field"),
        ({"schedule": {"cron": "@daily"}}, "schedule: unknown field"),
        ({"auto_delete": {}}, "auto_delete: unknown field"),
        (
            {"tasks": [{"name": "t", "pre": [{"name": "p", "mounts": []}]}]},
            "tasks[0].pre[0].mounts: unknown field",
        ),
        ({"tasks": [{"name": "t", "a b": 1}]}, 'tasks[0]."a b": unknown field'),
    ],
)
def test_wrong_types_and_unknown_fields_are_named_by_their_path(change, problem):
    assert refusal(json.dumps({**HELLO, **change}), JSON) == problem


def test_all_wrong_fields_are_named():
    body = {"tasks": [{"nosuch": 1, "each": {"task": {"other": 1}}}], "tags": 3}

    assert refusal(json.dumps(body), JSON).splitlines() == [
        "tags: must be a list",
        "tasks[0].each.task.other: unknown field",
        "tasks[0].nosuch: unknown field",
    ]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "the body is empty"),
        (" \n", "the body is empty"),
        ("[]", "the document must be an object"),
        ('"x"', "the document must be an object"),
        ("{", "line 1, column 2: Expecting property name enclosed in double quotes"),
        ('{"name":\n nope}', "line 2, column 2: Expecting value"),
        ('{"name": NaN}', "NaN is no JSON"),
        ('{"name": "\\u0000"}', "name: must not contain U+0000"),
        ('{"name": "\\ud800"}', "name: must not contain half of a surrogate pair"),
        ('{"\\ud800": 1}', "the document has a name with half of a surrogate pair"),
        (b'{"name": "\xff"}', "the body is not UTF-8: invalid start byte at byte 10"),
    ],
)
def test_broken_json_is_refused(body, problem):
    assert refusal(body, JSON) == problem


def test_names_in_maps_are_checked_like_texts():
    assert refusal('{"inputs": {"\\u0000": "x"}}', JSON) == 'inputs."\\u0000": must not contain U+0000'
    assert refusal('{"inputs": {"\\ud800": "x"}}', JSON).endswith(": must not contain half of a surrogate pair")


# YAML


@pytest.mark.parametrize(
    ("source", "text"),
    [
        *((source, source) for source in ("1.10", "0x1F", "yes", "012", "5", "true", "2024-05-01", "1_000", ".inf")),
        *((source, "") for source in ("~", "null", "", "''")),
        *(("'~'", "~"), ('"null"', "null"), ("!!str 5", "5"), ("! 5", "5"), ('"{{ inputs.x }}"', "{{ inputs.x }}")),
        ("|\n      a\n      b\n", "a\nb\n"),
        (">-\n      a\n      b\n", "a b"),
    ],
)
def test_texts_keep_their_source(source, text):
    document = from_yaml(f"name: n\ntasks:\n- name: t\n  env:\n    A: {source}\n")

    assert document.tasks[0].env == {"A": text}


@pytest.mark.parametrize("source", ["3", "3.0", "0x3", "!!int 3"])
def test_whole_numbers_of_yaml(source):
    assert from_yaml(f"name: n\ntasks: [{{name: t, priority: {source}}}]").tasks[0].priority == 3


@pytest.mark.parametrize("source", ["'3'", "abc", "3.5", ".nan", ".inf", "[3]", "yes", "٣", "9" * 5_000])
def test_what_is_no_whole_number(source):
    text = f"name: n\ntasks:\n- name: t\n  priority: {source}\n"

    assert refusal(text, YAML) == "line 4: tasks[0].priority: must be a whole number"


@pytest.mark.parametrize(("source", "value"), [("true", True), ("Yes", True), ("on", True), ("no", False)])
def test_truth_values_of_yaml(source, value):
    document = from_yaml(
        f"name: n\ntasks: [{{name: t, subjob: {{name: s, tasks: [{{name: u}}], detached: {source}}}}}]"
    )

    assert document.tasks[0].subjob.detached is value


def test_null_of_yaml_is_absent():
    document = from_yaml("name: n\noutput: ~\ntasks:\n- name: t\n  parallel:\n  retry: null\n")

    assert document.as_submitted() == {"name": "n", "tasks": [{"name": "t"}]}


def test_anchors_aliases_and_merges():
    document = from_yaml("""
name: n
tasks:
- &base
  name: one
  env: &env {A: 1, B: 2}
- <<: *base
  name: two
- name: three
  env: {<<: [*env, {C: 3, A: 9}], B: 0}
""")

    assert [task.to_dict() for task in document.tasks] == [
        {"name": "one", "env": {"A": "1", "B": "2"}},
        {"name": "two", "env": {"A": "1", "B": "2"}},
        {"name": "three", "env": {"A": "1", "B": "0", "C": "3"}},
    ]


def test_only_the_first_document_counts():
    assert from_yaml("name: hello\ntasks: [{name: say it, run: echo hi}]\n---\nbroken: [").as_submitted() == HELLO


def test_all_unknown_fields_are_listed_with_their_lines():
    text = """
name: n
nosuch: 1
tasks:
- name: t
  other: 2
  cmd: echo
Output: x
"""

    assert refusal(text, YAML).splitlines() == [
        "line 3: nosuch: unknown field",
        "line 6: tasks[0].other: unknown field",
        "line 7: tasks[0].cmd: must be a list",
        "line 8: Output: unknown field",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the body is empty"),
        ("# nothing\n", "the body is empty"),
        ("just text", "the document must be an object"),
        ("- a", "line 1: the document must be an object"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed in this context"),
        ("a:\n - %", "line 2, column 4: found character that cannot start any token"),
        ("name: {{ inputs.x }}", "line 1: a key must be a text; a value that begins with {{ needs quotes"),
        ("name: a\nname: b", "line 2: key 'name' is already in line 1"),
        ("name: *nosuch", "line 1: no anchor 'nosuch' has ended before this alias"),
        ("tasks: &a [*a]", "line 1: no anchor 'a' has ended before this alias"),
        ("<<: 3", "line 1: << takes a mapping or a list of mappings"),
        ("name: !!binary aGk=", "line 1: unknown tag 'tag:yaml.org,2002:binary'"),
        (
            "!!python/object/apply:os.system [x]",
            "line 1: unknown tag 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
        ('name: "\\0"', "line 1: name: must not contain U+0000"),
        (b"name: \xff", "the body is not UTF-8: invalid start byte at byte 6"),
    ],
)
def test_broken_yaml_is_refused(text, problem):
    assert refusal(text, YAML) == problem


# Bodies that mean harm


@pytest.mark.parametrize(
    ("opening", "content_type"),
    [("[", JSON), ('{"a":', JSON), ("[", YAML), ("{a: ", YAML), ("- ", YAML), ("? ", YAML), ("!" * 64, YAML)],
)
def test_ten_thousand_levels_are_refused(opening, content_type):
    assert 0 < len(refusal(opening * 10_000, content_type)) < 200


@pytest.mark.parametrize("content_type", [JSON, YAML])
def test_depth_is_limited(content_type):
    text = "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)

    assert refusal(text, content_type) == f"lists and objects are nested more than {MAX_DEPTH} levels deep"


def test_depth_of_yaml_is_limited_before_the_end_is_read():
    assert refusal("[" * 20_000, YAML) == f"lists and objects are nested more than {MAX_DEPTH} levels deep"


def test_composites_may_be_nested_as_deep_as_the_limit_says():
    task: dict[str, object] = {"name": "t"}
    for _ in range(MAX_DEPTH // 3 - 1):
        task = {"name": "t", "parallel": {"tasks": [task]}}

    assert from_json({"name": "n", "tasks": [task]}).as_submitted() == {"name": "n", "tasks": [task]}


@pytest.mark.parametrize("content_type", [JSON, YAML])
def test_number_of_values_is_limited(content_type):
    body = json.dumps({"tags": [""] * MAX_VALUES})

    assert refusal(body, content_type) == f"the document has more than {MAX_VALUES} values"


def test_billion_laughs_are_refused():
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]

    assert re.fullmatch(r"line \d+: the document is too large .*", refusal("\n".join(lines), YAML))


def test_chain_of_aliases_is_no_way_around_the_depth():
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 200))]

    assert refusal("\n".join(lines), YAML) == f"lists and objects are nested more than {MAX_DEPTH} levels deep"


def test_long_text_in_many_aliases_is_refused():
    text = f"name: &a {'x' * 100_000}\ntags: [{', '.join(['*a'] * 1_000)}]"

    assert refusal(text, YAML) == "line 2: the document is too large with its aliases written out"


def test_errors_have_a_limit():
    problems = refusal(json.dumps({f"key{i}": 1 for i in range(10_000)}), JSON).splitlines()

    assert len(problems) == 101
    assert problems[-1] == "and more"


@given(st.binary(max_size=200), st.sampled_from([JSON, YAML]))
def test_any_bytes_are_read_or_refused(body, content_type):
    try:
        parse(body, content_type)
    except Invalid as error:
        str(error).encode()  # fit for an answer


FIELDS = [
    "name",
    "tasks",
    "env",
    "retry",
    "limit",
    "mounts",
    "each",
    "list",
    "task",
    "subjob",
    "if",
    "priority",
    "wait",
]
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["<<", "{{", "5s"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(TREES, st.sampled_from([JSON, YAML]))
def test_any_tree_is_read_or_refused(tree, content_type):
    try:
        parse(json.dumps(tree).encode(), content_type)  # JSON is YAML too
    except Invalid as error:
        str(error).encode()


# What comes out again

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\x7f", exclude_categories=["Cc", "Cs"]), max_size=20)
NAME = TEXT.filter(bool)
MAPS = st.dictionaries(TEXT, TEXT, min_size=1, max_size=3)
LISTS = st.lists(TEXT, min_size=1, max_size=3)
AUX = st.fixed_dictionaries({"name": NAME}, optional={"run": NAME, "env": MAPS, "files": MAPS, "cmd": LISTS})
TASKS = st.fixed_dictionaries(
    {"name": NAME},
    optional={
        "image": NAME,
        "run": NAME,
        "env": MAPS,
        "cmd": LISTS,
        "pre": st.lists(AUX, min_size=1, max_size=2),
        "retry": st.fixed_dictionaries({"limit": st.integers(1, 10)}, optional={"initialDelay": st.just("1m30s")}),
        "timeout": st.sampled_from(["5s", "1h"]),
        "priority": st.integers(1, 9),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"name": NAME, "tasks": st.lists(TASKS, min_size=1, max_size=3)},
    optional={"inputs": MAPS, "secrets": MAPS, "tags": LISTS, "autoDelete": st.just({"after": "72h"})},
)


@given(DOCUMENTS)
def test_documents_can_be_submitted_again(document):
    as_yaml = yaml.safe_dump(document, allow_unicode=True).encode()

    assert from_json(document).as_submitted() == document
    assert parse(as_yaml, YAML).as_submitted() == document


EVERYTHING = """
name: n
description: d
tags: [t]
inputs: {a: b}
secrets: {c: d}
output: "1"
defaults:
  retry: {limit: 1}
  limits: {cpus: "1"}
  timeout: 1s
  queue: q
  priority: 1
webhooks:
- {url: "http://x", headers: {a: b}, event: job.StateChange, if: "true"}
permissions: [{role: public}]
autoDelete: {after: 1h}
tasks:
- &task
  name: t
  description: d
  cmd: [a]
  entrypoint: [b]
  run: r
  image: i
  registry: {username: u, password: p}
  env: {A: ""}
  files: {f: c}
  queue: q
  pre: [{name: p, timeout: 1s, files: {f: ""}}]
  post: [{name: p, registry: {username: u}}]
  sidecars:
  - {name: s, probe: {path: /, port: 80, timeout: 1m}}
  mounts:
  - {type: volume, target: /x, opts: {o: "1"}}
  networks: [n]
  retry: {limit: 2, initialDelay: 1s, scalingFactor: 2.5}
  limits: {cpus: 1/2, memory: 1g}
  timeout: 1h
  var: v
  if: "true"
  gpus: all
  tags: [t]
  workdir: /w
  priority: 9
- {name: p, parallel: {tasks: [*task]}}
- {name: e, each: {var: v, list: "[1]", task: *task, concurrency: 2}}
- name: s
  subjob:
    name: s
    description: d
    tasks: [*task]
    inputs: {a: b}
    secrets: {c: d}
    autoDelete: {after: 1h}
    output: "1"
    detached: true
    webhooks: [{url: "http://x"}]
"""


def test_every_field_can_be_submitted_again():
    document = yaml.safe_load(EVERYTHING)

    assert from_yaml(EVERYTHING).as_submitted() == document
    assert from_json(document).as_submitted() == document
    assert Task.model_validate(document["tasks"][0]).to_dict() == document["tasks"][0]


def test_wait_is_not_stored():
    document = from_json({**HELLO, "wait": {"timeout": "5s"}})

    assert document.wait is not None
    assert document.wait.timeout == "5s"
    assert document.as_submitted() == HELLO


def test_id_of_a_sub_job_is_ignored():
    document = from_json(
        {"name": "n", "tasks": [{"name": "t", "subjob": {"id": "1", "name": "s", "tasks": [{"name": "u"}]}}]}
    )

    assert document.tasks[0].to_dict() == {"name": "t", "subjob": {"name": "s", "tasks": [{"name": "u"}]}}


def test_what_may_be_secret_is_not_in_a_repr():
    document = from_json({**HELLO, "secrets": {"token": "s3cr3t"}, "tasks": [{"name": "t", "env": {"A": "s3cr3t"}}]})

    assert "s3cr3t" not in repr(document)


def test_examples_of_the_manual_can_be_submitted_again():
    examples = re.findall(r"^```yaml\n(.*?)^```", MANUAL.read_text("utf-8"), re.DOTALL | re.MULTILINE)

    assert len(examples) == 5
    for example in examples:
        document = from_yaml(example)
        assert from_yaml(yaml.safe_dump(document.as_submitted())) == document


# What is not built yet


def test_what_is_not_built_is_named_and_refused():
    document = from_json(
        {
            "name": "n",
            "tasks": [
                {"name": "a", "run": "true"},
                {"name": "b", "parallel": {"tasks": [{"name": "c"}]}},
                {"name": "d", "each": {"list": "[1]", "task": {"name": "e"}}},
            ],
            "webhooks": [{"url": "http://x"}],
            "permissions": [{"role": "public"}],
        }
    )

    with pytest.raises(Invalid) as caught:
        refuse_unbuilt(document)

    assert str(caught.value) == "not available yet: tasks[1].parallel, tasks[2].each, webhooks, permissions"


def test_schedules_are_not_built():
    document = from_json({**HELLO, "schedule": {"cron": "@daily"}}, kind=ScheduledJobDocument)

    with pytest.raises(Invalid, match="not available yet: schedule"):
        refuse_unbuilt(document)


def test_what_is_built_passes():
    refuse_unbuilt(from_json(HELLO))
