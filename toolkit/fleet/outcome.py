"""How it ended for one board: every board has exactly one outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "unchanged", "failed", "unreachable", "reverted", "skipped"]


@dataclass
class Outcome:
    """The end of one board's job.

    ``cause`` is a stable short word, ``message`` a line for people, ``hint`` what to do. ``sent`` and ``received``
    are payload bytes on the line, ``requests`` and ``connections`` are counted, ``seconds`` measured on this
    machine. ``figures``: accuracy (0..1, of labelled pictures), agreement (0..1), difference (largest, relative to
    the largest reference logit), p50_ms and p99_ms (execute), pictures (count), failed (unreadable pictures).
    """

    board: str
    status: Status
    stage: str = ""
    cause: str = ""
    message: str = ""
    hint: str = ""
    release: str = ""
    previous: str = ""
    sent: int = 0
    received: int = 0
    requests: int = 0
    connections: int = 0
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return self.status in ("ok", "unchanged")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 all good; 6 a gate refused; 4 some boards failed; 5 all failed or were unreachable; 130 interrupted."""
    all_of_them = list(outcomes)
    bad = [item for item in all_of_them if not item.good]
    if not bad:
        return 0
    if any(item.cause == "interrupted" for item in bad):
        return 130
    if any(item.cause == "gate" for item in bad):
        return 6
    return 5 if len(bad) == len(all_of_them) else 4
