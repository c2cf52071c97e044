"""Sampler: what this host does, every few seconds, as line protocol for the server's database `host`.

hoststats.HostSampler -> lines -> spool -> server
Needs psutil; without it there are no metrics.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from arc.agent.spool import SpoolFailed
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arc.agent.spool import Spool
    from arc.hoststats import HostSampler

log = logging.getLogger(__name__)


class SamplerLoop(PeriodicLoop):
    name = "sampler"

    def __init__(self, spool: Spool, sampler: HostSampler, interval_s: float) -> None:
        super().__init__(interval_s)
        self._spool = spool
        self._sampler = sampler
        self._is_failing = False

    def step(self, now_us: int) -> int:
        """Returns the number of lines."""
        lines = list(as_lines(self._sampler.sample(now_us)))
        try:
            self._spool.append("metrics", {"lines": "\n".join(lines)})
        except SpoolFailed as error:
            if not self._is_failing:
                log.error("metrics are lost: %s", error)
            self._is_failing = True
            return 0
        self._is_failing = False
        return len(lines)


def sampler_of(identity: str) -> HostSampler | None:
    """None without psutil."""
    try:
        from arc.hoststats import HostSampler
    except ImportError:
        log.warning("no metrics of this host: psutil is not installed")
        return None
    return HostSampler(identity, "agent")


def as_lines(items: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Line protocol, in nanoseconds; nulls and empty tags are left out."""
    for item in items:
        tags = {"host": item["h"], **item["tags"]}
        head = "".join(f",{_name(key)}={text}" for key, value in sorted(tags.items()) if (text := _name(value)))
        fields = ",".join(
            f"{_name(key)}={_number(value)}" for key, value in item["fields"].items() if value is not None
        )
        if fields:
            yield f"{_name(item['m'])}{head} {fields} {item['t'] * 1000}"


def _name(text: str) -> str:
    r"""Of a tag, a field or a measurement: no line break, no backslash at its end."""
    plain = " ".join(text.splitlines()).rstrip("\\")
    return plain.replace(",", r"\,").replace("=", r"\=").replace(" ", r"\ ")


def _number(value: float) -> str:
    return f"{value}i" if isinstance(value, int) else repr(value)
