"""What a node can do: kinds of actions, one step of which is `invoke(context) -> Outcome`, and the catalogue of them.

The engine invokes a kind again and again until it reports DONE or FAILED. In between only the record remembers
anything: what a step returns as payload, the next one finds in `context.payload`, also in another process. A step may
be repeated when the process dies in it, so each must be harmless to repeat or look first (`context.is_recovered`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from arc.actions import schema
from arc.actions.errors import ActionDecode, ActionNotAvailable
from arc.actions.records import Json, State
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arc.actions.schema import Schema

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True)
class Outcome:
    """What a step reports.

    payload: replaces the one before. pause_s: until the next step; None is the engine's interval, and no time at all
    when a stage is done.
    then: called when the outcome is on disk, and never again; for what may end this very process.
    """

    state: State
    payload: Json = None
    pause_s: float | None = None
    then: Callable[[], None] | None = None


def running(payload: Json = None, pause_s: float | None = None, then: Callable[[], None] | None = None) -> Outcome:
    return Outcome(State.RUNNING, payload, pause_s, then)


def done(payload: Json = None, pause_s: float | None = None, then: Callable[[], None] | None = None) -> Outcome:
    return Outcome(State.DONE, payload, pause_s, then)


def failed(payload: Json = None) -> Outcome:
    return Outcome(State.FAILED, payload)


def _run_here(key: str, work: Callable[[], Json]) -> tuple[bool, Json]:
    return True, work()


@dataclass
class Context:
    """What a step sees. args: as they were scheduled, with defaults filled in.

    attempt: number of this invocation, from 1. running_s: since the first one, restarts included.
    is_recovered: the process died during the invocation before.
    cancel_reason: not None when the step shall end the action. instance: of this process, never used twice.
    progress: what an error is shown with; the payload, until a step says better.
    """

    id: str
    kind: str
    args: Json
    headers: Mapping[str, str]
    state: State
    payload: Json
    now_us: int
    instance: str
    attempt: int = 1
    running_s: float = 0
    is_recovered: bool = False
    cancel_reason: str | None = None
    interval_s: float = 1.0
    background: Callable[[str, Callable[[], Json]], tuple[bool, Json]] = _run_here
    progress: Json = None

    def __post_init__(self) -> None:
        self.progress = self.payload

    def in_background(self, work: Callable[[], Json], name: str = "") -> tuple[bool, Json]:
        """Run what takes long in a thread: (False, None) until it is finished, then (True, what it returned).

        Raises what it raised. Begins again in a process that does not know of it.
        """
        return self.background(f"{self.id} {name}", work)


Invoke = Callable[[Context], Outcome | None]  # None: nothing has changed


@dataclass(frozen=True)
class Kind:
    """One kind of action.

    args: what the arguments must be like; None takes anything. check: raises InvalidArgs for what no schema can say.
    stages: names, for readers. permission: what a caller needs. is_original: belongs to a reserved scope.
    on_crash: `retry` invokes again, `fail` ends the action as Interrupted.
    is_held: whether this process has something of an action (id) that would end with it; then a stop waits for it.
    deadline_s: limit of the time since the first invocation; 0 is none. cooldown_s: between two of this kind.
    """

    name: str
    description: str
    invoke: Invoke = field(repr=False)
    args: Schema | None = None
    check: Callable[[Json], None] | None = field(default=None, repr=False)
    aliases: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    permission: str = "actions"
    is_mutating: bool = True
    is_cancellable: bool = False
    is_original: bool = False
    on_crash: str = "retry"
    is_held: Callable[[str], bool] = field(default=lambda _: False, repr=False)
    deadline_s: float = 0
    cooldown_s: float = 0

    def check_args(self, args: Json) -> None:
        """Raises InvalidArgs."""
        if self.args is not None:
            schema.check(self.args, args)
        if self.check:
            self.check(schema.with_defaults(self.args, args))

    def as_dict(self) -> dict[str, Json]:
        return {
            "kind": self.name,
            "aliases": list(self.aliases),
            "description": self.description,
            "args_schema": self.args,
            "stages": list(self.stages),
            "permission": self.permission,
            "enabled": True,
            "mutating": self.is_mutating,
            "cancellable": self.is_cancellable,
        }


class Catalogue:
    """The kinds of one node, by name and alias. Raises ConfigError for a name that is taken, reserved or malformed."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._by_name: dict[str, Kind] = {}
        for kind in kinds:
            for name in (kind.name, *kind.aliases):
                self._add(name, kind)

    def __iter__(self) -> Iterator[Kind]:
        """By name."""
        return iter(sorted({kind.name: kind for kind in self._by_name.values()}.values(), key=lambda kind: kind.name))

    def find(self, name: str) -> Kind | None:
        return self._by_name.get(name)

    def get(self, name: str) -> Kind:
        """Raises ActionNotAvailable."""
        if name not in self._by_name:
            raise ActionNotAvailable(name)
        return self._by_name[name]

    def _add(self, name: str, kind: Kind) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of a kind such as example.com/clean-up")
        if is_reserved(name) and not kind.is_original:
            raise ConfigError(f"kind {name}: scope replicante.io is reserved")
        if name in self._by_name:
            raise ConfigError(f"there are two kinds {name}")
        self._by_name[name] = kind


