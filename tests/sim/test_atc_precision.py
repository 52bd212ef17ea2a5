"""Arithmetic of the simulated chip: float16 by default, checked with ONNX Runtime against NumPy.

ATC guide --precision_mode: force_fp16 is the default, inputs and outputs keep their type; hicann/ge
atc_flags.cc for --is_weight_clip. All sessions run with ONNX Runtime's optimisations on: it must not drop the
roundings.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from atc_support import ARGS, PYTHON, Atc, atc, omfile, save_nodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

__all__ = ["atc"]
FP16 = np.float16
RNG = np.random.default_rng(1)


def rounded(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return array.astype(FP16).astype(np.float32)


def on_grid(array: np.ndarray) -> bool:
    return np.array_equal(array, rounded(array), equal_nan=True)


@pytest.mark.parametrize("shape", [[4], [2, 2], [1, 4, 1, 1], ["N"]])
def test_inputs_and_results_are_rounded(atc: Atc, shape: list[int | str]) -> None:
    """x is rounded, then x + x is: one unit in the last place, underflow, overflow to infinity."""
    save_nodes(atc.folder / "net.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], {"x": shape}, ["y"])
    om = atc.om(*(["--input_shape=x:4"] if shape == ["N"] else []))
    x = np.array([1.0004883, 40000.0, 1e-8, 3e-5], np.float32)
    dims = om.meta["inputs"][0]["dims"]
    (y,) = om(x.reshape(dims))
    assert np.array_equal(y.ravel(), rounded(rounded(x) + rounded(x)))
    assert y.ravel()[1] == np.inf
    assert y.ravel()[2] == 0
    assert not np.array_equal(y.ravel(), x + x)


def test_overflow_spreads_as_on_the_chip(atc: Atc) -> None:
    """inf - inf is nan: a network whose activations leave float16 gives nonsense here, too."""
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["m"]),
        helper.make_node("Sub", ["m", "m"], ["y"]),
    ]
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [2]}, ["y"], {"big": np.array([1000], np.float32)})
    assert np.isnan(atc.om()(np.array([66, 1], np.float32))[0]).tolist() == [True, False]
    assert atc.om("--precision_mode=must_keep_origin_dtype")(np.array([66, 1], np.float32))[0].tolist() == [
        0,
        0,
    ]


@pytest.mark.parametrize("flag", ["must_keep_origin_dtype", "force_fp32", "v2=origin"])
def test_float32_when_asked(atc: Atc, flag: str) -> None:
    """ATC guide: must_keep_origin_dtype and origin keep the model's types, force_fp32 uses float32."""
    save_nodes(atc.folder / "net.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], {"x": [1]}, ["y"])
    atc.cann("8.0.0")
    om = atc.om(f"--precision_mode={flag}" if "=" not in flag else f"--precision_mode_{flag}")
    assert om.meta["precision"] == "fp32"
    assert om(np.array([1.0004883], np.float32))[0][0] == np.float32(1.0004883) * 2


def test_weights_are_rounded_and_clipped(atc: Atc) -> None:
    """is_weight_clip=1 (default) makes large finite weights 65504; 0 lets them become infinite."""
    weights = np.array([0.1, 1e5, -1e6, 1e-9, np.inf], np.float32)
    save_nodes(
        atc.folder / "net.onnx",
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        {"x": [5]},
        ["y"],
        {"w": weights},
    )
    one = np.ones(5, np.float32)
    expected = [np.float32(FP16(0.1)), 65504, -65504, 0, np.inf]
    assert atc.om()(one)[0].tolist() == expected
    atc.cann("8.0.0")
    assert atc.om("--is_weight_clip=0")(one)[0].tolist() == [expected[0], np.inf, -np.inf, 0, np.inf]


def conv(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """3x3 convolution with padding 1, in float64, NCHW."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, w.astype(np.float64)) + b.reshape(1, -1, 1, 1)


def test_batch_normalisation_is_folded_before_rounding(atc: Atc) -> None:
    """ConvBatchnormFusionPass first, then float16 weights: not the same as the other way round, to the last
    bit.
    """
    w, b = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
    gamma, beta, mean = (RNG.normal(size=4).astype(np.float32) for _ in range(3))
    variance = RNG.uniform(0.5, 2, 4).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "g", "be", "m", "v"], ["n"], epsilon=1e-3),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    constants = {"w": w, "b": b, "g": gamma, "be": beta, "m": mean, "v": variance}
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [1, 3, 6, 6]}, ["y"], constants)
    om = atc.om()
    assert "BatchNormalization" not in om.meta["operators"]
    assert '"ConvBatchnormFusionPass"' in (atc.folder / "fusion_result.json").read_text()
    x = RNG.normal(size=(1, 3, 6, 6)).astype(np.float32)
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + np.float32(1e-3))
    weights = rounded((w * scale.reshape(-1, 1, 1, 1)).astype(np.float32))
    bias = rounded((beta + (b - mean) * scale).astype(np.float32))
    expected = np.maximum(conv(rounded(x), weights, bias), 0)
    (y,) = om(x)
    assert on_grid(y)
    # float32 sums against float64: equal up to one float16 step next to a tie.
    assert np.abs(y - rounded(expected.astype(np.float32))).max() <= np.spacing(FP16(np.abs(expected).max()))
    apart = atc.om("--precision_mode=force_fp32")(x)[0]
    assert 0 < np.abs(y - apart).max() < 0.05


def test_a_shared_weight_is_folded_for_one_reader_only(atc: Atc) -> None:
    """Two convolutions with the same constant, one of them normalised: the other keeps its numbers."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "s", "s", "s"], ["n"], epsilon=0.0),
        helper.make_node("Conv", ["x", "w"], ["y2"]),
        helper.make_node("Relu", ["n"], ["y1"]),
    ]
    constants = {"w": np.full((1, 1, 1, 1), 3, np.float32), "s": np.array([4], np.float32)}
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [1, 1, 1, 1]}, ["y1", "y2"], constants)
    normalised, plain = atc.om()(np.full((1, 1, 1, 1), 2, np.float32))
    assert (normalised.item(), plain.item()) == ((6 - 4) / 2 * 4 + 4, 6)


