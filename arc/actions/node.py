"""A node as others see it: its attributes and its actions. Server and agent serve the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.actions.attributes import Datastore, Shards, Version
    from arc.actions.engine import ActionEngine


@dataclass(frozen=True)
class Node:
    """engine: None when actions are switched off. datastore: asked anew for each answer."""

    engine: ActionEngine | None
    version: Version
    datastore: Callable[[], Datastore]
    shards: Shards
