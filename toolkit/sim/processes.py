"""Processes that sessions on a simulated board started: to learn of their end, and to leave none behind.

A command may fork children into sessions of their own (a daemon does), so process groups are not enough. On
Linux the server is made a child subreaper (prctl(2)): whatever loses its parent becomes the server's child,
so that all of it can be found by walking down from the server. Elsewhere the process groups of the commands
have to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the owner's side needs no event loop, and is to be cheap to import
    import asyncio

_PR_SET_CHILD_SUBREAPER = 36

#: In the environment of everything that a session started; with SSH_CONNECTION it tells the simulator's own
#: leftovers.
VARIABLE = b"ASCEND_SIM_BOARD="


def adopt_orphans() -> None:
    """Make this process the parent of all its descendants that lose theirs (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Reaper:
    """Tells callers when a child ended; the only one in its process that waits for children."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting: dict[int, tuple[subprocess.Popen[bytes], Callable[[int], None]]] = {}
        loop.add_signal_handler(signal.SIGCHLD, self.reap)

    def watch(self, process: subprocess.Popen[bytes], ended: Callable[[int], None]) -> None:
        """Call ``ended`` with the exit code (negative: the signal's number) once ``process`` is over."""
        self._waiting[process.pid] = (process, ended)

    def leaders(self) -> list[int]:
        """Return the pids of the watched processes that still run; each leads its own session."""
        return list(self._waiting)

    def reap(self) -> None:
        """Collect all children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._waiting:  # otherwise an orphan of some command
                process, ended = self._waiting.pop(pid)
                # Popen must not wait for it again: the number may be another process's by then.
                process.returncode = os.waitstatus_to_exitcode(status)
                ended(process.returncode)


def kill_descendants(leaders: Iterable[int], of_board: Path | None = None) -> None:
    """Kill what runs below this process, or only what runs on the board whose description is ``of_board``.

    ``leaders`` are session leaders which are killed with their process groups where /proc does not tell more.
    """
    if not Path("/proc/self/stat").exists():
        for leader in leaders:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)
        return
    # What is killed may have forked meanwhile; its children are ours by then and are found in the next round.
    for _ in range(100):
        found = [pid for pid in _descendants(os.getpid()) if of_board is None or _board_of(pid) == of_board]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def sweep(root: Path) -> int:
    """Kill what sessions of an earlier server below ``root`` left behind; return how many processes.

    That server must be gone (killed before it could clean up). They are told by their environment: the
    description of a board below ``root``, and an SSH connection.
    """
    killed = 0
    for pid in _all_pids():
        board = _board_of(pid)
        if board is not None and root in board.parents and b"SSH_CONNECTION=" in _environment(pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def _all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except OSError:
        return []


def _descendants(ancestor: int) -> list[int]:
    """Return the pids of all living processes below ``ancestor``; zombies are dead already."""
    children: dict[int, list[int]] = {}
    zombies: set[int] = set()
    for pid in _all_pids():
        try:
            # "pid (command) state ppid …": the command may hold anything, so count from its last parenthesis.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(pid)
        if fields[0] in (b"Z", b"X"):
            zombies.add(pid)
    found: list[int] = []
    ahead = [ancestor]
    while ahead:
        below = children.get(ahead.pop(), [])
        ahead += below
        found += below
    return [pid for pid in found if pid not in zombies]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _board_of(pid: int) -> Path | None:
    """Return the path of the description of the board on which ``pid`` runs."""
    for entry in _environment(pid).split(b"\0"):
        if entry.startswith(VARIABLE):
            return Path(os.fsdecode(entry[len(VARIABLE) :]))
    return None
