"""What people read at the end of a rollout, and what programs do."""

from __future__ import annotations

import io
import json

from toolkit.fleet.outcome import Outcome
from toolkit.ui.console import JsonRenderer, TextRenderer
from toolkit.ui.events import Event


def summary(*outcomes: Outcome) -> list[str]:
    out = io.StringIO()
    TextRenderer(stream=out).outcomes(outcomes, ["the end"])
    return out.getvalue().splitlines()[1 + len(outcomes) :]


def test_boards_that_fail_alike_are_told_of_once() -> None:
    full = [
        Outcome(f"b-{n}", "failed", cause="disk-full", message=f"b-{n}: no space", hint="make room") for n in range(7)
    ]
    off = Outcome("c", "unreachable", cause="refused", message="c: nothing listens on 10.0.0.1:22", hint="is it up?")
    assert summary(*full, off) == [
        "b-0, b-1, b-2, b-3, b-4 and 2 more: no space",
        "  what to do: make room",
        "c: nothing listens on 10.0.0.1:22",
        "  what to do: is it up?",
        "the end",
    ]


def test_of_a_crowd_with_an_address_each_some_are_shown() -> None:
    off = [
        Outcome(f"b-{n}", "unreachable", cause="refused", message=f"b-{n}: nothing listens on 10.0.0.{n}:22")
        for n in range(200)
    ]
    lines = summary(*off)
    assert lines[0] == "b-0: nothing listens on 10.0.0.0:22"
    more = "… and 195 boards more in the same way: the report has them all"
    assert lines[5:] == [more, "the end"]


def test_what_was_skipped_is_told_with_the_reason() -> None:
    boards = [
        Outcome("b-1", "ok", skipped=("env: the block is as wanted", "push: the board has it")),
        Outcome("b-2", "ok", skipped=("env: the block is as wanted",)),
        Outcome("b-3", "unchanged", skipped=("push: the board has it", "infer: ran before")),
    ]
    assert summary(*boards) == [
        "skipped env: the block is as wanted",
        "skipped push: the board has it (b-1)",
        "the end",
    ]


def test_a_board_is_named_once_on_its_line() -> None:
    out = io.StringIO()
    TextRenderer(stream=out).show(Event("outcome", "b-1: no space", board="b-1", data={"status": "failed"}))
    assert out.getvalue() == "✗ b-1       failed no space\n"


def test_markup_in_what_a_board_says_is_text() -> None:
    lines = summary(Outcome("b-1", "failed", message="b-1: [red]x[/] [link=file:///etc]y", hint="[bold]"))
    assert lines[:2] == ["b-1: [red]x[/] [link=file:///etc]y", "  what to do: [bold]"]


def test_programs_get_every_board() -> None:
    out = io.StringIO()
    JsonRenderer(out).outcomes([Outcome(f"b-{n}", "failed", message="no space") for n in range(7)], [])
    assert [board["board"] for board in json.loads(out.getvalue())["boards"]] == [f"b-{n}" for n in range(7)]
