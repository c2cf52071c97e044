"""Launcher: `agent` is a small program of its own, dispatched before anything of the server is loaded."""

from __future__ import annotations

import sys


def main() -> int:
    """Returns the exit status."""
    if sys.argv[1:2] == ["agent"]:
        from arc.agent.main import main as agent

        return agent(sys.argv[2:])
    from arc.cli import main as server

    return server()


if __name__ == "__main__":
    sys.exit(main())
