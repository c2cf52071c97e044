"""Requests made up from the API description, good ones and bad ones: the server keeps its word and never breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.server import ArcServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import BaseSchema, Case

EXAMPLES = 8  # per operation; a defect that needs more luck is for a longer run by hand
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@schemathesis.serializer("application/msgpack")
def as_msgpack(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else msgpack.packb(value)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    """The description of a server without access control, so that no made-up request locks the others out."""
    with ArcServer(tmp_path_factory.mktemp("schemathesis") / "data", {"auth.enabled": "false"}) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


described = schemathesis.pytest.from_fixture("api")


@described.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
def test_every_operation_answers_as_described(case: Case) -> None:
    case.call_and_validate(checks=CHECKS)
