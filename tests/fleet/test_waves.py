"""Who comes when: nobody twice, nobody never, and what the labels ask for."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.config.schema import RolloutSettings
from toolkit.errors import ConfigError
from toolkit.fleet.waves import amount, waves
from toolkit.ui.words import natural

# How long it takes says something about the machine, and nothing about waves.
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SIZES = st.one_of(st.integers(1, 20), st.integers(1, 100).map("{}%".format))
LABELS = st.dictionaries(st.sampled_from(["site", "ring", "canary"]), st.sampled_from("abc"))
NAMES = st.sampled_from(
    [f"{kind}-{number}" for kind in ("a", "b", "gate-") for number in (*range(20), "07", 300)]
)
FLEETS = st.dictionaries(NAMES, LABELS, max_size=40)
SETTINGS = st.builds(
    RolloutSettings,
    waves=st.lists(SIZES, max_size=4),
    by=st.sampled_from([None, "site"]),
    apart=st.sampled_from([None, "ring"]),
    first=st.sampled_from([None, "canary"]),
    order=st.sampled_from(["fixed", "shuffled"]),
    seed=st.integers(0, 9),
)


def some_have(boards: dict[str, dict[str, str]], wanted: RolloutSettings) -> bool:
    named = [label for label in (wanted.by, wanted.apart, wanted.first) if label]
    return not boards or all(any(label in labels for labels in boards.values()) for label in named)


@QUIET
@given(FLEETS, SETTINGS, st.randoms(use_true_random=False))
def test_a_partition_that_keeps_the_rules(
    boards: dict[str, dict[str, str]], wanted: RolloutSettings, chance: random.Random
) -> None:
    if not some_have(boards, wanted):
        with pytest.raises(ConfigError, match="no board has the label"):
            waves(boards, wanted)
        return
    found = waves(boards, wanted)
    assert Counter(name for wave in found for name in wave) == Counter(list(boards))
    assert all(found)
    for wave in found:
        if wanted.by:
            assert len({boards[name].get("site") for name in wave}) == 1
        if wanted.apart:
            rings = [boards[name]["ring"] for name in wave if "ring" in boards[name]]
            assert len(set(rings)) == len(rings)
    shuffled = list(boards)
    chance.shuffle(shuffled)
    assert waves({name: boards[name] for name in shuffled}, wanted) == found


@QUIET
@given(FLEETS, st.lists(SIZES, min_size=1, max_size=4))
def test_sizes(boards: dict[str, dict[str, str]], sizes: list[int | str]) -> None:
    found = waves(boards, RolloutSettings(waves=sizes))
    wanted = [max(1, amount(size, len(boards), up=True)) for size in sizes]
    for number, wave in enumerate(found[:-1]):
        assert len(wave) == wanted[min(number, len(wanted) - 1)]
    if found:
        assert 1 <= len(found[-1]) <= wanted[min(len(found), len(wanted)) - 1]


@QUIET
@given(FLEETS)
def test_a_site_is_finished_before_the_next_begins(boards: dict[str, dict[str, str]]) -> None:
    if not any("site" in labels for labels in boards.values()):
        return
    found = waves(boards, RolloutSettings(by="site", waves=[1]))
    order = [boards[wave[0]].get("site") for wave in found]
    assert len([a for a, b in pairwise(order) if a != b]) == len(set(order)) - 1
    if None in order:
        assert order[-1] is None, "boards without a site come last"


def test_canary_of_48() -> None:
    boards: dict[str, dict[str, str]] = {f"b-{number}": {} for number in range(48)}
    found = waves(boards, RolloutSettings(waves=[1, "10%", "100%"]))
    assert [len(wave) for wave in found] == [1, 5, 42]
    assert found[0] == ["b-0"]
    boards["b-17"] = {"canary": ""}
    assert waves(boards, RolloutSettings(waves=[1, "100%"], first="canary"))[0] == ["b-17"]


def test_one_ring_for_all_is_one_board_at_a_time_and_takes_no_time() -> None:
    boards = {f"b-{number}": {"ring": "r"} for number in range(5_000)}
    found = waves(boards, RolloutSettings(apart="ring"))
    assert [len(wave) for wave in found] == [1] * 5_000
    assert [wave[0] for wave in found] == sorted(boards, key=natural)


def test_seeds_shuffle() -> None:
    boards: dict[str, dict[str, str]] = {f"b-{number}": {} for number in range(30)}
    orders = {tuple(waves(boards, RolloutSettings(order="shuffled", seed=seed))[0]) for seed in range(20)}
    assert len(orders) == 20


@pytest.mark.parametrize(
    ("value", "whole", "down", "up"),
    [
        (3, 10, 3, 3),
        ("3", 10, 3, 3),
        ("10%", 48, 4, 5),
        ("29%", 100, 29, 29),
        ("0%", 9, 0, 0),
        ("100%", 7, 7, 7),
    ],
)
def test_amounts(value: int | str, whole: int, down: int, up: int) -> None:
    assert (amount(value, whole, up=False), amount(value, whole, up=True)) == (down, up)
