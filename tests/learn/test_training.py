"""Real trainings with MindSpore, in the worker process as the program does it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from learning import Trained, digits_spec, shipped
from PIL import Image

from toolkit.errors import ConfigError, DeployError, InputError
from toolkit.learn import training_job, worker
from toolkit.learn.settings import (
    DataSettings,
    Device,
    Final,
    ModelSettings,
    Split,
    TrainSettings,
    Where,
    from_json,
)
from toolkit.ui.events import Event, ignore

pytestmark = pytest.mark.learn

CHECKOUT = Path(__file__).resolve().parents[2]
SHORT = TrainSettings(epochs=3, crop=2, loaders=2)


def train(
    data: Path | None,
    folder: Path,
    settings: TrainSettings,
    emit: Callable[[Event], None] = ignore,
    **model: Any,
) -> dict[str, Any]:
    """Train below ``folder`` as the stage does: an empty ``out``, and a ``work`` that stays."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    return training_job.train(
        data,
        ModelSettings(**model),
        digits_spec(),
        settings,
        DataSettings(),
        out=folder / "out",
        work=folder / "work",
        emit=emit,
    )


def losses(report: dict[str, Any]) -> list[tuple[float, float]]:
    return [(row["loss"], row["accuracy"]) for row in report["history"]]


def children() -> list[int]:
    """Processes that this one started and that still run."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def workers() -> list[int]:
    return [pid for pid in children() if b"toolkit.learn.worker" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it ended meanwhile


# The shipped recipe


def test_the_shipped_recipe_learns_the_digits(trained: Trained) -> None:
    assert trained.report["accuracy"] >= 0.985
    assert trained.report["parameters"] == 78_042
    assert trained.report["epochs"] == 12
    assert trained.report["steps"] == 12 * 44
    assert "held-out digits" in trained.report["summary"]


def test_the_result_is_only_what_it_should_be(trained: Trained) -> None:
    names = {path.name for path in trained.out.iterdir()}
    assert names == {"model.ckpt", "last.ckpt", "best.ckpt", "history.csv", "curves.png"}
    assert trained.checkpoint.read_bytes() == (trained.out / "last.ckpt").read_bytes()
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in trained.out.glob("*.ckpt"))
    work = {path.name for path in (trained.out.parent / "work").iterdir()}
    assert work == {"train.json", "worker.log", "checkpoints"}


def test_the_history_has_a_line_for_every_epoch(trained: Trained) -> None:
    with (trained.out / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13))
    assert float(rows[-1]["loss"]) < 0.1 < float(rows[0]["loss"])
    assert float(rows[-1]["accuracy"]) == trained.report["accuracy"]
    assert float(rows[-1]["lr"]) < 1e-5 < 0.04 < float(rows[1]["lr"])
    (timed,) = (trained.out.parent / "work" / "checkpoints").glob("*/history.csv")
    assert timed.read_text().startswith("epoch,loss,accuracy,lr,seconds\n")


def test_progress_is_told_while_it_goes_on(trained: Trained) -> None:
    told = [event.data for event in trained.events if event.kind == "progress"]
    assert len(told) >= 12
    assert [data["done"] for data in told] == sorted(data["done"] for data in told)
    assert {data["total"] for data in told} == {12 * 44}
    assert {data["epoch"] for data in told} == set(range(1, 13))
    last = told[-1]
    assert last["unit"] == "steps"
    assert last["seconds_left"] == 0
    assert last["accuracy"] == trained.report["accuracy"]
    assert all(data["loss"] > 0 for data in told)


# Interruptions


@pytest.fixture(scope="module")
def uninterrupted(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return Trained(folder / "out", train(few, folder, SHORT))


@pytest.fixture(scope="module")
def interrupted(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of the same training, which got a Ctrl-C in its third epoch."""

    def press(event: Event) -> None:
        if event.data.get("epoch") == 3:
            raise KeyboardInterrupt

    for _ in range(8):
        folder = tmp_path_factory.mktemp("interrupted")
        with pytest.raises(KeyboardInterrupt):
            train(few, folder, SHORT, press)
        assert workers() == []
        # It is so short that it may have come to its end before it heard of it.
        if not (folder / "out" / "model.ckpt").exists():
            return folder / "work"
    raise AssertionError("Ctrl-C is not heard in the middle of a training")


