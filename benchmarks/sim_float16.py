"""What float16 costs on a simulated board: the om's model against the ONNX model it came from.

Run it: ``python benchmarks/sim_float16.py``. Both run in ONNX Runtime's CPU provider with the same number of
threads; the numbers are the best of several runs. The target: at most three times the float32 time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIMULATED = Path(__file__).resolve().parents[1] / "toolkit" / "sim" / "cann" / "python"
LIMIT = 3.0


def resnet(blocks: tuple[int, ...], width: int, size: int, classes: int) -> onnx.ModelProto:
    """Bottleneck ResNet with batch normalisation and random weights; input ``x`` [N,3,size,size], output
    ``y``.
    """
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(array: np.ndarray) -> str:
        name = f"w{len(weights)}"
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(kind: str, inputs: list[str], **attributes: object) -> str:
        output = f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{len(nodes)}", **attributes))
        return output

    def conv(value: str, inside: int, outside: int, kernel: int, stride: int) -> str:
        scale = np.sqrt(2 / (inside * kernel * kernel))
        filters = constant(rng.normal(size=(outside, inside, kernel, kernel)) * scale)
        value = node(
            "Conv", [value, filters], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4
        )
        mean = rng.normal(size=outside) * 0.1
        statistics = [rng.uniform(0.3, 0.7, outside), mean, mean, rng.uniform(0.8, 1.2, outside)]
        return node("BatchNormalization", [value] + [constant(item) for item in statistics])

    channels = width
    value = node("Relu", [conv("x", 3, width, 7, 2)])
    value = node("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            shortcut = value
            value = node("Relu", [conv(value, channels, inner, 1, 1)])
            value = node("Relu", [conv(value, inner, inner, 3, stride)])
            value = conv(value, inner, inner * 4, 1, 1)
            if not block:
                shortcut = conv(shortcut, channels, inner * 4, 1, stride)
            value = node("Relu", [node("Add", [value, shortcut])])
            channels = inner * 4
    value = node("Flatten", [node("GlobalAveragePool", [value])])
    last = [value, constant(rng.normal(size=(classes, channels)) * 0.02), constant(np.zeros(classes))]
    nodes.append(helper.make_node("Gemm", last, ["y"], name="Gemm", transB=1))
    graph = helper.make_graph(
        nodes,
        "resnet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def best_time(model: bytes, picture: np.ndarray, repeats: int, threads: int) -> tuple[float, np.ndarray]:
    """Return the shortest time in seconds and the result."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    result = session.run(None, {"x": picture})[0]
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(None, {"x": picture})
        times.append(time.perf_counter() - start)
    return min(times), result


def measure(name: str, model: onnx.ModelProto, size: int, repeats: int, threads: int) -> float:
    """Convert and compare; print one line, return the ratio."""
    sys.path.insert(0, str(SIMULATED))
    from ascend_sim import omfile
    from ascend_sim.atc import cli

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["HOME"] = folder
        onnx.save(model, "net.onnx")
        start = time.perf_counter()
        flags = ["--model=net.onnx", "--framework=5", "--output=net", "--soc_version=Ascend310"]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            if cli.main([*flags, f"--input_shape=x:1,3,{size},{size}"]):
                raise SystemExit(said.getvalue())
        conversion = time.perf_counter() - start
        _, converted = omfile.read(Path("net.om"))
        os.chdir("/")
    picture = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    float32, exact = best_time(model.SerializeToString(), picture, repeats, threads)
    float16, result = best_time(converted, picture, repeats, threads)
    difference = float(np.abs(result - exact).max() / np.abs(exact).max())
    print(
        f"{name:10} convert {conversion:5.2f} s   float32 {float32 * 1e3:8.2f} ms"
        f"   float16 {float16 * 1e3:8.2f} ms"
        f"   ratio {float16 / float32:4.2f}   relative difference {difference:.1e}"
    )
    return float16 / float32


def main() -> int:
    """Measure a small and a full ResNet; exit status 1 when one is above the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    print(f"ONNX Runtime {onnxruntime.__version__}, {arguments.threads} threads")
    nets = (
        ("small", resnet((1, 1, 1, 1), 32, 64, 10), 64, 10),
        ("CIFAR-10", resnet((3, 4, 6, 3), 64, 32, 10), 32, 4),
        ("ResNet50", resnet((3, 4, 6, 3), 64, 224, 1000), 224, 1),
    )
    ratios = [
        measure(name, model, size, arguments.repeats * factor, arguments.threads)
        for name, model, size, factor in nets
    ]
    return int(max(ratios) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
