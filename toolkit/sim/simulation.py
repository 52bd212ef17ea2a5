"""Start simulated boards, and end them with everything that ran on them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from toolkit.sim import processes
from toolkit.sim.boards import check_root, shared
from toolkit.sim.spec import Address, SimBoard, SimulationError, check_boards, check_faults

# The package's parent folder: `python -m toolkit.sim` finds the code there, wherever the caller works.
_CODE = Path(__file__).resolve().parents[2]

_START_SECONDS = 60.0
_ANSWER_SECONDS = 30.0
_STOP_SECONDS = 10.0


class Simulation:
    """Simulated boards, served by one subprocess. A context manager; ``addresses`` tells where they are.

    ``root`` holds the boards' disks and keys, which stay from run to run. Raises SimulationError when the
    boards cannot be (bad names, a root in use) here and in :meth:`start`.
    """

    def __init__(self, boards: Sequence[SimBoard], root: Path) -> None:
        check_boards(boards)
        self.boards = list(boards)
        self.root = check_root(root)
        self.addresses: list[Address] = []
        self._process: subprocess.Popen[str] | None = None
        self._talk = threading.Lock()

    def __enter__(self) -> Simulation:
        """Start the boards."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the boards."""
        self.stop()

    def start(self) -> list[Address]:
        """Start the boards and return their addresses, in the order of the boards, once all accept
        connections.

        Raises SimulationError: a wanted port is taken, the root is in use by another simulation.
        """
        if self._process is not None:
            raise SimulationError(f"the boards below {self.root} were started already: stop them first")
        log = shared(self.root) / "server.log"
        with open(log, "wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "toolkit.sim", "serve"],
                cwd=_CODE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                # Ctrl-C in the terminal must not end the boards under a caller who is still putting things
                # in order.
                start_new_session=True,
            )
        try:
            specification = {"root": str(self.root), "boards": [board.to_json() for board in self.boards]}
            answer = self._ask(specification, _START_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.addresses = [Address(**fields) for fields in answer["addresses"]]
        return self.addresses

    def stop(self) -> None:
        """Stop the boards and kill all that runs on them. Does nothing when they are not running."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        # A server that was killed could not clean up.
        if process.returncode < 0:
            processes.sweep(self.root)

    def set_faults(self, name: str, faults: Mapping[str, Any]) -> None:
        """Give the running board ``name`` other faults (all of them: an empty mapping heals it).

        Those of the line count from the next connection on, those of the device from the next program on.
        """
        check_faults(name, faults)
        self._command(name, "faults", faults=dict(faults))

    def cut(self, name: str) -> None:
        """Reset all connections to the board ``name``; programs on it go on, as after a pulled cable."""
        self._command(name, "cut")

    def power_off(self, name: str) -> None:
        """Switch ``name`` off: its programs are killed, its port refuses, its disk stays as it is."""
        self._command(name, "power_off")

    def power_on(self, name: str) -> None:
        """Switch the board ``name`` on again, at the same port."""
        self._command(name, "power_on")

    def _command(self, name: str, action: str, **arguments: Any) -> None:
        if name not in (board.name for board in self.boards):
            raise SimulationError(f"there is no simulated board {name!r}")
        if self._process is None:
            raise SimulationError(f"the boards below {self.root} are not running: start them first")
        self._ask({"do": action, "board": name, **arguments}, _ANSWER_SECONDS)

    def _ask(self, message: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send one line to the server and return its answer. Raises SimulationError, also when none comes."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with self._talk:
            # A read of a pipe has no time limit of its own; without the server it comes to its end.
            watchdog = threading.Timer(seconds, process.kill)
            watchdog.daemon = True
            watchdog.start()
            try:
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            finally:
                watchdog.cancel()
        if not line:
            raise SimulationError(f"the boards' server ended unexpectedly: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SimulationError(answer["error"])
        return answer

    def _last_words(self) -> str:
        log = shared(self.root) / "server.log"
        text = log.read_text(errors="replace").strip() if os.path.exists(log) else ""
        return f"{text.splitlines()[-1]} (more in {log})" if text else f"it said nothing (see {log})"
