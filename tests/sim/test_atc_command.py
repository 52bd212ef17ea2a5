"""The simulated ATC's command line: what it accepts, what it says, and how it ends.

Sources: hicann/ge ``api/atc/{main_impl,cmd_flag_info}.cc`` and
``base/common/error_registry/error_registry.cc`` for checks, order and wording; hicann/runtime
``src/dfx/error_manager/error_manager.cc`` and users' published logs for the layout of each generation.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from atc_support import ARGS, FAILED, PYTHON, START, SUCCESS, Atc, atc, boards, errors, flags, omfile, save

__all__ = ["atc"]


def without(flag: str) -> list[str]:
    return [argument for argument in ARGS if not argument.startswith("--" + flag)]


def test_a_conversion_says_what_the_real_one_says(atc: Atc) -> None:
    """Three lines on stdout, status 0, and ``<output>.om`` (hicann/ge main_impl.cc, main_impl and
    CheckRet).
    """
    status, out, err = atc(*ARGS)
    assert (status, out.splitlines(), err) == (0, [START, "...", SUCCESS], "")
    assert (atc.folder / "net.om").read_bytes()[:4] == b"IMOD"
    passes = json.loads((atc.folder / "fusion_result.json").read_text())
    assert passes[0]["session_and_graph_id"] == "0_0"


def test_old_cann_prints_brackets_and_no_process(atc: Atc) -> None:
    """``atc`` alone under CANN 7.0.RC1, as a user posted it: E10007 with the framework's four values in
    brackets.
    """
    atc.cann("7.0.RC1")
    _, out, _ = atc()
    assert out.splitlines()[:4] == [
        START,
        "...",
        FAILED,
        "E10007: [--framework] is required. The value must be "
        "[0(Caffe) or 1(MindSpore) or 3(TensorFlow) or 5(Onnx)].",
    ]


def test_cann_8_0_adds_process_and_time(atc: Atc) -> None:
    """CANN 8.0.0, as a user posted it: ``E10007: [PID: 10490] 2025-03-18-09:02:18.501.341 [--framework] is
    ...``.
    """
    atc.cann("8.0.0")
    _, out, _ = atc()
    assert re.match(
        r"E10007: \[PID: \d+\] \d{4}-\d\d-\d\d-\d\d:\d\d:\d\d\.\d{3}\.\d{3} \[--framework\] is required\.",
        out.splitlines()[3],
    )


def test_newest_cann_puts_the_title_in_front(atc: Atc) -> None:
    """hicann/runtime error_manager.cc GetErrorMessage: ``[PID: n] <time> <Title>(<code>): <message>``, advice
    indented.
    """
    atc.cann("9.0.0")
    _, out, _ = atc()
    lines = out.splitlines()
    assert re.match(
        r"\[PID: \d+\] \S+ Invalid_Argument\(E10007\): --framework is required\. The value", lines[3]
    )
    assert lines[4] == "        Solution: Set a valid parameter value."


def test_help_is_no_failure(atc: Atc) -> None:
    """GF_HELP returns 0 after the usage (main_impl)."""
    for flag in ("--help", "-h", "--h", "-help"):
        status, out, _ = atc(flag)
        assert status == 0
        assert out.splitlines()[:2] == [START, "usage: atc <args>"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--modell=x"], "ERROR: unknown command line flag 'modell'"),
        (["--model"], "ERROR: flag '--model' is missing its argument"),
        ([*ARGS, "stray"], "ERROR: Non-option parameter: stray"),
        (["-x"], "ERROR: unknown command line flag 'x'"),
        (["--o=net"], "ERROR: unknown command line flag 'o'"),
    ],
)
def test_a_command_line_that_getopt_refuses(atc: Atc, argv: list[str], message: str) -> None:
    """cmd_flag_info.cc ParseCommandLine: a line on stderr, no ``...``, then the error manager's text for
    nothing known.
    """
    status, out, err = atc(*argv)
    assert status == 255
    assert err.strip() == message
    assert out.splitlines()[:3] == [START, FAILED, "E19999: Inner Error!"]


def test_getopt_forms_are_understood(atc: Atc) -> None:
    """``--flag value``, ``-flag=value``, dashes for underscores and unique beginnings (cmd_flag_info.cc
    FormatArgv).
    """
    status, out, _ = atc("--model", "net.onnx", "-framework=5", "--output=net", "--soc-ver=Ascend310")
    assert (status, out.splitlines()[-1]) == (0, SUCCESS)


@pytest.mark.parametrize(
    ("code", "argv"),
    [
        ("E10007", ["--framework=2"]),
        ("E10007", without("framework")),
        ("E10001", ["--mode=4"]),
        ("E10010", [*ARGS, "--log=loud"]),
        ("E10006", [*ARGS, "--disable_reuse_memory=2"]),
        ("E10001", [*ARGS, "--precision_mode=fp16"]),
        ("E10001", [*ARGS, "--precision_mode=allow_fp32_to_bf16"]),
        ("E10008", ["--framework=0", *without("framework")]),
        ("E10001", [*ARGS, "--input_format=NHWC"]),
        ("E10001", [*ARGS, "--buffer_optimize=l3"]),
        ("E10005", [*ARGS, "--save_original_model=yes"]),
        ("E10001", [*ARGS, "--output_type=FP64"]),
        ("E10001", ["--model=missing.onnx", *without("model")]),
        ("E10001", ["--model=bad name.onnx", *without("model")]),
        ("E10022", ["--output=folder/", *without("output")]),
        ("E10021", ["--output=" + "a" * 5000, *without("output")]),
        ("E10001", [*ARGS, "--op_select_implmode=fast"]),
        ("E10001", [*ARGS, "--insert_op_conf=missing.cfg"]),
        ("E10047", [*ARGS, "--enable_compress_weight=true", "--compress_weight_conf=net.onnx"]),
        ("E10001", [*ARGS, "--auto_tune_mode=XX"]),
        ("E10001", ["--soc_version=ascend310", *without("soc_version")]),
        ("E10055", ["--soc_version=Ascend035", *without("soc_version")]),
        ("E10055", ["--mode=30", *ARGS]),
        ("E10001", [*ARGS, "--host_env_os=windows"]),
        ("E10001", [*ARGS, "--host_env_cpu=riscv"]),
        ("E21001", [*ARGS, "--fusion_switch_file=missing.cfg"]),
        ("E10001", [*ARGS, "--compression_optimize_conf=missing.cfg"]),
        ("E10004", ["--mode=6"]),
        ("E10057", ["--mode=6", "--om=net.onnx", "--framework=5"]),
        ("E10041", ["--mode=6", "--om=net.onnx"]),
        ("E10004", ["--mode=1", "--om=net.onnx"]),
        ("E10001", ["--mode=1", "--framework=1", "--om=net.onnx", "--json=a.json"]),
    ],
)
def test_wrong_flags(atc: Atc, code: str, argv: list[str]) -> None:
    """Each check of main_impl.cc and option_utils.cc with its code of error_registry.cc."""
    atc.fails(code, *argv)
    assert not (atc.folder / "net.om").exists()


@pytest.mark.parametrize(
    ("code", "flag", "says"),
    [
        ("E10001", "--oo_level=O9", "The value must be O1 or O3."),
        ("E10001", "--static_model_ops_lower_limit=-5", "The valid range is [-1,9223372036854775807]."),
        ("E19999", "--static_model_ops_lower_limit=x", "Invalid value[x]"),
        ("E10056", "--precision_mode=force_fp16", "precision_mode_v2"),
        ("E10001", "--compression_optimize_conf=/nope", "AMCT is not installed, error: libamctacl.so"),
        ("E10001", "--host_env_os=windows", "support list of {linux / }"),
    ],
)
def test_wrong_flags_of_the_newest_cann(atc: Atc, code: str, flag: str, says: str) -> None:
    """optimization_option.cc, option_utils.cc, and main_impl.cc CallAmctInterface: no float om without AMCT."""
    atc.cann("9.0.0")
    given = [*without("soc_version"), "--soc_version=Ascend310P3", "--precision_mode_v2=fp16", flag]
    assert says in atc.fails(code, *given)
    assert not (atc.folder / "net.om").exists()


# Where the default is empty, or not a value that is taken: what to give, and what has to go with it.
VALID = {
    "framework": "5", "model": "net.onnx", "output": "net", "soc_version": "Ascend310P3", "weight": "net.onnx",
    "input_shape": "x:1,3,8,8", "out_nodes": "last:0", "cal_conf": "some.cfg", "op_name_map": "some.cfg",
    "insert_op_conf": "aipp.cfg", "om": "net.om", "json": "net.json", "op_precision_mode": "some.cfg",
    "allow_hf32": "true", "precision_mode": "force_fp16", "precision_mode_v2": "origin", "keep_dtype": "some.cfg",
    "modify_mixlist": ("some.cfg", "--precision_mode=allow_mix_precision"), "input_format": "NCHW",
    "input_fp16_nodes": "x", "is_output_adjust_hw_layout": "false", "is_input_adjust_hw_layout": "false",
    "output_type": "FP16", "op_select_implmode": "high_precision", "fusion_switch_file": "some.cfg",
    "optypelist_for_implmode": ("Conv", "--op_select_implmode=high_precision"), "customize_dtypes": "some.cfg",
    "optimization_switch": "a:on", "static_model_ops_lower_limit": "-1", "raw_ge_options": "some.cfg",
    "aicore_num": "2", "op_debug_config": "some.cfg", "save_original_model": "true",
    "dynamic_batch_size": ("1,2", "--input_shape=x:-1,3,8,8"), "compress_weight_conf": "some.cfg",
    "dynamic_image_size": ("8,8;16,16", "--input_shape=x:1,3,-1,-1"), "enable_single_stream": "true",
    "dynamic_dims": ("1;2", "--input_shape=x:-1,3,8,8", "--input_format=ND"), "host_env_os": "linux",
    "host_env_cpu": "aarch64", "input_hint_shape": "0:[1,3,8,8]", "enable_scope_fusion_passes": "Pass1",
    "quant_dumpable": "1",
}  # fmt: skip
REFUSED = {
    "singleop": ("some.cfg", "E10055"), "input_shape_range": ("x:[1~2,3,8,8]", "E10055"),
    "auto_tune_mode": ("RL", "E10001"), "compression_optimize_conf": ("some.cfg", "E10001"),
}  # fmt: skip


@pytest.mark.parametrize("flag", flags.DEFAULTS)
def test_every_flag_is_taken(atc: Atc, flag: str) -> None:
    """Every flag of atc_flags.cc with its default or a valid value, or refused as docs/simulator.md says."""
    atc.cann("9.0.0")
    (atc.folder / "some.cfg").write_text("x\n")
    (atc.folder / "aipp.cfg").write_text("aipp_op { aipp_mode: static input_format: RGB888_U8 }\n")
    given = [*without("soc_version"), "--soc_version=Ascend310P3"]
    if flag in REFUSED:
        value, code = REFUSED[flag]
        atc.fails(code, *given, f"--{flag}={value}")
        return
    value, *more = valid if isinstance(valid := VALID.get(flag, flags.DEFAULTS[flag]), tuple) else (valid,)
    status, out, err = atc(*given, *more, f"--{flag}={value}")
    assert (status, out.splitlines()[-1:], err) == (0, [SUCCESS], ""), out


@pytest.mark.parametrize("flag", flags.SINCE)
def test_a_flag_that_is_newer_than_the_cann(atc: Atc, flag: str) -> None:
    """As any flag that there is not; its beginning does not make others ambiguous. The versions are inferred."""
    since = flags.SINCE[flag]
    for cann in ("20.2", "6.0.1", "8.5.0"):
        atc.cann(cann)
        status, _, err = atc(*ARGS, f"--{flag}={flags.DEFAULTS.get(flag, '')}")
        if boards.version_key(cann) < boards.version_key(since):
            assert (status, err.strip()) == (255, f"ERROR: unknown command line flag '{flag}'")
        else:
            assert "unknown command line flag" not in err
    atc.cann("6.0.1")
    assert atc(*ARGS, "--precision_mod=force_fp16")[0] == 0


@pytest.mark.parametrize(("cann", "code"), [("5.0.4", "E10004"), ("7.0.0", "E10054"), ("8.5.0", "E10054")])
def test_required_flags_are_asked_for_in_order(atc: Atc, cann: str, code: str) -> None:
    """CheckFlags: --soc_version, then --output, then --model; E10054 replaced E10004 with CANN 5.1."""
    atc.cann(cann)
    for given, asked in (([], "soc_version"), (["--soc_version=Ascend310"], "output")):
        assert asked in atc.fails(code, "--framework=5", *given)
    assert "model" in atc.fails(code, "--framework=5", "--soc_version=Ascend310", "--output=net")


def test_auto_tune_went_with_cann_6(atc: Atc) -> None:
    """CheckDeprecatedAutoTuneMode; RL,GA were its values up to 5.x (ATC guide)."""
    assert atc(*ARGS, "--auto_tune_mode=RL,GA")[0] == 0
    atc.cann("6.0.0")
    assert "use the AOE tool" in atc.fails("E10001", *ARGS, "--auto_tune_mode=RL,GA")


def test_a_path_that_may_not_be_read_or_written(atc: Atc) -> None:
    """base/common/util.cc CheckInputPathValid and CheckOutputPathValid: E10001 with errno's words."""
    model = atc.folder / "net.onnx"
    model.chmod(0)
    assert "Permission denied" in atc.fails("E10001", *ARGS)
    model.chmod(stat.S_IRUSR | stat.S_IWUSR)
    locked = atc.folder / "locked"
    locked.mkdir(mode=0o500)
    assert "Permission denied" in atc.fails("E10001", *without("output"), "--output=locked/net")
    assert list(locked.iterdir()) == []
    assert atc(*without("output"), "--output=new/folder/net")[0] == 0


