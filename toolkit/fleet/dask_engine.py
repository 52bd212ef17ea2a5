"""Boards' jobs on the workers of a Dask cluster: ``engine=dask``.

The rollout stays where it is (waves, gates, budget, journal, receipts); only what is done with one board
moves. A thread here hands a board's :class:`Order` to the cluster and waits for its :class:`Reply`; the
worker brings the release from the shared store, verified by digest, resolves the secrets that the address
refers to, and talks to the board. What came from the board comes back as bytes, so that no file system has
to be shared.

Ctrl-C means what it means with threads. Once: boards that a worker has begun finish, no others begin. Twice: the
lines of this rollout's boards are cut on all workers. A cluster without workers, or one that does not answer,
is waited for :attr:`DaskEngine.absence` seconds; then the boards that nobody finished have failed.

A worker that dies in the middle of a board takes its connection along: the agent on the board ends and lets
go of the board's lock, and Dask gives the order to another worker. That one waits for the lock, should it
be faster, so no board is worked on twice at once, and finds what was done already, so nothing is done twice
either.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from toolkit.artefacts.hashing import walk_files
from toolkit.artefacts.shared import SharedStore
from toolkit.artefacts.store import Artefact, Store
from toolkit.config.schema import EngineSettings, StoreSettings
from toolkit.errors import ConfigError, DeployError
from toolkit.fleet.job import (
    BoardJob,
    BoardStage,
    Held,
    cut_with_all_lines,
    deploy_board,
    not_reverted,
    revert_board,
)
from toolkit.fleet.outcome import Outcome
from toolkit.ui.events import Emit, Event, ignore

LOCK_PATIENCE = 60.0
"""Seconds for which a board that this rollout itself has locked is tried again: its worker may have died."""

MAX_BYTES = 1 << 30
"""Of what comes back from one board through the cluster."""


@dataclass(frozen=True)
class Order:
    """What a worker is asked to do with one board; plain data, can be pickled.

    package: digest of the artefact with the release's files. here: the folder of artefacts of whoever asks,
    which a worker on the same machine finds too. store: where the others get them. done, why, cause: of a
    board to put back.
    """

    job: BoardJob
    stages: Sequence[BoardStage]
    package: str
    here: Path
    store: StoreSettings
    known_hosts: tuple[str, ...]
    ssh_config: str
    topic: str
    done: Outcome | None = None
    why: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Reply:
    """What a worker answers. files: name in the board's folder → content. worker: address and pid."""

    outcome: Outcome
    files: Mapping[str, bytes]
    worker: str


_lock = threading.Lock()
_ended: dict[str, Literal["no more", "cut"]] = {}  # by topic: rollouts that somebody interrupted
_lines: dict[str, weakref.WeakSet[Held]] = {}  # by topic: of this worker; others may use it, too


def end_here(topic: str, how: Literal["no more", "cut"]) -> None:
    """On a worker: begin no further order of this rollout; "cut": and close the lines of those that run."""
    with _lock:
        _ended[topic] = how
        lines = list(_lines.get(topic, ())) if how == "cut" else []
    for line in lines:
        line.close()


def _hold(topic: str) -> Held:
    """The line of an order, from before it is open."""
    held = Held()
    with _lock:
        _lines.setdefault(topic, weakref.WeakSet()).add(held)
        held.cut = _ended.get(topic) == "cut"
    return held


def carry_out(order: Order) -> Reply:
    """Do what ``order`` says, on a worker. Never raises for what goes wrong with the board."""
    emit = _emitter(order.topic)
    me = f"{_worker_address()} pid {os.getpid()}"
    if order.topic in _ended and order.done is None:
        board = order.job.board
        return Reply(Outcome(board, "skipped", cause="interrupted", message="not begun: interrupted"), {}, me)
    line = _hold(order.topic)
    with tempfile.TemporaryDirectory(prefix="deploy-", dir=_scratch()) as folder:
        out = Path(folder) / "out"
        job = replace(order.job, out=out)
        if order.done is not None:
            return Reply(revert_board(job, order.done, order.why, order.cause, emit, held=line), {}, me)
        try:
            job = replace(job, files=_files(order))
        except DeployError as error:
            outcome = Outcome(job.board, "failed", "push", "store", str(error), error.hint, job.release.id)
            return Reply(outcome, {}, me)
        outcome = _patiently(job, order.stages, emit, line)
        return Reply(outcome, _packed(out), me)


def _patiently(job: BoardJob, stages: Sequence[BoardStage], emit: Emit, line: Held) -> Outcome:
    """Deploy; wait where the board is still locked by this rollout's own dead worker."""
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        last = time.monotonic() >= end
        held: list[Event] = []
        outcome = deploy_board(job, stages, partial(_hold_outcome, held, emit), held=line)
        if last or outcome.cause != "locked" or job.holder not in outcome.message:
            for event in held:
                emit(event)
            return outcome
        time.sleep(0.5)


