"""Run a program as on a simulated board, in the user's own terminal and without SSH."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from toolkit.sim import boards
from toolkit.sim.spec import SimBoard, SimulationError

# What a terminal program needs to draw, and nothing else of the user's environment.
_PASSED_ON = ("TERM", "COLORTERM", "LANG", "LC_ALL", "LC_CTYPE", "NO_COLOR", "COLUMNS", "LINES")


def run_command(board: SimBoard, root: Path, argv: Sequence[str]) -> int:
    """Run ``argv`` with the environment of ``board`` (CANN set up); return its exit code.

    Standard input, output and error are the caller's, and so is the working folder; HOME is the board's, so
    that the program finds the board's files and leaves its own there. A program killed by a signal gives
    128 plus the signal's number, as in a shell. Raises SimulationError when there is no such program.
    """
    if not argv:
        raise SimulationError("no command to run on the board: name one, such as python3 program.py")
    folder = _prepare(board, root)
    return _call(folder, [boards.login_shell(), "-c", f'{folder.activate}\nexec "$@"', argv[0], *argv])


def shell(board: SimBoard, root: Path) -> int:
    """Open an interactive shell as on ``board``, in the working folder; return its exit code."""
    folder = _prepare(board, root)
    login_shell = boards.login_shell()
    return _call(folder, [login_shell, "-c", f"{folder.activate}\nexec {login_shell} -i", "board"])


def _prepare(board: SimBoard, root: Path) -> boards.Folder:
    where = boards.check_root(root)
    return boards.prepare(board, where, boards.install_modules(where))


def _call(folder: boards.Folder, argv: Sequence[str]) -> int:
    env = folder.environment() | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Ctrl-C reaches the program by itself (it is in the terminal's group); ours is to wait for what it
    # makes of it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # restore_signals does not cover SIGINT: ignored here, it would be ignored there too.
        process = subprocess.Popen(argv, env=env, preexec_fn=_default_interrupt)
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _default_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
