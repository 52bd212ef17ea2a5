"""What a training is made of, as numbers: learning rates and the digest that says whether two trainings are
the same."""

from __future__ import annotations

import hashlib
import json
import math
import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

from toolkit.learn.settings import Decay, ModelSettings, TrainSettings, to_json
from toolkit.preprocess import Preprocess

if TYPE_CHECKING:
    # A plan wants the digest and no learning rates.
    import numpy as np
    import numpy.typing as npt


def learning_rates(settings: TrainSettings, steps_per_epoch: int) -> npt.NDArray[np.float32]:
    """Return the learning rate of every step, float32 [epochs * steps_per_epoch].

    Linear from ``lr_init`` to ``lr_max`` over the warm-up, then ``decay``. ``poly`` is
    ``lr_max * (1 - (i - w) / (T - w))**2`` (mindspore-ai/models official/cv/ResNet/src/lr_generator.py).
    """
    import numpy as np

    total = settings.epochs * steps_per_epoch
    warmup = min(settings.warmup_epochs * steps_per_epoch, total)
    rates = np.empty(total, np.float64)
    rates[:warmup] = settings.lr_init + (settings.lr_max - settings.lr_init) * (np.arange(warmup) + 1) / max(
        warmup, 1
    )
    passed = np.arange(total - warmup) / max(total - warmup, 1)
    span = settings.lr_max - settings.lr_end
    if settings.decay is Decay.poly:
        rates[warmup:] = settings.lr_max * (1 - passed) ** 2
    elif settings.decay is Decay.cosine:
        rates[warmup:] = settings.lr_end + span * 0.5 * (1 + np.cos(math.pi * passed))
    elif settings.decay is Decay.linear:
        rates[warmup:] = settings.lr_max - span * passed
    else:
        rates[warmup:] = settings.lr_max
    return rates.astype(np.float32)


def threads(settings: TrainSettings) -> int:
    """Return how many threads each process computes with: ``train.threads``, or its share of the cores."""
    if settings.threads:
        return settings.threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // settings.workers)


def facts(settings: TrainSettings) -> dict[str, Any]:
    """Return what decides the bits of a training besides its settings. Imports nothing heavy."""
    try:
        version = metadata.version("mindspore")
    except metadata.PackageNotFoundError:
        version = ""
    return {
        "mindspore": version,
        "numpy": metadata.version("numpy"),
        "threads": threads(settings),
        "onednn_max_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", settings.onednn_max_isa),
    }


# These change neither weights nor history: a training can be gone on with under other values.
_IRRELEVANT = ("loaders", "evaluate_every", "patience", "keep_checkpoints", "final", "where", "remote")


def digest(model: ModelSettings, spec: Preprocess, settings: TrainSettings, data: str) -> str:
    """Return the SHA-256 of all that decides the weights; ``data`` is the digest of the records trained with.

    A checkpoint is gone on from only by a training of the same digest.
    """
    plain = {key: value for key, value in to_json(settings).items() if key not in _IRRELEVANT}
    whole = {
        "model": to_json(model),
        "preprocess": to_json(spec),
        "train": plain,
        "data": data,
        **facts(settings),
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
