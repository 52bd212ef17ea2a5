"""What people read at the end of a rollout: nothing doubled, and a fleet's crowds said once."""

from __future__ import annotations

import io

import pytest

from toolkit.fleet.outcome import Outcome
from toolkit.ui.console import TextRenderer
from toolkit.ui.events import Event
from toolkit.ui.words import counted, named, who


def shown(outcomes: list[Outcome], notes: tuple[str, ...] = ()) -> list[str]:
    stream = io.StringIO()
    TextRenderer(stream=stream).outcomes(outcomes, notes)
    return stream.getvalue().splitlines()


def test_a_large_fleet_that_stopped_at_its_canary() -> None:
    fleet = [Outcome("b-0", "failed", cause="gate", message="b-0: the answers disagree", hint="the board keeps it")]
    fleet += [
        Outcome(f"b-{number}", "skipped", cause="halted", message="not begun: 1 of 3000 boards failed")
        for number in range(1, 3000)
    ]
    lines = shown(fleet, ("stopped",))
    assert len(lines) == 6
    assert lines[1].split()[:2] == ["b-0", "failed"]
    assert lines[2:] == [
        "b-0: the answers disagree",
        "  what to do: the board keeps it",
        "2999 boards (b-1, b-2, b-3, b-4, … b-2999): not begun: 1 of 3000 boards failed",
        "stopped",
    ]


def test_who_does_not_answer_is_told_together_by_cause() -> None:
    silent = [
        Outcome(f"cam-{n}", "unreachable", cause=cause, message=f"cam-{n}: root@10.0.0.{n}:22: {cause}", hint=f"{n}")
        for n, cause in enumerate(["refused", "refused", "no-route", "refused"])
    ]
    assert [line for line in shown(silent) if ": " in line and "what" not in line] == [
        "cam-0, cam-1, cam-3: root@10.0.0.0:22: refused",
        "cam-2: root@10.0.0.2:22: no-route",
    ]


@pytest.mark.parametrize(
    ("data", "text", "line"),
    [
        ({"status": "failed"}, "b-1: no space", "✗ b-1       failed no space"),
        (
            {"status": "ok", "skipped": ("push: the board has this release", "env: it is as wanted")},
            "",
            "✓ b-1       ok push skipped: the board has this release; env skipped: it is as wanted",
        ),
    ],
)
def test_the_line_of_a_board(data: dict[str, object], text: str, line: str) -> None:
    stream = io.StringIO()
    TextRenderer(stream=stream).show(Event("outcome", text, board="b-1", data=data))
    assert stream.getvalue() == line + "\n"


def test_counts_and_names() -> None:
    assert [counted(count, "board") for count in (0, 1, 2)] == ["0 boards", "1 board", "2 boards"]
    assert [counted(count, noun) for count, noun in ((3, "entry"), (3, "key"))] == ["3 entries", "3 keys"]
    assert named(["b-10", "b-9", "a"]) == who(["a", "b-9", "b-10"]) == "a, b-9, b-10"
    many = [f"b-{number}" for number in range(20)]
    assert named(many) == "b-0, b-1, b-2, b-3, … b-19"
    assert who(many) == "20 boards (b-0, b-1, b-2, b-3, … b-19)"
