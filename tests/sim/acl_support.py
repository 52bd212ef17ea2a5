"""Helpers for the contract tests of the simulated pyACL.

The module under test keeps its state per process, so a test is a program: :func:`run_acl` runs it in a
process
of its own, on the board that the test describes,
    and returns what the program put into ``result``. Programs use the
small library :data:`PRELUDE`, which is written for Python 3.7 like everything on a board.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CANN_PYTHON = Path(__file__).resolve().parents[2] / "toolkit" / "sim" / "cann" / "python"
TESTS = Path(__file__).resolve().parents[1]  # for tests/interpreters.py
for _folder in (CANN_PYTHON, TESTS):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from ascend_sim import omfile  # noqa: E402

FLOAT, FLOAT16, INT8, INT32, UINT8, INT64 = 0, 1, 2, 3, 4, 9
NCHW, NHWC, ND = 0, 1, 2
ONNX_TYPE = {
    FLOAT: TensorProto.FLOAT, FLOAT16: TensorProto.FLOAT16, INT8: TensorProto.INT8, INT32: TensorProto.INT32,
    UINT8: TensorProto.UINT8, INT64: TensorProto.INT64,
}  # fmt: skip

PRELUDE = '''
import acl, json, os, sys, threading, time

def up(device=0, path=None):
    assert (acl.init(path) if path else acl.init()) == 0
    assert acl.rt.set_device(device) == 0

def context_and_stream(device=0):
    context, ret = acl.rt.create_context(device); assert ret == 0, ret
    stream, ret = acl.rt.create_stream(); assert ret == 0, ret
    return context, stream

RC = acl.rt.get_run_mode() == (0, 0)
TO_DEVICE, TO_HOST = (3, 3) if RC else (1, 2)

def malloc(size):
    pointer, ret = acl.rt.malloc(size, 2)
    assert ret == 0, ret
    return pointer

def put(data):
    pointer = malloc(max(1, len(data)))
    if data:
        assert acl.rt.memcpy(pointer, len(data), acl.util.bytes_to_ptr(data), len(data), TO_DEVICE) == 0
    return pointer

def get(pointer, size):
    data = bytes(bytearray(size))
    assert acl.rt.memcpy(acl.util.bytes_to_ptr(data), size, pointer, size, TO_HOST) == 0
    return data

def load(path):
    model, ret = acl.mdl.load_from_file(path)
    assert ret == 0, (ret, acl.get_recent_err_msg())
    desc = acl.mdl.create_desc()
    assert acl.mdl.get_desc(desc, model) == 0
    return model, desc

def dataset(*buffers):
    """buffers: (pointer, size) each."""
    handle = acl.mdl.create_dataset()
    for pointer, size in buffers:
        assert acl.mdl.add_dataset_buffer(handle, acl.create_data_buffer(pointer, size)) == (handle, 0)
    return handle

def output_buffers(desc):
    sizes = [acl.mdl.get_output_size_by_index(desc, i) for i in range(acl.mdl.get_num_outputs(desc))]
    return [(malloc(size), size) for size in sizes]

def drop(handle, memory=True):
    for i in range(acl.mdl.get_dataset_num_buffers(handle)):
        buffer = acl.mdl.get_dataset_buffer(handle, i)
        if memory and acl.get_data_buffer_addr(buffer):
            assert acl.rt.free(acl.get_data_buffer_addr(buffer)) == 0
        assert acl.destroy_data_buffer(buffer) == 0
    assert acl.mdl.destroy_dataset(handle) == 0

def infer(path, *inputs):
    """Load, run once on these bytes, give everything back; the outputs as bytes."""
    model, desc = load(path)
    ins = dataset(*[(put(data), len(data)) for data in inputs])
    outs = output_buffers(desc)
    out_set = dataset(*outs)
    ret = acl.mdl.execute(model, ins, out_set)
    assert ret == 0, (ret, acl.get_recent_err_msg())
    answer = [get(pointer, size) for pointer, size in outs]
    drop(ins); drop(out_set)
    assert acl.mdl.unload(model) == 0 and acl.mdl.destroy_desc(desc) == 0
    return answer

def down(device=0):
    assert acl.rt.reset_device(device) == 0
    assert acl.finalize() == 0

result = {}
'''

_EPILOGUE = """
import base64 as _base64
print("RESULT:" + json.dumps(result, default=lambda o: {"base64": _base64.b64encode(bytes(o)).decode()}))
"""


@dataclass(frozen=True)
class Outcome:
    """A finished program: its ``result``, exit status, output, and the lines of the board's problem log."""

    result: Any
    status: int
    stdout: str
    stderr: str
    problems: list[str]