def test_shape_arithmetic_is_not_rounded(atc: Atc) -> None:
    """Sizes computed from shapes are numbers of the compiler: 2049 * 1 stays 2049, Resize keeps its
    scales.
    """
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["f"], to=1),
        helper.make_node("Mul", ["f", "one"], ["g"]),
        helper.make_node("Cast", ["g"], ["i"], to=7),
        helper.make_node("Reshape", ["x", "i"], ["y"]),
        helper.make_node("Resize", ["x4", "", "scales"], ["z"], mode="nearest"),
    ]
    constants = {"one": np.array([1], np.float32), "scales": np.array([1, 1, 1.3, 1.3], np.float32)}
    save_nodes(
        atc.folder / "net.onnx", nodes, {"x": [2049], "x4": [1, 1, 10, 10]}, ["y", "z"], constants, opset=13
    )
    y, z = atc.om()(np.ones(2049, np.float32), np.ones((1, 1, 10, 10), np.float32))
    assert (y.shape, z.shape) == ((2049,), (1, 1, 13, 13))


def test_mixed_modes(atc: Atc) -> None:
    """Cube operators in float16; cube_fp16in_fp32out keeps their results, allow_mix_precision keeps Exp in
    float32.
    """
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Exp", ["m"], ["y"]),
    ]
    w = np.array([[1.0004883]], np.float32)
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [1, 1]}, ["y"], {"w": w})
    x = np.array([[11.123]], np.float32)
    product = rounded(x) * rounded(w)
    modes = ("force_fp16", "cube_fp16in_fp32out", "allow_mix_precision", "allow_fp32_to_fp16", "force_fp32")
    results = {mode: atc.om(f"--precision_mode={mode}")(x)[0] for mode in modes}
    assert results["force_fp16"].item() == rounded(np.exp(rounded(product))).item()
    for mode, value in {
        "cube_fp16in_fp32out": np.exp(product),
        "allow_mix_precision": np.exp(rounded(product)),
        "allow_fp32_to_fp16": np.exp(rounded(product)),
        "force_fp32": np.exp(x * w),
    }.items():
        assert np.allclose(results[mode], value, rtol=2e-6), mode
        assert not on_grid(results[mode])


