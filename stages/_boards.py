"""Asks many boards at once, for the verbs that look at boards or act on what is there already.

One connection a board, at most ``engine.workers`` at a time. A board that fails takes nothing from the others; what
went wrong with it is its answer. Ctrl-C cuts all lines: what these verbs do on a board is whole at any point.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from omegaconf import OmegaConf

from stages._asking import ask, can_ask
from stages._fleet import Target, limits_of, reach, targets_of
from stages._invocation import Invocation
from toolkit import paths
from toolkit.errors import DeployError, Interrupted, RemoteError, Unreachable, UsageError
from toolkit.fleet.journal import RunFolder
from toolkit.inventory import Board
from toolkit.inventory.selection import Terms
from toolkit.remote.address import Address
from toolkit.remote.agent import BoardAgent, RunReport
from toolkit.ui.events import Emit, Event, ignore
from toolkit.ui.tables import named, table

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A board with all that a verb needs to talk to it."""

    board: Board
    target: Target
    address: Address

    @property
    def name(self) -> str:
        return self.board.name


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What one board answered: a value, or what went wrong."""

    place: Place
    value: T | None
    error: DeployError | None = None

    @property
    def name(self) -> str:
        return self.place.name

    def failure(self) -> dict[str, Any]:
        """What went wrong, as JSON; empty where nothing did."""
        error = self.error
        if error is None:
            return {}
        status = "unreachable" if isinstance(error, Unreachable) else "failed"
        cause = error.cause if isinstance(error, RemoteError) else "input"
        return {"status": status, "cause": cause, "message": str(error), "hint": error.hint}


class Lines:
    """The lines that are open now, so that an interruption can cut them."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._open: set[BoardAgent] = set()
        self._lock = threading.Lock()
        self.cut = False

    @contextlib.contextmanager
    def agent(self, place: Place) -> Iterator[BoardAgent]:
        """A session with one board."""
        agent = BoardAgent.connect(place.address, limits_of(place.target.config), self._emit)
        with self._lock:
            self._open.add(agent)
        try:
            if self.cut:
                raise Interrupted("interrupted")
            yield agent
        finally:
            with self._lock:
                self._open.discard(agent)
            agent.close()

    def close(self) -> None:
        self.cut = True
        with self._lock:
            agents = list(self._open)
        for agent in agents:
            agent.close()


@contextlib.contextmanager
def places_of(invocation: Invocation) -> Iterator[list[Place]]:
    """The chosen boards with their addresses; simulated ones live as long as the ``with`` block."""
    targets = targets_of(invocation)
    with reach(invocation, targets, build_host=False) as found:
        yield [Place(board, target, found.boards[board.name]) for target in targets for board in target.boards]


def ask_boards(
    invocation: Invocation,
    places: Sequence[Place],
    work: Callable[[Place, BoardAgent], T],
    emit: Emit = ignore,
) -> list[Answer[T]]:
    """``work(place, agent)`` for each board; the answers in the order of ``places``."""
    lines = Lines(emit)

    def one(place: Place) -> T:
        with lines.agent(place) as agent:
            return work(place, agent)

    return each(invocation, places, one, lines.close)


def each(
    invocation: Invocation,
    places: Sequence[Place],
    work: Callable[[Place], T],
    cut: Callable[[], None] = lambda: None,
) -> list[Answer[T]]:
    """``work(place)`` for each board in parallel; ``cut`` ends what is under way when somebody presses Ctrl-C."""

    def guarded(place: Place) -> Answer[T]:
        try:
            return Answer(place, work(place))
        except Interrupted:
            raise
        except DeployError as error:
            return Answer(place, None, error)

    answers: dict[str, Answer[T]] = {}
    pool = ThreadPoolExecutor(max(1, min(invocation.config.engine.workers, len(places))), "board")
    try:
        for future in as_completed([pool.submit(guarded, place) for place in places]):
            answer = future.result()
            answers[answer.name] = answer
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        cut()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [answers[place.name] for place in places]


