"""Errors of the domain. Each writes its own sentence, fit to be shown to a client.

The web layer maps families to status codes (arc/web/errors.py); nothing here knows HTTP.
What is not an ArcError is a defect: it is logged and answered 500 without detail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ArcError(Exception):
    """Base of everything Arc raises on purpose. details: what a program may want beside the sentence."""

    details: Mapping[str, object] = {}


class Invalid(ArcError):
    """The input breaks a rule; nothing of it was stored."""


class Unreadable(Invalid):
    """An uploaded file is not what it is said to be; nothing of it was stored."""


class Unauthenticated(ArcError):
    """No token, or one that is unknown, expired, revoked."""


class Denied(ArcError):
    """The token is good but does not allow this, or the feature is switched off."""


class NotFound(ArcError):
    """What was named does not exist."""


class Conflict(ArcError):
    """The state of things does not allow this now."""


class TooLarge(ArcError):
    """A body, or what it inflates to, is above the limit."""


class TimedOut(ArcError):
    """The work was stopped at its time limit."""


class Cancelled(ArcError):
    """The work was stopped because somebody asked for it or its client went away."""


class Unavailable(ArcError):
    """Overloaded, out of space or not ready yet; worth trying again.

    retry_after_s: seconds a client should wait before it tries again.
    """

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Damaged(ArcError):
    """Stored rows cannot be read; an operator has to do something about it."""


class Unsupported(ArcError):
    """A request of another system's clients for something Arc does not do."""


class ConfigError(ArcError):
    """An option is unknown or has a value that cannot be used; the start stops."""