def test_keep_dtype_spares_the_named_nodes(atc: Atc) -> None:
    """ATC guide --keep_dtype: a file of node names that stay float32."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["a"], name="first"),
        helper.make_node("Mul", ["a", "a"], ["y"], name="second"),
    ]
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [1]}, ["y"])
    (atc.folder / "keep.cfg").write_text("first\nOpType::Mul\n")
    x = np.array([1.0004883], np.float32)
    assert atc.om("--keep_dtype=keep.cfg")(x)[0] == (x + x) * (x + x)
    (atc.folder / "keep.cfg").write_text("second\n")
    assert atc.om("--keep_dtype=keep.cfg")(x)[0] == rounded(rounded(x) * 2) ** 2
    # hicann/ge keep_dtype_option.cc, and the same file in 2022.
    (atc.folder / "keep.cfg").write_text("second\nthird\nfourth\n")
    out = atc.fails("E10003", *ARGS, "--keep_dtype=keep.cfg")
    assert "config file contains 2 operators not in the graph, op name:third op name:fourth" in out
    atc.cann("8.0.0")
    atc.om("--keep_dtype=keep.cfg")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), kinds=st.lists(st.sampled_from(
    ["Relu", "Neg", "MaxPool", "AddSelf", "MulConst", "Transpose", "Clip", "AveragePool", "Sigmoid",
     "ConcatSelf"]
), min_size=1, max_size=6))  # fmt: skip
def test_any_chain_equals_numpy_rounded_after_each_step(atc: Atc, seed: int, kinds: list[str]) -> None:
    """Postponed and omitted roundings change no bit: the reference rounds after every single operator."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(1, 2, 8, 8)) * 10.0 ** rng.integers(-6, 5)).astype(np.float32)
    factor = np.float32(rng.normal())
    nodes, constants, value, want = [], {}, "x", rounded(x)
    for index, kind in enumerate(kinds):
        output = f"v{index}"
        if kind == "MaxPool":
            nodes.append(helper.make_node(kind, [value], [output], kernel_shape=[2, 2], pads=[0, 0, 1, 1]))
            padded = np.pad(want, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=-np.inf)
            want = np.lib.stride_tricks.sliding_window_view(padded, (2, 2), (2, 3)).max((4, 5))
        elif kind == "AveragePool":
            nodes.append(helper.make_node(kind, [value], [output], kernel_shape=[1, 1]))
        elif kind == "AddSelf":
            nodes.append(helper.make_node("Add", [value, value], [output]))
            want = want + want
        elif kind == "ConcatSelf":
            nodes.append(helper.make_node("Concat", [value, value], [output], axis=1))
            want = np.concatenate([want, want], 1)
        elif kind == "MulConst":
            constants[f"k{index}"] = np.array([factor], np.float32)
            nodes.append(helper.make_node("Mul", [value, f"k{index}"], [output]))
            want = want * rounded(np.array([factor]))
        elif kind == "Clip":
            constants.update(
                {f"lo{index}": np.array(-0.3, np.float32), f"hi{index}": np.array(6, np.float32)}
            )
            nodes.append(helper.make_node(kind, [value, f"lo{index}", f"hi{index}"], [output]))
            want = np.clip(want, rounded(np.array(-0.3)), 6)
        elif kind == "Transpose":
            nodes.append(helper.make_node(kind, [value], [output], perm=[0, 1, 3, 2]))
            want = want.transpose(0, 1, 3, 2)
        else:
            nodes.append(helper.make_node(kind, [value], [output]))
            with np.errstate(over="ignore"):
                want = {"Relu": lambda v: np.maximum(v, 0), "Neg": np.negative,
                        "Sigmoid": lambda v: 1 / (1 + np.exp(-v.astype(np.float64)))}[kind](want)  # fmt: skip
        want, value = rounded(want.astype(np.float32)), output
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [1, 2, 8, 8]}, [value], constants)
    (got,) = atc.om()(x)
    assert got.shape == want.shape
    assert on_grid(got)
    if "Sigmoid" in kinds:
        assert np.allclose(got, want, rtol=4e-3, atol=1e-3)
    else:
        assert np.array_equal(got, want)


def resnet50(path: Path) -> None:
    """ResNet50 with batch normalisation and random weights: 90 MB."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    try:
        import sim_float16
    finally:
        sys.path.pop(0)
    onnx.save(sim_float16.resnet((3, 4, 6, 3), 64, 224, 1000), str(path))


def test_a_large_model_takes_little_memory(atc: Atc) -> None:
    """90 MB of weights convert in one process below 1 GB."""
    resnet50(atc.folder / "net.onnx")
    assert (atc.folder / "net.onnx").stat().st_size > 90e6
    command = [sys.executable, "-m", "ascend_sim.atc", *ARGS, "--input_shape=x:1,3,224,224"]
    environment = {"PYTHONPATH": str(PYTHON), "HOME": str(atc.folder), "PATH": "/usr/bin:/bin"}
    # A process inherits the peak of the one that it was forked from: a small one in between.
    measure = "import resource, subprocess, sys\nsubprocess.run(sys.argv[1:], check=True, stdout=2)\n"
    measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    argv = [sys.executable, "-S", "-c", measure, *command]
    done = subprocess.run(argv, env=environment, check=True, capture_output=True)
    assert int(done.stdout) < 1_000_000  # kB
    meta, _ = omfile.read(atc.folder / "net.om")
    assert meta["weight_size"] < 60e6
    assert meta["operators"]["Conv"] == 53
