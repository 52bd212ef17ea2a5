"""From what a board says to findings with cause and fix."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from toolkit.cann.health import PROBE_MARK, Finding, Kind, Words, examine, fitting_profiles, unpack_probe
from toolkit.config.schema import BoardSettings, CannSettings

# The frame without rows.
TABLE = "| npu-smi 21.0.4   Version: 21.0.4 |\n{rows}+===+===+===+\n"

KINDS = [
    Kind("200dk", "310", 1, "RC", 8192),
    Kind("300i", "310", 4, "EP", 7759),
    Kind("atlas500", "310", 1, "EP", 7759),
    Kind("300i_pro", "310P3", 1, "EP", 21534),
    Kind("300i_duo", "310P3", 2, "EP", 43693),
    Kind("200i_dk_a2", "310B4", 1, "RC", 3513),
    Kind("orangepi_aipro", "310B4", 1, "RC", 7545),
]

DK = BoardSettings(
    profile="200dk", soc_version="Ascend310", npu_name="310", memory_mb=8192, driver="21.0.4", groups=["HwHiAiUser"],
    interpreters=["python3.7.5", "python3"], cann=CannSettings(version="5.0.4", since="20.0", before="6.0.1"),
)  # fmt: skip


def table(
    name: str = "310", health: str = "OK", temperature: int = 58, memory: str = "5324 / 8192", chips: int = 1
) -> str:
    return TABLE.format(
        rows="".join(
            f"| 0  {name} | {health} | 12.8 {temperature} 0 / 0 |\n| {number}  {number} | NA | 0 {memory} |\n"
            for number in range(chips)
        )
    )


def probe(**changes: Any) -> dict[str, Any]:
    good = {"name": "python3.7.5", "version": "3.7.5", "numpy": "1.21.6", "PIL": "9.5.0", "acl": "yes", "errors": {}}
    answer = {
        "interpreters": [good],
        "npu_smi": {"table": table(), "board": "\tSoftware Version : 21.0.4\n", "health": ""},
        "versions": {"cann": ["5.0.4", "/usr/local/Ascend/x.info"], "driver": ["21.0.4", "/x"]},
        "devices": {"nodes": [], "closed": []},
        "device": {"acl_version": "1.1.0", "soc_name": "Ascend310", "run_mode": "RC", "opened": True, "devices": 1},
        "font": True,
        "uid": 1000,
        "stubs": [],
    }
    return {**answer, **changes}


def words(changed: dict[str, Any] | None = None, **facts: Any) -> Words:
    told = {"disk_free": 10**10, "clock": 1000.0, "user": "HwHiAiUser", "groups": ["HwHiAiUser"], **facts}
    return Words(told, changed if changed is not None else probe(), here=1000.0, environment="same", release="ab")


def findings(changed: dict[str, Any] | None = None, profile: BoardSettings = DK, **facts: Any) -> dict[str, Finding]:
    return {item.what: item for item in examine(profile, words(changed, **facts), KINDS)}


def test_a_fit_board() -> None:
    found = findings()
    assert {item.what for item in found.values() if item.state != "ok"} == set()
    assert all(item.fix == "" for item in found.values())
    assert set(found) == {
        "disk", "clock", "Python", "NumPy", "Pillow", "acl", "npu-smi", "chip", "health", "temperature", "memory",
        "driver", "CANN", "permission", "environment",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "facts", "what", "state", "says"),
    [
        ({}, {"disk_free": 5_000_000}, "disk", "bad", "5 MB free"),
        ({}, {"clock": 1000.0 - 86400 * 400}, "clock", "note", "400 days behind"),
        ({"interpreters": [{"name": "python3.7.5", "absent": True}]}, {}, "Python", "bad", "none of python3.7.5"),
        ({"interpreters": [{"name": "python3", "version": "3.5.2", "errors": {}}]}, {}, "Python", "bad", "too old"),
        ({"npu_smi": {"absent": True}}, {}, "npu-smi", "note", "not on the board"),
        ({"npu_smi": {"table": table(health="Critical")}}, {}, "health", "bad", "Critical"),
        ({"npu_smi": {"table": table(temperature=103)}}, {}, "temperature", "bad", "103"),
        ({"npu_smi": {"table": table(temperature=90)}}, {}, "temperature", "note", "90"),
        ({"npu_smi": {"table": table(memory="900 / 1000")}}, {}, "memory", "note", "8192 MB"),
        ({"npu_smi": {"table": table(memory="8190 / 8192")}}, {}, "memory", "bad", "memory is full"),
        ({"versions": {"cann": ["5.0.3", "/x"]}}, {}, "CANN", "bad", "older than the profile's"),
        ({"versions": {"cann": ["5.1.RC1", "/x"]}}, {}, "CANN", "note", "newer than the profile's"),
        ({"versions": {"cann": ["7.0.0", "/x"]}}, {}, "CANN", "bad", "before 6.0.1"),
        ({"versions": {}}, {}, "CANN", "note", "no version is written"),
        ({"font": False}, {}, "font", "note", "DejaVuSans-Bold"),
        ({"stubs": ["/x/devlib"]}, {}, "libraries", "bad", "stub"),
        (
            {"npu_smi": {"table": table(), "board": "\tSoftware Version : 1.0.9\n"}},
            {},
            "driver",
            "note",
            "older than the profile's",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    changed: dict[str, Any], facts: dict[str, Any], what: str, state: str, says: str
) -> None:
    finding = findings(probe(**changed), **facts)[what]
    assert finding.state == state
    assert says in finding.text
    assert finding.fix


def test_missing_modules_say_why() -> None:
    broken = {
        "name": "python3", "version": "3.9.2", "numpy": "1.24.0",
        "errors": {
            "acl": "ImportError: acl.so: undefined symbol: _PyX", "PIL": "ModuleNotFoundError: No module named 'PIL'",
        },
    }  # fmt: skip
    found = findings(probe(interpreters=[broken, {"name": "python3.6", "absent": True}], device={}))
    assert found["NumPy"].state == "ok"
    assert found["Pillow"].state == found["acl"].state == "bad"
    assert "other versions of Python" in found["acl"].text
    assert "board.interpreters" in found["acl"].fix


def test_the_interpreter_that_imports_everything_is_taken() -> None:
    bare = {"name": "python3", "version": "3.10.1", "errors": {"acl": "no"}}
    good = {"name": "python3.9", "version": "3.9.2", "numpy": "1", "PIL": "9", "acl": "yes", "errors": {}}
    assert findings(probe(interpreters=[bare, good]))["Python"].text == "3.9.2 (python3.9)"


def test_a_false_alarm_is_a_note_on_a_310b4_only() -> None:
    dk2 = BoardSettings(**{**vars(DK), "profile": "200i_dk_a2", "npu_name": "310B4", "soc_version": "Ascend310B4"})
    table_b4 = {"table": table("310B4", "Alarm"), "health": "\tError Code : 80E3A203\n"}
    found = findings(probe(npu_smi=table_b4), dk2)
    assert found["health"].state == "note"
    assert "80E3A203" in found["health"].text
    assert findings(probe(npu_smi={"table": table("310", "Alarm")}))["health"].state == "bad"


def test_a_wrong_profile_names_the_right_one() -> None:
    found = findings(probe(npu_smi={"table": table("310P3", chips=2)}, device={"run_mode": "EP"}))
    assert found["chip"].state == "bad"
    assert "says 310 (Ascend310)" in found["chip"].text
    assert found["chip"].fix == "board=300i_duo (or 300i_pro)"
    unknown = findings(probe(npu_smi={"table": table("310P9")}))["chip"]
    assert unknown.fix.endswith("board.soc_version=Ascend310P9 board.npu_name=310P9")


def test_fitting_profiles() -> None:
    assert fitting_profiles(KINDS, "310", run_mode="EP", chips=4)[0] == "300i"
    assert fitting_profiles(KINDS, "310", run_mode="EP", chips=1)[0] == "atlas500"
    assert fitting_profiles(KINDS, "310B4", memory_mb=7545) == ["orangepi_aipro", "200i_dk_a2"]
    assert fitting_profiles(KINDS, "910B3") == []


def test_chip_count_and_run_mode() -> None:
    two = findings(probe(npu_smi={"table": table(chips=2)}))["chip"]
    assert (two.state, two.fix) == ("note", "board.chips=2")
    mode = findings(probe(device={"opened": True, "run_mode": "EP"}))["chip"]
    assert (mode.state, mode.fix) == ("note", "board=atlas500, or board.run_mode=EP")


def test_another_board_with_the_same_chip_is_named() -> None:
    dk2 = BoardSettings(
        **{
            **vars(DK), "profile": "200i_dk_a2", "npu_name": "310B4", "soc_version": "Ascend310B4", "memory_mb": 3513,
        }
    )  # fmt: skip
    found = findings(probe(npu_smi={"table": table("310B4", memory="900 / 7545")}), dk2)["chip"]
    assert (found.state, found.fix) == ("note", "board=orangepi_aipro, or board.memory_mb=7545")


def test_no_permission() -> None:
    closed = findings(
        probe(device={"errors": [["acl.rt.set_device", 507899]]}, devices={"closed": ["/dev/davinci0"]}),
        groups=["users"],
    )["permission"]
    assert closed.state == "bad"
    assert "is not in HwHiAiUser" in closed.text
    assert closed.fix.startswith("usermod -aG HwHiAiUser HwHiAiUser")
    # Whoever opens the device needs no group.
    assert findings(groups=[])["permission"].state == "ok"


def test_the_probes_answer_travels_in_lines() -> None:
    packed = base64.b64encode(zlib.compress(json.dumps({"a": "b" * 9000}).encode())).decode()
    lines = ["noise", *(PROBE_MARK + packed[start : start + 10] for start in range(0, len(packed), 10)), ""]
    assert unpack_probe(lines) == {"a": "b" * 9000}
    assert unpack_probe(["nothing"]) == unpack_probe([PROBE_MARK + "AAAA"]) == {}


def test_a_board_that_lies_is_survived() -> None:
    for lie in ({}, {"interpreters": 7, "npu_smi": [], "device": "x", "versions": {"cann": [None]}, "devices": 3}):
        assert any(item.state != "ok" for item in examine(DK, words(lie)))
