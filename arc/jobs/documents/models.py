"""Every object of a job document, its fields with their types and rules.

The order of the fields is the order in which broken rules are reported. Empty means not given; defaults are
filled in where they are used, so that a document stays as its author wrote it.
Source: the jobs specification, section 3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from arc.jobs.documents.rules import CRON, DURATION, EXPRESSION, QUEUE, REQUIRED, SECRETS, at_least, at_most
from arc.jobs.documents.values import Number, Part, Text, TextMap, Texts, Truth, Whole

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNT_PATH = re.compile(r"[-/.0-9a-zA-Z_= ]*")
_PRIORITY = (at_least(0), at_most(9))


class Registry(Part):
    username: Text = ""
    password: Text = Field("", repr=False)


class Limits(Part):
    cpus: Text = ""
    memory: Text = ""


class Retry(Part):
    limit: Annotated[Whole, REQUIRED, at_least(1), at_most(10)] = 0
    initial_delay: Annotated[Text, DURATION] = Field("", alias="initialDelay")
    scaling_factor: Annotated[Number | None, at_least(1), at_most(10)] = Field(None, alias="scalingFactor")


class Mount(Part):
    type: Text = ""
    source: Text = ""
    target: Text = ""
    opts: TextMap

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if tag := self._broken_rule():
            yield "mount", tag

    def _broken_rule(self) -> str:
        cases = (
            (not self.type, "typerequired"),
            (self.type == "volume" and self.source, "sourcenotempty"),
            (self.type == "volume" and not self.target, "targetrequired"),
            (self.type == "bind" and not self.source, "sourcerequired"),
            (not _MOUNT_PATH.fullmatch(self.source), "invalidsource"),
            (not _MOUNT_PATH.fullmatch(self.target), "invalidtarget"),
            (self.target == "/tork", "invalidtarget"),
        )
        return next((tag for is_broken, tag in cases if is_broken), "")


class Probe(Part):
    path: Annotated[Text, REQUIRED, at_most(256)] = ""
    port: Annotated[Whole, REQUIRED, at_least(1), at_most(65535)] = 0
    timeout: Annotated[Text, DURATION] = ""


class AuxTask(Part):
    """Runs before or after the main part of a task, in its own container."""

    name: Annotated[Text, REQUIRED] = ""
    description: Text = ""
    cmd: Texts
    entrypoint: Texts
    run: Text = ""
    image: Text = ""
    registry: Registry | None = None
    env: TextMap
    files: TextMap
    timeout: Annotated[Text, DURATION] = ""


class Sidecar(AuxTask):
    probe: Probe | None = None


class Webhook(Part):
    url: Annotated[Text, REQUIRED] = ""
    headers: TextMap
    event: Text = ""
    if_: Annotated[Text, EXPRESSION] = Field("", alias="if")


class Permission(Part):
    role: Text = ""
    user: Text = ""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if bool(self.role) == bool(self.user):
            yield "perm", "roleoruser"


class AutoDelete(Part):
    after: Annotated[Text, DURATION] = ""


class Task(Part):
    """One task: a regular one, or a composite with one of parallel, each, subjob."""

    name: Annotated[Text, REQUIRED] = ""
    description: Text = ""
    cmd: Texts
    entrypoint: Texts
    run: Text = ""
    image: Text = ""
    registry: Registry | None = None
    env: TextMap
    files: TextMap
    queue: Annotated[Text, QUEUE] = ""
    pre: list[AuxTask] = Field([])
    post: list[AuxTask] = Field([])
    sidecars: list[Sidecar] = Field([])
    mounts: list[Mount] = Field([])
    networks: Texts
    retry: Retry | None = None
    limits: Limits | None = None
    timeout: Annotated[Text, DURATION] = ""
    var: Annotated[Text, at_most(64)] = ""
    if_: Annotated[Text, EXPRESSION] = Field("", alias="if")
    parallel: Parallel | None = None
    each: Each | None = None
    subjob: SubJob | None = None
    gpus: Text = ""
    tags: Texts
    workdir: Annotated[Text, at_most(256)] = ""
    priority: Annotated[Whole, *_PRIORITY] = 0

    NOT_COMPOSITE: ClassVar = (
        *("image", "cmd", "entrypoint", "run", "env", "queue"),
        *("pre", "post", "mounts", "retry", "limits", "timeout"),
    )

    @property
    def is_composite(self) -> bool:
        return bool(self.parallel or self.each or self.subjob)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        for one, other, tag in (
            ("each", "parallel", "paralleloreach"),
            ("subjob", "parallel", "parallelorsubjob"),
            ("subjob", "each", "eachorsubjob"),
        ):
            if getattr(self, one) and getattr(self, other):
                yield from ((one, tag), (other, tag))
        if self.is_composite:
            yield from ((name, "invalidcompositetask") for name in self.NOT_COMPOSITE if getattr(self, name))


class Parallel(Part):
    """All tasks at once."""

    tasks: Annotated[list[Task], REQUIRED, at_least(1)] = Field([])


class Each(Part):
    """The task once per element of a list."""

    var: Text = ""
    list_: Annotated[Text, REQUIRED, EXPRESSION] = Field("", alias="list")
    task: Annotated[Task | None, REQUIRED] = None
    concurrency: Annotated[Whole, at_least(0), at_most(99_999)] = 0


class SubJob(Part):
    """A job of its own. id: what GET answers may be submitted again, so it is accepted and ignored."""

    id: Text = Field("", exclude=True)
    name: Annotated[Text, REQUIRED] = ""
    description: Text = ""
    tasks: Annotated[list[Task], REQUIRED, at_least(1)] = Field([])
    inputs: TextMap
    secrets: Annotated[TextMap, SECRETS]
    auto_delete: AutoDelete | None = Field(None, alias="autoDelete")
    output: Annotated[Text, EXPRESSION] = ""
    detached: Truth = False
    webhooks: list[Webhook] = Field([])


class Defaults(Part):
    """For the regular tasks of a job that do not say it themselves."""

    retry: Retry | None = None
    limits: Limits | None = None
    timeout: Annotated[Text, DURATION] = ""
    queue: Annotated[Text, QUEUE] = ""
    priority: Annotated[Whole, *_PRIORITY] = 0


class Wait(Part):
    timeout: Text = ""  # checked by parsing.parse, ahead of all rules


class Schedule(Part):
    cron: Annotated[Text, REQUIRED, CRON] = ""


class Document(Part):
    """What jobs and scheduled jobs have in common. title: how paths of broken rules begin."""

    title: ClassVar[str]

    name: Annotated[Text, REQUIRED, at_most(256)] = ""
    description: Text = ""
    tags: Texts
    tasks: Annotated[list[Task], REQUIRED, at_least(1)] = Field([])
    inputs: TextMap
    secrets: Annotated[TextMap, SECRETS]
    output: Annotated[Text, EXPRESSION] = ""
    defaults: Defaults | None = None
    webhooks: list[Webhook] = Field([])
    permissions: list[Permission] = Field([])
    auto_delete: AutoDelete | None = Field(None, alias="autoDelete")

    def as_submitted(self) -> dict[str, Any]:
        """What is stored, and may be submitted again: without `wait`, which is about the request."""
        return self.to_dict()


class JobDocument(Document):
    title = "Job"

    wait: Wait | None = Field(None, exclude=True)


class ScheduledJobDocument(Document):
    title = "ScheduledJob"

    schedule: Annotated[Schedule | None, REQUIRED] = None


for _model in (Task, Parallel, Each, SubJob, JobDocument, ScheduledJobDocument):
    _model.model_rebuild()
