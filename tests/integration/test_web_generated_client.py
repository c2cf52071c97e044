"""A client that a published generator makes from /openapi.json writes and queries."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgpack
import pyarrow as pa
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.server import ArcServer

# The generator knows few media types by name; what others it meets are bytes.
GENERATOR_CONFIG = """
post_hooks: []
content_type_overrides:
  application/msgpack: application/octet-stream
  application/vnd.apache.arrow.stream: application/octet-stream
  application/x-ndjson: application/octet-stream
  application/x-tar: application/octet-stream
  application/x-yaml: application/octet-stream
  application/zip: application/octet-stream
  text/plain: application/octet-stream
  text/yaml: application/octet-stream
"""


@pytest.fixture(scope="module")
def generated(server: ArcServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of the generated package, which can be imported."""
    directory = tmp_path_factory.mktemp("generated")
    (directory / "config.yml").write_text(GENERATOR_CONFIG)
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--url", f"{server.url}/openapi.json"]
    options = [
        "--output-path",
        str(directory / "made_client"),
        "--meta",
        "none",
        "--config",
        str(directory / "config.yml"),
    ]
    subprocess.run([*command, *options, "--fail-on-warning"], check=True, capture_output=True, timeout=120)
    sys.path.insert(0, str(directory))
    yield "made_client"
    sys.path.remove(str(directory))


def test_generated_client_writes_and_queries(generated: str, server: ArcServer) -> None:
    def part(name: str) -> Any:
        return import_module(f"{generated}.{name}")

    rows = msgpack.packb({"m": "generated", "columns": {"time": [1697472000000], "usage": [45.2]}})
    with part("client").AuthenticatedClient(base_url=server.url, token=server.token or "") as client:
        body = part("types").File(payload=io.BytesIO(rows))
        written = part("api.writing.write_msgpack").sync_detailed(client=client, body=body)
        asked = part("models.query").Query(sql="SELECT usage FROM generated")
        found = part("api.querying.query").sync(client=client, body=asked)
        arrow = part("api.querying.query_arrow").sync(client=client, body=asked)

    assert written.status_code == 204
    assert (found.columns, found.data) == (["usage"], [[45.2]])
    assert pa.ipc.open_stream(arrow.payload).read_all().to_pydict() == {"usage": [45.2]}


def test_generated_client_reads_errors(generated: str, server: ArcServer) -> None:
    client = import_module(f"{generated}.client").AuthenticatedClient(base_url=server.url, token="wrong")
    with client:
        answer = import_module(f"{generated}.api.tokens.list_tokens").sync(client=client)

    assert (answer.status, answer.detail) == (401, "Invalid or missing API token")
