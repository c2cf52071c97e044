"""Pages of lists: what page a request wants, and the headers that lead from page to page.

Source: the remote agents specification, section 2.5.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

from flask import Response, jsonify, request
from pydantic import BaseModel, Field, WithJsonSchema

if TYPE_CHECKING:
    from arc.fleet.records import Page

_INT64_MAX = 2**63 - 1
_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}", re.ASCII)
_Number = Annotated[str, WithJsonSchema({"type": "integer"})]

HEADERS = {
    "Pagination-Elements": {"description": "Elements of all pages", "schema": {"type": "integer"}},
    "Pagination-Pages": {"description": "Pages", "schema": {"type": "integer"}},
    "Pagination-Per-Page": {"description": "Elements of a page", "schema": {"type": "integer"}},
    "Link": {"description": "URLs of `self`, `first`, `prev`, `next`, `last`", "schema": {"type": "string"}},
}


class PagedQuery(BaseModel):
    page: _Number = Field(
        "", description="From 1; a page beyond the last is the last", json_schema_extra={"default": 1}
    )
    per_page: _Number = Field("", description="1 to 100", json_schema_extra={"default": 25})

    def wanted(self) -> tuple[int, int]:
        """Page and size; what cannot be read counts as not given."""
        page, per_page = _integer(self.page), _integer(self.per_page)
        return max(page, 1), min(per_page, 100) if per_page >= 1 else 25


def answer(page: Page[Any], items: list[Any]) -> Response:
    """A bare list with the headers of its page."""
    response = jsonify(items)
    response.headers["Pagination-Elements"] = str(page.total)
    response.headers["Pagination-Pages"] = str(page.pages)
    response.headers["Pagination-Per-Page"] = str(page.per_page)
    response.headers["Link"] = ",".join(f'<{_url(n, page.per_page)}>;rel="{rel}"' for rel, n in _links(page))
    return response


def _links(page: Page[Any]) -> list[tuple[str, int]]:
    number, pages = page.number, page.pages
    if not pages:
        return [("self", 0), ("first", 1), ("prev", 1), ("next", 0), ("last", 0)]
    before = [("first", 1), ("prev", number - 1)] if number > 1 else []
    after = [("next", number + 1), ("last", pages)] if number < pages else []
    return [("self", number), *before, *after]


def _url(number: int, per_page: int) -> str:
    """This request's path with all its parameters, by name."""
    given = {name: values for name, values in request.args.lists() if name not in ("page", "per_page")}
    given |= {"page": [str(number)], "per_page": [str(per_page)]}
    ordered = sorted(given.items(), key=lambda item: item[0].encode("utf-8", "replace"))
    return f"{quote(request.path)}?{urlencode(ordered, doseq=True, errors='replace')}"


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        return 0
    return max(-_INT64_MAX, min(int(text), _INT64_MAX))
