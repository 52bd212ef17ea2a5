"""Run what is deployed on other pictures.

    deploy infer +board=200dk infer.pictures=./photos
    deploy infer inventory=mine hosts=ring=0 infer.pictures=./photos infer.top_k=3

The pictures go to the boards, the release that each board runs classifies them, results and annotated pictures come
back into runs/<id>/<board>/. Nothing is built and nothing is switched.

Exits with 4 when some boards failed, 5 when all did.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._boards import (
    Answer,
    Place,
    Records,
    ask_boards,
    both,
    deployed,
    exit_code,
    failures_text,
    places_of,
    run_folder,
    run_program,
)
from stages._invocation import Invocation
from toolkit import paths, pictures
from toolkit.errors import UsageError
from toolkit.fleet import program
from toolkit.fleet.agreement import latency, read_results
from toolkit.fleet.journal import RunFolder
from toolkit.remote.agent import BoardAgent
from toolkit.ui.events import Emit, Event
from toolkit.ui.tables import table
from toolkit.ui.words import counted

HELP = "run what is deployed on other pictures: infer.pictures=FOLDER"

MAX_BYTES = 1 << 32
MAX_FILES = 100_000
ROWS = 40
"""Lines of the table that are printed; all of them are in results.jsonl."""


@dataclass(frozen=True)
class Inferred:
    """One board's results, as infer.py wrote them, and the release that gave them."""

    release: str
    results: list[dict[str, Any]]


def run(invocation: Invocation) -> int:
    given = invocation.config.infer.pictures
    if not given:
        raise UsageError("infer: no pictures", hint="infer.pictures=FOLDER; deploy itself runs the release's own ones")
    files = {path.name: path for path in pictures.check_picture_folder(Path(given).expanduser())}
    with places_of(invocation) as places, run_folder(invocation) as run:
        emit = both(invocation, run)
        records = Records(run, "infer", [place.name for place in places])

        def work(place: Place, agent: BoardAgent) -> Inferred:
            records.begin(place)
            return infer(place, agent, files, run, emit)

        def keep(answer: Answer[Inferred]) -> None:
            records.keep(answer.name, _json(answer, run))

        answers = ask_boards(invocation, places, work, emit, keep)
    invocation.renderer.close()
    failed = sum(item.error is not None for item in answers)
    invocation.renderer.data({"boards": [_json(item, run) for item in answers], "run": run.id}, _text(answers, run))
    return exit_code(failed, len(answers))


def infer(place: Place, agent: BoardAgent, files: dict[str, Path], run: RunFolder, emit: Emit) -> Inferred:
    """Pictures there, the program over them, results back: one board."""
    config = place.target.config
    found = deployed(place, agent)
    folder = f"work/infer-{run.id}"

    def on_line(line: str) -> None:
        if line.startswith(program.PROGRESS):
            done, total = line.split()[1:3]
            data = {"done": int(done), "total": int(total), "unit": "pictures"}
            emit(Event("progress", f"{done}/{total} pictures", stage="infer", board=place.name, data=data))

    try:
        agent.put(f"{folder}/pictures", files)
        report = run_program(
            place,
            agent,
            found.current,
            [
                *("--pictures", f"{{app}}/{folder}/pictures"),
                *("--out", f"{{app}}/{folder}/out"),
                *("--run", run.id),
                *("--top-k", str(config.infer.top_k)),
                *("--device", str(config.infer.device)),
                *("--warmup", str(config.infer.warmup)),
            ],
            on_line,
        )
        # 4: not one picture could be read; which and why is in the results.
        if report.status not in (0, 4):
            raise program.failure(place.name, report)
        out = run.board(place.name)
        agent.fetch(f"{folder}/out", out, limit_bytes=MAX_BYTES, limit_files=MAX_FILES)
    finally:
        agent.remove(folder)
    return Inferred(found.current, read_results(out / "results.jsonl"))


def _json(answer: Answer[Inferred], run: RunFolder) -> dict[str, Any]:
    if answer.value is None:
        return {"board": answer.name, **answer.failure()}
    return {
        "board": answer.name,
        "status": "ok",
        "release": answer.value.release,
        "results": answer.value.results,
        "folder": str(run.path / answer.name),
        "figures": {
            "pictures": len(answer.value.results),
            "failed": [item["picture"] for item in answer.value.results if "error" in item],
            **latency(answer.value.results),
        },
    }


def _text(answers: list[Answer[Inferred]], run: RunFolder) -> str:
    done = [answer for answer in answers if answer.value is not None]
    lines = []
    if done:
        lines.append(_best(done))
        odd = _disagreeing(done)
        if odd:
            lines.append(f"boards disagree on {counted(len(odd), 'picture')}, such as {odd[0]}")
    lines += failures_text(answers)
    if done:
        lines.append(f"pictures and results: {paths.relative(run.path)}/<board>/")
    return "\n".join(lines)


def _best(done: list[Answer[Inferred]]) -> str:
    """The best classes of each picture: of the first board where all agree, else of each."""
    differing = set(_disagreeing(done))
    rows = []
    for number, answer in enumerate(done):
        assert answer.value is not None
        for item in answer.value.results:
            name = str(item["picture"])
            if number and name not in differing:
                continue
            shown = answer.name if name in differing else "all" if len(done) > 1 else ""
            if "error" in item:
                rows.append([name, shown, "✗ " + str(item["error"]), "", ""])
                continue
            others = ", ".join(
                f"{_share(share)} {number}" for number, share in item.get("top", [])[1:3] if share >= 0.01
            )
            rows.append([name, shown, str(item.get("class", "?")), _share(item.get("confidence", 0)), others])
    rows.sort(key=lambda row: row[0])
    text = table(["picture", "board", "class", "confidence", "next (class id)"], rows[:ROWS], right=["confidence"])
    return text + (f"\n… and {len(rows) - ROWS} more in results.jsonl" if len(rows) > ROWS else "")


def _share(value: Any) -> str:
    return f"{float(value) * 100:.1f} %"


def _disagreeing(done: list[Answer[Inferred]]) -> list[str]:
    """Pictures for which the boards name different classes."""
    votes: dict[str, Counter[str]] = {}
    for answer in done:
        for item in answer.value.results if answer.value else ():
            votes.setdefault(str(item["picture"]), Counter())[str(item.get("class", "error"))] += 1
    return sorted(name for name, counts in votes.items() if len(counts) > 1)
