"""The simulated npu-smi: ``python -m ascend_sim.npu_smi info ...``.

Tables and field lists follow the driver kit's own source (npu-smi, ``print_total_info`` and its neighbours)
for driver 22.0.4 and later, and outputs that users published for 21.0.x and 22.0.0 to 22.0.3. Values come
from the board's description and its faults. There are no processes in the process table: a simulated chip
does not know who uses it.
"""

import hashlib
import re
import sys
from typing import Dict, List, NamedTuple, Optional, Tuple

from . import board as boards

# DCMI's error numbers; the shell sees the lowest byte.
INVALID_PARAMETER, DEVICE_NOT_READY, NOT_SUPPORTED = -8001, -8005, -8255

_MAIN_HELP = """\
Usage: npu-smi <Command|-h|-v> [Options...]

Commands:
       -h, --help     This command's help information
       -v             Show npu-smi version information
       info           Show hardware details
       set            Modify device configuration properties
       clear          Clear device information
       upgrade        Upgrade MCU software version
"""
_INFO_HELP = """\
Usage: npu-smi info <watch|proc|-h|-m|-l|-t type> [Options...]

Commands:
       watch          Show all device's status in scrolling format
       proc           Show device's matrix process status in scrolling format
       -h, --help     Show this help text and exit
       -m             Show all device's mapping information
       -l             Show all device's topology information
       -t type        Show information for type
                      type: board, flash, memory, usages, sensors, temp, power, volt, mac-addr,
                            common, health, product, ecc, ip, sys-time, i2c_check, work-mode,
                            ecc-enable, p2p-enable, ssh-enable, license, customized-info,
                            device-share, nve-level, aicpu-config, pcie-err, mcu-monitor,
                            err-count, boot-area, vnpu-mode, info-vnpu, vnpu-svm, cpu-num-cfg,
                            first-power-on-date, proc-mem, phyid-remap, vnpu-cfg-recover, key-manage,
                            template-info, pkcs-enable, p2p-mem-cfg, pwm-mode, pwm-duty-ratio, boot-select

Options:
       -i %d          Card ID
       -c %d          Chip ID
       -p %d          Chip Physical ID
"""
_KNOWN_TYPES = set(re.findall(r"[a-z0-9_-]+", _INFO_HELP.split("type: ")[1].split("Options")[0]))
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


class UsageError(Exception):
    """Wrong arguments; the text goes to stdout, ``code`` is DCMI's number."""

    def __init__(self, text: str, code: int = INVALID_PARAMETER) -> None:
        self.code = code
        super().__init__(text)


def main(argv: List[str]) -> int:
    """Run npu-smi with ``argv`` (without the program's name); return the exit status."""
    board = boards.load()
    try:
        _dispatch(argv, board)
    except UsageError as problem:
        _say(str(problem))
        return problem.code & 0xFF
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _dispatch(argv: List[str], board: boards.Board) -> None:
    if not argv:
        raise UsageError(_MAIN_HELP)
    command, rest = argv[0], argv[1:]
    if command in ("-h", "--help"):
        _say(_MAIN_HELP)
    elif command == "-v":
        _say("npu-smi version: {}".format(board.driver_version))
    elif command == "info":
        _info(rest, board)
    elif command in ("set", "clear", "upgrade"):
        raise UsageError("This device does not support {}.".format(command), NOT_SUPPORTED)
    else:
        raise UsageError("Error parameter of {}\n{}".format(command, _MAIN_HELP))


def _info(argv: List[str], board: boards.Board) -> None:
    if argv and argv[0] in ("-h", "--help"):
        _say(_INFO_HELP)
        return
    if argv and argv[0] in ("watch", "proc"):
        raise UsageError("This device does not support querying {}.".format(argv[0]), NOT_SUPPORTED)
    options = _options(argv)
    if not board.may_use_device:
        raise UsageError(
            "dcmi module initialize failed. ret is {}".format(DEVICE_NOT_READY), DEVICE_NOT_READY
        )
    if not options:
        _say(table(board))
    elif "-l" in options:
        _say(_list(board))
    elif "-m" in options:
        _say(_mapping(board))
    elif "-t" in options:
        _say(_typed(options, board))
    else:
        # -i or -c without -t say nothing about what to show.
        raise UsageError(_INFO_HELP)


def _options(argv: List[str]) -> Dict[str, str]:
    options = {}  # type: Dict[str, str]
    position = 0
    while position < len(argv):
        flag = argv[position]
        if flag in ("-l", "-m"):
            options[flag] = ""
        elif flag in ("-t", "-i", "-c", "-p") and position + 1 < len(argv):
            position += 1
            options[flag] = argv[position]
        else:
            raise UsageError("Error parameter of {}\n{}".format(flag, _INFO_HELP))
        position += 1
    for flag in ("-i", "-c", "-p"):
        if flag in options and not options[flag].isdigit():
            raise UsageError("Error parameter of {}\n{}".format(flag, _INFO_HELP))
    return options


