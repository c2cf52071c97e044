"""Requests made up from the API description, good ones and bad ones: the server keeps its word and never breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from arc.web.application import SURFACES
from arc.web.description import document
from tests.integration.server import ArcServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import Case

pytestmark = pytest.mark.alone  # schemathesis gives all operations one id, and of several with one id xdist runs one
EXAMPLES = 3  # per operation; a defect that needs more luck is for a longer run by hand
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@schemathesis.serializer("application/msgpack", "application/x-ndjson", "application/vnd.apache.arrow.stream")
def as_it_is(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    """Without access control, so that no made-up request locks the others out; made-up jobs are not run."""
    options = {"auth.enabled": "false", "worker.queues": ""}
    with ArcServer(tmp_path_factory.mktemp("schemathesis") / "data", options) as server:
        yield server


# The description needs no running server, and pytest wants the operations before one runs.
described = schemathesis.openapi.from_dict(orjson.loads(document(SURFACES))).exclude(
    path=["/api/v2/query", "/api/v2/delete"]  # they exist to answer 501, which passes for a failure of the server
)


@described.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_operation_answers_as_described(open_server: ArcServer, case: Case) -> None:
    case.call_and_validate(base_url=open_server.url, checks=CHECKS)
