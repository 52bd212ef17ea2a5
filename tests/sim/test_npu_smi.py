"""The simulated npu-smi against outputs that users of real boards published, line by line.

Sources: the table of driver 21.0.3.1 on Atlas 200 DK (Ascend mindxsdk-referenceapps, styletransfer) and on
Atlas 300I (mindx cards' parser); 22.0.0 on 310P3 (Ascend ModelZoo-PyTorch READMEs); 23.0.0 on 310B4 (nputop
tests); the ``printf`` formats of the driver kit's npu-smi for the rest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from atc_support import PYTHON, boards

from ascend_sim import npu_smi  # isort: skip

DK = {"name": "dk", "driver_version": "21.0.3.1"}
AI1S = {
    "product": "Atlas 300I Model 3010",
    "chips": 4,
    "run_mode": "EP",
    "memory_mb": 7759,
    "driver_version": "22.0.4",
}
PRO = {"product": "Atlas 300I Pro", "npu_name": "310P3", "soc_version": "Ascend310P3", "run_mode": "EP",
       "memory_mb": 21534, "driver_version": "22.0.2"}  # fmt: skip
A2 = {"product": "Atlas 200I DK A2", "npu_name": "310B4", "soc_version": "Ascend310B4", "memory_mb": 15609,
      "driver_version": "23.0.0"}  # fmt: skip


class Smi:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, board: dict[str, object], *argv: str) -> list[str]:
        status, lines = self.status(board, *argv)
        assert status == 0, lines
        return lines

    def status(self, board: dict[str, object], *argv: str) -> tuple[int, list[str]]:
        self.monkeypatch.setattr(boards, "_board", boards.Board(board))
        self.capsys.readouterr()
        status = npu_smi.main(list(argv))
        return status, self.capsys.readouterr().out.splitlines()

    def fields(self, board: dict[str, object], *argv: str) -> dict[str, str]:
        """Field lists as the tool's many parsers read them; each line is a tab, a label of 30 and ``:
        value``.
        """
        found = {}
        for line in self(board, *argv):
            if line:
                match = re.fullmatch(r"\t(.{30}) : (.*)", line)
                assert match, line
                found[match.group(1).rstrip()] = match.group(2)
        return found


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Smi:
    return Smi(monkeypatch, capsys)


def same_layout(got: list[str], published: str) -> None:
    """Equal but for the digits of measured values: widths, rules, labels and columns are the same."""
    want = published.strip("\n").splitlines()
    assert [len(line) for line in got] == [len(line) for line in want]

    def skeleton(line: str) -> str:
        return re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "9", line))

    for index, (line, wanted) in enumerate(zip(got, want, strict=True)):
        assert skeleton(line) == skeleton(wanted), f"line {index}"
        assert [i for i, char in enumerate(line) if char in "|+"] == [
            i for i, char in enumerate(wanted) if char in "|+"
        ]


def test_200dk_with_driver_21(smi: Smi) -> None:
    """No huge pages, bus NA, three columns of 19, 17 and 40 characters."""
    got = smi(DK, "info")
    published = """
+------------------------------------------------------------------------------+
| npu-smi 21.0.3.1                     Version: 21.0.3.1                       |
+-------------------+-----------------+----------------------------------------+
| NPU     Name      | Health          | Power(W)          Temp(C)              |
| Chip    Device    | Bus-Id          | AICore(%)         Memory-Usage(MB)     |
+===================+=================+========================================+
| 0       310       | OK              | 12.8              58                   |
| 0       0         | NA              | 0                 5324 / 8192          |
+===================+=================+========================================+
"""
    assert got == published.strip("\n").splitlines()


def test_four_chips_a_card_with_driver_22(smi: Smi) -> None:
    """Same NPU id for all chips, dashes between chips, ``=`` after the card, then the process table."""
    got = smi(AI1S, "info")
    assert {len(line) for line in got} == {106}
    rows = [line for line in got if re.match(r"\| \d", line)]
    assert [line.split()[1:3] for line in rows[0::2]] == [["0", "310"]] * 4
    assert [(line.split()[1], line.split("|")[2].strip()) for line in rows[1::2]] == [
        (str(n), f"0000:0{n + 1}:00.0") for n in range(4)
    ]
    assert got[-5].startswith("+---")
    assert got[-4] == (
        "| NPU     Chip                  | Process id      | Process name             | Process memory(MB) "
        "       |"
    )
    assert got[-2].rstrip(" |") == "| No running processes found in NPU 0"


def test_300i_pro_with_driver_22_0(smi: Smi) -> None:
    """Columns of 19, 17 and 54 with huge pages, as ModelZoo's READMEs show them; then the process table."""
    published = """
+--------------------------------------------------------------------------------------------+
| npu-smi 22.0.2                       Version: 22.0.2                                       |
+-------------------+-----------------+------------------------------------------------------+
| NPU     Name      | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device    | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===================+=================+======================================================+
| 0       310P3     | OK              | 15.8         42                0    / 0              |
| 0       0         | 0000:82:00.0    | 0            1074 / 21534                            |
+===================+=================+======================================================+
"""
    same_layout(smi(PRO, "info")[:9], published)
    assert smi({**PRO, "driver_version": "24.1.0"}, "info")[6].split("|")[3].split()[0] == "NA"


