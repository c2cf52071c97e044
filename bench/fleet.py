"""What a fleet costs the server: `python -m bench.fleet [--agents 2000] [--seconds 60] [--pings 1000]`.

First line: the machine. Then one JSON line per case:
    fleet      simulated agents with a connection each: they poll as told (at least every 40 s) and send four changed
               facts a minute: CPU of the server in percent of one core. Then the same while 5 API requests a second
               ask for lists, agents and jobs: their time, CPU with them, growth of the server's memory by then
    dispatch   one simulated agent waits in a long poll; from the POST of a job to the request in the agent's hands
    ping       the same with the real agent, by the clock of its machine, which is this one: until the ping is done,
               and until the server knows (the agent sends replies in batches)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arc.access.tokens import TokenStore
from arc.db.engine import open_database
from bench.harness import fresh_server, latency_ms, machine, note, report, usage
from tests.integration.server import LAUNCHER, TOKEN, ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.integration.server import Connection

FACTS_EVERY_S = 60.0
POLL_S = 30.0
ASK_PAUSE_S = 0.2
BUSY_AGENT = "edge-0000"
ASKED = (
    "/api/v1/agents?per_page=25&facts=os,online",
    "/api/v1/agents?q=%40os%20%3D%20%22linux%22%20AND%20%40memory_used_percent%20%21%3D%205&per_page=25",
    f"/api/v1/agents/{BUSY_AGENT}?facts=all",
    "/api/v1/jobs",
)


class Line:
    """A keep-alive connection of one simulated agent: HTTP/1.1 over a plain socket."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: bytes = b"") -> Any:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        answer = await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
        if "connection: close" in head:
            self.close()
        status = int(head.split(" ", 2)[1])
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")
        return json.loads(answer)

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


