"""Exit codes tell the truth."""

from __future__ import annotations

import pytest

from toolkit.fleet.outcome import Outcome, Status, exit_code, held_before


def outcomes(*pairs: tuple[Status, str]) -> list[Outcome]:
    return [Outcome(f"b{i}", status, cause=cause) for i, (status, cause) in enumerate(pairs)]


def test_who_held_the_refused_release_before_still_runs_it() -> None:
    held = Outcome("b1", "unchanged", release="new")
    assert exit_code([Outcome("b0", "failed", cause="gate", release="new"), held]) == 4
    assert exit_code([Outcome("b0", "failed", cause="gate", release="other"), held]) == 6
    assert held_before([held, Outcome("b0", "reverted", cause="budget", release="new")]) == [held]
    assert held_before([held, Outcome("b0", "failed", cause="disk-full", release="new")]) == []


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ((), 0),
        ((("ok", ""), ("unchanged", "")), 0),
        ((("ok", ""), ("failed", "disk-full")), 4),
        ((("unreachable", "refused"), ("failed", "disk-full")), 5),
        # a board kept the new release: not everything was put back
        ((("ok", ""), ("failed", "gate")), 4),
        ((("unchanged", ""), ("failed", "gate")), 6),
        ((("failed", "gate"),), 6),
        ((("reverted", "gate"), ("failed", "gate"), ("skipped", "halted")), 6),
        ((("reverted", "gate"), ("failed", "not-reverted")), 4),
        ((("reverted", "budget"), ("failed", "disk-full")), 4),
        ((("failed", "disk-full"), ("skipped", "halted")), 4),
        ((("unreachable", "refused"), ("unreachable", "not-reverted")), 4),
        ((("failed", "plan-changed"),), 7),
        ((("failed", "plan-changed"), ("ok", "")), 4),
        ((("skipped", "interrupted"), ("ok", "")), 130),
    ],
)
def test_exit_codes(pairs: tuple[tuple[Status, str], ...], code: int) -> None:
    assert exit_code(outcomes(*pairs)) == code
