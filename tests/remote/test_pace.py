"""When a line counts as too fast for differences. Its clock is a list."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from toolkit.remote import outgoing
from toolkit.remote.outgoing import FAST, Pace

PIECE = 1 << 18


def sent(pace: Pace, pieces: int, bytes_a_second: float, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What it says before each piece, on a line of that speed."""
    clock = [0.0]
    monkeypatch.setattr(outgoing, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    said = []
    for _ in range(pieces):
        said.append(pace.too_fast())
        with pace.sending(PIECE):
            clock[0] += PIECE / bytes_a_second
        clock[0] += 10  # what is worked out between the pieces does not count
    return said


def test_the_first_bytes_go_whole_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    said = sent(Pace(True), 40, FAST / 2, monkeypatch)
    assert said == [True] * 24 + [False] * 16


def test_a_fast_line_gets_all_of_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(sent(Pace(True), 40, 2 * FAST, monkeypatch))


def test_what_vanishes_into_buffers_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(True)
    sent(pace, 16, 1e12, monkeypatch)
    assert sent(pace, 10, FAST / 2, monkeypatch)[8:] == [False, False]


def test_always_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(sent(Pace(False), 40, 1e12, monkeypatch))