def run_acl(
    program: str,
    folder: Path,
    board: Mapping[str, Any] | None = None,
    *,
    arguments: Sequence[str | Path] = (),
    python: Path | str = sys.executable,
    prelude: bool = True,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run ``program`` on a board; ``check`` wants status 0 and a result."""
    state = folder / "state"
    description = {"state_dir": str(state), **(board or {})}
    (folder / "board.json").write_text(json.dumps(description), encoding="utf-8")
    text = (PRELUDE if prelude else "import json\nresult = {}\n") + textwrap.dedent(program) + _EPILOGUE
    (folder / "program.py").write_text(text, encoding="utf-8")
    variables = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ACL_", "ASCEND", "PYTHON"))
        },
        "PYTHONPATH": str(CANN_PYTHON),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ASCEND_SIM_BOARD": str(folder / "board.json"),
        "ACL_SIM_THREADS": "1",
        "HOME": str(folder),
        **(environment or {}),
    }
    done = subprocess.run(
        [str(python), str(folder / "program.py"), *map(str, arguments)],
        env=variables, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT:")]
    result = _plain(json.loads(lines[-1][len("RESULT:") :])) if lines else None
    problems = [line for log in sorted(state.glob("acl-*.log")) for line in log.read_text().splitlines()]
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
        assert lines, done.stdout + done.stderr
    for log in state.glob("acl-*.log"):
        log.unlink()
    return Outcome(result, done.returncode, done.stdout, done.stderr, problems)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"base64"}:
            return base64.b64decode(value["base64"])
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------- models


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str]]],
    weights: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """Serialise an ONNX model that every ONNX Runtime since 1.10 reads. Types are aclDataType numbers."""

    def infos(entries: Sequence[tuple[str, int, Sequence[int | str]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, ONNX_TYPE[kind], dims) for name, kind, dims in entries]

    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", infos(inputs), infos(outputs), tensors),
        opset_imports=[helper.make_opsetid("", 13)],
        producer_name="tests",
    )
    model.ir_version = 7
    onnx.checker.check_model(model)
    return model.SerializeToString()


def om_meta(
    inputs: Sequence[tuple[str, int, Sequence[int]]],
    outputs: Sequence[tuple[str, int, Sequence[int]]],
    **more: Any,
) -> dict[str, Any]:
    """The om's description of a model whose tensors are called the same in the graph."""

    def entries(tensors: Sequence[tuple[str, int, Sequence[int]]]) -> list[dict[str, Any]]:
        return [
            {"name": name, "dtype": kind, "format": NCHW if len(dims) == 4 else ND, "dims": list(dims)}
            for name, kind, dims in tensors
        ]

    return {
        "name": "net", "soc_version": "Ascend310", "atc_version": "5.0.4", "cann_version": "5.0.4",
            "framework": 5,
        "cmdline": "atc --model=net.onnx", "precision": "fp32", "inputs": entries(inputs),
            "outputs": entries(outputs),
        "onnx_inputs": [name for name, _, _ in inputs], "onnx_outputs": [name for name, _, _ in outputs],
        "dynamic": None, "aipp": None, "work_size": 4096, "weight_size": 1024, **more,
    }  # fmt: skip


def double_plus_one(dims: Sequence[int | str] = (1, 4)) -> bytes:
    """y = 2x + 1, float32; strings are dynamic axes."""
    return graph(
        [helper.make_node("Mul", ["x", "two"], ["m"]), helper.make_node("Add", ["m", "one"], ["y"])],
        [("x", FLOAT, dims)],
        [("y", FLOAT, dims)],
        {"two": np.array(2, np.float32), "one": np.array(1, np.float32)},
    )


def write_simple(path: Path, **more: Any) -> Path:
    """An om with y = 2x + 1 on [1, 4] float32."""
    omfile.write(path, om_meta([("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], **more), double_plus_one())
    return path


def conv_net(
    channels: int = 8, blocks: int = 2, size: int = 32, classes: int = 10
) -> tuple[bytes, dict[str, Any]]:
    """A small residual network with fixed random weights; (ONNX, om description). Input 1×3×size×size."""
    rng = np.random.default_rng(7)
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def conv(name: str, source: str, fan_in: int, fan_out: int, kernel: int) -> str:
        weights[name + "_w"] = (
            rng.standard_normal((fan_out, fan_in, kernel, kernel)) / (fan_in * kernel)
        ).astype("f")
        weights[name + "_b"] = rng.standard_normal(fan_out).astype("f") * 0.1
        nodes.append(
            helper.make_node("Conv", [source, name + "_w", name + "_b"], [name], pads=[kernel // 2] * 4)
        )
        return name

    current = conv("stem", "x", 3, channels, 3)
    for number in range(blocks):
        first = conv(f"b{number}a", current, channels, channels, 3)
        nodes.append(helper.make_node("Relu", [first], [first + "r"]))
        second = conv(f"b{number}b", first + "r", channels, channels, 3)
        nodes.append(helper.make_node("Add", [second, current], [f"s{number}"]))
        nodes.append(helper.make_node("Relu", [f"s{number}"], [f"o{number}"]))
        current = f"o{number}"
    weights["fc_w"] = rng.standard_normal((channels, classes)).astype("f")
    weights["fc_b"] = np.zeros(classes, "f")
    nodes += [
        helper.make_node("GlobalAveragePool", [current], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc_w", "fc_b"], ["y"]),
    ]
    inputs, outputs = [("x", FLOAT, [1, 3, size, size])], [("y", FLOAT, [1, classes])]
    return graph(nodes, inputs, outputs, weights), om_meta(inputs, outputs)


def reference(model: bytes, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime itself gives, with one thread as the programs have."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))
