"""What requests about jobs have in common: the switch, pages, words to search for, who asks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from flask import request
from pydantic import BaseModel, Field, WithJsonSchema

from arc.access.tokens import Identity
from arc.errors import NotFound
from arc.jobs.states import JobState  # noqa: TC001 - pydantic reads it
from arc.web.auth import IDENTITY_KEY
from arc.web.parts import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

_INT64 = 2**63
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NOBODY = Identity(None, "anonymous", frozenset())  # on paths of [auth] allowlist
_Number = Annotated[str, WithJsonSchema({"type": "integer"})]


def _number(default: int, description: str) -> Any:
    return Field("", description=description, json_schema_extra={"default": default})


class PageQuery(BaseModel):
    page: _Number = _number(1, "From 1; an empty page beyond the last one")
    size: _Number = _number(10, "Entries per page, 1 to 20")

    def wanted(self, default: int = 10, largest: int = 20) -> tuple[int, int]:
        """Page and size, moved into their ranges. Raises NotFound, as clients of the original expect."""
        page = _integer("page number", self.page, 1)
        size = _integer("size", self.size, default)
        return max(page, 1), min(max(size, 1), largest)


class SearchQuery(PageQuery):
    q: str = Field(
        "", description="Words of name, description or state; `tag:a` or `tags:a,b` for jobs with one of them"
    )
    state: JobState | Literal[""] = Field("", description="Only jobs in this state")


class LogQuery(PageQuery):
    size: _Number = _number(25, "Parts per page, 1 to 100")
    q: str = Field("", description="Words that a part holds; the totals do not know of them")

    def wanted(self, default: int = 25, largest: int = 100) -> tuple[int, int]:
        return super().wanted(default, largest)


class Search(NamedTuple):
    """terms: a job holds all of them. tags: and one of these, if there are any."""

    terms: list[str]
    tags: list[str]


def search(text: str) -> Search:
    """`big tag:video tags:a,b` -> terms big; tags video, a, b."""
    words = text.split()
    tags = [tag for word in words for tag in _tags(word)]
    return Search([word for word in words if not word.startswith(("tag:", "tags:"))], tags)


def only_with_jobs() -> None:
    """Raises NotFound while jobs are switched off; for before_request of a surface."""
    if not parts().config.get("jobs", "enabled"):
        raise NotFound("jobs are switched off: [jobs] enabled = false")


def identity() -> Identity:
    """Who sent the current request."""
    found: Identity = request.environ.get(IDENTITY_KEY, _NOBODY)
    return found


def _tags(word: str) -> Iterator[str]:
    if word.startswith("tag:"):
        yield word.removeprefix("tag:")
    elif word.startswith("tags:"):
        yield from word.removeprefix("tags:").split(",")


def _integer(what: str, text: str, default: int) -> int:
    if not text:
        return default
    if not _INTEGER.fullmatch(text) or not -_INT64 <= int(text) < _INT64:
        raise NotFound(f"invalid {what}: {text}")
    return int(text)
