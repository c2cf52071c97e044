"""Client: the agent's side of the transport over HTTP. One connection for messages, one for the long poll.

post(messages) -> number of the last one that had its effect; poll() -> what to do
Source: arc/web/fleet_transport.py, the other side.
"""

from __future__ import annotations

import json
import logging
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from arc import __version__
from arc.agent.http import Answer, Connection, Url

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

POST_S = 15.0  # seconds without an answer until a connection counts as dead
POLL_GRACE_S = 10.0  # the same, beyond the time a poll may wait
GOODBYE_S = 2.0
COMPRESS_BYTES = 2048  # smaller bodies are sent as they are
GZIP = 16 + zlib.MAX_WBITS


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        super().__init__(f"{answer.status} {answer.reason}: {_reason(answer.body)}".strip(": "))


class Receipt(NamedTuple):
    last_seq: int
    rejected: list[dict[str, Any]]


class Client:
    """post (connection `messages`) and poll (connection `polls`) may be called by different threads.

    All raise OSError when the server cannot be reached, Refused when it says no.
    """

    def __init__(self, server: str, token: str, identity: str, ca_file: str = "") -> None:
        prefix = Url.parse(server).path.rstrip("/")
        self._path = f"{prefix}/api/v1/agents/{identity}/messages"
        self._headers = {"User-Agent": f"arc-agent/{__version__}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self.messages = Connection(server, ca_file)
        self.polls = Connection(server, ca_file)

    def post(self, epoch: str, messages: Sequence[tuple[int, str]]) -> Receipt:
        """messages: number and JSON text of each."""
        numbered = ",".join(f'{{"seq":{seq},{body[1:]}' for seq, body in messages)
        body = f'{{"epoch":"{epoch}","messages":[{numbered}]}}'.encode()
        headers = self._headers | {"Content-Type": "application/json"}
        if len(body) > COMPRESS_BYTES:
            packer = zlib.compressobj(1, zlib.DEFLATED, GZIP)
            body, headers["Content-Encoding"] = packer.compress(body) + packer.flush(), "gzip"
        answer = _checked(self.messages.request("POST", self._path, body, headers, POST_S))
        return Receipt(int(answer["last_seq"]), list(answer.get("rejected", ())))

    def poll(self, wait_s: float) -> tuple[list[dict[str, Any]], float]:
        """What to do, and after how many seconds to ask again."""
        path = f"{self._path}?wait_s={wait_s:g}"
        answer = _checked(self.polls.request("GET", path, b"", self._headers, wait_s + POLL_GRACE_S))
        messages = [message for message in answer.get("messages", ()) if isinstance(message, dict)]
        return messages, float(answer.get("retry_in_s", 0.0))

    def say_goodbye(self) -> None:
        _checked(self.messages.request("GET", f"{self._path}?offline=true", b"", self._headers, GOODBYE_S))

    def close(self) -> None:
        self.messages.close()
        self.polls.close()


def _checked(answer: Answer) -> dict[str, Any]:
    """Raises Refused, OSError when it is no answer of Arc's."""
    if answer.status != 200:
        raise Refused(answer)
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise OSError("the answer is no JSON object; is this the address of an Arc server?")
    return body


def _reason(body: bytes) -> str:
    """What an error says, for the log."""
    try:
        found = json.loads(body)
        text = found.get("error") or found.get("detail") or ""
    except (ValueError, AttributeError):
        text = body[:200].decode(errors="replace")
    return str(text)[:500]
