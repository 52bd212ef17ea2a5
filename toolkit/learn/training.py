"""The training loop.

One compiled step (forward, backward, Momentum) in graph mode; after every epoch an evaluation, a line of
history and a checkpoint. Order, crops and weights come from seeds (see ``feeding`` and ``networks``), so the
same settings give the same losses to the last bit on the same number of threads, resumed or not.

With ``train.workers`` above 1 each of them runs this loop on its own part of every step's pictures; MindSpore
averages the gradients, so that all hold the same weights. The first one evaluates, writes and reports.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.train import amp

from toolkit.errors import DeployError, InputError
from toolkit.learn import checkpoints, networks, recipe, together
from toolkit.learn.feeding import evaluation_batches, training_batches
from toolkit.learn.layout import Images, Labels, read_classes, read_split
from toolkit.learn.settings import AmpLevel, Device, Final, ModelSettings, Split, TrainSettings
from toolkit.preprocess import Preprocess
from toolkit.ui.events import Emit, Event

HISTORY = ("epoch", "loss", "accuracy", "lr")
MODEL = "model.ckpt"
STAGE = "train"


@dataclass
class TrainReport:
    """What a training did."""

    checkpoint: str
    """file name of the result: weights alone"""
    sha256: str
    epochs: int
    """asked for"""
    stopped_after: int
    """epoch of an early stop; 0: all epochs were trained"""
    steps: int
    parameters: int
    """numbers in the network that are trained"""
    accuracy: float | None
    """of the result on the held-out pictures, 0..1; None where it was not evaluated"""
    best_accuracy: float | None
    best_epoch: int
    loss: float | None
    """mean over the last epoch"""
    seconds: float
    """of this process; epochs of an earlier, interrupted one are not in it"""
    resumed_from: int
    """epoch this process went on from; 0: from the start"""
    device_target: str
    amp_level: str
    """what was computed with; O0 is float32"""
    facts: dict[str, Any] = field(default_factory=dict)
    """versions and thread count, see :func:`toolkit.learn.recipe.facts`"""
    warnings: list[str] = field(default_factory=list)
    history: list[dict[str, float | None]] = field(default_factory=list)
    """one entry an epoch: epoch, loss, accuracy, lr, seconds"""


def set_up(settings: TrainSettings) -> None:
    """Bring MindSpore into graph mode on the wanted device; InputError where there is none."""
    try:
        ms.set_device(settings.device_target.value)
        ms.set_context(mode=ms.GRAPH_MODE)
        if settings.device_target is Device.Ascend:
            ms.set_context(deterministic="ON")
        if settings.threads or settings.workers > 1:
            ms.set_context(runtime_num_threads=recipe.threads(settings))
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        raise InputError(
            f"train.device_target={settings.device_target.value}: MindSpore cannot use it here ({reason})",
            hint="take train.device_target=CPU, or train where the device is (train.where)",
        ) from error
    ms.set_seed(settings.seed)


class Training:
    """One training of one network on one set of pictures. ``run`` does it."""

    def __init__(
        self,
        model: ModelSettings,
        spec: Preprocess,
        settings: TrainSettings,
        out: Path,
        state: Path,
        emit: Emit,
        stop: threading.Event,
    ) -> None:
        self.model, self.spec, self.settings = model, spec, settings
        self.out, self.state, self.emit, self.stop = out, state, emit, stop
        self.warnings: list[str] = []
        self.stopped_after = 0
        self.rank = together.join(settings)
        self.chief = self.rank == 0
        height, width = spec.size
        self.network = networks.build(model.name, model.classes, height, width, settings.seed)

    def run(self, data_dir: Path | None) -> TrainReport | None:
        """Train; see :func:`train`."""
        started = time.monotonic()
        self.out.mkdir(parents=True, exist_ok=True)
        self.history: list[dict[str, float | None]] = []
        resumed = steps = 0
        if self.settings.epochs:
            if data_dir is None:
                raise InputError(f"train.epochs={self.settings.epochs}: there are no pictures to train with")
            resumed, steps = self._epochs(data_dir)
        elif self.chief:
            checkpoints.save_weights(self.network, self.out / "last.ckpt")
        if self.chief:
            self._write_history()
        if not self.chief:
            return None
        return self._report(resumed, steps, time.monotonic() - started)

    def _epochs(self, data_dir: Path) -> tuple[int, int]:
        settings = self.settings
        images, labels = self._records(data_dir, settings.split.value)
        held_out = self._records(data_dir, "test")
        per_epoch = len(images) // (settings.batch_size * settings.workers)
        if not per_epoch:
            each = f" for each of {settings.workers}" if settings.workers > 1 else ""
            raise InputError(
                f"{data_dir}: {len(images)} pictures don't fill one batch of {settings.batch_size}{each}",
                hint="take a smaller train.batch_size",
            )
        if settings.split is Split.all and self.chief:
            self._warn("train.split=all trains with the test pictures, too: accuracies say nothing about new ones")
        self.rates = recipe.learning_rates(settings, per_epoch)
        self._build_step()
        self.recipe = recipe.digest(self.model, self.spec, settings, _digest(images, labels))
        # A folder for each recipe: trying another one does not cost the checkpoints of a long training.
        self.state = self.state / self.recipe[:16]
        first = self._resume() + 1
        self.emit(
            Event(
                "log",
                f"{self.model.name}: {len(images):,} pictures, {settings.epochs} epochs of {per_epoch} steps"
                + (f", going on after epoch {first - 1}" if first > 1 else ""),
                stage=STAGE,
            )
        )
        clock = _Clock(self.emit, settings, per_epoch, first)
        epoch = first - 1
        while epoch < settings.epochs and not self._patience_ended():
            epoch += 1
            loss = self._epoch(images, labels, epoch, clock)
            due = epoch % (settings.evaluate_every or settings.epochs) == 0 or epoch == settings.epochs
            accuracy = self.accuracy(*held_out) if due and self.chief else None
            loss, accuracy = together.agree(settings.workers, loss, accuracy, due)
            self._end_epoch(epoch, loss, accuracy, per_epoch, clock)
        if epoch < settings.epochs:
            self.stopped_after = epoch
            text = f"stopped after epoch {epoch}: no better than epoch {self._best()[0]}"
            self.emit(Event("log", text, stage=STAGE))
        if self.chief:
            checkpoints.save_weights(self.network, self.out / "last.ckpt")
        return first - 1, epoch * per_epoch

    def _patience_ended(self) -> bool:
        """Have ``train.patience`` epochs brought no better accuracy? Only an evaluation can tell."""
        if self.settings.patience is None or not self.history or self.history[-1]["accuracy"] is None:
            return False
        return int(self.history[-1]["epoch"] or 0) - self._best()[0] >= self.settings.patience

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.emit(Event("warning", text, stage=STAGE))

    def _records(self, data_dir: Path, split: str) -> tuple[Images, Labels]:
        images, labels = read_split(data_dir, split)
        if int(labels.max()) >= self.model.classes:
            raise InputError(
                f"{data_dir}: label {int(labels.max())} in it, but model.classes={self.model.classes}",
                hint=f"the dataset names {len(read_classes(data_dir))} classes: set model.classes to that",
            )
        return images, labels

    def _build_step(self) -> None:
        settings = self.settings
        decayed: list[ms.Parameter] = []
        plain: list[ms.Parameter] = []
        for parameter in self.network.trainable_params():
            kept = parameter.name.endswith((".gamma", ".beta", ".bias"))
            (plain if kept else decayed).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
            {"order_params": self.network.trainable_params()},
        ]
        optimizer = nn.Momentum(
            groups,
            ms.Tensor(self.rates),
            settings.momentum,
            loss_scale=settings.loss_scale,
            use_nesterov=False,
        )
        loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
        self.amp_level = settings.amp_level if settings.device_target is Device.Ascend else AmpLevel.O0
        scale = ms.FixedLossScaleManager(settings.loss_scale, drop_overflow_update=False)
        self.step = amp.build_train_network(
            self.network, optimizer, loss, level=self.amp_level.value, loss_scale_manager=scale
        )

    def _resume(self) -> int:
        """Load the newest whole checkpoint into network and optimizer; return its epoch, or 0."""
        self.state.mkdir(parents=True, exist_ok=True)
        saved, warnings = checkpoints.newest(self.state, self.recipe)
        for warning in warnings if self.chief else ():
            self._warn(warning)
        if saved is None:
            return 0
        checkpoints.load(saved.path, self.step, f"this training ({self.model.name})")
        self.history = list(saved.state["history"])
        return saved.epoch

    def _epoch(self, images: Images, labels: Labels, epoch: int, clock: _Clock) -> float:
        self.step.set_train(True)
        # Reading a loss waits for the device: on Ascend that would leave it idle between steps.
        every = 1 if self.settings.device_target is Device.CPU else 20
        losses: list[ms.Tensor] = []
        batches = training_batches(images, labels, self.spec, self.settings, epoch, self.rank)
        for pictures, answers in batches:
            losses.append(self.step(pictures, answers))
            if len(losses) % every == 0:
                loss = float(losses[-1].asnumpy())
                if not math.isfinite(loss):
                    raise DeployError(
                        f"training diverged: the loss is {loss} in epoch {epoch}, step {len(losses)}",
                        hint=f"lower train.lr_max={self.settings.lr_max} or lengthen train.warmup_epochs",
                    )
                clock.step(epoch, len(losses), loss)
            if self.stop.is_set():
                raise KeyboardInterrupt
        return float(np.mean([float(loss.asnumpy()) for loss in losses]))

    def _end_epoch(
        self, epoch: int, loss: float, accuracy: float | None, per_epoch: int, clock: _Clock
    ) -> None:
        seconds = clock.end_epoch(epoch, loss, accuracy)
        rate = float(self.rates[epoch * per_epoch - 1])
        self.history.append(
            {"epoch": epoch, "loss": loss, "accuracy": accuracy, "lr": rate, "seconds": seconds}
        )
        if not self.chief:
            return
        if accuracy is not None and self._best()[0] == epoch:
            checkpoints.save_weights(self.network, self.state / "best.ckpt")
        state = {"recipe": self.recipe, "history": self.history}
        checkpoints.save_epoch(self.step, self.state, epoch, state)
        checkpoints.prune(self.state, self.settings.keep_checkpoints)
        self._write_history()

    def _best(self) -> tuple[int, float | None]:
        """Return the epoch of the highest held-out accuracy, the earliest of equals, and that accuracy."""
        known = [row for row in self.history if row["accuracy"] is not None]
        if not known:
            return 0, None
        best = max(known, key=lambda row: (row["accuracy"], -float(row["epoch"] or 0)))
        return int(best["epoch"] or 0), best["accuracy"]

    def accuracy(self, images: Images, labels: Labels) -> float:
        """Return the share of pictures whose highest logit is their label's, 0..1."""
        self.network.set_train(False)
        right = 0
        batches = evaluation_batches(
            images, labels, self.spec, self.settings.batch_size, self.settings.loaders
        )
        for pictures, answers in batches:
            logits = self.network(pictures).asnumpy()
            right += int((logits.argmax(axis=1)[: len(answers)] == answers).sum())
            if self.stop.is_set():
                raise KeyboardInterrupt
        return right / len(labels)

    def _write_history(self) -> None:
        # Times differ from run to run: with them, the result's digest would too, and all that follows be made
        # anew.
        _write_csv(self.out / "history.csv", HISTORY, self.history)
        if self.settings.epochs:
            _write_csv(self.state / "history.csv", (*HISTORY, "seconds"), self.history)

    def _report(self, resumed: int, steps: int, seconds: float) -> TrainReport:
        epoch, best = self._best()
        last = self.history[-1] if self.history else None
        took_best = self.settings.final is Final.best and epoch > 0
        kept = self.state / "best.ckpt"
        best_of = kept if epoch and kept.is_file() else self.out / "last.ckpt"
        shutil.copyfile(best_of, self.out / "best.ckpt")
        result = self.out / MODEL
        shutil.copyfile(self.out / ("best.ckpt" if took_best else "last.ckpt"), result)
        return TrainReport(
            checkpoint=result.name,
            sha256=checkpoints.sha256(result),
            epochs=self.settings.epochs,
            stopped_after=self.stopped_after,
            steps=steps,
            parameters=sum(parameter.size for parameter in self.network.trainable_params()),
            accuracy=best if took_best else (last["accuracy"] if last else None),
            best_accuracy=best,
            best_epoch=epoch,
            loss=last["loss"] if last else None,
            seconds=seconds,
            resumed_from=resumed,
            device_target=self.settings.device_target.value,
            amp_level=self.amp_level.value if self.settings.epochs else AmpLevel.O0.value,
            facts=recipe.facts(self.settings),
            warnings=self.warnings,
            history=self.history,
        )


