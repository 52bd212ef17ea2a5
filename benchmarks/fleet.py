"""Rollouts side by side with their peers: ``python benchmarks/fleet.py --help``, and docs/benchmarks.md.

The work is done by the package beside this file, which Python finds first; this is its front door.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.fleet.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
