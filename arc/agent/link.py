"""Link: the two threads that talk to the server, and what they do while it is away.

sender: spool -> post -> acknowledge; poller: poll -> handler of the message's type
Each tries again after a time that doubles, with jitter; the first that gets through wakes the other.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from arc.agent.client import Refused
from arc.agent.spool import SpoolFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arc.agent.client import Client, Receipt
    from arc.agent.http import Connection
    from arc.agent.spool import Spool

    Handler = Callable[[Mapping[str, Any]], None]

log = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 15.0
REFUSED_RETRY_S = 30.0  # a wrong token is not right in a second
JOIN_S = 1.0  # of a thread that may be in the middle of connecting
BATCH_BYTES, BATCH_MESSAGES = 700_000, 500  # the server takes 1 MB and 1,000
NO_ANSWER = (OSError, ValueError, KeyError, TypeError)  # nobody there, or no server of Arc's
TOO_MUCH = (400, 413)  # answers to a batch that the server will never take
BROKEN = 500  # the answer of a server that trips over a message, or over everything
STUCK_ANSWERS, STUCK_S = 10, 600.0  # so many of these, for so many seconds, until a message is given up


class Link:
    """handlers: by type of message; what has none is ignored. on_reconnect: called after every interruption."""

    def __init__(
        self,
        client: Client,
        spool: Spool,
        handlers: Mapping[str, Handler],
        poll_s: float,
        on_reconnect: Callable[[], None],
    ) -> None:
        self._client = client
        self._spool = spool
        self._handlers = handlers
        self._poll_s = poll_s
        self._on_reconnect = on_reconnect
        self._lock = threading.Lock()
        self._is_down = False
        self._recovered = threading.Event()  # also set to end a wait
        self._stop_polling = threading.Event()
        self._stop = threading.Event()
        self._drained = threading.Event()
        self._registered = threading.Event()
        self._last_error = ""
        self._given_up = 0  # messages since the start
        self._threads = [
            threading.Thread(target=self._guard, args=(self._send, client.messages), name="sender", daemon=True),
            threading.Thread(target=self._guard, args=(self._poll, client.polls), name="poller", daemon=True),
        ]

    @property
    def is_down(self) -> bool:
        return self._is_down

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop_polling(self) -> None:
        """No more work from now on; what was spooled still goes."""
        self._stop_polling.set()
        self._registered.set()
        self._recovered.set()
        self._client.polls.abort()

    def stop(self, drain_s: float) -> None:
        """Send what is spooled, for this long at most, and end."""
        self.stop_polling()
        self._spool.wake()
        if drain_s and not self._is_down:
            self._drained.wait(drain_s)
        self._stop.set()
        self._spool.wake()
        self._recovered.set()
        if not self._is_down and drain_s:
            self._threads[0].join(drain_s)
        self._client.messages.abort()
        for thread in self._threads:
            thread.join(JOIN_S)

    def _guard(self, work: Callable[[], None], connection: Connection) -> None:
        """What must not happen ends the program, and whoever supervises it starts it again."""
        try:
            work()
        except BaseException:
            log.critical("%s: cannot go on", threading.current_thread().name, exc_info=True)
            os._exit(1)
        finally:
            connection.close()

    def _send(self) -> None:
        attempt, broken = _Attempts(), _Broken()
        is_epoch_known = False
        while not self._stop.is_set():
            batch = self._spool.batch(BATCH_BYTES, BATCH_MESSAGES) if is_epoch_known else []
            if is_epoch_known and not batch:
                if self._stop_polling.is_set():
                    self._drained.set()
                self._spool.wait_due(self._stop)
                continue
            try:
                receipt = self._client.post(self._spool.epoch, batch)
                self._take(receipt, is_first=not is_epoch_known)
                is_epoch_known = True
                broken.count = 0
                self._up(attempt)
            except Refused as error:
                if error.status in TOO_MUCH and batch:
                    self._send_singly(batch, TOO_MUCH)
                elif error.status == BROKEN and batch and broken.is_enough():
                    broken.count = 0
                    self._send_singly(batch, (*TOO_MUCH, BROKEN))
                else:
                    self._down(attempt, error, REFUSED_RETRY_S if error.status < 500 else 0.0)
            except (*NO_ANSWER, SpoolFailed) as error:
                self._down(attempt, error)

    def _take(self, receipt: Receipt, *, is_first: bool) -> None:
        if is_first:
            self._spool.check_epoch(receipt.last_seq)
        else:
            self._registered.set()
        for each in receipt.rejected:
            log.warning("the server rejects message %s: %s", each.get("seq"), each.get("error"))
        self._spool.acknowledge(receipt.last_seq)

    def _send_singly(self, batch: list[tuple[int, str]], hopeless: tuple[int, ...]) -> None:
        """Find the message that spoils the batch and give it up, so that the others do not wait for ever.

        hopeless: answers that tell which it is. Of BROKEN only the first counts: it may be the server that is broken,
        and then one message is lost in STUCK_S, not all.
        """
        for seq, body in batch:
            try:
                self._take(self._client.post(self._spool.epoch, [(seq, body)]), is_first=False)
            except Refused as error:
                if error.status not in hopeless or not self._give_up(seq, error) or error.status == BROKEN:
                    return
            except (*NO_ANSWER, SpoolFailed):
                return

    def _give_up(self, seq: int, error: Refused) -> bool:
        try:
            self._spool.forget(seq)
        except SpoolFailed:
            return False
        self._given_up += 1
        log.error("message %d cannot be delivered and is given up (%d so far): %s", seq, self._given_up, error)
        return True

    def _poll(self) -> None:
        attempt = _Attempts()
        self._registered.wait()  # who is not known yet is told to come back later
        while not self._stop_polling.is_set():
            try:
                messages, retry_s = self._client.poll(self._poll_s)
            except Refused as error:
                self._down(attempt, error, REFUSED_RETRY_S if error.status < 500 else 0.0)
                continue
            except NO_ANSWER as error:
                if not self._stop_polling.is_set():
                    self._down(attempt, error)
                continue
            self._up(attempt)
            for message in messages:
                self._handle(message)
            self._stop_polling.wait(retry_s)

    def _handle(self, message: Mapping[str, Any]) -> None:
        handler = self._handlers.get(str(message.get("type")))
        if handler is None:
            log.warning("a message of type %r is ignored", message.get("type"))
            return
        try:
            handler(message)
        except SpoolFailed as error:  # not confirmed, so the server hands it out again
            log.error("cannot take a message: %s", error)
        except Exception:  # one bad message must not end the link
            log.exception("a message of type %r failed", message.get("type"))

    def _up(self, attempt: _Attempts) -> None:
        attempt.count = 0
        with self._lock:
            was_down, self._is_down = self._is_down, False
        if was_down:
            log.info("the server is there again")
            self._recovered.set()
            try:
                self._on_reconnect()
            except SpoolFailed as error:
                log.error("%s", error)

    def _down(self, attempt: _Attempts, error: Exception, at_least_s: float = 0.0) -> None:
        with self._lock:
            is_known, self._last_error = self._is_down and self._last_error == str(error), str(error)
            self._is_down = True
            self._recovered.clear()
        delay_s = max(attempt.next_s(), at_least_s)
        log.log(logging.DEBUG if is_known else logging.WARNING, "no connection: %s; next try in %.1f s", error, delay_s)
        if not (self._stop.is_set() or self._stop_polling.is_set()):
            self._recovered.wait(delay_s)
        elif not self._stop.is_set():
            self._stop.wait(delay_s)


class _Attempts:
    """Of one thread, in a row, without success."""

    def __init__(self) -> None:
        self.count = 0

    def next_s(self) -> float:
        longest_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self.count, 10))
        self.count += 1
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - so that a fleet does not come back at once


class _Broken:
    """Answers of a broken server since a batch got through."""

    def __init__(self) -> None:
        self.count = 0
        self._since_s = 0.0

    def is_enough(self) -> bool:
        """Whether they are, with one more."""
        if self.count == 0:
            self._since_s = time.monotonic()
        self.count += 1
        return self.count >= STUCK_ANSWERS and time.monotonic() - self._since_s >= STUCK_S
