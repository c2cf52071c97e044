"""Commands of actions: `exec` from the allow-list, external kinds, and the plug-in directory they come from."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from arc.actions import commands, execkind, external, plugins
from arc.actions.engine import ActionEngine
from arc.actions.errors import ActionNotAvailable, InvalidArgs
from arc.actions.execkind import Allowed
from arc.actions.external import External
from arc.actions.records import State
from arc.actions.worker import EngineOptions
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arc.actions.kinds import Kind
    from arc.actions.records import ActionRecord

EXEC = "arc.edge/exec"
EXTERNAL = "external.agent.replicante.io/job"
WAIT_S = 20.0  # the longest anything here may take


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Callable[..., ActionEngine]]:
    """`boot(kinds...)`: an engine on the test's directory; the one before ends."""
    made: list[ActionEngine] = []

    def start(*kinds: Kind) -> ActionEngine:
        if made:
            made.pop().stop()
        made.append(ActionEngine(tmp_path / "actions", kinds, EngineOptions(interval_s=0.05)))
        return made[-1]

    yield start
    for engine in made:
        engine.stop()


def run(engine: ActionEngine, action: ActionRecord) -> ActionRecord:
    """Cycle, with the pauses the engine asks for, until this action has ended."""
    deadline = time.monotonic() + WAIT_S
    while not engine.get(action.id)[0].state.is_final:
        assert time.monotonic() < deadline, "the action does not end"
        time.sleep(engine.cycle() or 0)
    return engine.get(action.id)[0]


def python(code: str, *args: str, **rest: Any) -> Kind:
    """An exec kind with one command `run`."""
    return execkind.kind({"run": Allowed((sys.executable, "-c", code), args=args, **rest)})


def result(record: ActionRecord) -> Any:
    """The payload of the last stage."""
    return record.payload["payload"]


# --- exec


def test_command_of_the_list_runs_with_its_arguments(boot: Callable[..., ActionEngine]) -> None:
    engine = boot(python("import sys; print(sys.argv[1:]); print(sys.stdin.read(), file=sys.stderr)", "[a-z]+", r"\d"))
    action = engine.schedule(EXEC, {"command": "run", "args": ["abc", "7"], "stdin": "words"})

    record = run(engine, action)

    assert record.state is State.DONE
    found = result(record)
    assert found.pop("duration_s") >= 0
    assert found == {
        "exit_code": 0, "signal": None, "stdout": "['abc', '7']\n", "stderr": "words\n", "truncated": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ({"command": "other"}, "args.command"),
        ({}, "args.command"),
        ({"command": "run", "args": ["A"]}, "args.args.0"),
        ({"command": "run", "args": ["a\n"]}, "args.args.0"),
        ({"command": "run", "args": ["a", "b"]}, "args.args"),
        ({"command": "run", "args": [1]}, "args.args.0"),
        ({"command": "run", "env": {"PATH": "/tmp"}}, "args.env.PATH"),
        ({"command": "run", "timeout_s": 11}, "args.timeout_s"),
        ({"command": "run", "shell": True}, "args.shell"),
    ],
)
def test_what_is_not_allowed_is_refused(boot: Callable[..., ActionEngine], args: Any, path: str) -> None:
    engine = boot(python("", "[a-z]+", env=("NAME",), timeout_max_s=10))

    with pytest.raises(InvalidArgs) as caught:
        engine.schedule(EXEC, {"timeout_s": 5} | args)

    assert caught.value.details["path"] == path


def test_no_shell_reads_the_arguments(boot: Callable[..., ActionEngine]) -> None:
    engine = boot(execkind.kind({"say": Allowed(("echo",), args=(".*",))}))

    record = run(engine, engine.schedule(EXEC, {"command": "say", "args": ["$(id) `id` ; id > x"]}))

    assert result(record)["stdout"] == "$(id) `id` ; id > x\n"


