"""What the front end does to ``hosts=`` before Hydra sees it; each verb's help."""

from __future__ import annotations

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages import _registry
from stages.__main__ import _flags_first, _quoted, _told, _with_plus, run
from tests.e2e.conftest import Deploy
from toolkit import paths


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


def test_apply_is_explained_where_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["apply", "--help"]) == 0
    assert "plan=FILE" in (own := capsys.readouterr().out)
    assert "exit codes" not in own
    for line in (["--help"], ["inventory=apply", "--help"]):
        assert run(line) == 0
        assert "exit codes" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("status out=x", "out=x: deploy status does not take it, deploy plan and deploy init do"),
        ("+board=sim out=x", "out=x: deploy apply does not take it, deploy plan and deploy init do"),
        ("status plan=x", "plan=x: deploy status does not take it, deploy apply does"),
        ("train plan=x", "plan=x: deploy train does not take it, deploy apply does"),
        ("status release=1a", "release=1a: deploy status does not take it, deploy rollback does"),
        ("apply replace=true", "replace=true: deploy apply does not take it, deploy trust does"),
        ("bench run=x", "run=x: deploy bench does not take it, deploy report does"),
        ("plan --until-done", "--until-done: deploy plan does not take it, deploy apply does"),
        ("apply --detailed-exitcode", "--detailed-exitcode: deploy apply does not take it, deploy plan does"),
        ("rollback --receipts", "--receipts: deploy rollback does not take it, deploy verify does"),
        ("verify --attach", "--attach: deploy verify does not take it, deploy apply and stages that build do"),
        ("plan +board=sim --yess", "--yess: there is no such flag; did you mean --yes?"),
        ("plan +board=sim --config-dri x", "--config-dri: there is no such flag; did you mean --config-dir?"),
        ("--cfg jobs", "--cfg: job | hydra | all"),
        ("+board=sim --config-dir", "--config-dir: a value is missing"),
    ],
)
def test_what_a_verb_does_not_take_is_refused(deploy: Deploy, typed: str, text: str) -> None:
    done = deploy(*typed.split())
    assert (done.code, [event["text"] for event in done.events]) == (2, [text])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("+board=sim --cfg job x=1 -p train", "--cfg job -p train +board=sim x=1"),
        ("train --cfg=job a=1", "--cfg job train a=1"),
        ("a=1,2 -m train", "-m a=1,2 train"),
        ("--info +board=sim", "--info all +board=sim"),
        ("--info defaults +board=sim", "--info defaults +board=sim"),
        ("x=-1", "x=-1"),
    ],
)
def test_hydras_flags_may_stand_anywhere(typed: str, meant: str) -> None:
    assert _flags_first(typed.split()) == meant.split()


def test_version(deploy: Deploy) -> None:
    number = re.search('^version = "(.+)"', (paths.CONF.parent / "pyproject.toml").read_text(), re.MULTILINE)
    assert number is not None
    done = deploy("--version", json_lines=False)
    assert (done.code, done.out) == (0, f"ascend-deploy {number[1]}\n")


def test_sim_means_simulated_boards(deploy: Deploy) -> None:
    """Its help's words, without simulate=true: more than one board, and a real one's address."""
    for chosen in (("+board=200i_dk_a2", "board.count=3"), ("inventory=factory",)):
        assert deploy("sim", "run", *chosen, "--", "true", json_lines=False).code == 0


def test_a_disk_that_is_full_is_no_defect() -> None:
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="No space") as caught:
        file.write(b"x")
    assert caught.value.filename is None, "as write() says it"
    told = _told(caught.value)
    assert told.exit_code == 2
    assert "No space left on device" in str(told)
