"""The release that is rolled out, and what changes between two rollouts.

A model of random weights in half precision, 300 small files, two environment lines, and a program that reads
the whole release on the board and writes ten files that depend on it: whoever fetches the right ten files has
installed the right release.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

import numpy as np

SCENARIOS = ("first", "same", "one-file", "retrained")
TITLES = {
    "first": "First run",
    "same": "Nothing changed",
    "one-file": "One file changed",
    "retrained": "Model retrained",
}
ENVIRONMENT = 'export BENCH_DEVICE_ID="0"\nexport BENCH_LOG_LEVEL="3"\n'

_OLD, _NEW = 1_700_000_000, 1_700_003_600

RUN = '''"""Stands in for inference: reads the release, writes ten files that depend on all of it."""
import hashlib, os, sys

release, out = sys.argv[1:3]
if (os.environ.get("BENCH_DEVICE_ID"), os.environ.get("BENCH_LOG_LEVEL")) != ("0", "3"):
    sys.exit("the environment is not set")
digest = hashlib.sha256()
for folder, folders, names in os.walk(os.path.join(release, "files")):
    folders.sort()
    for name in sorted(names):
        with open(os.path.join(folder, name), "rb") as file:
            digest.update(file.read())
with open(os.path.join(release, "model.bin"), "rb") as file:
    digest.update(file.read(65536))
    file.seek(-65536, 2)
    digest.update(file.read())
os.makedirs(out, exist_ok=True)
for number in range(10):
    with open(os.path.join(out, "result-%d.txt" % number), "w") as file:
        file.write(("%d %s\\n" % (number, digest.hexdigest())) * 300)
'''


class Workload:
    """The release's folder on the client, ``release``. Deterministic: the same seed makes the same bytes.

    ``model_mb``: megabytes (10⁶ bytes) of the model. The weights are normal with a deviation of 0.02; a
    retrained model differs in nearly every weight.
    """

    def __init__(self, folder: Path, model_mb: float, files: int = 300, seed: int = 1) -> None:
        self.release = folder / "release"
        self._folder = folder
        self._files = files
        self._seed = seed
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        weights = rng.normal(0, 0.02, int(model_mb * 500_000)).astype(np.float16)
        (folder / "model-a").write_bytes(weights.tobytes())
        nudged = weights + rng.normal(0, 0.0005, weights.size).astype(np.float16)
        (folder / "model-b").write_bytes(nudged.tobytes())
        # rsync compares times in whole seconds: what was made in one second must not look the same to it.
        os.utime(folder / "model-a", (_OLD, _OLD))
        os.utime(folder / "model-b", (_NEW, _NEW))

    def enter(self, scenario: str) -> None:
        """Make the release's folder what this scenario finds; they are entered in their order."""
        if scenario == "first":
            shutil.rmtree(self.release, ignore_errors=True)
            (self.release / "files").mkdir(parents=True)
            for number in range(self._files):
                self._write_small(number, self._seed)
            (self.release / "run.py").write_text(RUN)
            (self.release / "env.sh").write_text(ENVIRONMENT)
            os.link(self._folder / "model-a", self.release / "model.bin")
        elif scenario == "one-file":
            self._write_small(self._files // 2, self._seed + 1)
        elif scenario == "retrained":
            (self.release / "model.bin").unlink()
            os.link(self._folder / "model-b", self.release / "model.bin")
        elif scenario != "same":
            raise ValueError(scenario)

    def _write_small(self, number: int, seed: int) -> None:
        chance = random.Random(f"{seed} {number}")
        words = [chance.choice(("conv", "pool", "relu", "dense", "norm")) + str(chance.random()) for _ in range(170)]
        path = self.release / "files" / f"part-{number % 10}" / f"{number:03d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(words))  # about 4 KB
        when = _OLD if seed == self._seed else _NEW
        os.utime(path, (when, when))

    def contents(self) -> dict[str, str]:
        """Path in the release → SHA-256."""
        return contents(self.release)

    def expected(self) -> str:
        """What each of the ten files has to say (see ``RUN``)."""
        digest = hashlib.sha256()
        for folder, folders, names in os.walk(self.release / "files"):
            folders.sort()
            for name in sorted(names):
                digest.update(Path(folder, name).read_bytes())
        with (self.release / "model.bin").open("rb") as file:
            digest.update(file.read(65536))
            file.seek(-65536, 2)
            digest.update(file.read())
        return digest.hexdigest()


def contents(folder: Path) -> dict[str, str]:
    """Path → SHA-256 of every file below ``folder``."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
