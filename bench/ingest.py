"""How fast a server takes writes: `python -m bench.ingest [--case NAME] [--seconds 10] [--senders 8]`.

First line: the machine. Then one JSON line per case:
    rows_per_s             rows answered 204 over the time from the first byte to the last answer
    rows_per_cpu_s         the same rows over the server's CPU time (user and system, all its processes), from before
                           the load until after a final flush: log, buffer and Parquet included
    p50_ms, p95_ms, p99_ms time of one request
    peak_mb                highest resident memory of the server
    refused                answers 503; they were sent again after the time the server asked for
    exact                  whether count(*) over all measurements afterwards is the number of rows acknowledged
    peer_rows_per_cpu_s    decode the same bodies and write Parquet, without a server (bench/peer.py)
The load generator's own CPU time is not in rows_per_cpu_s, but it takes a core from the server.
"""

from __future__ import annotations

import argparse
import random
from typing import TYPE_CHECKING, Any

from bench import bodies
from bench.harness import fresh_server, latency_ms, machine, note, report, usage
from bench.peer import run_peer
from bench.sender import run_senders
from tests.integration.server import TOKEN

if TYPE_CHECKING:
    from tests.integration.server import ArcServer

PEER_S = 3.0  # CPU seconds of the peer, unless the load itself is shorter
WARM_UP_S = 0.5


def http_request(case: bodies.Case, body: bytes) -> bytes:
    """The whole request as it goes over the wire."""
    head = [
        f"POST {case.path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {TOKEN}",
        f"Content-Length: {len(body)}",
        *case.headers,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def stored_rows(server: ArcServer) -> int:
    with server.connect(timeout_s=600) as connection:
        names = [row[1] for row in connection.query("SHOW TABLES")]
        counts = [connection.query(f'SELECT count(*) FROM "{name}"')[0][0] for name in names]
    return sum(counts)


def run_case(case: bodies.Case, seconds: float, senders: int, data: str | None) -> dict[str, Any]:
    note(f"{case.name}: building bodies")
    rng = random.Random(case.name)
    payloads = [case.make(rng, case.rows) for _ in range(case.bodies)]
    requests = [http_request(case, payload) for payload in payloads]
    peer = run_peer(case.name, payloads, case.rows, min(PEER_S, seconds))
    with fresh_server(data) as server:
        warm_up = run_senders(server.port, requests, senders, WARM_UP_S)
        before = usage(server.pid)
        sent = run_senders(server.port, requests, senders, seconds)
        with server.connect(timeout_s=600) as connection:
            connection.flush()
        after = usage(server.pid)
        stored = stored_rows(server)
    rows = sum(sent.acknowledged) * case.rows
    rows_per_cpu_s = rows / (after.cpu_s - before.cpu_s)
    return {
        "case": case.name,
        "rows": rows,
        "rows_per_s": round(rows / sent.elapsed_s),
        "rows_per_cpu_s": round(rows_per_cpu_s),
        **latency_ms(sent.latencies_s),
        "peak_mb": round(after.peak_mb),
        "exact": stored == rows + sum(warm_up.acknowledged) * case.rows,
        "refused": sent.refused,
        "errors": warm_up.errors + sent.errors,
        "server_cores_used": round((after.cpu_s - before.cpu_s) / sent.elapsed_s, 2),
        "sender_cpu_s": round(sent.cpu_s, 2),
        "body_bytes": len(payloads[0]),
        "peer_rows_per_cpu_s": round(peer),
        "ratio_to_peer": round(rows_per_cpu_s / peer, 2),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description="How fast a server takes writes.")
    names = [case.name for case in bodies.CASES]
    parser.add_argument("--case", action="append", choices=names, help="may be repeated; default: MessagePack")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of the load of each case")
    parser.add_argument("--senders", type=int, default=8, help="connections that send without a pause")
    parser.add_argument("--data", help="folder for the servers' data directories; default: the system's for such")
    parser.add_argument("--json", help="file to append the JSON lines to, beside printing them")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    report(options.json, bench="ingest", senders=options.senders, seconds=options.seconds, **machine())
    failed = False
    for case in bodies.CASES:
        if case.name in options.case if options.case else case.is_default:
            result = run_case(case, options.seconds, options.senders, options.data)
            report(options.json, **result)
            failed |= not result["exact"] or bool(result["errors"])
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
