"""One spec, and everything derived from it agrees."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from toolkit import drawings
from toolkit.errors import ConfigError, InputError
from toolkit.preprocess import (
    FILTERS,
    Preprocess,
    aipp_config,
    apply,
    check,
    mindspore_transforms,
    normalise,
    pixels,
    spec_json,
    spec_text,
)

CONF = Path(__file__).resolve().parent.parent / "conf" / "preprocess"


def shipped(name: str) -> Preprocess:
    merged = OmegaConf.merge(OmegaConf.structured(Preprocess), OmegaConf.load(CONF / f"{name}.yaml"))
    spec = OmegaConf.to_object(merged)
    assert isinstance(spec, Preprocess)
    return spec


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tutorial_pre_process(input_image: Image.Image) -> np.ndarray:
    """The arithmetic of listing 7.1 of the tutorial, pass by pass."""
    img = np.array(input_image.resize((224, 224)))
    h_off = int((img.shape[0] - 224) / 2)
    w_off = int((img.shape[1] - 224) / 2)
    img = img[h_off : img.shape[0] - h_off, w_off : img.shape[1] - w_off, :][:, :, ::-1]
    img = img.astype("float32")
    for channel in range(3):
        img[:, :, channel] *= 0.003922
    img[:, :, 0] -= 0.4914
    img[:, :, 0] = img[:, :, 0] / 0.2023
    img[:, :, 1] -= 0.4822
    img[:, :, 1] = img[:, :, 1] / 0.1994
    img[:, :, 2] -= 0.4465
    img[:, :, 2] = img[:, :, 2] / 0.2010
    return img.reshape([1, 224, 224, 3]).transpose([0, 3, 1, 2]).copy()


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_spec_is_right_and_complete(path):
    assert check(shipped(path.stem)) == []
    assert set(OmegaConf.load(path)) == {field.name for field in dataclasses.fields(Preprocess)}


def test_the_tutorials_spec_gives_the_tutorials_numbers():
    for picture in (drawings.airplane(), Image.fromarray(noise(480, 640)), Image.fromarray(noise(224, 224))):
        ours = apply(picture, shipped("cifar10_tutorial"))
        # Their seven roundings to float32 against our two: within a few units of the last place of 2.7.
        np.testing.assert_allclose(ours, tutorial_pre_process(picture)[0], rtol=0, atol=1e-6)


def test_the_tutorials_spec_is_not_the_trainings():
    """The quirk is there: blue is normalised with red's statistics."""
    picture = Image.new("RGB", (224, 224), (255, 0, 0))
    tutorial, training = apply(picture, shipped("cifar10_tutorial")), apply(picture, shipped("cifar10"))
    assert training[0, 0, 0] == pytest.approx((1 - 0.4914) / 0.2023, abs=1e-5)
    assert tutorial[2, 0, 0] == pytest.approx((255 * 0.003922 - 0.4465) / 0.2010, abs=1e-5)


specs = st.builds(
    Preprocess,
    size=st.lists(st.integers(1, 40), min_size=2, max_size=2),
    resize_filter=st.sampled_from(FILTERS),
    color_order=st.sampled_from(["RGB", "BGR"]),
    scale=st.sampled_from([1 / 255, 0.003922, 1.0, 1 / 127.5]),
    mean=st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3),
    std=st.lists(st.floats(0.0625, 4, width=32), min_size=3, max_size=3),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    aipp=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(spec=specs, seed=st.integers(0, 9))
def test_normalise_is_scale_mean_std_for_any_spec(spec, seed):
    picture = noise(*spec.size, seed)
    ours = normalise(picture, spec)
    ordered = picture[:, :, ::-1] if spec.color_order == "BGR" else picture
    expected = (ordered.astype(np.float64) * spec.scale - spec.mean) / spec.std
    if spec.layout == "NCHW":
        expected = expected.transpose(2, 0, 1)
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    # Where value and mean cancel out, the rounding is relative to them and not to their difference.
    magnitude = max(255 * spec.scale, *map(abs, spec.mean)) / min(spec.std)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=3e-7 * magnitude)


