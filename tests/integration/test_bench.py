"""The benchmarks run and count right; how fast is no matter of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[2]


def lines_of(module: str, *arguments: str) -> list[dict[str, Any]]:
    """The JSON lines a benchmark printed."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_ingest_counts_what_it_wrote(tmp_path: Path) -> None:
    machine, case = lines_of("bench.ingest", "--case", "columnar-1000", "--seconds", "0.5", "--data", str(tmp_path))

    assert machine["cores"] >= 1
    assert case["case"] == "columnar-1000"
    assert case["rows"] > 0
    assert case["exact"] is True
    assert case["errors"] == []


def test_query_compares_with_plain_duckdb(tmp_path: Path) -> None:
    arguments = ("--case", "count", "--rows", "20000", "--runs", "5", "--data", str(tmp_path))

    _, case = lines_of("bench.query", *arguments)

    assert case["case"] == "count"
    assert case["files"] == 1
    assert case["http_ms"] > 0


def test_compaction_counts_files_and_rows(tmp_path: Path) -> None:
    arguments = ("--files", "30", "--senders", "2", "--seconds", "0.3", "--data", str(tmp_path))

    _, case = lines_of("bench.compaction", *arguments)

    assert (case["files_before"], case["files_after"]) == (30, 1)
    assert case["exact"] is True
    assert case["errors"] == []


def test_jobs_are_run_and_found() -> None:
    arguments = ("--case", "run", "--case", "list", "--jobs", "5", "--stored", "300", "--runs", "2")

    _, run, listing = lines_of("bench.jobs", *arguments)

    assert (run["tasks"], run["exact"]) == (15, True)
    assert listing["found"]["first_page"] == 300
    assert listing["found"]["tag"] == 3


def test_fleet_counts_its_agents_and_pings(tmp_path: Path) -> None:
    arguments = ("--agents", "20", "--seconds", "1", "--pings", "3", "--data", str(tmp_path))

    _, fleet, dispatch = lines_of("bench.fleet", "--case", "fleet", "--case", "dispatch", *arguments)

    assert (fleet["online"], fleet["errors"]) == (20, [])
    assert dispatch["p50_ms"] > 0
