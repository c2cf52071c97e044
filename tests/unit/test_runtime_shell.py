"""Tasks as processes of this host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from arc.errors import ConfigError
from arc.runtimes.base import Limits, Mount, Registry, RuntimeUnavailable, Sidecar, Step, Stop, TaskStopped, Work
from arc.runtimes.shell import ShellOptions, ShellRuntime
from tests.runtime_contract import TASK, Recorder, RuntimeContract, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
NOBODY = "65534"
PLAIN = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(Path(psutil.__file__).parents[1])])}


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def make_runtime(work_dir: Path) -> Callable[..., ShellRuntime]:
    def make(instance: str = "test", **options: Any) -> ShellRuntime:
        return ShellRuntime(ShellOptions(**{"work_dir": work_dir, **options}), instance)

    return make


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A directory that other users can reach."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o711)
        yield Path(path) / "work"


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_in(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"a process id in {path}")
    return int(path.read_text())


class TestShellRuntime(RuntimeContract):
    FAILURE = "error executing command: exit status"

    def test_failure_without_output(self, make_runtime: Callable[..., ShellRuntime]) -> None:
        error, _ = self.fails(make_runtime(), self.work("exit 5"))

        assert error == "error executing command: exit status 5"

    def test_signal_that_ended_the_task_is_named(self, make_runtime: Callable[..., ShellRuntime]) -> None:
        error, _ = self.fails(make_runtime(), self.work("kill -9 $$"))

        assert error == "error executing command: signal: SIGKILL"

    @pytest.mark.parametrize(
        ("fields", "error"),
        [
            ({"task_id": ""}, "task id is required"),
            ({"mounts": (Mount("volume", target="/x"),)}, "mounts are not supported on shell runtime"),
            ({"main": Step(entrypoint=("sh",))}, "entrypoint is not supported on shell runtime"),
            ({"main": Step(image="alpine")}, "image is not supported on shell runtime"),
            ({"limits": Limits(memory="10m")}, "limits are not supported on shell runtime"),
            ({"networks": ("backend",)}, "networks are not supported on shell runtime"),
            ({"main": Step(registry=Registry("me", "secret"))}, "registry is not supported on shell runtime"),
            ({"main": Step(cmd=("ls",))}, "cmd is not supported on shell runtime"),
            ({"sidecars": (Sidecar(Step()),)}, "sidecars are not supported on shell runtime"),
            ({"post": (Step(image="alpine"),)}, "image is not supported on shell runtime"),
        ],
    )
    def test_what_needs_a_container_is_refused(
        self, make_runtime: Callable[..., ShellRuntime], fields: dict[str, Any], error: str
    ) -> None:
        found, _ = self.fails(make_runtime(), self.work("true", **fields))

        assert found == error

    def test_gpus_and_workdir_are_ignored(self, make_runtime: Callable[..., ShellRuntime]) -> None:
        result, _ = self.run(make_runtime(), self.work("echo x > $ARC_OUTPUT", gpus="all", workdir="/nowhere"))

        assert result == "x\n"

    def test_environment_of_the_server_stays_hidden(
        self, make_runtime: Callable[..., ShellRuntime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ARC_SECRET_OF_SERVER", "x")

        _, recorder = self.run(make_runtime(), self.work(self.step("env", env={"OWN": "mine"})))

        env = dict(line.split("=", 1) for line in recorder.text.splitlines())
        set_by_bash = {"PWD", "SHLVL", "_"}
        assert set(env) - set_by_bash == {
            *("PATH", "HOME", "WORKDIR", "OWN", "ARC_INSTANCE", "ARC_TASK_ID"),
            *("ARC_OUTPUT", "TORK_OUTPUT", "ARC_PROGRESS", "TORK_PROGRESS"),
        }
        assert env["PATH"] == os.environ["PATH"]
        assert env["PWD"] == env["WORKDIR"]

    def test_each_step_has_a_directory_of_its_own_for_as_long_as_it_runs(
        self, make_runtime: Callable[..., ShellRuntime], work_dir: Path
    ) -> None:
        step = self.step("pwd; mkdir -p deep/er; chmod 0 deep/er; chmod 500 deep")

        _, recorder = self.run(make_runtime(), self.work(step, pre=(step,), post=(step,)))

        assert len({Path(line).parent for line in recorder.text.split()}) == 1
        assert len(set(recorder.text.split())) == 3
        assert not list(work_dir.iterdir())

    def test_nothing_stays_when_a_step_fails(self, make_runtime: Callable[..., ShellRuntime], work_dir: Path) -> None:
        self.fails(make_runtime(), self.work("exit 1"))
        self.fails(make_runtime(), self.work(self.step("true", env={"A=B": "x", "C": "\0"})))
        self.fails(make_runtime(cmd=("/no/such/shell",)), self.work("true"))
        self.fails(make_runtime(), self.work(self.step("true", files={"a": "x", "a/b": "x"})))

        assert not list(work_dir.iterdir())

    def test_own_files_cannot_be_replaced_by_files_of_the_task(self, make_runtime: Callable[..., ShellRuntime]) -> None:
        error, _ = self.fails(make_runtime(), self.work(self.step("true", files={"stdout": "x"})))

        assert error == "invalid file name: 'stdout' is taken"

    def test_child_that_holds_the_output_open_ends_with_its_parent(
        self, make_runtime: Callable[..., ShellRuntime], tmp_path: Path
    ) -> None:
        script = f"sleep 600 & echo $! > {tmp_path}/pid; echo done"

        _, recorder = self.run(make_runtime(), self.work(script))

        assert recorder.text == "done\n"
        wait_until(lambda: not is_alive(pid_in(tmp_path / "pid")), "the end of the child")

    def test_child_that_left_the_group_ends_with_its_parent(
        self, make_runtime: Callable[..., ShellRuntime], tmp_path: Path
    ) -> None:
        script = f"setsid sh -c 'echo $$ > {tmp_path}/pid; sleep 600' & until test -s {tmp_path}/pid; do :; done"

        self.run(make_runtime(), self.work(script))

        wait_until(lambda: not is_alive(pid_in(tmp_path / "pid")), "the end of the child")

    def test_cancelling_kills_all_descendants(self, make_runtime: Callable[..., ShellRuntime], tmp_path: Path) -> None:
        stop, recorder = Stop(), Recorder()
        script = f"""
            sleep 600 & echo $! > {tmp_path}/one
            (sh -c 'sleep 600 & echo $! > {tmp_path}/two' &)
            setsid sh -c 'echo $$ > {tmp_path}/three; sleep 600' > /dev/null 2>&1 &
            trap '' TERM INT HUP
            until test -s {tmp_path}/two -a -s {tmp_path}/three; do sleep 0.01; done
            echo started
            sleep 600
        """
        recorder.on_log = stop.set

        with pytest.raises(TaskStopped):
            make_runtime().run(self.work(script), recorder, stop)

        for name in ("one", "two", "three"):
            wait_until(lambda name=name: not is_alive(pid_in(tmp_path / name)), f"the end of child {name}")

    def test_server_may_be_stopped_from_the_thread_that_reports(
        self, make_runtime: Callable[..., ShellRuntime]
    ) -> None:
        stop, recorder = Stop(), Recorder()
        recorder.on_log = stop.set

        with pytest.raises(TaskStopped):
            make_runtime().run(self.work("echo started; sleep 600"), recorder, stop)

    def test_many_at_a_time(self, make_runtime: Callable[..., ShellRuntime], work_dir: Path) -> None:
        runtime = make_runtime()
        before = len(os.listdir("/proc/self/fd"))

        def run(number: int) -> str:
            return runtime.run(
                Work(f"task{number}", "job", Step(run=f"echo {number} > $ARC_OUTPUT")), Recorder(), Stop()
            )

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(run, range(64)))

        assert results == [f"{number}\n" for number in range(64)]
        assert len(os.listdir("/proc/self/fd")) == before
        assert not list(work_dir.iterdir())

    def test_without_process_descriptors(
        self, make_runtime: Callable[..., ShellRuntime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "pidfd_open")

        result, recorder = self.run(make_runtime(), self.work("echo logged; echo x > $ARC_OUTPUT"))

        assert (result, recorder.text) == ("x\n", "logged\n")

    @as_root
    def test_other_user_owns_its_directory(self, make_runtime: Callable[..., ShellRuntime], public_dir: Path) -> None:
        runtime = make_runtime(work_dir=public_dir, uid=NOBODY, gid="60001")
        step = self.step(
            "id -u; id -g; id -G; cat f; touch new sub/new; echo x > $ARC_OUTPUT", files={"sub/f": "", "f": "in\n"}
        )

        result, recorder = self.run(runtime, self.work(step))

        runtime.check_health()
        assert recorder.text.split() == [NOBODY, "60001", "60001", "in"]
        assert result == "x\n"
        assert not list(public_dir.iterdir())

    def test_task_may_change_its_path(self, make_runtime: Callable[..., ShellRuntime]) -> None:
        _, recorder = self.run(make_runtime(), self.work(self.step("echo $PATH", env={"PATH": "/nowhere"})))

        assert recorder.text == "/nowhere\n"

    @as_root
    def test_user_and_group_may_be_names(self, make_runtime: Callable[..., ShellRuntime], public_dir: Path) -> None:
        runtime = make_runtime(work_dir=public_dir, uid="nobody", gid="nogroup")

        _, recorder = self.run(runtime, self.work("id -un; id -gn"))

        assert recorder.text.split() == ["nobody", "nogroup"]

    @as_root
    def test_user_without_a_group_gets_its_own_not_the_servers(
        self, make_runtime: Callable[..., ShellRuntime], public_dir: Path
    ) -> None:
        _, recorder = self.run(make_runtime(work_dir=public_dir, uid=NOBODY, gid="-"), self.work("id -g; echo $HOME"))

        assert recorder.text.split() == [NOBODY, "/nonexistent"]

    @as_root
    def test_directory_out_of_reach_is_unhealthy(
        self, make_runtime: Callable[..., ShellRuntime], work_dir: Path
    ) -> None:
        work_dir.parent.chmod(0o700)

        with pytest.raises(RuntimeUnavailable, match="user 65534 of shell tasks cannot reach"):
            make_runtime(uid=NOBODY).check_health()


@pytest.mark.parametrize("options", [{"uid": "no one"}, {"gid": "-5"}, {"uid": "4000000"}, {"host_env": ("A:B:C",)}])
def test_bad_options_stop_the_start(make_runtime: Callable[..., ShellRuntime], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make_runtime(**options)


def test_health(make_runtime: Callable[..., ShellRuntime]) -> None:
    make_runtime().check_health()

    with pytest.raises(RuntimeUnavailable, match="'no-such-shell', is not installed"):
        make_runtime(cmd=("no-such-shell", "-c")).check_health()


def test_work_directory_that_somebody_removed_is_made_again(
    make_runtime: Callable[..., ShellRuntime], work_dir: Path
) -> None:
    runtime = make_runtime()
    work_dir.rmdir()

    runtime.check_health()

    assert work_dir.is_dir()
    work_dir.rmdir()
    work_dir.touch()
    with pytest.raises(RuntimeUnavailable, match="the work directory of shell tasks cannot be made"):
        runtime.check_health()


def test_nothing_but_psutil_and_the_standard_library_is_needed() -> None:
    code = "import sys, arc.runtimes.shell; print(*{name.partition('.')[0] for name in sys.modules})"

    loaded = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=PLAIN)

    foreign = set(loaded.stdout.split()) - sys.stdlib_module_names - {"arc", "psutil", "__main__"}
    assert not foreign


SERVER = """
    import sys
    from pathlib import Path
    from arc.runtimes.base import Step, Stop, Work
    from arc.runtimes.shell import ShellOptions, ShellRuntime

    class Silent:
        def log(self, data): pass
        def progress(self, percent): pass

    work = Work(sys.argv[2], "job", Step(run=sys.argv[3]))
    ShellRuntime(ShellOptions(Path(sys.argv[1])), "test").run(work, Silent(), Stop())
