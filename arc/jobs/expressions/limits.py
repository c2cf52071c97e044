"""What one expression may cost. Whoever may submit a job may write expressions, so each is bounded in every way.

Processor time of the thread is measured, not the clock on the wall: a busy server must not make a good expression fail.
For the same reason the first SURE_STEPS are never refused: a garbage collection may fall into any of them.
"""

from __future__ import annotations

import time

from arc.jobs.expressions.faults import Fault

MAX_CHARACTERS = 65_536  # of one expression
MAX_NODES = 10_000  # of one syntax tree
MAX_DEPTH = 100  # levels of a syntax tree; each costs a few frames of the interpreter's stack
MAX_ELEMENTS = 1_000_000  # characters, list elements and map entries made by one evaluation
MAX_CPU_S = 0.04  # seconds of processor time, parsing and checking included
SURE_STEPS = 40_000  # about 0.02 s; a step is the visit of a node or what takes as long
STEPS_BETWEEN_CHECKS = 100  # reading the clock costs about as much as one step
STEPS_PER_TOKEN = 40  # of parsing, measured
MAX_PARSER_STACK = 6 * MAX_DEPTH  # symbols; a level of a tree takes at most `let a = 1 ;`
CHARACTERS_PER_STEP = 256  # that an operator or function reads in the time of one step
ITEMS_PER_STEP = 8
STEPS_PER_PART = 3  # of a text form or of JSON
MAX_TOTAL_CPU_S = 2.0  # of all expressions that are worked out together
MAX_TOTAL_CHARACTERS = 4_000_000  # of the texts they come out as
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class Budget:
    """What one expression may still use up; made when its work begins."""

    def __init__(self) -> None:
        self._deadline = time.thread_time() + MAX_CPU_S
        self._elements = MAX_ELEMENTS
        self._steps = 0
        self._next_check = SURE_STEPS

    def step(self, steps: int = 1) -> None:
        """Count steps of work. Raises Fault when the time is used up."""
        self._steps += steps
        if self._steps >= self._next_check:
            self._next_check = self._steps + STEPS_BETWEEN_CHECKS
            if time.thread_time() > self._deadline:
                raise Fault("time limit exceeded")

    def spend(self, elements: int) -> None:
        """Take elements off the budget; call it before making what could be large. Raises Fault."""
        self._elements -= elements
        if self._elements < 0:
            raise Fault("memory budget exceeded")


class Allowance:
    """What the expressions of a document may use up together: each has its own budget, but there may be thousands."""

    def __init__(self) -> None:
        self._cpu_s = MAX_TOTAL_CPU_S
        self._characters = MAX_TOTAL_CHARACTERS

    def take(self, cpu_s: float, characters: int) -> None:
        """Raises Fault when it is used up."""
        self._cpu_s -= cpu_s
        self._characters -= characters
        if self._cpu_s < 0:
            raise Fault(f"all expressions together take longer than {MAX_TOTAL_CPU_S:g} s")
        if self._characters < 0:
            raise Fault(f"all expressions together come out longer than {MAX_TOTAL_CHARACTERS} characters")
