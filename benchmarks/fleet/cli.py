"""The benchmark's command line: who takes part, in which order, and what is written down."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fleet import peers, table, venv
from benchmarks.fleet.boards import Board, Fleet, missing_tools, settle
from benchmarks.fleet.measure import Figures, measure
from benchmarks.fleet.peers import PROGRAMS, Peer, Site
from benchmarks.fleet.workload import SCENARIOS, Workload, contents

_FAR = 200.0
"""RTT (ms) for counting round trips: far above what computing takes."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    if importlib.util.find_spec("fabric") is None:
        print(f"{sys.executable} lacks what ascend-deploy needs; .venv/bin/python has it", file=sys.stderr)
        return 2
    lacking = missing_tools()
    if lacking:
        print("this machine lacks: " + "; ".join(lacking), file=sys.stderr)
        return 2
    if options.install:
        venv.make()
    names = [name for name in options.peers if not _missing(name)]
    options.out.mkdir(parents=True, exist_ok=True)
    # A Ctrl-C or a plain kill unwinds the with blocks, which end the boards.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scratch = Path(tempfile.mkdtemp(prefix="fleet-", dir=_disk(options.disk)))
    begun = time.monotonic()
    failed = False
    try:
        report = [_header(options)]
        if names and options.rounds:
            parts, failed = _rollouts(options, names, scratch)
            report += parts
        if options.round_trips:
            report.append(_round_trips(options, scratch))
        if options.many:
            report.append(_many(options, scratch))
    except KeyboardInterrupt:
        print("interrupted: boards are gone", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = "\n".join(report)
    (options.out / "fleet.md").write_text(text)
    print(text)
    print(f"{time.monotonic() - begun:.0f} s in all; {options.out}/fleet.md, fleet.csv", file=sys.stderr)
    return 1 if failed else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    def words(allowed: Sequence[str]) -> object:
        def split(text: str) -> list[str]:
            chosen = list(allowed) if text == "all" else text.split(",")
            for word in chosen:
                if word not in allowed:
                    raise argparse.ArgumentTypeError(f"{word}: choose from {', '.join(allowed)}")
            return chosen

        return split

    parser = argparse.ArgumentParser(
        prog="benchmarks/fleet.py",
        description="Rollouts to boards (network namespaces with an sshd each), side by side with their peers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--boards", type=int, default=8, help="boards of the rollouts")
    add("--rounds", type=int, default=5, help="rounds; in each one every peer has its turn. 0: no rollouts")
    add("--model-mb", type=float, default=60, help="size of the model, in 10^6 bytes")
    add("--rtt", default="0,20", help="round-trip times in ms")
    add("--peers", type=words(peers.NAMES), default="all", help=f"from {','.join(peers.NAMES)}")
    add(
        "--far-peers",
        type=words(peers.NAMES),
        default=",".join(name for name in peers.NAMES if name != "scp"),
        help="those of --peers that also run with a delay (scp takes half a minute a board at 20 ms)",
    )
    add(
        "--scenarios",
        type=words(SCENARIOS),
        default="all",
        help=f"from {','.join(SCENARIOS)}; first is needed",
    )
    add("--disk", default="/dev/shm", help="the boards' disk: a folder; in memory fsync costs nothing")
    add(
        "--round-trips",
        action="store_true",
        help="count those of a board with nothing changed, and of Fabric",
    )
    add("--many", type=int, default=0, help="as many boards from one process: its memory and threads")
    add("--many-model-mb", type=float, default=2, help="size of the model for --many")
    add("--out", type=Path, default=Path("runs/benchmarks"), help="folder for fleet.csv and fleet.md")
    add("--no-install", dest="install", action="store_false", help="take only peers that are installed")
    options = parser.parse_args(argv)
    options.rtt = [float(word) for word in options.rtt.split(",")]
    if "first" not in options.scenarios:
        parser.error("--scenarios: the others follow on first")
    return options


def _disk(folder: str) -> Path:
    path = Path(folder)
    return path if path.is_dir() and os.access(path, os.W_OK) else Path(tempfile.gettempdir())


def _missing(name: str) -> bool:
    lacks = peers.get(name).lacks()
    if lacks:
        print(f"{name} does not take part: it lacks {lacks}", file=sys.stderr)
    return bool(lacks)


def _header(options: argparse.Namespace) -> str:
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.split(",")[0]
    names = [package.replace("==", " ") for package in venv.PACKAGES]
    rsync = (
        subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=False)
        if shutil.which("rsync")
        else None
    )
    if rsync:
        names.append(" ".join(rsync.stdout.split()[:3:2]))
    return (
        f"{options.boards} boards, {options.rounds} interleaved rounds, model of {options.model_mb:g} MB, "
        f"disk of the boards in {options.disk}. {os.cpu_count()} CPUs for the client and all boards, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {ssh}, {', '.join(names)}.\n"
    )


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run(peer: Peer, site: Site) -> Figures:
    """One measured run of a peer.

    :raises RuntimeError: it failed; with the end of what it printed.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(site.folder), "PYTHONDONTWRITEBYTECODE": ""}
    environment.update(peer.environment(site))
    figures = measure(site.fleet.client, peer.command(site), environment, site.folder)
    if figures.status != 0:
        printed = (site.folder / "stdout").read_text(errors="replace") + figures.log
        raise RuntimeError(f"{peer.name} ended with status {figures.status}:\n{printed[-3000:]}")
    return figures


def check(peer: Peer, site: Site, workload: Workload, board: Board, *, wholly: bool) -> None:
    """Is the release on the board, and are its results here?

    :raises AssertionError: they are not: what was measured was something else.
    """
    expected = workload.expected()
    for number in range(10):
        text = (site.out / board.name / f"result-{number}.txt").read_text()
        assert text == f"{number} {expected}\n" * 300, f"{peer.name}: result {number} of {board.name}"
    if wholly:
        there = contents(peer.installed(board).resolve())
        own = ("manifest.json", ".deploy", ".last_run")
        there = {path: digest for path, digest in there.items() if path not in own}
        assert there == workload.contents(), f"{peer.name}: the release on {board.name}"
        block = peer.block(board)
        for line in (site.release / "env.sh").read_text().splitlines():
            assert block.count(line) == 1, f"{peer.name}: .bashrc on {board.name}: {line}"


def new_site(fleet: Fleet, workload: Workload, peer: Peer, folder: Path) -> Site:
    """A place for one peer's files, with its configuration written."""
    site = Site(fleet, workload.release, folder)
    folder.mkdir(parents=True)
    peer.prepare(site)
    return site


