"""The command line of ATC: which flags there are, and how it reads them.

The real tool hands its arguments to ``getopt_long``, so ``--flag=value`` and ``--flag value`` both work, a
unique beginning of a name does for the name, ``-flag`` means ``--flag`` and ``--soc-version`` means
``--soc_version`` (hicann/ge ``api/atc/cmd_flag_info.cc``, ``api/atc/atc_flags.cc``).
"""

import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from .. import board as boards
from .errors import AtcError

# Flag -> default. Those that are bool on the real command line take no detached value.
DEFAULTS = {
    "model": "", "output": "", "framework": "-1", "weight": "", "input_shape": "", "input_hint_shape": "",
    "input_shape_range": "", "cal_conf": "", "insert_op_conf": "", "op_name_map": "", "target": "", "om": "",
    "json": "", "mode": "0", "out_nodes": "", "op_precision_mode": "", "allow_hf32": "", "precision_mode": "",
    "precision_mode_v2": "", "modify_mixlist": "", "keep_dtype": "", "input_format": "",
    "check_report": "check_result.json", "input_fp16_nodes": "", "is_output_adjust_hw_layout": "",
    "is_input_adjust_hw_layout": "", "output_type": "", "op_select_implmode": "",
    "optypelist_for_implmode": "",
    "singleop": "", "disable_reuse_memory": "0", "auto_tune_mode": "", "jit_compile": "1",
    "optimization_switch": "", "static_model_ops_lower_limit": "", "raw_ge_options": "", "soc_version": "",
    "virtual_type": "0", "core_type": "AiCore", "aicore_num": "", "buffer_optimize": "l2_optimize",
    "fusion_switch_file": "", "compression_optimize_conf": "", "customize_dtypes": "", "op_debug_config": "",
    "save_original_model": "", "dynamic_batch_size": "", "dynamic_image_size": "", "dynamic_dims": "",
    "enable_small_channel": "0", "enable_compress_weight": "false", "enable_attr_compression": "true",
    "compress_weight_conf": "", "sparsity": "0", "enable_single_stream": "", "ac_parallel_enable": "0",
    "tiling_schedule_optimize": "0", "log": "null", "dump_mode": "0", "op_debug_level": "0",
    "enable_scope_fusion_passes": "", "debug_dir": "", "status_check": "0", "op_compiler_cache_dir": "",
    "op_compiler_cache_mode": "disable", "mdl_bank_path": "", "op_bank_path": "", "display_model_info": "0",
    "device_id": "0", "shape_generalized_build_mode": "shape_precise", "atomic_clean_policy": "0",
    "external_weight": "0", "deterministic": "0", "deterministic_level": "0", "host_env_os": "",
    "host_env_cpu": "", "cluster_config": "", "hccl_sub_comm_config": "", "quant_dumpable": "",
    "is_weight_clip": "1", "oo_level": "O3", "build_config": "", "ddk_version": "",
}  # type: Dict[str, str]  # fmt: skip
BOOLS = {"help": "false", "raw_ge_options_ignore_unsupported": "false"}

# Flags that older CANNs do not have, and the first that is taken to have them; the others are always there. All
# inferred: the GE sources published first (8.5) do not have those of 9.0; the ATC guide of 8.0 is the oldest one seen
# with --oo_level and --is_weight_clip; what is known of CANN 5 (GraphEngine's atc/main.cc) has no second precision mode.
SINCE = {
    "precision_mode_v2": "6.3.RC1", "oo_level": "8.0.RC1", "is_weight_clip": "8.0.RC1", "build_config": "9.0.0",
    "hccl_sub_comm_config": "9.0.0", "jit_compile": "9.0.0", "optimization_switch": "9.0.0", "raw_ge_options": "9.0.0",
    "raw_ge_options_ignore_unsupported": "9.0.0", "static_model_ops_lower_limit": "9.0.0",
}  # fmt: skip

PRECISION_MODES = (
    "force_fp16", "force_fp32", "cube_fp16in_fp32out", "allow_mix_precision", "allow_fp32_to_fp16",
    "must_keep_origin_dtype", "allow_mix_precision_fp16", "allow_mix_precision_bf16", "allow_fp32_to_bf16",
)  # fmt: skip
PRECISION_MODES_V2 = (
    "fp16", "origin", "cube_fp16in_fp32out", "mixed_float16", "mixed_bfloat16", "cube_hif8", "mixed_hif8",
)  # fmt: skip