def test_an_unknown_chip_on_a_newer_cann_is_an_inner_error(atc: Atc) -> None:
    """Since 8.0 the platform file <soc>.ini is what is missed, after the flags are checked."""
    atc.cann("8.0.0")
    out = atc.fails("E19999", *without("soc_version"), "--soc_version=Ascend311")
    assert "Ascend311.ini" in out


@pytest.mark.parametrize(
    ("cann", "soc", "code"),
    [
        ("20.2", "Ascend310B4", "E10001"),
        ("20.2", "Ascend310P3", "E10001"),
        ("5.1.RC1", "Ascend710", "E10001"),
        ("6.0.1", "Ascend310B1", "E10001"),
        ("8.3.RC1.alpha003", "Ascend310", "E19999"),
        ("9.0.0", "Ascend310", "E19999"),
        ("20.2", "Ascend310", ""),
        ("20.2", "Ascend710", ""),
        ("5.1.RC1", "Ascend310P3", ""),
        ("6.2.RC2", "Ascend310B4", ""),
        ("8.3.RC1.alpha002", "Ascend310", ""),
        ("9.0.0", "Ascend310B4", ""),
    ],
)
def test_a_chip_is_known_from_one_cann_to_another(atc: Atc, cann: str, soc: str, code: str) -> None:
    """The ranges of conf/board: 310 until 8.3.RC1.alpha002 (API pages), the others inferred (optypes.SOC_RANGES)."""
    atc.cann(cann)
    argv = [*without("soc_version"), f"--soc_version={soc}"]
    if code:
        assert soc in atc.fails(code, *argv)
    else:
        status, out, _ = atc(*argv)
        assert (status, out.splitlines()[-1]) == (0, SUCCESS)


