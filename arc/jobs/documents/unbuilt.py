"""What a valid document may hold that Arc does not run yet. Each line goes when its part is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.errors import Invalid
from arc.jobs.documents.models import ScheduledJobDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc.jobs.documents.models import Document


def refuse_unbuilt(document: Document) -> None:
    """Raises Invalid that names each part; to be called before a document is stored, so that none runs half."""
    found = list(_unbuilt(document))
    if found:
        raise Invalid(f"not available yet: {', '.join(found)}")


def _unbuilt(document: Document) -> Iterator[str]:
    for index, task in enumerate(document.tasks):
        for name in ("parallel", "each", "subjob"):
            if getattr(task, name):
                yield f"tasks[{index}].{name}"
    if document.webhooks:
        yield "webhooks"
    if document.permissions:
        yield "permissions"
    if isinstance(document, ScheduledJobDocument):
        yield "schedule"