"""


@pytest.fixture
def start_server(work_dir: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Another process that runs one task in the same work directory, until it is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> subprocess.Popen[bytes]:
        args = [sys.executable, "-c", textwrap.dedent(SERVER), str(work_dir), TASK, script]
        started.append(subprocess.Popen(args, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_processes_of_a_killed_server_are_found_again(
    make_runtime: Callable[..., ShellRuntime],
    start_server: Callable[[str], subprocess.Popen[bytes]],
    tmp_path: Path,
    work_dir: Path,
) -> None:
    script = f"""
        env -i sleep 600 & echo $! > {tmp_path}/unmarked
        setsid sleep 600 & echo $! > {tmp_path}/left
        echo $$ > {tmp_path}/leader; sleep 600
    """
    server = start_server(script)
    pids = [pid_in(tmp_path / name) for name in ("unmarked", "left", "leader")]
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert all(is_alive(pid) for pid in pids)
    assert make_runtime().reap(keep=[TASK]) == 0
    assert all(is_alive(pid) for pid in pids)

    removed = make_runtime().reap()

    assert removed >= 1
    for pid in pids:
        wait_until(lambda pid=pid: not is_alive(pid), f"the end of process {pid}")
    assert not list(work_dir.iterdir())
    assert make_runtime().reap() == 0


def test_group_whose_leader_died_is_found_by_its_marks(
    make_runtime: Callable[..., ShellRuntime], start_server: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    server = start_server(f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/leader; sleep 600")
    leader, child = pid_in(tmp_path / "leader"), pid_in(tmp_path / "child")
    server.send_signal(signal.SIGKILL)
    server.wait()
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: not is_alive(leader), "the end of the leader")
    assert is_alive(child)

    make_runtime().reap()

    wait_until(lambda: not is_alive(child), "the end of the child")


def test_processes_of_another_instance_are_left_alone(
    make_runtime: Callable[..., ShellRuntime], start_server: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    start_server(f"setsid sleep 600 & echo $! > {tmp_path}/child; sleep 600")
    child = pid_in(tmp_path / "child")

    make_runtime("another", work_dir=tmp_path / "elsewhere").reap()

    assert is_alive(child)
    make_runtime().reap()
    wait_until(lambda: not is_alive(child), "the end of the child")


@pytest.mark.parametrize("record", ["{pid} 12345.00 task\n", "{pid}", "", "no number at all\n", "9999999999999 1 t"])
def test_process_that_got_the_same_id_is_left_alone(
    make_runtime: Callable[..., ShellRuntime], work_dir: Path, record: str
) -> None:
    runtime = make_runtime()
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
        (work_dir / "0123.pid").write_text(record.format(pid=other.pid))

        runtime.reap()

        assert other.poll() is None
        other.kill()
    assert not list(work_dir.iterdir())
