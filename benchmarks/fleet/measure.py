"""Runs one command and writes down what it took. Started by :func:`measure` inside the client's namespaces.

It is the first process of a PID namespace of its own: what the command leaves behind (masters of multiplexed
SSH connections) falls to it, counts as the command's, and ends before the figures are written. ``wall`` is
the time until the command itself ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Figures:
    """``wall`` and ``cpu`` in seconds, memory and ``wire`` in bytes.

    cpu: of all the client's processes, user and system. peak: the largest sum, over all of them, of
    proportional set sizes that was seen (about 20 samples a second, fewer where sampling itself would cost
    more than 5 % of a core). largest: resident set of the largest single process, by the kernel. wire: both ways,
    counted by the client's interface. packets: TCP segments both ways. connections: TCP connections opened.
    said: what the program said about itself.
    """

    status: int
    wall: float
    cpu: float
    peak: int
    largest: int
    threads: int
    processes: int
    wire: int
    packets: int
    connections: int
    said: dict[str, Any] = field(default_factory=dict)
    log: str = ""


def measure(
    netns: str, argv: Sequence[str], environment: Mapping[str, str], folder: Path, limit: float = 900
) -> Figures:
    """Run ``argv`` inside the network namespace ``netns``; at most ``limit`` seconds.

    ``folder``: for the log and the figures; working folder of the command. What the command prints as its
    last line is taken as what it says about itself, if that is a JSON object.
    """
    from benchmarks.fleet.boards import end  # the measuring process itself must stay small

    result = folder / "figures.json"
    result.unlink(missing_ok=True)
    command = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", netns]
    command += ["unshare", "-m", "-p", "--fork", "--kill-child", "--mount-proc", sys.executable, "-S", "-E"]
    process = subprocess.Popen(
        [*command, __file__, str(result), *argv], stdin=subprocess.DEVNULL, cwd=folder, env=dict(environment)
    )
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{argv[0]}: not done within {limit:g} s") from None
    finally:
        end([process])
    if not result.exists():
        raise RuntimeError(f"{argv[0]}: the measuring process ended with status {process.returncode}")
    figures = Figures(**json.loads(result.read_text()))
    figures.log = (folder / "log").read_text(errors="replace")
    lines = (folder / "stdout").read_text(errors="replace").splitlines()
    if lines and lines[-1].startswith("{"):
        figures.said = json.loads(lines[-1])
    return figures


class _Sampler(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.threads = self.processes = 0
        self.over = threading.Event()

    def run(self) -> None:
        while True:
            begun = time.thread_time()
            total = threads = processes = 0
            for name in os.listdir("/proc"):
                if not name.isdigit() or name == "1":
                    continue
                try:
                    memory = Path("/proc", name, "smaps_rollup").read_text()
                    threads += len(os.listdir(f"/proc/{name}/task"))
                except OSError:
                    continue  # it has ended
                processes += 1
                total += int(memory.split("\nPss:", 1)[1].split(None, 1)[0]) * 1024
            self.peak = max(self.peak, total)
            self.threads = max(self.threads, threads)
            self.processes = max(self.processes, processes)
            if self.over.wait(max(0.05, 20 * (time.thread_time() - begun))):
                return


def _counters() -> tuple[int, int, int]:
    """Bytes through the interfaces, TCP segments, connections opened; of this network namespace."""
    wire = 0
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, numbers = line.split(":")
        if name.strip() in ("c0", "t0"):
            columns = numbers.split()
            wire += int(columns[0]) + int(columns[8])
    keys, values = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line[:4] == "Tcp:"]
    tcp = dict(zip(keys[1:], map(int, values[1:]), strict=True))
    return wire, tcp["InSegs"] + tcp["OutSegs"], tcp["ActiveOpens"]


def _end_the_rest() -> None:
    end = time.monotonic() + 5
    number = signal.SIGTERM
    while True:
        left = [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(0.01)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > end:
            number = signal.SIGKILL


def _main() -> None:
    result, *argv = sys.argv[1:]
    sampler = _Sampler()
    before = _counters()
    with open("stdout", "wb") as out, open("log", "wb") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log)
        sampler.start()
        status = process.wait()
        wall = time.perf_counter() - begun
    sampler.over.set()
    sampler.join()
    _end_the_rest()
    after = _counters()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    wire, packets, connections = (new - old for new, old in zip(after, before, strict=True))
    largest = usage.ru_maxrss * 1024
    figures = {
        "status": status,
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": max(sampler.peak, largest),
        "largest": largest,
        "threads": sampler.threads,
        "processes": sampler.processes,
        "wire": wire,
        "packets": packets,
        "connections": connections,
    }
    Path(result).write_text(json.dumps(figures))


if __name__ == "__main__":
    _main()
