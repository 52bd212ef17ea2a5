"""May a release stay? Figures of one board, or of a wave, against thresholds. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolkit.config.schema import GateSettings
from toolkit.ui.words import counted

Figures = Mapping[str, Any]

ENOUGH = 100
"""Times of so many pictures have a 99th percentile that is not simply the largest of them."""


def problems(figures: Figures, before: Figures, limits: GateSettings, key: str = "verify") -> list[str]:
    """Say what of ``figures`` is out of ``limits``, one line each, naming the setting.

    ``before``: figures of the release that is replaced; relative limits need them, and say nothing without. A
    figure that was not measured is out of no limit, except where it is a limit's only subject: an accuracy
    was asked for and there are no labels."""
    found = []
    lowest = (("agreement", "min_agreement"), ("cosine", "min_cosine"), ("accuracy", "min_accuracy"))
    for name, limit in lowest:
        least = getattr(limits, limit)
        if least is None:
            continue
        value = figures.get(name)
        if value is None:
            if limit == "min_accuracy":
                found.append(f"no picture has a label, so that {key}.{limit}={least:g} can't be checked")
        elif value < least:
            found.append(f"{name} is {value:.4g}, less than {key}.{limit}={least:g}")
    highest = (
        ("difference", "max_difference", ""),
        ("p99_ms", "max_p99_ms", " ms"),
        ("memory_mb", "max_memory_mb", " MB"),
        ("temperature", "max_temperature", " °C"),
    )
    for name, limit, unit in highest:
        most, value = getattr(limits, limit), figures.get(name)
        if most is not None and value is not None and value > most:
            found.append(f"{_shown(name, figures)} is {value:.4g}{unit}, more than {key}.{limit}={most:g}")
    return found + list(_relative(figures, before, limits, key))


def _shown(name: str, figures: Figures) -> str:
    """A figure's name; of few pictures the 99th percentile is the slowest one, and people should know."""
    timed = figures.get("timed")
    if name == "p99_ms" and isinstance(timed, int) and timed < ENOUGH:
        return f"p99_ms (the slowest of {timed} pictures)"
    return name


def without(limits: GateSettings, *names: str) -> GateSettings:
    """The limits but for some that are judged elsewhere."""
    return GateSettings(**{key: None if key in names else value for key, value in vars(limits).items()})


def _relative(figures: Figures, before: Figures, limits: GateSettings, key: str) -> Iterable[str]:
    was, now = before.get("accuracy"), figures.get("accuracy")
    drop = limits.max_accuracy_drop
    if drop is not None and was is not None and now is not None and was - now > drop + 1e-12:
        yield f"accuracy fell from {was:.4g} to {now:.4g}, by more than {key}.max_accuracy_drop={drop:g}"
    for name, limit in (("p99_ms", "max_p99_growth"), ("memory_mb", "max_memory_growth")):
        growth = getattr(limits, limit)
        was, now = before.get(name), figures.get(name)
        if growth is not None and was and now is not None and now > was * (1 + growth):
            yield f"{_shown(name, figures)} grew from {was:.4g} to {now:.4g}, by more than {key}.{limit}={growth:g}"
    if limits.max_new_errors is not None:
        new = set(figures.get("failed", ())) - set(before.get("failed", ()))
        if len(new) > limits.max_new_errors:
            yield (
                f"{counted(len(new), 'picture')} failed that did not before, such as {min(new)}, "
                f"more than {key}.max_new_errors={limits.max_new_errors}"
            )


def together(boards: Sequence[Figures]) -> dict[str, Any]:
    """The figures of several boards as those of a wave.

    Accuracy and agreement: over all their pictures; cosine and difference: the worst; p99_ms: the median
    board, as one slow board is for the budget to judge; memory and temperature: the highest."""
    found: dict[str, Any] = {}
    for name, weight in (("accuracy", "labelled"), ("agreement", "pictures")):
        pairs = [(item[name], item.get(weight) or 1) for item in boards if item.get(name) is not None]
        if pairs:
            found[name] = sum(value * count for value, count in pairs) / sum(count for _, count in pairs)
    for name, join in (
        ("cosine", min),
        ("difference", max),
        ("p99_ms", statistics.median),
        ("memory_mb", max),
        ("temperature", max),
        ("timed", min),
    ):
        values = [item[name] for item in boards if item.get(name) is not None]
        if values:
            found[name] = join(values)
    failed = {picture for item in boards for picture in item.get("failed", ())}
    return {**found, "failed": sorted(failed)} if boards else found
