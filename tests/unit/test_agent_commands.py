"""Commands of the agent in this process: output and exit codes; the plug-in directory; the program as one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from arc.agent import plugins
from arc.agent.daemon import hold_lock
from arc.agent.main import main
from arc.fleet.program import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLUGIN = """
from arc.agent.plugins import ActionFailed, Plugin, Task

class Pump(Plugin):
    name = "pump"
    actions = ("flush", "jam")

    def flush(self, task: Task) -> str:
        task.run(["echo", "flushing", task.payload])
        return "flushed\\n"

    def jam(self, task: Task) -> str:
        raise ActionFailed("jammed")
"""


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ARC_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def arc(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`arc agent WORDS` with a directory of its own: exit status, output, errors."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main([*words, "--install-dir", str(tmp_path)])
        return status, *capfd.readouterr()

    return run


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_list_shows_plugins_and_actions(arc: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write(tmp_path / "plugins" / "pump.py", PLUGIN)

    status, out, _ = arc("list")

    assert status == 0
    assert [line.split(maxsplit=2) for line in out.splitlines()[1:]] == [
        ["chef", "disabled", "zero, enable, disable"],
        ["execute", "enabled", "command, script, tarball, enable, disable"],
        ["pump", "enabled", "flush, jam, enable, disable"],
        ["rpc", "enabled", "version, ping, sleep, enable, disable"],
    ]


def test_facts_are_printed_as_json(arc: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write(tmp_path / "facts.d" / "site.json", '{"site": "Zürich"}')

    status, out, _ = arc("facts", "--identity", "edge-1")

    assert status == 0
    assert json.loads(out)["site"] == "Zürich"
    assert json.loads(out)["identity"] == "edge-1"


@pytest.mark.parametrize(
    ("words", "status", "out"),
    [
        (["rpc", "ping"], 0, "pong\n"),
        (["execute", "command", "-p", "echo hi"], 0, "hi\n"),
        (["execute", "script", "-p", "echo hi; exit 3"], 1, "hi\nexit status 3\n"),
        (["rpc", "sleep", "-p", "60", "-t", "1"], 1, "context deadline exceeded\n"),
        (["pump", "flush", "--payload", "all"], 0, "flushing all\nflushed\n"),
        (["pump", "jam"], 1, "jammed\n"),
        (["chef", "zero"], 1, "Agent not enabled\n"),
    ],
)
def test_run_prints_output_and_tells_how_it_ended(
    arc: Callable[..., tuple[int, str, str]], tmp_path: Path, words: list[str], status: int, out: str
) -> None:
    write(tmp_path / "plugins" / "pump.py", PLUGIN)

    assert arc("run", *words)[:2] == (status, out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "ping"], "You need to provide a valid agent and action name"),
        (["rpc", "nothing"], "You need to provide a valid agent and action name"),
        (["rpc", "ping", "-t", "0"], "timeout needs to be a positive integer"),
        (["rpc", "ping", "-s", "-p", "x"], "--stdin and --payload are mutually exclusive"),
        (["rpc", "ping", "-i", "elsewhere"], "no server"),
        (["rpc", "ping", "-i", "elsewhere", "--server", "http://127.0.0.1:1"], "no answer"),
    ],
)
def test_run_refuses_bad_usage(arc: Callable[..., tuple[int, str, str]], words: list[str], message: str) -> None:
    status, out, errors = arc("run", *words)

    assert (status, out) == (1, "")
    assert message in errors


def test_run_reads_its_input(arc: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("echo from stdin"))

    assert arc("run", "execute", "script", "--stdin")[:2] == (0, "from stdin\n")


@pytest.mark.parametrize("words", [["facts"], ["run", "execute", "command", "--payload", "yes"]])
def test_reader_that_has_read_enough_ends_a_command(
    arc: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        status, _, errors = arc(*words)

    assert (status, errors) == (1, "")


def test_status_tells_running_stopped_and_unknown(arc: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    assert arc("status")[0] == 3

    lock = hold_lock(str(tmp_path / "state"))
    assert arc("status")[:2] == (0, f"running, process {os.getpid()}\n")
    os.close(lock)
    assert arc("status")[0] == 3

    (tmp_path / "state" / "agent.lock").unlink()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("no directory")
    assert arc("status")[0] == 4


def test_agent_needs_a_server_and_the_start_a_file(arc: Callable[..., tuple[int, str, str]]) -> None:
    assert "no server" in arc()[2]
    status, _, errors = arc("start")
    assert status == 1
    assert "write it with `agent init`" in errors


def test_bad_configuration_is_one_line_and_status_1(arc: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    status, _, errors = arc("status", "--config-file", str(tmp_path / "none"))

    assert status == 1
    assert errors.startswith("arc agent: invalid config file: ")
    assert errors.count("\n") == 1


def test_unreachable_server_ends_the_enrolment(arc: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    status, _, errors = arc("init", "--server", "http://127.0.0.1:1", "--enrolment-token", "x")

    assert status == 1
    assert "cannot reach" in errors
    assert not (tmp_path / "arc.cfg").exists()


def test_plugin_that_is_broken_or_open_to_all_or_named_like_another_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "plugins" / "a.py", "import no_such_module")
    write(tmp_path / "plugins" / "b.py", PLUGIN, 0o666)
    write(tmp_path / "plugins" / "c.py", PLUGIN.replace("pump", "rpc"))
    write(tmp_path / "plugins" / "d.py", PLUGIN.replace("pump", "valve"))

    found = plugins.load(str(tmp_path / "plugins"))

    assert sorted(found) == ["chef", "execute", "rpc", "valve"]
    assert len(caplog.records) == 3


def test_program_is_one_file_that_runs_without_psutil(tmp_path: Path) -> None:
    path = tmp_path / "arc-agent.pyz"
    path.write_bytes(program())

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-I", "-S", str(path), *words, "--install-dir", str(tmp_path / "arc")]  # -S: no psutil
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    assert run("agent", "run", "rpc", "ping").stdout == "pong\n"
    facts = json.loads(run("facts").stdout)
    assert facts["memory_total"] > 0
    assert facts["os"] == "linux"
    no_server = run()
    assert no_server.returncode == 1
    assert "no server" in no_server.stderr
