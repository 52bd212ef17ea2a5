"""How long one picture's pre-processing takes: the tutorial's way against ours.

    python benchmarks/preprocess.py [--repeat N]

For three kinds of JPEG it prints milliseconds for each phase (the best of N, since other load only adds):

- decode: open and convert to RGB, the same for all;
- tutorial: resize, then listing 7.1 of the tutorial, seven passes over a [224,224,3] array and a copy;
- ours: resize, then one product and one sum (toolkit/preprocess.py; infer.py on the boards does the same);
- aipp: resize alone: the om does the rest;
- arithmetic: the two without decoding and resizing;
- draft: decode with the reduced scale that JPEG offers: quick for large pictures, but it changes pixels, so
  nothing here uses it; the last column says by how much (mean and largest difference after normalisation).
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import platform
import timeit
from collections.abc import Callable

import numpy as np
import PIL
from PIL import Image

from toolkit import drawings
from toolkit.preprocess import Preprocess, apply, normalise, pixels

CIFAR10 = Preprocess(
    resize_filter="bicubic",
    color_order="BGR",
    scale=0.003922,
    mean=[0.4914, 0.4822, 0.4465],
    std=[0.2023, 0.1994, 0.2010],
)


def jpeg(width: int, height: int) -> bytes:
    """A drawing with some noise on it, so that there is something to decode."""
    image = drawings.cat().resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    noisy = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def decode_reduced(data: bytes, size: list[int]) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (size[1], size[0]))
    return image.convert("RGB")


def tutorial_arithmetic(img: np.ndarray) -> np.ndarray:
    img = img[:, :, ::-1]
    shape = img.shape
    img = img.astype("float32")
    img[:, :, 0] *= 0.003922
    img[:, :, 1] *= 0.003922
    img[:, :, 2] *= 0.003922
    img[:, :, 0] -= 0.4914
    img[:, :, 0] = img[:, :, 0] / 0.2023
    img[:, :, 1] -= 0.4822
    img[:, :, 1] = img[:, :, 1] / 0.1994
    img[:, :, 2] -= 0.4465
    img[:, :, 2] = img[:, :, 2] / 0.2010
    img = img.reshape([1, *shape])
    return img.transpose([0, 3, 1, 2]).copy()


def tutorial(image: Image.Image, size: list[int]) -> np.ndarray:
    return tutorial_arithmetic(np.array(image.resize((size[1], size[0]))))


def milliseconds(function: Callable[[], object], repeat: int) -> float:
    return min(timeit.repeat(function, number=1, repeat=repeat)) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one picture's pre-processing.")
    parser.add_argument("--repeat", type=int, default=50, help="take the best of so many (50)")
    repeat = parser.parse_args().repeat
    print(
        f"Python {platform.python_version()}, NumPy {np.__version__}, Pillow {PIL.__version__}; ms a picture"
    )
    heading = [
        "JPEG -> size",
        "decode",
        "tutorial",
        "ours",
        "aipp",
        "arithmetic: tutorial",
        "ours",
        "draft",
        "changes",
    ]
    print(" | ".join(heading))
    for width, height, side in ((32, 32, 32), (32, 32, 224), (1920, 1080, 224)):
        data = jpeg(width, height)
        spec = dataclasses.replace(CIFAR10, size=[side, side])
        fed = dataclasses.replace(spec, aipp=True)
        image = decode(data)
        small = pixels(image, spec)
        difference = np.abs(apply(image, spec) - tutorial(image, spec.size)[0]).max()
        if difference > 2e-6:
            raise SystemExit(f"the two disagree by {difference}: nothing to compare")
        changes = np.abs(apply(decode_reduced(data, spec.size), spec) - apply(image, spec))
        times = [
            milliseconds(lambda data=data: decode(data), repeat),
            milliseconds(lambda image=image, spec=spec: tutorial(image, spec.size), repeat),
            milliseconds(lambda image=image, spec=spec: apply(image, spec), repeat),
            milliseconds(lambda image=image, fed=fed: apply(image, fed), repeat),
            milliseconds(lambda small=small: tutorial_arithmetic(small), repeat),
            milliseconds(lambda small=small, spec=spec: normalise(small, spec), repeat),
            milliseconds(lambda data=data, spec=spec: decode_reduced(data, spec.size), repeat),
        ]
        cells = [f"{value:.3f}" for value in times] + [f"{changes.mean():.3f}, {changes.max():.2f}"]
        print(" | ".join([f"{width}x{height} -> {side}", *cells]))


if __name__ == "__main__":
    main()
