"""The command: flags in, om out. Order of checks after hicann/ge ``api/atc/main_impl.cc``."""

import json
import os
import re
import sys
from typing import Dict, List, Optional, Tuple

from .. import board as boards
from .. import omfile
from . import errors, flags, inspect_om, paths, shapes
from .errors import AtcError
from .log import Log
from .optypes import NANO_SOC_VERSIONS, SOC_RANGES, SOC_VERSIONS

FAILED = 255
_MODE_HELP = (
    "The value must be selected from the following: 0(model to framework model), 1(framework model to json), "
    "3(only pre-check), 5(pbtxt to json), 6(display model info), 7(convert a model to the OM2 format), "
    "30(model to execute-om for nano, an .om file for nano chips)."
)
_SIMULATED = "this is a simulated ATC, which {}. Export the network as ONNX ({}) and use --framework=5"
_FORMATS = {
    0: (("NCHW", "ND"), "The value must be NCHW or ND in Caffe model."),
    3: (
        ("NCHW", "NHWC", "ND", "NCDHW", "NDHWC"),
        "The value must be NCHW, NHWC, ND, NCDHW or NDHWC in TF model.",
    ),
    5: (("NCHW", "ND", "NCDHW"), "The value must be NCHW, ND or NCDHW in ONNX model."),
}


def main(argv: List[str]) -> int:
    """Run ATC with ``argv`` (without the program's name); return its exit status: 0, or 255 for any
    failure.
    """
    _say("ATC start working now, please wait for a moment.")
    board = boards.load()
    try:
        line = flags.parse(argv, board)
    except flags.UsageError as problem:
        for text in problem.lines:
            sys.stderr.write("ERROR: {}\n".format(text))
        return _failed(errors.unknown_block())
    except AtcError as error:
        return _failed(errors.block(error, board))
    if line.help:
        _say(flags.HELP)
        return 0
    log = Log(line.values["log"])
    try:
        warnings = _run(line, argv, board, log)
    except AtcError as error:
        log.write("error", str(error))
        _say("...")
        status = _failed(errors.block(error, board))
    else:
        _say("...")
        _say("ATC run success, welcome to the next use.")
        for warning in warnings:
            _say(warning)
        status = 0
    log.close()
    return status


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _failed(block: str) -> int:
    _say("ATC run failed, Please check the detail log, Try 'atc --help' for more information")
    _say(block)
    return FAILED


def _run(line: flags.CommandLine, argv: List[str], board: boards.Board, log: Log) -> List[str]:
    values = line.values
    _check_auto_tune(values["auto_tune_mode"], board)
    if values["singleop"]:
        raise AtcError("E10055", "this is a simulated ATC, which has no single operator models (--singleop)")
    mode, framework = int(values["mode"]), int(values["framework"])
    if mode == 1 and framework not in (-1, 0, 3, 5):
        reason = (
            "The framework must be selected from {0(Caffe), 3(TensorFlow), 5(Onnx)} when model is set to "
            "1(JSON)."
        )
        raise AtcError("E10001", framework, "--framework", reason)
    if values["weight"]:
        paths.check_input(values["weight"], "--weight")
    if mode in (0, 3, 30):
        if framework == -1:
            raise AtcError("E10007", "framework", flags.FRAMEWORKS)
        if framework == 0 and not values["weight"]:
            raise AtcError("E10008")
    _check_nano(values["soc_version"], mode)
    if mode == 6:
        return _display(values)
    if mode == 1:
        return _to_json(values, framework)
    if mode in (5, 7):
        raise AtcError("E10055", "this is a simulated ATC, which has no --mode={}".format(mode))
    _check_format(values, framework)
    return _generate(line, argv, board, log)


def _check_auto_tune(value: str, board: boards.Board) -> None:
    if not value:
        return
    if board.cann_at_least("6.0.RC1"):
        reason = "The Auto Tune function has been deprecated. Please use the AOE tool for tuning."
        raise AtcError("E10001", value, "--auto_tune_mode", reason)
    if not set(re.split(r"\s*,\s*", value)) <= {"RL", "GA"}:
        raise AtcError("E10001", value, "--auto_tune_mode", 'The value must be "RL", "GA" or "RL,GA".')


def _check_nano(soc: str, mode: int) -> None:
    if mode == 30 and soc not in NANO_SOC_VERSIONS:
        names = " ".join(NANO_SOC_VERSIONS)
        raise AtcError("E10055", "Option soc_version {}  and mode 30 must be set together".format(names))
    if soc in NANO_SOC_VERSIONS:
        if mode != 30:
            raise AtcError("E10055", "Option soc_version {} and mode 30 must be set together".format(soc))
        raise AtcError("E10055", "this is a simulated ATC, which has no --mode=30")


