"""Residual networks in MindSpore.

Parameters are named as ModelZoo names them (``layer1.0.conv1.weight``, ``end_point.bias``…), and ``resnet50``
computes what ModelZoo's does (``same`` padding, batch norm with epsilon 1e-4), so that its checkpoints can be
loaded here.

All of it exports to ONNX: pooling with ``pad_mode="same"`` (explicit padding becomes MaxPool3DWithArgmax,
which has no ONNX form), sums written ``y + x``, the global average as ReduceMean.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, nn, ops

from toolkit.errors import ConfigError
from toolkit.learn.catalogue import Architecture, architecture


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, pad_mode="same", weight_init="zeros")


def _norm(channels: int) -> nn.BatchNorm2d:
    # MindSpore's momentum is the share that is kept. 0.9 and 1e-4 are ModelZoo's.
    return nn.BatchNorm2d(channels, eps=1e-4, momentum=0.9)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.SequentialCell:
    return nn.SequentialCell([_conv(channels_in, channels_out, 1, stride), _norm(channels_out)])


class BasicBlock(nn.Cell):  # type: ignore[misc]
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels_out, 3, stride)
        self.bn1 = _norm(channels_out)
        self.conv2 = _conv(channels_out, channels_out, 3)
        self.bn2 = _norm(channels_out)
        self.relu = nn.ReLU()
        self.resized = stride != 1 or channels_in != channels_out
        if self.resized:
            self.down_sample_layer = _shortcut(channels_in, channels_out, stride)

    def construct(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, out, H / stride, W / stride], float32."""
        kept = x
        if self.resized:
            kept = self.down_sample_layer(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + kept)


class BottleneckBlock(nn.Cell):  # type: ignore[misc]
    """1×1, 3×3 and 1×1 convolutions around a shortcut; the inner ones have a quarter of the channels."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        inner = channels_out // 4
        self.conv1 = _conv(channels_in, inner, 1)
        self.bn1 = _norm(inner)
        self.conv2 = _conv(inner, inner, 3, stride)
        self.bn2 = _norm(inner)
        self.conv3 = _conv(inner, channels_out, 1)
        self.bn3 = _norm(channels_out)
        self.relu = nn.ReLU()
        self.resized = stride != 1 or channels_in != channels_out
        if self.resized:
            self.down_sample_layer = _shortcut(channels_in, channels_out, stride)

    def construct(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, out, H / stride, W / stride], float32."""
        kept = x
        if self.resized:
            kept = self.down_sample_layer(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + kept)


class ResNet(nn.Cell):  # type: ignore[misc]
    """A residual network: stem, layers of blocks, global average, one dense layer."""

    def __init__(self, plan: Architecture, classes: int, stem: str) -> None:
        super().__init__()
        kernel, stride = {"small": (3, 2), "cifar": (3, 1), "imagenet": (7, 2)}[stem]
        self.conv1 = _conv(3, plan.stem_width, kernel, stride)
        self.bn1 = _norm(plan.stem_width)
        self.relu = nn.ReLU()
        self.pooled = stem == "imagenet"
        if self.pooled:
            self.maxpool = nn.MaxPool2d(3, 2, pad_mode="same")
        block = BottleneckBlock if plan.bottleneck else BasicBlock
        channels = plan.stem_width
        layers = []
        for width, depth, step in zip(plan.widths, plan.depths, plan.strides, strict=True):
            blocks = [
                block(channels if n == 0 else width, width, step if n == 0 else 1) for n in range(depth)
            ]
            layers.append(nn.SequentialCell(blocks))
            channels = width
        # Attributes one by one, for ModelZoo's names; three layers are enough for the small network.
        self.layer1, self.layer2, self.layer3 = layers[:3]
        self.has_layer4 = len(layers) > 3
        if self.has_layer4:
            self.layer4 = layers[3]
        self.mean = ops.ReduceMean(keep_dims=True)
        self.flatten = nn.Flatten()
        self.end_point = nn.Dense(channels, classes, weight_init="zeros", bias_init="zeros")

    # The parameter's name becomes the input's name in the exported file.
    def construct(self, x: Tensor) -> Tensor:
        """Normalised pictures [N, 3, H, W] float32 -> logits [N, classes] float32."""
        y = self.relu(self.bn1(self.conv1(x)))
        if self.pooled:
            y = self.maxpool(y)
        y = self.layer3(self.layer2(self.layer1(y)))
        if self.has_layer4:
            y = self.layer4(y)
        return self.end_point(self.flatten(self.mean(y, (2, 3))))


def build(name: str, classes: int, height: int, width: int, seed: int = 1) -> ResNet:
    """Return the network ``name`` for pictures of ``height`` by ``width`` pixels, its weights drawn from
    ``seed``.

    The draws are NumPy's, so they are the same whatever MindSpore's version, device or number of threads.
    ConfigError where the name is unknown or the pictures are too small.
    """
    plan = architecture(name)
    if min(height, width) < plan.smallest:
        raise ConfigError(
            f"model.name={name}: pictures of {height}×{width} are too small, it takes {plan.smallest} a side",
            hint="take a larger preprocess.size, or a smaller network",
        )
    network = ResNet(plan, classes, plan.stem_for(height, width))
    initialise(network, seed)
    return network


def initialise(network: nn.Cell, seed: int) -> None:
    """Draw weights as ModelZoo does: convolutions XavierUniform, dense TruncatedNormal(0.01), biases zero."""
    random = np.random.default_rng(seed)
    for parameter in network.get_parameters():
        shape = tuple(parameter.shape)
        if len(shape) == 4:
            field = shape[2] * shape[3]
            limit = math.sqrt(6.0 / ((shape[0] + shape[1]) * field))
            _fill(parameter, random.uniform(-limit, limit, shape))
        elif len(shape) == 2:
            values = random.standard_normal(shape)
            while (outside := np.abs(values) > 2.0).any():
                values[outside] = random.standard_normal(int(outside.sum()))
            _fill(parameter, 0.01 * values)


def _fill(parameter: Parameter, values: npt.NDArray[np.float64]) -> None:
    parameter.set_data(Tensor(values.astype(np.float32)))
