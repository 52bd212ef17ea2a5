"""Real exports: what ONNX Runtime computes from the file is what the trained network computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from learning import Trained, digits_recipe, digits_spec
from PIL import Image

from toolkit import preprocess
from toolkit.errors import ConfigError, InputError
from toolkit.learn import training_job
from toolkit.learn.layout import read_split
from toolkit.learn.settings import DataSettings, ExportSettings, Format, ModelSettings, TrainSettings
from toolkit.preprocess import Preprocess
from toolkit.ui.events import ignore

pytestmark = pytest.mark.learn


def export(
    checkpoint: Path,
    folder: Path,
    spec: Preprocess | None = None,
    model: ModelSettings | None = None,
    **settings: Any,
) -> dict[str, Any]:
    return training_job.export(
        checkpoint,
        model or ModelSettings(),
        spec or digits_spec(),
        ExportSettings(**settings),
        digits_recipe(),
        out=folder / "out",
        work=folder / "work",
        emit=ignore,
    )


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("an export in ünsafe places")
    return folder / "out", export(trained.checkpoint, folder)


def test_onnx_has_the_agreed_input_and_output(exported: tuple[Path, dict[str, Any]]) -> None:
    out, result = exported
    assert {path.name for path in out.iterdir()} == {"model.onnx"}
    assert result["format"] == "onnx"
    assert result["file"] == result["reference"] == "model.onnx"
    assert result["max_difference"] < 1e-4
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, given.type) == ("x", [1, 3, 32, 32], "tensor(float)")
    assert (made.name, made.shape) == ("logits", [1, 10])
    model = onnx.load(str(out / "model.onnx"))
    assert [value.name for value in model.graph.input] == ["x"]
    assert model.opset_import[0].version == 11


def test_the_exported_network_knows_the_digits_through_the_boards_preprocessing(
    exported: tuple[Path, dict[str, Any]], trained: Trained, digits: Path
) -> None:
    session = onnxruntime.InferenceSession(
        str(exported[0] / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    images, labels = read_split(digits, "test")
    right = 0
    for image, label in zip(images, labels, strict=True):
        ready = preprocess.apply(Image.fromarray(image), digits_spec())[None]
        right += int(session.run(None, {"x": ready})[0].argmax() == label)
    assert right == round(trained.report["accuracy"] * len(labels))


def test_mindir_and_its_reference(
    trained: Trained, exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    result = export(trained.checkpoint, tmp_path, format=Format.mindir)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.mindir", "reference.onnx"}
    # The same network, by another way: the same bytes.
    assert result["reference_sha256"] == exported[1]["sha256"]
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "out").iterdir())


def test_channels_last_and_a_batch(
    trained: Trained, exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    result = export(
        trained.checkpoint, tmp_path, dataclasses.replace(digits_spec(), layout="NHWC"), batch_size=4
    )
    assert result["input"]["shape"] == [4, 32, 32, 3]
    x = np.random.default_rng(1).standard_normal((4, 3, 32, 32), np.float32)
    runs = [
        onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        for folder in (tmp_path / "out", exported[0])
    ]
    together = runs[0].run(None, {"x": np.ascontiguousarray(x.transpose(0, 2, 3, 1))})[0]
    singly = np.concatenate([runs[1].run(None, {"x": one[None]})[0] for one in x])
    assert np.abs(together - singly).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "side", "parameters"), [("resnet50", 224, 23_581_642), ("resnet18", 32, 11_183_562)]
)
def test_larger_networks_export_untrained(tmp_path: Path, name: str, side: int, parameters: int) -> None:
    spec, model = Preprocess(size=[side, side]), ModelSettings(name=name)
    settings = TrainSettings(epochs=0)
    training_job.train(
        None, model, spec, settings, DataSettings(), out=tmp_path / "w", work=tmp_path / "work", emit=ignore
    )
    result = export(tmp_path / "w" / "model.ckpt", tmp_path, spec, model)
    assert result["input"]["shape"] == [1, 3, side, side]
    assert result["parameters"] == parameters
    assert result["max_difference"] < 1e-3
    nodes = {node.op_type for node in onnx.load(str(tmp_path / "out" / "model.onnx")).graph.node}
    assert ("MaxPool" in nodes) is (name == "resnet50")
    names = {tensor.name for tensor in onnx.load(str(tmp_path / "out" / "model.onnx")).graph.initializer}
    assert {"conv1.weight", "layer4.0.down_sample_layer.0.weight", "end_point.bias"} <= names


def test_air_is_refused_before_anything_is_started(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only on Ascend"):
        export(trained.checkpoint, tmp_path / "new", format=Format.air)
    assert not (tmp_path / "new").exists()


def refusal(checkpoint: Path, folder: Path, **model: Any) -> str:
    with pytest.raises(InputError) as caught:
        export(checkpoint, folder, model=ModelSettings(**model))
    assert "\n" not in str(caught.value) + caught.value.hint
    assert caught.value.hint
    assert str(checkpoint) in str(caught.value)
    return str(caught.value)


def test_a_cut_checkpoint_is_said_to_be_cut(trained: Trained, tmp_path: Path) -> None:
    whole = trained.checkpoint.read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(whole[: len(whole) // 2])
    message = refusal(path, tmp_path)
    assert "cut, damaged or not a checkpoint" in message or "parameters missing" in message


def test_a_checkpoint_of_another_network_names_what_is_missing(trained: Trained, tmp_path: Path) -> None:
    message = refusal(trained.checkpoint, tmp_path, name="resnet18")
    assert "not a checkpoint of resnet18" in message
    assert "layer1.1.conv1.weight" in message
    assert "missing" in message


def test_a_checkpoint_of_other_classes_names_the_shapes(trained: Trained, tmp_path: Path) -> None:
    message = refusal(trained.checkpoint, tmp_path, classes=7)
    assert "end_point.weight is [10, 64] instead of [7, 64]" in message