def _rollouts(options: argparse.Namespace, names: list[str], scratch: Path) -> tuple[list[str], bool]:
    workload = Workload(scratch / "workload", options.model_mb)
    rows: list[table.Row] = []
    failures: list[str] = []
    with Fleet(options.boards, scratch / "boards") as fleet:
        sites = {}
        for name in names:
            peer = peers.get(name)
            sites[name] = peer, new_site(fleet, workload, peer, scratch / "peers" / name)
        for number in range(1, options.rounds + 1):
            # Nobody is always the first, or always after the same neighbour's mess.
            shift = number % len(names)
            for rtt in options.rtt:
                for name in names[shift:] + names[:shift]:
                    if rtt and name not in options.far_peers:
                        continue
                    peer, site = sites[name]
                    try:
                        taken = _turn(options.scenarios, peer, site, workload, rtt, wholly=number == 1)
                    except (RuntimeError, AssertionError, OSError) as error:
                        # The others' figures are still worth having; the exit code tells.
                        failures.append(f"round {number}, {rtt:g} ms: {error}")
                        _say(f"FAILED: {failures[-1]}")
                        continue
                    for scenario, figures in taken.items():
                        rows.append(table.Row(rtt, number, name, peer.title, scenario, options.boards, figures))
                    walls = " ".join(f"{scenario} {figures.wall:.2f}" for scenario, figures in taken.items())
                    _say(f"round {number}, {rtt:g} ms, {name}: {walls} s")
                table.write_csv(rows, options.out / "fleet.csv")
    parts = [table.markdown(rows, "rsync"), table.goals(rows)]
    if failures:
        parts.append("### Failures\n\n" + "".join(f"- {text.splitlines()[0]}\n" for text in failures))
    return parts, bool(failures)


