"""Asks many boards at once what they are and have; changes nothing on them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from toolkit.artefacts.manifest import Release
from toolkit.errors import DeployError, RemoteError
from toolkit.fleet.job import Held, cut_lines, despite_ctrl_c, facts_of
from toolkit.fleet.plan import BoardFacts
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, Inspection, Wish
from toolkit.ui.events import Emit, Event
from toolkit.ui.words import counted


@dataclass(frozen=True)
class Probe:
    """What to ask one board. release: None while it has still to be built."""

    board: str
    address: Address
    limits: Limits
    root: str
    app: str
    release: Release | None
    environment: str
    run_key: str


def survey(probes: Sequence[Probe], workers: int, emit: Emit) -> Mapping[str, BoardFacts]:
    """The facts of all boards by name, at most ``workers`` at a time; one request each.

    Where the environment differs there is a second one, for the lines as they are. Ctrl-C cuts all lines.
    """
    count, lock = 0, threading.Lock()
    lines = [Held() for _ in probes]

    def ask(probe: Probe, line: Held) -> tuple[str, BoardFacts]:
        nonlocal count
        facts = look(probe, emit, line)
        with lock:
            if line.cut:
                return probe.board, facts
            count += 1
            data = {"done": count, "total": len(probes), "unit": "boards"}
            emit(Event("progress", f"{count}/{len(probes)} boards asked", stage="survey", data=data))
        return probe.board, facts

    if not probes:
        return {}
    pool = ThreadPoolExecutor(min(workers, len(probes)), thread_name_prefix="survey")
    try:
        found = dict(pool.map(ask, probes, lines))
    except BaseException:
        despite_ctrl_c(lambda: cut_lines(lines))
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    emit(Event("log", f"{counted(len(probes), 'board')} asked", stage="survey"))
    return found


def look(probe: Probe, emit: Emit, line: Held) -> BoardFacts:
    """One board's facts, over ``line``; that it does not answer is one of them."""
    try:
        with BoardAgent.connect(probe.address, probe.limits, emit) as agent:
            line.open(agent)
            wish = Wish(probe.release, probe.environment, probe.run_key)
            found = agent.inspect(probe.root, probe.app, wish)
            block = _block(agent, found, probe) if found.environment == "differs" else ()
            return facts_of(found, block)
    except DeployError as error:
        # Also one whose secret is not set here: the others are planned for all the same.
        cause = error.cause if isinstance(error, RemoteError) else "input"
        return BoardFacts(unreachable=cause, message=str(error), hint=error.hint)


def _block(agent: BoardAgent, found: Inspection, probe: Probe) -> tuple[str, ...]:
    """The lines of our block in ``~/.bashrc`` as they are. Nothing else of the file leaves the board."""
    begin, end = (f"# {mark} ascend-deploy: {probe.app} {mark}" for mark in (">>>", "<<<"))
    lines = f"/^{begin}$/,/^{end}$/p".replace(".", "\\.")
    report = agent.run(
        ["sed", "-n", lines, f"{found.facts['home']}/.bashrc"],
        cwd="{app}",
        need=(),
        limit=probe.limits.command,
    )
    return tuple(line for line in report.stdout_tail.splitlines() if line not in (begin, end))