def resume(
    few: Path, interrupted: Path, folder: Path, damage: Callable[[Path], None]
) -> tuple[Trained, list[Event]]:
    shutil.copytree(interrupted, folder / "work")
    damage(next((folder / "work" / "checkpoints").iterdir()))
    events: list[Event] = []
    report = train(few, folder, SHORT, events.append)
    return Trained(folder / "out", report), [event for event in events if event.kind == "warning"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_second(folder: Path) -> None:
    cut(folder / "epoch-0002.ckpt")


def cut_both(folder: Path) -> None:
    for path in folder.glob("epoch-*.ckpt"):
        cut(path)


@pytest.mark.parametrize(
    ("damage", "epoch", "warned"),
    [(lambda folder: None, 2, 0), (cut_second, 1, 1), (cut_both, 0, 2)],
    ids=["whole", "newest cut", "all cut"],
)
def test_a_resumed_training_gives_what_an_uninterrupted_one_does(
    few: Path,
    uninterrupted: Trained,
    interrupted: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    epoch: int,
    warned: int,
) -> None:
    resumed, warnings = resume(few, interrupted, tmp_path, damage)
    assert resumed.report["resumed_from"] == epoch
    assert len(warnings) == warned == len(resumed.report["warnings"])
    assert all("cut or damaged" in warning.text for warning in warnings)
    assert losses(resumed.report) == losses(uninterrupted.report)
    assert resumed.checkpoint.read_bytes() == uninterrupted.checkpoint.read_bytes()
    assert (resumed.out / "history.csv").read_bytes() == (uninterrupted.out / "history.csv").read_bytes()


def test_a_worker_that_dies_is_one_line_with_the_log(few: Path, tmp_path: Path) -> None:
    def kill(event: Event) -> None:
        if event.kind == "progress":
            for pid in workers():
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(DeployError, match=r"train process ended unexpectedly \(signal 9") as caught:
        train(few, tmp_path, SHORT, kill)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "work" / "worker.log") in caught.value.hint
    assert workers() == []


PARENT = """
import os, signal, sys
from pathlib import Path
from toolkit.learn import training_job, worker
from toolkit.learn.settings import DataSettings, ModelSettings, TrainSettings
from toolkit.preprocess import Preprocess

def emit(event):
    if event.kind == "progress":
        os.kill(os.getpid(), signal.SIGKILL)

work = Path(sys.argv[2])
training_job.train(
    Path(sys.argv[1]), ModelSettings(), Preprocess(size=[32, 32]), TrainSettings(epochs=500), DataSettings(),
    out=work / "out", work=work, emit=emit,
)
"""