_RANGES = {
    "sparsity": ("0", "1"),
    "dump_mode": ("0", "1"),
    "virtual_type": ("0", "1"),
    "status_check": ("0", "1"),
    "deterministic": ("0", "1"),
    "deterministic_level": ("0", "1", "2"),
    "external_weight": ("0", "1", "2"),
    "display_model_info": ("0", "1"),
    "atomic_clean_policy": ("0", "1"),
    "disable_reuse_memory": ("0", "1"),
    "framework": ("0", "1", "3", "5"),
    "op_debug_level": ("0", "1", "2", "3", "4"),
    "mode": ("0", "1", "3", "30", "5", "6", "7"),
    "core_type": ("AiCore", "VectorCore"),
    "log": ("debug", "error", "info", "null", "warning"),
    "op_compiler_cache_mode": ("disable", "enable", "force"),
    "buffer_optimize": ("l1_optimize", "l2_optimize", "off_optimize"),
    "shape_generalized_build_mode": ("shape_generalized", "shape_precise"),
    "op_select_implmode": (
        "high_performance", "high_performance_for_all", "high_precision", "high_precision_for_all",
    ),
    "precision_mode": tuple(sorted(PRECISION_MODES)),
    "precision_mode_v2": tuple(sorted(PRECISION_MODES_V2)),
}  # type: Dict[str, Tuple[str, ...]]  # fmt: skip
_ONE_OR_ZERO = {
    "status_check", "deterministic", "external_weight", "display_model_info", "atomic_clean_policy",
    "dump_mode",
    "disable_reuse_memory", "sparsity",
}  # fmt: skip
FRAMEWORKS = "0(Caffe) or 1(MindSpore) or 3(TensorFlow) or 5(Onnx)"
_TRUE, _FALSE = {"", "1", "t", "true", "y", "yes"}, {"0", "f", "false", "n", "no"}


