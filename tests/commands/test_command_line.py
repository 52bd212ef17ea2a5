"""What the front end does to ``hosts=`` before Hydra sees it; each verb's help."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages import _registry
from stages.__main__ import _quoted, _with_plus


@pytest.mark.parametrize(
    "value", ["a,b", "!x", "site=x", "@gate,!cam-07", "cam-0*", "cam-[01]", "it's", "a\\", "\\'", "a b", "x:y", "1,2"]
)
def test_hydra_reads_one_text(value: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([_quoted(f"hosts={value}")])
    assert override.key_or_group == "hosts"
    assert not override.is_sweep_override()
    assert override.value() == value


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
@example("\\\\'\\")
@settings(max_examples=40, deadline=None)
def test_any_text(value: str) -> None:
    if value == "null" or (len(value) > 1 and value[0] == value[-1] and value[0] in "'\"") or "${" in value:
        return
    (override,) = OverridesParser.create().parse_overrides([_quoted(f"hosts={value}")])
    assert override.value() == value


@pytest.mark.parametrize("argument", ["hosts=", "hosts=null", "inventory=a", "+board=sim", "hosts", "xhosts=a,b"])
def test_everything_else_is_left_alone(argument: str) -> None:
    assert _quoted(argument) == argument


def test_quoted_by_the_user_already() -> None:
    assert _quoted("hosts='a,b'") == _quoted('hosts="a,b"') == _quoted("hosts=a,b") == "hosts='a,b'"


@pytest.mark.parametrize(
    "verb", ["status", "rollback", "verify", "logs", "doctor", "trust", "infer", "bench", "report", "init"]
)
def test_each_verb_helps(verb: str) -> None:
    module = _registry.verb(verb)
    assert module.HELP
    assert f"deploy {verb}" in (module.__doc__ or "")


def test_a_home_folder_is_a_text() -> None:
    """Neither bash nor Hydra expands ``~`` behind a ``=``, and Hydra refuses it."""
    (override,) = OverridesParser.create().parse_overrides([_quoted("data.root=~/cifar-10-batches-bin")])
    assert override.value() == "~/cifar-10-batches-bin"


@pytest.mark.parametrize(
    "value",
    ["data:1,3,224,224;other:1,2", "1,2,4,8", "224,224;448,448", "a b=c", "x:-1,3,32,32", "it's", "true", "1"],
)
def test_what_atc_takes_is_a_text_with_all_its_commas_and_semicolons(value: str) -> None:
    for typed in (value, f'"{value}"'):
        (override,) = OverridesParser.create().parse_overrides([_quoted(f"atc.input_shape={typed}")])
        assert override.value() == value


def test_lists_and_sweeps_of_atcs_flags_stay_what_they_are() -> None:
    (override,) = OverridesParser.create().parse_overrides([_quoted("atc.dynamic_batch_size=[1,2,4]")])
    assert override.value() == [1, 2, 4]
    assert _quoted("atc.precision_mode=a,b", many=True) == "atc.precision_mode=a,b"
    assert _quoted("atc.log=${oc.env:LEVEL}") == "atc.log=${oc.env:LEVEL}"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("board=200dk", "+board=200dk"),
        ("+board=200dk", "+board=200dk"),
        ("board=500", "+board=atlas500"),
        ("+board=500_a2", "+board=atlas500_a2"),
        ("board=200dk,500", "+board=200dk,atlas500"),
        ("release.sign=ssh-key", "sign=ssh-key"),
        ("release.sign.key=~/.ssh/id", "sign.key=~/.ssh/id"),
        ("release=abc", "release=abc"),
        ("board.host=a", "board.host=a"),
    ],
)
def test_what_people_type_becomes_what_hydra_takes(typed: str, meant: str) -> None:
    assert _with_plus(typed) == meant
