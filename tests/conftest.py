"""For all tests: a skipped test fails in CI, and no test leaves a thread of ours behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

pytest.register_assert_rewrite("tests.runtime_contract")

LEAK_S = 5.0  # how long a thread may take to end after the test that started it


@pytest.fixture(autouse=True)
def thread_leak_detector(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a unit test that ends before its threads do."""
    if "integration" in request.node.nodeid or "browser" in request.node.nodeid:
        yield
        return
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + LEAK_S
    while left := [thread.name for thread in threading.enumerate() if thread not in before]:
        assert time.monotonic() < deadline, f"threads left behind: {left}"
        time.sleep(0.01)


@pytest.fixture(scope="module", autouse=True)
def garbage_of_a_module() -> Iterator[None]:
    """What a module leaves open fails its own last test, not one that happens to run when it is found."""
    yield
    gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI everything a test needs is there, so a skip hides something. An expected failure stays one."""
    if os.environ.get("CI") == "true" and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
