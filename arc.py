"""Launcher: python arc.py [server|agent|config|token|version] ..."""

from __future__ import annotations

import sys

from arc.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