def test_exit_status_that_is_no_good(boot: Callable[..., ActionEngine]) -> None:
    kind = python("import sys; print('said'); sys.exit(int(sys.argv[1]))", r"\d", ok_codes=(0, 2))
    engine = boot(kind)

    good = run(engine, engine.schedule(EXEC, {"command": "run", "args": ["2"]}))
    bad = run(engine, engine.schedule(EXEC, {"command": "run", "args": ["3"]}))

    assert (good.state, result(good)["exit_code"]) == ("DONE", 2)
    assert (bad.state, result(bad)["exit_code"], result(bad)["stdout"]) == ("FAILED", 3, "said\n")
    assert result(bad)["variant"] == "ExitStatus"


def test_time_limit_ends_the_whole_group(boot: Callable[..., ActionEngine]) -> None:
    code = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    engine = boot(python(code))

    record = run(engine, engine.schedule(EXEC, {"command": "run", "timeout_s": 1}))

    assert (record.state, result(record)["variant"], result(record)["signal"]) == ("FAILED", "Timeout", 15)
    assert not psutil.pid_exists(int(result(record)["stdout"])) or _is_zombie(int(result(record)["stdout"]))


def _is_zombie(pid: int) -> bool:
    """Ended, and whoever adopted it has not looked yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_cancelled_command_is_ended(boot: Callable[..., ActionEngine]) -> None:
    engine = boot(python("import time; time.sleep(60)"))
    action = engine.schedule(EXEC, {"command": "run"})
    engine.cycle()
    engine.cycle()

    engine.cancel(action.id, "enough")

    assert result(run(engine, action))["variant"] == "Cancelled"


def test_only_the_end_of_much_output_is_kept(boot: Callable[..., ActionEngine]) -> None:
    engine = boot(python("print('ä' * 1_000_000 + 'end')"))

    record = run(engine, engine.schedule(EXEC, {"command": "run"}))

    assert record.state is State.DONE
    assert result(record)["stdout"].endswith("äend\n")
    assert result(record)["truncated"]


def test_environment_holds_no_secrets_of_ours(
    boot: Callable[..., ActionEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARC_TOKEN", "secret")
    engine = boot(python("import json, os; print(json.dumps(dict(os.environ)))", env=("NAME",)))

    record = run(engine, engine.schedule(EXEC, {"command": "run", "env": {"NAME": "value"}}))

    environment = json.loads(result(record)["stdout"])
    assert environment["NAME"] == "value"
    assert "ARC_TOKEN" not in environment
    assert environment["PATH"] == os.environ["PATH"]


def test_secrets_of_a_command_are_not_shown(boot: Callable[..., ActionEngine]) -> None:
    engine = boot(python("", env=("KEY",)))
    action = engine.schedule(EXEC, {"command": "run", "env": {"KEY": "secret"}, "stdin": "secret"})

    assert "secret" not in json.dumps(engine.info(action.id))
    assert engine.get(action.id)[0].args["stdin"] == "secret"


def test_command_whose_process_died_with_its_starter(boot: Callable[..., ActionEngine]) -> None:
    kind = python("import time; time.sleep(60)")
    engine = boot(kind)
    action = engine.schedule(EXEC, {"command": "run"})
    engine.cycle()
    left_over = psutil.Process(result(engine.get(action.id)[0])["pid"])

    engine = boot(python(""))  # a process that knows nothing of it
    record = run(engine, action)

    assert record.payload["variant"] == "Interrupted"
    assert left_over.wait(WAIT_S) == -9
    # The starter of this test did not die, so it still has the pipes of the command.
    command = kind.invoke.stages[0].invoke.__self__._started.pop(action.id)  # type: ignore[attr-defined]
    command.wait(WAIT_S)


def test_program_that_is_missing(boot: Callable[..., ActionEngine]) -> None:
    engine = boot(execkind.kind({"run": Allowed(("/nowhere/program",))}))

    record = run(engine, engine.schedule(EXEC, {"command": "run"}))

    assert (record.state, record.payload["variant"]) == ("FAILED", "FileNotFoundError")


def test_process_that_leaves_its_output_to_another_is_not_waited_for() -> None:
    began = time.monotonic()

    found = commands.run(["sh", "-c", "setsid sleep 3 & echo started"], WAIT_S)

    assert (found.stdout, found.status, found.ended) == ("started\n", 0, "exit")
    assert time.monotonic() - began < 3


def test_process_that_leaves_its_output_to_a_chatterer_is_not_waited_for() -> None:
    chatterer = "trap '' TERM; for i in $(seq 100); do echo x; sleep 0.05; done"

    found = commands.run(["setsid", "sh", "-c", f"({chatterer}) & echo started"], WAIT_S)

    assert found.stdout.startswith("started\n")
    assert found.is_good
    assert found.duration_s < 5  # the chatterer has just begun; it ends with its next word


def test_input_that_nobody_reads_is_no_error() -> None:
    assert commands.run(["true"], WAIT_S, b"x" * 1_000_000).is_good


# --- external kinds


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], tuple[str, ...]]:
    """`script(name, text)`: a shell script as a command."""

    def make(name: str, text: str) -> tuple[str, ...]:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return (str(path),)

    return make


def test_external_action_is_begun_once_and_then_looked_at(
    boot: Callable[..., ActionEngine], script: Callable[[str, str], tuple[str, ...]], tmp_path: Path
) -> None:
    begin = script("begin", f"cat >> {tmp_path}/asked")
    look = script(
        "look",
        f"""cat > {tmp_path}/looked
        echo x >> {tmp_path}/looks
        if [ $(wc -l < {tmp_path}/looks) -lt 3 ]; then echo '{{"status": "running"}}'
        else echo '{{"status": "finished"}}'; fi""",
    )
    engine = boot(External("job", begin, look).kind())
    action = engine.schedule(EXTERNAL, {"x": 1}, headers=[("X-Team", "a")])

    record = run(engine, action)

    asked = {"args": {"x": 1}, "headers": {"x-team": "a"}, "id": action.id, "kind": EXTERNAL}
    assert json.loads((tmp_path / "asked").read_text()) == asked
    assert json.loads((tmp_path / "looked").read_text()) == asked
    assert (record.state, record.payload) == ("DONE", None)
    assert [item.state for item in engine.get(action.id)[1]] == ["DONE", "RUNNING", "NEW"]


def test_external_action_that_failed(
    boot: Callable[..., ActionEngine], script: Callable[[str, str], tuple[str, ...]]
) -> None:
    look = script("look", """echo '{"status": "failed", "error": "no luck"}'""")
    engine = boot(External("job", ("true",), look).kind())

    record = run(engine, engine.schedule(EXTERNAL, None))

    assert (record.state, record.payload) == ("FAILED", {"error": "no luck"})


@pytest.mark.parametrize(
    ("begin", "look", "variant"),
    [
        ("/nowhere/begin", "true", "ExternalActionStart"),
        ("false", "true", "ExternalActionExec"),
        ("true", "/nowhere/look", "ExternalActionCheck"),
        ("true", "false", "ExternalActionCheckResult"),
        ("true", "true", "ExternalActionCheckDecode"),
        ("true", "echo [1]", "ExternalActionCheckDecode"),
        ("true", 'echo {"status":"odd"}', "ExternalActionCheckDecode"),
        ("true", 'echo {"status":"failed","error":"\\ud800"}', "ExternalActionCheckDecode"),
    ],
)
def test_errors_of_external_actions(boot: Callable[..., ActionEngine], begin: str, look: str, variant: str) -> None:
    engine = boot(External("job", (begin,), tuple(look.split())).kind())

    record = run(engine, engine.schedule(EXTERNAL, None))

    assert (record.state, record.payload["variant"]) == ("FAILED", variant)


def test_check_that_hangs_is_ended(boot: Callable[..., ActionEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "COMMAND_S", 0.2)
    engine = boot(External("job", ("true",), ("sleep", "60")).kind())

    record = run(engine, engine.schedule(EXTERNAL, None))

    assert record.payload["variant"] == "ExternalActionCheck"


# --- the directory


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_directory_holds_commands_and_external_kinds(boot: Callable[..., ActionEngine], tmp_path: Path) -> None:
    write(tmp_path, "disk.toml", 'description = "Disk space"\n[exec]\nargv = ["df", "-h"]\nargs = ["/[a-z/]*"]\n')
    write(tmp_path, "say.toml", '[exec]\nargv = ["echo", "hello"]\nok_codes = [0, 1]\ntimeout_max_s = 5\n')
    write(tmp_path, "job.toml", '[external]\naction = ["true"]\ncheck = ["echo", \'{"status": "finished"}\']\n'
          'deadline_s = 60\n[external.args]\ntype = "object"\nrequired = ["name"]\n')  # fmt: skip
    write(tmp_path, "notes.txt", "of no interest")
    engine = boot(*plugins.kinds(plugins.read(str(tmp_path))))

    assert [kind.name for kind in engine.kinds()] == [EXEC, EXTERNAL]
    said = run(engine, engine.schedule(EXEC, {"command": "say", "timeout_s": 5}))
    assert result(said)["stdout"] == "hello\n"
    assert run(engine, engine.schedule(EXTERNAL, {"name": "x"})).state is State.DONE
    with pytest.raises(InvalidArgs, match=r"args\.name"):
        engine.schedule(EXTERNAL, {})


def test_no_directory_no_kinds(boot: Callable[..., ActionEngine]) -> None:
    with pytest.raises(ActionNotAvailable):
        boot().schedule(EXEC, {"command": "run"})


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("x.toml", "[exec", "x.toml"),
        ("x.toml", "", "needs one table"),
        ("x.toml", '[exec]\nargv = ["a"]\n[external]\naction = ["a"]\ncheck = ["a"]\n', "needs one table"),
        ("x.toml", "[exec]\nargv = []\n", "argv must not be empty"),
        ("x.toml", '[exec]\nargv = "df -h"\n', "argv"),
        ("x.toml", '[exec]\nargv = ["df", 1]\n', "argv"),
        ("x.toml", '[exec]\nargv = ["df"]\nargs = ["["]\n', "x.toml"),
        ("x.toml", '[exec]\nargv = ["df"]\nshell = true\n', "unknown shell"),
        ("x.toml", '[exec]\nargv = ["df"]\ntimeout_max_s = 0\n', "timeout_max_s"),
        ("x.toml", '[external]\naction = ["a"]\n', "check"),
        ("x.toml", '[external]\naction = ["a"]\ncheck = ["a"]\n[external.args]\noneOf = []\n', "not oneOf"),
        *(
            ("x.toml", f'[external]\naction = ["a"]\ncheck = ["a"]\n[external.args]\n{wrong}\n', wrong.split()[0])
            for wrong in (
                'minimum = "a"',
                "enum = 5",
                "properties = 5",
                'required = "abc"',
                "required = [1]",
                "type = {}",
            )
        ),
        ("x.toml", '[external]\naction = ["a"]\ncheck = ["a"]\n[external.args]\ndefault = 2020-01-01\n', "JSON"),
        ("a b.toml", '[exec]\nargv = ["df"]\n', "no name"),
    ],
)
def test_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    write(tmp_path, name, text)

    with pytest.raises(ConfigError, match=complaint):
        plugins.read(str(tmp_path))


def test_file_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "x.toml", '[exec]\nargv = ["df"]\n').chmod(0o666)

    with pytest.raises(ConfigError, match="everybody"):
        plugins.read(str(tmp_path))


def test_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.toml").symlink_to("/nowhere")

    with pytest.raises(ConfigError, match=r"x\.toml"):
        plugins.read(str(tmp_path))


def test_directory_that_is_missing() -> None:
    with pytest.raises(ConfigError, match="/nowhere"):
        plugins.read("/nowhere")