class _Clock:
    """Progress events, at most five a second and one at each epoch's end, with the time left."""

    def __init__(self, emit: Emit, settings: TrainSettings, per_epoch: int, first: int) -> None:
        self.emit, self.settings, self.per_epoch = emit, settings, per_epoch
        self.done_before = (first - 1) * per_epoch
        self.total = settings.epochs * per_epoch
        self.accuracy: float | None = None
        self.epoch_began = self.told = time.monotonic()
        self.second_step: float | None = None

    def step(self, epoch: int, step: int, loss: float) -> None:
        now = time.monotonic()
        if self.second_step is None:
            self.second_step = now  # the first step compiles the graph: it says nothing about the others
            self.done_before = (epoch - 1) * self.per_epoch + step
        # The last step of an epoch is told with its evaluation.
        if now - self.told >= 0.2 and step < self.per_epoch:
            self._tell(epoch, (epoch - 1) * self.per_epoch + step, loss, now)

    def end_epoch(self, epoch: int, loss: float, accuracy: float | None) -> float:
        now = time.monotonic()
        self.accuracy = accuracy if accuracy is not None else self.accuracy
        self._tell(epoch, epoch * self.per_epoch, loss, now)
        seconds, self.epoch_began = now - self.epoch_began, now
        return seconds

    def _tell(self, epoch: int, done: int, loss: float, now: float) -> None:
        self.told = now
        measured = done - self.done_before
        left = None
        if self.second_step is not None and measured > 0:
            left = (now - self.second_step) / measured * (self.total - done)
        figures = {
            "done": done,
            "total": self.total,
            "unit": "steps",
            "epoch": epoch,
            "epochs": self.settings.epochs,
            "loss": loss,
            "accuracy": self.accuracy,
            "seconds_left": left,
        }
        self.emit(Event("progress", f"epoch {epoch}/{self.settings.epochs}", stage=STAGE, data=figures))


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, float | None]]) -> None:
    beside = path.with_name(f".{path.name}.writing")
    with beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: "" if row[key] is None else row[key] for key in columns})
    os.replace(beside, path)


