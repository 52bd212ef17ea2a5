"""From single measurements to medians, ratios, a CSV and a table in Markdown."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet.measure import Figures
from benchmarks.fleet.workload import TITLES

_COLUMNS = ("wall", "cpu", "peak", "largest", "threads", "processes", "wire", "packets", "connections")


@dataclass(frozen=True)
class Row:
    """One run. ``rtt`` in ms; ``peer``: its name, ``title``: for people."""

    rtt: float
    round: int
    peer: str
    title: str
    scenario: str
    boards: int
    figures: Figures


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """All runs, raw. Seconds and bytes; ``requests`` is known of this project's own runs only."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rtt_ms", "round", "peer", "scenario", "boards", *_COLUMNS, "requests"])
        for row in rows:
            values = [getattr(row.figures, column) for column in _COLUMNS]
            values = [f"{value:.4f}" if isinstance(value, float) else value for value in values]
            where = [f"{row.rtt:g}", row.round, row.peer, row.scenario, row.boards]
            writer.writerow([*where, *values, row.figures.said.get("requests", "")])


def markdown(rows: Sequence[Row], base: str) -> str:
    """One table a scenario and RTT. ``base``: the peer whose time is 1.0 in the column of ratios."""
    parts = []
    for rtt in _unique(row.rtt for row in rows):
        for scenario in _unique(row.scenario for row in rows):
            chosen = [row for row in rows if row.rtt == rtt and row.scenario == scenario]
            if chosen:
                parts.append(_table(chosen, f"{TITLES[scenario]}, {rtt:g} ms round trip", base))
    return "\n".join(parts)


def _table(rows: list[Row], title: str, base: str) -> str:
    by_peer = {name: [row for row in rows if row.peer == name] for name in _unique(row.peer for row in rows)}
    reference = base if base in by_peer else next(iter(by_peer))
    unit = _median(by_peer[reference], "wall")
    lines = [
        f"### {title}",
        "",
        f"| way | s, median (least – most) | × {by_peer[reference][0].title} | client CPU s | peak MB "
        "| MB a board | packets a board | connections a board |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for _, runs in sorted(by_peer.items(), key=lambda item: _median(item[1], "wall")):
        walls = [row.figures.wall for row in runs]
        boards = runs[0].boards
        lines.append(
            f"| {runs[0].title} | {_median(runs, 'wall'):.2f} ({min(walls):.2f} – {max(walls):.2f}) "
            f"| {_median(runs, 'wall') / unit:.2f} | {_median(runs, 'cpu'):.2f} "
            f"| {_median(runs, 'peak') / 1e6:.0f} | {_median(runs, 'wire') / boards / 1e6:.3f} "
            f"| {_median(runs, 'packets') / boards:.0f} | {_median(runs, 'connections') / boards:g} |"
        )
    return "\n".join([*lines, ""])


def goals(rows: Sequence[Row]) -> str:
    """The project's own goals against the medians, per RTT; only what was measured."""

    def wall(rtt: float, peer: str, scenario: str) -> float | None:
        runs = [row for row in rows if (row.rtt, row.peer, row.scenario) == (rtt, peer, scenario)]
        return _median(runs, "wall") if runs else None

    lines = ["### Goals", "", "| goal | round trip | measured | met |", "|---|---:|---:|---|"]
    wanted = [
        ("first run: no slower than rsync", "first", "rsync", 1.0),
        ("first run: at least 5 times as fast as Ansible", "first", "ansible", 0.2),
        ("first run: at least 5 times as fast as pyinfra", "first", "pyinfra", 0.2),
        ("nothing changed: at most half of rsync's time", "same", "rsync", 0.5),
        ("nothing changed: at most half of rsync's time, rsync skipping the run", "same", "rsync-skip", 0.5),
    ]
    for client in _unique(row.peer for row in rows if row.peer.startswith("ours")):
        for rtt in _unique(row.rtt for row in rows):
            for text, scenario, peer, limit in wanted:
                mine, theirs = wall(rtt, client, scenario), wall(rtt, peer, scenario)
                if mine is not None and theirs is not None:
                    ratio = mine / theirs
                    met = "yes" if ratio <= limit else "**no**"
                    lines.append(f"| {client}: {text} | {rtt:g} ms | {ratio:.2f} × (≤ {limit:g}) | {met} |")
    scale = {
        "first": "first run, nothing but the bytes (tar over ssh)",
        "same": "nothing changed, nothing done (ssh … true)",
    }
    for rtt in _unique(row.rtt for row in rows):
        for scenario, text in scale.items():
            limit, theirs = wall(rtt, "bare", scenario), wall(rtt, "rsync", scenario)
            if limit is not None and theirs is not None:
                lines.append(f"| for scale: {text}, of rsync's time | {rtt:g} ms | {limit / theirs:.2f} × | |")
    for row in rows:
        said = row.figures.said
        if row.scenario == "same" and said and (said["connections"], said["requests"]) != (row.boards,) * 2:
            lines.append(
                f"| {row.peer}: nothing changed: one connection and one request a board | {row.rtt:g} ms "
                f"| {said['connections']}, {said['requests']} on {row.boards} boards | **no** |"
            )
    return "\n".join([*lines, ""])


def _median(rows: Sequence[Row], column: str) -> float:
    return float(statistics.median(getattr(row.figures, column) for row in rows))


def _unique(values: object) -> list:  # type: ignore[type-arg]
    return list(dict.fromkeys(values))  # type: ignore[call-overload]
