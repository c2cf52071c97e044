"""Makes the nodes of the syntax tree while the parser reads, and refuses what the grammar alone cannot."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from arc.jobs.expressions import nodes
from arc.jobs.expressions.builtins import predicates
from arc.jobs.expressions.faults import Fault

if TYPE_CHECKING:
    from lark import Token

_MAX_INT = 2**63 - 1
_WORD_OPERATORS = frozenset(
    {"not", "and", "or", "in", "let", "if", "else", "matches", "contains", "startsWith", "endsWith"}
)
_ESCAPE = re.compile(
    r"\\(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|(?P<o>[0-7]{3})|(?P<c>.))"
)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {c: c for c in "\\\"'`"}


class Builder:
    """Makes a node of each rule as the parser completes it; methods bear the names of rules and aliases."""

    def start(self, children: list[Any]) -> nodes.Node:
        node: nodes.Node = children[0]
        return node

    def binding(self, children: list[Any]) -> nodes.Let:
        name, value, body = children
        return nodes.Let(name.start_pos, str(name), value, body)

    def sequence(self, children: list[Any]) -> nodes.Sequence:
        first, rest = children
        parts = rest.parts if isinstance(rest, nodes.Sequence) else [rest]
        return nodes.Sequence(first.at, [first, *parts])

    def branch(self, children: list[Any]) -> nodes.Conditional:
        word, test, positive, _, negative = children
        return nodes.Conditional(word.start_pos, test, positive, negative)

    def conditional(self, children: list[Any]) -> nodes.Conditional:
        test, positive, negative = children
        return nodes.Conditional(test.at, test, positive, negative)

    def elvis(self, children: list[Any]) -> nodes.Conditional:
        test, negative = children
        return nodes.Conditional(test.at, test, None, negative)

    def pipe(self, children: list[Any]) -> nodes.Node:
        """What is left of the bar becomes the first argument of the call that begins what is right of it."""
        value, piped = children
        call: Any = piped.first if isinstance(piped, nodes.Chain) else piped
        call.arguments.insert(0, value)
        node: nodes.Node = piped
        return node

    def chain(self, children: list[Any]) -> nodes.Chain:
        left, op, right = children
        return _chained(left, nodes.Step(op.start_pos, str(op), right))

    def negated(self, children: list[Any]) -> nodes.Chain:
        left, _, op, right = children
        return _chained(left, nodes.Step(op.start_pos, str(op), right, is_negated=True))

    def unary(self, children: list[Any]) -> nodes.Unary:
        op, operand = children
        return nodes.Unary(op.start_pos, str(op), operand)

    def member(self, children: list[Any]) -> nodes.Member:
        target, dot, name = children
        at = name.start_pos
        return nodes.Member(at, target, nodes.Literal(at, str(name)), is_optional=dot == "?.")

    def method(self, children: list[Any]) -> nodes.Method:
        target, dot, name, arguments = children
        return nodes.Method(name.start_pos, target, str(name), arguments, is_optional=dot == "?.")

    def index(self, children: list[Any]) -> nodes.Member:
        target, bracket, key = children
        return nodes.Member(bracket.start_pos, target, key)

    def optional_index(self, children: list[Any]) -> nodes.Member:
        target, _, bracket, key = children
        return nodes.Member(bracket.start_pos, target, key, is_optional=True)

    def slice(self, children: list[Any]) -> nodes.Slice:
        target, bracket, start, stop = children
        return nodes.Slice(bracket.start_pos, target, start, stop)

    def number(self, children: list[Any]) -> nodes.Literal:
        (token,) = children
        return nodes.Literal(token.start_pos, _number(token))

    def string(self, children: list[Any]) -> nodes.Literal:
        (token,) = children
        return nodes.Literal(token.start_pos, _unescaped(token))

    def raw(self, children: list[Any]) -> nodes.Literal:
        (token,) = children
        return nodes.Literal(token.start_pos, str(token[1:-1]))

    def true(self, children: list[Any]) -> nodes.Literal:
        return nodes.Literal(children[0].start_pos, value=True)

    def false(self, children: list[Any]) -> nodes.Literal:
        return nodes.Literal(children[0].start_pos, value=False)

    def nil(self, children: list[Any]) -> nodes.Literal:
        return nodes.Literal(children[0].start_pos, value=None)

    def name(self, children: list[Any]) -> nodes.Name:
        (token,) = children
        return nodes.Name(token.start_pos, str(token))

    def call(self, children: list[Any]) -> nodes.Call:
        return _call(children, predicate_index=1)

    def piped(self, children: list[Any]) -> nodes.Call:
        return _call(children, predicate_index=0)

    def pointer(self, children: list[Any]) -> nodes.Pointer:
        (token,) = children
        return nodes.Pointer(token.start_pos, str(token[1:]))

    def element_member(self, children: list[Any]) -> nodes.Member:
        dot, name = children
        at = name.start_pos
        return nodes.Member(at, nodes.Pointer(dot.start_pos, ""), nodes.Literal(at, str(name)))

    def parenthesised(self, children: list[Any]) -> nodes.Node:
        (node,) = children
        if isinstance(node, nodes.Chain | nodes.Map):
            node.is_closed = True
        inner: nodes.Node = node
        return inner

    def array(self, children: list[Any]) -> nodes.Array:
        bracket, *items = children
        return nodes.Array(bracket.start_pos, items)

    def map(self, children: list[Any]) -> nodes.Map:
        brace, *pairs = children
        colon_at = pairs[0][2] if pairs else brace.start_pos + 1
        return nodes.Map(brace.start_pos, [(key, value) for key, value, _ in pairs], colon_at)

    def pair(self, children: list[Any]) -> tuple[nodes.Node, nodes.Node, int]:
        token, colon, value = children
        key = _unescaped(token) if token.type == "STRING" else str(token).strip("`")
        return nodes.Literal(token.start_pos, key), value, colon.start_pos

    def computed_pair(self, children: list[Any]) -> tuple[nodes.Node, nodes.Node, int]:
        key, colon, value = children
        return key, value, colon.start_pos

    def args(self, children: list[Any]) -> list[nodes.Node]:
        return children

    def block(self, children: list[Any]) -> nodes.Block:
        brace, body = children
        return nodes.Block(brace.start_pos, body)


def _chained(left: nodes.Node, step: nodes.Step) -> nodes.Chain:
    if not isinstance(left, nodes.Chain) or left.is_closed:
        return nodes.Chain(step.at, left, [step])
    if left.steps[-1].op == "??" and step.op != "??":
        reason = f"Operator ({step.op}) and coalesce expressions (??) cannot be mixed. Wrap either by parentheses."
        raise Fault(reason, step.at)
    left.steps.append(step)
    left.at = step.at
    return left


def _start(node: nodes.Node) -> int:
    """Where the text of an operand begins; its own place is that of its last operator or property."""
    while isinstance(node, nodes.Chain | nodes.Member):
        node = node.first if isinstance(node, nodes.Chain) else node.target
    return node.at


def _call(children: list[Any], predicate_index: int) -> nodes.Call:
    """A call whose predicate, if its function takes one, is a Block."""
    name, arguments = children
    for index, argument in enumerate(arguments):
        is_predicate = index == predicate_index and name in predicates.TABLE
        if is_predicate and isinstance(argument, nodes.Map) and not argument.is_closed:
            raise unexpected_token("COLON" if argument.pairs else "", ":" if argument.pairs else "}", argument.colon_at)
        if is_predicate and not isinstance(argument, nodes.Block):
            arguments[index] = nodes.Block(_start(argument), argument)
        elif isinstance(argument, nodes.Block) and not is_predicate:
            raise unexpected_token("LBRACE", "{", argument.at)
    return nodes.Call(name.start_pos, str(name), arguments)


def _number(token: Token) -> int | float:
    text = token.replace("_", "")
    base = {"0x": 16, "0b": 2, "0o": 8}.get(text[:2].lower(), 10)
    if base == 10 and not text.isdigit():
        return float(text)
    # 20 digits are past 64 bits, so a number of a million digits is never worked out.
    value = _MAX_INT + 1 if base == 10 and len(text) > 20 else int(text, base)
    if value > _MAX_INT:
        raise Fault("integer literal is too large", token.start_pos)
    return value


def _unescaped(token: Token) -> str:
    def replaced(match: re.Match[str]) -> str:
        digits = match["x"] or match["u"] or match["U"]
        if digits or match["o"]:
            code = int(digits, 16) if digits else int(match["o"], 8)
            return chr(code) if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else "\ufffd"
        if match["c"] not in _ESCAPED:
            raise Fault("invalid char escape", (token.start_pos or 0) + match.start() + 2)
        return _ESCAPED[match["c"]]

    inside = str(token[1:-1])
    return _ESCAPE.sub(replaced, inside) if "\\" in inside else inside


def unexpected_token(terminal: str, text: str, at: int) -> Fault:
    if terminal == "NUMBER":
        kind, shown = "Number", text
    elif terminal in {"STRING", "RAW"}:
        kind, shown = "String", text[1:-1]
    elif text in _WORD_OPERATORS or not (text[0].isalpha() or text[0] in "_$"):
        kind, shown = ("Bracket" if text in "()[]{}" else "Operator"), text
    else:
        kind, shown = "Identifier", text
    return Fault(f'unexpected token {kind}("{shown}")', at)
