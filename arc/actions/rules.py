"""What a caller may say about an action beside its arguments: id, time of creation, requester, headers."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from arc import clock
from arc.actions import tracing
from arc.actions.errors import ActionEncode, Forbidden, InvalidId, InvalidRequester, InvalidTime

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

AGENT_API = "AGENT_API"
OLD_AGENT_API = "API"  # the only one that the first generation of clients knew
REQUESTERS = (AGENT_API, "CORE_API", "CORE_PLAYBOOK", "CORE_DECLARATIVE")
MAX_HEADERS = 64
MAX_HEADER_BYTES = 4096  # of a name and its value

IGNORED_HEADERS = frozenset(
    (
        *("accept", "accept-encoding", "content-length", "content-type", "host", "user-agent"),
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "forwarded", "x-real-ip"),
        *("authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token"),
    )
)
IGNORED_PREFIXES = ("x-arc-", "x-forwarded-")

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|\+00:00)", re.ASCII)
_UNPRINTABLE = re.compile(r"[^\t\x20-\x7e]")


def action_id(text: str | None) -> str:
    """In lower case; a new one for None. Raises InvalidId."""
    if text is None:
        return _random_uuid()
    if not _UUID.fullmatch(text):
        raise InvalidId(text)
    return text.lower()


def _random_uuid() -> str:
    """Of version 4. The module uuid would cost the agent half a megabyte."""
    number = int.from_bytes(os.urandom(16), "big") & ~(0xF << 76 | 0x3 << 62) | 4 << 76 | 2 << 62
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def created_us(text: str) -> int:
    """Microseconds of an RFC 3339 time in UTC. Raises InvalidTime, also for other offsets and for none."""
    if not _TIME.fullmatch(text):
        raise InvalidTime(text)
    try:
        return clock.parse_rfc3339(text.upper())
    except ValueError:
        raise InvalidTime(text) from None


def requester(claim: str | None, *, may_claim: bool) -> str:
    """Who is said to have asked.

    Raises InvalidRequester; Forbidden for a claim by one who may not make it.
    """
    name = AGENT_API if claim in (None, OLD_AGENT_API) else str(claim)
    if name not in REQUESTERS:
        raise InvalidRequester(name, REQUESTERS)
    if name != AGENT_API and not may_claim:
        raise Forbidden(f"to schedule as {name} takes a permission of its own")
    return name


def headers(pairs: Iterable[tuple[str, str]], deny: Collection[str] = ()) -> dict[str, str]:
    """What is kept of a request's headers, names in lower case. Raises ActionEncode."""
    denied = {name.lower() for name in deny}
    kept: dict[str, str] = {}
    for given, value in pairs:
        name = given.lower()
        if name in IGNORED_HEADERS or name in denied or name.startswith(IGNORED_PREFIXES):
            continue
        if _UNPRINTABLE.search(value) or len(name) + len(value) > MAX_HEADER_BYTES:
            raise ActionEncode(name)
        kept[name] = value
    if len(kept.keys() - tracing.NAMES) > MAX_HEADERS:  # the context of the request must not make it fail
        raise ActionEncode(f"number {MAX_HEADERS + 1}")
    return kept
