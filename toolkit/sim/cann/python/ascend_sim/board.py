"""The board that the simulated tools believe they are on.

Its description is a JSON file named by the environment variable ``ASCEND_SIM_BOARD``; without it, an
Atlas 200 DK (Ascend310, RC mode, 8 GB). Keys that are missing take that board's values.
"""

import json
import os
import re
import tempfile
from typing import Any, Dict, List, Mapping, Optional, Tuple

VARIABLE = "ASCEND_SIM_BOARD"
MIB = 1024 * 1024

_DEFAULTS = {
    "name": "sim",
    "product": "Atlas 200 DK",
    "soc_version": "Ascend310",
    "npu_name": "310",
    "chips": 1,
    "run_mode": "RC",
    "memory_mb": 8192,
    "arch": "aarch64",
    "cann_version": "5.0.4",
    "driver_version": "21.0.4",
    "groups": ["HwHiAiUser"],
    "user": "HwHiAiUser",
    "state_dir": "",
    "toolkit": True,
    "faults": {},
}  # type: Dict[str, Any]

# Until 2021 CANN counted years (20.0, 20.1, 20.2, 21.0.x) like the drivers still do; 5.0 followed on 20.2.
_YEARS = {20: 3, 21: 5, 22: 6, 23: 7, 24: 8, 25: 8}
_STAGES = {"ALPHA": -3, "BETA": -2, "RC": -1, "SPC": 1, "T": -3, "B": -4}


def version_key(version: str) -> Tuple[int, ...]:
    """Order CANN versions: ``20.1 < 5.0.3 < 6.0.RC1 < 6.0.0 < 8.0.RC3.beta1 < 8.0.RC3 < 8.0.0 < 9.0.0``."""
    numbers = []  # type: List[int]
    stages = []  # type: List[int]
    for part in re.split(r"[.\-_+]", version.strip()):
        match = re.match(r"^([A-Za-z]*)(\d*)$", part)
        word, digits = (match.group(1).upper(), match.group(2)) if match else ("", "")
        if word.startswith("V") and not numbers:
            word = ""
        if not word and digits and not stages:
            numbers.append(int(digits))
        elif word in _STAGES:
            stages += [_STAGES[word], int(digits or 0)]
    numbers = (numbers + [0, 0, 0])[:3]
    numbers[0] = _YEARS.get(numbers[0], numbers[0])
    return tuple(numbers + (stages + [0, 0, 0, 0])[:4])


class Board:
    """One simulated board; the attributes are the keys of its description.

    ``memory_mb`` is what each chip has after the fault of the same name, if that is set, took its share.
    """

    def __init__(self, description: Optional[Dict[str, Any]] = None) -> None:
        values = dict(_DEFAULTS)
        values.update(description or {})
        self.name = str(values["name"])
        self.product = str(values["product"])
        self.soc_version = str(values["soc_version"])
        self.npu_name = str(values["npu_name"])
        self.chips = int(values["chips"])
        self.run_mode = str(values["run_mode"]).upper()
        if self.run_mode not in ("RC", "EP"):
            raise ValueError("board {}: run_mode is {!r}, not RC or EP".format(self.name, values["run_mode"]))
        self.faults = dict(values["faults"] or {})
        self.memory_mb = int(values["memory_mb"])
        if self.faults.get("memory_mb") is not None:
            self.memory_mb = min(self.memory_mb, int(self.faults["memory_mb"]))
        self.arch = str(values["arch"])
        self.cann_version = str(values["cann_version"])
        self.driver_version = str(values["driver_version"])
        self.groups = [str(group) for group in values["groups"]]
        self.user = str(values["user"])
        self.toolkit = bool(values["toolkit"])
        self.state_dir = str(values["state_dir"] or "") or _default_state_dir()

    @property
    def memory_bytes(self) -> int:
        """Device memory of one chip, in bytes."""
        return self.memory_mb * MIB

    @property
    def system_memory_mb(self) -> int:
        """What the system itself holds of one chip's memory, in MB: the chip's own, and on RC boards all of the
        operating system. Shares as in outputs of npu-smi that users published."""
        for name, rc, ep in _SYSTEM_SHARES:
            if self.npu_name.startswith(name):
                return int(self.memory_mb * (rc if self.is_rc else ep))
        return int(self.memory_mb * 0.05)

    @property
    def may_use_device(self) -> bool:
        """Whether /dev/davinci* would open: the user is root or in the group HwHiAiUser, and no fault
        forbids it."""
        if self.faults.get("no_permission"):
            return False
        return self.user == "root" or "HwHiAiUser" in self.groups

    @property
    def is_rc(self) -> bool:
        """Root-complex mode: programs run on the chip's own CPU cores and share its memory."""
        return self.run_mode == "RC"

    def cann_at_least(self, version: str) -> bool:
        """Whether the CANN on this board is ``version`` or newer."""
        return version_key(self.cann_version) >= version_key(version)


# Beginning of npu_name, share on RC boards, share on cards.
_SYSTEM_SHARES = (("310B1", 0.0886, 0.0886), ("310B", 0.62, 0.3), ("310P", 0.05, 0.05), ("310", 0.65, 0.33))

_board = None  # type: Optional[Board]


def log_folder(board: Board, environment: Mapping[str, str], kind: str = "debug") -> str:
    """Return the folder of a process's log of ``kind`` (debug, run, security), "" where there is no home.

    ``$HOME/ascend/log/plog`` up to CANN 5.0, ``…/log/<kind>/plog`` from 5.1 on (log reference of each);
    ASCEND_PROCESS_LOG_PATH stands for the part before ``plog``.
    """
    root = environment.get("ASCEND_PROCESS_LOG_PATH", "")
    if not root and not environment.get("HOME"):
        return ""
    root = root or os.path.join(environment["HOME"], "ascend", "log")
    return os.path.join(root, *([kind, "plog"] if board.cann_at_least("5.1.RC1") else ["plog"]))


def load() -> Board:
    """Return this process's board, read once.

    Raises ValueError naming the file when the description cannot be read.
    """
    global _board
    if _board is None:
        path = os.environ.get(VARIABLE, "")
        if not path:
            _board = Board()
        else:
            try:
                with open(path, encoding="utf-8") as stream:
                    description = json.load(stream)
                if not isinstance(description, dict):
                    raise ValueError("not a JSON object")
                _board = Board(description)
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise ValueError("{}={}: {}".format(VARIABLE, path, error))
    return _board


def _default_state_dir() -> str:
    return os.path.join(
        tempfile.gettempdir(), "ascend-sim-{}".format(os.getuid() if hasattr(os, "getuid") else 0)
    )
