"""Limits of a gate that no figure can ever meet, or none can miss, are mistakes: refused with the setting's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from toolkit.config.store import load, register_resolvers
from toolkit.errors import ConfigError
from toolkit.paths import CONF

BAD = {
    "min_agreement": ("98", "98 is not in 0 … 1"),
    "min_accuracy": ("-0.1", "-0.1 is not in 0 … 1"),
    "max_accuracy_drop": ("1.5", "1.5 is not in 0 … 1"),
    "min_cosine": ("-2", "-2 is not in -1 … 1"),
    "max_difference": ("-0.5", "-0.5 is too small: at least 0"),
    "max_p99_ms": ("nan", "nan is too small: at least 0"),
    "max_p99_growth": ("-1", "-1 is too small: at least 0"),
    "max_memory_mb": ("-1", "-1 is too small: at least 0"),
    "max_memory_growth": ("-1", "-1 is too small: at least 0"),
    "max_temperature": ("-1", "-1 is too small: at least 0"),
    "max_new_errors": ("-1", "-1 is too small: at least 0"),
}
GOOD = {**dict.fromkeys(BAD, "0"), "min_agreement": "1", "min_cosine": "-1", "max_accuracy_drop": "1"}


@pytest.mark.parametrize("key", ["verify", "rollout.gate"])
def test_limits_are_in_their_ranges(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        bad = compose("deploy", ["app=digits", *(f"{key}.{name}={value}" for name, (value, _) in BAD.items())])
        good = compose("deploy", ["app=digits", *(f"{key}.{name}={value}" for name, value in GOOD.items())])
    load(good)
    with pytest.raises(ConfigError) as refused:
        load(bad)
    assert set(refused.value.problems) == {f"{key}.{name}: {text}" for name, (_, text) in BAD.items()}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("board.soc_version=", "board.soc_version: it is empty: ATC converts for this chip; such as Ascend310"),
        ("board.memory_mb=0", "board.memory_mb: 0 is too small: at least 1"),
        ("board.chips=-1", "board.chips: -1 is too small: at least 0"),
    ],
)
def test_a_board_without_a_chip_s_figures(
    override: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        bad = compose("deploy", ["+board=sim", override])
        load(compose("deploy", ["+board=host"]))  # no board: it converts for boards
    with pytest.raises(ConfigError) as refused:
        load(bad)
    assert problem in refused.value.problems
