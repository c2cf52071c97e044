"""The import arrows of the tree, read from the syntax trees of all modules.

leaves <- db, runtimes <- access, metrics, jobs, fleet, actions <- web, agent <- app <- cli
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
LAYERS = (
    {"errors", "clock", "config", "loop", "logs", "datadir", "hoststats"},
    {"db", "runtimes"},
    {"access", "metrics", "jobs", "fleet", "actions", "backup"},
    {"web", "agent"},
    {"servernode"},
    {"app"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
LEVEL = {part: level for level, layer in enumerate(LAYERS) for part in layer}
MODULES = sorted((ROOT / "arc").rglob("*.py"))
FLASK = {"flask", "flask_openapi3", "werkzeug", "waitress"}


def part_of(path: Path) -> str:
    """`arc/db/engine.py` -> db, `arc/clock.py` -> clock, `arc/__init__.py` -> empty."""
    return path.relative_to(ROOT / "arc").with_suffix("").parts[0].removeprefix("__init__")


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it, also only for types."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts_imported(path: Path) -> set[str]:
    named = {name.split(".")[1] for name in imports(path) if name.startswith("arc.")}
    return {part for part in named if not part.startswith("__")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if not part:
        assert not parts_imported(path)
        return
    assert part in LEVEL, f"{part} has no place in the tree"

    allowed = (
        {other for other in LEVEL if LEVEL[other] < LEVEL[part]} | {part} | (LAYERS[0] if part in LAYERS[0] else set())
    )

    assert parts_imported(path) <= allowed


def test_leaves_do_not_import_in_a_circle() -> None:
    below: dict[str, set[str]] = {part_of(path): parts_imported(path) for path in MODULES if part_of(path) in LAYERS[0]}

    while below:
        free = {part for part, needed in below.items() if not needed & set(below)}
        assert free, f"a circle among {sorted(below)}"
        below = {part: needed for part, needed in below.items() if part not in free}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_web_imports_flask(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path)} & FLASK

    assert not found or part_of(path) == "web"


@pytest.mark.parametrize("part", ["actions", "agent", "hoststats"])
def test_agent_side_needs_only_the_standard_library(part: str) -> None:
    allowed = {"arc", "psutil", "paho"} | sys.stdlib_module_names
    paths = [path for path in MODULES if part_of(path) == part]

    found = {name.split(".")[0] for path in paths for name in imports(path)}

    assert found <= allowed


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]

    assert not silent
