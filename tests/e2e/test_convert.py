"""Converting on other machines, quantising and tuning, as a user asks for them. The network is untrained."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Deploy, Result, run
from toolkit.sim import SimBoard
from toolkit.sim.boards import install_modules, prepare

pytestmark = pytest.mark.e2e

QUICK = ("app=digits", "train.epochs=0", "data.samples=2")

# Stands for CANN's program: checks what it gets as the documentation has it, and answers as the real one does.
AMCT = """
import json, os, sys
import onnx
assert sys.argv[1] == "calibration", sys.argv
flags = dict(item[2:].split("=", 1) for item in sys.argv[2:])
assert set(flags) == {"model", "save_path", "input_shape", "data_dir", "data_types", "batch_num"}, flags
assert flags["data_types"] == "float32"
model = onnx.load(flags["model"])
name, shape = flags["input_shape"].split(":")
given = model.graph.input[0]
assert name == given.name
assert [int(x) for x in shape.split(",")] == [d.dim_value for d in given.type.tensor_type.shape.dim]
import numpy as np
files = sorted(os.listdir(flags["data_dir"]))
assert len(files) == int(flags["batch_num"])
data = [np.fromfile(os.path.join(flags["data_dir"], f), np.float32) for f in files]
assert all(len(x) == np.prod([int(d) for d in shape.split(",")]) for x in data)
model.doc_string = json.dumps({"mean": float(np.mean(data)), "files": len(files)})
onnx.save(model, flags["save_path"] + "_deploy_model.onnx")
onnx.save(model, flags["save_path"] + "_fake_quant_model.onnx")
"""

AOE = """
import os, sys
flags = dict(item[2:].split("=", 1) for item in sys.argv[1:])
assert flags["framework"] == "5" and os.path.isfile(flags["model"]), flags
assert "soc_version" not in flags
bank = os.environ["TUNE_BANK_PATH"]
assert os.path.isabs(bank) and os.path.isdir(bank)
before = sorted(name for name in os.listdir(bank) if not name.startswith("."))
assert before == ([] if flags["job_type"] == "1" else ["Ascend310"]), before
os.makedirs(bank + "/Ascend310", exist_ok=True)
open(bank + "/Ascend310/job" + flags["job_type"] + ".json", "w").write("{}")
print("tuning done")
"""


def install(home: Path, host: str, name: str, code: str) -> None:
    """Put a program on a simulated machine's PATH, beside its atc."""
    (atc,) = (home / ".deploy" / "sim" / host / "home" / "Ascend").glob("**/compiler/bin/atc")
    program = atc.parent / name
    program.write_text(f"#!{sys.executable}\n{code}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder in which an untrained network was converted for a 200 DK."""
    folder = tmp_path_factory.mktemp("convert")
    return folder, run(folder, "convert", "board=200dk", "simulate=true", *QUICK)


def test_it_is_recorded_which_cann_converted(home: tuple[Path, Result]) -> None:
    done = home[1]
    assert done.code == 0, done.err
    (convert,) = done.of("done", stage="convert")
    assert convert["data"]["notes"]["cann"] == "20.2"
    assert convert["data"]["notes"]["host"] == "build-200dk"


def test_flags_of_atc_are_typed_as_they_are(home: tuple[Path, Result]) -> None:
    keep = home[0] / "my keep list.cfg"
    keep.write_text("")
    arguments = ("convert", "board=200dk", "simulate=true", *QUICK, f"atc.keep_dtype={keep}")
    done = run(home[0], *arguments, "atc.input_shape=x:1,3,32,32", "atc.enable_single_stream=true", json_lines=False)
    assert done.code == 0, done.err
    assert " --enable_single_stream=true --input_shape=x:1,3,32,32 --keep_dtype=../in/keep_dtype.cfg" in done.out
    wrong = run(home[0], *arguments, "atc.input_shape=x:1,3,32,32;other:1,2")
    (error,) = wrong.of("error")
    assert wrong.code == 5
    assert "(E10016): atc.input_shape names an input that the model does not have; it says: E10016: " in error["text"]
    assert "[other]" in error["text"]
    (command,) = [item["text"] for item in wrong.of("log") if item.get("text", "").startswith("atc --model")]
    assert "'--input_shape=x:1,3,32,32;other:1,2'" in command
    assert (home[0] / error["hint"].rsplit(": ", 1)[1]).read_text().startswith("$ " + command)


def test_a_converter_with_newer_cann_is_refused(home: tuple[Path, Result]) -> None:
    arguments = ("convert", "board=200dk", "simulate=true", *QUICK, "atc.log=error")
    newer = run(home[0], *arguments, "convert.cann_version=5.0.4")
    (error,) = newer.of("error")
    assert newer.code == 2
    assert "build-200dk-5.0.4 has CANN 5.0.4, newer than the boards' 20.2" in error["text"]
    assert not newer.of("done", stage="convert")


def test_that_is_said_before_a_training(home: tuple[Path, Result]) -> None:
    arguments = ("package", "board=200dk", "simulate=true", "app=digits", "convert.cann_version=5.0.4")
    refused = run(home[0], *arguments)
    (error,) = refused.of("error")
    assert (refused.code, "newer than the boards' 20.2" in error["text"]) == (2, True)
    assert not refused.of("start", stage="train")


def test_a_host_of_the_inventory_converts_with_its_own_cann(home: tuple[Path, Result]) -> None:
    (home[0] / "inventory").mkdir(exist_ok=True)
    (home[0] / "inventory" / "small.yaml").write_text(
        "boards:\n"
        "  one: {profile: 300i_pro, host: 192.0.2.1, overrides: {board.cann.version: 6.0.0}}\n"
        "hosts:\n"
        "  old: {profile: 300i_pro, host: 192.0.2.2, overrides: {board.cann.version: 5.1.RC2}}\n"
        "  new: {profile: 300i_pro, host: 192.0.2.3, overrides: {board.cann.version: 7.0.0}}\n"
        "  plain: {host: 192.0.2.4}\n"
    )
    arguments = ("convert", "inventory=small", "simulate=true", *QUICK)
    refused = run(home[0], *arguments, "convert.host=new")
    (error,) = refused.of("error")
    assert refused.code == 2
    assert "build-new has CANN 7.0.0, newer than the boards' 6.0.0" in error["text"]
    done = run(home[0], *arguments, "convert.host=old")
    assert done.code == 0, done.err
    (convert,) = done.of("done", stage="convert")
    assert (convert["data"]["notes"]["host"], convert["data"]["notes"]["cann"]) == ("build-old", "5.1.RC2")
    # A server without a chip names no profile; it finds the CANN that is there.
    done = run(home[0], *arguments, "convert.host=plain", "convert.cann_version=5.1.RC1", "atc.log=error")
    assert done.code == 0, done.err
    (convert,) = done.of("done", stage="convert")
    assert (convert["data"]["notes"]["host"], convert["data"]["notes"]["cann"]) == ("build-plain", "5.1.RC1")
    assert not done.of("warning")
    # One that is older than the chip is warned of before ATC says so.
    done = run(home[0], *arguments, "convert.host=plain", "convert.cann_version=5.0.4")
    (warning,) = done.of("warning")
    assert warning["text"] == (
        "the converter's CANN 5.0.4 is not among the versions that know an Ascend310P3: since 5.1.RC1"
    )
    assert (done.code, "E10001" in done.of("error")[0]["text"]) == (5, True)


def test_an_update_of_the_converters_cann_converts_again(home: tuple[Path, Result], tmp_path: Path) -> None:
    """On this machine, without a simulated board: CANN is found in the home folder, as it is on a real one."""

    def machine(version: str) -> dict[str, str]:
        board = SimBoard("here", soc_version="", chips=0, cann_version=version, groups=())
        return prepare(board, tmp_path, install_modules(tmp_path)).environment()

    inventory = tmp_path / "one.yaml"
    overrides = "board.cann.version: 7.0.0, board.cann.before: 6.0.0"
    inventory.write_text(f"boards: {{one: {{profile: 300i_pro, host: 192.0.2.1, overrides: {{{overrides}}}}}}}\n")
    arguments = ("convert", f"inventory={inventory}", *QUICK)
    first = run(home[0], *arguments, **machine("5.1.RC3"))
    assert first.code == 0, first.err
    (done,) = first.of("done", stage="convert")
    assert (done["data"]["notes"]["host"], done["data"]["notes"]["cann"]) == ("this machine", "5.1.RC3")
    (warning,) = first.of("warning")
    assert "7.0.0 is not among the versions that know an Ascend310P3: since 5.1.RC1 and before 6.0.0" in warning["text"]
    assert run(home[0], *arguments, **machine("5.1.RC3")).ran == []
    updated = run(home[0], *arguments, **machine("6.0.0"))
    assert updated.ran == ["convert"]
    (start,) = updated.of("start", stage="convert")
    assert "tool cann: 5.1.RC3 → 6.0.0" in start["text"]
    # A version that is asked for must be the one that is there; without a toolkit the om is still good.
    refused = run(home[0], *arguments, "convert.cann_version=5.0.4", **machine("6.0.0"))
    (error,) = refused.of("error")
    assert (refused.code, error["text"]) == (2, "convert.cann_version: this machine has CANN 6.0.0, not 5.0.4")
    assert run(home[0], *arguments, HOME=str(tmp_path)).ran == []


def test_a_small_board_converts_with_one_process_and_a_warning(home: tuple[Path, Result]) -> None:
    done = run(home[0], "convert", "board=200i_dk_a2", "simulate=true", *QUICK, "convert.host=board")
    assert done.code == 0, done.err
    (convert,) = done.of("done", stage="convert")
    assert convert["data"]["notes"]["host"] == "200i_dk_a2"
    (warning,) = [item for item in done.of("warning") if "convert.host=board" in item["text"]]
    assert "one process" in warning["text"]


def test_amct_quantises_and_aoe_tunes_before_atc(home: tuple[Path, Result]) -> None:
    install(home[0], "build-200dk", "amct_onnx", AMCT)
    install(home[0], "build-200dk", "aoe", AOE)
    arguments = ("convert", "board=200dk", "simulate=true", *QUICK, "quantise=amct", "tune=aoe")
    done = run(home[0], *arguments, "quantise.pictures=5")
    assert done.code == 0, (done.err, done.of("error"))
    assert done.ran == ["data", "quantise", "tune", "convert"]
    (quantised,) = done.of("done", stage="quantise")
    assert quantised["data"]["notes"]["command"][:2] == ["amct_onnx", "calibration"]
    (tuned,) = done.of("done", stage="tune")
    assert tuned["data"]["notes"]["summary"].startswith("2 files in the bank")
    (run_folder,) = {path.parent for path in (home[0] / "runs").glob("*/convert/amct.log")}
    assert "--batch_num=5" in (run_folder / "amct.log").read_text()
    assert (run_folder / "aoe.log").read_text().count("tuning done") == 2


def test_a_host_without_amct_says_so(home: tuple[Path, Result], tmp_path: Path) -> None:
    arguments = ("quantise", "board=300i_pro", "simulate=true", *QUICK, "quantise=amct")
    failed = run(home[0], *arguments)
    (error,) = failed.of("error")
    assert failed.code == 2
    assert "there is no amct_onnx on build-300i_pro: AMCT is not installed on the machine" in error["text"]
    assert "quantise=none" in error["hint"]
    assert not failed.of("warning")
    # Before an hour of training, too.
    early = run(tmp_path, "package", "board=300i_pro", "simulate=true", "app=digits", "tune=aoe", "train.epochs=99")
    (error,) = early.of("error")
    assert (early.code, early.of("start", stage="train")) == (2, [])
    assert "there is no aoe on build-300i_pro" in error["text"]


def test_air_cannot_be_quantised(deploy: Deploy) -> None:
    refused = deploy(
        "convert", "board=200dk", "simulate=true", "quantise=amct", "export.format=air", "train.device_target=Ascend"
    )
    assert refused.code == 2
    assert "AMCT reads ONNX only" in str(refused.of("error"))
