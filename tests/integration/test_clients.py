"""Clients written for the API reference work unchanged: Python, JavaScript (axios, @msgpack/msgpack) and Go."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.clients.arc_client import ArcClient
from tests.integration.server import TOKEN

if TYPE_CHECKING:
    from tests.integration.server import ArcServer

CLIENTS = Path(__file__).parent / "clients"
INSTALL_S = 300  # seconds npm or go may take to fetch and build once


@pytest.fixture
def python_client(server: ArcServer) -> ArcClient:
    return ArcClient(server.url, TOKEN)


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript client with its two packages installed beside it, once per run."""
    folder = copied("arc_client.mjs", "package.json", into=tmp_path_factory.mktemp("node"), needs=("node", "npm"))
    prepare(folder, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent")
    return folder / "arc_client.mjs"


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go client, built once per run."""
    folder = copied("arc_client.go", "go.mod", "go.sum", into=tmp_path_factory.mktemp("go"), needs=("go",))
    prepare(folder, "go", "build", "-o", "arc_client", ".")
    return folder / "arc_client"


def copied(*names: str, into: Path, needs: tuple[str, ...]) -> Path:
    """The folder with the client's files; the test is skipped where its language is not installed."""
    for program in needs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    for name in names:
        shutil.copy(CLIENTS / name, into)
    return into


def prepare(folder: Path, *command: str) -> None:
    """Fetch and build; without a network there is nothing to test, so the test is skipped."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command)}: {done.stderr[-500:]}")


def answer_of(*command: str | Path) -> dict[str, Any]:
    """What a client program printed: the answer of its query."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_quick_example_of_the_reference(python_client: ArcClient) -> None:
    python_client.write("quick", {"usage": 45.2}, {"host": "server01"}, 1697472000000)

    answer = python_client.query("SELECT time, host, usage FROM quick")

    assert answer["data"] == [["2023-10-16T16:00:00Z", "server01", 45.2]]
    assert answer["status"] == "success"
    assert answer["count"] == 1


def test_python_client_without_tags_writes_null_host(python_client: ArcClient) -> None:
    python_client.write("py_null", {"usage": 1.5}, tags=None)

    answer = python_client.query("SELECT host, usage FROM py_null")

    assert answer["data"] == [[None, 1.5]]


def test_python_client_without_time_uses_now(python_client: ArcClient) -> None:
    before_ms = int(time.time() * 1000)
    python_client.write("py_now", {"usage": 1.5}, {"host": "a"})

    answer = python_client.query("SELECT epoch_ms(time) FROM py_now")

    assert before_ms <= answer["data"][0][0] <= int(time.time() * 1000)


def test_python_client_stores_tags_as_columns(python_client: ArcClient) -> None:
    python_client.write("py_tags", {"usage": 1.5}, {"host": "a", "region": "eu"})

    answer = python_client.query("SELECT host, region, usage FROM py_tags")

    assert answer["data"] == [["a", "eu", 1.5]]


def test_python_client_reads_arrow(python_client: ArcClient) -> None:
    python_client.write("py_arrow", {"usage": 45.2}, {"host": "a"}, 1697472000000)

    table = python_client.query_arrow("SELECT host, usage FROM py_arrow")

    assert table.to_pylist() == [{"host": "a", "usage": 45.2}]


def test_javascript_client_mixes_whole_and_broken_numbers(server: ArcServer, node_client: Path) -> None:
    answer = answer_of("node", node_client, server.url, TOKEN)

    assert [row[1:] for row in answer["data"]] == [[None, None, 45.0, 4], ["web-1", "eu", 45.2, 4]]
    assert answer["types"][3:] == ["DOUBLE", "BIGINT"]


def test_go_client_may_leave_out_host_and_tags(server: ArcServer, go_client: Path) -> None:
    answer = answer_of(go_client, server.url, TOKEN)

    assert [row[1:] for row in answer["data"]] == [["unknown", None, 45.2, 4], ["web-1", "eu", 46.5, 8]]