def test_a_worker_does_not_outlive_its_parent(few: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(few), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT) as parent:
        assert parent.wait(300) == -signal.SIGKILL
    # The worker holds the job's file name in its command line; it ends by itself when its input does.
    mark = str(tmp_path / "train.json").encode()
    deadline = time.monotonic() + 60

    def lives() -> bool:
        return any(mark in command_line(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc"))))

    while lives() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives()


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    settings = dataclasses.replace(SHORT, epochs=0, device_target=Device.Ascend)
    with pytest.raises(
        InputError, match=r"train\.device_target=Ascend: MindSpore cannot use it here"
    ) as caught:
        train(None, tmp_path, settings)
    assert "\n" not in str(caught.value)
    assert "train.where" in caught.value.hint


# Seeds and recipes


def test_without_epochs_come_the_seeded_weights_and_no_data_is_needed(tmp_path: Path) -> None:
    nothing = dataclasses.replace(SHORT, epochs=0)
    reports = [
        train(None, tmp_path / str(n), dataclasses.replace(nothing, seed=seed))
        for n, seed in enumerate([1, 1, 2])
    ]
    digests = [report["sha256"] for report in reports]
    assert digests[0] == digests[1] != digests[2]
    assert reports[0]["accuracy"] is None
    assert reports[0]["steps"] == 0
    assert "untrained" in reports[0]["summary"]


def test_the_model_zoos_recipe_runs_and_its_best_epoch_can_be_taken(few: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        from_json(TrainSettings, shipped("train", "cifar10_resnet50")),
        epochs=4,
        warmup_epochs=1,
        evaluate_every=2,
        final=Final.best,
        split=Split.all,
        keep_checkpoints=1,
    )
    report = train(few, tmp_path, settings)
    assert report["steps"] == 4 * (544 // 32)
    assert report["amp_level"] == "O0"
    accuracies = [row["accuracy"] for row in report["history"]]
    assert accuracies[0] is None is accuracies[2]
    assert None not in (accuracies[1], accuracies[3])
    assert report["accuracy"] == report["best_accuracy"] == max(accuracies[1], accuracies[3])
    assert (tmp_path / "out" / "model.ckpt").read_bytes() == (tmp_path / "out" / "best.ckpt").read_bytes()
    assert len(list((tmp_path / "work" / "checkpoints").glob("*/epoch-*.ckpt"))) == 1


def test_a_loss_that_is_no_number_ends_the_training_with_advice(few: Path, tmp_path: Path) -> None:
    wild = dataclasses.replace(SHORT, lr_init=1e6, lr_max=1e9)
    with pytest.raises(DeployError, match="diverged") as caught:
        train(few, tmp_path, wild)
    assert "train.lr_max" in caught.value.hint


def test_labels_beyond_the_networks_classes_are_refused(few: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label 9 in it, but model\.classes=7") as caught:
        train(few, tmp_path, SHORT, classes=7)
    assert "10 classes" in caught.value.hint


def test_training_elsewhere_is_not_done_here(few: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.where=modelarts"):
        train(few, tmp_path, dataclasses.replace(SHORT, where=Where.modelarts))


# Evaluation, early stop, what is kept of the course


def test_progress_ends_each_epoch_once(trained: Trained) -> None:
    told = [event.data for event in trained.events if event.kind == "progress"]
    ends = [data["done"] for data in told if data["done"] % 44 == 0]
    assert ends == [44 * epoch for epoch in range(1, 13)]


def test_the_curves_are_the_same_bytes_every_time(trained: Trained, tmp_path: Path) -> None:
    picture = trained.out / "curves.png"
    with Image.open(picture) as image:
        assert image.size == (800, 900)
        assert not {"Software", "Creation Time", "date"} & set(image.info)
    again = tmp_path / "again.png"
    # In a process of its own, with a user's own taste and an empty cache of fonts.
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "matplotlibrc").write_text("lines.linewidth: 9\nfont.family: monospace\n")
    code = "import json,sys\nfrom pathlib import Path\nfrom toolkit.learn import curves\n"
    code += "curves.draw(json.loads(sys.argv[1]), Path(sys.argv[2]), 'resnet8, digits', Path(sys.argv[3]))"
    history = json.dumps(trained.report["history"])
    subprocess.run(
        [sys.executable, "-c", code, history, str(again), str(tmp_path)],
        check=True,
        cwd=CHECKOUT,
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path / "config"), "HOME": str(tmp_path)},
    )
    assert again.read_bytes() == picture.read_bytes()


def test_without_improvement_it_stops_early_and_is_found_stopped(few: Path, tmp_path: Path) -> None:
    # Nothing is learned at such a rate: every epoch is as good as the first.
    settings = dataclasses.replace(
        SHORT, epochs=6, lr_init=1e-12, lr_max=1e-12, patience=1, evaluate_every=2, final=Final.best
    )
    report = train(few, tmp_path, settings)
    evaluated = [row["epoch"] for row in report["history"] if row["accuracy"] is not None]
    assert report["stopped_after"] == 4
    assert (evaluated, report["best_epoch"], report["steps"]) == ([2, 4], 2, 4 * 15)
    assert "no better since epoch 2" in report["summary"]
    made = {name: (tmp_path / "out" / f"{name}.ckpt").read_bytes() for name in ("model", "best", "last")}
    assert made["model"] == made["best"] != made["last"], "the second epoch's, not the fourth's"
    again = train(few, tmp_path, settings)
    assert (again["resumed_from"], again["stopped_after"], again["sha256"]) == (4, 4, report["sha256"])


def test_training_with_the_held_out_pictures_is_warned_of(few: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    report = train(few, tmp_path, dataclasses.replace(SHORT, epochs=1, split=Split.all), events.append)
    (warning,) = [event.text for event in events if event.kind == "warning"]
    assert warning.startswith("train.split=all")
    assert "of the digits test pictures, trained with, right, 1 epoch" in report["summary"]
    assert report["warnings"] == [warning]
    assert report["steps"] == 544 // 32


# Several processes


def test_two_workers_train_one_network_and_leave_nothing_behind(few: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SHORT, epochs=2, workers=2)
    begun = threading.Event()

    def press(event: Event) -> None:
        if event.data.get("epoch") == 2:
            begun.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(few, tmp_path, settings, press)
    assert begun.is_set()
    assert living(tmp_path) == []
    events: list[Event] = []
    report = train(few, tmp_path, settings, events.append)
    assert living(tmp_path) == []
    assert report["resumed_from"] == 1
    assert report["steps"] == 2 * (480 // 64)
    assert report["facts"]["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)
    told = [event.data["done"] for event in events if event.kind == "progress"]
    assert told == sorted(set(told)), "one of them reports"
    # Each process had half of every step's pictures: the weights are those of both halves.
    logs = {path.name for path in (tmp_path / "work" / "ranks").iterdir()}
    assert logs == {"scheduler.log", "worker_0.log", "worker_1.log"}
    assert (tmp_path / "out" / "model.ckpt").is_file()


def living(folder: Path) -> list[int]:
    """Processes whose command line names ``folder``, once those that were told to end had time to."""
    mark = str(folder).encode()
    deadline = time.monotonic() + 20
    while True:
        pids = map(int, filter(str.isdigit, os.listdir("/proc")))
        found = [pid for pid in pids if mark in command_line(pid)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


@pytest.mark.timeout(60)
def test_a_signal_at_the_moment_when_the_event_is_locked() -> None:
    """As by the wait for the workers of one training, ten times a second: the handler must not wait for it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            stop = threading.Event()
            worker._stop_at_signals(stop)
            with stop._cond:  # type: ignore[attr-defined]
                signal.raise_signal(number)
            assert stop.wait(20)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
