"""Questions to a person: before a whole fleet, and between waves."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence

from stages._fleet import Target
from stages._invocation import Invocation
from toolkit.errors import UsageError
from toolkit.inventory.selection import Terms
from toolkit.ui.events import Event


def can_ask(invocation: Invocation) -> bool:
    """Is there a person at a terminal? One who reads JSON is none."""
    return not invocation.flags.json and sys.stdin.isatty() and sys.stdout.isatty()


def ask(invocation: Invocation, question: str) -> bool:
    """Ask at the terminal; ``--yes`` answers everything."""
    if invocation.flags.yes:
        return True
    # A warning is shown with --quiet too: nobody should wait for an answer to a question that wasn't seen.
    invocation.renderer.show(Event("warning", f"{question} [y/N]"))
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def asker(invocation: Invocation, stop: threading.Event) -> Callable[[str], bool]:
    """:func:`ask` for the middle of a rollout, where Ctrl-C raises nothing: here it means no, and sets
    ``stop``."""

    def question(text: str) -> bool:
        listener = signal.set_wakeup_fd(-1)  # the rollout's (toolkit.fleet.engine): it would hear this Ctrl-C, too
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return ask(invocation, text)
        except KeyboardInterrupt:
            stop.set()
            return False
        finally:
            signal.signal(signal.SIGINT, before)
            signal.set_wakeup_fd(listener)

    return question


def unnamed(invocation: Invocation, boards: Iterable[str]) -> list[str]:
    """Those boards that the command line did not name; none where nobody is asked about them anyway.

    Boards of ``+board=…`` are named by it; of an inventory, those that stand in ``hosts=`` by name. Simulated ones are
    nobody's loss, and ``--yes`` answers for all.
    """
    config = invocation.config
    if config.simulate or config.inventory is None or invocation.flags.yes:
        return []
    terms = Terms.parse(config.hosts or "").terms
    named = {term.key for term in terms if term.kind == "name" and not term.negated}
    return [name for name in boards if name not in named]


def confirm_fleet(invocation: Invocation, targets: Sequence[Target], waves: int) -> None:
    """Ask before boards that the command line didn't name are deployed to, where they are more than one.

    Not for a plan file: who names it has had the boards before his eyes. Raises UsageError where nobody can be asked,
    or where the answer is no.
    """
    config = invocation.config
    if config.rollout.pause == "ask" and waves > 1 and not invocation.flags.yes and not can_ask(invocation):
        raise UsageError(
            f"rollout.pause=ask: there is no terminal to ask at between {waves} waves",
            hint="--yes answers yes; rollout.pause=600 waits ten minutes instead",
        )
    strangers = unnamed(invocation, [board.name for target in targets for board in target.boards])
    if config.plan or len(strangers) < 2:
        return
    what = f"{len(strangers)} boards of inventory={config.inventory} that were not named"
    if not can_ask(invocation):
        raise UsageError(
            f"this would deploy to {what}", hint="--yes deploys to them; hosts=NAME,NAME names them"
        )
    way = f"{config.rollout.name}, {waves} waves" if waves > 1 else config.rollout.name
    if not ask(invocation, f"Deploy {config.app.name} to {what} ({way})?"):
        raise UsageError("nothing was done: the answer was no")
