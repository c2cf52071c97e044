"""Processes of executions: exit texts, streaming, time limits, cancellation, nothing left behind."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from arc.agent import processes
from arc.agent.errors import ActionFailed
from arc.agent.execute import Execute
from arc.agent.processes import Pieces
from arc.agent.task import Owner, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Notes(Owner):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.pids: list[int] = []
        self.room = True

    @property
    def log(self) -> str:
        return "".join(self.texts)

    def report(self, task: Task, state: str, text: str) -> None:
        self.texts.append(text)

    def started(self, task: Task, pid: int, process_start: str) -> None:
        self.pids.append(pid)

    def has_room(self) -> bool:
        return self.room


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def make_task(notes: Notes) -> Iterator[Callable[..., Task]]:
    made: list[Task] = []

    def make(payload: str = "", timeout_s: float = 20.0) -> Task:
        made.append(Task(f"request-{os.getpid()}", payload, timeout_s, notes))
        return made[-1]

    yield make
    for task in made:
        task.close()


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Neither gone nor dead and not reaped yet: that is up to whoever inherits it."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("payload", "log"),
    [
        ("echo hi there", "hi there\n"),
        ('["echo","a  b","c"]', "a  b c\n"),
        ('echo "a b" $HOME *', '"a b" $HOME *\n'),
        ('["echo"]', "\n"),
    ],
)
def test_command_is_words_and_never_goes_through_a_shell(
    make_task: Callable[..., Task], notes: Notes, payload: str, log: str
) -> None:
    task = make_task(payload)

    Execute().command(task)

    assert notes.log == log
    assert task.exit_code == 0
    assert notes.texts[0] == ""  # the heartbeat that says it has begun


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ('["sh","-c","exit 7"]', "exit status 7"),
        ('["sh","-c","kill -KILL $$"]', "signal: killed"),
        ('["sh","-c","kill -SEGV $$"]', "signal: segmentation fault"),
        ("no-such-program", 'exec: "no-such-program": executable file not found in $PATH'),
        ("/no/such/program", "fork/exec /no/such/program: no such file or directory"),
        ("/dev/null", "fork/exec /dev/null: permission denied"),
        ('[""]', "exec: no command"),
        ("[1,2]", 'exec: "[1,2]": executable file not found in $PATH'),
        ("[" * 9000, f'exec: "{"[" * 9000}": executable file not found in $PATH'),  # too deep to be read as JSON
        ('["echo","\\u0000"]', "fork/exec /usr/bin/echo: invalid argument (embedded null byte)"),
        *[(payload, "invalid payload. Command should by a string or array") for payload in ("", "  ", "[]", "null")],
    ],
)
def test_failed_command_ends_with_its_exit_text(make_task: Callable[..., Task], payload: str, text: str) -> None:
    with pytest.raises(ActionFailed) as raised:
        Execute().command(make_task(payload))

    assert str(raised.value).replace("/bin/echo", "/usr/bin/echo").replace("/usr/usr", "/usr") == text


def test_nothing_is_reported_of_a_program_that_cannot_start(make_task: Callable[..., Task], notes: Notes) -> None:
    with pytest.raises(ActionFailed):
        Execute().command(make_task("no-such-program"))

    assert notes.texts == []


def test_script_is_bash_whatever_its_first_line_says(make_task: Callable[..., Task], notes: Notes) -> None:
    Execute().script(make_task('#!/usr/bin/python3\nif [[ a == a ]]; then echo "$BASH $0"; fi'))

    shell, path = notes.log.split()
    assert shell == "/bin/bash"
    assert os.path.basename(path).startswith("execute")
    assert path.endswith(".sh")
    assert not os.path.exists(path)


def test_script_may_remove_itself(make_task: Callable[..., Task], notes: Notes) -> None:
    Execute().script(make_task('rm "$0"; echo done'))

    assert notes.log == "done\n"


def test_empty_script_is_refused(make_task: Callable[..., Task]) -> None:
    with pytest.raises(ActionFailed, match="empty payload"):
        Execute().script(make_task(""))


def test_programs_do_not_get_the_credential(
    make_task: Callable[..., Task], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARC_AGENT_TOKEN", "secret")
    monkeypatch.setenv("GREETING", "hello")

    Execute().script(make_task('echo "$GREETING [$ARC_AGENT_TOKEN]"'))

    assert notes.log == "hello []\n"


def test_output_comes_while_the_program_runs(make_task: Callable[..., Task], notes: Notes, tmp_path: Path) -> None:
    go = tmp_path / "go"
    task = make_task(f"echo first; while [ ! -e {go} ]; do sleep 0.05; done; echo second >&2")
    runner = threading.Thread(target=Execute().script, args=(task,))
    runner.start()

    wait_until(lambda: "first\n" in notes.texts)
    go.touch()
    runner.join(10)

    assert notes.texts == ["", "first\n", "second\n"]


def test_child_in_the_background_delays_the_end(make_task: Callable[..., Task], notes: Notes) -> None:
    Execute().script(make_task("(sleep 0.3; echo late) & echo now"))

    assert notes.log == "now\nlate\n"


def test_program_that_closes_its_output_is_waited_for(make_task: Callable[..., Task]) -> None:
    with pytest.raises(ActionFailed, match="exit status 9"):
        Execute().script(make_task("exec >&- 2>&-; sleep 0.2; exit 9"))


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("exec sleep 60", "signal: terminated"),
        ("trap '' TERM; while true; do sleep 60; done", "signal: killed"),
        ("trap 'exit 5' TERM; sleep 60 >&- 2>&- & wait", "exit status 5"),
    ],
)
def test_time_limit_terminates_then_kills(
    make_task: Callable[..., Task], notes: Notes, monkeypatch: pytest.MonkeyPatch, script: str, text: str
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.2)

    with pytest.raises(ActionFailed) as raised:
        Execute().script(make_task(script, timeout_s=0.3))

    assert str(raised.value) == text
    assert not is_alive(notes.pids[0])


@pytest.mark.parametrize("script", ["trap 'exit 0' TERM; sleep 60 >&- 2>&- & wait", "sleep 60 & exit 0"])
def test_success_after_the_time_limit_is_a_success(
    make_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    task = make_task(script, timeout_s=0.3)

    Execute().script(task)

    assert task.exit_code == 0


def test_no_child_survives_the_time_limit(
    make_task: Callable[..., Task], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    task = make_task("sleep 60 & echo $!; sleep 60 >/dev/null 2>&1 & echo $!; exec sleep 60", timeout_s=0.5)

    with pytest.raises(ActionFailed):
        Execute().script(task)

    children = [int(line) for line in notes.log.split()]
    assert len(children) == 2
    wait_until(lambda: not any(map(is_alive, children)))


def test_who_left_the_group_with_the_pipes_does_not_hold_the_execution_for_ever(
    make_task: Callable[..., Task], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.1)
    monkeypatch.setattr(processes, "GIVE_UP_S", 0.3)
    task = make_task("setsid sleep 60 & echo $!; exit 0", timeout_s=0.3)

    Execute().script(task)

    left = int(notes.log)
    assert is_alive(left)
    os.kill(left, 9)


def test_cancelled_execution_ends_with_its_whole_group(
    make_task: Callable[..., Task], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    task = make_task("sleep 60 & echo $!; trap '' TERM; while true; do sleep 60; done")
    runner = threading.Thread(target=pytest.raises, args=(ActionFailed, Execute().script, task))
    runner.start()
    wait_until(lambda: notes.log.endswith("\n"))

    task.stop("cancelled")
    runner.join(10)

    assert not runner.is_alive()
    wait_until(lambda: not is_alive(int(notes.log)))
    assert not is_alive(notes.pids[0])


def test_full_spool_holds_the_program_up_and_loses_nothing(
    make_task: Callable[..., Task], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "FULL_SPOOL_S", 0.05)
    notes.room = False
    runner = threading.Thread(target=Execute().script, args=(make_task("seq 1 30000"),))
    runner.start()
    wait_until(lambda: notes.pids)
    runner.join(0.5)
    assert notes.log == ""

    notes.room = True
    runner.join(10)

    assert notes.log == "".join(f"{number}\n" for number in range(1, 30001))


def test_strays_are_known_by_their_mark_and_by_number_and_start(make_task: Callable[..., Task], notes: Notes) -> None:
    task = make_task("env -i sleep 60")
    runner = threading.Thread(target=pytest.raises, args=(ActionFailed, Execute().script, task))
    runner.start()
    wait_until(lambda: notes.pids)
    pid = notes.pids[0]

    assert processes.kill_strays("another-request", pid, "another start") == 0
    assert is_alive(pid)
    assert processes.kill_strays(task.request_id, None, None) == 1
    runner.join(10)

    assert not is_alive(pid)


def test_pieces_have_at_most_4096_bytes_and_end_with_a_line_where_one_is_near() -> None:
    pieces = Pieces()
    lines = b"".join(b"%07d\n" % number for number in range(1000))
    text = b"x" * 4096 + lines

    found = [*pieces.add(text), pieces.rest()]

    assert "".join(found).encode() == text
    assert all(len(piece) <= 4096 for piece in found)
    assert len(found[0]) == 4096
    assert all(piece.endswith("\n") for piece in found[1:])


def test_pieces_are_not_cut_inside_a_character() -> None:
    pieces = Pieces()
    text = "€" * 5000

    found = []
    raw = text.encode()
    for start in range(0, len(raw), 1000):
        found += pieces.add(raw[start : start + 1000])
        found.append(pieces.gathered())
    found.append(pieces.rest())

    assert "".join(found) == text


def test_what_is_no_text_becomes_a_replacement_character() -> None:
    pieces = Pieces()
    pieces.add(b"a\xff\x00b\xe2\x82")

    assert pieces.gathered() == "a\ufffd\ufffdb"
    assert pieces.rest() == "\ufffd"
