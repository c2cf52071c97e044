"""The collector of the server's own host writes as every client does, and bears it when it cannot."""

from __future__ import annotations

import threading

import pytest

from arc import clock
from arc.errors import Unavailable
from arc.metrics.collect import HostCollector
from arc.metrics.store import MetricStore

NOW = 1_700_000_000_000_000
TABLES = {"cpu", "disk", "load", "mem", "net", "process"}


@pytest.fixture
def store(tmp_path):
    store = MetricStore(tmp_path)
    store.start()
    yield store
    store.close()


def test_one_pass_fills_every_table_of_the_host(store):
    collector = HostCollector(store.write_msgpack, 3600)

    rows = collector.step(NOW)

    infos = store.measurements("host")
    assert {info.measurement for info in infos} == TABLES
    assert sum(info.rows for info in infos) == rows
    [cpu] = store.views([("host", "cpu")])
    assert cpu is not None
    assert [name for name, _ in cpu.columns[:3]] == ["time", "host", "usage_percent"]
    assert cpu.buffered.column("time").to_pylist()[0].timestamp() * clock.US_PER_S == NOW


def test_later_passes_fit_the_types_of_the_first(store):
    collector = HostCollector(store.write_msgpack, 3600)

    for second in range(3):
        assert collector.step(NOW + second * clock.US_PER_S) > 0


def test_first_sample_is_written_as_soon_as_it_starts():
    written = threading.Event()
    collector = HostCollector(lambda body, database: written.set() or 1, 3600)

    collector.start()
    try:
        assert written.wait(30)
    finally:
        collector.stop()


def test_failing_write_is_logged_once_until_one_succeeds(caplog):
    answers = [Unavailable("disk full")] * 3 + [None] + [Unavailable("disk full")]

    def write(body, database):
        answer = answers.pop(0)
        if answer:
            raise answer
        return 1

    caplog.set_level("INFO")
    collector = HostCollector(write, 3600)

    done = [collector.step(NOW) for _ in range(5)]

    assert done == [0, 0, 0, 1, 0]
    assert caplog.messages == [
        "samples of this host are not stored: disk full",
        "samples of this host are stored again",
        "samples of this host are not stored: disk full",
    ]
