"""What the tests of the simulated ATC share: running it in this process, and models to convert."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

PYTHON = Path(__file__).resolve().parents[2] / "toolkit" / "sim" / "cann" / "python"
if str(PYTHON) not in sys.path:
    sys.path.insert(0, str(PYTHON))

from ascend_sim import board as boards  # noqa: E402
from ascend_sim import omfile  # noqa: E402
from ascend_sim.atc import cli, errors, flags, prototxt  # noqa: E402

__all__ = ["boards", "errors", "flags", "omfile", "prototxt"]

START = "ATC start working now, please wait for a moment."
SUCCESS = "ATC run success, welcome to the next use."
FAILED = "ATC run failed, Please check the detail log, Try 'atc --help' for more information"


ARGS = ("--model=net.onnx", "--framework=5", "--output=net", "--soc_version=Ascend310")


class Om:
    """An om and an ONNX Runtime session of its model, with optimisation on, as the simulated acl has it."""

    def __init__(self, path: Path) -> None:
        self.meta, self.model = omfile.read(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        return self.session.run(
            self.meta["onnx_outputs"], dict(zip(self.meta["onnx_inputs"], arrays, strict=True))
        )


class Atc:
    """Runs the converter in this process, in a folder of its own, on a board of a chosen CANN."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.cann("5.0.4")

    def cann(self, version: str) -> None:
        self.monkeypatch.setattr(boards, "_board", boards.Board({"cann_version": version}))

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        status = cli.main(list(argv))
        captured = self.capsys.readouterr()
        return status, captured.out, captured.err

    def om(self, *extra: str) -> Om:
        """Convert net.onnx with these flags, which must work, and open the om."""
        status, out, _ = self(*ARGS, *extra)
        assert status == 0, out
        return Om(self.folder / "net.om")

    def fails(self, code: str, *argv: str) -> str:
        status, out, _ = self(*argv)
        assert status == 255
        assert out.startswith(START)
        assert FAILED in out
        assert re.findall(r"\bE\d{5}\b", out)[:1] == [code], out
        return out


@pytest.fixture
def atc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Atc:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    save(tmp_path / "net.onnx")
    return Atc(tmp_path, monkeypatch, capsys)


def save(path: Path, batch: int | str = 1, opset: int = 11, kind: str = "Relu", **model: object) -> None:
    """A model ``x [batch,3,8,8] -> Conv -> kind -> y``."""
    weights = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node(kind, ["c"], ["y"], name="last"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2, 8, 8])],
        [weights],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6), str(path)
    )


def save_nodes(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: list[str],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 11,
    types: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """Save a model of these nodes; inputs and outputs are float unless ``types`` says otherwise."""
    types = types or {}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(k, types.get(k, TensorProto.FLOAT), v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, types.get(k, TensorProto.FLOAT), None) for k in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    onnx.save(model, str(path))
    return model
