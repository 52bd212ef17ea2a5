"""What a release must show before it may stay."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.config.schema import GateSettings
from toolkit.fleet.gates import problems, together, without
from toolkit.fleet.health import parse_temperature

GOOD: dict[str, Any] = {
    "agreement": 1.0,
    "cosine": 0.9999,
    "accuracy": 0.95,
    "difference": 0.001,
    "p99_ms": 10.0,
    "memory_mb": 200.0,
    "temperature": 50.0,
    "failed": [],
    "labelled": 20,
    "pictures": 20,
}


@pytest.mark.parametrize(
    ("limit", "value", "figure", "bad"),
    [
        ("min_agreement", 0.9, "agreement", 0.89),
        ("min_cosine", 0.99, "cosine", 0.98),
        ("min_accuracy", 0.9, "accuracy", 0.89),
        ("max_difference", 0.01, "difference", 0.02),
        ("max_p99_ms", 20, "p99_ms", 21.0),
        ("max_memory_mb", 300, "memory_mb", 301.0),
        ("max_temperature", 80, "temperature", 81.0),
        ("max_accuracy_drop", 0.01, "accuracy", 0.93),
        ("max_p99_growth", 0.2, "p99_ms", 12.1),
        ("max_memory_growth", 0.5, "memory_mb", 301.0),
        ("max_new_errors", 0, "failed", ["a.png"]),
    ],
)
def test_each_limit(limit: str, value: float, figure: str, bad: Any) -> None:
    limits = GateSettings(**{limit: value})
    assert problems(GOOD, GOOD, limits) == []
    (problem,) = problems({**GOOD, figure: bad}, GOOD, limits)
    assert f"verify.{limit}={value:g}" in problem
    assert problems({**GOOD, figure: bad}, GOOD, GateSettings()) == [], "no limit, no problem"
    assert problems({**GOOD, figure: bad}, GOOD, without(limits, limit)) == []


def test_of_few_pictures_the_slowest_is_meant_and_said() -> None:
    limits = GateSettings(max_p99_ms=20)
    few = together([{**GOOD, "p99_ms": 30.0, "timed": count} for count in (20, 400)])
    assert problems(few, {}, limits) == [
        "p99_ms (the slowest of 20 pictures) is 30 ms, more than verify.max_p99_ms=20"
    ]
    assert problems({**few, "timed": 100}, {}, limits) == ["p99_ms is 30 ms, more than verify.max_p99_ms=20"]


def test_relative_limits_need_something_to_compare_with() -> None:
    limits = GateSettings(max_accuracy_drop=0, max_p99_growth=0, max_memory_growth=0)
    assert problems({**GOOD, "accuracy": 0.1, "p99_ms": 99.0}, {}, limits) == []
    assert problems(GOOD, GOOD, limits) == [], "as good as before is good enough"


def test_an_error_that_was_there_before_is_none_of_ours() -> None:
    limits = GateSettings(max_new_errors=0)
    before = {**GOOD, "failed": ["a.png"]}
    assert problems(before, before, limits) == []
    assert "such as b.png" in problems({**GOOD, "failed": ["a.png", "b.png"]}, before, limits)[0]


def test_an_accuracy_that_nobody_can_measure_is_no_accuracy() -> None:
    found = problems({**GOOD, "accuracy": None}, GOOD, GateSettings(min_accuracy=0.5))
    assert "no picture has a label" in found[0]


def test_a_wave_together() -> None:
    second = {**GOOD, "accuracy": 0.5, "labelled": 60, "cosine": 0.9, "p99_ms": 30.0, "difference": 0.1}
    third = {**GOOD, "p99_ms": 11.0, "temperature": None, "failed": ["x.png"]}
    found = together([GOOD, second, third])
    assert found["accuracy"] == pytest.approx((0.95 * 20 + 0.5 * 60 + 0.95 * 20) / 100)
    assert (found["cosine"], found["difference"], found["p99_ms"]) == (0.9, 0.1, 11.0)
    assert (found["temperature"], found["failed"]) == (50.0, ["x.png"])
    assert together([]) == {}


def test_temperature_of_two_drivers() -> None:
    one = "\tTemperature (C)                : 45\n"
    card = "    NPU ID : 0\n    Chip Count : 2\n\n    NPU Temperature (C) : 51\n    Chip ID : 0\n\n"
    assert parse_temperature(one) == 45
    assert parse_temperature(card + card.replace("51", "63")) == 63
    assert parse_temperature("This device does not support querying temp.\n") is None