def _hold_outcome(held: list[Event], emit: Emit, event: Event) -> None:
    (held.append if event.kind == "outcome" else emit)(event)


def _files(order: Order) -> dict[str, Path]:
    """The release's files on this machine: path in the release → verified file."""
    here = Store(order.here)
    if here.whole(order.package):
        return dict(walk_files(here.path(order.package)))
    if order.store.kind != "shared":
        raise ConfigError(
            f"the worker has no artefact {order.package}",
            hint="workers on other machines need store.kind=shared store.url=… that they reach too",
        )
    mine = Store(_scratch() / "artefact-store")
    with _bringing:  # the first board of a release brings it, the others find it
        if not mine.whole(order.package):
            mine.shared = SharedStore.open(order.store, order.known_hosts, order.ssh_config)
            with contextlib.closing(mine.shared):
                mine.bring(Artefact(order.package, mine.path(order.package)))
    return dict(walk_files(mine.path(order.package)))


_bringing = threading.Lock()


def _packed(folder: Path) -> dict[str, bytes]:
    files, size = {}, 0
    for name, path in walk_files(folder) if folder.is_dir() else ():
        size += path.stat().st_size
        if size > MAX_BYTES:
            break
        files[name] = path.read_bytes()
    return files


def _scratch() -> Path:
    """A folder of this worker's own."""
    from distributed import get_worker

    try:
        path = Path(get_worker().local_directory)
    except ValueError:
        path = Path(tempfile.gettempdir())
    path.mkdir(parents=True, exist_ok=True)
    return path


def _worker_address() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return "no worker"


