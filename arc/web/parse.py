"""What a request says, turned into what the domain takes.

The functions work on the WSGI environment where the hot write routes need them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson
from flask import Request, Response, jsonify, request
from pydantic import BaseModel, Field

from arc.errors import Invalid, TooLarge
from arc.metrics import names

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from _typeshed.wsgi import WSGIEnvironment
    from pydantic import ValidationError

IMPORT_PATHS = "/api/v1/import/"


class ArcRequest(Request):
    """Reads a JSON body whatever its Content-Type says; no harmless type is a reason to refuse."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        body = self.get_data(cache=cache)
        if not body.strip():
            return {}
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise Invalid(f"Invalid request body: {exc}") from None


def size_limit(path: str, options: Mapping[str, Any]) -> int:
    """Largest body of a path. options: section `server`. Files to import wait on disk, everything else in memory."""
    return int(options["max_import_size" if path.startswith(IMPORT_PATHS) else "max_body_size"])


def check_size(environ: WSGIEnvironment, limit_bytes: int) -> None:
    """Raises TooLarge. The server knows the length of chunked bodies too when it hands them over."""
    if int(environ.get("CONTENT_LENGTH") or 0) > limit_bytes:
        raise TooLarge(too_large_text(limit_bytes))


def body(environ: WSGIEnvironment) -> bytes:
    """The raw body. The server has it whole, so this neither waits nor meets its end early."""
    data: bytes = environ["wsgi.input"].read()
    return data


def too_large_text(limit_bytes: int) -> str:
    return f"Payload too large (max {limit_bytes // 2**20}MB)"


def arguments(environ: WSGIEnvironment) -> dict[str, str]:
    """The query string, by name; of several values the first."""
    given: dict[str, list[str]] = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    return {name: values[0] for name, values in given.items()}


def write_database(environ: WSGIEnvironment, default: str) -> str:
    """Where rows go: header x-arc-database, else `db` or `bucket` of the query string, else the default."""
    named: str | None = environ.get("HTTP_X_ARC_DATABASE")
    if named is not None:
        return named
    if not environ.get("QUERY_STRING"):
        return default
    args = arguments(environ)
    if "db" in args:
        return args["db"]
    # InfluxDB 2.x clients of a 1.x database call their bucket `db/retention-policy`.
    return args["bucket"].partition("/")[0] if "bucket" in args else default


def write_measurement(environ: WSGIEnvironment) -> str:
    """Header x-arc-measurement, else `measurement` of the query string. Raises Invalid when neither is there."""
    named: str = environ.get("HTTP_X_ARC_MEASUREMENT", "")
    if not named:
        named = arguments(environ).get("measurement", "")
    if not named:
        raise Invalid("measurement is required: header x-arc-measurement or query parameter measurement")
    return named


def query_database(default: str) -> str:
    """The database of unqualified table names: header x-arc-database, else the default."""
    named = request.headers.get("x-arc-database")
    if named is None:
        return default
    try:
        names.check_database(named)
    except Invalid as error:
        raise Invalid(f"invalid x-arc-database header: {error}") from None
    return named


def invalid(exc: ValidationError) -> Invalid:
    """One sentence out of what a pydantic model objected to; it names each field."""
    return Invalid("; ".join(_complaint(error) for error in exc.errors(include_url=False)))


def _complaint(error: Any) -> str:
    if error["type"] == "value_error":  # our own validators write whole sentences
        return str(error["ctx"]["error"])
    field = ".".join(str(part) for part in error["loc"])
    return f"{field}: {error['msg']}" if field else str(error["msg"])


def said(model: BaseModel, nullable: Container[str], exclude: set[str] | None = None) -> dict[str, Any]:
    """What a caller said of a definition, by name; null counts only where it means something."""
    given = model.model_dump(exclude_unset=True, exclude=exclude)
    return {name: value for name, value in given.items() if value is not None or name in nullable}


class ListQuery(BaseModel):
    envelope: bool = Field(False, description="Answer an object with the list and its length instead of a bare list")


class LimitQuery(BaseModel):
    limit: int = Field(50, ge=1, le=1000, description="At most so many")


def listed(key: str, items: list[dict[str, Any]], query: ListQuery) -> Response:
    """A bare list; under `key` of an object for the Python client, which looks for it there, and on request."""
    if query.envelope or request.headers.get("User-Agent", "").startswith("arc-client-python/"):
        return jsonify({key: items, "count": len(items)})
    return jsonify(items)


def created_status() -> int:
    """201 for a new thing on /api/v1; the older paths have always answered 200."""
    return 201 if request.path.startswith("/api/v1/") else 200