def _display(values: Dict[str, str]) -> List[str]:
    if not values["om"]:
        raise AtcError("E10004", "om")
    paths.check_input(values["om"], "--om")
    if values["framework"] != "-1":
        raise AtcError("E10057", "om", "mode")
    sys.stdout.write(inspect_om.display(values["om"]))
    return []


def _to_json(values: Dict[str, str], framework: int) -> List[str]:
    for flag in ("om", "json"):
        if not values[flag]:
            raise AtcError("E10004", flag)
    paths.check_input(values["om"], "--om")
    paths.check_output(values["json"], "--json")
    if framework in (0, 3):
        raise AtcError("E10055", "this is a simulated ATC, which reads no Caffe or TensorFlow models")
    if framework == 5:
        _import_onnx()
        inspect_om.onnx_to_json(values["om"], values["json"])
    else:
        inspect_om.om_to_json(values["om"], values["json"])
    return []


def _check_format(values: Dict[str, str], framework: int) -> None:
    chosen = values["input_format"]
    if chosen and framework in _FORMATS and chosen not in _FORMATS[framework][0]:
        raise AtcError("E10001", chosen, "--input_format", _FORMATS[framework][1])


def _required(flag: str, value: str, board: boards.Board) -> None:
    if not value:
        if board.cann_at_least("5.1.RC1"):
            raise AtcError("E10054", "--" + flag)
        raise AtcError("E10004", flag)


def _check_flags(
    values: Dict[str, str], mode: int, board: boards.Board
) -> Tuple[shapes.Shapes, Optional[shapes.Gears]]:
    _required("soc_version", values["soc_version"], board)
    if mode == 0:
        _required("output", values["output"], board)
    _required("model", values["model"], board)
    paths.check_input(values["model"], "--model")
    if mode == 0:
        paths.check_file_name(values["output"])
        paths.check_output(values["output"] + ".om", "--output")
    if values["optypelist_for_implmode"] and not values["op_select_implmode"]:
        reason = "Parameters --op_select_implmode and --optypelist_for_implmode must be set at the same time."
        raise AtcError("E10001", values["op_select_implmode"], "--op_select_implmode", reason)
    if values["op_precision_mode"]:
        paths.check_input(values["op_precision_mode"], "--op_precision_mode")
    _check_precision(values)
    known = shapes.check(values, board.cann_at_least("8.5.0"))
    if values["insert_op_conf"] and values["dynamic_dims"]:
        reason = "The dynamic dims function does not support AIPP."
        raise AtcError("E10001", values["insert_op_conf"], "--insert_op_conf", reason)
    for flag in ("cal_conf", "op_name_map", "insert_op_conf", "compress_weight_conf"):
        if values[flag]:
            paths.check_input(values[flag], "--" + flag)
    if values["enable_compress_weight"] not in ("", "true", "false"):
        raise AtcError("E10005", values["enable_compress_weight"], "enable_compress_weight")
    if values["enable_compress_weight"] == "true" and values["compress_weight_conf"]:
        raise AtcError("E10047", "enable_compress_weight", "compress_weight_conf")
    if values["keep_dtype"]:
        paths.check_input(values["keep_dtype"], "--keep_dtype")
    paths.check_output(values["check_report"], "--check_report")
    for flag in ("save_original_model", "enable_single_stream", "allow_hf32", "enable_attr_compression"):
        if values[flag].lower() not in ("", "true", "false"):
            raise AtcError("E10005", values[flag], flag)
    for flag in ("ac_parallel_enable", "tiling_schedule_optimize", "quant_dumpable", "enable_small_channel"):
        if values[flag] not in ("", "0", "1"):
            raise AtcError("E10006", values[flag], flag)
    for flag in ("is_input_adjust_hw_layout", "is_output_adjust_hw_layout"):
        switches = [part.strip().lower() for part in values[flag].split(",")] if values[flag] else []
        if any(switch not in ("true", "false") for switch in switches):
            raise AtcError("E10005", values[flag], flag)
        if "true" in switches:
            raise AtcError(
                "E10055",
                "this is a simulated ATC, which has no NC1HWC0 inputs or outputs (--{})".format(flag),
            )
    _check_output_type(values["output_type"])
    _check_host(values)
    _check_lower_limit(values["static_model_ops_lower_limit"])
    return known


def _check_host(values: Dict[str, str]) -> None:
    """The system that the om's own code is for; CANN's operators come for Linux on both processors."""
    reason = (
        "The {0} {1} is not within the support list of {{{2}}}, and the {0} type must be consistent with that of "
        "the opp."
    )
    for flag, kind, known in (("host_env_os", "OS", ("linux",)), ("host_env_cpu", "CPU", ("aarch64", "x86_64"))):
        if values[flag] and values[flag] not in known:
            listed = "".join(name + " / " for name in known)
            raise AtcError("E10001", values[flag], "--" + flag, reason.format(kind, values[flag], listed))


