"""Fixtures of the integration tests: one shared server per module, servers of a test's own, a container engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.server import ArcServer, Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.docker_engine import DockerEngine


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


@pytest.fixture(scope="session")
def container_engine() -> Iterator[DockerEngine]:
    """A container engine of the test run's own; skips where none can be started, which fails in CI."""
    from tests.integration import docker_engine  # the SDK is slow to import

    if reason := docker_engine.missing():
        pytest.skip(reason)
    engine = docker_engine.DockerEngine()
    yield engine
    engine.stop()
