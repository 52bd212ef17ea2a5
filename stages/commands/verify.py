"""Is on the boards what was put there, and does it still answer rightly?

    deploy verify +board=200dk
    deploy verify inventory=mine --json
    deploy verify --receipts

Each board re-hashes the files of its release, then runs the release's own pictures again; the answers are compared
with the reference that came with the release, and its figures with the limits under verify. Nothing is switched.

With --receipts no board is asked: the receipts in this folder are checked, which are chained by hash, so that a
removed or edited one shows (exit 7).

Exits with 6 when answers disagree or are out of their limits, with 7 when files or the environment are not what was
put there, with 4 or 5 when some boards or all failed otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stages._boards import (
    Answer,
    Place,
    Records,
    ask_boards,
    exit_code,
    failures_text,
    places_of,
    run_folder,
    run_program,
)
from stages._invocation import Invocation
from toolkit import paths
from toolkit.errors import BoardRefused, PlanError, RemoteError
from toolkit.fleet import gates, program, receipts
from toolkit.fleet.agreement import compare, figures_of, read_results
from toolkit.fleet.journal import RunFolder
from toolkit.remote.agent import BoardAgent
from toolkit.ui.tables import table

HELP = "re-hash what is on the boards and run the golden pictures again"

MAX_BYTES = 1 << 30
MAX_FILES = 100_000


@dataclass(frozen=True)
class Verified:
    """One board. damaged, missing: paths in the release. problems: why the answers disagree."""

    board: str
    release: str
    damaged: tuple[str, ...]
    missing: tuple[str, ...]
    environment: str
    foreign: str
    folder: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    not_run: str = ""

    @property
    def broken(self) -> bool:
        """Are files not what they were? Then other answers are no wonder."""
        return bool(self.damaged or self.missing or self.foreign)

    @property
    def status(self) -> str:
        if self.broken:
            return "damaged"
        return "disagrees" if self.problems else "ok" if self.environment == "same" else "drifted"

    @property
    def hint(self) -> str:
        """What to do, for people."""
        if self.foreign:
            return "move it away on the board, or set board.root"
        if self.missing and not self.damaged:
            return "deploy puts back what is missing"
        if self.damaged:
            return f"on the board rm -r {self.folder}/blobs, then deploy: all of it is sent again, and checked"
        if self.problems:
            return "put it back with rollback, or compare with doctor: driver, CANN and chip as they were?"
        return "deploy writes the environment again" if self.environment != "same" else ""

    @property
    def text(self) -> str:
        """What is wrong, for people."""
        parts = list(self.problems)
        for what, names in (("damaged", self.damaged), ("missing", self.missing)):
            if names:
                shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
                parts.append(f"{what}: {shown}")
        if self.foreign:
            parts.append(self.foreign)
        elif self.environment != "same":
            parts.append(f"the environment in ~/.bashrc {'differs' if self.environment == 'differs' else 'is not set'}")
        if self.not_run:
            parts.append(f"the pictures were not run: {self.not_run}")
        return "; ".join(parts)


def run(invocation: Invocation) -> int:
    if invocation.flags.receipts:
        return verify_receipts(invocation)
    with places_of(invocation) as places, run_folder(invocation) as run:

        records = Records(run, "verify", [place.name for place in places])

        def check(place: Place, agent: BoardAgent) -> Verified:
            records.begin(place)
            return verify_board(place, agent, run)

        answers = ask_boards(invocation, places, check, keep=lambda answer: records.keep(answer.name, _json(answer)))
    invocation.renderer.data({"boards": [_json(item) for item in answers], "run": run.id}, _text(answers, run))
    found = {item.value.status for item in answers if item.value is not None}
    if "disagrees" in found:
        return 6
    if found - {"ok"}:
        return 7
    return exit_code(sum(item.error is not None for item in answers), len(answers))


def verify_receipts(invocation: Invocation) -> int:
    """Was a receipt in this folder removed or edited?"""
    problems, count = receipts.check(paths.base()), receipts.count(paths.base())
    lines = [f"✗ {problem}" for problem in problems]
    if not lines and count:
        lines = [f"{count} receipts: every one is there, as it was written"]
    elif not lines:
        where = paths.relative(paths.home() / "receipts")
        lines = [f"there are no receipts in {where}: nothing was done from here yet"]
    found = [{"board": item.board, "problem": item.text} for item in problems]
    invocation.renderer.data({"receipts": found, "count": count}, "\n".join(lines))
    return PlanError.exit_code if problems else 0


def verify_board(place: Place, agent: BoardAgent, run: RunFolder) -> Verified:
    """Re-hash, run, compare: one board."""
    config = place.target.config
    found = agent.inspect(place.target.profile.root, config.app.name)
    if not found.current and not found.foreign:
        raise BoardRefused(
            f"{place.name}: nothing is deployed there",
            cause="no-release",
            host=place.name,
            hint="deploy first, then verify",
        )
    said = agent.verify()
    result = Verified(
        place.name,
        said["release"],
        tuple(said["damaged"]),
        tuple(said["missing"]),
        said["environment"],
        said["foreign"],
        found.folder,
    )
    try:
        results = _golden(place, agent, found.current, run)
        reference = _reference(place, agent, found.current)
    except RemoteError as error:
        # With files gone it is no wonder, and they have been named.
        if not result.broken:
            raise
        return Verified(**{**vars(result), "not_run": str(error).removeprefix(f"{place.name}: ")})
    agreement = compare(results, reference, config.verify.max_difference, config.verify.min_agreement)
    figures = figures_of(agreement, results)
    # Agreement is judged above, picture by picture; nothing is replaced, so that nothing is new.
    limits = gates.without(config.verify, "max_difference", "min_agreement", "max_new_errors")
    problems = (*agreement.problems, *gates.problems(figures, {}, limits))
    return Verified(**{**vars(result), "figures": figures, "problems": problems})


def _golden(place: Place, agent: BoardAgent, release: str, run: RunFolder) -> list[dict[str, Any]]:
    """Run the release's own pictures; the results, fetched into the run's folder."""
    infer = place.target.config.infer
    folder = f"work/verify-{run.id}"
    report = run_program(
        place,
        agent,
        release,
        [
            *("--pictures", "{release}/pictures"),
            *("--out", f"{{app}}/{folder}"),
            *("--run", run.id),
            *("--top-k", str(infer.top_k)),
            *("--device", str(infer.device)),
            *("--warmup", str(infer.warmup)),
        ],
    )
    try:
        if report.status != 0:
            raise program.failure(place.name, report)
        out = run.board(place.name)
        agent.fetch(folder, out, limit_bytes=MAX_BYTES, limit_files=MAX_FILES)
    finally:
        agent.remove(folder)
    return read_results(out / "results.jsonl")


def _reference(place: Place, agent: BoardAgent, release: str) -> list[dict[str, Any]]:
    """The reference that came with the release: its hash has just been checked by the board."""
    lines: list[str] = []
    agent.run(
        ["cat", "{release}/reference.json"],
        release=release,
        cwd="{release}",
        need=(),
        limit=place.target.config.ssh.limits.command,
        on_line=lines.append,
    )
    try:
        pictures = json.loads("\n".join(lines))["pictures"]
        return [dict(entry) for entry in pictures]
    except (ValueError, KeyError, TypeError):
        raise BoardRefused(
            f"{place.name}: reference.json of the release cannot be read",
            cause="missing",
            host=place.name,
            hint="deploy again: the board gets what it lacks",
        ) from None


def _json(answer: Answer[Verified]) -> dict[str, Any]:
    if answer.value is None:
        return {"board": answer.name, **answer.failure()}
    return {"status": answer.value.status, **asdict(answer.value)}


def _text(answers: list[Answer[Verified]], run: RunFolder) -> str:
    rows, told = [], []
    for answer in answers:
        item = answer.value
        if item is None:
            rows.append([answer.name, "", str(answer.failure()["status"]), "", ""])
            continue
        figures = item.figures
        accuracy, difference = figures.get("accuracy"), figures.get("difference")
        rows.append(
            [
                answer.name,
                item.release[:12] or "–",
                item.status,
                f"{accuracy * 100:.1f} % of {figures['labelled']}" if accuracy is not None else "",
                f"{difference:.1e}" if difference is not None else "",
            ]
        )
        if item.text:
            told.append(f"✗ {answer.name}: {item.text}")
            told.append(f"  what to do: {item.hint}")
    heads = ["board", "release", "result", "accuracy", "difference"]
    lines = [table(heads, rows, right=["accuracy", "difference"]), *told, *failures_text(answers)]
    if any(answer.value is not None and answer.value.figures for answer in answers):
        lines.append(f"pictures and results: {paths.relative(run.path)}/<board>/")
    return "\n".join(lines)
