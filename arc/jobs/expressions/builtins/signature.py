"""What the table of functions says about each: name, kinds of its arguments, result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from arc.jobs.expressions import kinds
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.values import Value, as_int, mismatch, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.jobs.expressions.kinds import Type
    from arc.jobs.expressions.limits import Budget


@dataclass(frozen=True, slots=True)
class OneOf:
    """An argument of one of several kinds; another is called an `invalid argument`."""

    kinds: frozenset[str]


def one_of(*names: str) -> OneOf:
    return OneOf(frozenset(names))


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the language.

    parameters: a Type where one kind is taken, a OneOf where several are. required: how many must be given.
    is_variadic: the last parameter may repeat. result: a Type, that of the first argument, or that of its elements.
    """

    name: str
    run: Callable[..., Value]
    parameters: tuple[Type | OneOf, ...]
    result: Type | Literal["first", "element"]
    required: int | None = None
    is_variadic: bool = False

    def __call__(self, budget: Budget, arguments: list[Value]) -> Value:
        if fault := self.arity_fault(len(arguments)):  # of methods; calls were counted by the static pass
            raise Fault(fault)
        checked = [self._checked(index, argument) for index, argument in enumerate(arguments)]
        return self.run(budget, *checked)

    def parameter(self, index: int) -> Type | OneOf:
        return self.parameters[min(index, len(self.parameters) - 1)]

    def arity_fault(self, count: int) -> str | None:
        """What is wrong with a call of so many arguments."""
        required = len(self.parameters) if self.required is None else self.required
        if count < required:
            return f"not enough arguments to call {self.name}"
        if count > len(self.parameters) and not self.is_variadic:
            return f"too many arguments to call {self.name}"
        return None

    def _checked(self, index: int, value: Value) -> Value:
        parameter = self.parameter(index)
        if isinstance(parameter, OneOf):
            if kind_of(value) not in parameter.kinds:
                raise Fault(f"invalid argument for {self.name} (type {type_name(value)})")
            return value
        if parameter.kind == "int":
            return as_int(value)
        if parameter.kind not in {"any", kind_of(value)}:
            raise mismatch(value, parameter.name)
        return value


def kind_of(value: Value) -> str:
    """The kind as kinds.Type names it."""
    return _KINDS.get(type_name(value), "map" if isinstance(value, dict) else "any")


_KINDS = {
    known.name: known.kind
    for known in (kinds.BOOL, kinds.INT, kinds.FLOAT, kinds.STRING, kinds.ARRAY, kinds.TIME, kinds.DURATION, kinds.ZONE)
} | {"<nil>": "nil"}
NUMBER = one_of("int", "float")
