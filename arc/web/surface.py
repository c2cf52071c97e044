"""Surface: a blueprint whose routes say in one place where they are, who may call and what they answer.

@surface.api("POST", paths..., needs=..., answers=...) -> Flask route, which checks what a request says
                                                       -> surface.described -> description.py, when somebody asks
The recipe for a new route stands in arc/web/documentation.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

from flask import Blueprint, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arc.web import parse
from arc.web.auth import PUBLIC

if TYPE_CHECKING:
    from arc.web.samples import Samples

Handler = TypeVar("Handler", bound=Callable[..., Any])
Finish = Callable[[], Any]  # the second half of a request; what it returns is sent as JSON, None as 204
HotHandler = Callable[..., Finish]  # takes Parts, the WSGI environment, and each variable of the path
Answer = type[BaseModel] | dict[str, Any] | None  # a model of JSON, a response object of OpenAPI, or no body

CREATED: Final = -1  # the status of a new thing: 201 on /api/v1, 200 on the older paths

DATABASE_HEADER = {
    "name": "x-arc-database",
    "in": "header",
    "description": "Database to write to, or the one that unqualified table names of a query mean.",
    "schema": {"type": "string", "example": "default"},
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
    """A route that is answered ahead of Flask, as soon as what `handler` returns has returned."""

    handler: HotHandler
    needs: str


@dataclass(frozen=True)
class Described:
    """What api() was told of one function, for the API description."""

    function: Callable[..., Any]
    method: str
    paths: tuple[str, ...]
    needs: str
    answers: Mapping[int, Answer]
    errors: Iterable[int]
    error_type: str
    headers: Iterable[dict[str, Any]]
    body: dict[str, Any] | None
    sample: Samples | None


class Surface(Blueprint):
    """Routes of one surface, under one heading of the documentation."""

    def __init__(self, name: str, title: str, about: str) -> None:
        super().__init__(name, f"arc.web.{name}")
        self.title, self.about = title, about
        self.hot_routes: dict[tuple[str, str], HotRoute] = {}  # by method and path
        self.public_paths: set[str] = set()
        self.further_models: list[type[BaseModel]] = []  # which `body` or `answers` refer to by name
        self.described: list[Described] = []

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
        sample: Samples | None = None,
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
            view = _checked(function)
            for path in paths:
                self.add_url_rule(path, view_func=view, methods=[method])
            if needs == PUBLIC:
                # What a parameter stands for may be the path of another route, and the route itself knows.
                self.public_paths.update(path for path in paths if "<" not in path)
            self.described.append(
                Described(function, method, paths, needs, answers, errors, error_type, headers, body, sample)
            )
            return function

        return register

    def hot(
        self, method: str, *paths: str, needs: str, answers: Mapping[int, Answer], **described: Any
    ) -> Callable[[HotHandler], HotHandler]:
        """Like api() for a function that Entry (application.py) calls ahead of Flask."""

        def register(handler: HotHandler) -> HotHandler:
            def unreachable(**_: str) -> None:
                raise AssertionError("hot routes are answered ahead of Flask")

            unreachable.__name__, unreachable.__doc__ = handler.__name__, handler.__doc__
            self.api(method, *paths, needs=needs, answers=answers, **described)(unreachable)
            self.hot_routes.update({(method, path): HotRoute(handler, needs) for path in paths})
            return handler

        return register


def _checked(function: Handler) -> Callable[..., Any]:
    """The function with `path`, `query` and `body` read from the request by the models they are annotated with."""
    hints = get_type_hints(function)
    models = [(name, said, hints[name]) for name, said in _SAID.items() if name in hints]

    @wraps(function)
    def view(**captured: str) -> Any:
        try:
            read = {name: model.model_validate(said(captured)) for name, said, model in models}
        except ValidationError as exc:
            raise parse.invalid(exc) from None
        return function(**read)

    return view


# What a request says, by the parameter that takes it.
_SAID: dict[str, Callable[[dict[str, str]], Any]] = {
    "path": lambda captured: captured,
    "query": lambda _: request.args.to_dict(),  # of several values the first
    "body": lambda _: request.get_json(),
}
