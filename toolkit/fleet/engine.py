"""Carries boards' jobs out, some at a time. Ctrl-C once: no new boards; twice: the running lines are cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from toolkit.fleet.job import BoardJob
from toolkit.fleet.outcome import Outcome
from toolkit.ui.events import Emit, Event

Worker = Callable[[BoardJob], Outcome]


def run_jobs(jobs: Sequence[BoardJob], work: Worker, workers: int, emit: Emit) -> Iterator[Outcome]:
    """Yield one outcome for each job, in the order in which they end; never more than ``workers`` at a time."""
    stop = threading.Event()

    def guarded(job: BoardJob) -> Outcome:
        if stop.is_set():
            return Outcome(job.board, "skipped", cause="interrupted", message="not begun: interrupted")
        return work(job)

    pool = ThreadPoolExecutor(max_workers=max(1, min(workers, len(jobs))), thread_name_prefix="board")
    waiting: set[Future[Outcome]] = {pool.submit(guarded, job) for job in jobs}
    try:
        while waiting:
            try:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt:
                if stop.is_set():
                    raise
                stop.set()
                emit(Event("warning", "interrupted: running boards finish, no new ones; Ctrl-C again to stop now"))
                continue
            for future in done:
                yield future.result()
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
