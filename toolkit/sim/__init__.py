"""Simulated Ascend boards: an SSH server per board on 127.0.0.1, and a CANN behind it.

>>> with Simulation([SimBoard("sim-1"), SimBoard("sim-2")], Path(".boards")) as boards:
...     [(board.host, board.port, board.user) for board in boards.addresses]

The package is a stranger to the rest of the project: it knows SSH and Ascend, not what is deployed. Importing
it is cheap; asyncssh is loaded only in the subprocess that serves the boards. See docs/simulator.md.
"""

from toolkit.sim.local import run_command, shell
from toolkit.sim.simulation import Simulation
from toolkit.sim.spec import Address, SimBoard, SimulationError

__all__ = ["Address", "SimBoard", "Simulation", "SimulationError", "run_command", "shell"]
