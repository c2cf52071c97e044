"""Expressions between {{ and }} in the documents of jobs.

render -> block -> compile (parse, check; kept by text and types) -> evaluate -> text form. Nothing is ever handed
to eval: the evaluator walks a tree that it knows every node of, within a budget of time, nodes and memory.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, TypeVar

from arc.jobs.expressions import parsing, text
from arc.jobs.expressions.checking import Checker
from arc.jobs.expressions.evaluation import Evaluator
from arc.jobs.expressions.faults import ExpressionError, Fault, compile_error, run_error
from arc.jobs.expressions.limits import TOO_DEEP, Allowance, Budget
from arc.jobs.expressions.patterns import pattern
from arc.jobs.expressions.scope import Scope
from arc.jobs.expressions.values import Summary, Value, bounded

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator

    from arc.jobs.expressions.kinds import Type
    from arc.jobs.expressions.nodes import Node

__all__ = [
    "Allowance",
    "ExpressionError",
    "Scope",
    "Summary",
    "Value",
    "check",
    "check_template",
    "evaluate",
    "render",
    "to_text",
]

Result = TypeVar("Result")

_BLOCK = r"{{\s*((?:[^}\n]|}[^}\n])+?)\s*}}"  # the first }} ends it; no line breaks but around the expression
_KEPT_CHARACTERS = 2_000  # longer expressions are compiled anew each time: what is kept must stay small
_KEPT = 256


def render(template: str, scope: Scope, allowance: Allowance | None = None) -> str:
    """The template with every block replaced by the text form of its value. Raises ExpressionError.

    allowance: shared by templates that are rendered together.
    """
    allowance = allowance or Allowance()
    parts: list[str] = []
    end = 0
    for match in _blocks(template):
        parts.append(template[end : match.start()])
        parts.append(_rendered(match[1].strip(), scope, allowance))
        end = match.end()
    return "".join(parts) + template[end:]


def evaluate(template: str, scope: Scope) -> Value:
    """The value of an expression field (each.list, if of a webhook): that of the first block, else of the whole text.

    Raises ExpressionError.
    """
    return _worked_out(_expression(template), scope, bounded)


def check(template: str) -> None:
    """The rule `expr` of documents: the first block, else the whole text, compiles whatever names will exist.

    Raises ExpressionError.
    """
    if template:
        _compiled(_expression(template), None)


def check_template(template: str) -> None:
    """Every block compiles whatever names will exist. Raises ExpressionError."""
    for match in _blocks(template):
        _compiled(match[1].strip(), None)


def to_text(value: Value) -> str:
    """The text form of a value. Raises ExpressionError when it would be too large."""
    try:
        return text.to_text(value, Budget())
    except Fault as fault:
        raise ExpressionError(fault.reason) from None


def _blocks(template: str) -> Iterator[re.Match[str]]:
    return pattern(_BLOCK).finditer(template) if "{{" in template else iter(())


def _expression(template: str) -> str:
    first = next(_blocks(template), None)
    return (first[1] if first else template).strip()


def _rendered(expression: str, scope: Scope, allowance: Allowance) -> str:
    parsing.grammar()
    started = time.thread_time()
    made = _worked_out(expression, scope, text.to_text)
    try:
        allowance.take(time.thread_time() - started, len(made))
    except Fault as fault:
        raise run_error(expression, fault) from None
    return made


def _worked_out(expression: str, scope: Scope, finish: Callable[[Value, Budget], Result]) -> Result:
    parsing.grammar()
    budget = Budget()  # compiling counts too
    tree = _compiled(expression, scope.types)
    try:
        return finish(Evaluator(scope.names, budget).value(tree), budget)
    except Fault as fault:
        raise run_error(expression, fault) from None
    except RecursionError:
        raise run_error(expression, Fault(TOO_DEEP)) from None
    except UnicodeError:
        raise run_error(expression, Fault("text is not valid Unicode")) from None


def _compiled(expression: str, types: tuple[tuple[str, Type], ...] | None) -> Node:
    try:
        keeping = len(expression) <= _KEPT_CHARACTERS
        return _kept(expression, types) if keeping else _compile(expression, types)
    except Fault as fault:
        raise compile_error(expression, fault) from None
    except RecursionError:
        raise compile_error(expression, Fault(TOO_DEEP)) from None


def _compile(expression: str, types: tuple[tuple[str, Type], ...] | None) -> Node:
    parsing.grammar()  # made before the budget begins
    budget = Budget()
    tree = parsing.parse(expression, budget)
    Checker(None if types is None else dict(types), budget).type_of(tree)
    return tree


_kept = functools.lru_cache(maxsize=_KEPT)(_compile)
