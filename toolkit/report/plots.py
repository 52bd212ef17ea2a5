"""Plots as SVG, drawn by hand: a report has no scripts and asks nobody for a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from toolkit.report.gather import number

WIDTH, HEIGHT = 560, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 48, 14, 26


def training(history: Sequence[Mapping[str, Any]]) -> Markup:
    """Loss (left axis) and accuracy (right axis, 0 to 1) by epoch; "" with fewer than two epochs."""
    rows = [
        (epoch, number(item.get("loss")), number(item.get("accuracy")))
        for item in history
        if (epoch := number(item.get("epoch"))) is not None
    ]
    losses = [(epoch, loss) for epoch, loss, _ in rows if loss is not None]
    accuracies = [(epoch, share) for epoch, _, share in rows if share is not None]
    if len(losses) < 2:
        return Markup("")
    first, last = losses[0][0], losses[-1][0]
    highest = max(loss for _, loss in losses) or 1.0
    floor = min((share for _, share in accuracies), default=0.0)
    floor = 0.0 if floor < 0.5 else 0.5 if floor < 0.9 else 0.9

    def x(epoch: float) -> float:
        return LEFT + (epoch - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        height = y(part)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        if part in (0.0, 0.5, 1.0):
            parts.append(_label(LEFT - 8, height + 4, _short(part * highest), "end", "loss"))
            if accuracies:
                share = floor + part * (1 - floor)
                parts.append(_label(WIDTH - RIGHT + 8, height + 4, f"{share * 100:.0f} %", "start", "accuracy"))
    parts.append(_line("loss", [(x(epoch), y(loss / highest)) for epoch, loss in losses]))
    if accuracies:
        points = [(x(epoch), y((share - floor) / (1 - floor))) for epoch, share in accuracies]
        parts.append(_line("accuracy", points))
    for epoch in sorted({first, last}):
        parts.append(_label(x(epoch), HEIGHT - 6, f"epoch {epoch:.0f}", "start" if epoch == first else "end", "axis"))
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss and accuracy by epoch">'
        + "".join(parts)
        + "</svg>"
    )


def _line(kind: str, points: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return f'<polyline class="{kind}" points="{path}"/><circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _label(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    # Only numbers and words of our own come here.
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
