"""What npu-smi shows about a simulated board: the state of its chips, and the field lists of ``info -t``.

Which fields there are and how they are called depends on the chip's generation, as in the driver kit's
npu-smi (``print_npu_card_info``, ``print_chip_usages_info`` and their neighbours). Values come from the
board's description and its faults; chips are idle.
"""

import hashlib
import re
from typing import List, NamedTuple, Optional, Tuple

from . import board as boards

_FIRMWARE = ((25, "7.7.0.6.236"), (24, "7.3.0.1.231"), (23, "7.0.0.5.242"), (22, "1.84.15.1.310"))
_ERRORS = {
    "Warning": (
        "80E18401",
        "node type=SOC, sensor type=Temperature, event state=Non-critical over temperature",
    ),
    "Alarm": ("80E3A203", "node type=SOC, sensor type=Current, event state=Sensor abnormal"),
    "Critical": ("80E1800F", "node type=SOC, sensor type=Heartbeat, event state=Heartbeat lost"),
}


class Chip(NamedTuple):
    """What one chip shows. ``power`` is None where the tool prints NA; pages and memory are (used, total)."""

    number: int
    bus: str
    name: str
    health: str
    power: Optional[float]
    temperature: int
    hugepages: Tuple[int, int]
    memory: Tuple[int, int]


def driver(board: boards.Board) -> Tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", board.driver_version)[:3])


def family(board: boards.Board) -> str:
    """Return 310, 310B, 310P or 910: what decides which fields there are."""
    match = re.match(r"310[BP]?|910", board.npu_name)
    return match.group() if match else board.npu_name


def chips(board: boards.Board) -> List[Chip]:
    """Return the state of the board's chips: idle, but for the faults that its description sets."""
    kind = family(board)
    health = str(board.faults.get("health", "OK"))
    default = {"310": (12.8, 58), "310B": (7.7, 54), "310P": (15.8, 42)}
    power, temperature = default.get(kind, (91.8, 44))
    if board.npu_name.startswith("310B1"):
        power, temperature = 10.4, 66
    watts = power  # type: Optional[float]
    if kind == "310P" and driver(board) >= (24,):
        watts = None
    elif kind == "310B" and health == "Alarm":
        # The alarm usually is the current sensor's own.
        watts = 0.0
    pages = {"310B": (15, 15)}.get(kind, (0, 187) if board.is_rc else (0, 0))
    degrees = int(board.faults.get("temperature", temperature))
    memory = (board.system_memory_mb, board.memory_mb)
    return [
        Chip(
            number,
            "NA" if board.is_rc else "0000:{:02X}:00.0".format(number + 1),
            board.npu_name, health, watts, degrees, pages, memory,
        )
        for number in range(board.chips)
    ]  # fmt: skip


def field(label: str, value: object) -> str:
    return "\t{:<30} : {}".format(label, value)


def serial(board: boards.Board) -> str:
    """Return a serial number in the maker's form that is always the same for a board of this name."""
    digits = hashlib.sha256(board.name.encode("utf-8")).hexdigest().upper()
    return "033" + "".join(char for char in digits if char.isalnum())[:13]


def product(board: boards.Board) -> str:
    """Return the product's name; the first generation of RC boards has none in its electronic label."""
    return "NA" if board.is_rc and family(board) == "310" else board.product


def _firmware(board: boards.Board) -> str:
    generation = (driver(board) or (0,))[0]
    return next((version for lowest, version in _FIRMWARE if generation >= lowest), "1.79.22.4.220")


def card_board(board: boards.Board) -> List[str]:
    old = family(board) in ("310", "310B")
    lines = [
        field("NPU ID", 0),
        field("Product Name", product(board)),
        field("Model", "NA"),
        field("Manufacturer", "NA"),
        field("Serial Number", serial(board)),
        field("Software Version", board.driver_version),
        field("Firmware Version", _firmware(board)),
    ]
    if not board.is_rc and not old and driver(board) >= (23,):
        lines.append(field("Compatibility", "OK" if board.user == "root" else "NOT SUPPORT"))
    lines += [
        field("Board ID", "0x3ec" if board.is_rc else "0x64"),
        field("PCB ID", "NA" if board.is_rc else "A"),
    ]
    lines.append(field("BOM ID", 0 if board.is_rc else 1))
    if not board.is_rc:
        lines += [
            field("PCIe Bus Info", chips(board)[0].bus),
            field("Slot ID", 0),
            field("Class ID", "NA"),
        ]
        lines += [field("PCI Vendor ID", "0x19E5"), field("PCI Device ID", "0xD100" if old else "0xD500")]
        lines += [field("Subsystem Vendor ID", "0x0200"), field("Subsystem Device ID", "0x0100")]
    lines.append(field("Chip Count", board.chips))
    lines.append(field("Faulty Chip Count" if old else "Chip Fault", 0))
    return lines


