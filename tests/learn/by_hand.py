"""What a training should do, computed another way; prints JSON. A process of its own, since it needs MindSpore.

``python by_hand.py steps`` takes two steps with the recipe's own train step and with plain gradients and NumPy.
``python by_hand.py workers DATA CHECKPOINT`` takes one step for each of two workers and averages their gradients.
``python by_hand.py pictures`` looks at what random crops, mirrors and the workers' parts make of the records.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from learning import STEP, digits_spec
from mindspore import nn

from toolkit.learn import feeding, networks, training
from toolkit.learn.layout import read_split
from toolkit.learn.settings import ModelSettings, TrainSettings
from toolkit.ui.events import ignore


def weights(network: nn.Cell) -> dict[str, Any]:
    return {item.name: item.asnumpy().copy() for item in network.trainable_params()}


def gradients(network: nn.Cell, pictures: ms.Tensor, answers: ms.Tensor) -> tuple[float, dict[str, Any]]:
    """The loss, and its gradient for each weight."""
    network.set_train(True)
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    wanted = network.trainable_params()
    value, found = ms.value_and_grad(nn.WithLossCell(network, loss), None, wanted)(pictures, answers)
    named = {item.name: gradient.asnumpy() for item, gradient in zip(wanted, found, strict=True)}
    return float(value.asnumpy()), named


def stepped(
    before: dict[str, Any], gradient: dict[str, Any], speed: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Momentum with weight decay for what multiplies pictures, not for biases and batch norms."""
    after, speeds = {}, {}
    for name, weight in before.items():
        decayed = weight.ndim > 1
        slope = gradient[name] + (STEP.weight_decay * weight if decayed else 0)
        speeds[name] = slope + (STEP.momentum * speed[name] if speed else 0)
        after[name] = weight - STEP.lr_max * speeds[name]
    return after, speeds


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert set(one) == set(other)
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def steps() -> dict[str, Any]:
    random = np.random.default_rng(3)
    pictures = ms.Tensor(random.normal(size=(16, 3, 32, 32)).astype(np.float32))
    answers = ms.Tensor(random.integers(0, 10, 16).astype(np.int32))
    training.set_up(STEP)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        real = training.Training(ModelSettings(), digits_spec(), STEP, place, place, ignore, threading.Event())
        real.rates = np.full(2, STEP.lr_max, np.float32)
        real._build_step()
        network = networks.build("resnet8", 10, 32, 32, STEP.seed)
        found, speed = weights(network), None
        apart = []
        for _ in range(2):
            real.step.set_train(True)
            real.step(pictures, answers)
            _, slope = gradients(network, pictures, answers)
            found, speed = stepped(found, slope, speed)
            ms.load_param_into_net(network, {name: ms.Parameter(value, name) for name, value in found.items()})
            apart.append(difference(weights(real.network), found))
    kept = [name for name, value in found.items() if value.ndim == 1]
    return {"apart": apart, "decayed": len(found) - len(kept), "kept": kept}


def workers(data: str, checkpoint: str) -> dict[str, Any]:
    images, labels = read_split(Path(data), "train")
    training.set_up(STEP)
    losses, slopes = [], []
    for rank in range(2):
        network = networks.build("resnet8", 10, 32, 32, STEP.seed)
        settings = TrainSettings(**{**vars(STEP), "workers": 2})
        ((pictures, answers),) = feeding.training_batches(images, labels, digits_spec(), settings, 1, rank)
        loss, slope = gradients(network, pictures, answers)
        losses.append(loss)
        slopes.append(slope)
    before = weights(networks.build("resnet8", 10, 32, 32, STEP.seed))
    mean = {name: (slopes[0][name] + slopes[1][name]) / 2 for name in before}
    made = {name: value.asnumpy() for name, value in ms.load_checkpoint(checkpoint).items() if name in before}
    alone = [difference(stepped(before, slope)[0], made) for slope in slopes]
    apart = difference(stepped(before, mean)[0], made)
    return {"losses": losses, "apart": apart, "apart from one of them": min(alone)}


def pictures() -> dict[str, Any]:
    random = np.random.default_rng(5)
    images = random.integers(0, 256, (600, 8, 8, 3), np.uint8)
    labels = np.arange(600, dtype=np.int32)
    order = np.arange(600)

    def places(flip: bool, epoch: int) -> list[tuple[int, int, bool]]:
        """For each record the offset that it was cropped at, and whether it was mirrored."""
        source = feeding.Varied(images, labels, order, 1, flip, [1, epoch])
        found = []
        for index in order:
            shown, label = source[index]
            assert label.tolist() == [index]
            padded = np.pad(images[index], ((1, 1), (1, 1), (0, 0)))
            fits = [
                (top, left, mirrored)
                for top in range(3)
                for left in range(3)
                for mirrored in (False, True)
                if (padded[top : top + 8, left : left + 8][:, :: -1 if mirrored else 1] == shown).all()
            ]
            assert len(fits) == 1
            found += fits
        return found

    first, plain = places(True, 1), places(False, 1)
    settings = TrainSettings(**{**vars(STEP), "batch_size": 8})
    spec = digits_spec()

    def batches(epoch: int = 1, **changes: Any) -> list[list[int]]:
        chosen = TrainSettings(**{**vars(settings), **changes})
        parts = range(chosen.workers)
        each = [feeding.training_batches(images, labels, spec, chosen, epoch, rank) for rank in parts]
        return [sorted(int(one) for batch in step for one in batch[1].asnumpy()) for step in zip(*each, strict=True)]

    return {
        "offsets": len({(top, left) for top, left, _ in first}),
        "mirrored": sum(mirrored for *_, mirrored in first),
        "mirrored without flip": sum(mirrored for *_, mirrored in plain),
        "the same again": places(True, 1) == first,
        "the same in another epoch": places(True, 2) == first,
        "two workers see what one with twice the batch does": batches(workers=2) == batches(batch_size=16),
        "the same order in another epoch": batches(2) == batches(),
        "records of an epoch": len({one for step in batches() for one in step}),
    }


if __name__ == "__main__":
    answer = {"steps": steps, "workers": workers, "pictures": pictures}[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(answer))
