"""Reads what ``npu-smi info`` prints: the table of chips, and the field lists of ``info -t``.

The table's columns move from version to version (drivers 21.0, 22.0, 23.0, 24.1, 25.2; boards and cards), and
wide values push them further. So nothing is read by columns: a row is cut at ``|`` and its cells at
whitespace. Layouts: hiascend.com (npusmi_007 of the 200I A2, 015 of the 300I Pro) and outputs in public logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

HEALTH = ("OK", "Warning", "Alarm", "Critical", "Offline", "UNKNOWN")

_VERSION = re.compile(r"npu-smi\s+(\S+)\s+Version:\s*(\S+)", re.IGNORECASE)
# "14541/ 15610" is printed as well as "14541 / 15610".
_PAIR = re.compile(r"(\d+)\s*/\s*(\d+)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?\Z")
_BUS = re.compile(r"(?:[0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]\Z")
_MISSING = ("NA", "N/A", "-", "--")


@dataclass(frozen=True)
class Chip:
    """One chip of the table. None where the tool prints NA or the layout has no such column.

    ``power`` in W, ``temperature`` in °C, ``memory`` and ``hbm`` (used, total) in MB, ``hugepages`` (used,
    total) in pages of 2048 KB.
    """

    npu: int
    chip: int
    name: str
    health: str
    bus: str = ""
    power: float | None = None
    temperature: float | None = None
    aicore: float | None = None
    memory: tuple[int, int] | None = None
    hbm: tuple[int, int] | None = None
    hugepages: tuple[int, int] | None = None

    @property
    def soc_version(self) -> str:
        """What atc's ``--soc_version`` wants: "Ascend" and the name."""
        return f"Ascend{self.name}"

    @property
    def device_memory(self) -> tuple[int, int] | None:
        """(used, total) MB of the memory that models live in: HBM where there is some."""
        return self.hbm if self.hbm and self.hbm[1] else self.memory


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    npu: int
    chip: int
    pid: int
    name: str
    memory: int | None


@dataclass(frozen=True)
class Table:
    """What ``npu-smi info`` shows. ``version`` is the tool's own, which is the driver's."""

    version: str
    chips: tuple[Chip, ...]
    processes: tuple[Process, ...] = ()


def parse_table(text: str) -> Table:
    """Read the table of ``npu-smi info``. Lines that are no part of it are passed over; never raises."""
    match = _VERSION.search(text)
    version = match.group(2) if match else ""
    chips: list[Chip] = []
    processes: list[Process] = []
    upper: list[str] | None = None
    in_processes = False
    for cells in _rows(text):
        if any(cell.startswith("Process id") for cell in cells):
            in_processes, upper = True, None
        elif in_processes:
            process = _process(cells)
            if process:
                processes.append(process)
        elif len(cells) == 3 and re.match(r"\d+(\s+\S|\Z)", cells[0]):
            if upper is None and _is_upper(cells):
                upper = cells
            elif upper is not None:
                chips.append(_chip(upper, cells))
                upper = None
    return Table(version, tuple(chips), tuple(processes))


def _rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def _is_upper(cells: list[str]) -> bool:
    """The first of a chip's two lines: its health stands where the second has the bus address."""
    words = cells[0].split()
    health = cells[1].split()
    return len(words) >= 2 and bool(health) and health[0].upper() in {word.upper() for word in HEALTH}


def _chip(upper: list[str], lower: list[str]) -> Chip:
    npu, name = upper[0].split(None, 1)
    first = upper[2].split()
    pages = _PAIR.findall(upper[2])
    usages = _PAIR.findall(lower[2])
    pairs = [(int(used), int(total)) for used, total in usages]
    return Chip(
        npu=int(npu),
        chip=int(lower[0].split()[0]),
        name=" ".join(name.split()),
        health=next(word for word in HEALTH if word.upper() == upper[1].split()[0].upper()),
        bus=lower[1] if _BUS.match(lower[1]) else "",
        power=_number(first, 0),
        temperature=_number(first, 1),
        aicore=_number(lower[2].split(), 0),
        memory=pairs[0] if pairs else None,
        hbm=pairs[1] if len(pairs) > 1 else None,
        hugepages=(int(pages[0][0]), int(pages[0][1])) if pages else None,
    )


def _number(words: list[str], index: int) -> float | None:
    if index >= len(words) or words[index].upper() in _MISSING or not _NUMBER.match(words[index]):
        return None
    return float(words[index])


def _process(cells: list[str]) -> Process | None:
    """A line of the process table, or None for a heading and for "No running processes found"."""
    if len(cells) != 4:
        return None
    where = cells[0].split()
    if len(where) != 2 or not all(word.isdecimal() for word in (*where, cells[1])):
        return None
    memory = cells[3].split()
    return Process(
        int(where[0]), int(where[1]), int(cells[1]), cells[2],
        int(memory[0]) if memory and memory[0].isdecimal() else None,
    )  # fmt: skip


def parse_fields(text: str) -> list[dict[str, str]]:
    """Read the ``label : value`` lists of ``info -l`` and ``info -t``: one dict for each block.

    Blocks are parted by empty lines; a label that comes again begins a new one too.
    """
    blocks: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        if not line.strip():
            if blocks[-1]:
                blocks.append({})
            continue
        label, colon, value = line.partition(" :")
        if not colon:
            label, colon, value = line.partition(":")
        label = " ".join(label.split())
        if not colon or not label:
            continue
        if label in blocks[-1]:
            blocks.append({})
        blocks[-1][label] = value.strip()
    return [block for block in blocks if block]


def field(text: str, *labels: str) -> str:
    """The first value among the fields with one of ``labels``, or ""; NA counts as none."""
    for block in parse_fields(text):
        for label in labels:
            value = block.get(label, "")
            if value and value.upper() not in _MISSING:
                return value
    return ""