def test_frameworks_that_cannot_be_read_are_refused_honestly(atc: Atc) -> None:
    """An AIR (GE ModelDef: name=1 text, version=2 number, graph=7) is named as such; anything else is
    E10041.
    """
    (atc.folder / "net.air").write_bytes(b"\x0a\x03net" + b"\x10\x01" + b"\x3a\x02\x0a\x00")
    out = atc.fails("E10055", "--model=net.air", "--framework=1", "--output=net", "--soc_version=Ascend310")
    assert "simulated ATC" in out
    assert "ONNX" in out
    # MindIR has its producer's name in field 2 (mindspore mind_ir.proto).
    (atc.folder / "net.mindir").write_bytes(b"\x0a\x050.1.0" + b"\x12\x09MindSpore" + b"\x3a\x02\x0a\x00")
    for path in ("net.mindir", "net.onnx"):
        atc.fails("E10041", f"--model={path}", "--framework=1", "--output=net", "--soc_version=Ascend310")
    out = atc.fails("E10055", "--model=net.onnx", "--framework=3", "--output=net", "--soc_version=Ascend310")
    assert "TensorFlow" in out


def test_mode_6_and_display_model_info(atc: Atc) -> None:
    """hicann/ge PrintModelInfo: the block, in its order, before ``...``."""
    atc.cann("8.0.0")
    _, out, _ = atc(*ARGS, "--display_model_info=1")
    assert "============ Display Model Info start ============" in out
    status, out, _ = atc("--mode=6", "--om=net.om")
    lines = out.splitlines()
    assert status == 0
    assert lines[1] == "============ Display Model Info start ============"
    assert lines[2].startswith("Original Atc command line: atc --model=net.onnx")
    assert lines[3] == "system   info: atc_version[8.0.0], soc_version[Ascend310], framework_type[Onnx]."
    assert re.match(r"resource info: memory_size\[\d+ B\], weight_size\[512 B\], stream_num\[1\]", lines[4])
    assert lines[6:] == ["============ Display Model Info end   ============", "...", SUCCESS]


