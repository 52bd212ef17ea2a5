"""Several processes that train as one, data-parallel: started by MindSpore's ``msrun``, joined, agreeing.

::

    worker (our child)  →  msrun  →  scheduler, worker 0, worker 1, …     all of them toolkit.learn.worker

``msrun`` starts its workers in sessions of their own, so a signal to our process group does not reach them.
But all of them inherit a pipe from us as standard input: when it ends, whatever the reason, each of them
ends. They are ended so after a success too: left to themselves, the scheduler takes the first that goes for
lost and waits half a minute for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from toolkit.learn import recipe
from toolkit.learn.settings import Device, TrainSettings

ROLE, RANK, LINE = "MS_ROLE", "RANK_ID", "ASCEND_DEPLOY_LINE"
SCHEDULER = "MS_SCHED"
STOPPED = 130
_PATIENCE = 15.0
"""Seconds the processes get to end after they were told to."""


def inside() -> bool:
    """Is this process one of those that ``msrun`` started for us?"""
    return ROLE in os.environ and LINE in os.environ


def scheduling() -> bool:
    """Is this the process that only brings the others together?"""
    return os.environ.get(ROLE) == SCHEDULER


def launch(
    arguments: list[str], settings: TrainSettings, say: Callable[[str], None], stop: threading.Event
) -> int:
    """Run ``python -m toolkit.learn.worker *arguments`` as ``settings.workers`` processes; return the status.

    What they tell goes to ``say`` line by line; a line that is no event is their last word. When ``stop`` is
    set they are ended: what is on disk is whole. Works in the current folder. Binds to 127.0.0.1 only.
    """
    fifo = Path("line").resolve()
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    # Open for both, so that neither opening it nor the last writer's leaving blocks or ends anything.
    handle = os.open(fifo, os.O_RDWR)
    ended = threading.Event()
    listener = threading.Thread(target=_forward, args=(handle, say, ended), daemon=True)
    listener.start()
    logs = Path("ranks").resolve()
    logs.mkdir(exist_ok=True)
    command = [sys.executable, "-c", "from mindspore.parallel.cluster.run import main; main()"]
    command += [f"--worker_num={settings.workers}", f"--local_worker_num={settings.workers}"]
    command += ["--master_addr=127.0.0.1", f"--master_port={_free_port()}", f"--log_dir={logs}"]
    # No `tail -f` on our output: an index that no worker has.
    command += ["--join=True", "--cluster_time_out=120", f"--tail_worker_log={settings.workers}"]
    command += ["python", "-m", "toolkit.learn.worker", *arguments]
    environment = _environment(fifo, settings)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, env=environment) as runner:
        while runner.poll() is None and not ended.is_set() and not stop.is_set():
            stop.wait(0.1)
        _end(runner)
    os.write(handle, b"\n")  # an empty line: nothing comes any more
    listener.join()
    os.close(handle)
    fifo.unlink(missing_ok=True)
    if stop.is_set():
        return STOPPED
    if not ended.is_set():
        for log in sorted(logs.glob("worker_*.log")):
            sys.stderr.write(f"{log.name}:\n{log.read_text('utf-8', 'replace')[-4000:]}\n")
        return runner.returncode or 1
    return 0


def join(settings: TrainSettings) -> int:
    """Join the others, if there are any; return this process's number among them, from 0."""
    if settings.workers == 1:
        return 0
    import mindspore as ms
    from mindspore import communication

    communication.init()
    ms.set_auto_parallel_context(
        parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=settings.workers
    )
    return int(communication.get_rank())


def agree(workers: int, loss: float, accuracy: float | None, known: bool) -> tuple[float, float | None]:
    """Return the mean loss of all processes, and the accuracy that one of them (the others: None) measured.

    ``known`` says whether there is an accuracy at all; all processes call this with the same ``known``.
    """
    if workers == 1:
        return loss, accuracy
    import mindspore as ms
    from mindspore import nn, ops

    class Sum(nn.Cell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.sum = ops.AllReduce(ops.ReduceOp.SUM)

        def construct(self, x: ms.Tensor) -> ms.Tensor:
            return self.sum(x)

    both = Sum()(ms.Tensor([loss / workers, accuracy or 0.0], ms.float32)).asnumpy()
    return float(both[0]), float(both[1]) if known else None


def leave_with_input() -> threading.Thread:
    """End this process when its standard input ends. For those that ``msrun`` started."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(STOPPED)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    return waiting


def _environment(fifo: Path, settings: TrainSettings) -> dict[str, str]:
    # msrun starts what is called "python": that has to be this interpreter, of this virtual environment.
    programs = Path("bin").resolve()
    programs.mkdir(exist_ok=True)
    script = programs / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    found = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, LINE: str(fifo), "PATH": found}
    if settings.device_target is Device.CPU:
        environment["OMP_NUM_THREADS"] = str(recipe.threads(settings))
    return environment


def _forward(handle: int, say: Callable[[str], None], ended: threading.Event) -> None:
    rest = b""
    while True:
        *lines, rest = (rest + os.read(handle, 65536)).split(b"\n")
        for line in lines:
            if not line:
                return
            say(line.decode("utf-8", "replace"))
            if not line.startswith(b'{"event"'):
                ended.set()


def _end(runner: subprocess.Popen[bytes]) -> None:
    """End the processes by ending their input, and msrun with them."""
    assert runner.stdin is not None
    runner.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        runner.wait(_PATIENCE)
    runner.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
