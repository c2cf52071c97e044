"""What every runtime of tasks promises: the same stories for processes and containers.

A subclass gives the fixture `make_runtime(**options)` and says in STEP what its steps need.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from arc.runtimes.base import CANCELED, DEADLINE_EXCEEDED, Step, Stop, TaskFailed, TaskStopped, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.runtimes.base import Runtime

TASK = "0123456789abcdef0123456789abcdef"
WAIT_S = 30.0


class Recorder:
    """A reporter that keeps what it is told; on_log and on_progress are called with it."""

    def __init__(self) -> None:
        self.output = b""
        self.percents: list[float] = []
        self.on_log: Callable[[], None] = lambda: None
        self.on_progress: Callable[[], None] = lambda: None

    def log(self, data: bytes) -> None:
        self.output += data
        self.on_log()

    def progress(self, percent: float) -> None:
        self.percents.append(percent)
        self.on_progress()

    @property
    def text(self) -> str:
        return self.output.decode()


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(0.01)


class RuntimeContract:
    STEP: ClassVar[dict[str, Any]] = {}
    FAILURE = "exit code"  # how the error of a step begins

    def step(self, run: str = "", **fields: Any) -> Step:
        return Step(**{**self.STEP, "run": run, **fields})

    def work(self, run: str | Step = "", **fields: Any) -> Work:
        main = run if isinstance(run, Step) else self.step(run)
        return Work(**{"task_id": TASK, "job_id": "job", "main": main, **fields})

    def run(self, runtime: Runtime, work: Work) -> tuple[str, Recorder]:
        recorder = Recorder()
        return runtime.run(work, recorder, Stop()), recorder

    def fails(self, runtime: Runtime, work: Work) -> tuple[str, Recorder]:
        recorder = Recorder()
        with pytest.raises(TaskFailed) as failure:
            runtime.run(work, recorder, Stop())
        return str(failure.value), recorder

    def test_result_is_what_the_output_file_holds(self, make_runtime: Callable[..., Runtime]) -> None:
        result, recorder = self.run(make_runtime(), self.work("echo logged; printf ' out\\n\\n' > $TORK_OUTPUT"))

        assert result == " out\n\n"
        assert recorder.text == "logged\n"

    def test_both_names_lead_to_the_same_files(self, make_runtime: Callable[..., Runtime]) -> None:
        script = "echo $ARC_PROGRESS = $TORK_PROGRESS; echo x > $TORK_OUTPUT; echo y >> $ARC_OUTPUT"
        result, recorder = self.run(make_runtime(), self.work(script))

        left, _, right = recorder.text.strip().partition(" = ")
        assert left == right
        assert result == "x\ny\n"

    def test_result_that_is_no_text_is_cleaned(self, make_runtime: Callable[..., Runtime]) -> None:
        result, _ = self.run(make_runtime(), self.work("printf 'a\\000b\\377c' > $ARC_OUTPUT"))

        assert result == "ab�c"

    def test_result_above_the_limit_fails(self, make_runtime: Callable[..., Runtime]) -> None:
        error, _ = self.fails(make_runtime(result_bytes=4), self.work("echo 12345 > $ARC_OUTPUT"))

        assert error == "task result exceeds maximum size of 4 bytes (got 6)"

    def test_result_that_is_a_link_is_not_followed(self, make_runtime: Callable[..., Runtime]) -> None:
        result, _ = self.run(make_runtime(), self.work("rm $ARC_OUTPUT; ln -s /proc/self/cmdline $ARC_OUTPUT"))

        assert result == ""

    def test_files_that_the_task_removed_are_empty(self, make_runtime: Callable[..., Runtime]) -> None:
        result, recorder = self.run(
            make_runtime(progress_s=0.1), self.work("rm -f $ARC_OUTPUT $ARC_PROGRESS; sleep 0.3; echo done")
        )

        assert (result, recorder.text, recorder.percents) == ("", "done\n", [])

    def test_failure_names_the_exit_code_and_the_last_ten_lines(self, make_runtime: Callable[..., Runtime]) -> None:
        error, recorder = self.fails(
            make_runtime(), self.work("for i in $(seq 12); do echo line $i; done; echo x > $ARC_OUTPUT; exit 7")
        )

        assert error == f"{self.FAILURE} 7: " + "".join(f"line {number}\n" for number in range(3, 13))
        assert recorder.text.startswith("line 1\n")

    def test_unknown_command_in_a_script_is_127(self, make_runtime: Callable[..., Runtime]) -> None:
        error, _ = self.fails(make_runtime(), self.work("no-such-command"))

        assert error.startswith(f"{self.FAILURE} 127: ")

    def test_stderr_and_stdout_are_one_log(self, make_runtime: Callable[..., Runtime]) -> None:
        _, recorder = self.run(make_runtime(), self.work("echo out; echo err >&2"))

        assert sorted(recorder.text.split()) == ["err", "out"]

    def test_last_bytes_are_there_before_the_end_is_reported(self, make_runtime: Callable[..., Runtime]) -> None:
        _, recorder = self.run(make_runtime(), self.work("seq 20000; printf end"))

        assert recorder.text == "".join(f"{number}\n" for number in range(1, 20001)) + "end"

    def test_shebang_selects_the_interpreter(self, make_runtime: Callable[..., Runtime]) -> None:
        _, recorder = self.run(make_runtime(), self.work("#!/bin/cat\nprinted, not run\n"))

        assert recorder.text == "#!/bin/cat\nprinted, not run\n"

    def test_steps_run_in_order_and_only_main_has_a_result(self, make_runtime: Callable[..., Runtime]) -> None:
        work = self.work(
            "echo main | tee $ARC_OUTPUT",
            pre=(self.step("echo one | tee $ARC_OUTPUT"), self.step("echo two")),
            post=(self.step("echo three | tee $ARC_OUTPUT"),),
        )

        result, recorder = self.run(make_runtime(), work)

        assert recorder.text.split() == ["one", "two", "main", "three"]
        assert result == "main\n"

    def test_failing_pre_step_ends_the_task(self, make_runtime: Callable[..., Runtime]) -> None:
        error, recorder = self.fails(make_runtime(), self.work("echo main", pre=(self.step("echo pre; exit 3"),)))

        assert error == f"{self.FAILURE} 3: pre\n"
        assert recorder.text == "pre\n"

    def test_failing_post_step_fails_the_task(self, make_runtime: Callable[..., Runtime]) -> None:
        error, _ = self.fails(make_runtime(), self.work("echo x > $ARC_OUTPUT", post=(self.step("echo post; exit 4"),)))

        assert error == f"{self.FAILURE} 4: post\n"

    def test_files_are_read_only_in_the_working_directory(self, make_runtime: Callable[..., Runtime]) -> None:
        files = {"a.txt": "one\n", "sub/dir/b.txt": "two\n"}
        step = self.step("cat a.txt sub/dir/b.txt; stat -c %a a.txt sub/dir/b.txt", files=files)

        _, recorder = self.run(make_runtime(), self.work(step))

        assert recorder.text.split() == ["one", "two", "444", "444"]

    @pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b", ""])
    def test_files_outside_the_working_directory_are_refused(
        self, make_runtime: Callable[..., Runtime], name: str
    ) -> None:
        error, _ = self.fails(make_runtime(), self.work(self.step("true", files={name: "x"})))

        assert error == f"invalid file name: {name!r} is not inside the working directory"

    def test_host_variables_reach_all_steps_and_override(
        self, make_runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SITE", "north")
        monkeypatch.delenv("ABSENT", raising=False)
        env = {"PLACE": "overridden", "OWN": "mine"}
        script = 'echo "$PLACE,$OWN,[$ABSENT]"'
        runtime = make_runtime(host_env=("SITE:PLACE", "ABSENT"))

        step = self.step(script, env={**env, "ABSENT": "x"})
        _, recorder = self.run(runtime, self.work(step, pre=(step,), post=(step,)))

        assert recorder.text == "north,mine,[]\n" * 3

    def test_timeout_ends_the_task(self, make_runtime: Callable[..., Runtime]) -> None:
        error, _ = self.fails(make_runtime(), self.work("sleep 60", timeout_s=0.2))

        assert error == DEADLINE_EXCEEDED

    def test_timeout_covers_pre_steps(self, make_runtime: Callable[..., Runtime]) -> None:
        error, recorder = self.fails(
            make_runtime(), self.work("echo main", pre=(self.step("sleep 60"),), timeout_s=0.2)
        )

        assert error == DEADLINE_EXCEEDED
        assert recorder.text == ""

    def test_timeout_of_one_step(self, make_runtime: Callable[..., Runtime]) -> None:
        error, _ = self.fails(make_runtime(), self.work("true", post=(self.step("sleep 60", timeout_s=0.2),)))

        assert error == DEADLINE_EXCEEDED

    def test_no_time_at_all(self, make_runtime: Callable[..., Runtime]) -> None:
        error, recorder = self.fails(make_runtime(), self.work("echo main", timeout_s=0))

        assert error == DEADLINE_EXCEEDED
        assert recorder.text == ""

    def test_cancelling_ends_the_task(self, make_runtime: Callable[..., Runtime]) -> None:
        stop, recorder = Stop(), Recorder()
        recorder.on_log = lambda: threading.Thread(target=stop.set).start()

        with pytest.raises(TaskStopped, match=f"^{CANCELED}$"):
            make_runtime().run(self.work("echo started; sleep 60"), recorder, stop)

        assert recorder.text == "started\n"

    def test_task_cancelled_before_its_start_does_not_run(self, make_runtime: Callable[..., Runtime]) -> None:
        stop, recorder = Stop(), Recorder()
        stop.set("not needed any more")

        with pytest.raises(TaskStopped, match=r"^not needed any more$"):
            make_runtime().run(self.work("echo started"), recorder, stop)

        assert recorder.text == ""

    def test_progress_is_reported_once_per_change(self, make_runtime: Callable[..., Runtime]) -> None:
        stop, recorder = Stop(), Recorder()
        recorder.on_progress = lambda: len(recorder.percents) == 2 and threading.Thread(target=stop.set).start()
        script = "echo 12.3456 > $ARC_PROGRESS; sleep 1; echo soon > $ARC_PROGRESS; sleep 1; echo 250 > $ARC_PROGRESS"

        with pytest.raises(TaskStopped):
            make_runtime(progress_s=0.1).run(self.work(f"{script}; sleep 60"), recorder, stop)

        assert recorder.percents == [12.35, 100.0]

    def test_running_tasks_are_not_reaped(self, make_runtime: Callable[..., Runtime]) -> None:
        runtime, recorder = make_runtime(), Recorder()
        reaped: list[int] = []
        recorder.on_log = lambda: reaped.append(runtime.reap())

        result = runtime.run(self.work("echo started; sleep 0.2; echo x > $ARC_OUTPUT"), recorder, Stop())

        assert reaped == [0]
        assert result == "x\n"
