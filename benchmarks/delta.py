"""What a changed model takes on the line: our difference, rsync -z and zstd, on om files of this project.

Run it: ``python -m benchmarks.delta [--work FOLDER]``. Trains ResNet8 on the digits, trains it longer, and
converts what comes out with the simulated ATC; ResNet50 gets seeded weights, and weights near them. Each pair
goes through the real agent over a line on this machine. rsync and zstd are left out where they are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import onnxruntime.quantization as quantization
from onnx import numpy_helper

from toolkit.artefacts.manifest import Release, blobs_of
from toolkit.learn import digits, training_job
from toolkit.learn.settings import DataSettings, ExportSettings, ModelSettings, TrainSettings
from toolkit.preprocess import Preprocess
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, Wish

SIMULATED = Path(__file__).resolve().parents[1] / "toolkit" / "sim" / "cann" / "python"
Change = Callable[[str, np.ndarray], np.ndarray]


# ------------------------------------------------------------------------------------------ models


def trained(work: Path, name: str, epochs: int, seed: int = 0, size: int = 32) -> Path:
    """The ONNX file of a network after so many epochs on the digits."""
    out = work / f"{name}-{epochs}-{seed}"
    file = out / "export" / "model.onnx"
    if not file.exists():
        shutil.rmtree(out, ignore_errors=True)
        data = work / "digits"
        if not data.exists():
            data.mkdir()
            digits.write(data, 0.2, 0)
        model, spec = ModelSettings(name=name), Preprocess(size=(size, size))
        settings = TrainSettings(epochs=epochs, seed=seed)
        for folder in ("train", "export"):
            (out / folder).mkdir(parents=True)

        def quiet(event: object) -> None:
            pass

        training_job.train(
            data, model, spec, settings, DataSettings(), out=out / "train", work=out / "w1", emit=quiet
        )
        training_job.export(
            out / "train" / "model.ckpt", model, spec, ExportSettings(), settings, out=out / "export",
            work=out / "w2", emit=quiet,
        )  # fmt: skip
    return file


def changed(source: Path, target: Path, change: Change) -> Path:
    """A model with other weights: ``change`` gets the name and the value of each."""
    model = onnx.load(source)
    for weight in model.graph.initializer:
        value = numpy_helper.to_array(weight)
        if value.dtype == np.float32:
            moved = change(weight.name, value).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(moved, weight.name))
    onnx.save(model, target)
    return target


def nudged(share: float) -> Change:
    """Every weight moves by ``share`` of its tensor's spread, as in one more epoch."""
    rng = np.random.default_rng(1)
    return lambda name, value: value + rng.normal(size=value.shape) * share * float(value.std())


def last_layer(source: Path) -> Change:
    """Only the dense layer moves: what fine-tuning a head is."""
    nodes = onnx.load(source).graph.node
    dense = {name for node in nodes if node.op_type in ("Gemm", "MatMul") for name in node.input}
    rng = np.random.default_rng(2)
    return lambda name, value: value + rng.normal(size=value.shape) * 0.01 if name in dense else value


def quantised(source: Path, target: Path, size: int) -> Path:
    """QDQ int8 by ONNX Runtime, calibrated with seeded noise."""
    model = onnx.load(source)
    entry = model.graph.input[0]
    rng = np.random.default_rng(3)
    shape = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{entry.name: rng.normal(size=shape).astype(np.float32)} for _ in range(4)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    quantization.quantize_static(
        source, target, Reader(), quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    return target


def om(source: Path) -> Path:
    """Convert with the simulated ATC, in a folder of its own, always under the same name."""
    folder = source.with_suffix("")
    target = folder / "model.om"
    if not target.exists():
        from ascend_sim.atc import cli

        folder.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / "model.onnx")
        before = Path.cwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(io.StringIO()) as said:
                options = ["--model=model.onnx", "--framework=5", "--output=model", "--soc_version=Ascend310"]
                if cli.main(options):
                    raise SystemExit(said.getvalue())
        finally:
            os.chdir(before)
    return target


def float16(source: Path) -> Path:
    """A model's weights as float16, end to end: what ATC writes for hardware consists of them.

    Simulated om files keep the rounded weights as float32: a third of their bits is zero, whatever one does.
    """
    target = source.with_suffix(".f16")
    values = [numpy_helper.to_array(weight) for weight in onnx.load(source).graph.initializer]
    target.write_bytes(b"".join(one.astype("f2").tobytes() for one in values if one.dtype == np.float32))
    return target


