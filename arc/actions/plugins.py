"""The plug-in directory: each file NAME.toml adds a command to `arc.edge/exec`, or an external kind.

description = "Disk space"          description = "Rebuild the search index"
[exec]                              [external]
argv = ["df", "-h"]                 action = ["/opt/index/begin"]
args = ["/[a-z/]*"]                 check = ["/opt/index/look"]
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arc.actions import execkind, schema
from arc.actions.execkind import Allowed
from arc.actions.external import External
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arc.actions.kinds import Kind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


def read(directory: str) -> dict[str, Allowed | External]:
    """What the files of the directory say, by name. Raises ConfigError that names the file."""
    if not Path(directory).is_dir():
        raise ConfigError(f"[actions] plugins: there is no directory {directory}")
    return {path.stem: _read(path) for path in sorted(Path(directory).glob("*.toml"))}


def kinds(found: Mapping[str, Allowed | External]) -> list[Kind]:
    allowed = {name: each for name, each in found.items() if isinstance(each, Allowed)}
    external = [each.kind() for each in found.values() if isinstance(each, External)]
    return [*external, *([execkind.kind(allowed)] if allowed else [])]


def _read(path: Path) -> Allowed | External:
    import tomllib  # half a megabyte, which a node without plug-ins need not carry

    try:
        if path.stat().st_mode & stat.S_IWOTH:
            raise ValueError("everybody may write to it, so everybody could have the node run anything")
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return _entry(path.stem, document)
    except (TypeError, ValueError, re.error) as error:
        raise ConfigError(f"{path}: {error}") from None


def _entry(name: str, document: dict[str, Any]) -> Allowed | External:
    """Raises TypeError, ValueError or re.error saying what is wrong."""
    if not _NAME.fullmatch(name):
        raise ValueError("the name of the file is no name of an action")
    description = str(document.pop("description", ""))
    match document:
        case {"exec": dict(table), **rest} if not rest:
            allowed = Allowed(**_checked(Allowed, table), description=description)
            for pattern in allowed.args:
                re.compile(pattern)
            return allowed
        case {"external": dict(table), **rest} if not rest:
            schema.check_schema(table.get("args", {}))
            return External(name, **_checked(External, table), description=description)
        case _:
            raise ValueError("needs one table, [exec] or [external], and at most a description beside it")


def _checked(wanted: type[Any], table: dict[str, Any]) -> dict[str, Any]:
    """The table as fields of the class: each known, lists of what they must hold, commands not empty."""
    known = {field.name: field for field in fields(wanted) if field.name not in ("name", "description")}
    for name, value in table.items():
        if name not in known:
            raise ValueError(f"unknown {name}; known are {', '.join(known)}")
        _check_type(name, value)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}


def _check_type(name: str, value: Any) -> None:
    if name in ("argv", "action", "check") and not value:
        raise ValueError(f"{name} must not be empty")
    if name in ("timeout_max_s", "deadline_s"):
        good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    elif isinstance(value, list):
        good = all(isinstance(each, int if name == "ok_codes" else str) for each in value)
    else:
        good = isinstance(value, dict)
    if not good:
        raise ValueError(f"{name} = {json.dumps(value, default=str)} cannot be used")
