"""A process that runs an action engine until nothing is left to do: `python -m tests.integration.actions_driver ...`

work DIR STAGE_S    schedules COUNT actions, also when it was killed in the middle of that, and works on them
exec DIR            a node whose agent.restart replaces the program of this process
spawn DIR           a node whose agent.restart starts another process and ends this one
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from arc.actions import nodekinds
from arc.actions.engine import ActionEngine
from arc.actions.errors import ActionAlreadyExists
from arc.actions.host import Host
from arc.actions.kinds import Context, Kind, Outcome, Stage, composite, done
from arc.actions.worker import EngineOptions

COUNT = 100
STAGES = ("a", "b", "c", "d")
KIND = "example.com/stages"


def action_id(index: int) -> str:
    return str(uuid.UUID(int=index))


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


def stages(log: Path, stage_s: float) -> Kind:
    """Each stage leaves a line; what is killed after that and before its outcome is stored leaves another one."""

    def stage(name: str) -> Stage:
        def invoke(context: Context) -> Outcome:
            append(log, f"{context.args} {name}")
            time.sleep(stage_s)  # work
            return done()

        return Stage(name, invoke)

    return composite(KIND, "Leaves a line per stage", map(stage, STAGES))


def work(directory: Path, stage_s: float) -> None:
    options = EngineOptions(interval_s=0.05, keep=COUNT, crash_max=COUNT)
    engine = ActionEngine(directory, [stages(directory / "log", stage_s)], options)
    engine.start()
    for index in range(COUNT):
        try:
            engine.schedule(KIND, index, action_id=action_id(index))
        except ActionAlreadyExists:
            continue
        append(directory / "acknowledged", str(index))
    finish(engine)


def node(directory: Path, how: str) -> None:
    again = [sys.executable, "-m", "tests.integration.actions_driver", how, str(directory)]

    def restart() -> None:
        if how == "exec":
            os.execv(sys.executable, again)
        subprocess.Popen(again)
        os._exit(0)

    engine = ActionEngine(directory, nodekinds.kinds(Host(restart=restart)), EngineOptions(interval_s=0.05))
    while not engine.start():  # the process before is still ending
        time.sleep(0.02)
    finish(engine)


def finish(engine: ActionEngine) -> None:
    while engine.queue():
        time.sleep(0.02)
    engine.stop()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        node(Path(sys.argv[2]), sys.argv[1])
