"""The agent as one file: a zipapp of this very program, with only what the agent needs.

program() -> arc/agent and arc/actions, the modules of ours they import, __main__.py -> bytes, made once
Python 3.11 and psutil are for the machine to have.
"""

from __future__ import annotations

import ast
import zipfile
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import arc

PACKAGES = ("agent", "actions")  # whole, because they load some of their modules by name
_MAIN = """\
import sys

from arc.agent.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:] if sys.argv[1:2] == ["agent"] else sys.argv[1:]))
"""
_STAMP = (1980, 1, 1, 0, 0, 0)  # the same program is the same bytes


@cache
def program() -> bytes:
    """The bytes of `arc-agent.pyz`."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        for name, path in sorted(_files().items()):
            _add(archive, name, path.read_bytes())
    return b"#!/usr/bin/env python3\n" + out.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _STAMP)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    archive.writestr(info, content)


def _files() -> dict[str, Path]:
    """Source files by their name in the archive."""
    root = Path(arc.__file__).parent
    wanted = [path for package in PACKAGES for path in (root / package).rglob("*.py")] + [root / "__init__.py"]
    found: dict[str, Path] = {}
    while wanted:
        path = wanted.pop()
        name = path.relative_to(root.parent).as_posix()
        if name not in found:
            found[name] = path
            wanted += _imported(path)
    return found


def _imported(path: Path) -> list[Path]:
    """Files of ours that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    specs = (_spec(name) for name in names if name.startswith("arc."))
    return [Path(origin) for origin in specs if origin]


def _spec(name: str) -> str | None:
    """Where a module is; None of a name that is none, such as a class that is imported from one."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return None
    return spec.origin if spec else None
