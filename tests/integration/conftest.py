"""Fixtures of the integration tests: one shared server per module, and servers of a test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.server import ArcServer, Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    """A started server shared by the tests of one module; each test uses measurements of its own."""
    with ArcServer(tmp_path_factory.mktemp("shared") / "data") as shared:
        yield shared


@pytest.fixture
def client(server: ArcServer) -> Iterator[Connection]:
    """A connection to the shared server."""
    with server.connect() as connection:
        yield connection


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., ArcServer]]:
    """`make_server(name, **kwargs of ArcServer)`: a server that is not started yet; all of them end with the test."""
    made: list[ArcServer] = []

    def make(name: str = "data", **kwargs: Any) -> ArcServer:
        made.append(ArcServer(tmp_path / name, **kwargs))
        return made[-1]

    yield make
    for server in made:
        if server.is_running:
            server.kill9()
