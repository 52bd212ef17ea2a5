"""Compares what a board answered with the reference, and sums up its figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError
from toolkit.remote.text import plain
from toolkit.ui.words import counted

if TYPE_CHECKING:
    # Most verbs never compare: boards that run the release already are left alone.
    import numpy as np


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
    """The lines of a board's ``results.jsonl``, with what this program reads of them.

    They come from a board: texts are made plain, and anything that isn't as expected is an InputError."""
    try:
        return [_result(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not a board's results: {plain(str(error))}") from error


def _result(line: Any) -> dict[str, Any]:
    """One line of the board program (``toolkit/onboard/infer.py``, ``Run.finish`` and ``Run.fail``)."""
    if not isinstance(line, dict) or not isinstance(line.get("picture"), str):
        raise ValueError("a line is not a result")
    name = line["picture"]
    if name != plain(name, 1000):
        raise ValueError(f"{plain(name)} is no picture's name")
    if "error" in line:
        return {"picture": name, "error": plain(str(line["error"]))}
    found = {
        "picture": name,
        "logits": [float(value) for value in line["logits"]],
        "ms": {plain(str(phase)): _milliseconds(value) for phase, value in line.get("ms", {}).items()},
    }
    if "class" in line:
        found |= {
            "label": int(line["label"]),
            "class": plain(str(line["class"])),
            "confidence": float(line["confidence"]),
            "top": [[int(number), float(share)] for number, share in line["top"]],
        }
    return found


def _milliseconds(value: Any) -> float:
    if isinstance(value, bool) or not 0 <= float(value) < float("inf"):
        raise ValueError(f"{plain(str(value))} is no time")
    return float(value)


def compare(
    results: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    tolerance: float | None,
    min_agreement: float | None = 1.0,
) -> Agreement:
    """Compare ``results`` (see :func:`read_results`) with a release's reference entries.

    A best class may differ where the reference itself is undecided: where its two best logits lie closer
    together than twice the tolerance. A picture for which the reference has an answer and the board an error
    is a disagreement. ``min_agreement``: share (0..1) of compared pictures whose best class must not
    differ. None: not looked at."""
    import numpy as np

    answers = {str(item["picture"]): item for item in results}
    largest, worst, cosine = 0.0, "", 1.0
    compared = right = labelled = 0
    disagreeing, missing, failed, lost = [], [], [], []
    for entry in reference:
        name = str(entry["picture"])
        answer = answers.get(name)
        if answer is None:
            missing.append(name)
            continue
        if "error" in answer:
            failed.append(name)
            if "logits" in entry:
                compared += 1
                disagreeing.append(name)
                lost.append(f"{name}: {answer['error']}")
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
        if int(np.argmax(got)) != int(np.argmax(wanted)) and lead > 2 * (tolerance or 0):
            disagreeing.append(name)
    problems = []
    if missing:
        problems.append(f"no answer for {counted(len(missing), 'picture')}, such as {missing[0]}")
    if compared and tolerance is not None and largest > tolerance:
        problems.append(
            f"logits differ by {largest:.2g} on {worst}, more than verify.max_difference={tolerance:g}"
        )
    if disagreeing and min_agreement is not None and 1 - len(disagreeing) / compared < min_agreement:
        differing = [name for name in disagreeing if name not in failed]
        if differing:
            problems.append(f"the best class differs on {counted(len(differing), 'picture')}, such as {differing[0]}")
        if lost:
            problems.append(f"{len(lost)} of {counted(compared, 'picture')} fail on the board, such as {lost[0]}")
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
    import numpy as np

    length = float(np.linalg.norm(got)) * float(np.linalg.norm(wanted))
    if length == 0.0 or not np.isfinite(length):
        return 1.0 if np.array_equal(got, wanted) else 0.0
    return float(np.dot(got, wanted)) / length


def figures_of(agreement: Agreement, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a board's answers come to, in the words of :class:`Outcome`'s figures; ``results``: those compared."""
    return {
        "pictures": agreement.pictures,
        "accuracy": agreement.accuracy,
        "labelled": agreement.labelled,
        "agreement": agreement.agreed,
        "difference": agreement.difference,
        "cosine": agreement.cosine,
        "answers": len(results),
        "failed": list(agreement.failed),
        **latency(results),
    }


def latency(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Percentiles of the execution time of a picture, in milliseconds: ``p50_ms`` and ``p99_ms``, of ``timed``
    pictures.

    By nearest rank, as in the board's own summary: each is a time that was measured. With fewer than 100 pictures
    ``p99_ms`` is the slowest one."""
    times = sorted(item["ms"]["execute"] for item in results if "execute" in item.get("ms", ()))
    if not times:
        return {}
    return {f"p{percent}_ms": round(_nearest(times, percent), 3) for percent in (50, 99)} | {"timed": len(times)}


def _nearest(ordered: Sequence[float], percent: int) -> float:
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