def exit_code(failed: int, total: int) -> int:
    """0 = none failed, 4 = some, 5 = all."""
    return 0 if not failed else 5 if failed == total else 4


def failures_text(answers: Sequence[Answer[Any]]) -> list[str]:
    """Lines for people about the boards that failed: grouped, since a fleet fails in crowds."""
    groups: dict[tuple[str, str], list[Answer[Any]]] = {}
    for answer in answers:
        if answer.error is not None:
            groups.setdefault((_impersonal(answer), answer.error.hint), []).append(answer)
    lines = []
    for (text, hint), crowd in groups.items():
        only = crowd[0] if len(crowd) == 1 else None
        told = str(only.error).removeprefix(f"{only.name}: ") if only else text
        lines.append(f"✗ {named([answer.name for answer in crowd])}: {told}")
        if hint:
            lines.append(f"  what to do: {hint}")
    return lines


def _impersonal(answer: Answer[Any]) -> str:
    """What went wrong, without the board's own name and address: those differ where the trouble is the same."""
    address = answer.place.address
    text = str(answer.error)
    for own in (str(address), answer.name):
        text = text.removeprefix(f"{own}: ")
    return text.replace(f"{address.host}:{address.port}", "its address")


def confirm(invocation: Invocation, places: Sequence[Place], doing: str) -> None:
    """Ask before ``doing`` something to more than one board that the command line did not name.

    Boards of ``+board=…`` are named by it; of an inventory, those that stand in ``hosts=`` by name. Simulated ones
    are nobody's loss.
    :raises UsageError: the answer was no, or there was nobody to ask.
    """
    if invocation.config.inventory is None or invocation.config.simulate or invocation.flags.yes:
        return
    terms = [term for term in Terms.parse(invocation.config.hosts or "").terms if not term.negated]
    typed = {term.key for term in terms if term.kind == "name"}
    unnamed = [place.name for place in places if place.name not in typed]
    if len(unnamed) <= 1:
        return
    question = f"{doing} {len(places)} boards ({named([place.name for place in places])})?"
    require_yes(invocation, question)


def require_yes(invocation: Invocation, question: str) -> None:
    """Go on only with a person's yes, or with --yes."""
    if invocation.flags.yes:
        return
    if not can_ask(invocation):
        raise UsageError(f"{question} There is nobody to ask", hint="--yes answers yes")
    if not ask(invocation, question):
        raise UsageError("nothing was done: the answer was no")


@contextlib.contextmanager
def run_folder(invocation: Invocation) -> Iterator[RunFolder]:
    """The record of what a verb did: ``runs/<id>/`` with journal and receipts."""
    run = RunFolder(paths.runs(), OmegaConf.to_yaml(invocation.composed), invocation.verb)
    try:
        yield run
    except BaseException as error:
        run.show(Event("fail", f"{type(error).__name__}: {error}"))
        raise
    finally:
        run.close()


def run_program(
    place: Place,
    agent: BoardAgent,
    release: str,
    arguments: Sequence[str],
    on_line: Callable[[str], None] = lambda line: None,
) -> RunReport:
    """The release's own ``infer.py`` with ``arguments``, in CANN's environment. Any exit status is a report."""
    return agent.run(
        ["{python}", "{release}/infer.py", "--release", "{release}", *arguments],
        release=release,
        cwd="{release}",
        env_file="{release}/env.sh",
        interpreters=place.target.profile.interpreters,
        limit=place.target.config.infer.limit,
        on_line=on_line,
    )


def relative(path: Path) -> str:
    """``path`` as short as it can be said."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


__all__ = [
    "Answer",
    "Place",
    "ask_boards",
    "confirm",
    "each",
    "exit_code",
    "failures_text",
    "named",
    "places_of",
    "relative",
    "require_yes",
    "run_folder",
    "run_program",
    "table",
]