def _driver(board: boards.Board) -> Tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", board.driver_version)[:3])


def _family(board: boards.Board) -> str:
    """Return 310, 310B or 310P: what decides which fields there are."""
    match = re.match(r"310[BP]?", board.npu_name)
    return match.group() if match else board.npu_name


def chips(board: boards.Board) -> List[Chip]:
    """Return the state of the board's chips: idle, but for the faults that its description sets."""
    family = _family(board)
    health = str(board.faults.get("health", "OK"))
    default = {"310": (12.8, 58, 0.33), "310B": (7.7, 54, 0.3), "310P": (15.8, 42, 0.05)}
    power, temperature, used = default.get(family, (65.8, 45, 0.05))  # type: Any
    if board.is_rc:
        # On such boards the operating system lives in the same memory.
        used = {"310": 0.65, "310B": 0.62}.get(family, used)
    watts = power  # type: Optional[float]
    if family == "310P" and _driver(board) >= (24,):
        watts = None
    elif family == "310B" and health == "Alarm":
        # The alarm usually is the current sensor's own.
        watts = 0.0
    pages = {"310B": (15, 15)}.get(family, (0, 187) if board.is_rc else (0, 0))
    degrees = int(board.faults.get("temperature", temperature))
    memory = (int(board.memory_mb * used), board.memory_mb)
    return [
        Chip(
            number,
            "NA" if board.is_rc else "0000:{:02X}:00.0".format(number + 1),
            board.npu_name, health, watts, degrees, pages, memory,
        )
        for number in range(board.chips)
    ]  # fmt: skip


def table(board: boards.Board) -> str:
    """Return what ``npu-smi info`` prints."""
    driver = _driver(board)
    hugepages = driver >= (22,)
    wide = driver >= (22, 0, 4)
    first, third = (22 if wide else 10), (54 if hugepages else 40)
    widths = (first + 9, 17, third)
    rule = "+" + "+".join("-" * width for width in widths) + "+"
    double = rule.replace("-", "=")
    version = board.driver_version
    title = "npu-smi {:<{}} Version: {}".format(version, 40 if wide else 28, version)
    inside = sum(widths) + 2
    lines = [
        "+" + "-" * inside + "+",
        "| {:<{}}|".format(title, inside - 1),
        rule,
    ]
    name = "Name".ljust(first)
    device = "Device".ljust(first)
    if hugepages:
        lines.append(
            "| NPU     {}| Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |".format(
                name
            )
        )
        lines.append(
            "| Chip    {}| Bus-Id          | AICore(%)    {:<40}|".format(device, "Memory-Usage(MB)")
        )
    else:
        lines.append("| NPU     {}| Health          | Power(W)          Temp(C)              |".format(name))
        lines.append(
            "| Chip    {}| Bus-Id          | AICore(%)         Memory-Usage(MB)     |".format(device)
        )
    lines.append(double)
    state = chips(board)
    for chip in state:
        power = "NA" if chip.power is None else "{:.1f}".format(chip.power)
        lines.append(
            "| {:<7} {:<{}}| {:<15} | {}|".format(
                0, chip.name, first, chip.health, _upper(chip, power, third, wide)
            )
        )
        lines.append(
            "| {:<7} {:<{}}| {:<15} | {}|".format(
                chip.number, chip.number, first, chip.bus, _lower(chip, third)
            )
        )
        lines.append(double if chip is state[-1] else rule)
    if hugepages and not board.is_rc and _family(board) in ("310", "310P"):
        lines += _processes(first, rule, double)
    return "\n".join(lines)


def _upper(chip: Chip, power: str, width: int, wide: bool) -> str:
    if width == 40:
        return "{:<17} {:<21}".format(power, chip.temperature)
    used, total = chip.hugepages
    pages = "{:<6}/ {:<14}".format(used, total) if wide else "{:<5}/ {:<15}".format(used, total)
    return "{:<12} {:<17} {}".format(power, chip.temperature, pages)


def _lower(chip: Chip, width: int) -> str:
    used, total = chip.memory
    if width == 40:
        return "{:<17} {:<21}".format(0, "{} / {}".format(used, total))
    return "{:<12} {:<5}/ {:<33}".format(0, used, total)


