"""Exit codes tell the truth."""

from __future__ import annotations

import pytest

from toolkit.fleet.outcome import Outcome, Status, exit_code


def outcomes(*pairs: tuple[Status, str]) -> list[Outcome]:
    return [Outcome(f"b{i}", status, cause=cause) for i, (status, cause) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ((), 0),
        ((("ok", ""), ("unchanged", "")), 0),
        ((("ok", ""), ("failed", "disk-full")), 4),
        ((("unreachable", "refused"), ("failed", "disk-full")), 5),
        ((("ok", ""), ("failed", "gate")), 6),
        ((("failed", "gate"),), 6),
        ((("skipped", "interrupted"), ("ok", "")), 130),
    ],
)
def test_exit_codes(pairs: tuple[tuple[Status, str], ...], code: int) -> None:
    assert exit_code(outcomes(*pairs)) == code
