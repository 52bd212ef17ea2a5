"""The names of the networks and of the export formats, and what goes with what. Needs no MindSpore."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from toolkit.errors import ConfigError
from toolkit.learn.settings import Device, Format

SMALL_PICTURE = 64
"""Pictures up to this many pixels a side get the CIFAR stem where a network has both."""


@dataclass(frozen=True)
class Architecture:
    """What makes a residual network.

    widths, depths, strides:
        channels at the end, number of blocks and stride of the first block, for every layer.
    bottleneck:
        three convolutions a block (1×1, 3×3, 1×1) instead of two (3×3, 3×3).
    stem:
        ``small`` (3×3, stride 2), ``cifar`` (3×3, stride 1), ``imagenet`` (7×7, stride 2, then pooling) or
        ``auto`` (``cifar`` up to :data:`SMALL_PICTURE` pixels, else ``imagenet``).
    smallest:
        the least height and width it takes, pixels.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    strides: tuple[int, ...]
    stem_width: int = 64
    bottleneck: bool = False
    stem: str = "auto"
    smallest: int = 16

    def stem_for(self, height: int, width: int) -> str:
        """Return the stem for pictures of this size."""
        if self.stem != "auto":
            return self.stem
        return "cifar" if max(height, width) <= SMALL_PICTURE else "imagenet"


NETWORKS = {
    "resnet8": Architecture((16, 32, 64), (1, 1, 1), (1, 2, 2), stem_width=16, stem="small"),
    "resnet18": Architecture((64, 128, 256, 512), (2, 2, 2, 2), (1, 2, 2, 2)),
    "resnet50": Architecture(
        (256, 512, 1024, 2048), (3, 4, 6, 3), (1, 2, 2, 2), bottleneck=True, stem="imagenet", smallest=32
    ),
}


def architecture(name: str) -> Architecture:
    """Return the architecture called ``name``; ConfigError, naming the nearest, where there is none."""
    if name in NETWORKS:
        return NETWORKS[name]
    near = difflib.get_close_matches(name, NETWORKS, n=1)
    raise ConfigError(
        f"model.name: no network is called {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
        hint="there are " + ", ".join(sorted(NETWORKS)),
    )


def check_format(format: Format | str, device_target: Device | str) -> str:
    """Return the format that is going to be written: ``air``, ``onnx`` or ``mindir``.

    ``auto`` is AIR where MindSpore computes on Ascend and ONNX elsewhere. AIR anywhere else is a ConfigError:
    ``mindspore.export`` refuses it ("Only support export file in 'AIR' format with Ascend backend").
    """
    try:
        wanted, device = Format(format), Device(device_target)
    except ValueError as error:
        raise ConfigError(
            f"export.format={getattr(format, 'value', format)}, train.device_target="
            f"{getattr(device_target, 'value', device_target)}: {error}",
            hint="formats: auto air onnx mindir; devices: CPU GPU Ascend",
        ) from None
    if wanted is Format.auto:
        return "air" if device is Device.Ascend else "onnx"
    if wanted is Format.air and device is not Device.Ascend:
        raise ConfigError(
            f"export.format=air: MindSpore writes AIR only on Ascend, train.device_target is {device.value}",
            hint="take export.format=onnx (ATC reads it too), or train where there is an Ascend chip, with"
            " train.device_target=Ascend",
        )
    return str(wanted.value)
