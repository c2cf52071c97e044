"""The filter language `q=`: text -> tree -> condition of a SELECT over agents.

parse(q) -> lark tree (filter.lark) -> SQLAlchemy condition. A fact or tag an agent does not have is NULL, and SQL's
three-valued logic is the one the language asks for; it is the same on SQLite and PostgreSQL.
Source: the remote agents specification, section 3.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from arc.db.fleet_tables import agent_facts, agent_tags, agents
from arc.errors import Invalid

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

MAX_LENGTH = 4096  # characters
MAX_COMPARISONS = 200  # SQLite nests expressions 1000 deep at most
_INT64_MAX = 2**63 - 1
_LIKE_PAIR = re.compile(r"\\.|[*+]|\\\Z", re.DOTALL)


class FilterError(Invalid):
    """column: characters from the start of its line to the first that does not fit; 0 when the text ends too early."""

    def __init__(self, column: int) -> None:
        super().__init__(f"syntax error. Column: {column}")


def parse(q: str) -> sa.ColumnElement[bool]:
    """The condition of a filter, true for agents that match. Raises FilterError, Invalid when it is too long."""
    from lark import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput

    if len(q) > MAX_LENGTH:
        raise Invalid(f"the filter is longer than {MAX_LENGTH} characters")
    try:
        tree = _grammar().parse(q)
    except UnexpectedCharacters as error:
        raise FilterError(error.column - 1) from None
    except UnexpectedEOF:
        raise FilterError(0) from None
    except UnexpectedInput as error:  # a token that does not fit; the end of the text is one too
        is_end = getattr(getattr(error, "token", None), "type", "") == "$END"
        raise FilterError(0 if is_end else error.column - 1) from None
    if sum(1 for _ in tree.find_pred(lambda node: node.data in ("field_first", "value_first"))) > MAX_COMPARISONS:
        raise Invalid(f"the filter has more than {MAX_COMPARISONS} comparisons")
    return _condition(tree)


@cache
def _grammar() -> Lark:
    from lark import Lark

    text = files("arc.fleet").joinpath("filter.lark").read_text("utf-8")
    return Lark(text, parser="lalr", lexer="basic", keep_all_tokens=False)


def _condition(tree: Tree[Token]) -> sa.ColumnElement[bool]:
    """Not recursive: a long filter must not exhaust Python's stack."""
    made: dict[int, sa.ColumnElement[bool]] = {}
    for node in tree.iter_subtrees():  # children before their parents
        made[id(node)] = _combine(node, made)
    return made[id(tree)]


def _combine(node: Tree[Token], made: dict[int, sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    parts = [made[id(child)] for child in node.children if id(child) in made]
    if node.data == "or_":
        return sa.or_(*parts)
    if node.data == "and_":
        return sa.and_(*parts)
    if node.data == "not_":
        return sa.not_(parts[0])
    first, operator, last = cast("list[Token]", node.children)
    field, value = (first, last) if node.data == "field_first" else (last, first)
    return _comparison(str(field), operator.type, value)


def _comparison(field: str, operator: str, value: Token) -> sa.ColumnElement[bool]:
    if value.type == "NUMBER":
        subject = _stored(field, "number")
        number = float(min(int(value), _INT64_MAX))
        return subject == number if operator == "EQ" else subject != number
    subject, text = _stored(field, "text"), str(value)[1:-1]
    if operator in ("EQ", "NE"):
        return subject == text if operator == "EQ" else subject != text
    pattern = like_pattern(text)
    return subject.like(pattern, escape="\\") if operator == "LIKE" else subject.not_like(pattern, escape="\\")


def _stored(field: str, column: str) -> sa.ScalarSelect[Any]:
    """The text or number of a fact or tag of the agent at hand; NULL when it has none."""
    table = agent_facts if field.startswith("@") else agent_tags
    return (
        sa.select(table.c[column])
        .where(table.c.agent_id == agents.c.agent_id, table.c.name == field.removeprefix("@"))
        .correlate(agents)
        .scalar_subquery()
    )


def like_pattern(text: str) -> str:
    r"""A pattern of the language as one of LIKE: `*` any run, `+` one character, `%` and `_` the same.

    A backslash makes the next character literal, after `*` and `+` have been rewritten: `\*` is a literal percent.
    """

    def rewrite(match: re.Match[str]) -> str:
        found = match[0]
        if found == "\\":
            return "\\\\"  # alone at the end: itself
        literal = found[-1].translate(_WILDCARDS)
        if len(found) == 1:
            return literal
        return f"\\{literal}" if literal in "%_\\" else literal

    return _LIKE_PAIR.sub(rewrite, text)


_WILDCARDS = str.maketrans("*+", "%_")
