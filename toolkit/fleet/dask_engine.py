"""Boards' jobs on the workers of a Dask cluster: ``engine=dask``.

The rollout stays where it is (waves, gates, budget, journal, receipts); only what is done with one board
moves. A thread here hands a board's :class:`Order` to the cluster and waits for its :class:`Reply`; the
worker brings the release from the shared store, verified by digest, resolves the secrets that the address
refers to, and talks to the board. What came from the board comes back as bytes, so that no file system has
to be shared.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.artefacts.hashing import walk_files
from toolkit.artefacts.shared import SharedStore
from toolkit.artefacts.store import Artefact, Store
from toolkit.config.schema import EngineSettings, StoreSettings
from toolkit.errors import ConfigError, DeployError
from toolkit.fleet.job import (
    BoardJob,
    BoardStage,
    cut_all_lines,
    cut_with_all_lines,
    deploy_board,
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


def carry_out(order: Order) -> Reply:
    """Do what ``order`` says, on a worker. Never raises for what goes wrong with the board."""
    emit = _emitter(order.topic)
    me = f"{_worker_address()} pid {os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="deploy-", dir=_scratch()) as folder:
        out = Path(folder) / "out"
        job = replace(order.job, out=out)
        if order.done is not None:
            return Reply(revert_board(job, order.done, order.why, order.cause, emit), {}, me)
        try:
            job = replace(job, files=_files(order))
        except DeployError as error:
            outcome = Outcome(job.board, "failed", "push", "store", str(error), error.hint, job.release.id)
            return Reply(outcome, {}, me)
        outcome = _patiently(job, order.stages, emit)
        return Reply(outcome, _packed(out), me)


def _patiently(job: BoardJob, stages: Sequence[BoardStage], emit: Emit) -> Outcome:
    """Deploy; wait where the board is still locked by this rollout's own dead worker."""
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        last = time.monotonic() >= end
        held: list[Event] = []
        outcome = deploy_board(job, stages, partial(_hold_outcome, held, emit))
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
    ) -> None:
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
        self.workers: dict[str, str] = {}

    def __enter__(self) -> DaskEngine:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise ConfigError(
                "engine=dask: the package distributed is not installed", hint="pip install -e '.[dask]'"
            ) from error
        settings = self._settings
        try:
            if settings.address:
                cluster: Any = settings.address
            else:
                cluster = self._stack.enter_context(
                    LocalCluster(
                        n_workers=settings.workers,
                        threads_per_worker=settings.threads,
                        processes=True,
                        host="127.0.0.1",
                        dashboard_address=None,
                        local_directory=str(self._here / "dask"),
                        memory_limit=0,  # a job is a connection, not an array
                        silence_logs="ERROR",
                    )
                )
            self.client = self._stack.enter_context(Client(cluster, timeout=self.patience))
            self.client.wait_for_workers(1, timeout=self.patience)
        except (OSError, TimeoutError, ValueError) as error:
            self._stack.close()
            raise ConfigError(
                f"engine.address={settings.address}: no scheduler answers: {type(error).__name__}: {error}",
                hint="dask scheduler --host …; null starts a cluster on this machine",
            ) from error
        self._stack.enter_context(cut_with_all_lines(self))
        self.client.subscribe_topic(self._topic, self._on_event)
        # Boards are not computations: the same order twice is two deployments, and none may be left out.
        self._executor = self.client.get_executor(pure=False, retries=0)
        return self

    def __exit__(self, *_: object) -> None:
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
        """End the lines of all workers, as a second Ctrl-C does with those of this process."""
        with contextlib.suppress(Exception):
            self.client.run(cut_all_lines, wait=False)

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
            reply: Reply = self._executor.submit(carry_out, order).result()
        except Exception as error:  # whatever the cluster raises, the board has exactly one outcome
            outcome = Outcome(
                job.board,
                "failed",
                cause="worker",
                message=f"{job.board}: no worker carried it out: {type(error).__name__}: {_first_line(error)}",
                hint="look at the workers' logs; what the board runs, deploy status tells",
                release=job.release.id,
                switched=True,  # perhaps; putting back asks the board
            )
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
