"""npu-smi's tables of all generations, as users of real boards published them, and any width of column."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toolkit.cann.npu_smi import HEALTH, Chip, Process, field, parse_fields, parse_table

# Driver 21.0.3.1, Atlas 200 DK: no huge pages.
OLD_DK = """\
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

# Driver 22.0.4, Atlas 300I: four chips of one card, a process table.
CARD = """\
+--------------------------------------------------------------------------------------------------------+
| npu-smi 22.0.4                                   Version: 22.0.4                                       |
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 2       310                   | OK              | 12.8         58                0     / 0             |
| 0       0                     | 0000:01:00.0    | 0            2621 / 7759                             |
+-------------------------------+-----------------+------------------------------------------------------+
| 2       310                   | Warning         | 12.8         61                0     / 0             |
| 1       1                     | 0000:02:00.0    | 37           2703 / 7759                             |
+===============================+=================+======================================================+
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Chip                  | Process id      | Process name             | Process memory(MB)        |
+===============================+=================+======================================================+
| 2       1                     | 4711            | python3.7                | 82                        |
+===============================+=================+======================================================+
"""

# 22.0.0 on a 310P3: narrower columns; nobody uses it.
PRO = """\
+------------------------------------------------------------------------------------+
| npu-smi 22.0.0                       Version: 22.0.2                               |
+-------------------+-----------------+------------------------------------------------------+
| NPU     Name      | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device    | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===================+=================+======================================================+
| 0       310P3     | OK              | NA           42                0    / 0              |
| 0       0         | 0000:82:00.0    | 0            1074 / 21534                            |
+===================+=================+======================================================+
+-------------------+-----------------+------------------------------------------------------+
| NPU     Chip      | Process id      | Process name             | Process memory(MB)        |
+===================+=================+======================================================+
| No running processes found in NPU 0                                                        |
+===================+=================+======================================================+
"""

# 23.0.rc3 on openEuler, a 310B4 with the false alarm of its current sensor; memory without a blank.
ALARM = """\
+--------------------------------------------------------------------------------------------------------+
| npu-smi 23.0.rc3                                 Version: 23.0.rc3                                     |
+--------------------+------------+------------------------------------------------------+
| NPU     Name       | Health     | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device     | Bus-Id     | AICore(%)    Memory-Usage(MB)                        |
+====================+============+======================================================+
| 0       310B4      | Alarm      | 0.0          54                15    / 15            |
| 0       0          | NA         | 0            14541/ 15610                            |
+====================+============+======================================================+
"""

# A training card: memory of its own beside the host's.
HBM = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc1                 Version: 24.1.rc1                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 4     910B3               | OK            | 91.5        37                0    / 0             |
| 0                         | 0000:81:00.0  | 0           0    / 0          3162 / 65536         |
+===========================+===============+====================================================+
"""


def test_published_tables() -> None:
    old = parse_table(OLD_DK)
    assert old.version == "21.0.3.1"
    assert old.chips == (Chip(0, 0, "310", "OK", "", 12.8, 58.0, 0.0, (5324, 8192)),)
    assert old.chips[0].soc_version == "Ascend310"

    card = parse_table(CARD)
    assert [(chip.npu, chip.chip, chip.bus) for chip in card.chips] == [(2, 0, "0000:01:00.0"), (2, 1, "0000:02:00.0")]
    assert [chip.health for chip in card.chips] == ["OK", "Warning"]
    assert card.chips[1].aicore == 37.0
    assert card.processes == (Process(2, 1, 4711, "python3.7", 82),)

    pro = parse_table(PRO)
    assert pro.version == "22.0.2"
    assert pro.chips[0].power is None
    assert pro.chips[0].memory == (1074, 21534)
    assert pro.processes == ()

    alarm = parse_table(ALARM)
    assert alarm.chips == (Chip(0, 0, "310B4", "Alarm", "", 0.0, 54.0, 0.0, (14541, 15610), None, (15, 15)),)

    hbm = parse_table(HBM)
    assert hbm.chips[0].npu == 4
    assert hbm.chips[0].device_memory == (3162, 65536)


NAMES = st.sampled_from(["310", "310P3", "310B4", "910B3", "310P3 vir01"])
PAIR = st.tuples(st.integers(0, 99999), st.integers(0, 99999))
CHIPS = st.builds(
    Chip,
    npu=st.integers(0, 63),
    chip=st.integers(0, 9),
    name=NAMES,
    health=st.sampled_from(HEALTH),
    bus=st.sampled_from(["", "0000:82:00.0", "0001:01:0f.1"]),
    power=st.none() | st.integers(0, 3000).map(lambda tenths: tenths / 10),
    temperature=st.integers(-20, 120).map(float),
    aicore=st.integers(0, 100).map(float),
    memory=PAIR,
    hbm=st.none() | PAIR,
    hugepages=PAIR,
)


@given(
    chips=st.lists(CHIPS, max_size=6),
    widths=st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 60)),
    slash=st.sampled_from([" / ", "/ ", "/", "   /   "]),
    rules=st.booleans(),
)
def test_any_widths(chips: list[Chip], widths: tuple[int, int, int], slash: str, rules: bool) -> None:
    rule = "+" + "+".join("-" * width for width in widths) + "+"
    lines = ["| npu-smi 24.1.0    Version: 24.1.0 |", rule]
    for chip in chips:

        def pair(value: tuple[int, int] | None) -> str:
            return "" if value is None else f"{value[0]}{slash}{value[1]}"

        power = "NA" if chip.power is None else f"{chip.power:.1f}"
        upper = [f"{chip.npu} {chip.name}", chip.health, f"{power} {chip.temperature:.0f} {pair(chip.hugepages)}"]
        lower = [
            f"{chip.chip} {chip.chip}",
            chip.bus or "NA",
            f"{chip.aicore:.0f} {pair(chip.memory)} {pair(chip.hbm)}",
        ]
        for cells in (upper, lower):
            lines.append("|" + "|".join(f" {cell:<{width}}" for cell, width in zip(cells, widths, strict=True)) + "|")
        if rules:
            lines.append(rule)
    assert list(parse_table("\n".join(lines)).chips) == chips


@given(st.text(alphabet="|+-=/ \n\t0123456789.NAOKalrm:310PB", max_size=400) | st.text(max_size=200))
def test_anything_at_all_is_read_without_an_error(text: str) -> None:
    table = parse_table(text)
    assert all(chip.health in HEALTH for chip in table.chips)
    assert all(label and "" not in block for block in parse_fields(text) for label in block)


def test_a_table_cut_anywhere_gives_whole_chips_only() -> None:
    whole = parse_table(CARD).chips
    for cut in range(len(CARD)):
        found = parse_table(CARD[:cut]).chips
        assert len(found) <= len(whole)
        for got, want in zip(found, whole, strict=False):
            assert (got.npu, got.name, got.health) == (want.npu, want.name, want.health)


def test_fields() -> None:
    text = (
        "\tNPU ID                         : 0\n"
        "\tProduct Name                   : Atlas 200I DK A2\n"
        "\tModel                          : NA\n"
        "\tSoftware Version               : 23.0.rc3\n"
        "\n"
        "\tHealth Status                  : Alarm\n"
        "\tError Information              : node type=SOC, sensor: Current\n"
        "\tHealth Status                  : OK\n"
    )
    blocks = parse_fields(text)
    assert [len(block) for block in blocks] == [4, 2, 1]
    assert field(text, "Software Version") == "23.0.rc3"
    assert field(text, "Model") == ""
    assert field(text, "Firmware Version", "Error Information") == "node type=SOC, sensor: Current"
