"""Names of a task's files, of its steps on a network, and the labels of what is made for it."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from arc.runtimes.base import TaskFailed

INSTANCE_LABEL, TASK_LABEL, JOB_LABEL = "arc.instance", "arc.task", "arc.job"
_SEPARATORS = re.compile(r"[^a-z0-9_]+")
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "&": "and", "@": "at"}
)


def relative_name(name: str) -> PurePosixPath:
    """Path of one of a task's files below its working directory. Raises TaskFailed when it leads elsewhere."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise TaskFailed(f"invalid file name: {name!r} is not inside the working directory")
    return path


def slug(name: str) -> str:
    """`My Täsk #1` -> `my-task-1`: how the containers of a task find each other."""
    letters = unicodedata.normalize("NFKD", name.lower().translate(_LETTERS))
    return _SEPARATORS.sub("-", letters.encode("ascii", "ignore").decode()).strip("-_")


def labels(instance: str, task_id: str = "", job_id: str = "") -> dict[str, str]:
    """How containers, volumes and networks are marked, so that the next start finds them."""
    return {INSTANCE_LABEL: instance, TASK_LABEL: task_id, JOB_LABEL: job_id}