def test_200i_dk_a2_with_its_usual_alarm(smi: Smi) -> None:
    """310B4 with Alarm and 0.0 W, no process table (nputop's test data of driver 23.0.0)."""
    published = """
+--------------------------------------------------------------------------------------------------------+
| npu-smi 23.0.0                                   Version: 23.0.0                                       |
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 0       310B4                 | Alarm           | 0.0          65                15    / 15            |
| 0       0                     | NA              | 0            3628 / 15609                            |
+===============================+=================+======================================================+
"""
    got = smi({**A2, "faults": {"health": "Alarm", "temperature": 65}}, "info")
    same_layout(got, published)
    assert got[6] == published.strip("\n").splitlines()[6]
    assert "7.7" in smi(A2, "info")[6]


def test_910b_has_hbm_and_a_number_for_every_chip(smi: Smi) -> None:
    """910B3 with driver 23.0.6 as vllm-ascend's issues show it; 24.1 and 25.5 look the same."""
    published = """
+------------------------------------------------------------------------------------------------+
| npu-smi 23.0.6                   Version: 23.0.6                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 96.0        47                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3344 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | OK            | 93.5        48                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          3342 / 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| No running processes found in NPU 0                                                            |
+===========================+===============+====================================================+
| No running processes found in NPU 1                                                            |
+===========================+===============+====================================================+
"""
    board = {"npu_name": "910B3", "soc_version": "Ascend910B3", "run_mode": "EP", "chips": 2, "memory_mb": 65536,
             "driver_version": "23.0.6"}  # fmt: skip
    got = [re.sub(r"0000:0\d", "0000:C1", line) for line in smi(board, "info")]
    same_layout(got, published.replace("0000:01", "0000:C1"))
    assert [line.split(":")[1].strip() for line in smi(board, "info", "-l") if "NPU ID" in line] == ["0", "1"]
    assert smi.fields(board, "info", "-t", "temp", "-i", "1") != {}
    assert smi.status(board, "info", "-t", "temp", "-i", "2")[0] != 0


def test_a_200i_a2_shows_what_its_document_shows(smi: Smi) -> None:
    """hiascend npusmi_007, 200I A2 with 25.2.0: 10.4 W, 66 degrees, 15 / 15 pages, 957 / 10810 MB."""
    board = {"npu_name": "310B1", "soc_version": "Ascend310B1", "memory_mb": 10810, "driver_version": "25.2.0"}
    rows = [re.findall(r"[\d.]+", line.split("|")[3]) for line in smi(board, "info")[6:8]]
    assert rows == [["10.4", "66", "15", "15"], ["0", "957", "10810"]]


def test_faults_show(smi: Smi) -> None:
    """Temperature, health and less memory come from the board's description."""
    hot = {**DK, "faults": {"temperature": 97, "health": "Warning", "memory_mb": 4096}}
    row, below = smi(hot, "info")[6:8]
    assert (row.split("|")[2].strip(), row.split()[-2]) == ("Warning", "97")
    assert below.split("/")[1].split()[0] == "4096"
    health = smi.fields(hot, "info", "-t", "health", "-i", "0", "-c", "0")
    assert health["Health Status"] == "Warning"
    assert health["Error Code"] != "NA"
    assert smi.fields(hot, "info", "-t", "temp", "-i", "0", "-c", "0") == {"Temperature (C)": "97"}


def test_list_mapping_and_versions(smi: Smi) -> None:
    """``info -l``, ``info -m`` (with the management controller of a card) and ``-v``."""
    listed = smi.fields(AI1S, "info", "-l")
    assert list(listed) == ["Card Count", "NPU ID", "Product Name", "Serial Number", "Chip Count"]
    assert (listed["Product Name"], listed["Chip Count"]) == ("Atlas 300I Model 3010", "4")
    assert smi.fields(DK, "info", "-l")["Product Name"] == "NA"
    mapping = [line.split("  ") for line in smi(AI1S, "info", "-m")]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in mapping]
    assert cells[0] == ["NPU ID", "Chip ID", "Chip Logic ID", "Chip Name"]
    assert cells[4:] == [["0", "3", "3", "Ascend 310"], ["0", "4", "-", "Mcu"]]
    assert smi(DK, "-v") == ["npu-smi version: 21.0.3.1"]
    assert smi(DK, "-h")[0].startswith("Usage: npu-smi <Command|-h|-v>")
    assert smi(DK, "info", "-h")[0] == "Usage: npu-smi info <watch|proc|-h|-m|-l|-t type> [Options...]"