def test_layouts_hold_the_same_bits():
    spec = Preprocess(size=[20, 30], mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4], color_order="BGR")
    nchw = normalise(noise(20, 30), spec)
    nhwc = normalise(noise(20, 30), dataclasses.replace(spec, layout="NHWC"))
    assert nchw.shape == (3, 20, 30)
    assert nchw.transpose(1, 2, 0).tobytes() == nhwc.tobytes()


def test_with_aipp_the_board_feeds_rgb_bytes():
    spec = Preprocess(size=[8, 6], color_order="BGR", aipp=True)
    fed = apply(Image.new("RGB", (6, 8), (200, 100, 50)), spec)
    assert (fed.dtype, fed.shape) == (np.uint8, (8, 6, 3))
    assert fed[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 90, [90, 90, 90]),
        ("1", 1, [255, 255, 255]),
        ("RGBA", (10, 20, 30, 0), [10, 20, 30]),
        ("LA", (70, 5), [70, 70, 70]),
        ("CMYK", (255, 0, 0, 0), [0, 255, 255]),
        ("P", 0, [0, 0, 0]),
    ],
)
def test_modes_become_rgb(mode, colour, expected):
    assert pixels(Image.new(mode, (4, 4), colour), Preprocess(size=[2, 2]))[0, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_pictures_are_refused_not_clipped(mode):
    with pytest.raises(InputError, match=mode):
        apply(Image.new(mode, (4, 4)), Preprocess())


def test_a_damaged_picture_is_an_input_error(tmp_path):
    path = tmp_path / "half.png"
    drawings.cat().save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with Image.open(path) as image, pytest.raises(InputError, match="damaged"):
        apply(image, Preprocess())


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({"size": [224]}, ["preprocess.size: two values"]),
        ({"size": [0, 224]}, ["preprocess.size: must be at least 1"]),
        ({"resize_filter": "linear"}, ["preprocess.resize_filter: must be one of nearest"]),
        ({"color_order": "GBR"}, ["preprocess.color_order: must be RGB or BGR"]),
        ({"layout": "CHW"}, ["preprocess.layout: must be NCHW or NHWC"]),
        ({"scale": 0.0}, ["preprocess.scale: must be a number above 0"]),
        ({"std": [0.2, 0.0, 0.2]}, ["preprocess.std: must be above 0"]),
        ({"mean": [0.5], "std": [1.0, 1.0, 1.0, 1.0]}, ["preprocess.mean: three", "preprocess.std: three"]),
        ({"mean": [0.5, float("nan"), 0.5]}, ["preprocess.mean: must be finite"]),
        ({"aipp": True, "mean": [-0.1, 0.5, 0.5]}, ["preprocess.mean: AIPP takes mean/scale"]),
        ({"aipp": True, "mean": [1.5, 0.5, 0.5]}, ["preprocess.mean: AIPP takes mean/scale"]),
        ({"aipp": True, "size": [8, 5000]}, ["preprocess.size: AIPP takes"]),
        ({"aipp": True, "std": [1e-9, 1.0, 1.0]}, ["preprocess.std: scale/std must fit"]),
        ({"size": [], "scale": -1.0}, ["preprocess.size", "preprocess.scale"]),
    ],
)
def test_check_names_every_problem(changes, begins):
    problems = check(dataclasses.replace(Preprocess(), **changes))
    assert len(problems) == len(begins)
    for problem, begin in zip(problems, begins, strict=True):
        assert problem.startswith(begin)
        assert "\n" not in problem


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
def test_the_aipp_file_computes_the_same_numbers(color_order):
    spec = dataclasses.replace(shipped("cifar10"), size=[16, 12], color_order=color_order, layout="NHWC")
    text = aipp_config(spec)
    fields = dict(re.findall(r"^    (\w+): (\S+)$", text, re.M))
    assert text.startswith("aipp_op {\n")
    assert text.endswith("}\n")
    assert (fields["src_image_size_h"], fields["src_image_size_w"]) == ("16", "12")
    assert (fields["aipp_mode"], fields["input_format"]) == ("static", "RGB888_U8")
    picture = noise(16, 12)
    fed = apply(Image.fromarray(picture), dataclasses.replace(spec, aipp=True)).astype(np.float32)
    swapped = fed[:, :, ::-1] if fields["rbuv_swap_switch"] == "true" else fed
    computed = np.empty_like(swapped)
    for c in range(3):
        minimum, factor = np.float16(fields[f"min_chn_{c}"]), np.float16(fields[f"var_reci_chn_{c}"])
        computed[:, :, c] = (swapped[:, :, c] - int(fields[f"mean_chn_{c}"]) - np.float32(minimum)) * factor
    # float16 has 11 bits: 125.3 ± 0.03 and factors ± 0.05 %.
    np.testing.assert_allclose(computed, normalise(picture, spec), rtol=0, atol=0.003)


