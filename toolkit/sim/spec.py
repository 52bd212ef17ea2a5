"""What a simulated board is, and where it can be reached: plain data, and its checks."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"

#: Faults of the line and of the SSH server (this package); see toolkit/sim/line.py and docs/simulator.md.
LINE_FAULTS = {
    "refuse_connections": "the port answers with a reset",
    "no_banner": "TCP is accepted, the SSH banner never comes",
    "no_authentication": "authentication is never answered",
    "no_channel": "the request to open a channel is never answered",
    "wrong_host_key": "the server proves itself with another host key than the announced one",
    "latency_ms": "delay of each direction, in milliseconds",
    "bytes_per_second": "rate limit of each direction",
    "drop_after_bytes": "the link is reset once the client has sent so many bytes",
    "stall_after_bytes": "nothing is read any more once the client has sent so many bytes",
}

#: Faults of the device and of its driver, carried out by the programs on the board (toolkit/sim/cann).
DEVICE_FAULTS = {
    "execute_error": "acl.mdl.execute returns this code",
    "execute_error_every": "only every N-th execution of a process fails",
    "lose_device_after": "the N-th execution and all that follow find no device",
    "slow_ms": "added to each execution, in milliseconds",
    "temperature": "chip temperature that npu-smi shows, in degrees Celsius",
    "memory_mb": "device memory in MB, less than the board's",
    "health": "health that npu-smi shows: OK, Warning, Alarm or Critical",
    "no_permission": "the device nodes cannot be opened",
}

_HEALTH = ("OK", "Warning", "Alarm", "Critical")

# What each fault takes: a word for messages, and the check. None means: not set.
_SWITCHES = ("refuse_connections", "no_banner", "no_authentication", "no_channel", "wrong_host_key", "no_permission")
_NUMBERS = ("latency_ms", "bytes_per_second", "slow_ms")
_WHOLE = ("drop_after_bytes", "stall_after_bytes", "execute_error", "lose_device_after")

# A name becomes a folder's name; the root keeps what all boards share in .shared.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}\Z")


class SimulationError(Exception):
    """The boards cannot be as asked for, or did not start. One line: what, where, what to do."""


@dataclass(frozen=True)
class SimBoard:
    """One simulated board. The defaults are an Atlas 200 DK.

    ``chips`` 0 is a machine without driver and npu-smi. ``memory_mb`` is the memory of each chip in MB.
    ``npu_name`` is the Name column of npu-smi (empty: taken from ``soc_version``). ``toolkit`` false leaves
    out ATC (an nnrt-only machine). ``python`` is the interpreter behind the names in ``interpreters`` on
    this board. ``password`` None means that only the key logs in. ``port`` 0 takes any free port.
    ``faults`` has keys of LINE_FAULTS and DEVICE_FAULTS.
    """

    name: str
    product: str = "Atlas 200 DK"
    soc_version: str = "Ascend310"
    npu_name: str = ""
    chips: int = 1
    run_mode: str = "RC"
    memory_mb: int = 8192
    arch: str = "aarch64"
    cann_version: str = "5.0.4"
    driver_version: str = "21.0.4"
    user: str = "HwHiAiUser"
    password: str | None = field(default=None, repr=False)
    groups: Sequence[str] = ("HwHiAiUser",)
    toolkit: bool = True
    python: str = sys.executable
    interpreters: Sequence[str] = ("python3",)
    faults: Mapping[str, Any] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        """Check what would otherwise fail late, on the board. Raises SimulationError."""
        if not _NAME.match(self.name):
            raise SimulationError(
                f"board name {self.name!r}: use letters, digits, '.', '_', '-', a letter or digit first"
            )
        if not _USER.match(self.user):
            raise SimulationError(f"board {self.name}: {self.user!r} is not a user name")
        if self.run_mode not in ("RC", "EP"):
            raise SimulationError(f"board {self.name}: run_mode is {self.run_mode!r}, not RC or EP")
        if self.chips < 0:
            raise SimulationError(f"board {self.name}: {self.chips} chips are less than none")
        if not 0 <= self.port <= 65535:
            raise SimulationError(f"board {self.name}: port {self.port} is not within 0..65535")
        for name in self.interpreters:
            if "/" in name or name in ("", ".", ".."):
                raise SimulationError(f"board {self.name}: interpreter {name!r} is not a plain command name")
        check_faults(self.name, self.faults)

    def description(self, state_dir: Path) -> dict[str, Any]:
        """Return what the programs on the board read from the file named by ASCEND_SIM_BOARD."""
        return {
            "name": self.name,
            "product": self.product,
            "soc_version": self.soc_version,
            "npu_name": self.npu_name or self.soc_version.removeprefix("Ascend"),
            "chips": self.chips,
            "run_mode": self.run_mode,
            "memory_mb": self.memory_mb,
            "arch": self.arch,
            "cann_version": self.cann_version,
            "driver_version": self.driver_version,
            "groups": list(self.groups),
            "user": self.user,
            "state_dir": str(state_dir),
            "toolkit": self.toolkit,
            "faults": {key: value for key, value in self.faults.items() if key in DEVICE_FAULTS},
        }

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON data, the password included (it goes through a pipe only)."""
        fields = dataclasses.asdict(self)
        fields["groups"] = list(self.groups)
        fields["interpreters"] = list(self.interpreters)
        fields["faults"] = dict(self.faults)
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> SimBoard:
        """Return the board whose :meth:`to_json` gave ``fields``."""
        return cls(**fields)


