"""Regular expressions, by RE2: its time grows with the length of the text, never exponentially.

The standard module backtracks: `(a+)+$` on forty characters would hold a thread of the server for hours.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from arc.jobs.expressions.faults import Fault

if TYPE_CHECKING:
    from arc.jobs.expressions.limits import Budget

MAX_PATTERN = 4_000  # characters
MAX_MEMORY = 1 << 20  # bytes of one compiled expression and its states
WORK_PER_STEP = 100
MAX_WORK = 5_000_000  # instructions of the expression times characters of the text: 0.03 s in the slowest case


@functools.lru_cache(maxsize=16)
def pattern(text: str) -> Any:
    """A compiled expression. Raises Fault when it is none."""
    import re2

    if len(text) > MAX_PATTERN:
        raise Fault(f"error parsing regexp: expression has more than {MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    try:
        return re2.compile(text, options)
    except re2.error as exc:
        reason = exc.args[0]
        raise Fault(
            f"error parsing regexp: {reason.decode('utf-8', 'replace') if isinstance(reason, bytes) else reason}"
        ) from None


def matches(expression: str, text: str, budget: Budget) -> bool:
    """Whether the expression is found anywhere in the text."""
    compiled = pattern(expression)
    work = compiled.programsize * len(text)
    if work > MAX_WORK:
        raise Fault("regular expression too large for a text of this length")
    budget.step(work // WORK_PER_STEP)
    return compiled.search(text) is not None
