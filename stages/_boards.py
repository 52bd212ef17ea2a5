"""Asks many boards at once, for the verbs that look at boards or act on what is there already.

One connection a board, at most ``engine.workers`` at a time. A board that fails takes nothing from the others; what
went wrong with it is its answer. Ctrl-C cuts all lines: what these verbs do on a board is whole at any point, and what
came of each is kept all the same (:class:`Records`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from omegaconf import OmegaConf

from stages._asking import ask, can_ask, unnamed
from stages._fleet import Target, limits_of, machines_of, reach, targets_of
from stages._invocation import Invocation
from toolkit import paths
from toolkit.errors import BoardRefused, DeployError, Interrupted, LineLost, RemoteError, Unreachable, UsageError
from toolkit.fleet import journal
from toolkit.fleet.job import cut_lines, despite_ctrl_c
from toolkit.fleet.journal import RunFolder
from toolkit.inventory import Board
from toolkit.remote.address import Address
from toolkit.remote.agent import BoardAgent, Inspection, RunReport, local_holder
from toolkit.ui.events import Emit, Event, ignore
from toolkit.ui.words import counted, named, who

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
    begun: bool = True

    @property
    def name(self) -> str:
        return self.place.name

    def failure(self) -> dict[str, Any]:
        """What went wrong, as JSON; empty where nothing did."""
        error = self.error
        if error is None:
            return {}
        status = "unreachable" if isinstance(error, Unreachable) else "failed" if self.begun else "skipped"
        cause = error.cause if isinstance(error, RemoteError) else "input"
        if isinstance(error, Interrupted):
            cause = "interrupted"
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
        cut_lines(agents)


@contextlib.contextmanager
def places_of(invocation: Invocation, *, hosts: bool = False) -> Iterator[list[Place]]:
    """The chosen boards with their addresses; simulated ones live as long as the ``with`` block.

    ``hosts``: the machines that are no boards, too (see ``machines_of``).
    """
    targets = machines_of(invocation) if hosts else targets_of(invocation)
    with reach(invocation, targets, build_host=False) as found:
        yield [Place(board, target, found.boards[board.name]) for target in targets for board in target.boards]


def ask_boards(
    invocation: Invocation,
    places: Sequence[Place],
    work: Callable[[Place, BoardAgent], T],
    emit: Emit = ignore,
    keep: Callable[[Answer[T]], None] = lambda answer: None,
) -> list[Answer[T]]:
    """``work(place, agent)`` for each board; the answers in the order of ``places``."""
    lines = Lines(emit)

    def one(place: Place) -> T:
        with lines.agent(place) as agent:
            return work(place, agent)

    return each(invocation, places, one, lines.close, keep)


def each(
    invocation: Invocation,
    places: Sequence[Place],
    work: Callable[[Place], T],
    cut: Callable[[], None] = lambda: None,
    keep: Callable[[Answer[T]], None] = lambda answer: None,
) -> list[Answer[T]]:
    """``work(place)`` for each board in parallel; ``cut`` ends what is under way when somebody presses Ctrl-C.

    ``keep`` gets each answer as soon as there is one, in the worker's thread; after Ctrl-C those of the boards that
    were cut and of those that had not begun, too."""
    turn, begun = threading.Lock(), set[str]()
    stopped = threading.Event()

    def not_begun(place: Place) -> Answer[T]:
        return Answer(place, None, Interrupted(f"{place.name}: not begun: interrupted"), begun=False)

    def guarded(place: Place) -> Answer[T]:
        with turn:
            if stopped.is_set():
                return not_begun(place)
            begun.add(place.name)
        try:
            answer = Answer(place, work(place))
        except DeployError as error:
            # A line that we cut ourselves is not the board's fault.
            ours = stopped.is_set() and isinstance(error, LineLost)
            answer = Answer(place, None, Interrupted(f"{place.name}: interrupted") if ours else error)
        keep(answer)
        return answer

    def end() -> None:
        with turn:
            stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        cut()
        for place in places:
            if place.name not in begun:
                keep(not_begun(place))

    answers: dict[str, Answer[T]] = {}
    pool = ThreadPoolExecutor(max(1, min(invocation.config.engine.workers, len(places))), "board")
    try:
        for future in as_completed([pool.submit(guarded, place) for place in places]):
            answer = future.result()
            answers[answer.name] = answer
    except BaseException:
        despite_ctrl_c(end)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [answers[place.name] for place in places]


class Records:
    """What a verb that acts on boards keeps of each of them: lines of the run's journal, and a receipt at the end.

    What is known of a board goes into its receipt whatever happens later: an answer, an error, Ctrl-C."""

    def __init__(self, run: RunFolder, verb: str, boards: Sequence[str]) -> None:
        self._run, self._verb = run, verb
        self._known: dict[str, dict[str, Any]] = {name: {"began": time.time()} for name in boards}
        run.show(Event("start", stage="rollout", data={"waves": [list(boards)]}))

    def begin(self, place: Place) -> None:
        """Somebody turns to this board now."""
        self._known[place.name]["began"] = time.time()
        data = {"app": place.target.config.app.name}
        self._run.show(Event("start", stage=self._verb, board=place.name, data=data))

    def know(self, board: str, **known: Any) -> None:
        """Keep this for the receipt."""
        self._known[board] |= known

    def note(self, board: str, what: str, **data: Any) -> None:
        """A line of the journal, on the disk before it returns: what is about to happen, or has happened."""
        self._run.show(Event("log", what, stage="board", board=board, data=data))

    def keep(self, board: str, content: Mapping[str, Any]) -> None:
        """The end of one board's part: an outcome in the journal, and the receipt."""
        told = {"board": board, **self._known[board], **content}
        self._run.show(Event("outcome", stage=self._verb, board=board, data=told))
        self._run.receipt(board, {"verb": self._verb, "by": local_holder(), **told, "ended": time.time()})


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
        lines.append(f"✗ {who([answer.name for answer in crowd])}: {told}")
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

    :raises UsageError: the answer was no, or there was nobody to ask.
    """
    names = [place.name for place in places]
    if len(unnamed(invocation, names)) > 1:
        require_yes(invocation, f"{doing} {counted(len(names), 'board')} ({named(names)})?")


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
        run.show(Event("summary"))
    except BaseException as error:
        run.show(Event("fail", f"{type(error).__name__}: {error}"))
        raise
    finally:
        run.close()


def deployed(place: Place, agent: BoardAgent) -> Inspection:
    """What the board says, if it runs a release of ours.

    :raises BoardRefused: it runs none.
    """
    found = agent.inspect(place.target.profile.root, place.target.config.app.name)
    if not found.current or found.foreign:
        raise BoardRefused(
            f"{place.name}: {found.foreign or 'nothing is deployed there'}",
            cause="foreign-release" if found.foreign else "no-release",
            host=place.name,
            hint="deploy first",
        )
    return found


def both(invocation: Invocation, run: RunFolder) -> Emit:
    """Events for people and for the run's journal."""

    def emit(event: Event) -> None:
        run.show(event)
        invocation.renderer.show(event)

    return emit


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


def cut_short(targets: Iterable[Target]) -> tuple[dict[str, Any], list[str]]:
    """A run that was killed while it changed some of these boards, as JSON and as lines for people; else nothing.

    Of several the newest with their apps; where there is none, the newest with another app."""
    apps = apps_of(targets)
    stories = journal.cut_short(paths.runs(), apps)
    if not stories:
        return {}, []
    story = next((item for item in stories if item.concerns(apps)), stories[0])
    groups: dict[str, list[str]] = {}
    for name, board in story.boards.items():
        groups.setdefault(board.text, []).append(name)
    others = sorted({board.app for board in story.boards.values()} - {*apps.values(), ""})
    what = ", ".join([story.verb, *others])
    lines = [f"! the run {story.run} ({what}) was killed before its end; what its journal says:"]
    lines += [f"  {who(names)}: {text}" for text, names in groups.items()]
    return {"run": story.run, "verb": story.verb, "boards": {name: b.text for name, b in story.boards.items()}}, lines


def apps_of(targets: Iterable[Target]) -> dict[str, str]:
    """The boards' names → which app each gets."""
    return {board.name: target.config.app.name for target in targets for board in target.boards}
