"""The syntax tree of an expression: plain data with the position of each node in its text.

The parser builds it, the checker walks it once per text and set of names, the evaluator once per use. A position is
the place of the token that errors point at: the operator of an operation, the property of a member, the bracket of an
index.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Node:
    """Base of all. at: characters before the token that stands for the node."""

    at: int


@dataclass(slots=True)
class Literal(Node):
    value: str | int | float | bool | None


@dataclass(slots=True)
class Name(Node):
    name: str


@dataclass(slots=True)
class Pointer(Node):
    """`#`, `#index`, `#acc` inside a predicate; name is empty for the element itself."""

    name: str


@dataclass(slots=True)
class Unary(Node):
    op: str
    operand: Node


@dataclass(slots=True)
class Step(Node):
    """One operator of a chain and its right operand."""

    op: str
    operand: Node
    is_negated: bool = False


@dataclass(slots=True)
class Chain(Node):
    """`first op a op b ...`, worked off from left to right.

    A flat list in place of nested pairs: a sum of a thousand terms needs no thousand levels of recursion. Operands that
    bind stronger on the left (`a * b + c`) join the same chain, because their value is the left operand anyway.
    """

    first: Node
    steps: list[Step]
    is_closed: bool = False  # in parentheses: a value of its own that no chain continues


@dataclass(slots=True)
class Member(Node):
    """`target.key`, `target[key]`; with is_optional (`?.`) nil instead of an error when target is nil."""

    target: Node
    key: Node
    is_optional: bool = False


@dataclass(slots=True)
class Slice(Node):
    target: Node
    start: Node | None
    stop: Node | None


@dataclass(slots=True)
class Method(Node):
    """`target.name(arguments)`: methods exist for instants and durations only."""

    target: Node
    name: str
    arguments: list[Node]
    is_optional: bool = False


@dataclass(slots=True)
class Call(Node):
    name: str
    arguments: list[Node]


@dataclass(slots=True)
class Block(Node):
    """A predicate: the second argument of functions such as filter, with or without braces.

    weight: how many nodes one use of it evaluates; the checker counts them.
    """

    body: Node
    weight: int = 0


@dataclass(slots=True)
class Array(Node):
    items: list[Node]


@dataclass(slots=True)
class Map(Node):
    """pairs: key and value; colon_at: place of the first colon, for a map where a predicate belongs."""

    pairs: list[tuple[Node, Node]]
    colon_at: int
    is_closed: bool = False


@dataclass(slots=True)
class Conditional(Node):
    test: Node
    positive: Node | None  # None in `a ?: b`, where it is the test itself
    negative: Node


@dataclass(slots=True)
class Let(Node):
    name: str
    value: Node
    body: Node


@dataclass(slots=True)
class Sequence(Node):
    """`a; b`: both are worked out, the value is that of b."""

    parts: list[Node] = field(default_factory=list)
