"""The simulated npu-smi: ``python -m ascend_sim.npu_smi info ...``.

Tables and field lists follow the driver kit's own source (npu-smi, ``print_total_info`` and its neighbours)
for driver 22.0.4 and later, and outputs that users published for 21.0.x and 22.0.0 to 22.0.3. Values come
from the board's description and its faults. There are no processes in the process table: a simulated chip
does not know who uses it.
"""

import re
import sys
from typing import Dict, List

from . import board as boards
from . import npu_fields

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


def table(board: boards.Board) -> str:
    """Return what ``npu-smi info`` prints."""
    if npu_fields.family(board) == "910":
        return _training_table(board)
    version_numbers = npu_fields.driver(board)
    hugepages = version_numbers >= (22,)
    wide = version_numbers >= (22, 0, 4)
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
    state = npu_fields.chips(board)
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
    if hugepages and not board.is_rc and npu_fields.family(board) in ("310", "310P"):
        lines += _processes(first, rule, double)
    return "\n".join(lines)


def _training_table(board: boards.Board) -> str:
    """The layout of the 910 family: HBM beside the memory, and every chip is an NPU of its own."""
    widths = (27, 15, 52)
    rule = "+" + "+".join("-" * width for width in widths) + "+"
    double, inside = rule.replace("-", "="), sum(widths) + 2
    title = "npu-smi {0:<24} Version: {0}".format(board.driver_version)
    row = "| {:<6}{:<20}| {:<14}| {:<12}{:<18}{:<21}|"
    lines = [
        "+" + "-" * inside + "+",
        "| {:<{}}|".format(title, inside - 1),
        rule,
        row.format("NPU", "Name", "Health", "Power(W)", "Temp(C)", "Hugepages-Usage(page)"),
        row.format("Chip", "", "Bus-Id", "AICore(%)", "Memory-Usage(MB)", "HBM-Usage(MB)"),
        double,
    ]
    state = npu_fields.chips(board)
    for chip in state:
        used, total = chip.memory
        pages = "{:<5}/ {}".format(*chip.hugepages)
        lines.append(row.format(chip.number, chip.name, chip.health, chip.power or 0.0, chip.temperature, pages))
        lines.append(row.format(0, "", chip.bus, 0, "0    / 0", "{:<5}/ {}".format(used, total)))
        lines.append(double)
    lines += [
        rule,
        "| {:<8}{:<18}| {:<14}| {:<25}| {:<24}|".format(
            "NPU", "Chip", "Process id", "Process name", "Process memory(MB)"
        ),
        double,
    ]
    for chip in state:
        lines.append("| {:<{}}|".format("No running processes found in NPU {}".format(chip.number), inside - 1))
        lines.append(double)
    return "\n".join(lines)


def _upper(chip: npu_fields.Chip, power: str, width: int, wide: bool) -> str:
    if width == 40:
        return "{:<17} {:<21}".format(power, chip.temperature)
    used, total = chip.hugepages
    pages = "{:<6}/ {:<14}".format(used, total) if wide else "{:<5}/ {:<15}".format(used, total)
    return "{:<12} {:<17} {}".format(power, chip.temperature, pages)


def _lower(chip: npu_fields.Chip, width: int) -> str:
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


def _list(board: boards.Board) -> str:
    apart = npu_fields.family(board) == "910"  # every chip is a card of its own
    lines = [npu_fields.field("Card Count", board.chips if apart else 1)]
    for card in range(board.chips if apart else 1):
        lines += [
            "",
            npu_fields.field("NPU ID", card),
            npu_fields.field("Product Name", npu_fields.product(board)),
            npu_fields.field("Serial Number", npu_fields.serial(board)),
            npu_fields.field("Chip Count", 1 if apart else board.chips),
        ]
    return "\n".join(lines)


def _mapping(board: boards.Board) -> str:
    rows = [("NPU ID", "Chip ID", "Chip Logic ID", "Chip Name")]  # type: List[Tuple[object, ...]]
    apart = npu_fields.family(board) == "910"
    for number in range(board.chips):
        place = (number, 0) if apart else (0, number)
        rows.append(place + (number, "Ascend {}".format(board.npu_name)))
    if apart:
        rows += [(number, 1, "-", "Mcu") for number in range(board.chips)]
    elif not board.is_rc:
        # Cards have a management controller that counts as one more chip.
        rows.append((0, board.chips, "-", "Mcu"))
    return "\n".join("\t" + " ".join("{!s:<30}".format(cell) for cell in row) for row in rows)


def _typed(options: Dict[str, str], board: boards.Board) -> str:
    kind = options["-t"]
    if kind not in _KNOWN_TYPES:
        raise UsageError("Error parameter of -t\n{}".format(_INFO_HELP))
    if kind not in npu_fields.TYPES and kind not in ("board", "product", "common"):
        raise UsageError("This device does not support querying {}.".format(kind), NOT_SUPPORTED)
    if "-i" not in options:
        raise UsageError("Error parameter of -i\n{}".format(_INFO_HELP))
    card, apart = int(options["-i"]), npu_fields.family(board) == "910"
    if card >= (board.chips if apart else 1):
        raise UsageError("Error parameter of -i: card {} does not exist.".format(options["-i"]))
    state = npu_fields.chips(board)
    if apart:
        state = [state[card]._replace(number=0)]
    chosen = None  # type: Optional[npu_fields.Chip]
    if "-c" in options:
        if int(options["-c"]) >= len(state):
            raise UsageError("Error parameter of -c: chip {} does not exist.".format(options["-c"]))
        chosen = state[int(options["-c"])]
    if kind == "board":
        return "\n".join(npu_fields.chip_board(board, chosen) if chosen else npu_fields.card_board(board))
    if kind == "product":
        return npu_fields.field("Product Type", board.product)
    if kind == "common":
        return "\n".join(npu_fields.common(board, [chosen] if chosen else state))
    fields = npu_fields.TYPES[kind]
    if chosen:
        return "\n".join(fields(board, chosen))
    lines = [npu_fields.field("NPU ID", 0), npu_fields.field("Chip Count", board.chips)]
    for chip in state:
        lines += [""] + fields(board, chip) + [npu_fields.field("Chip ID", chip.number)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
