"""The arithmetic of the board's program against toolkit.preprocess, on this Python and on older ones."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from toolkit import pictures
from toolkit.preprocess import FILTERS, Preprocess, apply, spec_json

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = CHECKOUT / "toolkit" / "onboard" / "infer.py"
sys.path.insert(0, str(CHECKOUT / "tests"))

from interpreters import require, venv_with  # noqa: E402


def load_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("board_infer", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


infer = load_program()

specs = st.builds(
    Preprocess,
    size=st.lists(st.integers(1, 48), min_size=2, max_size=2),
    resize_filter=st.sampled_from(FILTERS),
    color_order=st.sampled_from(["RGB", "BGR"]),
    scale=st.floats(1e-3, 2),
    mean=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    std=st.lists(st.floats(0.01, 4), min_size=3, max_size=3),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    aipp=st.booleans(),
)


def noise(mode: str, width: int, height: int, seed: int) -> Image.Image:
    bands = {"L": 1, "P": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    values = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    image = Image.frombytes(mode, (width, height), values.tobytes())
    if mode == "P":
        image.putpalette([(i * 7) % 256 for i in range(768)])
    return image


@settings(max_examples=150, deadline=None)
@given(
    spec=specs,
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "CMYK"]),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_the_board_feeds_the_same_bits(spec, mode, width, height, seed):
    image = noise(mode, width, height, seed)
    if spec.aipp:
        spec.size, spec.mean = [spec.size[0], spec.size[1] + 1], [0.0, 0.0, 0.0]
    ours = apply(image, spec)
    theirs = infer.preprocess(image.convert("RGB"), json.loads(json.dumps(spec_json(spec)))["preprocess"])
    assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape)
    assert theirs.tobytes() == ours.tobytes()


REMOTE = """
import importlib.util, io, json, sys
import numpy as np
spec = importlib.util.spec_from_file_location("infer", sys.argv[1])
infer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(infer)
with io.open(sys.argv[2] + "/cases.json") as stream:
    cases = json.load(stream)
for number, (name, one) in enumerate(cases):
    fed = infer.preprocess(infer.decode(sys.argv[2] + "/" + name), one)
    np.save("{}/{}.npy".format(sys.argv[2], number), fed)