class UsageError(Exception):
    """The command line could not be read; the text goes to stderr after ``ERROR: ``, one line each."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        super().__init__("; ".join(lines))


class CommandLine(NamedTuple):
    """``values``: every flag, by name. ``given``: the flags that the user set. ``help``: --help was there."""

    values: Dict[str, str]
    given: Tuple[str, ...]
    help: bool


def parse(argv: List[str], board: boards.Board) -> CommandLine:
    """Read ``argv`` (without the program's name) as the CANN of ``board`` does.

    Raises UsageError for what getopt refuses, AtcError (E10001, E10006, E10007, E10010, E10003) for a value
    outside its range.
    """
    values = dict(DEFAULTS)
    given = []  # type: List[str]
    rest = []  # type: List[str]
    names = [flag for flag in (*DEFAULTS, *BOOLS) if flag not in SINCE or board.cann_at_least(SINCE[flag])]
    arguments = [_normalised(argument) for argument in argv]
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == "--":
            rest += arguments[position:]
            break
        if argument == "-h":
            return CommandLine(values, tuple(given), True)
        if argument.startswith("-") and not argument.startswith("--") and len(argument) > 1:
            raise UsageError("unknown command line flag '{}'".format(_bare(argument)))
        if not argument.startswith("--"):
            rest.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        flag = _find(name, names)
        if flag is None:
            raise UsageError("unknown command line flag '{}'".format(_bare(argument)))
        if flag in BOOLS:
            if value.lower() not in _TRUE | _FALSE:
                raise AtcError("E10003", value, flag, "The value type must be [bool].")
            if flag == "help" and value.lower() in _TRUE:
                return CommandLine(values, tuple(given), True)
            continue
        if not equals:
            if position >= len(arguments):
                raise UsageError("flag '{}' is missing its argument".format(argument))
            value = arguments[position]
            position += 1
        _check_range(flag, value)
        values[flag] = value
        given.append(flag)
    if rest:
        raise UsageError(*["Non-option parameter: {}".format(argument) for argument in rest])
    return CommandLine(values, tuple(given), False)


def _normalised(argument: str) -> str:
    argument = re.sub(r"^-(?=[A-Za-z]{2,})", "--", argument)
    if re.match(r"^--(?=[A-Za-z]{2,})", argument):
        name, equals, value = argument[2:].partition("=")
        argument = "--" + name.replace("-", "_") + equals + value
    return argument


def _bare(argument: str) -> str:
    return re.sub(r"^-+|=.*", "", argument, flags=re.DOTALL)


def _find(name: str, names: List[str]) -> Optional[str]:
    if name == "h":
        return "help"
    if name in names:
        return name
    # getopt_long takes an abbreviation that only one name begins with.
    beginnings = [flag for flag in names if name and flag.startswith(name)]
    return beginnings[0] if len(beginnings) == 1 else None


def _check_range(flag: str, value: str) -> None:
    allowed = _RANGES.get(flag)
    if allowed is None or value in allowed:
        return
    if flag in _ONE_OR_ZERO:
        raise AtcError("E10006", value, flag)
    if flag == "log":
        raise AtcError("E10010", value)
    if flag == "framework":
        raise AtcError("E10007", "framework", FRAMEWORKS)
    listed = "".join("[{}] ".format(choice) for choice in allowed)
    reason = "The value is not within the range of values. The valid range is {}.".format(listed)
    raise AtcError("E10001", value, "--" + flag, reason)


HELP = """\
usage: atc <args>
generate offline model example:
atc --model=./alexnet.prototxt --weight=./alexnet.caffemodel --framework=0 --output=./domi \
--soc_version=<soc_version>

===== Basic Functionality =====
[General]
  --h/help            Show this help message
  --mode              Run mode.
                       0: default, generate offline model;
                       1: convert model to JSON format;
                       3: only pre-check;
                       5: convert ge dump txt file to JSON format;
                       6: display model info;
                       30: convert original graph to execute-om for nano(offline model)

[Input]
  --model             Model file
  --weight            Weight file. Required when framework is Caffe
  --om                The model file to be converted to json
  --framework         Framework type. 0:Caffe; 1:MindSpore; 3:Tensorflow; 5:Onnx
  --input_format      Format of input data. E.g.: "NCHW"
  --input_shape       Shape of static input data or shape range of dynamic input. Separate multiple nodes \
with \
semicolons (;). Use double quotation marks (") to enclose each argument.
                      E.g.: "input_name1:n1,c1,h1,w1;input_name2:n2,c2,h2,w2"
  --dynamic_batch_size Set dynamic batch size. E.g.: "batchsize1,batchsize2,batchsize3"
  --dynamic_image_size Set dynamic image size. Separate multiple nodes with semicolons (;).
                       E.g.: "imagesize1_height,imagesize1_width;imagesize2_height,imagesize2_width"
  --dynamic_dims      Set dynamic dims. Separate multiple nodes with semicolons (;).
                       E.g.: "dims1_n1,dims1_n2;dims2_n1,dims2_n2"

[Output]
  --output            Output file path&name(needn't suffix, will add .om automatically).
  --output_type       Set net output type. Support FP32, FP16, UINT8, INT8. E.g.: FP16, indicates that all \
out nodes \
are set to FP16.
                      "node1:0:FP16;node2:1:FP32", indicates setting the datatype of multiple out nodes.
  --check_report      The pre-checking report file. Default value is: "check_result.json"
  --json              The output json file path&name which is converted from a model

[Target]
  --soc_version       The soc version.
  --core_type         Set core type AiCore or VectorCore. Default value is: AiCore

===== Advanced Functionality =====
[Feature]
  --out_nodes         Output nodes designated by users. E.g.: "node_name1:0;node_name1:1;node_name2:0"
  --input_fp16_nodes  Input node datatype is fp16. E.g.: "node_name1;node_name2"
  --insert_op_conf    Config file to insert new op

[Operator Tuning]
  --precision_mode        precision mode, support force_fp16(default), force_fp32, cube_fp16in_fp32out, \
allow_mix_precision, allow_fp32_to_fp16, must_keep_origin_dtype, allow_mix_precision_fp16, \
allow_mix_precision_bf16, \
allow_fp32_to_bf16.
  --precision_mode_v2     precision mode v2, support fp16(default), origin, cube_fp16in_fp32out, \
mixed_float16, \
mixed_bfloat16, cube_hif8, mixed_hif8.
  --keep_dtype            Retains the precision of certain operators in inference scenarios by using a \
configuration file.
  --is_weight_clip        Ensure weight is finite by clipped when its datatype is floating-point data, 0: \
disable; \
1(default): enable.

[Debug]
  --log                   Generate log with level. Support debug, info, warning, error, null(default)
  --debug_dir             Set the save path of operator compilation intermediate files. Default value: \
./kernel_meta
  --op_debug_level        Debug enable for TBE operator building. 0 (default) to 4.
  --display_model_info    enable for display model info; 0(default): close display, 1: open display.

This is a simulated ATC. It knows every flag of the real one; those that only steer tuning, compilation or \
caches
are checked and have no effect.
"""