def _digest(images: Images, labels: Labels) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(labels).tobytes())
    digest.update(images.data)
    return digest.hexdigest()


def train(
    data_dir: Path | None,
    model: ModelSettings,
    preprocess: Preprocess,
    settings: TrainSettings,
    out: Path,
    emit: Emit,
    stop: threading.Event,
    state: Path | None = None,
) -> TrainReport | None:
    """Train ``model`` on the pictures of ``data_dir`` (CIFAR-10's layout) and write the result into ``out``.

    Writes ``model.ckpt`` (the result), ``last.ckpt``, ``best.ckpt`` (weights alone) and ``history.csv``
    (epoch, loss, accuracy, lr; with seconds too in ``state``); checkpoints of epochs go to a folder of the
    recipe in ``state`` (default ``out/checkpoints``), and a training that finds some there goes on from the
    newest whole one. ``epochs=0`` writes the seeded initial weights and needs no ``data_dir``.

    Of several workers the first returns a report, the others None.

    Setting ``stop`` ends it after the current step with KeyboardInterrupt; what is on disk stays valid.
    InputError for data that cannot be used, DeployError where the loss stops being a number.
    """
    set_up(settings)
    training = Training(model, preprocess, settings, out, state or out / "checkpoints", emit, stop)
    return training.run(data_dir)
