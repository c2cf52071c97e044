"""What a node says about itself: which Arc it runs, which store, which shards of data. The same on server and agent.

Each is a plain dictionary, as clients get it, made of values and callables that the program hands in.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
META_SHARD = "_meta"  # the metadata of a server, listed first
GIT_S = 5.0  # seconds git may take

_PYTHON_VERSION = re.compile(
    r"(?P<release>\d+(\.\d+)*)((?P<pre>a|b|rc)(?P<pre_n>\d+))?(\.post(?P<post>\d+))?(\.dev(?P<dev>\d+))?"
    r"(\+(?P<local>[0-9A-Za-z.]+))?"
)


class Role(StrEnum):
    PRIMARY = "PRIMARY"
    SECONDARY = "SECONDARY"
    RECOVERING = "RECOVERING"
    OTHER = "OTHER"


@dataclass(frozen=True)
class Shard:
    """A unit of data with its own replication.

    offset: of the newest change that is durable here; it only grows. lag: how far the primary is ahead, where known.
    """

    id: str
    role: Role
    offset: int | None = None
    lag: int | None = None
    unit: str = "seconds"

    def as_dict(self) -> dict[str, Any]:
        def marked(value: int | None) -> dict[str, Any] | None:
            return None if value is None else {"unit": self.unit, "value": value}

        lag = None if self.role is Role.PRIMARY else self.lag
        return {"id": self.id, "role": self.role.value, "commit_offset": marked(self.offset), "lag": marked(lag)}


@dataclass(frozen=True)
class Version:
    """number: as Python writes it. checkout: id of the commit; taint: whether the files differ from it."""

    number: str
    checkout: str = UNKNOWN
    taint: str = UNKNOWN

    @classmethod
    def of_sources(cls, number: str, root: str | os.PathLike[str]) -> Version:
        """As git knows the directory of the program; unknown where it is no working copy or git is missing."""
        commit = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain")
        return cls(number) if commit is None or status is None else cls(number, commit.strip(), _taint(status))

    def as_dict(self) -> dict[str, str]:
        return {"number": semver(self.number), "checkout": self.checkout, "taint": self.taint}


@dataclass(frozen=True)
class Datastore:
    """kind: the software. display_name: of the cluster; empty: none."""

    cluster_id: str
    id: str
    kind: str
    version: str
    display_name: str = ""

    def as_dict(self) -> dict[str, str]:
        described = {
            "cluster_id": self.cluster_id,
            "id": self.id,
            "kind": self.kind,
            "version": semver(self.version),
            "node_id": self.id,  # what clients of the first agents read
        }
        return described | ({"cluster_display_name": self.display_name} if self.display_name else {})


def identity(remember: Callable[[str, str], str], cluster_id: str, node_id: str, address: str) -> tuple[str, str]:
    """Ids of the cluster and of the node: as configured, else made once and kept.

    remember(name, value): the value that was given first. address: `host:port`; a new name of the host changes nothing.
    """
    return (
        cluster_id or remember("cluster_id", f"arc-{os.urandom(4).hex()}"),
        node_id or remember("node_id", address),
    )


def info_agent(version: Version) -> dict[str, Any]:
    return {"version": version.as_dict()}


def info_datastore(datastore: Callable[[], Datastore]) -> dict[str, str]:
    """Asks anew each time; whatever that raises means that the store cannot be asked."""
    return datastore().as_dict()


class Shards:
    """The shards of a node. ids: of all it holds; read: one of them.

    An offset never goes back while the process lives, even when the clock does. A shard that cannot be read is shown
    as OTHER and hides no other one.
    """

    def __init__(self, ids: Callable[[], Iterable[str]], read: Callable[[str], Shard]) -> None:
        self._ids = ids
        self._read = read
        self._highest: dict[str, int] = {}

    def as_dict(self) -> dict[str, Any]:
        ids = sorted(self._ids(), key=lambda shard_id: (shard_id != META_SHARD, shard_id))
        return {"shards": [self._shard(shard_id) for shard_id in ids]}

    def _shard(self, shard_id: str) -> dict[str, Any]:
        try:
            shown = self._read(shard_id).as_dict()
        except Exception:  # one that is damaged must not hide the others
            log.exception("shard %s cannot be read", shard_id)
            return Shard(shard_id, Role.OTHER).as_dict()
        if offset := shown["commit_offset"]:
            offset["value"] = self._highest[shard_id] = max(
                offset["value"], self._highest.get(shard_id, offset["value"])
            )
        return shown


def semver(version: str) -> str:
    """A Python version as SemVer 2.0: `1.4.0rc1` -> `1.4.0-rc.1`, `1.4` -> `1.4.0`; what is none stays as it is."""
    match = _PYTHON_VERSION.fullmatch(version)
    if match is None:
        return version
    release = ".".join([*match["release"].split("."), "0", "0"][:3])
    pre = [part for part in (match["pre"], match["pre_n"]) if part]
    pre += ["dev", match["dev"]] if match["dev"] else []
    build = [*(["post", match["post"]] if match["post"] else []), *([match["local"]] if match["local"] else [])]
    return release + (f"-{'.'.join(pre)}" if pre else "") + (f"+{'.'.join(build)}" if build else "")


def _taint(status: str) -> str:
    """status: of `git status --porcelain`: a letter for the index, one for the working directory, the name."""
    lines = status.splitlines()
    tainted = [
        *(["index"] if any(line[0] not in " ?" for line in lines) else []),
        *(["working directory"] if any(line[1] != " " for line in lines) else []),
    ]
    return f"{' and '.join(tainted)} tainted" if tainted else "not tainted"


def _git(root: str | os.PathLike[str], *args: str) -> str | None:
    if not os.path.exists(os.path.join(root, ".git")):
        return None
    try:
        return subprocess.run(
            ["git", "-C", root, *args], capture_output=True, text=True, timeout=GIT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
