"""A Dask cluster on this machine, for ``engine=dask`` without an address: on 127.0.0.1, and without HTTP servers.

Imported only where the package ``distributed`` is there.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from distributed import Nanny, Scheduler, SpecCluster, Worker

_HOST = "127.0.0.1"


class _Mute:
    """Dask's nodes open an HTTP server even where no dashboard is wanted: nobody asked for one."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Open none."""


class QuietScheduler(_Mute, Scheduler):  # type: ignore[misc]
    """A scheduler without an HTTP server."""


class QuietWorker(_Mute, Worker):  # type: ignore[misc]
    """A worker without an HTTP server, which Ctrl-C does not end; its process finds this class by its name."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().__init__(*arguments, **options)


def local_cluster(workers: int, threads: int, folder: Path) -> Any:
    """Start ``workers`` processes that do ``threads`` boards at once each; a context manager, which ends them.

    ``folder`` is for what they write. A worker that dies is started again.
    """
    options = {
        "host": _HOST,
        "nthreads": threads,
        "local_directory": str(folder),
        "memory_limit": 0,  # a job is a connection, not an array
        "silence_logs": logging.ERROR,
        "worker_class": QuietWorker,
    }
    with _interruptions_held_back():
        return SpecCluster(
            scheduler={"cls": QuietScheduler, "options": {"host": _HOST, "port": 0, "dashboard": False}},
            workers={number: {"cls": Nanny, "options": options} for number in range(workers)},
            silence_logs=logging.ERROR,
        )


@contextlib.contextmanager
def _interruptions_held_back() -> Iterator[None]:
    """Threads and processes that are started within it never see Ctrl-C; this thread does, afterwards.

    A terminal sends Ctrl-C to all processes in front of it. What it means for the boards is decided in one
    place, and a worker that dies of it would leave its boards in the middle. The mask is inherited: by the
    threads of the cluster, and by the processes that those start, now and when a worker died; it holds until
    a worker's process can say so itself.
    """
    # Python's tracker of shared resources, started by whoever needs it first, would take SIGINT off the mask.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
