"""The API description: valid OpenAPI 3.0, and every route in it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import validate
from openapi_spec_validator.validation.validators import OpenAPIV30SpecValidator
from pydantic import BaseModel

from arc.web.auth import PUBLIC
from arc.web.openapi30 import downgrade
from tests.unit.web import SECRET, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebApp]:
    with WebApp(tmp_path) as app:
        yield app


@pytest.fixture
def document(web: WebApp) -> dict[str, Any]:
    found: dict[str, Any] = web.client.get("/openapi.json").get_json()
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(verb.upper(), path): op for path, item in document["paths"].items() for verb, op in item.items()}


def test_document_is_valid_openapi_30(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.0.")

    validate(document, cls=OpenAPIV30SpecValidator)


def test_every_route_is_described(web: WebApp, document: dict[str, Any]) -> None:
    served = {
        (verb, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in web.app.url_map.iter_rules()
        for verb in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert served == set(operations(document))


def test_every_operation_has_text_answers_access_and_samples(web: WebApp, document: dict[str, Any]) -> None:
    for (verb, path), operation in operations(document).items():
        assert operation["summary"], path
        assert {"400", "default"} <= operation["responses"].keys(), path
        assert {sample["lang"] for sample in operation["x-codeSamples"]} == {"curl", "Python", "JavaScript", "Go"}
        needs = next(
            web.app.view_functions[rule.endpoint].needs
            for rule in web.app.url_map.iter_rules()
            if re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) == path and verb in (rule.methods or set())
        )
        assert operation.get("security") == ([] if needs == PUBLIC else None), path


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document).values()]

    assert len(ids) == len(set(ids))


def test_models_do_not_share_names() -> None:
    """The description knows a model by its name alone: of two with one name it would show one in both places."""
    of_ours = [model for model in BaseModel.__subclasses__() if model.__module__.startswith("arc.web.")]
    counts = Counter(model.__name__ for model in of_ours)

    assert not [name for name, count in counts.items() if count > 1]


def test_token_schemes_are_declared(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]

    assert schemes["bearerAuth"] == {**schemes["bearerAuth"], "type": "http", "scheme": "bearer"}
    assert schemes["apiKeyAuth"] == {"type": "apiKey", "in": "header", "name": "x-api-key"}
    assert {"bearerAuth": []} in document["security"]


def test_bodies_and_answers_have_examples(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    write = document["paths"]["/write/v2/msgpack"]["post"]["requestBody"]["content"]["application/msgpack"]

    assert schemas["Query"]["example"]["sql"]
    assert schemas["QueryAnswer"]["example"]["data"]
    assert schemas["NewToken"]["example"]["name"]
    assert schemas["Error"]["example"]["detail"]
    assert "batch" in write["examples"]


@pytest.mark.parametrize(
    ("path", "required"),
    [("/api/v1/backup", False), ("/api/v1/compaction/trigger", False), ("/query", True), ("/api/v1/auth/tokens", True)],
)
def test_bodies_are_required_where_a_field_is(document: dict[str, Any], path: str, required: bool) -> None:
    assert document["paths"][path]["post"]["requestBody"]["required"] is required


def test_creating_is_201_on_the_newer_path_only(document: dict[str, Any]) -> None:
    assert "200" in document["paths"]["/auth/tokens"]["post"]["responses"]
    assert "201" in document["paths"]["/api/v1/auth/tokens"]["post"]["responses"]


def test_document_holds_no_secret_and_is_not_sent_twice(web: WebApp) -> None:
    first = web.client.get("/openapi.json")
    again = web.client.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]})

    assert SECRET not in first.text
    assert again.status_code == 304


def test_pages_and_their_assets_come_from_here(web: WebApp) -> None:
    for page in ("/docs", "/redoc"):
        html = web.client.get(page).text
        links = re.findall(r'(?:src|href)="([^"]+)"', html)
        assert all(link.startswith(("/", "data:")) for link in links), page
        assert all(web.client.get(link).status_code == 200 for link in links if link.startswith("/")), page
    assert web.client.get("/docs/..%2f..%2fetc/passwd").status_code in (401, 404)
    assert web.client.get("/docs/nothing.js").status_code == 404


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "T"},
            {"type": "string", "nullable": True, "title": "T"},
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True},
        ),
        (
            {"anyOf": [{"$ref": "#/x"}, {"type": "null"}], "description": "d"},
            {"allOf": [{"$ref": "#/x"}], "nullable": True, "description": "d"},
        ),
        ({"$ref": "#/x"}, {"$ref": "#/x"}),
        ({"const": "a", "type": "string"}, {"enum": ["a"], "type": "string"}),
        ({"exclusiveMinimum": 0}, {"minimum": 0, "exclusiveMinimum": True}),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, {"type": "array", "items": {}}),
        ({"default": None, "example": {"const": 1}}, {"default": None, "example": {"const": 1}}),
        ({"properties": {"const": {"const": 1}}}, {"properties": {"const": {"enum": [1]}}}),
    ],
)
def test_schemas_are_written_in_the_older_dialect(newer: dict[str, Any], older: dict[str, Any]) -> None:
    assert downgrade({"components": [newer]})["components"] == [older]
