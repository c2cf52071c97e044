"""The walk over the syntax tree that works out a value.

Outside of predicates each node is visited once at most. So time is counted where it can grow: per use of a predicate,
and by the length of what operators and functions read.

Only the names of the scope, the table of functions and the methods of times can be reached: `.name` looks into a map
and never at an attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from arc.jobs.expressions import nodes, operators
from arc.jobs.expressions.builtins import TABLE, methods, predicates
from arc.jobs.expressions.builtins.signature import kind_of
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.text import scalar_text
from arc.jobs.expressions.typerules import ORDER
from arc.jobs.expressions.values import (
    StringMap,
    Value,
    as_bool,
    as_int,
    is_number,
    mismatch,
    reading_steps,
    size,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arc.jobs.expressions.limits import Budget

_LAZY = frozenset({"??", "and", "&&", "or", "||"})
_LIST_MAKERS = frozenset({"filter", "map", "sortBy", "groupBy"})


# What the rest of `a?.b.c` gets to see when a is nil; becomes nil where the row of members ends.
_SKIPPED: Value = {}  # told by identity


class Evaluator:
    """One evaluation."""

    def __init__(self, names: Mapping[str, Value], budget: Budget) -> None:
        self._names = names
        self._variables: dict[str, Value] = {}
        self._elements: list[dict[str, Value]] = []  # of the predicates around the current node, innermost last
        self._budget = budget

    def value(self, node: nodes.Node) -> Value:
        """Raises Fault."""
        try:
            result = self._WALKS[type(node)](self, node)
        except Fault as fault:
            if fault.at is None:
                fault.at = node.at
            raise
        return None if result is _SKIPPED else result

    def _literal(self, node: nodes.Literal) -> Value:
        return node.value

    def _name(self, node: nodes.Name) -> Value:
        if node.name in self._variables:
            return self._variables[node.name]
        return dict(self._names) if node.name == "$env" else self._names[node.name]

    def _pointer(self, node: nodes.Pointer) -> Value:
        return self._elements[-1][node.name]

    def _unary(self, node: nodes.Unary) -> Value:
        operand = self.value(node.operand)
        return not as_bool(operand) if node.op in {"not", "!"} else operators.signed(node.op, operand)

    def _chain(self, node: nodes.Chain) -> Value:
        value = last = self.value(node.first)
        before = ""
        for step in node.steps:
            try:
                if step.op in _LAZY:
                    value = self._decided(step, value)
                elif step.op in ORDER and before in ORDER:  # a < b < c: b is worked out once, c only if a < b
                    value, last = self._compared(step, last) if value else (False, None)
                else:
                    last = self.value(step.operand)
                    value = self._applied(step, value, last)
            except Fault as fault:
                if fault.at is None:
                    fault.at = step.at
                raise
            before = step.op
        return value

    def _decided(self, step: nodes.Step, value: Value) -> Value:
        """`??`, `and`, `or`: the operand only counts where the value so far does not decide."""
        if step.op == "??":
            return self.value(step.operand) if value is None else value
        decides = step.op in {"or", "||"}
        return decides if as_bool(value) is decides else as_bool(self.value(step.operand))

    def _compared(self, step: nodes.Step, left: Value) -> tuple[Value, Value]:
        right = self.value(step.operand)
        return self._applied(step, left, right), right

    def _applied(self, step: nodes.Step, left: Value, right: Value) -> Value:
        if not (is_number(left) and is_number(right)):
            self._budget.step(reading_steps(left) + reading_steps(right))
        result = operators.apply(step.op, left, right, self._budget)
        return not result if step.is_negated else result

    def _member(self, node: nodes.Member) -> Value:
        target = self._target(node.target, node.is_optional)
        if target is _SKIPPED:
            return target
        if isinstance(target, str):
            self._budget.step(reading_steps(target))
        return fetch(target, self.value(node.key))

    def _target(self, node: nodes.Node, is_optional: bool) -> Value:
        in_row = isinstance(node, nodes.Member | nodes.Method)
        target = self._WALKS[type(node)](self, node) if in_row else self.value(node)
        return _SKIPPED if target is None and is_optional else target

    def _slice(self, node: nodes.Slice) -> Value:
        target = self.value(node.target)
        start = None if node.start is None else as_int(self.value(node.start))
        stop = None if node.stop is None else as_int(self.value(node.stop))
        self._budget.step(reading_steps(target))
        if isinstance(target, str):
            part: Value = target.encode("utf-8", "surrogatepass")[start:stop].decode("utf-8", "replace")
        elif isinstance(target, list):
            part = target[start:stop]
        else:
            raise Fault(f"cannot slice {type_name(target)}")
        self._budget.spend(size(part))
        return part

    def _method(self, node: nodes.Method) -> Value:
        target = self._target(node.target, node.is_optional)
        if target is _SKIPPED:
            return target
        method = methods.TABLE.get(kind_of(target), {}).get(node.name)
        if method is None:
            raise Fault(f"cannot fetch {node.name} from {type_name(target)}")
        result = method(self._budget, [target, *map(self.value, node.arguments)])
        self._budget.spend(size(result))
        return result

    def _call(self, node: nodes.Call) -> Value:
        if node.name in predicates.TABLE:
            return self._predicate_call(node)
        arguments = [self.value(argument) for argument in node.arguments]
        self._budget.step(sum(map(reading_steps, arguments)))
        function = TABLE[node.name]
        result = function(self._budget, arguments)
        if function.result != "element":  # what is taken out of a list was there before
            self._budget.spend(size(result))
        return result

    def _predicate_call(self, node: nodes.Call) -> Value:
        items = self.value(node.arguments[0])
        if not isinstance(items, list):
            raise Fault(f"builtin {node.name} takes only array (got {type_name(items)})", node.arguments[0].at)
        extra = [self.value(argument) for argument in node.arguments[2:]]
        run = predicates.TABLE[node.name]
        if len(node.arguments) == 1:
            result: Value = run(items, None)
        else:
            result = self._with_predicate(node.arguments[1], lambda test: run(items, test, *extra))
        if node.name in _LIST_MAKERS:
            self._budget.spend(size(result))
        return result

    def _with_predicate(self, block: nodes.Node, run: Callable[[Callable[..., Value]], Value]) -> Value:
        assert isinstance(block, nodes.Block)  # noqa: S101 - the builder makes all of them
        body, weight = block.body, block.weight
        element: dict[str, Value] = {}

        def test(value: Value, index: int, acc: Value = None) -> Value:
            self._budget.step(weight)
            element[""], element["index"], element["acc"] = value, index, acc
            return self.value(body)

        self._elements.append(element)
        try:
            return run(test)
        finally:
            self._elements.pop()

    def _array(self, node: nodes.Array) -> Value:
        self._budget.spend(len(node.items) + 1)
        return [self.value(item) for item in node.items]

    def _map(self, node: nodes.Map) -> Value:
        self._budget.spend(len(node.pairs) + 1)
        result: dict[str, Value] = {}
        for key_node, value_node in node.pairs:
            key = self.value(key_node)
            if not isinstance(key, str):
                raise mismatch(key, "string")
            result[key] = self.value(value_node)
        return result

    def _conditional(self, node: nodes.Conditional) -> Value:
        test = as_bool(self.value(node.test))
        if test and node.positive is None:
            return test
        return self.value(node.positive if test and node.positive else node.negative)

    def _let(self, node: nodes.Let) -> Value:
        outer = self._variables
        self._variables = {**outer, node.name: self.value(node.value)}
        try:
            return self.value(node.body)
        finally:
            self._variables = outer

    def _sequence(self, node: nodes.Sequence) -> Value:
        return [self.value(part) for part in node.parts][-1]

    _WALKS: ClassVar[dict[type, Callable[..., Value]]] = {
        nodes.Literal: _literal,
        nodes.Name: _name,
        nodes.Pointer: _pointer,
        nodes.Unary: _unary,
        nodes.Chain: _chain,
        nodes.Member: _member,
        nodes.Slice: _slice,
        nodes.Method: _method,
        nodes.Call: _call,
        nodes.Array: _array,
        nodes.Map: _map,
        nodes.Conditional: _conditional,
        nodes.Let: _let,
        nodes.Sequence: _sequence,
    }


def fetch(target: Value, key: Value) -> Value:
    """`target.key` and `target[key]`. Raises Fault."""
    if isinstance(target, StringMap) and isinstance(key, str):
        return target[key]
    if isinstance(target, dict):
        try:
            return target.get(key)  # type: ignore[arg-type]
        except TypeError:  # a list as key
            raise Fault(f"cannot use {type_name(key)} to get an element from {type_name(target)}") from None
    if isinstance(target, list | str) and is_number(key):
        return _element(target, as_int(key))
    raise Fault(f"cannot fetch {scalar_text(key)} from {type_name(target)}")


def _element(target: list[Value] | str, index: int) -> Value:
    elements: list[Value] | bytes = target.encode("utf-8", "surrogatepass") if isinstance(target, str) else target
    place = index + len(elements) if index < 0 else index
    if not 0 <= place < len(elements):
        raise Fault(f"index out of range: {place} (array length is {len(elements)})")
    return elements[place]
