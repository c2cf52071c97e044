"""Log lines: text, JSON, the ring, request ids."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from arc import logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger("arc.test")


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    level = logging.getLogger().level
    logs.request_id.set("")  # requests that other tests answered in this thread leave theirs
    yield
    logs.shutdown()
    logging.getLogger().setLevel(level)


def test_text_line_holds_fields_and_request_id(tmp_path: Path) -> None:
    logs.setup("INFO", "text", str(tmp_path / "log"))
    token = logs.request_id.set("req-1")

    log.info("stored %d rows", 3, extra={"database": "default", "note": "two words"})

    logs.request_id.reset(token)
    line = (tmp_path / "log").read_text()
    assert line.endswith('Z INFO arc.test: stored 3 rows database=default note="two words" request_id=req-1\n')


def test_line_break_of_a_client_makes_no_second_line(tmp_path: Path) -> None:
    logs.setup("INFO", "text", str(tmp_path / "log"))

    log.info("GET %s", "/x\r\n2025-01-01T00:00:00Z INFO arc: all is well", extra={"agent": "a\nb"})

    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_json_line_holds_the_traceback(tmp_path: Path) -> None:
    logs.setup("INFO", "json", str(tmp_path / "log"))

    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("pass failed", extra={"path": tmp_path})

    line = json.loads((tmp_path / "log").read_text())
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "arc.test", "pass failed")
    assert line["exception"].endswith("ValueError: broken")
    assert line["path"] == str(tmp_path)
    assert "request_id" not in line


def test_ring_keeps_the_last_records() -> None:
    ring = logs.LogRing(2)
    for number in range(3):
        ring.handle(logging.makeLogRecord({"msg": f"record {number}", "name": "arc.test", "levelname": "INFO"}))

    assert [entry.message for entry in ring.entries()] == ["record 1", "record 2"]


def test_level_is_the_least_that_is_kept(tmp_path: Path) -> None:
    ring = logs.setup("WARNING", "text", str(tmp_path / "log"))

    log.info("quiet")
    log.warning("loud")

    assert [entry.message for entry in ring.entries()] == ["loud"]


def test_shutdown_leaves_no_handler(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    logs.setup("INFO", "text", str(tmp_path / "log"))

    logs.setup("INFO", "text", str(tmp_path / "log"))
    logs.shutdown()

    assert logging.getLogger().handlers == before
