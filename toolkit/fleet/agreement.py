"""Compares what a board answered with the reference, and sums up its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import InputError


@dataclass(frozen=True)
class Agreement:
    """The comparison of one board's answers with the reference.

    difference: largest |logit - reference| / max(1, max |reference|) of all pictures; None without a
    reference. disagreeing: pictures whose best class differs although the reference's lead is larger than the
    tolerance. cosine: smallest cosine of logits and reference of all pictures; None without a reference.
    accuracy: share of labelled pictures whose best class is the label; None where none has a label. missing:
    pictures without an answer. failed: pictures that the board could not read."""

    pictures: int
    difference: float | None
    worst: str
    disagreeing: tuple[str, ...]
    accuracy: float | None
    labelled: int
    cosine: float | None
    missing: tuple[str, ...]
    failed: tuple[str, ...]
    problems: tuple[str, ...] = field(default=())

    @property
    def agreed(self) -> float | None:
        """Share of compared pictures with the same best class."""
        if self.difference is None or not self.pictures:
            return None
        return 1 - len(self.disagreeing) / self.pictures


def read_results(path: Path) -> list[dict[str, Any]]:
    """The lines of a board's ``results.jsonl``. It comes from a board: anything that isn't as expected is an
    InputError."""
    entries = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if not isinstance(entry, dict) or not isinstance(entry.get("picture"), str):
                raise ValueError("a line is not a result")
            entries.append(entry)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a board's results: {error}") from error
    return entries


def compare(
    results: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    tolerance: float,
    min_agreement: float = 1.0,
) -> Agreement:
    """Compare ``results`` (see :func:`read_results`) with a release's reference entries.

    A best class may differ where the reference itself is undecided: where its two best logits lie closer
    together than twice the tolerance. ``min_agreement``: share (0..1) of compared pictures whose best class
    must not differ."""
    answers = {str(item["picture"]): item for item in results}
    largest, worst, cosine = 0.0, "", 1.0
    compared = right = labelled = 0
    disagreeing, missing, failed = [], [], []
    for entry in reference:
        name = str(entry["picture"])
        answer = answers.get(name)
        if answer is None:
            missing.append(name)
            continue
        if "error" in answer:
            failed.append(name)
            continue
        got = np.asarray(answer.get("logits", ()), dtype=np.float64)
        if entry.get("label") is not None:
            labelled += 1
            right += bool(got.size) and int(np.argmax(got)) == int(entry["label"])
        if "logits" not in entry:
            continue
        compared += 1
        wanted = np.asarray(entry["logits"], dtype=np.float64)
        scale = max(1.0, float(np.abs(wanted).max()))
        if got.shape != wanted.shape or not np.isfinite(got).all():
            disagreeing.append(name)
            largest, worst, cosine = float("inf"), name, -1.0
            continue
        difference = float(np.abs(got - wanted).max()) / scale
        if difference > largest:
            largest, worst = difference, name
        cosine = min(cosine, _cosine(got, wanted))
        order = np.sort(wanted)
        lead = float(order[-1] - order[-2]) / scale if order.size > 1 else float("inf")
        if int(np.argmax(got)) != int(np.argmax(wanted)) and lead > 2 * tolerance:
            disagreeing.append(name)
    problems = []
    if missing:
        problems.append(f"{len(missing)} pictures have no answer, such as {missing[0]}")
    if compared and largest > tolerance:
        problems.append(
            f"logits differ by {largest:.2g} on {worst}, more than verify.max_difference={tolerance:g}"
        )
    if disagreeing and 1 - len(disagreeing) / compared < min_agreement:
        problems.append(f"the best class differs on {len(disagreeing)} pictures, such as {disagreeing[0]}")
    return Agreement(
        pictures=compared if compared else len(answers),
        difference=largest if compared else None,
        worst=worst,
        disagreeing=tuple(disagreeing),
        accuracy=right / labelled if labelled else None,
        labelled=labelled,
        cosine=cosine if compared else None,
        missing=tuple(missing),
        failed=tuple(failed),
        problems=tuple(problems),
    )


def _cosine(got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> float:
    """Cosine of two vectors; vectors of zeros are like each other and like nothing else."""
    length = float(np.linalg.norm(got)) * float(np.linalg.norm(wanted))
    if length == 0.0 or not np.isfinite(length):
        return 1.0 if np.array_equal(got, wanted) else 0.0
    return float(np.dot(got, wanted)) / length


def latency(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Percentiles of the execution time of a picture, in milliseconds: ``p50_ms`` and ``p99_ms``."""
    times = [
        float(item["ms"]["execute"])
        for item in results
        if isinstance(item.get("ms"), Mapping) and isinstance(item["ms"].get("execute"), int | float)
    ]
    if not times:
        return {}
    return {
        "p50_ms": round(float(np.percentile(times, 50)), 3),
        "p99_ms": round(float(np.percentile(times, 99)), 3),
    }
