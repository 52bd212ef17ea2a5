"""ATC's command line, and what its failures mean."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from toolkit.cann import atc, catalogue
from toolkit.config.schema import AtcSettings
from toolkit.errors import ConfigError
from toolkit.paths import CONF


def test_the_tutorials_command() -> None:
    given = atc.flags(
        AtcSettings(), model="./resnet-90_1875.air", framework="1", output="./resnet50", soc_version="Ascend310"
    )
    assert atc.command(given) == [
        "atc",
        "--model=./resnet-90_1875.air",
        "--framework=1",
        "--output=./resnet50",
        "--soc_version=Ascend310",
    ]


def test_settings_win_over_what_the_pipeline_derives() -> None:
    given = atc.flags(AtcSettings(soc_version="Ascend310P3", log="error"), model="m", soc_version="Ascend310")
    assert atc.command(given) == ["atc", "--model=m", "--soc_version=Ascend310P3", "--log=error"]


def test_every_flag_stands_in_the_shipped_config() -> None:
    shipped = OmegaConf.load(CONF / "atc" / "default.yaml")
    assert set(shipped) == set(vars(AtcSettings()))
    # And each says what it is for.
    lines = (CONF / "atc" / "default.yaml").read_text("utf-8").splitlines()
    assert all(re.fullmatch(r"\w+: null +# .+", line) for line in lines if line and not line.startswith("#"))


def test_the_flags_are_those_that_atc_has() -> None:
    listed = subprocess.run(
        [sys.executable, "-c", "from ascend_sim.atc import flags as f; print(*f.DEFAULTS, *f.BOOLS)"],
        env={"PYTHONPATH": str(CONF.parent / "toolkit" / "sim" / "cann" / "python")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(vars(AtcSettings())) == set(listed.stdout.split()) - {"help"}


@pytest.mark.parametrize(
    ("flag", "value", "meant"),
    [
        ("input_shape", "data:1,3,224,224;other:1,2", "data:1,3,224,224;other:1,2"),
        ("input_shape", ["data:1,3,224,224", "other:1,2"], "data:1,3,224,224;other:1,2"),
        ("dynamic_batch_size", [1, 2, 4], "1,2,4"),
        ("dynamic_image_size", [[224, 224], [448, 448]], "224,224;448,448"),
        ("out_nodes", ["a:0", "b:1"], "a:0;b:1"),
        ("optypelist_for_implmode", ["Gelu", "Tanh"], "Gelu,Tanh"),
        ("is_input_adjust_hw_layout", [True, False], "true,false"),
        ("enable_single_stream", True, "true"),
        ("op_debug_level", 0, "0"),
    ],
)
def test_values_reach_atc_as_it_takes_them(flag: str, value: object, meant: str) -> None:
    assert atc.flags(AtcSettings(**{flag: value})) == {flag: meant}


def test_what_convert_decides_is_refused() -> None:
    found = list(atc.problems(AtcSettings(output="x", framework=5, external_weight=1, keep_dtype={"a": 1}, log="a\nb")))
    assert [line.split(":")[0] for line in found] == [
        "atc.framework", "atc.output", "atc.keep_dtype", "atc.log", "atc.external_weight",
    ]  # fmt: skip
    assert not list(atc.problems(AtcSettings(external_weight=0, soc_version="Ascend310P3vir02")))


def test_frameworks() -> None:
    assert (atc.framework_of("air"), atc.framework_of("onnx")) == ("1", "5")
    with pytest.raises(ConfigError, match=r"does not read \.mindir"):
        atc.framework_of("mindir")


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("E10016: Opname [y] specified in --input_shape is not found in the model", "input_shape names an input"),
        ("E10001: Value [Ascend999] for parameter [--soc_version] is invalid. Reason: …", "soc_version"),
        ("[ERROR] acl.mdl.load_from_file failed: 145006", "damaged"),
        ("ImportError: libascendcl.so: cannot open shared object file: No such file or directory", "LD_LIBRARY_PATH"),
        ("ModuleNotFoundError: No module named 'acl'", "PYTHONPATH"),
        ("bash: atc: command not found", "not on this machine's PATH"),
        ("acl.rt.set_device failed: 207006", "device nodes"),
        ("OSError: cannot open resource", "font"),
    ],
)
def test_failures_are_explained(output: str, words: str) -> None:
    entry = catalogue.explain(output)
    assert entry is not None
    assert words in entry.cause
    assert entry.fix


def test_unknown_failures_are_not_explained_away() -> None:
    assert catalogue.explain("something new went wrong") is None


def test_error_codes_in_order() -> None:
    assert atc.error_codes("E10016: x\nEZ9999: y\nE10016: z") == ["E10016", "EZ9999"]


def test_no_path_of_this_machine_is_a_default() -> None:
    assert not [path for path in Path(CONF).rglob("*.yaml") if "/root/" in path.read_text()]
