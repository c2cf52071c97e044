"""Every rule of the job document, with the line that names it when it is broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arc.errors import Invalid
from arc.jobs.documents.models import JobDocument, ScheduledJobDocument
from arc.jobs.documents.parsing import parse

REGULAR = {"name": "t"}
SUBJOB = {"name": "s", "tasks": [REGULAR]}
EACH = {"list": "[1]", "task": REGULAR}
PARALLEL = {"tasks": [REGULAR]}


def line(path: str, tag: str) -> str:
    field = path.rpartition(".")[2]
    return f"Key: '{path}' Error:Field validation for '{field}' failed on the '{tag}' tag"


def problems(document: Any, kind: type = JobDocument) -> list[str]:
    """Broken rules as lines; empty when the document is accepted."""
    try:
        parse(json.dumps(document).encode(), "application/json", kind)
    except Invalid as error:
        return str(error).splitlines()
    return []


def job(**fields: Any) -> dict[str, Any]:
    return {"name": "n", "tasks": [REGULAR], **fields}


def task_problems(**fields: Any) -> list[str]:
    return problems(job(tasks=[{"name": "t", **fields}]))


def lines(*rules: str) -> list[str]:
    """`Name required` of the only task."""
    return [line(f"Job.Tasks[0].{path}", tag) for path, tag in map(str.split, rules)]


def test_several_rules_in_the_order_of_the_fields():
    assert problems({"output": "{{", "tasks": [{"var": "v" * 65}, {"name": "ok", "priority": 10}]}) == [
        "Key: 'Job.Name' Error:Field validation for 'Name' failed on the 'required' tag",
        "Key: 'Job.Tasks[0].Name' Error:Field validation for 'Name' failed on the 'required' tag",
        "Key: 'Job.Tasks[0].Var' Error:Field validation for 'Var' failed on the 'max' tag",
        "Key: 'Job.Tasks[1].Priority' Error:Field validation for 'Priority' failed on the 'max' tag",
        "Key: 'Job.Output' Error:Field validation for 'Output' failed on the 'expr' tag",
    ]


@pytest.mark.parametrize(
    ("document", "rules"),
    [
        ({}, [("Job.Name", "required"), ("Job.Tasks", "required")]),
        ({"name": "n", "tasks": None}, [("Job.Tasks", "required")]),
        ({"name": "n", "tasks": []}, [("Job.Tasks", "min")]),
        (job(name="n" * 257), [("Job.Name", "max")]),
        (job(name="ü" * 256), []),
        (job(secrets={"a": "x\n" * 298, "b": "x"}), []),
        (job(secrets={"a": "x\n" * 298, "b": "x\n"}), [("Job.Secrets", "max")]),
        (job(autoDelete={"after": "1d"}), [("Job.AutoDelete.After", "duration")]),
        (job(autoDelete={"after": "72h"}), []),
        (job(webhooks=[{"if": "{{"}]), [("Job.Webhooks[0].URL", "required"), ("Job.Webhooks[0].If", "expr")]),
        (job(webhooks=[{"url": "not a url", "event": "nosuch"}]), []),
        (
            job(defaults={"retry": {}, "timeout": "10", "queue": "x-1", "priority": -1}),
            [
                ("Job.Defaults.Retry.Limit", "required"),
                ("Job.Defaults.Timeout", "duration"),
                ("Job.Defaults.Queue", "queue"),
                ("Job.Defaults.Priority", "min"),
            ],
        ),
        (job(permissions=[{}]), [("Job.Permissions[0].perm", "roleoruser")]),
        (job(permissions=[{"role": "a", "user": "b"}]), [("Job.Permissions[0].perm", "roleoruser")]),
        (job(permissions=[{"role": "a"}, {"user": "b"}]), []),
    ],
)
def test_rules_of_the_job(document, rules):
    assert problems(document) == [line(path, tag) for path, tag in rules]


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({"name": ""}, ["Name required"]),
        ({"priority": -1}, ["Priority min"]),
        ({"priority": 10}, ["Priority max"]),
        ({"priority": 9}, []),
        ({"retry": {}}, ["Retry.Limit required"]),
        ({"retry": {"limit": 0}}, ["Retry.Limit required"]),
        ({"retry": {"limit": -1}}, ["Retry.Limit min"]),
        ({"retry": {"limit": 11}}, ["Retry.Limit max"]),
        ({"retry": {"limit": 10, "initialDelay": "5s", "scalingFactor": 1.5}}, []),
        (
            {"retry": {"limit": 1, "initialDelay": "5", "scalingFactor": 0}},
            ["Retry.InitialDelay duration", "Retry.ScalingFactor min"],
        ),
        ({"retry": {"limit": 1, "scalingFactor": 10.5}}, ["Retry.ScalingFactor max"]),
        ({"var": "v" * 64}, []),
        ({"var": "v" * 65}, ["Var max"]),
        ({"workdir": "w" * 256}, []),
        ({"workdir": "w" * 257}, ["Workdir max"]),
        ({"each": {}}, ["Each.List required", "Each.Task required"]),
        ({"each": {**EACH, "concurrency": -1}}, ["Each.Concurrency min"]),
        ({"each": {**EACH, "concurrency": 100_000}}, ["Each.Concurrency max"]),
        ({"each": {**EACH, "concurrency": 99_999}}, []),
        ({"each": {"list": "some text here", "task": {}}}, ["Each.List expr", "Each.Task.Name required"]),
        ({"parallel": {}}, ["Parallel.Tasks required"]),
        ({"parallel": {"tasks": []}}, ["Parallel.Tasks min"]),
        ({"parallel": {"tasks": [{}]}}, ["Parallel.Tasks[0].Name required"]),
        ({"subjob": {}}, ["SubJob.Name required", "SubJob.Tasks required"]),
        ({"subjob": {"name": "s", "tasks": []}}, ["SubJob.Tasks min"]),
        ({"subjob": {"name": "s", "tasks": [{}]}}, ["SubJob.Tasks[0].Name required"]),
        (
            {"subjob": {**SUBJOB, "output": "{{", "autoDelete": {"after": "1d"}, "webhooks": [{}]}},
            ["SubJob.AutoDelete.After duration", "SubJob.Output expr", "SubJob.Webhooks[0].URL required"],
        ),
        ({"pre": [{}], "post": [{}]}, ["Pre[0].Name required", "Post[0].Name required"]),
        ({"pre": [{"name": "p", "timeout": "5"}]}, ["Pre[0].Timeout duration"]),
        ({"sidecars": [{"timeout": "5"}]}, ["Sidecars[0].Name required", "Sidecars[0].Timeout duration"]),
        ({"sidecars": [{"name": "s"}]}, []),
    ],
)
def test_rules_of_a_task(fields, rules):
    assert task_problems(**fields) == lines(*rules)


@pytest.mark.parametrize(
    ("probe", "rules"),
    [
        ({}, ["Path required", "Port required"]),
        ({"path": "/", "port": 0}, ["Port required"]),
        ({"path": "/", "port": -1}, ["Port min"]),
        ({"path": "/", "port": 65_536}, ["Port max"]),
        ({"path": "/" * 257, "port": 65_535, "timeout": "1"}, ["Path max", "Timeout duration"]),
        ({"path": "/", "port": 1, "timeout": "30s"}, []),
    ],
)
def test_rules_of_a_probe(probe, rules):
    found = task_problems(sidecars=[{"name": "s", "probe": probe}])

    assert found == lines(*(f"Sidecars[0].Probe.{rule}" for rule in rules))


@pytest.mark.parametrize(
    ("mount", "tag"),
    [
        ({}, "typerequired"),
        ({"source": "a;b", "target": "/tork"}, "typerequired"),
        ({"type": "volume", "source": "a"}, "sourcenotempty"),
        ({"type": "volume"}, "targetrequired"),
        ({"type": "bind", "target": "/tork"}, "sourcerequired"),
        ({"type": "bind", "source": "a;b", "target": "c;d"}, "invalidsource"),
        ({"type": "bind", "source": "/a\n"}, "invalidsource"),
        ({"type": "bind", "source": "/a", "target": "c;d"}, "invalidtarget"),
        ({"type": "tmpfs", "target": "/tork"}, "invalidtarget"),
        ({"type": "tmpfs", "target": "/tork/x"}, None),
        ({"type": "bind", "source": "/a b=c_d.e-f"}, None),
        ({"type": "volume", "target": "/a"}, None),
        ({"type": "nosuch"}, None),
    ],
)
def test_first_broken_rule_of_a_mount(mount, tag):
    assert task_problems(mounts=[mount]) == (lines(f"Mounts[0].mount {tag}") if tag else [])


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({"parallel": PARALLEL, "each": EACH}, ["each paralleloreach", "parallel paralleloreach"]),
        ({"parallel": PARALLEL, "subjob": SUBJOB}, ["subjob parallelorsubjob", "parallel parallelorsubjob"]),
        ({"each": EACH, "subjob": SUBJOB}, ["subjob eachorsubjob", "each eachorsubjob"]),
        (
            {"parallel": PARALLEL, "each": EACH, "subjob": SUBJOB},
            [
                *("each paralleloreach", "parallel paralleloreach"),
                *("subjob parallelorsubjob", "parallel parallelorsubjob"),
                *("subjob eachorsubjob", "each eachorsubjob"),
            ],
        ),
    ],
)
def test_a_composite_is_one_of_three(fields, rules):
    assert task_problems(**fields) == lines(*rules)


FORBIDDEN = {
    "image": "i",
    "cmd": ["c"],
    "entrypoint": ["e"],
    "run": "r",
    "env": {"A": "1"},
    "queue": "q",
    "pre": [{"name": "p"}],
    "post": [{"name": "p"}],
    "mounts": [{"type": "volume", "target": "/x"}],
    "retry": {"limit": 1},
    "limits": {"cpus": "1"},
    "timeout": "1s",
}


@pytest.mark.parametrize("composite", [{"parallel": PARALLEL}, {"each": EACH}, {"subjob": SUBJOB}])
def test_a_composite_runs_nothing_itself(composite):
    assert task_problems(**composite, **FORBIDDEN) == lines(*(f"{name} invalidcompositetask" for name in FORBIDDEN))
    for name, value in FORBIDDEN.items():
        assert task_problems(**composite, **{name: value}) == lines(f"{name} invalidcompositetask")


def test_a_composite_may_say_what_concerns_it():
    fields = {
        "description": "d",
        "var": "v",
        "if": "true",
        "tags": ["t"],
        "priority": 1,
        "networks": ["n"],
        "files": {"f": "c"},
        "registry": {},
        "gpus": "all",
        "workdir": "/w",
        "sidecars": [{"name": "s"}],
    }

    assert task_problems(parallel=PARALLEL, **fields) == []


def test_rules_of_a_field_come_before_those_of_its_task():
    assert task_problems(name="", each=EACH, image="i", workdir="w" * 257) == lines(
        "Name required", "Workdir max", "image invalidcompositetask"
    )


@pytest.mark.parametrize("text", ["", "5s", "1h30m", ".5s", "0", "-5s", "+1.5h", "1.s", "1us", "1µs", "1ns", "1ms"])
def test_durations(text):
    assert task_problems(timeout=text) == []


@pytest.mark.parametrize(
    "text", ["10", "1d", "5 s", "5S", "s", ".s", "-", "1h30", " 5s", "5s\n", "9" * 30 + "h", "1m" * 60]
)
def test_no_durations(text):
    assert task_problems(timeout=text) == lines("Timeout duration")


@pytest.mark.parametrize("text", ["", "video", "{{inputs.q}}", "default", "Jobs", "x"])
def test_queues(text):
    assert task_problems(queue=text) == []


@pytest.mark.parametrize(
    "text",
    ["x-1", "jobs", "pending", "started", "completed", "error", "heartbeat", "logs", "progress", "redeliveries"],
)
def test_no_queues(text):
    assert task_problems(queue=text) == lines("Queue queue")


@pytest.mark.parametrize("text", ["", "{{ nosuch.x }}", "a {{ 1 == 1 }} b", "word", "{{ 1 }} {{ 1 + }}", "1 < 2"])
def test_expressions(text):
    assert task_problems(**{"if": text}) == []


@pytest.mark.parametrize("text", ["some text here", "{{ 1 + }}", "{{", '{{ "a" + 1 }}'])
def test_no_expressions(text):
    assert task_problems(**{"if": text}) == lines("If expr")
    assert problems(job(output=text)) == [line("Job.Output", "expr")]


@pytest.mark.parametrize(
    ("wait", "problem"),
    [({"timeout": "zz"}, 'time: invalid duration "zz"'), ({}, 'time: invalid duration ""')],
)
def test_wait_is_checked_before_all_rules(wait, problem):
    assert problems({"wait": wait}) == [problem]


def test_schedule_is_required_for_a_scheduled_job():
    assert problems(job(), ScheduledJobDocument) == [line("ScheduledJob.Schedule", "required")]
    assert problems(job(schedule={}), ScheduledJobDocument) == [line("ScheduledJob.Schedule.Cron", "required")]
    assert problems(job(schedule={"cron": "61 * * * *"}), ScheduledJobDocument) == [
        line("ScheduledJob.Schedule.Cron", "cron")
    ]
    assert problems(job(schedule={"cron": "0 9 * * MON-FRI"}), ScheduledJobDocument) == []