infer.annotate(infer.decode(sys.argv[2] + "/" + cases[0][0]), "airplane").save(sys.argv[2] + "/annotated.png")
confidences = infer.softmax(np.array([1000, 1000, -1000], dtype=np.float32))
print(json.dumps([np.__version__, infer.PIL.__version__, confidences.tolist(), infer.best(confidences, 2)]))
"""

OLD = [
    ("3.6", ["numpy<1.17", "pillow<6"], "1.16.", "5."),
    ("3.7", ["numpy<1.22", "onnxruntime<1.15", "protobuf<4", "pillow<9"], "1.21.", "8."),
    ("3.13", ["numpy>=2", "pillow", "onnxruntime"], "2.", ""),
]


@pytest.mark.parametrize(("version", "packages", "numpy", "pillow"), OLD, ids=[row[0] for row in OLD])
def test_other_pythons_feed_the_same_bits(version, packages, numpy, pillow, tmp_path):
    python = venv_with(version, *packages)
    cases = []
    for number, (mode, resize_filter, layout) in enumerate(
        (mode, resize_filter, layout)
        for mode in ("RGB", "L", "RGBA", "P")
        for resize_filter in FILTERS
        for layout in ("NCHW", "NHWC")
    ):
        spec = Preprocess(
            size=[17, 31],
            resize_filter=resize_filter,
            color_order="BGR" if number % 3 else "RGB",
            mean=[0.4914, 0.4822, 0.4465],
            std=[0.2023, 0.1994, 0.2010],
            layout=layout,
            aipp=number % 5 == 4,
        )
        name = f"{number}.png"
        noise(mode, 9 + number * 2, 70 - number, number).save(tmp_path / name)
        cases.append((name, spec))
    stored = [(name, spec_json(spec)["preprocess"]) for name, spec in cases]
    (tmp_path / "cases.json").write_text(json.dumps(stored))
    done = subprocess.run(
        [python, "-W", "error", "-c", REMOTE, PROGRAM, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    has_numpy, has_pillow, confidences, top = json.loads(done.stdout)
    assert has_numpy.startswith(numpy)
    assert has_pillow.startswith(pillow)
    assert confidences == [0.5, 0.5, 0.0]
    assert top == [0, 1]
    for number, (name, spec) in enumerate(cases):
        with Image.open(tmp_path / name) as image:
            expected = apply(image, spec)
        theirs = np.load(tmp_path / f"{number}.npy")
        assert theirs.dtype == expected.dtype
        assert theirs.tobytes() == expected.tobytes(), (spec, np.abs(theirs - expected).max())
    with Image.open(tmp_path / "annotated.png") as annotated:
        assert min(annotated.size) >= 128


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9", "3.10", "3.12", "3.13"])
def test_it_compiles(version, tmp_path):
    code = "import sys; compile(open(sys.argv[1]).read(), 'infer.py', 'exec')"
    subprocess.run([require(version), "-c", code, PROGRAM], check=True)


def test_softmax_does_not_overflow_or_vanish():
    for logits in ([1e4, 9.9e3, -1e4], [-1e4, -1.01e4, -2e4], [0.0, 0.0, 0.0]):
        confidences = infer.softmax(np.array(logits, dtype=np.float32))
        assert np.isfinite(confidences).all()
        assert confidences.sum() == pytest.approx(1)
    known = [0.0900306, 0.2447285, 0.6652410]
    assert infer.softmax(np.array([1, 2, 3], dtype=np.float32)) == pytest.approx(known, abs=1e-6)


def test_best_breaks_ties_by_id():
    assert infer.best(np.array([0.1, 0.4, 0.1, 0.4]), 3) == [1, 3, 0]
    assert infer.best(np.array([0.9, 0.1]), 5) == [0, 1]


def test_unknown_classes_have_a_name():
    names = [infer.class_name(["a", "b"], number) for number in (0, 1, 2, 1000)]
    assert names == ["a", "b", "unknown", "unknown"]


def test_percentiles_are_measured_values():
    assert infer.percentile([], 50) is None
    assert infer.percentile([3.0], 99) == 3.0
    values = [float(value) for value in range(100, 0, -1)]
    assert (infer.percentile(values, 50), infer.percentile(values, 99)) == (50.0, 99.0)


def reds(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    return np.argwhere((values[:, :, 0] > 180) & (values[:, :, 1] < 90) & (values[:, :, 2] < 90))


@pytest.mark.parametrize(
    ("size", "becomes"),
    [
        ((32, 32), (128, 128)),
        ((28, 28), (140, 140)),
        ((256, 256), (256, 256)),
        ((1920, 1080), (1920, 1080)),
        ((1000, 8), (1000, 8)),
    ],
)
@pytest.mark.parametrize("font", [infer.FONT, "/nowhere/no.ttf"])
def test_the_class_is_written_on_the_picture(size, becomes, font, monkeypatch):
    monkeypatch.setattr(infer, "FONT", font)
    original = Image.new("RGB", size, (255, 255, 255))
    before = original.tobytes()
    annotated = infer.annotate(original, "automobile")
    assert annotated.size == becomes
    assert original.tobytes() == before
    red = reds(annotated)
    assert len(red) > 40
    if becomes[1] > 128:
        top, left = red.min(axis=0)
        assert 8 <= left <= 14
        assert 50 <= top <= 60
    if becomes == (128, 128) and Path(font).exists():
        # All of the word is inside: its last letters are not cut off at the edge.
        assert 100 < red[:, 1].max() < 128


def test_a_class_name_that_the_font_cannot_draw_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setattr(infer, "FONT", "/nowhere/no.ttf")
    infer.annotate(Image.new("RGB", (200, 200)), "飞机")


def test_both_sides_mean_the_same_by_picture():
    assert tuple(sorted(infer.EXTENSIONS)) == tuple(sorted(pictures.EXTENSIONS))


def test_saving_leaves_no_half_file(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").write_bytes(b"the one before")
    # JPEG can't be as wide as this.
    with pytest.raises(OSError, match=r"broken data stream|encoder error"):
        infer.save(Image.new("RGB", (70000, 1)), str(tmp_path / "out"), "a.jpg")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.jpg"]
    assert (tmp_path / "out" / "a.jpg").read_bytes() == b"the one before"
