"""What each board runs now: which release, since when, by whom; healthy, or drifted from what was put there.

    deploy status +board=200dk
    deploy status inventory=mine hosts=ring=0 --json

One connection and one request a board; nothing is changed. A board is healthy when it runs a release of this program
that proved itself there, its environment and its files are as they were put there, and no switch waits to be
confirmed; else the reasons are told. "behind" means that the settings here would give it another release. After a
rollout or a rollback from this folder that was killed, what its journal says of each board is told too.

Exits with 4 when some boards cannot be reached, 5 when none can.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stages import _registry
from stages._boards import Answer, Place, ask_boards, cut_short, exit_code, failures_text, places_of
from stages._converters import with_converters
from stages._fleet import Target
from stages._invocation import Invocation
from stages._locking import open_store
from stages._planning import content_of
from toolkit.artefacts.manifest import Release
from toolkit.artefacts.store import Store
from toolkit.cann.environment import environment_script
from toolkit.errors import DeployError
from toolkit.pipeline import walk
from toolkit.remote.agent import BoardAgent, Inspection, Wish
from toolkit.ui.events import ignore
from toolkit.ui.tables import table
from toolkit.ui.words import counted

HELP = "what each board runs, since when, by whom; healthy or drifted"

# A clock before that was never set: 2017-07-14.
SET_CLOCK = 1_500_000_000


@dataclass(frozen=True)
class Status:
    """One board. since: seconds since the epoch, None where the board cannot tell. drifted: one line a reason."""

    board: str
    app: str
    release: str
    previous: str
    since: float | None
    by: str
    healthy: bool
    drifted: tuple[str, ...]
    behind: bool | None
    pending: str
    lock: str
    releases: int
    disk_free: int
    figures: Mapping[str, Any]

    @property
    def state(self) -> str:
        """In a word or two, for people."""
        if not self.release and not self.drifted:
            return "nothing deployed yet"
        told = "drifted: " + "; ".join(self.drifted) if self.drifted else "healthy" if self.healthy else "not proved"
        return told + (", behind" if self.behind else "") + (f", {self.lock} deploys now" if self.lock else "")


def run(invocation: Invocation) -> int:
    store = open_store(invocation)
    with places_of(invocation) as places:
        wished = {id(place.target): _wished(invocation, place.target, store) for place in places}

        def look(place: Place, agent: BoardAgent) -> Status:
            config, profile = place.target.config, place.target.profile
            release = wished[id(place.target)]
            wish = Wish(release=release, environment=environment_script(profile.cann))
            return judge(place.name, config.app.name, agent.inspect(profile.root, config.app.name, wish), release)

        answers = ask_boards(invocation, places, look)
    failed = sum(answer.error is not None for answer in answers)
    boards = [
        {"status": "ok", **asdict(answer.value)} if answer.value else {"board": answer.name, **answer.failure()}
        for answer in answers
    ]
    killed, lines = cut_short({id(answer.place.target): answer.place.target for answer in answers}.values())
    invocation.renderer.data({"boards": boards, "cut_short": killed or None}, "\n".join([_text(answers), *lines]))
    return exit_code(failed, len(answers))


def judge(board: str, app: str, found: Inspection, wished: Release | None) -> Status:
    """What an inspection means. ``wished``: the release that the settings here give, if it is built."""
    drifted = []
    if found.foreign:
        drifted.append(found.foreign)
    if found.pending:
        to = str(found.pending.get("release", ""))[:12]
        drifted.append(f"a switch to {to} waits to be confirmed, {found.pending.get('within', 0):g} s at most")
    if found.current and found.environment in ("differs", "absent"):
        how = "is another" if found.environment == "differs" else "is not set"
        drifted.append(f"the environment in ~/.bashrc {how}")
    torn = set(found.broken)
    if wished is not None and found.current == wished.id:
        torn |= {file.path for file in wished.files if file.sha256 in found.missing}
    if torn and not found.foreign:
        drifted.append(f"{counted(len(torn), 'file')} missing or cut short, such as {min(torn)}")
    last = found.last_run or {}
    return Status(
        board=board,
        app=app,
        release=found.current,
        previous=found.previous,
        since=_since(found),
        by=str(last.get("by", "")),
        healthy=bool(found.current and last and not drifted),
        drifted=tuple(drifted),
        behind=None if wished is None or not found.current else found.current != wished.id,
        pending=str(found.pending.get("release", "")) if found.pending else "",
        lock=str(found.lock.get("holder") or "somebody") if found.lock else "",
        releases=len(found.releases),
        disk_free=int(found.facts["disk_free"]),
        figures=last["figures"] if isinstance(last.get("figures"), Mapping) else {},
    )


def _since(found: Inspection) -> float | None:
    """When the board settled on what it runs: by its journal, or else when that was last confirmed from here."""
    times = []
    for line in found.journal_tail:
        try:
            entry = json.loads(line)
            if entry["what"] == "settled" and entry["release"] == found.current:
                times.append(float(entry["time"]))
        except (ValueError, KeyError, TypeError):
            continue  # cut by a crash, or not ours
    if times and SET_CLOCK < times[-1] < 1e11:  # more is no date
        return times[-1]
    told = (found.last_run or {}).get("time")
    return float(told) if isinstance(told, int | float) else None


def _wished(invocation: Invocation, target: Target, store: Store) -> Release | None:
    """The release that the settings give, where all of it is in the store already."""
    try:
        (target,) = with_converters(invocation, [target], ignore, ask=False)
        steps = list(walk(_registry.build_stages(), target.config, store, ["package"]))
    except DeployError:
        return None  # a folder of pictures that is gone is no reason not to look at boards
    package = steps[-1].artefact
    return content_of(target, package).release if package else None


def _text(answers: list[Answer[Status]]) -> str:
    rows = []
    for answer in answers:
        status = answer.value
        if status is None:
            rows.append([answer.name, "", "", "", str(answer.failure()["status"])])
        else:
            since = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.since)) if status.since else ""
            rows.append([answer.name, status.release[:12] or "–", since, status.by, status.state])
    good = sum(answer.value is not None and answer.value.healthy for answer in answers)
    lines = [table(["board", "release", "since", "by", "state"], rows), *failures_text(answers)]
    apps = dict.fromkeys(answer.place.target.config.app.name for answer in answers)
    lines.append(f"{', '.join(apps)}: {good} of {counted(len(answers), 'board')} healthy")
    return "\n".join(lines)
