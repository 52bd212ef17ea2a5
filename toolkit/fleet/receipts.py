"""Receipts: what one board really did, chained by hash so that a removed or an edited one shows.

::

    runs/<id>/receipts/<board>.json      the receipt of that run, for people
    .deploy/receipts/<board>.jsonl       every receipt of the board, one a line; each holds its former's SHA-256
    .deploy/receipts/<board>.head        number and SHA-256 of the last line

A line is canonical JSON, and ``former`` is the SHA-256 of the whole line before it: who edits or removes one
breaks the next one's ``former``, who removes the last ones contradicts the head, who removes a run's own
contradicts the chain, and the other way round. Whoever appends looks first: where the chain is not what its
head says, the new receipt says so (``broken``), since its own head would hide it. The chain is
tamper-evident, not tamper-proof: who may write everything here can write everything anew. Keep a copy of the heads
elsewhere if that is a worry.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.artefacts.hashing import canonical_json, digest_file, walk_files
from toolkit.artefacts.store import write_atomically

if TYPE_CHECKING:
    from toolkit.fleet.job import BoardJob
    from toolkit.fleet.outcome import Outcome

_NUMBER = re.compile(r"(\d+) ([0-9a-f]{64})\n\Z")


@dataclass(frozen=True)
class Problem:
    """What is wrong with one board's receipts; ``str()`` is one line."""

    board: str
    text: str

    def __str__(self) -> str:
        return f"{self.board}: {self.text}"


def receipt_of(job: BoardJob, outcome: Outcome, made_by: Mapping[str, Any]) -> dict[str, Any]:
    """What a receipt says: release, environment, tools and results by digest, times, who. No secrets are in
    an outcome.

    ``made_by``: code, Python and packages of this machine (:func:`toolkit.artefacts.lock.made_by`).
    """
    now = time.time()
    results = {}
    if outcome.status == "ok" and job.out.is_dir():
        results = {name: digest_file(path) for name, path in walk_files(job.out)}
    return {
        **outcome.as_json(),
        "run": job.run_id,
        "by": job.holder,
        "began": round(now - outcome.seconds, 3),
        "ended": round(now, 3),
        "run_key": job.run_key,
        "environment": hashlib.sha256(job.environment.encode()).hexdigest(),
        "release_made_of": dict(job.release.meta),
        "made_by": dict(made_by),
        "results": results,
    }