def _check_lower_limit(value: str) -> None:
    """option_utils.cc CheckValidValueRange: what is no number is an inner error."""
    if not value:
        return
    if not re.match(r"^-?[0-9]+$", value):
        raise AtcError("E19999", "Invalid value[{}]".format(value))
    highest = 2**63 - 1
    if not -1 <= int(value) <= highest:
        reason = "The current value is not within the valid range. The valid range is [-1,{}].".format(highest)
        raise AtcError("E10001", value, "--static_model_ops_lower_limit", reason)


def _check_precision(values: Dict[str, str]) -> None:
    if values["is_weight_clip"] not in ("0", "1"):
        raise AtcError("E10006", values["is_weight_clip"], "is_weight_clip")
    first, second = values["precision_mode"], values["precision_mode_v2"]
    if first and second:
        raise AtcError("E10056", "--precision_mode", "--precision_mode_v2")
    if values["modify_mixlist"]:
        paths.check_input(values["modify_mixlist"], "--modify_mixlist")
        if not (first.startswith("allow_mix_precision") or second.startswith("mixed_")):
            reason = (
                "Modify_mixlist is set. Please ensure that precision_mode is set to any of "
                "{allow_mix_precision, "
                "allow_mix_precision_fp16, allow_mix_precision_bf16(if available}."
            )
            raise AtcError("E10001", values["modify_mixlist"], "--modify_mixlist", reason)


def _check_output_type(text: str) -> None:
    kinds = re.findall(r"\w+", "FP32 FP16 UINT8 INT8 INT16 UINT16 INT32 UINT32 INT64 UINT64 DOUBLE")
    if text and ":" not in text and text not in kinds:
        reason = "The current value is not within the valid range. Only support {}.".format(", ".join(kinds))
        raise AtcError("E10001", text, "--output_type", reason)


def _knows(board: boards.Board, soc: str) -> bool:
    """Whether the CANN of ``board`` has a platform description of ``soc``."""
    for beginning, since, before in SOC_RANGES:
        if soc.startswith(beginning):
            return not (since and not board.cann_at_least(since)) and not (before and board.cann_at_least(before))
    return True


def _check_soc(soc: str, board: boards.Board) -> None:
    """ATC looks for the chip's platform description when it starts its engines, after all flags are
    checked.
    """
    known = sorted(name for name in SOC_VERSIONS if _knows(board, name))
    if soc in known:
        return
    if board.cann_at_least("8.0.RC1"):
        raise AtcError(
            "E19999",
            "[Init][PlatformInfo] failed, soc_version {}: platform config file {}.ini is not found.".format(
                soc, soc
            ),
            trace=("GE initialize failed!",),
        )
    reason = "The value must be one of {}".format(", ".join(known))
    raise AtcError("E10001", soc, "--soc_version", reason)


def _import_onnx() -> None:
    try:
        import onnx  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise AtcError("E40020", "[{}: {}.]".format(type(error).__name__, error))


def _generate(line: flags.CommandLine, argv: List[str], board: boards.Board, log: Log) -> List[str]:
    values = line.values
    mode, framework = int(values["mode"]), int(values["framework"])
    known_shapes, gears = _check_flags(values, mode, board)
    _check_soc(values["soc_version"], board)
    switches = values["fusion_switch_file"]
    if switches and not (os.path.isfile(switches) and os.path.getsize(switches)):
        raise AtcError("E21001", switches)  # fusion_config_parser.cc: missing or empty
    if values["oo_level"] not in ("O1", "O3"):
        raise AtcError("E10001", values["oo_level"], "--oo_level", "The value must be O1 or O3.")
    if framework != 5:
        _refuse(framework, values["model"])
    _import_onnx()
    from . import convert, onnx_model, precision

    chosen = values["precision_mode"] or values["precision_mode_v2"]
    if chosen in precision.UNSUPPORTED_MODES:
        flag = "--precision_mode" if values["precision_mode"] else "--precision_mode_v2"
        reason = "{} has no such data type, or this simulated ATC has not.".format(values["soc_version"])
        raise AtcError("E10001", chosen, flag, reason)
    if mode == 3:
        return _precheck(values, onnx_model)
    policy = precision.Policy(
        precision.POLICIES[chosen], _keep_dtype(values["keep_dtype"]), values["is_weight_clip"] == "1"
    )
    target = values["output"] + ".om"
    options = convert.Options(
        model=values["model"],
        shapes=known_shapes,
        gears=gears,
        input_format=values["input_format"],
        insert_op_conf=values["insert_op_conf"],
        out_nodes=values["out_nodes"],
        output_type=values["output_type"],
        input_fp16_nodes=tuple(
            part.strip() for part in values["input_fp16_nodes"].split(";") if part.strip()
        ),
        keep_dtype=values["keep_dtype"],
        policy=policy,
        soc_version=values["soc_version"],
        version=board.cann_version,
        cmdline=" ".join(["atc"] + argv),
        name=os.path.basename(values["output"]),
    )
    log.write("info", "[Convert]model {} to {}".format(options.model, target))
    result = convert.convert(options)
    if values["compression_optimize_conf"]:
        # AMCT, which would quantise the parsed network, is a package of its own.
        missing = "libamctacl.so: cannot open shared object file: No such file or directory"
        reason = "AMCT is not installed, error: " + missing
        raise AtcError("E10001", values["compression_optimize_conf"], "--compression_optimize_conf", reason)
    try:
        omfile.write(target, result.meta, result.model)
    except OSError as error:
        raise AtcError("E13004", target, error.strerror)
    _write_fusion_result(result.passes)
    if int(values["op_debug_level"]):
        os.makedirs(values["debug_dir"] or "kernel_meta", exist_ok=True)
    log.write("event", "ATC generate offline model success.", "run")
    if values["display_model_info"] == "1":
        sys.stdout.write(inspect_om.display(target))
    return []