def pairs(work: Path) -> dict[str, tuple[Path, Path]]:
    """Old and new file of each kind of change."""
    sys.path.insert(0, str(SIMULATED))

    def copy(source: Path, name: str) -> Path:
        return Path(shutil.copyfile(source, work / f"{name}.onnx"))

    def small(source: Path, name: str) -> Path:
        return om(quantised(source, work / f"{name}.onnx", 32))

    def large(source: Path, name: str) -> Path:
        return om(quantised(source, work / f"{name}.onnx", 224))

    first, more = trained(work, "resnet8", 3), trained(work, "resnet8", 4)
    other = trained(work, "resnet8", 3, seed=1)
    head = changed(first, work / "r8-head.onnx", last_layer(first))
    old, old8 = om(copy(first, "r8")), small(first, "r8-int8")
    found = {
        "ResNet8, trained one epoch longer": (old, om(copy(more, "r8-more"))),
        "ResNet8, trained with another seed": (old, om(copy(other, "r8-seed"))),
        "ResNet8, last layer fine-tuned": (old, om(head)),
        "ResNet8 int8, trained one epoch longer": (old8, small(more, "r8-more-int8")),
        "ResNet8 int8, last layer fine-tuned": (old8, small(head, "r8-head-int8")),
    }
    base = copy(trained(work, "resnet50", 0, size=224), "r50")
    near = changed(base, work / "r50-near.onnx", nudged(0.01))
    far = changed(base, work / "r50-far.onnx", nudged(0.1))
    head = changed(base, work / "r50-head.onnx", last_layer(base))
    old, old8, old16 = om(base), large(base, "r50-int8"), float16(base)
    return found | {
        "ResNet50, all weights moved by 1 %": (old, om(near)),
        "ResNet50, all weights moved by 10 %": (old, om(far)),
        "ResNet50, last layer fine-tuned": (old, om(head)),
        "ResNet50 float16 weights alone, moved by 1 %": (old16, float16(near)),
        "ResNet50 float16 weights alone, moved by 10 %": (old16, float16(far)),
        "ResNet50 int8, all weights moved by 1 %": (old8, large(near, "r50-near-int8")),
        "ResNet50 int8, all weights moved by 10 %": (old8, large(far, "r50-far-int8")),
        "ResNet50 int8, last layer fine-tuned": (old8, large(head, "r50-head-int8")),
    }


# ------------------------------------------------------------------------------------------ measuring


def ours(old: Path, new: Path, home: Path, know_old: bool) -> tuple[int, float, float]:
    """Bytes sent for ``new`` through the agent where ``old`` is, and seconds of processor here for ``old``, which
    is sent whole, and for ``new``."""
    address = Address("board", "local", client="local", interpreters=(sys.executable,))

    def find(sha256: str, size: int) -> Path | None:
        return old if know_old else None

    seconds, report = [], None
    for file in (old, new):
        files = {"model.om": file}
        release = Release.of_files("delta", files)
        with BoardAgent.connect(address, Limits(silence=60, board=600)) as board:
            board.inspect(str(home), "delta", Wish(release))
            start = time.process_time()  # the agent is another process
            report = board.install(release, blobs_of(release, files), "", find, "always")
            seconds.append(time.process_time() - start)
            board.switch(release.id, 0)
            assert board.verify()["ok"]
    assert report is not None
    return report.bytes, seconds[0], seconds[1]


def rsync(old: Path, new: Path, work: Path, *flags: str) -> int | None:
    """Bytes that rsync sends and gets for the new file where the old one lies; None without rsync."""
    if shutil.which("rsync") is None:
        return None
    there = work / "there"
    shutil.rmtree(there, ignore_errors=True)
    there.mkdir()
    shutil.copyfile(old, there / "model.om")
    done = subprocess.run(
        ["rsync", "--no-whole-file", "--stats", "--ignore-times", *flags, str(new), f"{there}/model.om"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert filecmp.cmp(there / "model.om", new, shallow=False)
    counts = re.findall(r"^Total bytes (?:sent|received): ([\d,.]+)", done.stdout, re.MULTILINE)
    return sum(int(re.sub(r"\D", "", count)) for count in counts)


def zstd(new: Path, old: Path | None = None) -> int | None:
    """Bytes of zstd -3, of the file alone or against the old one; None without zstd."""
    if shutil.which("zstd") is None:
        return None
    against = [f"--patch-from={old}", "--long=27"] if old else []
    done = subprocess.run(["zstd", "-3", "-q", "-c", *against, str(new)], capture_output=True, check=True)
    return len(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="keep the models here, for the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = folder
        # ONNX takes much memory, and this process is to tell how much sending takes.
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            found = other.submit(pairs, work).result()
        report(found, Path(folder))


def report(found: Mapping[str, tuple[Path, Path]], scratch: Path) -> None:
    print("| change | MB | ours | old file not here | rsync -z | zstd -3 | zstd --patch-from | CPU s (whole) |")
    print("|---|---|---|---|---|---|---|---|")
    for number, (name, (old, new)) in enumerate(found.items()):
        size = new.stat().st_size
        here, first, cpu = ours(old, new, scratch / f"a{number}", True)
        away, _, _ = ours(old, new, scratch / f"b{number}", False)
        counts = [here, away, rsync(old, new, scratch, "-z"), zstd(new), zstd(new, old)]
        shares = [f"{100 * count / size:.1f} %" if count is not None else "–" for count in counts]
        assert max(here, away) <= 1.005 * size + 4096, name
        print(f"| {name} | {size / 1e6:.2f} | {' | '.join(shares)} | {cpu:.2f} ({first:.2f}) |", flush=True)
    print(f"\npeak memory of the sending side: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
