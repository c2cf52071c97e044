"""Variables of this host that tasks may see: `[jobs] host_env`, a list of NAME or NAME:ALIAS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def parse(specs: Iterable[str]) -> dict[str, str]:
    """Name in the task -> name on the host. Raises ConfigError."""
    names: dict[str, str] = {}
    for spec in specs:
        name, _, alias = spec.partition(":")
        if not name or ":" in alias or "=" in spec:
            raise ConfigError(f"invalid env var spec: {spec}")
        names[alias or name] = name
    return names


def values(names: Mapping[str, str]) -> dict[str, str]:
    """What a step gets; a variable that is not set on the host is empty."""
    return {alias: os.environ.get(name, "") for alias, name in names.items()}
