"""Each board back to the release that it ran before, or to the one that release= names.

    deploy rollback +board=200dk
    deploy rollback inventory=mine hosts=site=hall release=4f1c --yes

release= takes the beginning of an id; deploy status shows ids. The board keeps its last releases, so nothing is
sent. Goes on past boards that fail, and names them. More than one board that was not named is asked about first.

A board that was put back already, by this verb, by a rollout or by itself, stays where it is: said twice, it does not
go forward again to what it was taken back from (docs/adr/0008). release=ID names that one, or an older one.

Exits with 4 when some boards could not be put back, 5 when none could.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from stages._boards import (
    Answer,
    Place,
    Records,
    ask_boards,
    confirm,
    exit_code,
    failures_text,
    places_of,
    run_folder,
)
from stages._invocation import Invocation
from toolkit.errors import BoardRefused
from toolkit.remote.agent import BoardAgent, Inspection, local_holder
from toolkit.ui.tables import table
from toolkit.ui.words import who

HELP = "each board back to its previous release, or to release=ID"


@dataclass(frozen=True)
class Rolled:
    """What a board ran before and runs now. note: why nothing was done."""

    board: str
    status: str
    former: str
    release: str
    note: str = ""


def run(invocation: Invocation) -> int:
    wanted = (invocation.config.release or "").lower()
    with places_of(invocation) as places:
        confirm(invocation, places, "roll back")
        with run_folder(invocation) as run:
            records = Records(run, "rollback", [place.name for place in places])

            def back(place: Place, agent: BoardAgent) -> Rolled:
                return roll_back(place, agent, wanted, records)

            def keep(answer: Answer[Rolled]) -> None:
                rolled = answer.value
                told = {"status": rolled.status, "release": rolled.release, "message": rolled.note} if rolled else {}
                records.keep(answer.name, told or answer.failure())

            answers = ask_boards(invocation, places, back, keep=keep)
    failed = sum(answer.error is not None for answer in answers)
    boards = [asdict(item.value) if item.value else {"board": item.name, **item.failure()} for item in answers]
    invocation.renderer.data({"boards": boards, "run": run.id}, _text(answers))
    return exit_code(failed, len(answers))


def roll_back(place: Place, agent: BoardAgent, wanted: str, records: Records) -> Rolled:
    """One board back. ``wanted``: the beginning of a release's id; "" = the previous one."""
    records.begin(place)
    config = place.target.config
    found = agent.inspect(place.target.profile.root, config.app.name)
    records.know(place.name, previous=found.current)
    if not wanted and found.reverted and not found.pending:
        now = found.current[:12] or "nothing, as before its first release"
        note = f"already rolled back from {found.reverted[:12]}: it runs {now}"
        return Rolled(place.name, "unchanged", found.current, found.current, note)
    goal = choose(place.name, found, wanted)
    if goal == found.current and found.pending is None:
        return Rolled(place.name, "unchanged", found.current, found.current)
    agent.lock(local_holder(), break_lock=config.rollout.break_lock)
    # In the journal before it is asked for: whoever reads it after a kill knows that it may have happened.
    records.note(place.name, "reverting", release=found.current, previous=goal)
    now = agent.revert(goal or "none")
    records.note(place.name, "reverted", release=now)
    return Rolled(place.name, "reverted", found.current, now)


def choose(board: str, found: Inspection, wanted: str) -> str:
    """The id to go back to. ``wanted``: the beginning of one; "" = the previous release.

    :raises BoardRefused: there is none, or more than one begins like that.
    """

    def refused(text: str, hint: str) -> BoardRefused:
        return BoardRefused(f"{board}: {text}", cause="no-release", host=board, hint=hint)

    there = ", ".join(name[:12] for name in found.releases) or "none"
    if not wanted:
        # A switch that nobody confirmed is taken back to what was there before it.
        if found.pending:
            return str(found.pending.get("former", ""))
        goal = found.previous
        if not goal:
            others = [name[:12] for name in found.releases if name != found.current]
            hint = f"it keeps {', '.join(others)}: release=ID names one" if others else "it keeps no other one"
            raise refused("there is no previous release to go back to", hint)
        return goal
    fits = [name for name in found.releases if name.startswith(wanted)]
    if not fits:
        raise refused(f"no release on it begins with {wanted}", f"it has {there}")
    if len(fits) > 1:
        raise refused(f"{len(fits)} releases begin with {wanted}", f"it has {there}: give more of the id")
    return fits[0]


def _text(answers: list[Answer[Rolled]]) -> str:
    rows = []
    for answer in answers:
        rolled = answer.value
        if rolled is None:
            rows.append([answer.name, str(answer.failure()["status"]), "", ""])
        else:
            rows.append([answer.name, rolled.status, rolled.former[:12] or "–", rolled.release[:12] or "–"])
    done = sum(answer.value is not None for answer in answers)
    lines = [table(["board", "outcome", "ran", "runs"], rows), *failures_text(answers)]
    for note in dict.fromkeys(answer.value.note for answer in answers if answer.value and answer.value.note):
        names = [answer.name for answer in answers if answer.value and answer.value.note == note]
        lines.append(f"{who(names)}: {note}; release=ID goes elsewhere")
    if len(answers) > 1:
        lines.append(f"{done} of {len(answers)} boards run what was asked for")
    return "\n".join(lines)
