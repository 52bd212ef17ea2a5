"""Run a program as on a simulated board, in the user's own terminal and without SSH.

Such a board has a folder of its own for each way that it is described (``<name>-<digest>``), so that runs with
another CANN or other faults change neither each other nor boards that are served by SSH, whatever is going on
there at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from toolkit.sim import boards
from toolkit.sim.spec import SimBoard, SimulationError

# What a login or the CANN of a board sets beside Folder.environment(): a CANN of this machine is not the board's,
# and neither is its interpreter.
_OF_THE_BOARD = {
    "ASCEND_AICPU_PATH",
    "ASCEND_HOME_PATH",
    "ASCEND_NNRT_HOME",
    "ASCEND_OPP_PATH",
    "ASCEND_TOOLKIT_HOME",
    "BASH_ENV",
    "ENV",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "TOOLCHAIN_HOME",
    "VIRTUAL_ENV",
}


def run_command(board: SimBoard, root: Path, argv: Sequence[str]) -> int:
    """Run ``argv`` with the environment of ``board`` (CANN set up); return its exit code.

    Standard input, output and error are the caller's, and so is the working folder; HOME is the board's, so
    that the program finds the board's files and leaves its own there. The caller's variables reach it, but for
    those that the board owns (HOME, USER, PATH, LD_LIBRARY_PATH, what CANN's set_env.sh sets); the caller's
    PYTHONPATH comes behind the board's. A program killed by a signal gives 128 plus the signal's number, as in
    a shell. Raises SimulationError when there is no command.
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
    described = json.dumps(board.to_json(), sort_keys=True)
    name = f"{board.name}-{hashlib.sha256(described.encode()).hexdigest()[:8]}"
    return boards.prepare(board, where, boards.install_modules(where), name)


def _call(folder: boards.Folder, argv: Sequence[str]) -> int:
    # PYTHONPATH is the caller's: what sets up CANN puts the board's before it.
    passed = {name: value for name, value in os.environ.items() if name not in _OF_THE_BOARD}
    env = passed | folder.environment()
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
