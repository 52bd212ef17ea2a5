"""A rollout to many simulated boards: memory, time, threads, and outcomes that equal the inventory as sets.

    python benchmarks/scale.py --boards 100
    python benchmarks/scale.py --boards 1000 --at-once 100 --engine threads --concurrency 32

The boards are real SSH servers with a disk each (``toolkit.sim``); as many run as ``--at-once`` says, chunk after
chunk, since a thousand disks and servers are the machine's limit and not the rollout's. Each chunk is one rollout
of the same release, which is not trained: ResNet-8 with its initial weights. What is measured is this side: the
process that rolls out, without the boards' server. A second rollout then finds nothing to do on the last chunk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=100, help="how many boards in all")
    parser.add_argument("--at-once", type=int, default=100, help="how many of them are simulated at a time")
    parser.add_argument("--concurrency", type=int, default=32, help="boards worked on at once")
    parser.add_argument("--engine", choices=("threads", "dask"), default="threads")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        figures = measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if figures["outcomes_equal_inventory"] and figures["statuses"].keys() == {"ok"} else 1


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Roll out chunk by chunk and sum up."""
    names = [f"board-{number:05d}" for number in range(options.boards)]
    chunks = [names[start : start + options.at_once] for start in range(0, len(names), options.at_once)]
    # Built once, before the clock runs.
    Deploy(folder, "package", "+board=sim", "train.epochs=0").finish()
    outcomes: dict[str, str] = {}
    runs: list[Deploy] = []
    for number, chunk in enumerate(chunks):
        call = call_for(folder, chunk, options)
        run = Deploy(folder, *call).finish()
        twice = outcomes.keys() & run.statuses.keys()
        if twice:
            raise SystemExit(f"two outcomes for {sorted(twice)[:5]}")
        outcomes |= run.statuses
        runs.append(run)
        if number + 1 < len(chunks):
            shutil.rmtree(folder / ".deploy" / "sim", ignore_errors=True)
    again = Deploy(folder, *call_for(folder, chunks[-1], options)).finish()
    statuses: dict[str, int] = {}
    for status in outcomes.values():
        statuses[status] = statuses.get(status, 0) + 1
    boards = [item for run in runs for item in run.boards]
    rollout = sum(run.rollout_seconds for run in runs)
    return {
        "boards": len(names),
        "at_once": options.at_once,
        "engine": options.engine,
        "concurrency": options.concurrency,
        "cores": os.cpu_count(),
        "outcomes_equal_inventory": set(outcomes) == set(names),
        "statuses": statuses,
        "seconds_in_all": round(sum(run.seconds for run in runs), 1),
        "seconds_of_rollouts": round(rollout, 1),
        "boards_per_second": round(len(names) / rollout, 2),
        "cpu_seconds_a_board": round(sum(run.cpu for run in runs) / len(names), 3),
        "peak_memory_mb": round(max(run.peak_mb for run in runs), 1),
        "peak_threads": max(run.threads for run in runs),
        "seconds_a_board_median": sorted(item["seconds"] for item in boards)[len(boards) // 2],
        "kilobytes_sent_a_board": round(sum(item["sent"] for item in boards) / len(boards) / 1000, 1),
        "again": {
            "boards": len(again.boards),
            "statuses": sorted(set(again.statuses.values())),
            "requests_a_board": max(item["requests"] for item in again.boards),
            "seconds_of_rollout": round(again.rollout_seconds, 1),
            "kilobytes_sent_a_board": round(sum(i["sent"] for i in again.boards) / len(again.boards) / 1000, 1),
        },
    }


def call_for(folder: Path, chunk: list[str], options: argparse.Namespace) -> list[str]:
    """The command line for one chunk, whose inventory is written first."""
    inventory = folder / "inventory" / "scale.yaml"
    inventory.parent.mkdir(exist_ok=True)
    boards = {name: {"profile": "200dk", "host": f"{name}.invalid"} for name in chunk}
    inventory.write_text(json.dumps({"boards": boards}))  # JSON is YAML
    return [
        f"inventory={inventory}",
        "app=digits",
        "simulate=true",
        "train.epochs=0",
        f"engine={options.engine}",
        *([f"engine.workers={options.concurrency}"] if options.engine == "threads" else []),
        f"rollout.concurrency={options.concurrency}",
        "ssh.limits.banner=120",
        "ssh.limits.auth=120",
        "ssh.limits.silence=120",
    ]


class Deploy:
    """One ``deploy``: its outcomes, and what its own process took: CPU, largest memory, threads."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.boards: list[dict[str, Any]] = []
        self.threads, self.peak_mb, self.rollout_seconds, self.cpu = 0, 0.0, 0.0, 0.0
        self._begun = time.monotonic()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stages", *arguments, "--json", "--yes"],
            cwd=CHECKOUT,
            env={**os.environ, "DEPLOY_HOME": str(folder), "ONEDNN_MAX_CPU_ISA": "AVX2"},
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def finish(self) -> Deploy:
        """Read to its end."""
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(done,))
        watcher.start()
        first = last = None
        errors = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "start" and event.get("stage") == "connect":
                first = first or event["time"]
            elif event["event"] == "outcome":
                last = event["time"]
            elif event["event"] == "result":
                self.boards = event.get("boards", [])
            elif event["event"] == "error":
                errors.append(event["text"])
        code = self._process.wait()
        done.set()
        watcher.join()
        self.seconds = time.monotonic() - self._begun
        if first and last:
            self.rollout_seconds = last - first
        if code not in (0, 4, 5, 6):
            self._errors.seek(0)
            raise SystemExit(f"deploy ended with {code}: {errors} {self._errors.read().decode()[-2000:]}")
        return self

    @property
    def statuses(self) -> dict[str, str]:
        """Board → how it ended."""
        return {item["board"]: item["status"] for item in self.boards}

    def _watch(self, done: threading.Event) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        tick = os.sysconf("SC_CLK_TCK")
        while not done.wait(0.05):
            try:
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                self.threads = max(self.threads, int(fields["Threads"]))
                self.peak_mb = max(self.peak_mb, int(fields["VmHWM"].split()[0]) / 1000)
                # utime and stime of this process alone: the boards are children's children.
                user, system = status.with_name("stat").read_text().rpartition(")")[2].split()[11:13]
                self.cpu = (int(user) + int(system)) / tick
            except (OSError, KeyError, ValueError):
                continue


if __name__ == "__main__":
    sys.exit(main())
