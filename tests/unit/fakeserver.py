"""A server of the agents' transport in the process of the test, over a real socket. It fails when told to."""

from __future__ import annotations

import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeServer:
    """url; received: all messages, each once, as Intake takes them in; give(): work for the next poll."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.received: list[dict[str, Any]] = []
        self.posts: list[list[int]] = []  # numbers of each batch, also of those that were lost
        self.last_seq: dict[str, int] = {}  # by epoch
        self.work: list[dict[str, Any]] = []
        self.goodbyes = 0
        self.answer_status = 200
        self.lose_answers = 0  # how many of the next batches take effect without an answer
        self.refuse: Callable[[dict[str, Any]], int | None] = lambda message: None
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.answer_status = 503
            self.lock.notify_all()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def give(self, *messages: dict[str, Any]) -> None:
        with self.lock:
            self.work += messages
            self.lock.notify_all()

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        with self.lock:
            return [message for message in self.received if message["type"] == kind]

    def replies(self, request_id: str) -> list[dict[str, Any]]:
        return [message for message in self.of_type("reply") if message["request_id"] == request_id]

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        """Value of the condition as soon as it is true."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline, "nothing came"
            time.sleep(0.005)
        return value

    def take(self, batch: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Status and answer of a batch; None for an answer that is lost."""
        with self.lock:
            self.posts.append([message["seq"] for message in batch["messages"]])
            if self.answer_status != 200:
                return self.answer_status, {"error": "told to"}
            for message in batch["messages"]:
                if status := self.refuse(message):
                    return status, {"error": "spoiled"}
            for message in batch["messages"]:
                if message["seq"] > self.last_seq.get(batch["epoch"], 0):
                    self.received.append(message)
                    self.last_seq[batch["epoch"]] = message["seq"]
            if self.lose_answers and batch["messages"]:
                self.lose_answers -= 1
                return None
            return 200, {"last_seq": self.last_seq.get(batch["epoch"], 0), "rejected": []}

    def poll(self, wait_s: float) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.lock.wait_for(lambda: self.work or self.answer_status != 200, wait_s)
            if self.answer_status != 200:
                return self.answer_status, {"error": "told to"}
            messages, self.work = self.work, []
            return 200, {"messages": messages, "retry_in_s": 0.0}


def request(
    request_id: str, plugin: str = "rpc", action: str = "ping", payload: str = "", timeout: int = 20
) -> dict[str, Any]:
    return {
        "type": "request",
        "version": 1,
        "sender": "server",
        "to": "edge-1",
        "request_id": request_id,
        "timeout": 20,
        "agent": plugin,
        "action": action,
        "payload": payload,
    }


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 0.5  # of an idle connection, so that the test's end does not wait for it

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            answer = server.take(json.loads(body))
            if answer is None:
                self.close_connection = True
            else:
                self._answer(*answer)

        def do_GET(self) -> None:
            if "offline=true" in self.path:
                server.goodbyes += 1
                self._answer(200, {"messages": [], "retry_in_s": 0})
            else:
                self._answer(*server.poll(min(0.3, float(self.path.partition("wait_s=")[2]))))

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the agent has gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler
