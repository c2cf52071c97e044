"""Errors of expressions: a reason and a place inside, a full text with a pointer outside.

error compiling expression: inputs.x == 1: invalid operation: == (mismatched types string and int) (1:10)
 | inputs.x == 1
 | .........^
"""

from __future__ import annotations

from arc.errors import Invalid


class ExpressionError(Invalid):
    """An expression does not compile or fails; nothing of it was used."""


class Fault(Exception):
    """What is wrong and where. at: characters before the place; None until the evaluator knows it."""

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at


def compile_error(text: str, fault: Fault) -> ExpressionError:
    return ExpressionError(f"error compiling expression: {_described(text, fault)}")


def run_error(text: str, fault: Fault) -> ExpressionError:
    return ExpressionError(f"error evaluating expression: {_described(text, fault)}")


SHOWN_CHARACTERS = 1_000  # of an expression in its error; longer texts would fill logs and answers


def _described(text: str, fault: Fault) -> str:
    at = fault.at or 0
    before = text[:at].rsplit("\n", 1)[-1]
    line_no, column = text.count("\n", 0, at) + 1, len(before)
    shown = _shortened(text)
    described = f"{shown}: {fault.reason} ({line_no}:{column + 1})"
    if shown is not text:
        return described
    line = text.split("\n")[line_no - 1].replace("\t", " ")
    return f"{described}\n | {line}\n | {'.' * column}^"


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
