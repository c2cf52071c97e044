"""What a caller may say of an action, how arguments are described, what a node says of itself, and the options."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from arc import config
from arc.actions import attributes, execkind, rules, schema, tracing, transfer
from arc.actions import host as hosts
from arc.actions.attributes import Datastore, Role, Shard, Shards, Version
from arc.actions.errors import ActionEncode, InvalidArgs, InvalidImport, InvalidTime
from arc.actions.execkind import Allowed
from arc.actions.external import External
from arc.actions.host import Host, NodeOptions
from arc.actions.worker import EngineOptions
from arc.errors import ConfigError
from arc.servernode import are_enabled

if TYPE_CHECKING:
    from arc.actions.kinds import Kind
    from arc.actions.nodekinds import Reload

ROOT = Path(__file__).parents[2]

# --- headers and times


def test_headers_that_are_kept() -> None:
    given = [("X-Team", "a"), ("traceparent", "00-1"), ("Accept", "x"), ("User-Agent", "curl"), ("Host", "x"),
             ("Content-Type", "x"), ("Content-Length", "1"), ("Accept-Encoding", "gzip")]  # fmt: skip

    assert rules.headers(given) == {"x-team": "a", "traceparent": "00-1"}


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "X-Api-Key", "X-Forwarded-For", "Proxy-Authorization",
                                  "X-Auth-Token", "X-Arc-Anything", "Forwarded", "X-Real-IP", "Secret"])  # fmt: skip
def test_headers_that_are_never_kept(name: str) -> None:
    assert rules.headers([(name, "s3cret")], deny=["SECRET"]) == {}


@pytest.mark.parametrize("value", ["caf\xe9", "a\x7f", "a\nb", "x" * 5000])
def test_header_that_cannot_be_kept(value: str) -> None:
    with pytest.raises(ActionEncode):
        rules.headers([("x-team", value)])


def test_too_many_headers() -> None:
    most = [(f"x-{number}", "") for number in range(64)]

    assert len(rules.headers(tracing.in_own_span(most))) == 65
    with pytest.raises(ActionEncode):
        rules.headers([*most, ("x-64", "")])


# --- trace context

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("parent", "flags"),
    [
        (f"00-{TRACE}-{CALLER}-01", "01"),
        (f"00-{TRACE}-{CALLER}-00", "00"),
        (f" 00-{TRACE}-{CALLER}-03\t", "03"),
        (f"00-{TRACE}-{CALLER}-fd", "01"),
        (f"cc-{TRACE}-{CALLER}-01-what-will-be", "01"),
    ],
)
def test_request_gets_a_span_of_its_own_in_the_trace_of_its_caller(parent: str, flags: str) -> None:
    state = [("TraceState", "a=1"), ("tracestate", "b=2")]
    given = [("X-Team", "a"), ("Traceparent", parent), *state, ("x-b3-sampled", "1")]

    found = dict(tracing.in_own_span(given))

    version, trace, span, kept_flags = found.pop("traceparent").split("-")
    assert (version, trace, kept_flags) == ("00", TRACE, flags)
    assert re.fullmatch("[0-9a-f]{16}", span)
    assert span != CALLER
    assert found == {"x-team": "a", "tracestate": "a=1,b=2", "x-b3-sampled": "1"}


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [""],
        ["00-1"],
        [f"00-{TRACE.upper()}-{CALLER}-01"],
        [f"00-{'0' * 32}-{CALLER}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"ff-{TRACE}-{CALLER}-01"],
        [f"00-{TRACE}-{CALLER}-01-more"],
        [f"00-{TRACE}-{CALLER}-01, 00-{TRACE}-{CALLER}-01"],
        [f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-01"],
        ["caf\xe9"],
    ],
)
def test_without_readable_trace_context_a_trace_begins(parents: list[str]) -> None:
    given = [*(("traceparent", parent) for parent in parents), ("tracestate", "a=1")]

    found = dict(tracing.in_own_span(given))

    assert list(found) == ["traceparent"]
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", found["traceparent"])
    assert TRACE not in found["traceparent"]


@pytest.mark.parametrize("state", ["caf\xe9=1", "a=" + "x" * 511, ""])
def test_trace_state_that_cannot_be_kept_fails_no_request(state: str) -> None:
    given = [("traceparent", f"00-{TRACE}-{CALLER}-01"), ("tracestate", state)]

    assert list(rules.headers(tracing.in_own_span(given))) == ["traceparent"]


@pytest.mark.parametrize("text", ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00+00:00", "2020-01-01t00:00:00.000z"])
def test_time_in_utc(text: str) -> None:
    assert rules.created_us(text) == 1_577_836_800_000_000


@pytest.mark.parametrize("text", ["2020-01-01T00:00:00+02:00", "2020-01-01T00:00:00", "2020-01-01T00:00:00-00:00",
                                  "2020-13-01T00:00:00Z", "yesterday", ""])  # fmt: skip
def test_time_that_is_not_utc_or_none(text: str) -> None:
    with pytest.raises(InvalidTime):
        rules.created_us(text)


# --- arguments

_SCHEMA = schema.options(
    "name",
    name={"type": "string", "minLength": 1, "maxLength": 5},
    size={"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
    mode={"enum": ["on", 1, None], "default": "on"},
    tags={"type": "array", "items": {"type": "string"}, "maxItems": 2, "default": []},
    env={"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
    ratio={"type": ["number", "null"], "default": None},
)


@pytest.mark.parametrize(
    ("args", "path", "expected"),
    [
        (None, "args", "an object"),
        ([], "args", "an object"),
        ({}, "args.name", "a text from 1 to 5 characters, which is required"),
        ({"name": ""}, "args.name", "a text from 1 to 5 characters"),
        ({"name": "x", "size": 0}, "args.size", "an integer from 1 to 9"),
        ({"name": "x", "size": True}, "args.size", "an integer from 1 to 9"),
        ({"name": "x", "size": 2.0}, "args.size", "an integer from 1 to 9"),
        ({"name": "x", "mode": True}, "args.mode", 'one of "on", 1, null'),
        ({"name": "x", "tags": ["a", 1]}, "args.tags.1", "a text"),
        ({"name": "x", "tags": ["a", "b", "c"]}, "args.tags", "an array of at most 2"),
        ({"name": "x", "env": {"A": 1}}, "args.env.A", "a text"),
        ({"name": "x", "ratio": "1"}, "args.ratio", "a number or null"),
        ({"name": "x", "nmae": 1}, "args.nmae", "none of this name; known are name, size, mode, tags, env, ratio"),
    ],
)
def test_first_argument_that_does_not_fit_is_named(args: Any, path: str, expected: str) -> None:
    with pytest.raises(InvalidArgs) as caught:
        schema.check(_SCHEMA, args)

    assert caught.value.details == {"path": path, "expected": expected}
    assert str(caught.value) == f"{path}: expected {expected}"


def test_arguments_that_fit_get_their_defaults() -> None:
    args = {"name": "x", "ratio": 0.5}

    schema.check(_SCHEMA, args)

    assert schema.with_defaults(_SCHEMA, args) == {
        "name": "x", "size": 3, "mode": "on", "tags": [], "env": {}, "ratio": 0.5,
    }  # fmt: skip
    assert schema.with_defaults(None, [1]) == [1]


def test_pattern_between_marks_must_match_the_whole_text() -> None:
    kind = {"type": "string", "pattern": "^[a-z]+$"}

    schema.check(kind, "abc")
    for text in ("abc\n", "1abc", ""):
        with pytest.raises(InvalidArgs, match=re.escape("^[a-z]+$")):
            schema.check(kind, text)


def test_secrets_are_masked_wherever_they_are() -> None:
    kind = {"properties": {"a": {"x-secret": True}, "b": {"items": {"properties": {"c": {"x-secret": True}}}}}}

    assert schema.masked(kind, {"a": {"k": "v"}, "b": [{"c": 1, "d": 2}], "e": 3}) == {
        "a": schema.MASK, "b": [{"c": schema.MASK, "d": 2}], "e": 3,
    }  # fmt: skip
    others = {"properties": {"a": {}}, "additionalProperties": {"x-secret": True}}
    assert schema.masked(others, {"a": 1, "b": 2}) == {"a": 1, "b": schema.MASK}


# --- import


def old(action_id: str = "9A1F2F6E-1F0A-47A0-8E6B-2F3A0F5F7D02", **action: Any) -> dict[str, Any]:
    """An action as the first agents showed it."""
    stop, start = ({"payload": None, "stage": stage, "state": "DONE"} for stage in (0, 1))
    events = [("08:15", "DONE", start), ("08:11", "RUNNING", stop), ("08:09", "NEW", None)]
    return {
        "action": {
            "id": action_id,
            "kind": "replicante.io/service.restart",
            "args": {"stop": {}, "start": {}},
            "headers": {"X-B3-TraceId": "463ac35c9f6413ad", "Authorization": "Bearer x"},
            "requester": "API",
            "created_ts": "2019-08-06T07:08:09.123456+00:00",
            "finished_ts": "2019-08-06T07:08:15Z",
            "state": "DONE",
            "state_payload": start,
        }
        | action,
        "history": [
            {"timestamp": f"2019-08-06T07:{time}Z", "state": state, "state_payload": payload}
            for time, state, payload in events
        ],
    }


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"state": "RUNNING"}, 'action.state: expected one of "DONE", "FAILED"'),
        ({"state": "NEW", "finished_ts": None}, 'action.state: expected one of "DONE", "FAILED"'),
        ({"state": "FAILED"}, "history.0: expected the state and the payload of the action"),
        ({"state_payload": None}, "history.0: expected the state and the payload of the action"),
        ({"finished_ts": None}, "action.finished_ts: expected an RFC 3339 time in UTC"),
        ({"created_ts": "2019-08-06T07:08:09+02:00"}, "action.created_ts: expected an RFC 3339 time in UTC"),
        ({"id": "x"}, "action.id: expected a UUID of 36 characters"),
        ({"kind": "a b"}, "action.kind: expected a text of the form"),
        ({"requester": "FOO"}, "action.requester: expected one of"),
        ({"headers": {"a": "caf\xe9"}}, "action.headers: expected at most 64 of printable ASCII"),
        ({"phase": 1}, "action.phase: expected none of this name"),
    ],
)
def test_action_that_cannot_be_imported(change: dict[str, Any], complaint: str) -> None:
    lines = f"{json.dumps(old())}\n\n{json.dumps(old(**change))}".encode()

    with pytest.raises(InvalidImport) as caught:
        transfer.read(lines)

    assert str(caught.value).startswith(f"line 3: {complaint}")


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([], "history: expected at least one event"),
        (["NEW", "RUNNING", "DONE"], "history.0.state: expected what can follow RUNNING"),
        (["DONE", "RUNNING"], "history.1.state: expected NEW, as the oldest event stands last"),
        (["DONE", "DONE", "NEW"], "history.0.state: expected what can follow DONE"),
        (["DONE", "NEW", "NEW"], "history.1.state: expected what can follow NEW"),
        (["GONE"], "history.0.state: expected one of"),
    ],
)
def test_history_that_no_action_can_have(events: list[str], complaint: str) -> None:
    history = [{"timestamp": "2019-08-06T07:08:09Z", "state": state, "state_payload": None} for state in events]

    with pytest.raises(InvalidImport) as caught:
        transfer.read(json.dumps(old(state_payload=None) | {"history": history}).encode())

    assert str(caught.value).startswith(f"line 1: {complaint}")


def test_history_of_another_action() -> None:
    history = [event | {"action_id": "0b8f4d0e-6c1c-4d55-9f0b-3f2b7f6b1c11"} for event in old()["history"]]

    with pytest.raises(InvalidImport, match=r"line 1: history\.0\.action_id: expected the id of the action"):
        transfer.read(json.dumps(old() | {"history": history}).encode())


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"action": 1, "history": []}', '{"a": NaN}', "[" * 5000, "\xff"])
def test_line_that_is_no_action(line: str) -> None:
    with pytest.raises(InvalidImport, match="line 2: "):
        transfer.read(f"\n{line}".encode("latin-1"))


def test_imported_actions_come_as_they_were_scheduled() -> None:
    late, early = old(created_ts="2020-01-01T00:00:00Z"), old(scheduled_ts="2019-01-01T00:00:00Z")
    deep = old(args=json.loads("[" * 64 + "]" * 64))

    read = transfer.read("\r\n".join(map(json.dumps, (late, early, deep))).encode())

    years = [record.as_dict()["scheduled_ts"][:4] for record, _ in read]
    assert years == ["2019", "2019", "2020"]


# --- what a node says of itself


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.4.0", "1.4.0"),
        ("1.4", "1.4.0"),
        ("1.4.0rc1", "1.4.0-rc.1"),
        ("1.4.0.dev3+g5be1c0f", "1.4.0-dev.3+g5be1c0f"),
        ("1.4.0.post2", "1.4.0+post.2"),
    ],
)
def test_python_versions_as_semver(version: str, expected: str) -> None:
    assert attributes.info_agent(Version(version))["version"]["number"] == expected


def git(root: Path, *args: str) -> None:
    named = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", "-C", str(root), *named, *args], check=True, capture_output=True)


def test_version_of_a_working_copy_says_what_was_changed(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")

    def taint() -> str:
        return Version.of_sources("1.0.0", tmp_path).taint

    assert re.fullmatch("[0-9a-f]{40}", Version.of_sources("1.0.0", tmp_path).checkout)
    assert taint() == "not tainted"
    (tmp_path / "file").write_text("2")
    assert taint() == "working directory tainted"
    git(tmp_path, "add", "file")
    assert taint() == "index tainted"
    (tmp_path / "new").touch()
    assert taint() == "index and working directory tainted"


def test_version_of_an_installed_program_is_unknown(tmp_path: Path) -> None:
    assert Version.of_sources("1.0.0", tmp_path).as_dict() == {
        "number": "1.0.0", "checkout": "unknown", "taint": "unknown",
    }  # fmt: skip


def test_datastore() -> None:
    plain = Datastore("plant-7", "press-03:8000", "Arc", "1.4")

    assert attributes.info_datastore(lambda: plain) == {
        "cluster_id": "plant-7", "id": "press-03:8000", "node_id": "press-03:8000", "kind": "Arc", "version": "1.4.0",
    }  # fmt: skip
    named = dataclasses.replace(plain, display_name="Plant 7")
    assert attributes.info_datastore(lambda: named)["cluster_display_name"] == "Plant 7"


def test_identity_is_kept_when_the_host_is_renamed() -> None:
    facts: dict[str, str] = {}

    first = attributes.identity(facts.setdefault, "", "", "old-name:8000")
    second = attributes.identity(facts.setdefault, "", "", "new-name:9000")

    assert first == second
    assert re.fullmatch("arc-[0-9a-f]{8}", first[0])
    assert first[1] == "old-name:8000"
    assert attributes.identity(facts.setdefault, "plant-7", "press", "x:1") == ("plant-7", "press")


def test_shards_are_sorted_and_whole() -> None:
    held = {
        "edge/b": Shard("edge/b", Role.SECONDARY, offset=-(2**63), lag=41),
        "_meta": Shard("_meta", Role.PRIMARY, offset=2**63 - 1, lag=3),
        "Data": Shard("Data", Role.PRIMARY),
    }

    assert Shards(lambda: held, held.__getitem__).as_dict() == {
        "shards": [
            {"id": "_meta", "role": "PRIMARY", "commit_offset": {"unit": "seconds", "value": 2**63 - 1}, "lag": None},
            {"id": "Data", "role": "PRIMARY", "commit_offset": None, "lag": None},
            {"id": "edge/b", "role": "SECONDARY", "commit_offset": {"unit": "seconds", "value": -(2**63)},
             "lag": {"unit": "seconds", "value": 41}},
        ]
    }  # fmt: skip
    assert Shards(list, held.__getitem__).as_dict() == {"shards": []}


def test_offset_of_a_shard_never_goes_back() -> None:
    offsets = iter([100, 40, 101])
    shards = Shards(lambda: ["a"], lambda shard_id: Shard(shard_id, Role.PRIMARY, next(offsets)))

    assert [shards.as_dict()["shards"][0]["commit_offset"]["value"] for _ in range(3)] == [100, 100, 101]


def test_shard_that_cannot_be_read_hides_no_other() -> None:
    def read(shard_id: str) -> Shard:
        if shard_id == "bad":
            raise OSError("unreadable")
        return Shard(shard_id, Role.PRIMARY, 7)

    shards = Shards(lambda: ["good", "bad"], read).as_dict()["shards"]

    assert shards[0] == {"id": "bad", "role": "OTHER", "commit_offset": None, "lag": None}
    assert shards[1]["role"] == "PRIMARY"


# --- options, documentation, size

OPTIONS = {option.name: option for option in config.OPTIONS if option.section == "actions"}


def test_options_have_the_defaults_of_the_configuration() -> None:
    section = {name: tuple(d) if isinstance(d := option.default, list) else d for name, option in OPTIONS.items()}

    assert EngineOptions.of(section) == EngineOptions()
    assert NodeOptions.of(section) == NodeOptions()


@pytest.mark.parametrize(
    ("section", "line", "complaint"),
    [
        ("actions", "intervall_s = 1", "unknown option actions.intervall_s; the nearest is actions.interval_s"),
        ("actions", "interval_s = 0.01", "must be at least 0.05"),
        ("actions", "interval_s = 3601", "must be at most 3600"),
        ("actions", "interval_s = nan", "must be a number"),
        ("actions", "interval_s = '1'", "must be a number"),
        ("actions", "enabled = 'maybe'", "must be true or false"),
        ("actions", "queue_max = 0", "must be at least 1"),
        ("actions", "keep = 1_000_000_000_000_000_000_000", "must be at most"),
        ("actions", "keep = 1.5", "must be a whole number"),
        ("actions", "history_max = 9", "must be at least 10"),
        ("actions", "payload_max = '1KB'", "must be at least"),
        ("actions", "payload_max = '1GB'", "must be at most"),
        ("actions", "crash_max = -1", "must be at least 0"),
        ("actions", "id_memory_days = -1", "must be at least 0"),
        ("actions", "header_deny = ['x-team:']", "'x-team:' is no name of a header"),
        ("actions", "header_deny = [1]", "must be a list of texts"),
        ("actions", "requester_api = 1", "must be true or false"),
        ("actions", "plugins = 1", "must be a text"),
        ("actions", "service_supervisor = 'runit'", "must be one of none, systemd, commands"),
        ("actions", "service_allow = ['app-(a|b)']", "'app-.a|b.' is no unit"),
        ("actions", "service_allow = ['']", "'' is no unit"),
        ("actions", "service_wait_s = inf", "must be a number"),
        ("actions", "service_start_command = ['']", "must begin with the name of a program"),
        ("actions", "reboot_command = 7", "must be a list of texts"),
        ("node", "id = 7", "must be a text"),
        ("node", "name = 'x'", "unknown option node.name; the nearest is"),
        ("fleet", "offline_after_s = 0", "must be at least 1"),
        ("fleet", "long_poll_slots = -1", "must be at least 0"),
        ("fleet", "long_poll_s = 301", "must be at most 300"),
        ("fleet", "execution_retention_days = inf", "must be a number"),
        ("fleet", "transport = 'pigeon'", "must be one of http"),
        ("fleet", "public_url = 'arc.example.com'", "must be an address such as https://"),
    ],
)
def test_option_that_cannot_be_used_stops_the_start_by_name(
    section: str, line: str, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "arc.conf"
    file.write_text(f"[{section}]\n{line}\n")

    with pytest.raises(ConfigError, match=complaint) as caught:
        config.load(str(file), {}, {})

    assert f"{section}.{line.partition(' ')[0]}" in str(caught.value)


def test_options_that_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "arc.conf"
    file.write_text(
        "[actions]\nservice_allow = ['nginx.service', 'app-[ab]*', 'getty@tty?.service']\nheader_deny = ['X-Team']\n"
        "reboot_command = ['systemctl', 'reboot']\n[compat]\nrequester_api = true\n"
    )

    assert config.load(str(file), {}, {}).get("actions", "requester_api") is True


def test_actions_that_everybody_could_schedule_stop_the_start() -> None:
    opened = {"auth.enabled": "false", "server.host": "0.0.0.0"}

    with pytest.raises(ConfigError, match=r"ConfigClash: \[actions\] enabled = true needs \[auth\] enabled = true"):
        are_enabled(config.load(None, {}, opened | {"actions.enabled": "true"}))
    assert not are_enabled(config.load(None, {}, opened))
    assert not are_enabled(config.load(None, {}, {"actions.enabled": "false"}))
    assert are_enabled(config.load(None, {}, opened | {"actions.enabled": "true", "server.host": "127.0.0.1"}))
    assert are_enabled(config.load(None, {}, {}))


def every_kind() -> list[Kind]:
    """All that a node can have."""

    def task(args: dict[str, Any]) -> dict[str, Any]:
        return {}

    def never() -> Reload:
        raise AssertionError

    host = Host(
        flush=task, compact=task, backup=task, check_backup=lambda backup_id: [], retain=task, verify=task,
        stop_store=task, resume_store=task, refresh_facts=lambda: None, restart=lambda: None, reload=never,
        reboot=lambda: None,
    )  # fmt: skip
    supervised = NodeOptions(
        debug_kinds=True, service_supervisor="systemd", service_unit="app", service_allow=["*"],
        update_command=["true"], shutdown_command=["true"],
    )  # fmt: skip
    external = External("NAME", ("true",), ("true",)).kind()
    return [*hosts.kinds(host, supervised), execkind.kind({"NAME": Allowed(("true",))}), external]


def test_every_kind_is_documented_with_its_arguments_and_stages() -> None:
    rows = dict(re.findall(r"(?m)^\| `([^` ]+/[^` ]+)` \| (.*) \|$", (ROOT / "docs" / "actions.md").read_text("utf-8")))

    assert sorted(rows) == sorted(kind.name for kind in every_kind())
    for kind in every_kind():
        described, args, stages, permission = rows[kind.name].split(" | ")
        assert described.startswith(kind.description) or kind.name.startswith("external"), kind.name
        assert set(re.findall("`([a-z_]+)`", args)) == set((kind.args or {}).get("properties", ())), kind.name
        assert re.findall("`([a-z]+)`", stages) == list(kind.stages), kind.name
        assert permission == f"`{kind.permission}`", kind.name


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "actions.md").read_text("utf-8")

    assert not [name for name in OPTIONS if f"`{name}`" not in text]


def test_every_description_can_be_shown() -> None:
    for kind in every_kind():
        shown = json.loads(json.dumps(kind.as_dict()))
        assert shown["description"], kind.name
        assert all(member.get("description") for member in (shown["args_schema"] or {}).get("properties", {}).values())


def test_engine_needs_only_the_standard_library_and_little_memory(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; import arc.actions.host as h; from arc.actions.engine import ActionEngine\n"
        "engine = ActionEngine(pathlib.Path(sys.argv[1]), h.kinds(h.Host(), h.NodeOptions(service_allow=['*'])))\n"
        "engine.start(); engine.schedule('arc.edge/test.ping', None)\n"
        "while engine.queue(): pass\n"
        "engine.stop()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))\n"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')))"
    )

    found = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}", str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout.splitlines()  # fmt: skip

    assert set(found[0].split()) - {"__main__", "__mp_main__"} <= {"arc", "psutil"}
    assert int(found[1]) < 25_000  # kB
