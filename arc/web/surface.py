"""Surface: a blueprint whose routes say in one place where they are, who may call and what they answer.

@surface.api("POST", paths..., needs=..., answers=...) -> Flask route, its parameters checked by flask-openapi3
documentation.document -> surface.describe -> OpenAPI operations of all its routes
To describe takes longer than everything else of a start, and few ask; so it waits until somebody does.
The recipe for a new route stands in arc/web/documentation.py.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.parameter import Parameter
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from arc.web import samples
from arc.web.auth import ANY, PUBLIC

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask_openapi3.openapi import OpenAPI

    from arc.web.parts import Parts

Handler = TypeVar("Handler", bound=Callable[..., Any])
Finish = Callable[[], None]  # the second half of a write
HotHandler = Callable[["Parts", "WSGIEnvironment"], Finish]
Answer = type[BaseModel] | dict[str, Any] | None  # a model of JSON, a response object of OpenAPI, or no body

_REF = "#/components/schemas/{model}"
CREATED: Final = -1  # the status of a new thing: 201 on /api/v1, 200 on the older paths

DATABASE_HEADER = {
    "name": "x-arc-database",
    "in": "header",
    "description": "Database to write to, or the one that unqualified table names of a query mean.",
    "schema": {"type": "string", "example": "default"},
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


class Error(BaseModel):
    """The body of every error. `detail`, `message` and `error` are one text under the names different clients read."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "status": 400,
                "detail": "SQL query is required",
                "message": "SQL query is required",
                "error": "SQL query is required",
                "success": False,
                "code": "invalid",
                "timestamp": "2025-10-19T12:00:00Z",
            }
        }
    )

    status: int = Field(description="The HTTP status code")
    detail: str
    message: str
    error: str
    success: bool = False
    code: str | int = Field(description="The status as a word; as a number on the routes of the fleet")
    timestamp: str


@dataclass(frozen=True)
class HotRoute:
    """A write route that is answered ahead of Flask: 204 as soon as what `handler` returns has returned."""

    handler: HotHandler
    needs: str


class Surface(APIBlueprint):
    """Routes of one surface, under one heading of the documentation."""

    def __init__(self, name: str, title: str, about: str) -> None:
        super().__init__(name, f"arc.web.{name}", doc_ui=False)
        self.hot_routes: dict[str, HotRoute] = {}
        self.public_paths: set[str] = set()
        self.further_models: list[type[BaseModel]] = []  # which `body` or `answers` refer to by name
        self._tag = Tag(name=title, description=about)
        self._described: list[_Described] = []

    def api(
        self,
        method: str,
        *paths: str,
        needs: str,
        answers: Mapping[int, Answer],
        errors: Iterable[int] = (),
        error_type: str = "application/json",
        headers: Iterable[dict[str, Any]] = (),
        body: dict[str, Any] | None = None,
        audit: str = "",
        sample: samples.Samples | None = None,
    ) -> Callable[[Handler], Handler]:
        """Serve a function on all `paths`; the first is the operation's own, the others are aliases.

        needs: a permission, ANY (any valid token) or PUBLIC. answers: what is sent, by status or CREATED.
        errors: statuses beyond 400, 401 and 403. error_type: content type of all errors.
        body: OpenAPI `content` of a request body that no model describes.
        audit: what a request is called in the audit trail, as `token.create`; "": it is not recorded (audit.py).
        sample: code by language, where the one made from the route would not do.
        """

        def register(function: Handler) -> Handler:
            function.needs = needs  # type: ignore[attr-defined]  # application.py asks the gate for it
            function.audit = audit  # type: ignore[attr-defined]  # audit.py asks for it
            for path in paths:
                getattr(self, method.lower())(path)(function)  # flask-openapi3's own decorator
            if needs == PUBLIC:
                # What a parameter stands for may be the path of another route, and the route itself knows.
                self.public_paths.update(path for path in paths if "<" not in path)
            self._described.append(
                _Described(function, method, paths, needs, answers, errors, error_type, headers, body, sample)
            )
            return function

        return register

    def hot(self, *paths: str, needs: str, **described: Any) -> Callable[[HotHandler], HotHandler]:
        """Like api("POST", ...) for a function that Entry (application.py) calls ahead of Flask."""

        def register(handler: HotHandler) -> HotHandler:
            def unreachable() -> None:
                raise AssertionError("hot routes are answered ahead of Flask")

            unreachable.__name__, unreachable.__doc__ = handler.__name__, handler.__doc__
            self.api("POST", *paths, needs=needs, answers={204: None}, **described)(unreachable)
            self.hot_routes.update({path: HotRoute(handler, needs) for path in paths})
            return handler

        return register

    def describe(self, app: OpenAPI) -> None:
        """Add what is served here to a description; the application serves nothing, it only collects."""
        for model in self.further_models:
            schema = model.model_json_schema(ref_template=_REF)
            app.components_schemas |= {**schema.pop("$defs", {}), model.__name__: schema}
        for described in self._described:
            for path in described.paths:
                described.add_to(app, path, self._tag)


@dataclass(frozen=True)
class _Described:
    """What api() was told of one function."""

    function: Callable[..., Any]
    method: str
    paths: tuple[str, ...]
    needs: str
    answers: Mapping[int, Answer]
    errors: Iterable[int]
    error_type: str
    headers: Iterable[dict[str, Any]]
    body: dict[str, Any] | None
    sample: samples.Samples | None

    def add_to(self, app: OpenAPI, path: str, tag: Tag) -> None:
        function, is_alias = self.function, path != self.paths[0]
        body_model = get_type_hints(function).get("body")
        example = body_model.model_json_schema().get("example", {}) if body_model else None
        sample = self.sample or samples.request(self.method, _url(path), example, token=self.needs != PUBLIC)
        route = getattr(app, self.method.lower())  # flask-openapi3's own decorator
        route(
            path,
            endpoint=f"{self.method} {path}".replace(".", " "),
            operation_id=function.__name__ + (re.sub(r"\W+", "_", _url(path)).rstrip("_") if is_alias else ""),
            summary=function.__name__.replace("_", " ").capitalize(),
            tags=[tag],
            responses=_responses(path, self.needs, self.answers, self.errors, self.error_type),
            openapi_extensions=_extensions(self.needs, self.body, sample),
        )(function)
        operation = getattr(app.paths[_url(path)], self.method.lower())
        operation.parameters = (operation.parameters or []) + [Parameter(**header) for header in self.headers]
        if body_model and operation.requestBody:
            operation.requestBody.required = any(field.is_required() for field in body_model.model_fields.values())
        operation.description = _notes(function, self.needs, alias_of=self.paths[0] if is_alias else "")


def _url(path: str) -> str:
    """Flask's `/jobs/<int:id>` as OpenAPI's `/jobs/{id}`."""
    return re.sub(r"<(?:[^<:]+:)?([^>]+)>", r"{\1}", path)


def _responses(
    path: str, needs: str, answers: Mapping[int, Answer], errors: Iterable[int], error_type: str
) -> dict[Any, Any]:
    newer = {CREATED: 201, 408: 504} if path.startswith("/api/v1/") else {CREATED: 200}
    refusals = [400, *errors] if needs == PUBLIC else [400, 401, 403, *errors]
    return {
        **{newer.get(status, status): answer for status, answer in answers.items()},
        **{newer.get(status, status): _error(ERRORS[status], error_type) for status in refusals},
        "default": _error("Any other error", error_type),
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