@dataclass(frozen=True)
class Address:
    """Where a running board is reached: everything an SSH client must know.

    ``key_file`` is the path of the private ed25519 key that logs in, ``host_key`` the public host key in
    the form of a known_hosts line without the names ("ssh-ed25519 AAAA…"), ``home`` the board's home folder
    on this machine.
    """

    name: str
    host: str
    port: int
    user: str
    key_file: str
    host_key: str
    home: str


def check_faults(name: str, faults: Mapping[str, Any]) -> None:
    """Raise SimulationError when ``faults`` of the board ``name`` says something that nothing would carry out."""
    for key, value in faults.items():
        if key not in LINE_FAULTS and key not in DEVICE_FAULTS:
            known = ", ".join(sorted({**LINE_FAULTS, **DEVICE_FAULTS}))
            raise SimulationError(f"board {name}: there is no fault {key!r}; there are: {known}")
        wanted = None if value is None else _wrong(key, value)
        if wanted:
            raise SimulationError(f"board {name}: fault {key}: {value!r} is not {wanted}")


def _wrong(key: str, value: Any) -> str:
    """What the fault ``key`` takes, when it is not ``value``; else nothing."""
    if key in _SWITCHES:
        return "" if isinstance(value, bool) else "true or false"
    if key == "health":
        return "" if value in _HEALTH else "one of " + ", ".join(_HEALTH)
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if key in _NUMBERS:
        return "" if number and value >= 0 else "a number from 0 on"
    whole = number and value == int(value)
    if key in _WHOLE:
        return "" if whole and value >= 0 else "a whole number from 0 on"
    if key == "temperature":
        return "" if whole else "a whole number"
    return "" if whole and value >= 1 else "a whole number from 1 on"  # memory_mb, execute_error_every


def check_boards(boards: Sequence[SimBoard]) -> None:
    """Raise SimulationError for an empty list and for names or wanted ports that occur twice."""
    if not boards:
        raise SimulationError("no boards to simulate: give at least one")
    names: set[str] = set()
    ports: set[int] = set()
    for board in boards:
        # Folders on a file system that ignores case would be the same one.
        if board.name.lower() in names:
            raise SimulationError(f"two simulated boards are named {board.name}: give each its own name")
        if board.port and board.port in ports:
            raise SimulationError(f"board {board.name}: another board wants port {board.port} too")
        names.add(board.name.lower())
        ports.add(board.port)