def _turn(
    scenarios: list[str], peer: Peer, site: Site, workload: Workload, rtt: float, *, wholly: bool
) -> dict[str, Figures]:
    """One peer's way through the scenarios, from boards as new."""
    site.fleet.wipe()
    shutil.rmtree(site.out, ignore_errors=True)
    site.out.mkdir()
    site.fleet.set_rtt(rtt)
    taken = {}
    try:
        for scenario in SCENARIOS:
            if scenario not in scenarios or scenario not in peer.scenarios:
                continue
            workload.enter(scenario)
            settle()
            taken[scenario] = run(peer, site)
            for board in site.fleet.boards if peer.rolls_out else ():
                check(peer, site, workload, board, wholly=wholly and board == site.fleet.boards[0])
    finally:
        site.fleet.set_rtt(0)
    return taken


def _round_trips(options: argparse.Namespace, scratch: Path) -> str:
    """One board with nothing changed, against Fabric's bare connect + ``true``: times, and exact counts."""
    workload = Workload(scratch / "one-workload", 1)
    lines = [
        "### Round trips, one board",
        "",
        "Counted at 200 ms: what waits for what, see benchmarks/fleet/delay.py. The time is the connection's, "
        "without starting Python.",
        "",
        "| what | round trips | time at 20 ms, ms (median of 5) | in round trips | bytes up | bytes down |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    with Fleet(1, scratch / "one-board") as fleet:
        for name in ("fabric-true", "ours", "ours-openssh"):
            peer = peers.get("fabric" if name == "fabric-true" else name)
            if peer.lacks():
                _say(f"{name} does not take part: it lacks {peer.lacks()}")
                continue
            site = new_site(fleet, workload, peer, scratch / "one" / name)
            workload.enter("first")
            fleet.wipe()
            site.out.mkdir()
            if name == "fabric-true":
                peer = _FabricTrue(name)
            else:
                run(peer, site)
            walls = []
            for rtt in (20.0,) * 5 + (_FAR,):
                fleet.set_rtt(rtt)
                settle()
                figures = run(peer, site)
                walls.append(figures.said["seconds"])
                counted = fleet.ask_delay("report")[fleet.boards[0].host]
                fleet.set_rtt(0)
            wall = sorted(walls[:5])[2] * 1000
            title = "Fabric: connect + true" if name == "fabric-true" else f"{peer.title}: nothing changed"
            lines.append(
                f"| {title} | {counted['round_trips']} | {wall:.0f} | {wall / 20:.1f} "
                f"| {counted['up']} | {counted['down']} |"
            )
    return "\n".join([*lines, ""])


class _FabricTrue(Peer):
    title = "Fabric: connect + true"

    def prepare(self, site: Site) -> None:
        raise NotImplementedError("the Fabric peer's configuration is used")

    def command(self, site: Site) -> list[str]:
        program = PROGRAMS / "fabric_group.py"
        return [str(venv.program("python")), "-P", str(program), str(site.folder / "spec.json"), "true"]


def _many(options: argparse.Namespace, scratch: Path) -> str:
    """Many boards from one process: memory and threads."""
    workload = Workload(scratch / "many-workload", options.many_model_mb)
    lines = [
        f"### {options.many} boards from one process",
        "",
        f"Model of {options.many_model_mb:g} MB, 16 at a time (the default of engine.workers).",
        "",
        "| client | run | s | client CPU s | peak of the process, MB | of it and its children, MB "
        "| threads, most | processes, most |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    with Fleet(options.many, scratch / "many-boards") as fleet:
        for name in ("ours", "ours-openssh"):
            peer = peers.get(name)
            site = new_site(fleet, workload, peer, scratch / "many" / name)
            taken = _turn(["first", "same"], peer, site, workload, 0, wholly=True)
            for scenario, figures in taken.items():
                _say(f"{options.many} boards, {name}, {scenario}: {figures.wall:.1f} s")
                lines.append(
                    f"| {name} | {scenario} | {figures.wall:.1f} | {figures.cpu:.1f} | {figures.largest / 1e6:.0f} "
                    f"| {figures.peak / 1e6:.0f} | {figures.threads} | {figures.processes} |"
                )
    return "\n".join([*lines, ""])