def test_mode_1_writes_json(atc: Atc) -> None:
    """ATC guide --json: version, chip and command line are in the JSON of an om; ONNX models go too."""
    atc(*ARGS)
    assert atc("--mode=1", "--om=net.om", "--json=om.json")[0] == 0
    content = json.loads((atc.folder / "om.json").read_text())
    assert (content["soc_version"], content["atc_version"]) == ("Ascend310", "5.0.4")
    assert "--model=net.onnx" in content["cmdline"]
    assert [op["type"] for op in content["graph"][0]["op"]].count("Conv") == 1
    assert atc("--mode=1", "--om=net.onnx", "--framework=5", "--json=onnx.json")[0] == 0
    assert json.loads((atc.folder / "onnx.json").read_text())["graph"]["node"][0]["opType"] == "Conv"


def test_mode_3_only_reports(atc: Atc) -> None:
    """ATC guide --mode=3: check_result.json, no om."""
    assert atc("--mode=3", "--model=net.onnx", "--framework=5", "--soc_version=Ascend310")[0] == 0
    assert json.loads((atc.folder / "check_result.json").read_text())["result"] == "success"
    save(atc.folder / "odd.onnx", kind="Bernoulli", opset=15)
    atc.fails("E16002", "--mode=3", "--model=odd.onnx", "--framework=5", "--soc_version=Ascend310")
    assert "Bernoulli" in (atc.folder / "check_result.json").read_text()
    assert not list(atc.folder.glob("*.om"))


