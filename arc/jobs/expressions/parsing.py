"""Text to syntax tree: grammar.lark and the texts of syntax errors.

lark and the tables of the grammar are loaded with the first expression: a server that runs no jobs never pays for them.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

from arc.jobs.expressions.building import Builder, unexpected_token
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.limits import MAX_CHARACTERS, MAX_PARSER_STACK, STEPS_PER_TOKEN, TOO_DEEP, Budget

if TYPE_CHECKING:
    from lark import Lark, Token

    from arc.jobs.expressions import nodes


def parse(text: str, budget: Budget) -> nodes.Node:
    """The tree of one expression. Raises Fault with the place of the first mistake."""
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    if len(text) > MAX_CHARACTERS:
        raise Fault(f"expression has more than {MAX_CHARACTERS} characters", 0)
    parser = grammar().parse_interactive(text)
    try:
        for _ in parser.iter_parse():  # token by token, so that a long text cannot outrun the budget
            budget.step(STEPS_PER_TOKEN)
            if len(parser.parser_state.value_stack) > MAX_PARSER_STACK:
                raise Fault(TOO_DEEP)
        tree: nodes.Node = parser.feed_eof()  # type: ignore[no-untyped-call]
    except UnexpectedToken as exc:
        raise _unexpected(text, exc.token) from None
    except UnexpectedCharacters as exc:
        raise _unreadable(text, exc.pos_in_stream or 0) from None
    return tree


@functools.cache
def grammar() -> Lark:
    """The parser, made from grammar.lark when first asked for."""
    from lark import Lark

    text = resources.files(__package__).joinpath("grammar.lark").read_text("utf-8")
    return Lark(text, parser="lalr", lexer="contextual", maybe_placeholders=True, transformer=Builder())


def _unexpected(text: str, token: Token) -> Fault:
    if token.type == "$END":
        return Fault("unexpected token EOF", max(len(text) - 1, 0))
    return unexpected_token(token.type, str(token), token.start_pos or 0)


def _unreadable(text: str, at: int) -> Fault:
    """Nothing of the language begins here: a string without an end, or a character that it does not have."""
    if text[at] in "\"'`":
        line_end = text.find("\n", at)
        return Fault("literal not terminated", len(text) if text[at] == "`" or line_end < 0 else line_end)
    if text.startswith("/*", at):
        return Fault("unclosed comment", len(text))
    return Fault(f"unrecognized character: U+{ord(text[at]):04X} '{text[at]}'", at)
