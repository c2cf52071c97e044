"""The dashboard: the page for browsers at /, and the files it is made of, at /static/.

static/ is plain HTML, CSS and JavaScript; what it shows comes from the same routes that every client has.
"""

from __future__ import annotations

import mimetypes
import sysconfig
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Response, request
from pydantic import BaseModel

from arc.errors import NotFound
from arc.web.auth import PUBLIC
from arc.web.compression import compress
from arc.web.surface import Surface

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# Nothing inline, nothing from elsewhere, and no way to make a text into markup.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE = "index.html"

surface = Surface("dashboard", "Dashboard", "The page for people, at `/`.")


class FilePath(BaseModel):
    name: str


@surface.api(
    "GET", "/static/<name>", needs=PUBLIC, answers={200: {"description": "Script, style or image"}}, errors=[404]
)
def dashboard_file(path: FilePath) -> Response:
    """What the dashboard is made of."""
    return _file(path.name)


def page() -> Response | None:
    """The page, when a browser asks and it is installed."""
    accepted = request.accept_mimetypes
    wants_page = "text/html" in accepted.values() and accepted["text/html"] >= accepted["application/json"]
    return _file(PAGE) if wants_page and _directory() else None


def _file(name: str) -> Response:
    """Browsers ask each time whether a file has changed, so that a new version of Arc is never half an old one."""
    request.environ["arc.is_routine"] = True
    directory = _directory()
    found = directory / name if directory and not name.startswith(".") else None
    if found is None or not found.is_file():
        raise NotFound(f"no file {name!r}")
    kind, _ = mimetypes.guess_type(name)
    answer = Response(found.read_bytes(), mimetype=kind, headers={"Content-Security-Policy": PAGE_POLICY})
    answer.cache_control.no_cache = True
    answer.add_etag(weak=True)  # one for all codings
    return compress(answer).make_conditional(request)  # type: ignore[return-value]


@cache
def _directory() -> Traversable | None:
    """Beside the package in a source tree and a zipapp; where setup.cfg has it put when Arc is installed."""
    installed = Path(sysconfig.get_path("data")) / "share" / "arc" / "static"
    beside: Traversable = files("arc").parent / "static"  # type: ignore[attr-defined]  # so has each kind of path
    return next((found for found in (beside, installed) if (found / PAGE).is_file()), None)