def _processes(first: int, rule: str, double: str) -> List[str]:
    inside = len(rule) - 2
    return [
        rule,
        "| NPU     {}| Process id      | Process name             | Process memory(MB)        |".format(
            "Chip".ljust(first)
        ),
        double,
        "| {:<{}}|".format("No running processes found in NPU 0", inside - 1),
        double,
    ]


def _field(label: str, value: object) -> str:
    return "\t{:<30} : {}".format(label, value)


def _serial(board: boards.Board) -> str:
    """Return a serial number in the maker's form that is always the same for a board of this name."""
    digits = hashlib.sha256(board.name.encode("utf-8")).hexdigest().upper()
    return "033" + "".join(char for char in digits if char.isalnum())[:13]


def _product(board: boards.Board) -> str:
    """Return the product's name; the first generation of RC boards has none in its electronic label."""
    return "NA" if board.is_rc and _family(board) == "310" else board.product


def _firmware(board: boards.Board) -> str:
    generation = (_driver(board) or (0,))[0]
    return next((version for lowest, version in _FIRMWARE if generation >= lowest), "1.79.22.4.220")


def _list(board: boards.Board) -> str:
    return "\n".join(
        [
            _field("Card Count", 1),
            "",
            _field("NPU ID", 0),
            _field("Product Name", _product(board)),
            _field("Serial Number", _serial(board)),
            _field("Chip Count", board.chips),
        ]
    )


def _mapping(board: boards.Board) -> str:
    rows = [("NPU ID", "Chip ID", "Chip Logic ID", "Chip Name")]  # type: List[Tuple[object, ...]]
    rows += [(0, number, number, "Ascend {}".format(board.npu_name)) for number in range(board.chips)]
    if not board.is_rc:
        # Cards have a management controller that counts as one more chip.
        rows.append((0, board.chips, "-", "Mcu"))
    return "\n".join("\t" + " ".join("{!s:<30}".format(cell) for cell in row) for row in rows)


def _typed(options: Dict[str, str], board: boards.Board) -> str:
    kind = options["-t"]
    if kind not in _KNOWN_TYPES:
        raise UsageError("Error parameter of -t\n{}".format(_INFO_HELP))
    if kind not in _TYPES and kind not in ("board", "product", "common"):
        raise UsageError("This device does not support querying {}.".format(kind), NOT_SUPPORTED)
    if "-i" not in options:
        raise UsageError("Error parameter of -i\n{}".format(_INFO_HELP))
    if int(options["-i"]) != 0:
        raise UsageError("Error parameter of -i: card {} does not exist.".format(options["-i"]))
    state = chips(board)
    chosen = None  # type: Optional[Chip]
    if "-c" in options:
        if int(options["-c"]) >= len(state):
            raise UsageError("Error parameter of -c: chip {} does not exist.".format(options["-c"]))
        chosen = state[int(options["-c"])]
    if kind == "board":
        return "\n".join(_chip_board(board, chosen) if chosen else _card_board(board))
    if kind == "product":
        return _field("Product Type", board.product)
    if kind == "common":
        return "\n".join(_common(board, [chosen] if chosen else state))
    fields = _TYPES[kind]
    if chosen:
        return "\n".join(fields(board, chosen))
    lines = [_field("NPU ID", 0), _field("Chip Count", board.chips)]
    for chip in state:
        lines += [""] + fields(board, chip) + [_field("Chip ID", chip.number)]
    return "\n".join(lines)


def _card_board(board: boards.Board) -> List[str]:
    old = _family(board) in ("310", "310B")
    lines = [
        _field("NPU ID", 0),
        _field("Product Name", _product(board)),
        _field("Model", "NA"),
        _field("Manufacturer", "NA"),
        _field("Serial Number", _serial(board)),
        _field("Software Version", board.driver_version),
        _field("Firmware Version", _firmware(board)),
    ]
    if not board.is_rc and not old and _driver(board) >= (23,):
        lines.append(_field("Compatibility", "OK" if board.user == "root" else "NOT SUPPORT"))
    lines += [
        _field("Board ID", "0x3ec" if board.is_rc else "0x64"),
        _field("PCB ID", "NA" if board.is_rc else "A"),
    ]
    lines.append(_field("BOM ID", 0 if board.is_rc else 1))
    if not board.is_rc:
        lines += [
            _field("PCIe Bus Info", chips(board)[0].bus),
            _field("Slot ID", 0),
            _field("Class ID", "NA"),
        ]
        lines += [_field("PCI Vendor ID", "0x19E5"), _field("PCI Device ID", "0xD100" if old else "0xD500")]
        lines += [_field("Subsystem Vendor ID", "0x0200"), _field("Subsystem Device ID", "0x0100")]
    lines.append(_field("Chip Count", board.chips))
    lines.append(_field("Faulty Chip Count" if old else "Chip Fault", 0))
    return lines


