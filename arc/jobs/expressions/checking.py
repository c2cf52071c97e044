"""The static pass: names, types and calls that are wrong whatever the values, found before anything runs.

Literals, operators, functions and the maps of strings (inputs, secrets, tasks, job) have known types. What comes out
of fromJSON or a loop's variable is not known; operators on it are checked when it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from arc.jobs.expressions import kinds, nodes
from arc.jobs.expressions.builtins import TABLE, methods, predicates
from arc.jobs.expressions.builtins.signature import Function, OneOf
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.kinds import ANY, BOOL, INT, NUMBERS, STRING, Type, is_a
from arc.jobs.expressions.limits import MAX_DEPTH, MAX_NODES, TOO_DEEP, Budget
from arc.jobs.expressions.patterns import pattern
from arc.jobs.expressions.typerules import ORDER, RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BOOLEAN_RESULT = frozenset({"all", "none", "any", "one"})
_NEEDS_BOOLEAN = _BOOLEAN_RESULT | {"filter", "find", "findIndex", "findLast", "findLastIndex", "count"}
_OPTIONAL_PREDICATE = frozenset({"count", "sum"})
_WITH_EXTRA = frozenset({"sortBy", "reduce"})
_LITERALS = {str: STRING, bool: BOOL, int: INT, float: kinds.FLOAT, type(None): kinds.NIL}


class Checker:
    """One pass over one tree. types: the names that exist; None when they are not known yet, as at submission."""

    def __init__(self, types: Mapping[str, Type] | None, budget: Budget) -> None:
        self._types = types
        self._variables: dict[str, Type] = {}
        self._elements: list[dict[str, Type]] = []  # of the predicates around the current node, innermost last
        self._budget = budget
        self._depth = 0
        self._nodes = 0

    def type_of(self, node: nodes.Node) -> Type:
        """The type of a node, everything below it checked. Raises Fault."""
        self._budget.step()
        self._count(node)
        self._depth += 1
        try:
            return self._CHECKS[type(node)](self, node)
        finally:
            self._depth -= 1

    def _count(self, node: nodes.Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Fault(f"compilation failed: expression exceeds maximum allowed nodes ({MAX_NODES})", node.at)
        if self._depth >= MAX_DEPTH:
            raise Fault(TOO_DEEP, node.at)

    def _literal(self, node: nodes.Literal) -> Type:
        return _LITERALS[type(node.value)]

    def _name(self, node: nodes.Name) -> Type:
        if node.name in self._variables:
            return self._variables[node.name]
        if node.name == "$env":
            return kinds.MAP
        if self._types is None:
            return ANY
        if node.name not in self._types:
            raise Fault(f"unknown name {node.name}", node.at)
        return self._types[node.name]

    def _pointer(self, node: nodes.Pointer) -> Type:
        if not self._elements:
            raise Fault("cannot use pointer accessor outside predicate", node.at)
        if node.name not in self._elements[-1]:
            raise Fault(f"unknown pointer #{node.name}", node.at)
        return self._elements[-1][node.name]

    def _unary(self, node: nodes.Unary) -> Type:
        operand = self.type_of(node.operand)
        wanted = {"bool"} if node.op in {"not", "!"} else {*NUMBERS, "duration"}
        if not is_a(operand, *wanted):
            raise Fault(f"invalid operation: {node.op} (mismatched type {operand})", node.at)
        return BOOL if node.op in {"not", "!"} else operand

    def _chain(self, node: nodes.Chain) -> Type:
        left = last = self.type_of(node.first)
        before = ""
        for step in node.steps:
            self._count(step)
            right = self.type_of(step.operand)
            if step.op in ORDER and before in ORDER:
                left = last
            left = self._operation(step, left, right)
            last, before = right, step.op
        return left

    def _operation(self, step: nodes.Step, left: Type, right: Type) -> Type:
        result = RULES[step.op](left, right)
        if result is None:
            raise Fault(f"invalid operation: {step.op} (mismatched types {left} and {right})", step.at)
        if isinstance(step.operand, nodes.Literal):
            _check_literal(step, step.operand.value)
        return result

    def _member(self, node: nodes.Member) -> Type:
        target = self.type_of(node.target)
        key = self.type_of(node.key)
        name = node.key.value if isinstance(node.key, nodes.Literal) else None
        if isinstance(node.target, nodes.Name) and node.target.name == "$env":
            return self._types.get(str(name), ANY) if self._types else ANY
        if target.kind == "object" and isinstance(name, str) and name not in (target.fields or ()):
            raise Fault(f"type {target} has no field {name}", node.at)
        if target.kind in {"any", "object"}:
            return ANY
        if target.kind == "map" and is_a(key, "string", "nil"):
            return target.member
        if target.kind == "map":
            raise Fault(f"cannot use {key} to get an element from {target}", node.key.at)
        if target.kind == "array" and is_a(key, "int"):
            return target.member
        if target.kind == "array":
            raise Fault(f"array elements can only be selected using an integer (got {key})", node.key.at)
        reason = f"has no field {name}" if isinstance(name, str) else None
        raise Fault(f"type {target} {reason}" if reason else f"type {target}[{key}] is undefined", node.at)

    def _slice(self, node: nodes.Slice) -> Type:
        target = self.type_of(node.target)
        if not is_a(target, "string", "array"):
            raise Fault(f"cannot slice {target}", node.at)
        for bound in (node.start, node.stop):
            if bound is not None and not is_a(bound_type := self.type_of(bound), "int"):
                raise Fault(f"non-integer slice index {bound_type}", bound.at)
        return target

    def _method(self, node: nodes.Method) -> Type:
        target = self.type_of(node.target)
        arguments = [self.type_of(argument) for argument in node.arguments]
        if target.kind == "any":
            return ANY
        method = methods.TABLE.get(target.kind, {}).get(node.name)
        if method is None:
            raise Fault(f"type {target} has no method {node.name}", node.at)
        return _checked_call(node.at, method, [target, *arguments], [node.target, *node.arguments])

    def _call(self, node: nodes.Call) -> Type:
        if node.name in predicates.TABLE:
            return self._predicate_call(node)
        function = TABLE.get(node.name)
        if function is None:
            self._name(nodes.Name(node.at, node.name))
            for argument in node.arguments:
                self.type_of(argument)
            if self._types is not None:
                raise Fault(f"{node.name} is not callable", node.at)
            return ANY
        known = [self.type_of(argument) for argument in node.arguments]
        return _checked_call(node.at, function, known, node.arguments)

    def _predicate_call(self, node: nodes.Call) -> Type:
        name, arguments = node.name, node.arguments
        least, most = (1 if name in _OPTIONAL_PREDICATE else 2), (3 if name in _WITH_EXTRA else 2)
        if not least <= len(arguments) <= most:
            few = len(arguments) < least
            raise Fault(f"{'not enough' if few else 'too many'} arguments to call {name}", node.at)
        items = self.type_of(arguments[0])
        if not is_a(items, "array"):
            raise Fault(f"builtin {name} takes only array (got {items})", arguments[0].at)
        extra = [self.type_of(argument) for argument in arguments[2:]]
        result = self._predicate(name, arguments[1], items) if len(arguments) > 1 else items.member
        return _predicate_result(name, items, result, extra)

    def _predicate(self, name: str, block: nodes.Node, items: Type) -> Type:
        frame = {"": items.member, "index": INT}
        if name == "reduce":
            frame["acc"] = ANY
        self._elements.append(frame)
        try:
            result = self.type_of(block)
        finally:
            self._elements.pop()
        if name in _NEEDS_BOOLEAN and not is_a(result, "bool"):
            raise Fault(f"predicate should return boolean (got {result})", block.at)
        return result

    def _block(self, node: nodes.Block) -> Type:
        before = self._nodes
        result = self.type_of(node.body)
        node.weight = self._nodes - before
        return result

    def _array(self, node: nodes.Array) -> Type:
        known = [self.type_of(item) for item in node.items]
        return kinds.array_of(known[0]) if known and all(kind == known[0] for kind in known) else kinds.ARRAY

    def _map(self, node: nodes.Map) -> Type:
        for key, value in node.pairs:
            self.type_of(key)
            self.type_of(value)
        return kinds.MAP

    def _conditional(self, node: nodes.Conditional) -> Type:
        test = self.type_of(node.test)
        if not is_a(test, "bool"):
            raise Fault(f"non-bool expression (type {test}) used as condition", node.test.at)
        positive = test if node.positive is None else self.type_of(node.positive)
        negative = self.type_of(node.negative)
        if "nil" in {positive.kind, negative.kind}:
            return negative if positive.kind == "nil" else positive
        return positive if positive == negative else ANY

    def _let(self, node: nodes.Let) -> Type:
        if node.name in TABLE or node.name in predicates.TABLE:
            raise Fault(f"cannot redeclare builtin {node.name}", node.at)
        if node.name in self._variables or node.name in (self._types or ()):
            raise Fault(f"cannot redeclare {'variable ' if node.name in self._variables else ''}{node.name}", node.at)
        value = self.type_of(node.value)
        outer = self._variables
        self._variables = {**outer, node.name: value}
        try:
            return self.type_of(node.body)
        finally:
            self._variables = outer

    def _sequence(self, node: nodes.Sequence) -> Type:
        return [self.type_of(part) for part in node.parts][-1]

    _CHECKS: ClassVar[dict[type, Callable[..., Type]]] = {
        nodes.Literal: _literal,
        nodes.Name: _name,
        nodes.Pointer: _pointer,
        nodes.Unary: _unary,
        nodes.Chain: _chain,
        nodes.Member: _member,
        nodes.Slice: _slice,
        nodes.Method: _method,
        nodes.Call: _call,
        nodes.Block: _block,
        nodes.Array: _array,
        nodes.Map: _map,
        nodes.Conditional: _conditional,
        nodes.Let: _let,
        nodes.Sequence: _sequence,
    }


def _checked_call(at: int, function: Function, known: list[Type], arguments: list[nodes.Node]) -> Type:
    """The type that a call gives. Raises Fault when number or types of its arguments are wrong."""
    if fault := function.arity_fault(len(known)):
        raise Fault(fault, at)
    for index, (kind, argument) in enumerate(zip(known, arguments, strict=True)):
        parameter = function.parameter(index)
        if isinstance(parameter, OneOf):
            if not is_a(kind, *parameter.kinds):
                raise Fault(f"invalid argument for {function.name} (type {kind})", at)
        elif parameter.kind != "any" and not is_a(kind, parameter.kind):
            raise Fault(f"cannot use {kind} as argument (type {parameter}) to call {function.name} ", argument.at)
    if isinstance(function.result, Type):
        return function.result
    return known[0] if function.result == "first" else known[0].member


def _check_literal(step: nodes.Step, value: object) -> None:
    if step.op == "matches" and isinstance(value, str):
        try:
            pattern(value)
        except Fault as fault:
            raise Fault(fault.reason, step.at) from None
    if step.op == "%" and value == 0 and isinstance(value, int):
        raise Fault("integer divide by zero", step.at)


def _predicate_result(name: str, items: Type, result: Type, extra: list[Type]) -> Type:
    if name in _BOOLEAN_RESULT:
        return BOOL
    if name in {"filter", "sortBy"}:
        return items if items.kind == "array" else kinds.ARRAY
    if name in {"find", "findLast"}:
        return items.member
    if name == "count":
        return INT
    if name == "map":
        return kinds.array_of(result)
    if name == "groupBy":
        return kinds.MAP
    return result if name == "sum" and result.kind in NUMBERS else ANY