def chip_board(board: boards.Board, chip: Chip) -> List[str]:
    kind = family(board)
    die = hashlib.sha256("{}/{}".format(board.name, chip.number).encode("utf-8")).hexdigest().upper()
    words = " ".join(die[index : index + 8] for index in range(0, 40, 8))
    lines = [
        field("NPU ID", 0),
        field("Chip ID", chip.number),
        field("Chip Type", "Ascend"),
        field("Chip Name", board.npu_name),
        field("Chip Version", "V1"),
        field("Board ID", "0x3ec" if board.is_rc else "0x64"),
    ]
    if kind == "310P":
        lines.append(field("Die ID", words))
    else:
        lines += [field("PCB ID", "NA"), field("BOM ID", 0 if board.is_rc else 1)]
        lines.append(field("Die ID", "V1, " + words))
    if not board.is_rc:
        lines += [field("Chip Position ID", chip.number), field("PCIe Bus Info", chip.bus)]
        lines.append(field("Firmware Version", _firmware(board)))
    return lines


def _percent(pair: Tuple[int, int]) -> int:
    return pair[0] * 100 // pair[1] if pair[1] else 0


def _watts(chip: Chip) -> str:
    return "{:.1f}".format(chip.power if chip.power is not None else 15.8)


def common(board: boards.Board, state: List[Chip]) -> List[str]:
    kind = family(board)
    lines = [field("NPU ID", 0), field("Chip Count", board.chips)]
    for chip in state:
        lines += ["", field("Chip ID", chip.number), field("Memory Usage Rate(%)", _percent(chip.memory))]
        lines.append(field("Aicore Usage Rate(%)", 0))
        if kind == "310P":
            lines += [field("Aicore Freq(MHZ)", 1080), field("Aicore curFreq(MHZ)", 960)]
        lines.append(field("Temperature(C)", chip.temperature))
        if kind != "310P":
            lines.append(field("Rated Power Dissipation(W)", _watts(chip)))
    return lines


def _health(board: boards.Board, chip: Chip) -> List[str]:
    code, information = _ERRORS.get(chip.health, ("NA", "NA"))
    return [
        field("Health Status", chip.health),
        field("Error Code", code),
        field("Error Information", information),
    ]


def _usages(board: boards.Board, chip: Chip) -> List[str]:
    kind = family(board)
    prefix, pages = ("DDR", "DDR Hugepages") if kind == "310P" else ("Memory", "Hugepages")
    lines = [
        field(prefix + " Capacity(MB)", chip.memory[1]),
        field(prefix + " Usage Rate(%)", _percent(chip.memory)),
        field(pages + " Total(page)", chip.hugepages[1]),
        field(pages + " Usage Rate(%)", _percent(chip.hugepages)),
        field("Aicore Usage Rate(%)", 0),
        field("Aicpu Usage Rate(%)", 0),
        field("Ctrlcpu Usage Rate(%)", 2),
    ]
    if kind == "310P":
        lines.append(field("Vectorcore Usage Rate(%)", 0))
    lines.append(field(prefix + " Bandwidth Usage Rate(%)", 0))
    return lines


def _memory(board: boards.Board, chip: Chip) -> List[str]:
    kind = family(board)
    if kind == "310P":
        capacity = [
            field("Total DDR Capacity(MB)", chip.memory[1]),
            field("DDR Capacity(MB)", chip.memory[1]),
        ]
        return capacity + [field("DDR Clock Speed(MHz)", 4266)]
    total = [field("Total Capacity(MB)", chip.memory[1])] if kind == "310B" else []
    return total + [field("Capacity(MB)", chip.memory[1]), field("Clock Speed(MHz)", 1600)]


def _temperature(board: boards.Board, chip: Chip) -> List[str]:
    return [field("Temperature (C)", chip.temperature)]


def _power(board: boards.Board, chip: Chip) -> List[str]:
    if family(board) == "310P":
        return [field("NPU Real-time Power(W)", _watts(chip))]
    return [field("Power Dissipation(W)", _watts(chip))]


def _process_memory(board: boards.Board, chip: Chip) -> List[str]:
    return ["\tNo process in device."]


TYPES = {
    "health": _health,
    "usages": _usages,
    "memory": _memory,
    "temp": _temperature,
    "power": _power,
    "proc-mem": _process_memory,
}  # type: Dict[str, Callable[[boards.Board, Chip], List[str]]]
