"""The command lines of AMCT (quantising) and AOE (tuning), CANN's companions of ATC.

Sources: "Command-line options" of AMCT (hiascend.com, CANN 8.0 atlasamct_16_0337, CANN 7.0
atlasamctonnx_16_0032) and uses in Ascend's ModelZoo; "Introduction to AOE" (CANN 8.5,
auxiliarydevtool_aoe_0002) and TUNE_BANK_PATH (CANN 8.5, envref_07_0104).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DEPLOYABLE = "_deploy_model.onnx"
"""What AMCT adds to ``--save_path`` for the model that ATC takes; the other one (``_fake_quant_model.onnx``)
is for checking accuracy with ONNX Runtime."""

BANK_VARIABLE = "TUNE_BANK_PATH"
"""Where AOE keeps what it found out, and ATC looks for it."""

# What AOE takes over from ATC; it asks the device, not --soc_version, what to tune for.
AOE_FLAGS = (
    "model",
    "weight",
    "framework",
    "output",
    "input_shape",
    "input_format",
    "dynamic_batch_size",
    "dynamic_image_size",
    "dynamic_dims",
    "insert_op_conf",
    "output_type",
    "out_nodes",
    "input_fp16_nodes",
    "precision_mode",
    "op_select_implmode",
    "optypelist_for_implmode",
    "fusion_switch_file",
    "disable_reuse_memory",
    "buffer_optimize",
    "compression_optimize_conf",
    "virtual_type",
    "log",
)


def amct_command(
    model: str,
    save_path: str,
    name: str,
    shape: Sequence[int],
    data_dir: str,
    batches: int,
    config: str = "",
) -> list[str]:
    """``amct_onnx calibration``: int8 from an ONNX model and calibration data, files of float32 ``shape``."""
    argv = ["amct_onnx", "calibration", f"--model={model}", f"--save_path={save_path}"]
    argv += [f"--input_shape={name}:{','.join(map(str, shape))}", f"--data_dir={data_dir}"]
    argv += ["--data_types=float32", f"--batch_num={batches}"]
    return argv + ([f"--calibration_config={config}"] if config else [])


def aoe_command(job_type: int, flags: Mapping[str, str]) -> list[str]:
    """``aoe``: tune a model's subgraphs (1) or operators (2) on the device of this machine."""
    kept = [f"--{name}={flags[name]}" for name in AOE_FLAGS if name in flags]
    return ["aoe", f"--job_type={job_type}", *kept]
