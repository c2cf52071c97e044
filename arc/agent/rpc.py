"""Plug-in rpc: is the agent there, which version is it.

Source: the remote agents specification, section 7.3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arc import __version__
from arc.agent.errors import ActionFailed
from arc.agent.plugins import Plugin

if TYPE_CHECKING:
    from arc.agent.task import Task

_INT64 = 2**63


class Rpc(Plugin):
    name = "rpc"
    actions = ("version", "ping", "sleep")

    def version(self, task: Task) -> str:
        return __version__

    def ping(self, task: Task) -> str:
        return "pong"

    def sleep(self, task: Task) -> str:
        wanted_s = _integer(task.payload)
        task.heartbeat()
        task.wait(wanted_s)
        return f"Slept for {wanted_s} second(s)"


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ActionFailed(f'strconv.Atoi: parsing "{text}": invalid syntax')
    if len(text) > 20 or not -_INT64 <= int(text) < _INT64:
        raise ActionFailed(f'strconv.Atoi: parsing "{text}": value out of range')
    return int(text)