def _chip_board(board: boards.Board, chip: Chip) -> List[str]:
    family = _family(board)
    die = hashlib.sha256("{}/{}".format(board.name, chip.number).encode("utf-8")).hexdigest().upper()
    words = " ".join(die[index : index + 8] for index in range(0, 40, 8))
    lines = [
        _field("NPU ID", 0),
        _field("Chip ID", chip.number),
        _field("Chip Type", "Ascend"),
        _field("Chip Name", board.npu_name),
        _field("Chip Version", "V1"),
        _field("Board ID", "0x3ec" if board.is_rc else "0x64"),
    ]
    if family == "310P":
        lines.append(_field("Die ID", words))
    else:
        lines += [_field("PCB ID", "NA"), _field("BOM ID", 0 if board.is_rc else 1)]
        lines.append(_field("Die ID", "V1, " + words))
    if not board.is_rc:
        lines += [_field("Chip Position ID", chip.number), _field("PCIe Bus Info", chip.bus)]
        lines.append(_field("Firmware Version", _firmware(board)))
    return lines


def _percent(pair: Tuple[int, int]) -> int:
    return pair[0] * 100 // pair[1] if pair[1] else 0


def _watts(chip: Chip) -> str:
    return "{:.1f}".format(chip.power if chip.power is not None else 15.8)


def _common(board: boards.Board, state: List[Chip]) -> List[str]:
    family = _family(board)
    lines = [_field("NPU ID", 0), _field("Chip Count", board.chips)]
    for chip in state:
        lines += ["", _field("Chip ID", chip.number), _field("Memory Usage Rate(%)", _percent(chip.memory))]
        lines.append(_field("Aicore Usage Rate(%)", 0))
        if family == "310P":
            lines += [_field("Aicore Freq(MHZ)", 1080), _field("Aicore curFreq(MHZ)", 960)]
        lines.append(_field("Temperature(C)", chip.temperature))
        if family != "310P":
            lines.append(_field("Rated Power Dissipation(W)", _watts(chip)))
    return lines


def _health(board: boards.Board, chip: Chip) -> List[str]:
    code, information = _ERRORS.get(chip.health, ("NA", "NA"))
    return [
        _field("Health Status", chip.health),
        _field("Error Code", code),
        _field("Error Information", information),
    ]


def _usages(board: boards.Board, chip: Chip) -> List[str]:
    family = _family(board)
    prefix, pages = ("DDR", "DDR Hugepages") if family == "310P" else ("Memory", "Hugepages")
    lines = [
        _field(prefix + " Capacity(MB)", chip.memory[1]),
        _field(prefix + " Usage Rate(%)", _percent(chip.memory)),
        _field(pages + " Total(page)", chip.hugepages[1]),
        _field(pages + " Usage Rate(%)", _percent(chip.hugepages)),
        _field("Aicore Usage Rate(%)", 0),
        _field("Aicpu Usage Rate(%)", 0),
        _field("Ctrlcpu Usage Rate(%)", 2),
    ]
    if family == "310P":
        lines.append(_field("Vectorcore Usage Rate(%)", 0))
    lines.append(_field(prefix + " Bandwidth Usage Rate(%)", 0))
    return lines


def _memory(board: boards.Board, chip: Chip) -> List[str]:
    family = _family(board)
    if family == "310P":
        capacity = [
            _field("Total DDR Capacity(MB)", chip.memory[1]),
            _field("DDR Capacity(MB)", chip.memory[1]),
        ]
        return capacity + [_field("DDR Clock Speed(MHz)", 4266)]
    total = [_field("Total Capacity(MB)", chip.memory[1])] if family == "310B" else []
    return total + [_field("Capacity(MB)", chip.memory[1]), _field("Clock Speed(MHz)", 1600)]


def _temperature(board: boards.Board, chip: Chip) -> List[str]:
    return [_field("Temperature (C)", chip.temperature)]


def _power(board: boards.Board, chip: Chip) -> List[str]:
    if _family(board) == "310P":
        return [_field("NPU Real-time Power(W)", _watts(chip))]
    return [_field("Power Dissipation(W)", _watts(chip))]


def _process_memory(board: boards.Board, chip: Chip) -> List[str]:
    return ["\tNo process in device."]


_TYPES = {
    "health": _health,
    "usages": _usages,
    "memory": _memory,
    "temp": _temperature,
    "power": _power,
    "proc-mem": _process_memory,
}  # type: Dict[str, Callable[[boards.Board, Chip], List[str]]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
