"""Metrics of the server's own host and process, in database `host`, by the way that all writes go.

every [collect] interval_s: hoststats.HostSampler -> MessagePack -> MetricStore.write_msgpack
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import msgpack

from arc.errors import ArcError
from arc.hoststats import HostSampler
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

DATABASE = "host"


class HostCollector(PeriodicLoop):
    """Writes one sample per pass, the first as soon as it starts.

    write: takes a MessagePack body and a database, returns rows, as MetricStore.write_msgpack does.
    """

    name = "host-collector"

    def __init__(self, write: Callable[[bytes, str], int], interval_s: float) -> None:
        super().__init__(interval_s)
        self._write = write
        self._sampler = HostSampler(socket.gethostname(), "server")
        self._is_failing = False

    def start(self) -> None:
        super().start()
        self.wake()

    def step(self, now_us: int) -> int:
        body = msgpack.packb({"batch": self._sampler.sample(now_us)})
        try:
            rows = self._write(body, DATABASE)
        except ArcError as error:
            if not self._is_failing:  # once: a full disk would fill its log, too
                log.warning("samples of this host are not stored: %s", error)
            self._is_failing = True
            return 0
        if self._is_failing:
            log.info("samples of this host are stored again")
        self._is_failing = False
        return rows
