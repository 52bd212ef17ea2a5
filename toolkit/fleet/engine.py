"""Carries boards' jobs out, some at a time. Ctrl-C once: no new boards; twice: the running lines are cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from toolkit.fleet.job import BoardJob, cut_all_lines
from toolkit.fleet.outcome import Outcome
from toolkit.ui.events import Emit, Event

Worker = Callable[[BoardJob], Outcome]


def run_jobs(
    jobs: Sequence[BoardJob], work: Worker, workers: int, emit: Emit, stop: threading.Event
) -> Iterator[Outcome]:
    """Yield one outcome for each job, in the order in which they end; never more than ``workers`` at a time.

    ``stop`` is set by the first Ctrl-C: boards that have not begun are skipped, the running ones finish. The second
    one cuts their lines: the agents end what they do, and boards in the middle of a switch go back by themselves.
    """

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
                    emit(Event("warning", "stopping now: running boards keep or get back what they had"))
                    cut_all_lines()
                else:
                    stop.set()
                    emit(Event("warning", "interrupted: running boards finish, no new ones; again to stop now"))
                continue
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
