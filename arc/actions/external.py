"""External actions: an operator's own commands, one that begins the work and one that tells how it goes.

Both get `args`, `headers`, `id` and `kind` as one JSON object on their standard input. The first must leave the work to
something that survives a restart of the agent, such as a unit of systemd.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arc.actions import commands
from arc.actions.body import strict_json
from arc.actions.errors import (
    ActionFailed,
    ExternalActionCheck,
    ExternalActionCheckDecode,
    ExternalActionCheckResult,
    ExternalActionExec,
    ExternalActionStart,
    InvalidJson,
)
from arc.actions.kinds import Context, Kind, Outcome, done, failed, running
from arc.actions.records import State

if TYPE_CHECKING:
    from arc.actions.schema import Schema

SCOPE = "external.agent.replicante.io"
COMMAND_S = 10.0  # seconds each of the commands may take


@dataclass(frozen=True)
class External:
    """args: what the arguments must be like; None takes anything. deadline_s: 0 is none."""

    name: str
    action: tuple[str, ...]
    check: tuple[str, ...]
    description: str = ""
    args: Schema | None = None
    deadline_s: float = 0

    def kind(self) -> Kind:
        return Kind(
            f"{SCOPE}/{self.name}",
            self.description or f"Run {' '.join(self.action)}",
            self._invoke,
            self.args,
            stages=("action", "check"),
            permission="actions:exec",
            is_original=True,
            deadline_s=self.deadline_s,
        )

    def _invoke(self, context: Context) -> Outcome | None:
        return self._begin(context) if context.state is State.NEW else self._look(context)

    def _begin(self, context: Context) -> Outcome:
        result = _ask(self.action, context, ExternalActionStart)
        if not result.is_good:
            raise ExternalActionExec(f"{self.action[0]} {result}")
        return running()

    def _look(self, context: Context) -> Outcome | None:
        result = _ask(self.check, context, ExternalActionCheck)
        if result.ended != "exit":
            raise ExternalActionCheck(f"{self.check[0]} {result}")
        if result.status != 0:
            raise ExternalActionCheckResult(f"{self.check[0]} {result}")
        try:
            found = strict_json(result.stdout.encode())
            status, error = found["status"], found.get("error")
        except (InvalidJson, TypeError, LookupError, AttributeError) as problem:
            raise ExternalActionCheckDecode(f"{self.check[0]} printed {result.stdout[:200]!r}") from problem
        if status == "running":
            return None
        if status == "finished":
            return done()
        if status == "failed":
            return failed({"error": error})
        raise ExternalActionCheckDecode(f"{self.check[0]} printed status {str(status)[:60]!r}")


def _ask(argv: tuple[str, ...], context: Context, variant: type[ActionFailed]) -> commands.Result:
    asked = {"args": context.args, "headers": dict(context.headers), "id": context.id, "kind": context.kind}
    try:
        return commands.run(argv, COMMAND_S, json.dumps(asked).encode())
    except (OSError, ValueError) as error:
        raise variant(f"{argv[0]} cannot be run: {error}") from error