def _refuse(framework: int, path: str) -> None:
    """Frameworks that the simulator can't read: an honest answer, after the one the real tool would have
    given.
    """
    if framework == 1:
        if not _looks_like_air(path):
            raise AtcError("E10041", path)
        how = 'mindspore.export(net, inputs, file_name="net", file_format="ONNX")'
        raise AtcError("E10055", _SIMULATED.format("cannot read MindSpore AIR files", how))
    name = "Caffe" if framework == 0 else "TensorFlow"
    raise AtcError("E10055", _SIMULATED.format("cannot read {} models".format(name), "tf2onnx or the like"))


def _looks_like_air(path: str) -> bool:
    """Whether the file's protobuf fields are those of an AIR.

    AIR is GE's ModelDef: name (1, text), version (2, a number), graph (7). MindIR has its producer's name, a
    text, in field 2; ONNX a number in field 1.
    """
    with open(path, "rb") as stream:
        data = stream.read(1 << 16)
        size = os.fstat(stream.fileno()).st_size
    found = {}  # type: Dict[int, int]
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        field, wire = key >> 3, key & 7
        if not field or wire not in (0, 1, 2, 5):
            return False
        found.setdefault(field, wire)
        if wire == 0:
            _, position = _varint(data, position)
        elif wire == 2:
            length, position = _varint(data, position)
            position += length
        else:
            position += 8 if wire == 1 else 4
        if position > size:
            return False
    return found.get(1, 2) == 2 and found.get(2, 0) == 0 and found.get(7) == 2


def _varint(data: bytes, position: int) -> Tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return value, position


def _keep_dtype(path: str) -> Tuple[str, ...]:
    """Node names, and ``OpType::Type`` for all nodes of a type, one a line."""
    if not path:
        return ()
    with open(path, encoding="utf-8") as stream:
        lines = [line.split("#")[0].strip() for line in stream]
    return tuple(line for line in lines if line)


def _precheck(values: Dict[str, str], onnx_model: object) -> List[str]:
    """``--mode=3``: read the model, write what has no parser to the report."""
    problem = None  # type: Optional[AtcError]
    entries = []  # type: List[Dict[str, str]]
    try:
        onnx_model.load(values["model"])  # type: ignore[attr-defined]
    except AtcError as error:
        problem = error
        entries = [{"error": text, "result": "failed"} for text in error.trace or (str(error),)]
    report = {
        "framework": "Onnx",
        "model": values["model"],
        "op": entries,
        "result": "failed" if problem else "success",
    }
    with open(values["check_report"], "w", encoding="utf-8") as stream:
        json.dump(report, stream, indent=4, sort_keys=True)
        stream.write("\n")
    if problem:
        raise problem
    return []


def _write_fusion_result(passes: Dict[str, int]) -> None:
    """``fusion_result.json`` in the working directory: which passes matched and took effect, how often."""
    counts = {name: {"effect_times": str(count), "match_times": str(count)} for name, count in passes.items()}
    content = [{"graph_fusion": counts, "session_and_graph_id": "0_0", "ub_fusion": {}}]
    try:
        with open("fusion_result.json", "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=4, sort_keys=True)
            stream.write("\n")
    except OSError:
        # Like the real tool: a working directory that can't be written to costs the report, not the model.
        pass
