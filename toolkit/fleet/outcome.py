"""How it ended for one board: every board has exactly one outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "unchanged", "failed", "unreachable", "reverted", "skipped"]

# What is worth another try once the board answers again (toolkit.errors: LineLost).
LINE_CAUSES = ("reset", "closed", "silence", "garbage", "board-deadline", "locked")


@dataclass
class Outcome:
    """The end of one board's job.

    ``cause`` is a stable short word, ``message`` a line for people, ``hint`` what to do. ``sent`` and
    ``received`` are payload bytes on the line, ``requests`` and ``connections`` are counted, ``seconds``
    measured on this machine. ``figures``: accuracy (0..1, of labelled pictures), agreement (0..1),
    difference (largest, relative to the largest reference logit), cosine (smallest), p50_ms and p99_ms
    (execute) of timed pictures, answers (pictures that the board ran), memory_mb, temperature (°C),
    pictures (count), failed (unreadable pictures). ``before``: figures of the release that is replaced.
    ``switched``: the board was asked to switch to ``release`` from ``previous``, whatever came of it."""

    board: str
    status: Status
    stage: str = ""
    cause: str = ""
    message: str = ""
    hint: str = ""
    release: str = ""
    previous: str = ""
    switched: bool = False
    sent: int = 0
    received: int = 0
    requests: int = 0
    connections: int = 0
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return self.status in ("ok", "unchanged")

    @property
    def failed(self) -> bool:
        return self.status in ("failed", "unreachable")

    @property
    def offline(self) -> bool:
        """Is it worth trying again, with nothing changed but time?"""
        return self.status == "unreachable" or (self.status == "failed" and self.cause in LINE_CAUSES)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def held_before(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Boards that ran a release already which a gate refused on others, or which was put back there.

    They keep it: no rollout takes away what it did not bring (docs/adr/0008)."""
    everyone = list(outcomes)
    refused = {item.release for item in everyone if item.release and not item.good and _refused(item)}
    return [item for item in everyone if item.status == "unchanged" and item.release in refused]


def _refused(item: Outcome) -> bool:
    return item.cause == "gate" or item.status == "reverted"


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """The exit code that tells the truth about a rollout.

    0 all good; 130 interrupted; 6 a gate refused the release and no board runs it; 7 no board is as it was when
    the plan was made; 5 all failed or were unreachable; 4 some did, or were not put back, or not begun, or ran
    the refused release before and still do."""
    everyone = list(outcomes)
    bad = [item for item in everyone if not item.good]
    if not bad:
        return 0
    if any(item.cause == "interrupted" for item in bad):
        return 130
    left = any(item.status == "ok" for item in everyone) or any(item.cause == "not-reverted" for item in bad)
    left = left or bool(held_before(everyone))
    if not left and any(item.cause == "gate" for item in bad):
        return 6
    if len(bad) == len(everyone):
        if all(item.cause == "plan-changed" for item in bad):
            return 7
        if all(item.failed for item in bad) and not left:
            return 5
    return 4
