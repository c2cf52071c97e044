"""Trace context of a request, as W3C Trace Context has it: it is kept with an action and links its run to the request.

Arc records no spans itself. A request to schedule gets an id of its own in the trace of its caller, or in a new one.
https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
NAMES = frozenset((TRACEPARENT, TRACESTATE))
KNOWN_FLAGS = 0x03  # sampled, and the trace id is random; all others have to be cleared

_PARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"  # what later versions add
)
_STATE = re.compile(r"[\x20-\x7e\t]{1,512}")  # longer ones need not be passed on


def in_own_span(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """A request's headers with the context of its own span in place of the caller's.

    Context that cannot be read never fails a request: a new trace begins.
    """
    given = [(name.lower(), value) for name, value in headers]
    others = [(name, value) for name, value in given if name not in NAMES]
    parents = [value.strip() for name, value in given if name == TRACEPARENT]
    caller = _read(parents[0]) if len(parents) == 1 else None
    if caller is None:
        if parents:
            log.info("%.200r is no trace context; a new trace begins", ", ".join(parents))
        return [*others, (TRACEPARENT, f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-00")]
    own = f"00-{caller['trace']}-{os.urandom(8).hex()}-{int(caller['flags'], 16) & KNOWN_FLAGS:02x}"
    state = ",".join(value for name, value in given if name == TRACESTATE)
    return [*others, (TRACEPARENT, own), *([(TRACESTATE, state)] if _STATE.fullmatch(state) else [])]


def answer_headers(kept: Mapping[str, str]) -> dict[str, str]:
    """What tells the caller of the span that was kept."""
    return {TRACEPARENT: kept[TRACEPARENT]} if TRACEPARENT in kept else {}


def _read(parent: str) -> re.Match[str] | None:
    found = _PARENT.fullmatch(parent)
    return None if found is None or (found["version"] == "00" and found["more"]) else found
