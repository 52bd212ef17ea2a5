"""Receipts: what was removed or edited shows, wherever; what was only cut off does not raise an alarm."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.fleet.receipts import Receipts, check

BOARD = "sim-1"


def run(base: Path, number: int, board: str = BOARD) -> Path:
    """One run of a board, with a result."""
    folder = base / "runs" / f"run-{number}"
    (folder / board).mkdir(parents=True)
    (folder / board / "results.jsonl").write_text(f"{number}\n")
    digest = hashlib.sha256(f"{number}\n".encode()).hexdigest()
    content = {"run": folder.name, "status": "ok", "release": "ab" * 32, "results": {"results.jsonl": digest}}
    Receipts(base / ".deploy" / "receipts").add(board, content, folder / "receipts" / f"{board}.json")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for number in range(5):
        run(tmp_path, number)
        run(tmp_path, 10 + number, "sim-2")
    return tmp_path


def chain(base: Path) -> Path:
    return base / ".deploy" / "receipts" / f"{BOARD}.jsonl"


def lines(base: Path) -> list[str]:
    return chain(base).read_text().splitlines(keepends=True)


def edit(text: str) -> str:
    receipt = json.loads(text)
    receipt["status"] = "failed"
    return json.dumps(receipt, sort_keys=True, separators=(",", ":")) + "\n"


def test_an_untouched_folder_has_no_problems(base: Path) -> None:
    assert check(base) == []
    receipts = [json.loads(line) for line in lines(base)]
    assert [receipt["number"] for receipt in receipts] == [1, 2, 3, 4, 5]
    assert receipts[0]["former"] == ""
    assert len({receipt["former"] for receipt in receipts}) == 5
    assert check(base / "nothing-here") == []


@pytest.mark.parametrize("place", range(5))
def test_every_removed_or_edited_receipt_shows(base: Path, place: int) -> None:
    whole = lines(base)
    for changed in (
        whole[:place] + whole[place + 1 :],
        [*whole[:place], edit(whole[place]), *whole[place + 1 :]],
    ):
        chain(base).write_text("".join(changed))
        found = check(base)
        assert found
        assert {problem.board for problem in found} == {BOARD}
    chain(base).write_text("".join(whole))
    assert check(base) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda base: chain(base).unlink(),
        lambda base: (base / ".deploy/receipts" / f"{BOARD}.head").unlink(),
        lambda base: (base / "runs/run-2/receipts" / f"{BOARD}.json").unlink(),
        lambda base: (base / "runs/run-2/receipts" / f"{BOARD}.json").write_text("{}"),
        lambda base: (base / "runs/run-2" / BOARD / "results.jsonl").write_text("better"),
        lambda base: (base / "runs/run-2" / BOARD / "results.jsonl").unlink(),
        lambda base: chain(base).write_text("".join(lines(base)[::-1])),
        lambda base: chain(base).write_text(
            "".join(lines(base)[:2]) + "no JSON\n" + "".join(lines(base)[3:])
        ),
        lambda base: chain(base).write_text("".join([*lines(base), lines(base)[-1]])),
    ],
)
def test_other_damage_shows_too(base: Path, damage: Callable[[Path], None]) -> None:
    damage(base)
    found = check(base)
    assert found
    assert {problem.board for problem in found} == {BOARD}
    assert all(str(problem).startswith(f"{BOARD}: ") for problem in found)


def test_a_tail_that_was_cut_off_with_its_runs_still_shows(base: Path) -> None:
    chain(base).write_text("".join(lines(base)[:3]))
    for number in (3, 4):
        shutil.rmtree(base / "runs" / f"run-{number}")
    assert [str(problem) for problem in check(base)] == [f"{BOARD}: there are 3 receipts, and there were 5"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda base: chain(base).unlink(), "there are 0 receipts, and there were 5"),
        (lambda base: chain(base).write_text("".join(lines(base)[:2])), "there are 2 receipts, and there were 5"),
        (
            lambda base: chain(base).write_text("".join([*lines(base)[:4], edit(lines(base)[4])])),
            "receipt 5, the last one, was edited",
        ),
        (lambda base: (base / ".deploy/receipts" / f"{BOARD}.head").unlink(), "its head is missing or damaged"),
    ],
)
def test_the_next_receipt_does_not_hide_what_was_removed(
    base: Path, damage: Callable[[Path], None], says: str
) -> None:
    """Nor does the one after it, nor that the runs' folders are gone."""
    damage(base)
    for number in (20, 21):
        run(base, number)
        found = [str(problem) for problem in check(base)]
        assert any(text.endswith(f"(run run-20) was written: {says}") for text in found), found
    for folder in (base / "runs").iterdir():
        shutil.rmtree(folder)
    assert any(says in str(problem) for problem in check(base))
    assert {problem.board for problem in check(base)} == {BOARD}


def test_removing_whole_runs_is_housekeeping(base: Path) -> None:
    shutil.rmtree(base / "runs" / "run-1")
    shutil.rmtree(base / "runs" / "run-4")
    assert check(base) == []


def test_a_kill_between_the_writes_loses_nothing(base: Path) -> None:
    """Whatever of line, copy and head was written last: the next receipt goes on, and nothing is accused."""
    head = base / ".deploy/receipts" / f"{BOARD}.head"
    before = head.read_text()
    folder = run(base, 5)
    head.write_text(before)  # killed before the head
    assert check(base) == []
    (folder / "receipts" / f"{BOARD}.json").unlink()  # killed before the copy
    assert check(base) == []
    chain(base).write_text("".join(lines(base)[:5]) + lines(base)[5][:40])  # killed within the line
    run(base, 6)
    shutil.rmtree(folder)
    assert check(base) == []
    assert [json.loads(line)["run"] for line in lines(base)][-2:] == ["run-4", "run-6"]
    for number in (7, 8):  # and killed before the head each time
        run(base, number)
        whole = lines(base)
        head.write_text(f"{len(whole) - 1} {hashlib.sha256(whole[-2].rstrip().encode()).hexdigest()}\n")
        assert check(base) == []
    run(base, 9)
    assert check(base) == []


def test_a_board_that_is_tried_again_in_a_run_has_several_receipts(base: Path) -> None:
    copy = base / "runs" / "run-4" / "receipts" / f"{BOARD}.json"
    for status in ("unreachable", "ok"):
        content = {"run": "run-4", "status": status}
        Receipts(base / ".deploy/receipts").add(BOARD, content, copy)
    assert json.loads(copy.read_text())["status"] == "ok"
    assert len(lines(base)) == 7
    assert check(base) == []


def _add(folder: Path, name: str) -> None:
    for number in range(20):
        Receipts(folder).add(BOARD, {"run": f"{name}-{number}"})


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    folder = tmp_path / ".deploy" / "receipts"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add, args=(folder, f"p{number}")) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(lines(tmp_path)) == 80
    assert check(tmp_path) == []