def is_reserved(name: str) -> bool:
    scope = name.partition("/")[0]
    return scope == "replicante.io" or scope.endswith(".replicante.io")


@dataclass(frozen=True)
class Stage:
    """A step of a composite; name: also the scope of its arguments."""

    name: str
    invoke: Invoke


class Composite:
    """Stages one after the other; its payload is `{"payload": of the stage, "stage": index, "state": of the stage}`.

    is_scoped: each stage sees only the member of the arguments that has its name, and begins without payload.
    Otherwise all see all arguments, and each begins with what the one before it left.
    """

    def __init__(self, *stages: Stage, is_scoped: bool = False) -> None:
        self.stages = stages
        self.is_scoped = is_scoped

    def __call__(self, context: Context) -> Outcome | None:
        index, state, payload = self._position(context.payload)
        inner = replace(context, args=self._args(context.args, index), state=state, payload=payload)
        context.progress = _shown(index, state, payload)
        try:
            outcome = self.stages[index].invoke(inner)
        except BaseException:
            context.progress = _shown(index, state, inner.progress)
            raise
        if outcome is None:
            return None if state is State.RUNNING else running(_shown(index, State.RUNNING, payload))
        return self._passed_on(index, outcome)

    def _passed_on(self, index: int, outcome: Outcome) -> Outcome:
        shown = _shown(index, outcome.state, outcome.payload)
        if outcome.state is State.DONE and index + 1 < len(self.stages):
            return replace(outcome, state=State.RUNNING, payload=shown, pause_s=outcome.pause_s or 0)
        return replace(outcome, payload=shown)

    def _position(self, stored: Json) -> tuple[int, State, Json]:
        """The stage to invoke, its state and its payload."""
        if stored is None:
            return 0, State.NEW, None
        try:
            index, state, payload = stored["stage"], State(stored["state"]), stored["payload"]
            if state is State.DONE:
                index, state, payload = index + 1, State.NEW, None if self.is_scoped else payload
            self.stages[index]
        except (LookupError, TypeError, ValueError):
            raise ActionDecode("the stored progress belongs to no stage of this kind") from None
        return index, state, payload

    def _args(self, args: Json, index: int) -> Json:
        if not self.is_scoped or args is None:
            return args
        return args.get(self.stages[index].name, {})


def composite(name: str, description: str, stages: Iterable[Stage], *, is_scoped: bool = False, **rest: Json) -> Kind:
    """A kind of several stages. rest: further fields of Kind."""
    steps = tuple(stages)
    invoke = Composite(*steps, is_scoped=is_scoped)
    return Kind(name, description, invoke, stages=tuple(stage.name for stage in steps), **rest)


def _shown(index: int, state: State, payload: Json) -> dict[str, Json]:
    return {"payload": payload, "stage": index, "state": state}
