"""The OpenAPI document, made by flask-openapi3 from what each surface was told of its routes.

documentation.openapi_document -> document(surfaces)
Loaded when somebody asks for it: to make it takes longer than everything else in a start of the web layer, and most
servers are never asked.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

import orjson
from flask_openapi3.models.info import Info
from flask_openapi3.models.parameter import Parameter
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI

import arc
from arc.web import samples
from arc.web.auth import ANY, PUBLIC
from arc.web.openapi30 import downgrade
from arc.web.surface import CREATED, Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.web.surface import Described, Surface

ABOUT = """\
Metrics in over HTTP, SQL out. Send a token with every request, as `Authorization: Bearer <token>` or
`x-api-key: <token>`; the first start of the server prints one. Errors have one shape, whatever the route.
"""
SECURITY_SCHEMES: dict[str, Any] = {
    "bearerAuth": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer <token>`"},
    "apiKeyAuth": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
ERRORS = {
    400: "Bad input; the text says what and where",
    401: "No token, or one that is unknown, expired or revoked",
    403: "The token does not allow this",
    404: "Unknown",
    408: "Time-out",
    409: "The state of things does not allow this now",
    413: "The body is too large",
    422: "The file is not what it is said to be; the text says where",
    501: "Arc does not do this",
    503: "Overloaded, out of space or not ready; try again after `Retry-After` seconds",
}
_REF = "#/components/schemas/{model}"


@cache
def document(surfaces: tuple[Surface, ...]) -> bytes:
    """The OpenAPI document of all their routes."""
    app = OpenAPI(  # serves nothing; it collects
        "arc.web",
        info=Info(title="Arc", version=arc.__version__, description=ABOUT),
        security_schemes=SECURITY_SCHEMES,
        validation_error_status=400,
        validation_error_model=Error,
        doc_ui=False,
        static_folder=None,
    )
    for surface in surfaces:
        _describe(surface, app)
    described = {**app.api_doc, "security": [{name: []} for name in SECURITY_SCHEMES]}
    return orjson.dumps(downgrade(described))


def _describe(surface: Surface, app: OpenAPI) -> None:
    for model in surface.further_models:
        schema = model.model_json_schema(ref_template=_REF)
        app.components_schemas |= {**schema.pop("$defs", {}), model.__name__: schema}
    for described in surface.described:
        for path in described.paths:
            _add_operation(app, described, path, Tag(name=surface.title, description=surface.about))


def _add_operation(app: OpenAPI, described: Described, path: str, tag: Tag) -> None:
    function, method, needs = described.function, described.method, described.needs
    is_alias = path != described.paths[0]
    model = get_type_hints(function).get("body")
    example = model.model_json_schema().get("example", {}) if model else None
    sample = described.sample or samples.request(method, _url(path), example, token=needs != PUBLIC)
    getattr(app, method.lower())(  # flask-openapi3's own decorator
        path,
        endpoint=f"{method} {path}".replace(".", " "),
        operation_id=function.__name__ + (re.sub(r"\W+", "_", _url(path)).rstrip("_") if is_alias else ""),
        summary=function.__name__.replace("_", " ").capitalize(),
        tags=[tag],
        responses=_responses(described, path),
        openapi_extensions=_extensions(needs, described.body, sample),
    )(function)
    operation = getattr(app.paths[_url(path)], method.lower())
    operation.parameters = (operation.parameters or []) + [Parameter(**header) for header in described.headers]
    if model and operation.requestBody:
        operation.requestBody.required = any(field.is_required() for field in model.model_fields.values())
    operation.description = _notes(function, needs, alias_of=described.paths[0] if is_alias else "")


def _url(path: str) -> str:
    """Flask's `/jobs/<int:id>` as OpenAPI's `/jobs/{id}`."""
    return re.sub(r"<(?:[^<:]+:)?([^>]+)>", r"{\1}", path)


def _responses(described: Described, path: str) -> dict[Any, Any]:
    newer = {CREATED: 201, 408: 504} if path.startswith("/api/v1/") else {CREATED: 200}
    refusals = [400, *described.errors] if described.needs == PUBLIC else [400, 401, 403, *described.errors]
    return {
        **{newer.get(status, status): answer for status, answer in described.answers.items()},
        **{newer.get(status, status): _error(ERRORS[status], described.error_type) for status in refusals},
        "default": _error("Any other error", described.error_type),
    }


def _notes(function: Callable[..., Any], needs: str, *, alias_of: str) -> str:
    """The description of an operation: its docstring, then what the route adds."""
    access = {PUBLIC: "No token needed.", ANY: "Any valid token will do."}
    notes = (
        inspect.getdoc(function),
        access.get(needs, f"The token needs permission `{needs}`."),
        alias_of and f"Same as `{alias_of}`.",
    )
    return "\n\n".join(note for note in notes if note)


def _extensions(needs: str, body: dict[str, Any] | None, sample: samples.Samples) -> dict[str, Any]:
    # An empty list takes back what the whole document demands.
    access: dict[str, Any] = {"security": []} if needs == PUBLIC else {"x-permission": needs}
    content = {"requestBody": {"content": body, "required": True}} if body else {}
    return access | content | {"x-codeSamples": [{"lang": lang, "source": text} for lang, text in sample.items()]}


def _error(description: str, content_type: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{Error.__name__}"}
    return {"description": description, "content": {content_type: {"schema": schema}}}