def test_board_information(smi: Smi) -> None:
    """print_npu_card_info: Software Version is the driver's; the last field is named by the chip's
    generation.
    """
    card = smi.fields(DK, "info", "-t", "board", "-i", "0")
    assert list(card) == [
        "NPU ID", "Product Name", "Model", "Manufacturer", "Serial Number", "Software Version",
        "Firmware Version",
        "Board ID", "PCB ID", "BOM ID", "Chip Count", "Faulty Chip Count",
    ]  # fmt: skip
    assert card["Software Version"] == "21.0.3.1"
    assert card["Serial Number"] == smi.fields(DK, "info", "-l")["Serial Number"]
    assert card["Serial Number"] != smi.fields({**DK, "name": "other"}, "info", "-l")["Serial Number"]
    assert "Chip Fault" in smi.fields(PRO, "info", "-t", "board", "-i", "0")
    chip = smi.fields(PRO, "info", "-i", "0", "-c", "0", "-t", "board")
    assert (chip["Chip Name"], chip["Chip ID"], chip["PCIe Bus Info"]) == ("310P3", "0", "0000:01:00.0")


@pytest.mark.parametrize(
    ("kind", "board", "labels"),
    [
        ("usages", DK, ["Memory Capacity(MB)", "Hugepages Total(page)", "Memory Bandwidth Usage Rate(%)"]),
        ("usages", PRO, ["DDR Capacity(MB)", "Vectorcore Usage Rate(%)", "DDR Bandwidth Usage Rate(%)"]),
        ("memory", DK, ["Capacity(MB)", "Clock Speed(MHz)"]),
        ("memory", A2, ["Total Capacity(MB)", "Capacity(MB)"]),
        ("power", DK, ["Power Dissipation(W)"]),
        ("power", PRO, ["NPU Real-time Power(W)"]),
        ("common", DK, ["Memory Usage Rate(%)", "Aicore Usage Rate(%)", "Rated Power Dissipation(W)"]),
        ("common", PRO, ["Aicore Freq(MHZ)", "Temperature(C)"]),
        ("health", A2, ["Health Status", "Error Code", "Error Information"]),
        ("product", AI1S, ["Product Type"]),
    ],
)
def test_types(smi: Smi, kind: str, board: dict[str, object], labels: list[str]) -> None:
    """Field names by generation, as the driver kit's print functions choose them."""
    fields = smi.fields(board, "info", "-t", kind, "-i", "0")
    assert set(labels) <= set(fields)
    if kind == "product":
        # Parsers take what follows the only colon.
        assert fields == {"Product Type": "Atlas 300I Model 3010"}


def test_each_chip_has_its_block(smi: Smi) -> None:
    """Without -c: the card's head, then a block per chip that ends with its Chip ID."""
    lines = smi(AI1S, "info", "-t", "usages", "-i", "0")
    assert [line.split(":")[1].strip() for line in lines if line.startswith("\tChip ID")] == [
        "0",
        "1",
        "2",
        "3",
    ]
    assert smi(AI1S, "info", "-t", "proc-mem", "-i", "0", "-c", "3") == ["\tNo process in device."]


@pytest.mark.parametrize(
    ("argv", "first"),
    [
        ([], "Usage: npu-smi <Command|-h|-v>"),
        (["inform"], "Error parameter of inform"),
        (["info", "-x"], "Error parameter of -x"),
        (["info", "-t"], "Error parameter of -t"),
        (["info", "-t", "cpu", "-i", "0"], "Error parameter of -t"),
        (["info", "-t", "board"], "Error parameter of -i"),
        (["info", "-t", "board", "-i", "x"], "Error parameter of -i"),
        (["info", "-t", "board", "-i", "7"], "Error parameter of -i"),
        (["info", "-t", "board", "-i", "0", "-c", "1"], "Error parameter of -c"),
        (["info", "-i", "0"], "Usage: npu-smi info"),
        (["info", "-t", "vnpu-mode", "-i", "0"], "This device does not support querying vnpu-mode."),
        (["info", "watch"], "This device does not support querying watch."),
        (["set", "-t", "power-state"], "This device does not support set."),
    ],
)
def test_wrong_arguments(smi: Smi, argv: list[str], first: str) -> None:
    """The tool's words on stdout and a status that is not 0."""
    status, lines = smi.status(DK, *argv)
    assert 0 < status < 256
    assert lines[0].startswith(first)


def test_without_the_group_the_device_does_not_open(smi: Smi) -> None:
    """``dcmi module initialize failed. ret is -8005``; help and version work all the same."""
    outsider = {**DK, "user": "guest", "groups": ["guest"]}
    status, lines = smi.status(outsider, "info")
    assert (status, lines) == (-8005 & 0xFF, ["dcmi module initialize failed. ret is -8005"])
    assert smi.status(outsider, "-v")[0] == 0
    assert smi.status({**DK, "faults": {"no_permission": True}}, "info")[0] != 0


def test_as_a_program(tmp_path: object) -> None:
    """``python -m ascend_sim.npu_smi info`` on the default board: an Atlas 200 DK."""
    environment = {key: value for key, value in os.environ.items() if key != "ASCEND_SIM_BOARD"}
    environment["PYTHONPATH"] = str(PYTHON)
    command = [sys.executable, "-m", "ascend_sim.npu_smi", "info"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "| 0       310       | OK" in done.stdout