class Receipts:
    """The chains below ``folder`` (``.deploy/receipts``). Safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, board: str, content: Mapping[str, Any], copy: Path | None = None) -> dict[str, Any]:
        """Append a receipt to the board's chain and return it; ``copy``: the run's own file for it.

        A board that is tried again in the same run gets another receipt; the run's file is that of the last
        one. ``content`` has no ``number``, ``former`` and ``broken`` of its own: those are the chain's.
        """
        if taken := content.keys() & {"number", "former", "broken"}:
            raise ValueError(f"a receipt's own words: {sorted(taken)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone(board):
            number, former, broken = self._end(board)
            receipt = {**content, "board": board, "number": number + 1, "former": former}
            if broken:
                receipt["broken"] = broken
            line = canonical_json(json.loads(json.dumps(receipt, default=str)))
            with self._chain(board).open("ab") as file:
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if copy is not None:
                text = json.dumps(json.loads(line), indent=1, sort_keys=True, ensure_ascii=False)
                write_atomically(copy, text.encode())
            self._point(board, number + 1, hashlib.sha256(line).hexdigest())
        return receipt

    def _point(self, board: str, number: int, digest: str) -> None:
        write_atomically(self.folder / f"{board}.head", f"{number} {digest}\n".encode())

    def _end(self, board: str) -> tuple[int, str, str]:
        """Number and digest of the last line, and why that is not what the head says; "" where it is."""
        lines = _lines(self._chain(board))
        if lines and not lines[-1][1]:
            # The last line was cut off by a kill or a power cut: nobody has seen it, and nothing follows it.
            write_atomically(self._chain(board), b"".join(line + b"\n" for line, _ in lines[:-1]))
            lines.pop()
        digests = [hashlib.sha256(line).hexdigest() for line, _ in lines]
        head = self.folder / f"{board}.head"
        broken = _contradiction(digests, head)
        if digests and not broken and _head_of(head) != (len(digests), digests[-1]):
            self._point(board, len(digests), digests[-1])  # one behind, after a kill: never two
        return len(lines), digests[-1] if digests else "", broken

    def _chain(self, board: str) -> Path:
        return self.folder / f"{board}.jsonl"

    @contextlib.contextmanager
    def _alone(self, board: str) -> Iterator[None]:
        with (self.folder / f".{board}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def check(base: Path) -> list[Problem]:
    """Read all receipts of the folder that ``deploy`` is run from (the one with ``.deploy/`` and ``runs/``).

    Removing whole runs is housekeeping and no problem: the chain keeps what they did.
    """
    folder, runs = base / ".deploy" / "receipts", base / "runs"
    boards = {path.stem for path in folder.glob("*.jsonl")} | {path.stem for path in folder.glob("*.head")}
    copies: dict[str, dict[str, Path]] = {}
    for path in sorted(runs.glob("*/receipts/*.json")):
        copies.setdefault(path.stem, {})[path.parent.parent.name] = path
    problems: list[Problem] = []
    for board in sorted(boards | copies.keys()):
        problems += (
            Problem(board, text) for text in _check_board(folder, runs, board, copies.get(board, {}))
        )
    return problems


def count(base: Path) -> int:
    """How many receipts there are in the folder that ``deploy`` is run from."""
    return sum(len(_lines(path)) for path in (base / ".deploy" / "receipts").glob("*.jsonl"))


def _contradiction(digests: Sequence[str], path: Path) -> str:
    """What the head at ``path`` says against a chain whose whole lines have these digests; "" = nothing.

    One line more than the head knows is a kill between the two writes: nothing was lost by it."""
    head = _head_of(path)
    if head is None:
        if len(digests) <= 1 and not path.exists():
            return ""
        return "its head is missing or damaged"
    number, digest = head
    if not number <= len(digests) <= number + 1:
        return f"there are {len(digests)} receipts, and there were {number}"
    if number and digests[number - 1] != digest:
        return f"receipt {number}, the last one, was edited"
    return ""


def _check_board(folder: Path, runs: Path, board: str, copies: Mapping[str, Path]) -> Iterator[str]:
    lines = _lines(folder / f"{board}.jsonl")
    former = ""
    last: dict[str, Any] = {}
    for number, (line, complete) in enumerate(lines, 1):
        try:
            receipt = json.loads(line) if complete else None
        except ValueError:
            receipt = None
        if not isinstance(receipt, dict):
            # Only the last line can be the half of one.
            yield f"receipt {number} is {'cut off' if number == len(lines) and not complete else 'damaged'}"
            former = hashlib.sha256(line).hexdigest()
            continue
        if receipt.get("former") != former:
            what = "removed or edited" if number > 1 else "removed"
            yield (
                f"receipt {number} (run {receipt.get('run')}) does not follow the one before it: "
                f"that was {what}"
            )
        elif receipt.get("broken"):
            yield f"when receipt {number} (run {receipt.get('run')}) was written: {receipt['broken']}"
        elif receipt.get("number") != number or receipt.get("board") != board:
            yield f"receipt {number} says that it is {receipt.get('number')} of {receipt.get('board')}"
        former = hashlib.sha256(line).hexdigest()
        last.pop(str(receipt.get("run")), None)
        last[str(receipt.get("run"))] = receipt
    digests = [hashlib.sha256(line).hexdigest() for line, complete in lines if complete]
    if contradiction := _contradiction(digests, folder / f"{board}.head"):
        yield contradiction
    head = _head_of(folder / f"{board}.head")
    newest = next(reversed(last), "") if (head or (0, ""))[0] < len(lines) else ""
    for run, path in copies.items():
        try:
            copy = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            copy = None
        if run not in last:
            yield f"the receipt of run {run} is missing from the chain"
        elif copy != last[run]:
            yield f"the receipt in run {run} was edited: the chain says something else"
    for run, receipt in last.items():
        if run not in copies and (runs / run).is_dir() and run != newest:
            yield f"the receipt of run {run} was removed from its folder"
        elif run in copies:
            yield from _check_results(runs / run / board, run, receipt)


def _head_of(path: Path) -> tuple[int, str] | None:
    try:
        found = _NUMBER.match(path.read_text())
    except (OSError, UnicodeDecodeError):
        return None
    return (int(found[1]), found[2]) if found else None


def _check_results(folder: Path, run: str, receipt: Mapping[str, Any]) -> Iterator[str]:
    results = receipt.get("results")
    if not isinstance(results, dict) or not folder.is_dir():
        return
    changed = [name for name, digest in results.items() if not _is(folder / name, digest)]
    if changed:
        yield f"{len(changed)} results of run {run} are missing or were edited, such as {changed[0]}"


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and digest_file(path) == digest


def _lines(path: Path) -> list[tuple[bytes, bool]]:
    """The lines of a chain, and whether each has its end."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    *whole, rest = content.split(b"\n")
    return [(line, True) for line in whole] + ([(rest, False)] if rest else [])
