"""What an agent costs and how fast it answers: `python -m bench.agent [--case NAME] [--pings 1000]`.

First line: the machine. Then one JSON line per case, each with a server and an agent of its own:
    start    milliseconds from the start of the process to the registration at the server, and to the first line of its
             log for the process alone; resident memory after the first samples
    ping     one rpc/ping after another: milliseconds from POST /api/v1/jobs to the agent's answer (`dispatch`) and to
             the stored final reply (`stored`); resident memory and CPU of the agent afterwards
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from arc import clock
from bench.harness import fresh_server, latency_ms, machine, note, percentile, report
from tests.integration import agents
from tests.integration.agents import Edge
from tests.integration.server import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.server import ArcServer, Connection

CASES = ("start", "ping")
STARTS = 10
OPTIONS = {"log.level": "WARNING"}
AS_SHIPPED = {"facts-interval": "60", "metrics-interval": "10", "poll-time": "30", "log-level": "info"}
SAMPLED_S = 21.0  # two samples of the host, so that their code has run


def start(server: ArcServer, admin: Connection, directory: Path, _: int) -> dict[str, Any]:
    edge = Edge(server, directory, "bench-01", AS_SHIPPED).enrol(admin)
    ready_s, registered_s = [], []
    for _ in range(STARTS):
        log_size = (edge.directory / "stderr").stat().st_size if (edge.directory / "stderr").exists() else 0
        began_s = time.perf_counter()
        edge.start()
        wait_until(lambda size=log_size: "talks to" in edge.stderr[size:], "the agent", pause_s=0.002)
        ready_s.append(time.perf_counter() - began_s)
        wait_until(lambda: agents.is_online(admin, edge.identity), "the registration", pause_s=0.002)
        registered_s.append(time.perf_counter() - began_s)
        edge.stop()
    edge.start()
    agents.wait_online(admin, edge.identity)
    time.sleep(SAMPLED_S)
    memory = psutil.Process(edge.pid).memory_full_info()
    edge.stop()
    return {
        "ready_ms": round(percentile(ready_s, 50) * 1000),
        "registered_ms": round(percentile(registered_s, 50) * 1000),
        "rss_mb": round(memory.rss / 2**20, 1),
        "uss_mb": round(memory.uss / 2**20, 1),
    }


def ping(server: ArcServer, admin: Connection, directory: Path, pings: int) -> dict[str, Any]:
    edge = Edge(server, directory, "bench-02", AS_SHIPPED).enrol(admin).start()
    try:
        agents.wait_online(admin, edge.identity)
        agents.ended(admin, agents.run(admin, edge.identity, "rpc", "ping"))
        process = psutil.Process(edge.pid)
        cpu_before_s = sum(process.cpu_times()[:2])
        dispatch_s, stored_s = [], []
        for _ in range(pings):
            asked_us = clock.now_us()
            job = agents.ended(admin, agents.run(admin, edge.identity, "rpc", "ping"))
            dispatch_s.append((clock.parse_rfc3339(job["ended_at"]) - asked_us) / clock.US_PER_S)
            stored_s.append((clock.parse_rfc3339(job["updated_at"]) - asked_us) / clock.US_PER_S)
        cpu_s = sum(process.cpu_times()[:2]) - cpu_before_s
        return {
            "pings": pings,
            "dispatch": latency_ms(dispatch_s),
            "stored": latency_ms(stored_s),
            "agent_cpu_ms_per_ping": round(cpu_s / pings * 1000, 2),
            "rss_mb": round(process.memory_info().rss / 2**20, 1),
        }
    finally:
        edge.end()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="only this; repeatable")
    parser.add_argument("--pings", type=int, default=1000)
    parser.add_argument("--file", help="add the lines to this file, too")
    args = parser.parse_args(argv)
    report(args.file, **machine())
    measures = {"start": start, "ping": ping}
    for case in args.case or CASES:
        note(f"{case} ...")
        with (
            tempfile.TemporaryDirectory(prefix="arc-bench-") as folder,
            fresh_server(options=OPTIONS) as server,
            server.connect() as admin,
        ):
            report(args.file, case=case, **measures[case](server, admin, Path(folder), args.pings))


if __name__ == "__main__":
    main()