def test_the_aipp_file_is_refused_where_aipp_cannot_do_it():
    with pytest.raises(ConfigError, match=r"preprocess\.mean"):
        aipp_config(Preprocess(mean=[-1.0, 0.0, 0.0]))
    with pytest.raises(ConfigError, match="YUV420SP_U8"):
        aipp_config(Preprocess(), format="YUV420SP_U8")


def test_aipp_numbers_have_no_exponent():
    text = aipp_config(Preprocess(scale=1 / 255, std=[30.0, 30.0, 30.0]))
    assert re.findall(r"var_reci_chn_\d: (\S+)", text) == ["0.000130719"] * 3


def test_spec_json_survives_json_exactly():
    spec = shipped("cifar10_tutorial")
    back = json.loads(spec_text(spec, app="x"))
    assert back == spec_json(spec, app="x")
    assert Preprocess(**back["preprocess"]) == spec
    with pytest.raises(ConfigError, match=r"preprocess\.std"):
        spec_json(dataclasses.replace(spec, std=[1.0, 0.0, 1.0]))


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("source", [(32, 32), (12, 16), (80, 96)])
def test_training_sees_what_the_board_feeds(color_order, layout, source):
    ds = pytest.importorskip("mindspore.dataset")
    spec = dataclasses.replace(shipped("cifar10"), size=[32, 32], color_order=color_order, layout=layout)
    pictures = [noise(*source, seed) for seed in range(3)]
    columns = ds.GeneratorDataset([(picture,) for picture in pictures], ["image"], shuffle=False)
    columns = columns.map(mindspore_transforms(spec, False), input_columns=["image"])
    seen = [row["image"] for row in columns.create_dict_iterator(num_epochs=1, output_numpy=True)]
    assert len(seen) == 3
    for picture, trained in zip(pictures, seen, strict=True):
        expected = apply(Image.fromarray(picture), spec)
        assert trained.dtype == np.float32
        np.testing.assert_allclose(trained, expected, rtol=0, atol=2e-6)


def test_augmentation_is_for_training_alone():
    ds = pytest.importorskip("mindspore.dataset")
    spec = dataclasses.replace(shipped("cifar10"), size=[32, 32])
    picture = noise(32, 32)

    def seen(train):
        columns = ds.GeneratorDataset([(picture,)] * 16, ["image"], shuffle=False)
        operations = mindspore_transforms(spec, train, crop_padding=4, flip=True, source=(32, 32))
        columns = columns.map(operations, input_columns=["image"])
        rows = columns.create_dict_iterator(num_epochs=1, output_numpy=True)
        return {row["image"].tobytes() for row in rows}

    assert len(seen(False)) == 1
    assert len(seen(True)) > 8
