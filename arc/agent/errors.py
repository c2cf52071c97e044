"""Errors of actions; their text is what the log of the execution ends with."""

from __future__ import annotations

from arc.errors import ArcError


class ActionFailed(ArcError):
    """The action did not succeed."""


class ActionStopped(ActionFailed):
    """The action was cancelled, ran out of time, or the agent stops."""
