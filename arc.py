"""Launcher: python arc.py [server|config|token|version] ..."""

from __future__ import annotations

import sys

from arc.cli import main

if __name__ == "__main__":
    sys.exit(main())