def test_logs_go_to_files_and_only_on_request_to_stdout(atc: Atc) -> None:
    """ATC guide --log: stdout needs ASCEND_SLOG_PRINT_TO_STDOUT=1 and --log other than null; files below
    $HOME/ascend/log, from CANN 5.1 on in a folder for each kind.
    """
    atc.monkeypatch.setenv("ASCEND_SLOG_PRINT_TO_STDOUT", "1")
    assert "[ERROR]" not in atc(*without("model"), "--model=none")[1]
    assert "[ERROR] GE(" in atc(*without("model"), "--model=none", "--log=error")[1]
    assert "[INFO] GE(" in atc(*ARGS, "--log=info")[1]
    for version, folder in (("5.0.4", "plog"), ("6.0.0", "debug/plog")):
        atc.cann(version)
        atc(*without("model"), "--model=none", "--log=error")
        logs = list((atc.folder / "home" / "ascend" / "log" / folder).glob("plog-*_*.log"))
        assert any("E10001" in log.read_text() for log in logs)


def test_every_message_can_be_filled() -> None:
    """A percent sign or %s in an argument stays what it is; every template takes its arguments."""
    for code, entry in errors.CATALOGUE.items():
        count = entry.message.count("%s")
        text = errors.fill(code, tuple("100%s" for _ in range(count)), brackets=True)
        assert text.count("100%s") == count
    old = errors.block(
        errors.AtcError("E10016", "data", "input_shape"), boards.Board({"cann_version": "7.0.0"})
    )
    assert old.startswith("E10016: Opname [data] specified in [--input_shape] is not found in the model.")


def test_as_a_program(atc: Atc) -> None:
    """The wrapper on PATH runs ``python -m ascend_sim.atc "$@"``; the shell sees 255 for FAILED
    (0xFFFFFFFF).
    """
    environment = {**os.environ, "PYTHONPATH": str(PYTHON), "HOME": str(atc.folder)}
    command = [sys.executable, "-m", "ascend_sim.atc"]
    done = subprocess.run([*command, *ARGS], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, SUCCESS)
    assert omfile.read(atc.folder / "net.om")[0]["soc_version"] == "Ascend310"
    failed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert failed.returncode == 255


def test_without_onnx_it_names_the_missing_module(atc: Atc) -> None:
    """Like a real ATC whose Python lacks decorator or scipy: E40020 and the ImportError's own words."""
    (atc.folder / "onnx.py").write_text("raise ModuleNotFoundError(\"No module named 'onnx'\")\n")
    environment = {**os.environ, "PYTHONPATH": f"{atc.folder}{os.pathsep}{PYTHON}", "HOME": str(atc.folder)}
    command = [sys.executable, "-m", "ascend_sim.atc", *ARGS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert (
        "E40020: Failed to import Python module [[ModuleNotFoundError: No module named 'onnx'.]]."
        in done.stdout
    )
    assert "Traceback" not in done.stderr


def test_every_code_is_provoked_by_a_test() -> None:
    """What nothing raises is no part of the catalogue."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_atc_*.py"))
    assert [code for code in errors.CATALOGUE if f'"{code}"' not in text and f"{code}:" not in text] == []
