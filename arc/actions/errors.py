"""What can go wrong with actions. The name of a class is its code: `kind` of an answer, `variant` of a payload."""

from __future__ import annotations

from arc.errors import ArcError, Conflict, Denied, Invalid, NotFound, Unavailable


class InvalidArgs(Invalid):
    """path: dotted, from `args` on; expected: what would have been right."""

    def __init__(self, path: str, expected: str) -> None:
        super().__init__(f"{path}: expected {expected}")
        self.details = {"path": path, "expected": expected}


class InvalidTime(Invalid):
    def __init__(self, text: str) -> None:
        super().__init__(f"{text[:60]!r} is no RFC 3339 time in UTC such as 2024-05-06T07:08:09Z")


class InvalidId(Invalid):
    def __init__(self, text: str) -> None:
        super().__init__(f"{text[:60]!r} is no UUID of 36 characters")


class InvalidRequester(Invalid):
    def __init__(self, text: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown requester {text[:60]!r}; known are {', '.join(known)}")


class ActionEncode(Invalid):
    def __init__(self, header: str) -> None:
        super().__init__(
            f"header {header} cannot be kept: at most 64 are, each of at most 4096 bytes of printable ASCII"
        )
        self.details = {"header": header}


class InvalidJson(Invalid):
    """A body is no JSON, or not the JSON that was expected."""


class InvalidImport(Invalid):
    """line: number of the first one that is wrong, from 1; error: what is wrong with it."""

    def __init__(self, line: int, error: Invalid) -> None:
        super().__init__(f"line {line}: {error}")
        self.details = {"line": line} | dict(error.details)


class ActionNotAvailable(Invalid):
    def __init__(self, kind: str) -> None:
        super().__init__(f"no action of kind {kind[:200]!r} on this node")
        self.details = {"kind": kind[:200]}


class Forbidden(Denied):
    """A requester that only some may name."""


class ActionsDisabled(NotFound):
    def __init__(self) -> None:
        super().__init__("actions are switched off on this node")


class ActionNotFound(NotFound):
    def __init__(self, action_id: str) -> None:
        super().__init__(f"no action with id {action_id[:60]!r}")


class ActionAlreadyExists(Conflict):
    def __init__(self, action_id: str, kind: str, state: str | None) -> None:
        super().__init__(f"an action with id {action_id!r} was scheduled before")
        self.details = {"existing": {"id": action_id, "kind": kind, "state": state}}


class ActionFinished(Conflict):
    def __init__(self, action_id: str) -> None:
        super().__init__(f"action {action_id!r} has ended")


class NotCancellable(Conflict):
    def __init__(self, action_id: str, kind: str) -> None:
        super().__init__(f"action {action_id!r} is running, and {kind} cannot be stopped half way")


class QueueFull(Unavailable):
    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} actions are waiting; no more are taken until one has ended", retry_after_s=5)
        self.details = {"limit": limit}


class Draining(Unavailable):
    def __init__(self) -> None:
        super().__init__("the node is stopping and takes no more actions", retry_after_s=5)


class EngineElsewhere(Unavailable):
    def __init__(self) -> None:
        super().__init__("another process works on the actions of this node", retry_after_s=5)


class NewerSchema(ArcError):
    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(f"{path} has schema version {found}, written by a newer Arc; this one knows {known}")


class ActionFailed(ArcError):
    """Ends an action as FAILED. Subclasses are the variants that have a name of their own."""


class FreeForm(ActionFailed):
    """An action that fails on purpose."""


class ActionCrashed(ActionFailed):
    def __init__(self, crashes: int) -> None:
        super().__init__(f"the process died {crashes} times while it worked on this action")


class Interrupted(ActionFailed):
    def __init__(self) -> None:
        super().__init__("the process died while it worked on this action, which cannot be repeated")


class Cancelled(ActionFailed):
    def __init__(self, reason: str) -> None:
        super().__init__(f"cancelled: {reason}" if reason else "cancelled")


class Deadline(ActionFailed):
    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"not finished within {deadline_s:g} s")


class IllegalTransition(ActionFailed):
    def __init__(self, before: str, after: str) -> None:
        super().__init__(f"an action that is {before} cannot become {after}")


class PayloadTooLarge(ActionFailed):
    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"a state payload of {size_bytes} bytes is above the limit of {limit_bytes}")


class ActionDecode(ActionFailed):
    """The stored progress makes no sense to this version."""


class ServiceOpFailed(ActionFailed):
    """A supervisor's command could not run or refused."""


class InvalidConfig(ActionFailed):
    """The configuration cannot be used as it is now; what was in force still is."""


class StoreOpFailed(ActionFailed):
    """The store of the node could not do it."""


class Timeout(ActionFailed):
    """A command took too long and was ended."""


class ExitStatus(ActionFailed):
    """A command ended with a status that is none of the good ones."""


class VerifyFailed(ActionFailed):
    """A check found something wrong."""


class ExternalActionStart(ActionFailed):
    """The command of an external action could not be run."""


class ExternalActionExec(ActionFailed):
    """The command of an external action ended with a status other than 0."""


class ExternalActionCheck(ActionFailed):
    """The check of an external action could not be run."""


class ExternalActionCheckResult(ActionFailed):
    """The check of an external action ended with a status other than 0."""


class ExternalActionCheckDecode(ActionFailed):
    """The check of an external action printed what nobody understands."""
