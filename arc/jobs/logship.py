"""What a running task tells, on its way to the coordinator: output in parts, at most once a second, and progress.

runtime thread -> TaskReport.log(bytes) -> ship() each second and at the end -> decoded, redacted -> Coordinator.log
"""

from __future__ import annotations

import codecs
import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arc.jobs.coordinator import Coordinator
    from arc.jobs.records import Claim
    from arc.jobs.redaction import Redactor

MAX_HELD_BYTES = 1 << 20  # beyond it the task waits until its output is stored
CUT = "\n[the log is too long; the rest is left out]\n"

log = logging.getLogger(__name__)


class TaskReport:
    """A Reporter of the runtimes, for one claim. max_bytes: of its log."""

    def __init__(self, coordinator: Coordinator, claim: Claim, redactor: Redactor, max_bytes: int) -> None:
        self._coordinator = coordinator
        self._claim = claim
        self._stream = redactor.stream()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = bytearray()
        self._left_bytes = max_bytes
        self._adding = threading.Lock()
        self._shipping = threading.Lock()  # keeps parts in order

    def log(self, data: bytes) -> None:
        with self._adding:
            self._held += data
            is_full = len(self._held) >= MAX_HELD_BYTES
        if is_full:
            self.ship()

    def progress(self, percent: float) -> None:
        try:
            self._coordinator.progress(self._claim.claim_id, self._claim.task.id, percent)
        except Exception:  # the task goes on
            log.exception("task %s: its progress is lost", self._claim.task.id)

    def ship(self, *, is_last: bool = False) -> None:
        """Store what has come; an unfinished character or the beginning of a secret waits for more.

        U+0000, which no database takes, goes before secrets are looked for, which it could break up. What cannot be
        stored is lost: to keep it would fill the memory, and the task must go on.
        """
        with self._shipping:
            with self._adding:
                data, self._held = bytes(self._held), bytearray()
            if not data and not is_last:
                return
            text = self._stream.feed(self._decode(data, is_last).replace("\0", ""))
            if is_last:
                text += self._stream.close()
            text = self._fitting(text)
            try:
                if text:
                    self._coordinator.log(self._claim.claim_id, self._claim.task.id, text)
            except Exception:
                log.exception("task %s: a part of its log is lost", self._claim.task.id)

    def _fitting(self, text: str) -> str:
        """What of it still fits into the log: a task that prints without end must not fill the disk."""
        if self._left_bytes < 0:
            return ""
        data = text.encode()
        self._left_bytes -= len(data)
        if self._left_bytes >= 0:
            return text
        return data[: self._left_bytes].decode(errors="ignore") + CUT