class Agents:
    """All simulated agents, in one thread of this process."""

    def __init__(self, port: int, tokens: dict[str, str]) -> None:
        self._port, self._tokens = port, tokens
        self._lines = {agent_id: Line(port, token) for agent_id, token in tokens.items()}
        self._rng = random.Random(7)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agents")
        self._thread.start()
        self.requests = 0
        self.errors: list[str] = []
        self._working: asyncio.Task[None] | None = None

    def register(self) -> None:
        asyncio.run_coroutine_threadsafe(self._register_all(), self._loop).result(300)

    def begin(self) -> None:
        """Poll and report from now on."""

        async def begin() -> asyncio.Task[None]:
            return asyncio.create_task(self._work())

        self._working = asyncio.run_coroutine_threadsafe(begin(), self._loop).result(30)

    def close(self) -> None:
        async def end() -> None:
            if self._working:
                self._working.cancel()
                await asyncio.wait([self._working])
            for line in self._lines.values():
                line.close()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            for agent_id, line in self._lines.items():
                group.create_task(self._keep(self._poll(agent_id, line)))
                group.create_task(self._keep(self._report(agent_id)))

    async def _register_all(self) -> None:
        room = asyncio.Semaphore(8)

        async def register(agent_id: str, line: Line) -> None:
            facts = {"os": "linux", "platform": "debian", "hostname": agent_id, "cpus": 4, "arc_version": "1.0.0"}
            async with room:
                await self._send(line, agent_id, 1, facts | self._memory())

        await asyncio.gather(*(register(*each) for each in self._lines.items()))

    async def _keep(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            self.errors.append(repr(error))

    async def _poll(self, agent_id: str, line: Line) -> None:
        await asyncio.sleep(self._rng.uniform(0, POLL_S))
        while True:
            answer = await line.request("GET", f"/api/v1/agents/{agent_id}/messages?wait_s={POLL_S}")
            self.requests += 1
            await asyncio.sleep(answer["retry_in_s"])

    async def _report(self, agent_id: str) -> None:
        """On a line of its own, as replies do not wait for the poll."""
        line = Line(self._port, self._tokens[agent_id])
        seq = 1
        try:
            await asyncio.sleep(self._rng.uniform(0, FACTS_EVERY_S))
            while True:
                seq += 1
                await self._send(line, agent_id, seq, self._memory())
                self.requests += 1
                await asyncio.sleep(FACTS_EVERY_S)
        finally:
            line.close()

    async def _send(self, line: Line, agent_id: str, seq: int, facts: dict[str, Any]) -> None:
        message = {"seq": seq, "type": "registration", "version": 1, "payload": facts}
        body = json.dumps({"epoch": "bench", "messages": [message]}).encode()
        await line.request("POST", f"/api/v1/agents/{agent_id}/messages", body)

    def _memory(self) -> dict[str, int]:
        used = self._rng.randrange(10**9)
        return {
            "memory_total": 10**9,
            "memory_used": used,
            "memory_available": 10**9 - used,
            "memory_used_percent": used // 10**7,
        }


@contextmanager
def _server_that_knows(data_dir: Path, agent_ids: list[str]) -> Iterator[tuple[ArcServer, dict[str, str]]]:
    """A server, and the credentials of agents that are enrolled there."""
    data_dir.mkdir(mode=0o700)
    db = open_database(data_dir)
    store = TokenStore(db)
    store.bootstrap(TOKEN)
    with db.transaction() as tx:
        tokens = {agent_id: store.replace_credential(tx, agent_id, None, None)[1] for agent_id in agent_ids}
    db.close()
    with ArcServer(data_dir) as server:
        yield server, tokens


def bench_fleet(count: int, seconds: float, data: str | None) -> dict[str, Any]:
    names = [f"edge-{number:04}" for number in range(count)]
    with (
        tempfile.TemporaryDirectory(prefix="arc-bench-", dir=data) as folder,
        _server_that_knows(Path(folder) / "data", names) as (server, tokens),
        server.connect() as admin,
    ):
        idle_mb = usage(server.pid).rss_mb
        agents = Agents(server.port, tokens)
        try:
            began_s = time.monotonic()
            agents.register()
            registered_s = time.monotonic() - began_s
            agents.begin()
            note(f"{count} agents registered in {registered_s:.0f} s, measuring for {seconds:.0f} s")
            time.sleep(min(POLL_S, seconds) / 2)  # the polls spread
            before, requests, took_s = usage(server.pid), agents.requests, []
            time.sleep(seconds)
            between = usage(server.pid)
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                took_s.append(_ask(admin, len(took_s)))
                time.sleep(ASK_PAUSE_S)
            after = usage(server.pid)
            online = admin.request("GET", "/metrics", headers={"Accept": "application/json"}).json()["agents_online"]
            done = agents.requests - requests
        finally:
            agents.close()
    return {
        "agents": count,
        "seconds": seconds,
        "registered_s": round(registered_s, 1),
        "server_cpu_percent": round((between.cpu_s - before.cpu_s) / seconds * 100, 1),
        "with_api_requests_percent": round((after.cpu_s - between.cpu_s) / seconds * 100, 1),
        "requests_per_s": round(done / seconds / 2, 1),
        "idle_mb": round(idle_mb, 1),
        "growth_mb": round(after.rss_mb - idle_mb, 1),
        "growth_while_measured_mb": round(after.rss_mb - before.rss_mb, 1),
        "online": online,
        "api": latency_ms(took_s),
        "errors": agents.errors[:3],
    }


def bench_dispatch(pings: int, data: str | None) -> dict[str, Any]:
    with fresh_server(data) as server, server.connect() as admin:
        token = _agent_token(admin)
        held: dict[str, float] = {}
        stop = threading.Event()
        with server.connect() as waiter:
            waiter._token = token
            waiter.request("POST", _messages(BUSY_AGENT), {"epoch": "b", "messages": [_hello()]})
            thread = threading.Thread(target=_hold, args=(waiter, held, stop), name="agent")
            thread.start()
            sent: dict[str, float] = {}
            for _ in range(pings):
                began_s = time.perf_counter()
                request_id = _ping(admin, BUSY_AGENT)
                sent[request_id] = began_s
                wait_until(lambda request_id=request_id: request_id in held, "the request is there", pause_s=0.001)
            stop.set()
            _ping(admin, BUSY_AGENT)  # ends the last poll
            thread.join(60)
    return {"pings": pings, **latency_ms([held[each] - sent[each] for each in sent])}


def bench_ping(pings: int, data: str | None) -> dict[str, Any]:
    with (
        fresh_server(data) as server,
        server.connect() as admin,
        tempfile.TemporaryDirectory(prefix="arc-bench-agent-") as home,
    ):
        agent = _start_agent(server, admin, Path(home))
        try:
            wait_until(lambda: admin.request("GET", f"/api/v1/agents/{BUSY_AGENT}").status == 200, "the agent is there")
            jobs = [_finished(admin, _ping(admin, BUSY_AGENT)) for _ in range(pings)]
            used = usage(agent.pid)
        finally:
            agent.terminate()
            agent.wait(30)
    failed = sum(1 for job in jobs if job["status"] != "complete")
    return {
        "pings": pings,
        "failed": failed,
        "done": latency_ms([_between(job, "created_at", "ended_at") for job in jobs]),
        "known": latency_ms([_between(job, "created_at", "updated_at") for job in jobs]),
        "agent_rss_mb": round(used.rss_mb, 1),
    }


def _start_agent(server: ArcServer, admin: Connection, home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, LAUNCHER, "agent", "--server", server.url, "--token", _agent_token(admin)]
    command += ["--identity", BUSY_AGENT, "--install-dir", str(home)]
    return subprocess.Popen(command, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _hold(waiter: Connection, held: dict[str, float], stop: threading.Event) -> None:
    """Poll and confirm as an agent does."""
    seq = 1
    while not stop.is_set():
        found = waiter.request("GET", f"{_messages(BUSY_AGENT)}?wait_s={POLL_S}").json()["messages"]
        now_s = time.perf_counter()
        ids = [each["request_id"] for each in found]
        if ids:
            seq += 1
            received = {"seq": seq, "type": "received", "request_ids": ids}
            waiter.request("POST", _messages(BUSY_AGENT), {"epoch": "b", "messages": [received]})
            held.update(dict.fromkeys(ids, now_s))


def _finished(admin: Connection, request_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        job: dict[str, Any] = admin.request("GET", f"/api/v1/jobs/{request_id}").json()
        return job if job["status"] in ("complete", "failed") else None

    found: dict[str, Any] = wait_until(ended, "the ping has ended", 120, 0.01)
    return found


def _between(job: dict[str, Any], first: str, last: str) -> float:
    return (datetime.fromisoformat(job[last]) - datetime.fromisoformat(job[first])).total_seconds()


def _ask(admin: Connection, number: int) -> float:
    """One of what people ask, in turn; the seconds it took."""
    path = ASKED[number % len(ASKED)]
    began_s = time.perf_counter()
    answer = admin.request("GET", path)
    assert answer.status == 200, answer.body
    return time.perf_counter() - began_s


def _ping(admin: Connection, agent_id: str) -> str:
    body = {"to": agent_id, "timeout": 30, "agent": "rpc", "action": "ping"}
    request_id: str = admin.request("POST", "/api/v1/jobs", body).json()["request_id"]
    return request_id


def _agent_token(admin: Connection) -> str:
    token: str = admin.request("POST", "/api/v1/auth/tokens", {"name": "agents", "permissions": ["agent"]}).json()[
        "token"
    ]
    return token


def _messages(agent_id: str) -> str:
    return f"/api/v1/agents/{agent_id}/messages"


def _hello() -> dict[str, Any]:
    return {"seq": 1, "type": "registration", "version": 1, "payload": {"os": "linux"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "fleet": lambda given: bench_fleet(given.agents, given.seconds, given.data),
        "dispatch": lambda given: bench_dispatch(given.pings, given.data),
        "ping": lambda given: bench_ping(given.pings, given.data),
    }
    parser.add_argument("--case", action="append", choices=list(cases), help="only this; may be repeated")
    parser.add_argument("--agents", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pings", type=int, default=1000)
    parser.add_argument("--data", help="directory under which servers keep their data")
    parser.add_argument("--out", help="file the lines are appended to")
    given = parser.parse_args()
    report(given.out, **machine())
    for name in given.case or cases:
        report(given.out, case=name, **cases[name](given))


if __name__ == "__main__":
    main()