def _emitter(topic: str) -> Emit:
    """Events of a worker, to whoever asked: through the scheduler, in their order."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return ignore

    def emit(event: Event) -> None:
        worker.log_event(topic, {"event": json.loads(json.dumps(vars(event), default=str))})

    return emit


class DaskEngine:
    """Does with boards what :func:`deploy_board` and :func:`revert_board` do, on a cluster. A context
    manager.

    ``deploy`` and ``revert`` may be called from many threads; each call is one board. ``workers`` (by
    board) tells afterwards which worker did it.
    """

    patience = 30.0
    """Seconds to wait for the scheduler, and for its first worker."""

    absence = 60.0
    """Seconds for which there may be no worker, or no answer from the scheduler, before boards are given up."""

    grace = 30.0
    """Seconds after the lines were cut in which workers say what became of their boards."""

    def __init__(
        self,
        settings: EngineSettings,
        stages: Sequence[BoardStage],
        store: StoreSettings,
        *,
        here: Path,
        package: Callable[[BoardJob], str],
        emit: Emit,
        known_hosts: tuple[str, ...] = (),
        ssh_config: str = "",
        stop: threading.Event | None = None,
    ) -> None:
        """``stop``: set once no further board may begin."""
        self._settings = settings
        self._stages = tuple(stages)
        self._store = store
        self._here = here
        self._package = package
        self._emit = emit
        self._known_hosts, self._ssh_config = known_hosts, ssh_config
        self._topic = f"ascend-deploy-{secrets.token_hex(8)}"
        self._stack = contextlib.ExitStack()
        self.client: Any = None
        self._executor: Any = None
        self._stop = stop or threading.Event()
        self._cut = threading.Event()
        self._closed = threading.Event()
        self._given_up = threading.Event()
        self._why = ""  # it was given up
        self.workers: dict[str, str] = {}

    def __enter__(self) -> DaskEngine:
        try:
            from distributed import Client

            from toolkit.fleet.dask_cluster import local_cluster
        except ImportError as error:
            raise ConfigError(
                "engine=dask: the package distributed is not installed", hint="pip install -e '.[dask]'"
            ) from error
        settings = self._settings
        address, wanted = settings.address, 1 if settings.address else settings.workers
        try:
            cluster: Any = address or self._stack.enter_context(
                local_cluster(settings.workers, settings.threads, self._here / "dask")
            )
            try:
                self.client = self._stack.enter_context(Client(cluster, timeout=self.patience))
            except (OSError, TimeoutError, ValueError) as error:
                raise ConfigError(
                    f"engine.address={address}: no scheduler answers: {type(error).__name__}: {_first_line(error)}",
                    hint="dask scheduler --host …; null starts a cluster on this machine",
                ) from error
            try:
                self.client.wait_for_workers(wanted, timeout=self.patience)
            except (OSError, TimeoutError) as error:
                raise ConfigError(
                    f"engine.address={address}: the scheduler has no workers"
                    if address
                    else f"engine.workers={wanted}: not all of them came up within {self.patience:g} s",
                    hint=f"on each machine: dask worker {address}" if address else "fewer need less memory",
                ) from error
        except BaseException:  # Ctrl-C, too: no worker is left behind
            self._stack.close()
            raise
        self._stack.enter_context(cut_with_all_lines(self))
        self.client.subscribe_topic(self._topic, self._on_event)
        # Boards are not computations: the same order twice is two deployments, and none may be left out.
        self._executor = self.client.get_executor(pure=False, retries=0)
        threading.Thread(target=self._watch, name="dask-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with contextlib.suppress(Exception):
            self.client.unsubscribe_topic(self._topic)
        self._stack.close()

    @property
    def width(self) -> int:
        """How many boards the cluster works on at once, as far as it has come up."""
        return max(1, sum(int(count) for count in self.client.nthreads().values()))

    def deploy(self, job: BoardJob) -> Outcome:
        """See :func:`deploy_board`; what came from the board is in ``job.out`` afterwards."""
        return self._run(job, self._order(job))

    def revert(self, job: BoardJob, done: Outcome, why: str, cause: str) -> Outcome:
        """See :func:`revert_board`."""
        return self._run(job, replace(self._order(job), done=done, why=why, cause=cause))

    def close(self) -> None:
        """End the lines of this rollout on all workers, as a second Ctrl-C does with those of this process."""
        self._cut.set()

    def _watch(self) -> None:
        """Tell the workers of an interruption; give up where nobody is there to finish a board."""
        seen = time.monotonic()
        told: set[str] = set()
        cut_at = 0.0
        while not self._closed.wait(0.5):
            if self._stop.is_set() or self._cut.is_set():
                how = "cut" if self._cut.is_set() else "no more"
                cut_at = cut_at or (time.monotonic() if how == "cut" else 0.0)
                if how not in told:
                    told.add(how)
                    self._tell(how)
            try:
                if self.client.sync(self.client.scheduler.ncores, callback_timeout=5):
                    seen = time.monotonic()
                why = "the cluster has no workers"
            except Exception as error:  # whatever it is, nobody answers
                why = f"the scheduler does not answer: {type(error).__name__}"
            late = time.monotonic()
            if cut_at and late - cut_at > self.grace:
                return self._give_up("stopped, and its worker does not say what became of it")
            if late - seen > self.absence:
                return self._give_up(f"{why} (for {self.absence:g} s)")

    def _tell(self, how: str) -> None:
        """In a thread of its own: a worker that hangs would keep us waiting for its answer."""

        def tell() -> None:
            with contextlib.suppress(Exception):
                self.client.run(end_here, self._topic, how, on_error="ignore")

        threading.Thread(target=tell, daemon=True).start()

    def _give_up(self, why: str) -> None:
        """All orders are taken back, so that no worker that comes later begins one, and fail."""
        self._why = why

        def take_back() -> None:
            with contextlib.suppress(Exception):
                self._executor.shutdown(wait=False)

        taking = threading.Thread(target=take_back, daemon=True)
        taking.start()
        taking.join(5)
        self._given_up.set()

    def _order(self, job: BoardJob) -> Order:
        # The files' paths are this machine's: the worker finds its own by the package's digest.
        bare = replace(job, files={})
        return Order(
            bare,
            self._stages,
            self._package(job),
            self._here,
            self._store,
            self._known_hosts,
            self._ssh_config,
            self._topic,
        )

    def _run(self, job: BoardJob, order: Order) -> Outcome:
        try:
            future = self._executor.submit(carry_out, order)
            while not wait([future], timeout=0.5).done:
                if self._given_up.is_set():
                    raise TimeoutError
            reply: Reply = future.result()
        except Exception as error:  # whatever the cluster raises, the board has exactly one outcome
            outcome = self._nobody_did(job, order.done, self._why or f"{type(error).__name__}: {_first_line(error)}")
            self._emit(Event("outcome", outcome.message, board=job.board, data=outcome.as_json()))
            return outcome
        self.workers[job.board] = reply.worker
        for name, path in _inside(job.out, reply.files):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reply.files[name])
        # Its events travel on their own and may come later: this one is in the journal before anything else
        # happens.
        outcome = reply.outcome
        self._emit(Event("outcome", outcome.message, outcome.stage, job.board, outcome.as_json()))
        return outcome

    def _nobody_did(self, job: BoardJob, done: Outcome | None, why: str) -> Outcome:
        """The outcome of a board that no worker answered for."""
        if done is not None:
            return not_reverted(job, done, why)
        return Outcome(
            job.board,
            "failed",
            cause="worker",
            message=f"{job.board}: no worker carried it out: {why}",
            hint=f"look at the workers' logs; what the board runs: {job.address.command('status')}",
            release=job.release.id,
            switched=True,  # perhaps; putting back asks the board
        )

    def _on_event(self, stamped: tuple[float, Mapping[str, Any]]) -> None:
        content = stamped[1]["event"]
        if content["kind"] != "outcome":  # the reply has it
            self._emit(Event(**content))


def _inside(folder: Path, files: Mapping[str, bytes]) -> Iterator[tuple[str, Path]]:
    """Names and paths of what a worker sent, none outside of ``folder``."""
    for name in files:
        path = folder / name
        if path.resolve().is_relative_to(folder.resolve()):
            yield name, path


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
