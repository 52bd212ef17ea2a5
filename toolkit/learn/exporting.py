"""A trained network as a file that ATC reads: ONNX, or AIR where MindSpore computes on Ascend; MindIR for
Lite.

Every ONNX file is run through ONNX Runtime and compared with MindSpore's own forward pass before it is handed
on. A second ONNX export of one Cell fails in MindSpore, so each export gets a network of its own (and the
worker process does one export).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
import onnx
from mindspore import nn, ops

from toolkit.errors import DeployError, GateError
from toolkit.learn import checkpoints, networks
from toolkit.learn.catalogue import check_format
from toolkit.learn.settings import Device, ExportSettings, ModelSettings
from toolkit.preprocess import Preprocess

Floats = npt.NDArray[np.float32]

MODEL = "model"
REFERENCE = "reference.onnx"
_SAFE_PATH = re.compile(r"[A-Za-z0-9@_\-.:/\\]+")


class ChannelsLast(nn.Cell):  # type: ignore[misc]
    """The network for an input of [N,H,W,3], as ``preprocess.layout=NHWC`` has it."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__()
        self.network = network
        self.transpose = ops.Transpose()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        """Normalised pictures [N,H,W,3] float32 -> logits [N,classes] float32."""
        return self.network(self.transpose(x, (0, 3, 1, 2)))


def export(
    checkpoint: Path,
    model: ModelSettings,
    preprocess: Preprocess,
    settings: ExportSettings,
    device_target: Device,
    out: Path,
) -> dict[str, Any]:
    """Export the weights in ``checkpoint`` to ``out`` and return what came out, as JSON types.

    Writes ``model.onnx``, ``model.air`` or ``model.mindir``, and ``reference.onnx`` beside the latter two
    (the file itself is the reference where it is ONNX). The ONNX input is ``settings.input_name``, float32
    [batch,3,H,W] or [batch,H,W,3] by ``preprocess.layout``; the output ``settings.output_name``, float32
    [batch,classes].

    InputError for a checkpoint that is cut or of another network, ConfigError for an impossible format,
    GateError where ONNX Runtime's logits differ from MindSpore's by more than ``settings.tolerance``.
    """
    wanted = check_format(settings.format, device_target)
    out.mkdir(parents=True, exist_ok=True)
    sample = _sample(settings.batch_size, preprocess)
    network, parameters = _load(checkpoint, model, preprocess)
    expected = network(ms.Tensor(sample)).asnumpy().astype(np.float32)
    if not np.isfinite(expected).all():
        raise GateError(f"{checkpoint}: the network's logits are not finite numbers", hint="train it anew")
    result: dict[str, Any] = {
        "format": wanted,
        "parameters": parameters,
        "checkpoint_sha256": checkpoints.sha256(checkpoint),
    }
    reference = out / (f"{MODEL}.onnx" if wanted == "onnx" else REFERENCE)
    if wanted != "onnx":
        _write(network, sample, wanted, out / f"{MODEL}.{wanted}")
        network, _ = _load(checkpoint, model, preprocess)
    _write(network, sample, "onnx", reference)
    _finish_onnx(reference, settings)
    difference = _difference(reference, settings, sample, expected)
    if difference > settings.tolerance:
        raise GateError(
            f"{reference.name}: ONNX Runtime's logits differ from MindSpore's by {difference:.2g}",
            hint=f"export.tolerance allows {settings.tolerance:g}; look for an operator that exports wrongly",
        )
    file = out / f"{MODEL}.{wanted}"
    return {
        **result,
        "file": file.name,
        "sha256": checkpoints.sha256(file),
        "reference": reference.name,
        "reference_sha256": checkpoints.sha256(reference),
        "input": {"name": settings.input_name, "shape": list(sample.shape), "dtype": "float32"},
        "output": {"name": settings.output_name, "shape": list(expected.shape), "dtype": "float32"},
        "max_difference": difference,
    }


def _load(checkpoint: Path, model: ModelSettings, preprocess: Preprocess) -> tuple[nn.Cell, int]:
    height, width = preprocess.size
    network = networks.build(model.name, model.classes, height, width)
    count = checkpoints.load(
        checkpoint, network, f"{model.name} with {model.classes} classes at {height}×{width}"
    )
    whole = ChannelsLast(network) if preprocess.layout == "NHWC" else network
    whole.set_train(False)
    return whole, count


def _sample(batch_size: int, preprocess: Preprocess) -> Floats:
    height, width = preprocess.size
    shape = (batch_size, height, width, 3) if preprocess.layout == "NHWC" else (batch_size, 3, height, width)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _write(network: nn.Cell, sample: Floats, format: str, path: Path) -> None:
    with _safe_folder(path.parent) as folder:
        made = folder / f"{MODEL}.{format}"
        try:
            ms.export(network, ms.Tensor(sample), file_name=str(made), file_format=format.upper())
        except (ValueError, RuntimeError, TypeError) as error:
            raise DeployError(
                f"MindSpore could not export to {format.upper()}: {str(error).strip().splitlines()[0]}",
                hint="see worker.log beside the result; another export.format may do",
            ) from error
        os.chmod(made, 0o644)  # MindSpore makes it 0400
        beside = path.with_name(f".{path.name}.writing")
        shutil.copyfile(made, beside)
        os.replace(beside, path)


@contextmanager
def _safe_folder(near: Path) -> Iterator[Path]:
    """A temporary folder whose path ``mindspore.export`` accepts: letters, digits and ``@_-.:/\\`` only."""
    for base in (str(near.resolve()), tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if _SAFE_PATH.fullmatch(base) and os.access(base, os.W_OK):
            folder = Path(tempfile.mkdtemp(prefix="export-", dir=base))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return
    raise DeployError(
        "mindspore.export takes only paths of letters, digits and @_-.:/, and no such folder is writable",
        hint="set TMPDIR to one",
    )


def _finish_onnx(path: Path, settings: ExportSettings) -> None:
    """Give input and output their names (MindSpore numbers the output) and check the file."""
    model = onnx.load(str(path))
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise DeployError(
            f"{path.name}: {len(inputs)} inputs and {len(graph.output)} outputs instead of one each"
        )
    _rename(graph, {inputs[0].name: settings.input_name, graph.output[0].name: settings.output_name})
    # The weights are constants: as inputs, they keep ONNX Runtime from folding them and confuse readers of
    # shapes.
    del graph.input[:]
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _rename(graph: onnx.GraphProto, fixed: dict[str, str]) -> None:
    """Rename what ``fixed`` names, and number nodes and values in between by their place.

    MindSpore's own numbers count all graphs of the process, so the same network would come out as other
    bytes.
    """
    names = dict(fixed)
    constants = {tensor.name for tensor in graph.initializer}
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"
        node.input[:] = [names.get(name, name) for name in node.input]
        for number, output in enumerate(node.output):
            if output and output not in names and output not in constants:
                names[output] = f"{node.name}_{number}"
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    del graph.value_info[:]
    graph.name = MODEL


def _difference(path: Path, settings: ExportSettings, sample: Floats, expected: Floats) -> float:
    """Return the largest absolute difference between ONNX Runtime's logits and MindSpore's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answer = session.run([settings.output_name], {settings.input_name: sample})[0]
    return float(np.abs(answer - expected).max())
