"""Release folders for testing the board's inference program: a small real network, packed as an om.

The network is small but takes all of its input into account, so that wrong channels, layouts or constants
change the scores. ONNX Runtime's own numbers for it are the reference.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from toolkit.preprocess import Preprocess, apply, spec_text

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = CHECKOUT / "toolkit" / "onboard" / "infer.py"
SIMULATED_CANN = CHECKOUT / "toolkit" / "sim" / "cann" / "python"
LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

# Numbers of aclDataType and aclFormat.
FLOAT, FLOAT16, UINT8, INT64 = 0, 1, 4, 9
NCHW, NHWC, ND = 0, 1, 2
ONNX_TYPES = {FLOAT: TensorProto.FLOAT, FLOAT16: TensorProto.FLOAT16, UINT8: TensorProto.UINT8}


def network(
    spec: Preprocess,
    *,
    batch: int | str = 1,
    classes: int = 10,
    input_type: int = FLOAT,
    output_type: int = FLOAT,
    last_bias: Sequence[float] = (),
) -> bytes:
    """Return an ONNX model: Conv, Relu, mean over the picture, Gemm; input by ``spec.layout``."""
    height, width = spec.size
    random = np.random.default_rng(5)
    weights = {
        "kernel": random.normal(0, 0.4, (16, 3, 3, 3)),
        "kernel_bias": random.normal(0, 0.1, 16),
        "dense": random.normal(0, 2.0, (16, classes)),
        "dense_bias": np.array(last_bias) if last_bias else random.normal(0, 0.2, classes),
    }
    # Without what all pictures have in common the same class would win for each.
    weights["dense"] -= weights["dense"].mean(axis=0)
    nhwc = spec.aipp or spec.layout == "NHWC"
    dims = [batch, height, width, 3] if nhwc else [batch, 3, height, width]
    nodes, data = [], "data"
    if input_type != FLOAT:
        nodes.append(helper.make_node("Cast", [data], ["floats"], to=TensorProto.FLOAT))
        data = "floats"
    if nhwc:
        nodes.append(helper.make_node("Transpose", [data], ["planes"], perm=[0, 3, 1, 2]))
        data = "planes"
    nodes += [
        helper.make_node("Conv", [data, "kernel", "kernel_bias"], ["c"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "dense", "dense_bias"], ["scores"]),
    ]
    if output_type != FLOAT:
        nodes.append(helper.make_node("Cast", ["scores"], ["cast"], to=ONNX_TYPES[output_type]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("data", ONNX_TYPES[input_type], dims)],
        [helper.make_tensor_value_info(nodes[-1].output[0], ONNX_TYPES[output_type], [batch, classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    # What MindSpore exports, and what the ONNX Runtime for Python 3.7 still reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=4)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def pack_om(
    model: bytes,
    spec: Preprocess,
    *,
    batch: int = 1,
    classes: int = 10,
    input_type: int = FLOAT,
    output_type: int = FLOAT,
    gears: Sequence[int] = (),
) -> bytes:
    """Return ``model`` as the simulated ATC packs it; ``gears`` are the sizes of a dynamic batch."""
    sys.path.insert(0, str(SIMULATED_CANN))
    try:
        from ascend_sim import omfile
    finally:
        sys.path.remove(str(SIMULATED_CANN))
    height, width = spec.size
    nhwc = spec.aipp or spec.layout == "NHWC"
    first = -1 if gears else batch
    dims = [first, height, width, 3] if nhwc else [first, 3, height, width]
    graph = onnx.load_from_string(model).graph
    meta = {
        "name": "small", "soc_version": "Ascend310", "atc_version": "5.0.4", "cann_version": "5.0.4",
        "framework": 5, "cmdline": "atc --model=small.onnx --framework=5", "precision": "fp32",
        "inputs": [{"name": "data", "dtype": input_type, "format": NHWC if nhwc else NCHW, "dims": dims}],
        "outputs": [{"name": "scores", "dtype": output_type, "format": ND, "dims": [first, classes]}],
        "onnx_inputs": ["data"], "onnx_outputs": [graph.output[0].name],
        "dynamic": {"kind": "batch", "gears": list(gears)} if gears else None,
        "aipp": None, "work_size": 4096, "weight_size": len(model),
    }  # fmt: skip
    return bytes(omfile.pack(meta, model))


@dataclasses.dataclass
class Release:
    """A release folder below ``root``, its pictures, and the program run in it."""

    root: Path
    spec: Preprocess
    model: bytes
    input_type: int = FLOAT

    @property
    def folder(self) -> Path:
        return self.root / "release"

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @property
    def out(self) -> Path:
        return self.root / "out"

    def reference(self, names: Sequence[str]) -> np.ndarray:
        """ONNX Runtime's scores for pictures of the folder: float32 [len(names), classes]."""
        session = onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"])
        (data,) = session.get_inputs()
        size = data.shape[0] if isinstance(data.shape[0], int) else 1
        rows = []
        for name in names:
            with Image.open(self.pictures / name) as image:
                ready = apply(image, self.spec)
            fed = np.stack([ready] * size).astype({FLOAT: "f4", FLOAT16: "f2", UINT8: "u1"}[self.input_type])
            rows.append(session.run(None, {data.name: fed})[0][0].astype(np.float32))
        return np.stack(rows)

    def run(
        self,
        *arguments: str | Path,
        board: Mapping[str, Any] | None = None,
        python: str | Path = sys.executable,
        environment: Mapping[str, str] | None = None,
        acl: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run infer.py in a process of its own, on a simulated board that ``board`` describes."""
        (self.root / "board.json").write_text(
            json.dumps({"state_dir": str(self.root / "state"), **(board or {})})
        )
        variables = {
            "PATH": os.environ["PATH"],
            "ASCEND_SIM_BOARD": str(self.root / "board.json"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **({"PYTHONPATH": str(SIMULATED_CANN)} if acl else {}),
            **(environment or {}),
        }
        command = [python, self.folder / "infer.py", "--release", self.folder, "--pictures", self.pictures,
                   "--out", self.out, *arguments]  # fmt: skip
        return subprocess.run(
            [str(part) for part in command], env=variables, capture_output=True, text=True, encoding="utf-8",
            cwd=self.root, check=False, timeout=120,
        )  # fmt: skip

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "results.jsonl").read_text().splitlines()]

    def summary(self) -> dict[str, Any]:
        summary = json.loads((self.out / "summary.json").read_text())
        assert isinstance(summary, dict)
        return summary


def make_release(root: Path, spec: Preprocess, model: bytes, om: bytes, input_type: int = FLOAT) -> Release:
    release = Release(root, spec, model, input_type)
    release.folder.mkdir(parents=True)
    release.pictures.mkdir()
    (release.folder / "model.om").write_bytes(om)
    (release.folder / "spec.json").write_text(spec_text(spec))
    (release.folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (release.folder / "infer.py").write_bytes(PROGRAM.read_bytes())
    return release
