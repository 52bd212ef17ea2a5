"""When a board's answers agree with the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.errors import InputError
from toolkit.fleet.agreement import compare, latency, read_results

REFERENCE = [
    {"picture": "a.png", "label": 1, "logits": [0.0, 4.0, 1.0]},
    {"picture": "b.png", "label": 0, "logits": [2.0, 1.99, 0.0]},
    {"picture": "c.png", "label": None, "logits": [0.0, 0.0, 9.0]},
]


def answers(**changes: Any) -> list[dict[str, Any]]:
    same = {entry["picture"]: {"picture": entry["picture"], "logits": entry["logits"]} for entry in REFERENCE}
    for name, value in changes.items():
        key = f"{name}.png"
        if value is None:
            del same[key]
        else:
            same[key] = {"picture": key, **value}
    return list(same.values())


def test_equal_answers_agree() -> None:
    found = compare(answers(), REFERENCE, 0.01)
    assert (found.difference, found.agreed, found.accuracy, found.labelled) == (0.0, 1.0, 1.0, 2)
    assert found.problems == ()


def test_the_difference_is_relative_to_the_largest_logit() -> None:
    found = compare(answers(c={"logits": [0.0, 0.0, 8.1]}), REFERENCE, 0.2)
    assert found.difference == pytest.approx(0.1)
    assert found.worst == "c.png"
    assert (
        "more than verify.max_difference=0.05"
        in compare(answers(c={"logits": [0.0, 0.0, 8.1]}), REFERENCE, 0.05).problems[0]
    )


def test_another_class_on_a_tie_is_forgiven_and_otherwise_not() -> None:
    tie = compare(answers(b={"logits": [1.98, 2.0, 0.0]}), REFERENCE, 0.05)
    assert tie.problems == ()
    assert tie.accuracy == 0.5, "the accuracy is what the board really said"
    wrong = compare(answers(a={"logits": [5.0, 4.0, 1.0]}), REFERENCE, 0.3)
    assert wrong.disagreeing == ("a.png",)


def test_limits_can_be_taken_away() -> None:
    wrong = answers(a={"logits": [9.0, 4.0, 1.0]})
    assert len(compare(wrong, REFERENCE, 0.1).problems) == 2
    assert compare(wrong, REFERENCE, None, None).problems == ()
    assert compare(wrong, REFERENCE, None).problems == ("the best class differs on 1 picture, such as a.png",)


def test_missing_failed_and_infinite_answers() -> None:
    assert compare(answers(a=None), REFERENCE, 0.1).missing == ("a.png",)
    failed = compare(answers(a={"error": "scores are not finite"}), REFERENCE, 0.1)
    assert failed.failed == failed.disagreeing == ("a.png",)
    assert failed.problems == ("1 of 3 pictures fail on the board, such as a.png: scores are not finite",)
    assert failed.agreed == pytest.approx(2 / 3)
    assert compare(answers(a={"error": "no"}), REFERENCE, 0.1, min_agreement=0.6).problems == ()
    # What could not be read here either is nobody's disagreement.
    unread = [{"picture": "a.png", "label": 1}, *REFERENCE[1:]]
    nowhere = compare(answers(a={"error": "not a picture"}), unread, 0.1)
    assert (nowhere.failed, nowhere.disagreeing, nowhere.problems) == (("a.png",), (), ())
    infinite = compare(answers(a={"logits": [float("nan")] * 3}), REFERENCE, 0.1)
    assert infinite.disagreeing == ("a.png",)
    assert infinite.problems
    assert compare(answers(a={"logits": [1.0]}), REFERENCE, 0.1).problems, "another number of classes"


def test_without_a_reference_there_is_nothing_to_disagree_with() -> None:
    found = compare(answers(), [{"picture": "a.png", "label": 1}], 0.1)
    assert (found.difference, found.agreed, found.accuracy) == (None, None, 1.0)
    assert found.problems == ()


@given(
    hnp.arrays(np.float64, (4, 5), elements=st.floats(-50, 50)),
    hnp.arrays(np.float64, (4, 5), elements=st.floats(-1, 1)),
)
def test_noise_within_the_tolerance_never_fails(wanted: np.ndarray, noise: np.ndarray) -> None:
    tolerance = 0.01
    reference = [{"picture": str(i), "label": None, "logits": row.tolist()} for i, row in enumerate(wanted)]
    scale = np.maximum(1, np.abs(wanted).max(axis=1, keepdims=True))
    got = wanted + noise * scale * tolerance * 0.99
    results = [{"picture": str(i), "logits": row.tolist()} for i, row in enumerate(got)]
    assert compare(results, reference, tolerance).problems == ()


GOOD = {"picture": "a.png", "label": 1, "class": "one", "confidence": 0.9, "top": [[1, 0.9]], "logits": [0.0, 1.0]}


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        '{"picture": 3}',
        "{",
        '{"no": "picture"}',
        '{"picture": "a.png"}',
        *(
            json.dumps({**GOOD, **change})
            for change in (
                {"picture": "\x1b[2Ja.png"},
                {"logits": ["a"]},
                {"logits": 5},
                {"top": 5},
                {"top": [[1]]},
                {"confidence": "high"},
                {"label": None},
                {"ms": {"execute": float("nan")}},
                {"ms": {"execute": -1}},
                {"ms": {"execute": True}},
                {"ms": [1]},
            )
        ),
        '{"picture": "a.png", "logits": ' + "[" * 100_000,
    ],
    ids=lambda line: line[:60],
)
def test_results_from_a_board_are_not_trusted(line: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(InputError, match="not a board's results"):
        read_results(path)


def test_texts_from_a_board_are_made_plain(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    told = {**GOOD, "class": "\x1b]0;owned\x07\x1b[2Jone", "ms": {"execute": 1}}
    failed = {"picture": "b.png", "error": "\x1b[31mno"}
    path.write_text(f"{json.dumps(told)}\n{json.dumps(failed)}\n")
    assert [item.get("class", item.get("error")) for item in read_results(path)] == ["one", "no"]


def test_percentiles() -> None:
    found = latency([{"ms": {"execute": float(value)}} for value in range(100, 0, -1)])
    assert found == {"p50_ms": 50, "p99_ms": 99, "timed": 100}
    assert latency([{"ms": {"execute": 3.0}}, {"ms": {"execute": 1.0}}]) == {
        "p50_ms": 1.0,
        "p99_ms": 3.0,
        "timed": 2,
    }
    assert latency([]) == {}
