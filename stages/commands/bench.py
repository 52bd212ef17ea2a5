"""How fast is it? Latency, throughput and memory of what is deployed, measured on the boards.

    deploy bench +board=200dk
    deploy bench inventory=mine bench.count=1000 bench.warmup=50 --json

One picture of the release is pre-processed once; then the model runs bench.count times with it, each execution timed
with its copies to and from the device, after bench.warmup that are not. Every time is kept in
runs/<id>/<board>/bench.json. Nothing is built and nothing is switched.

Exits with 4 when some boards failed, 5 when all did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages._boards import (
    Answer,
    Place,
    Records,
    ask_boards,
    deployed,
    exit_code,
    failures_text,
    places_of,
    run_folder,
    run_program,
)
from stages._invocation import Invocation
from toolkit import paths
from toolkit.errors import BoardRefused
from toolkit.fleet import program
from toolkit.fleet.journal import RunFolder
from toolkit.remote.agent import BoardAgent
from toolkit.ui.tables import table

HELP = "latency, throughput and memory of what is deployed, on the boards"

MAX_BYTES = 1 << 26
MAX_FILES = 100


@dataclass(frozen=True)
class Measured:
    """One board's figures; ms and throughput as infer.py summed them up, memory in MB."""

    release: str
    figures: Mapping[str, Any]


def run(invocation: Invocation) -> int:
    with places_of(invocation) as places, run_folder(invocation) as run:
        records = Records(run, "bench", [place.name for place in places])

        def work(place: Place, agent: BoardAgent) -> Measured:
            records.begin(place)
            return measure(place, agent, run)

        answers = ask_boards(invocation, places, work, keep=lambda answer: records.keep(answer.name, _json(answer)))
    failed = sum(item.error is not None for item in answers)
    invocation.renderer.data({"boards": [_json(item) for item in answers], "run": run.id}, _text(answers, run))
    return exit_code(failed, len(answers))


def measure(place: Place, agent: BoardAgent, run: RunFolder) -> Measured:
    """One board."""
    config = place.target.config
    found = deployed(place, agent)
    folder = f"work/bench-{run.id}"
    try:
        report = run_program(
            place,
            agent,
            found.current,
            [
                *("--loop", str(config.bench.count)),
                *("--warmup", str(config.bench.warmup)),
                *("--out", f"{{app}}/{folder}"),
                *("--run", run.id),
                *("--device", str(config.infer.device)),
            ],
        )
        if report.status == 2 and "--loop" in report.stderr_tail:
            raise BoardRefused(
                f"{place.name}: its release is too old to be measured",
                cause="old-release",
                host=place.name,
                hint="deploy: the board gets the program of today",
            )
        if report.status != 0:
            raise program.failure(place.name, report)
        out = run.board(place.name)
        agent.fetch(folder, out, limit_bytes=MAX_BYTES, limit_files=MAX_FILES)
    finally:
        agent.remove(folder)
    return Measured(found.current, _figures(place, out / "bench.json", report.peak_rss))


def _figures(place: Place, path: Any, peak_rss: int) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        total = {name: float(said["ms"]["total"][name]) for name in ("min", "mean", "p50", "p90", "p99", "max")}
        phases = {name: float(said["ms"][name]["p50"]) for name in ("to_device", "execute", "from_device")}
        figures: dict[str, Any] = {
            **{f"{name}_ms": value for name, value in total.items()},
            **{f"{name}_p50_ms": value for name, value in phases.items()},
            "count": int(said["count"]),
            "batch": int(said["batch"]),
            "throughput": float(said["throughput"]),
            "load_seconds": float(said["load_seconds"]),
            "host_memory_mb": round(peak_rss / 1e6, 1) or None,
        }
        for name in ("device_memory_mb", "model_memory_mb"):
            figures[name] = float(said[name]) if said.get(name) is not None else None
        return figures
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BoardRefused(
            f"{place.name}: its figures cannot be read: {error}", cause="garbage", host=place.name
        ) from error


def _json(answer: Answer[Measured]) -> dict[str, Any]:
    if answer.value is None:
        return {"board": answer.name, **answer.failure()}
    return {
        "board": answer.name, "status": "ok", "release": answer.value.release, "figures": dict(answer.value.figures)
    }  # fmt: skip


def _text(answers: list[Answer[Measured]], run: RunFolder) -> str:
    heads = [
        "board", "batch", "p50 ms", "p90 ms", "p99 ms", "min ms", "mean ms", "pictures/s", "load s", "host MB",
        "device MB",
    ]  # fmt: skip
    rows = []
    for answer in answers:
        if answer.value is None:
            continue
        figures = answer.value.figures
        times = [f"{figures[f'{name}_ms']:.2f}" for name in ("p50", "p90", "p99", "min", "mean")]
        memory = [f"{value:.0f}" if value else "" for value in (figures["host_memory_mb"], figures["device_memory_mb"])]
        rows.append(
            [answer.name, str(figures["batch"]), *times, f"{figures['throughput']:.0f}",
             f"{figures['load_seconds']:.2f}", *memory]
        )  # fmt: skip
    lines = [table(heads, rows, right=heads[1:])] if rows else []
    lines += failures_text(answers)
    if rows:
        count = next(answer.value.figures["count"] for answer in answers if answer.value)
        where = paths.relative(run.path)
        lines.append(f"{count} executions each, copies included; every time: {where}/<board>/bench.json")
    return "\n".join(lines)
