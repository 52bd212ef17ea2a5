"""Carries boards' jobs out, some at a time. Ctrl-C once: no new boards; twice: the running lines are cut."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from toolkit.fleet.job import BoardJob, cut_all_lines
from toolkit.fleet.outcome import Outcome
from toolkit.ui.events import Emit, Event

Worker = Callable[[BoardJob], Outcome]


def run_jobs(
    jobs: Sequence[BoardJob],
    work: Worker,
    workers: int,
    stop: threading.Event,
    closed: Callable[[], str] = lambda: "",
) -> Iterator[Outcome]:
    """Yield one outcome for each job, in the order in which they end; never more than ``workers`` at a time.

    ``stop``: once it is set, boards that have not begun are skipped; the running ones finish. ``closed`` says why
    no new board may begin ("" = they may); it is asked before each, in the worker's thread."""

    def guarded(job: BoardJob) -> Outcome:
        if stop.is_set():
            return Outcome(job.board, "skipped", cause="interrupted", message="not begun: interrupted")
        if why := closed():
            return Outcome(job.board, "skipped", cause="halted", message=f"not begun: {why}")
        return work(job)

    if not jobs:
        return
    pool = ThreadPoolExecutor(max_workers=max(1, min(workers, len(jobs))), thread_name_prefix="board")
    try:
        # Not wait(): it turns to all boards that are left, each time that one ends.
        for future in as_completed([pool.submit(guarded, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def interruptible(stop: threading.Event, emit: Emit) -> Iterator[threading.Event]:
    """Within it Ctrl-C sets ``stop``; once that is set, it cuts all lines and sets the event that is given. It raises
    nowhere.

    Of boards whose lines are cut the agents end what they do; those in the middle of a switch go back by
    themselves."""
    cut = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield cut
        return

    def tell(text: str) -> None:
        # What reads the signals must not wait for the renderer or the journal.
        threading.Thread(target=emit, args=(Event("warning", text),), daemon=True).start()

    def listen() -> None:
        while numbers := ours.recv(64):
            for _ in range(numbers.count(signal.SIGINT)):
                if stop.is_set():
                    cut.set()
                    tell("stopping now: running boards keep or get back what they had")
                    threading.Thread(target=cut_all_lines, daemon=True).start()
                else:
                    stop.set()
                    tell("interrupted: running boards finish or are put back, no new ones; again to stop now")

    # Not in the signal's handler. Python calls that in the main thread, which waits for boards: a signal that comes
    # just before it waits is not heard until a board ends. And the main thread may hold the lock of an event.
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        listener = threading.Thread(target=listen, name="ctrl-c", daemon=True)
        listener.start()
        stack.callback(listener.join)
        stack.enter_context(theirs)
        theirs.setblocking(False)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False))
        stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, lambda number, frame: None))
        yield cut
