"""What does the work on boards: threads of this process, or a Dask cluster (``engine=``)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping

from stages import _registry
from stages._invocation import Invocation
from toolkit import paths
from toolkit.fleet.job import BoardJob, deploy_board, revert_board
from toolkit.fleet.outcome import Outcome
from toolkit.ui.events import Emit

Deploy = Callable[[BoardJob], Outcome]
Revert = Callable[[BoardJob, Outcome, str, str], Outcome]


@contextlib.contextmanager
def engine_of(
    invocation: Invocation, packages: Mapping[str, str], last: str, emit: Emit, stop: threading.Event
) -> Iterator[tuple[Deploy, Revert, int]]:
    """The two functions that touch boards, and how many boards at once they are good for.

    ``packages``: a target's key → the digest of its artefact of the stage ``package``. ``last``: the stage to stop
    after. ``stop``: set by the first Ctrl-C; boards that nobody has begun by then are left out.
    """
    stages, config = _registry.board_stages(last), invocation.config
    if config.engine.name == "threads":
        yield (
            lambda job: deploy_board(job, stages, emit),
            lambda job, done, why, cause: revert_board(job, done, why, cause, emit),
            config.engine.workers,
        )
        return
    from toolkit.fleet.dask_engine import DaskEngine

    with DaskEngine(
        config.engine,
        stages,
        config.store,
        here=paths.home(),
        package=lambda job: packages[job.target],
        emit=emit,
        known_hosts=tuple(config.ssh.known_hosts),
        ssh_config=config.ssh.config,
        stop=stop,
    ) as engine:
        yield engine.deploy, engine.revert, engine.width
