"""Planning is pure: facts and a wish give steps. The cases are data (``plans/*.json``): a new one needs no
Python."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import InputError, PlanError
from toolkit.fleet import plan as planning
from toolkit.fleet.plan import BoardFacts, BoardWish, BuildStep, Permits, Plan, decide, differences, effect
from toolkit.fleet.plan_text import text_of

CASES = sorted((Path(__file__).parent / "plans").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    found = decide(
        "board",
        BoardFacts.from_json(case["facts"]),
        BoardWish(**case["wish"]),
        Permits(**case.get("permits", {})),
    )
    shown: dict[str, Any] = {
        **vars(found),
        "steps": list(found.steps),
        "environment": list(found.environment),
    }
    assert {key: shown[key] for key in case["plan"]} == case["plan"]
    assert found.steps or found.cause or found.done, "a plan without steps says why"
    assert found.reason or found.done


def test_the_cases_are_found() -> None:
    assert len(CASES) >= 15


# -- laws

# How long it takes says something about the machine, and nothing about plans.
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.sampled_from([f"b-{number}" for number in range(30)])
IDS = st.sampled_from(["", "a" * 64, "b" * 64, "c" * 64])
SIZES = {"1" * 64: 10, "2" * 64: 5000, "3" * 64: 0}
FACTS = st.builds(
    BoardFacts,
    current=IDS,
    missing=st.dictionaries(st.sampled_from(sorted(SIZES)), st.integers(0, 6000)),
    broken=st.sampled_from([(), ("model.om",)]),
    environment=st.sampled_from(["same", "differs", "absent"]),
    block=st.lists(st.sampled_from(["export A=1", "export B=2"]), max_size=3).map(tuple),
    run_key=st.sampled_from(["", "old", "key"]),
    lock=st.sampled_from(["", "somebody@there"]),
    foreign=st.sampled_from(["", "current was not made by this program"]),
    pending=IDS,
    disk_free=st.sampled_from([None, 0, 1 << 30]),
)
ANY = st.one_of(FACTS, st.builds(BoardFacts, unreachable=st.just("refused"), message=st.just("b: refused")))
WISH = BoardWish("b" * 64, SIZES, "export A=1\n", "key")
PERMITS = st.builds(Permits, st.booleans(), st.booleans())


@QUIET
@given(FACTS, PERMITS)
def test_what_was_planned_and_done_leaves_nothing_to_plan(facts: BoardFacts, permits: Permits) -> None:
    first = decide("board", facts, WISH, permits)
    if first.cause:
        assert not first.steps
        assert effect(first, facts, WISH) == facts, "a refused board keeps all it has"
        return
    after = decide("board", effect(first, facts, WISH), WISH, permits)
    assert after.done, after
    assert (after.files, after.bytes, after.environment) == (0, 0, ())


@QUIET
@given(FACTS, PERMITS)
def test_refused_until_told(facts: BoardFacts, permits: Permits) -> None:
    found = decide("board", facts, WISH, permits)
    if found.steps:
        assert not facts.foreign or facts.current or permits.take_over
        assert not facts.lock or permits.break_lock
        assert (planning.SWITCH in found.steps) == (facts.current != WISH.release or bool(facts.pending))
        assert planning.VERIFY in found.steps or planning.SWITCH not in found.steps, (
            "no switch without a proof"
        )


def plan_of(facts: dict[str, BoardFacts], order: list[str], steps: tuple[BuildStep, ...] = ()) -> Plan:
    return Plan({"rollout.seed": 0}, steps, tuple(decide(name, facts[name], WISH) for name in order))


@QUIET
@given(st.dictionaries(NAMES, ANY, max_size=12), st.randoms(use_true_random=False))
def test_the_boards_order_does_not_matter(facts: dict[str, BoardFacts], chance: random.Random) -> None:
    order = list(facts)
    first = plan_of(facts, order)
    chance.shuffle(order)
    second = plan_of(facts, order)
    assert first.digest == second.digest
    assert text_of(first) == text_of(second)
    assert differences(first, second) == []


@QUIET
@given(st.dictionaries(NAMES, ANY, max_size=8))
def test_a_plan_file_is_the_plan(facts: dict[str, BoardFacts]) -> None:
    steps = (BuildStep("train", "t", "f" * 64, "1" * 64, "", ("never made here",)),)
    plan = plan_of(facts, list(facts), steps)
    text = planning.to_text(plan, ["+board=sim", "train.epochs=3"])
    again, overrides = planning.from_text(text, "x.plan")
    assert again == plan
    assert again.digest == plan.digest
    assert overrides == ["+board=sim", "train.epochs=3"]


@QUIET
@given(st.dictionaries(NAMES, FACTS, min_size=1, max_size=8), st.data())
def test_carrying_a_plan_out_is_no_change_of_it(facts: dict[str, BoardFacts], data: st.DataObject) -> None:
    """A run that was cut short can be repeated with the same plan."""
    plan = plan_of(facts, list(facts))
    done = data.draw(st.sets(st.sampled_from(sorted(facts))))
    now = {
        name: effect(plan.of(name), known, WISH) if name in done else known  # type: ignore[arg-type]
        for name, known in facts.items()
    }
    assert differences(plan, plan_of(now, list(now))) == []


# -- what changed


def test_everything_that_changed_is_named() -> None:
    same = BoardFacts(current="a" * 64, environment="same", run_key="old")
    facts = {f"b-{number}": same for number in range(4)}
    train = BuildStep("train", "200dk", "1" * 64, "2" * 64, "3" * 64)
    package = BuildStep("package", "200dk", "4" * 64, "", "", ("train runs",))
    before = plan_of(facts, list(facts), (train, package))
    facts["b-0"] = replace(same, current="c" * 64)
    facts["b-1"] = replace(same, lock="eve@desk")
    facts["b-2"] = BoardFacts(unreachable="refused", message="b-2: refused")
    now = Plan(
        {"rollout.seed": 1},
        (
            replace(train, fixes="5" * 64, artefact="", reasons=("train.epochs: 12 → 3",)),
            replace(package, fixes="6" * 64),
        ),
        plan_of(facts, ["b-0", "b-1", "b-2"]).boards,
    )
    assert differences(before, now) == [
        "rollout.seed: 0 → 1",
        "train: train.epochs: 12 → 3",
        f"b-0: runs {'c' * 12}, ran {'a' * 12} when planned",
        "b-1: eve@desk is deploying to it",
        "b-3: no longer selected",
    ]
    gone = replace(before, steps=(replace(train, artefact=""), package))
    assert differences(before, gone) == [f"train: the artefact {'3' * 12} is gone"]


@pytest.mark.parametrize(
    "change", [("replaces", "d" * 64), ("steps", ["install"]), ("bytes", 1), ("environment", ["+ evil"])]
)
def test_an_edited_file_is_refused(change: tuple[str, Any]) -> None:
    content = json.loads(planning.to_text(plan_of({"b": BoardFacts()}, ["b"]), []))
    content["boards"][0][change[0]] = change[1]
    with pytest.raises(PlanError, match="it was edited"):
        planning.from_text(json.dumps(content), "x.plan")


WHOLE = planning.to_text(plan_of({"b": BoardFacts()}, ["b"]), [])


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"format": 99}', '{"format": 1}', "null", "[" * 100_000),
        *(WHOLE[: len(WHOLE) * part // 10] for part in range(1, 10)),
        *(
            json.dumps({**json.loads(WHOLE), key: value})
            for key in ("settings", "steps", "boards", "waves")
            for value in (1, [1], "x", {"a": 1}, [{"a": 1}], None)
            if (key, value) not in (("settings", {"a": 1}), ("waves", "x"), ("waves", {"a": 1}), ("waves", [{"a": 1}]))
        ),
    ],
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a plan") as caught:
        planning.from_text(text, "x.plan")
    assert len(str(caught.value).splitlines()) == 1


def test_a_mixed_fleet_says_which_of_its_targets_a_stage_is_for() -> None:
    """In the pipeline's order whatever the targets are called, and one that only some have where it belongs."""
    stages = {"b": ["train", "convert", "package"], "a": ["train", "quantise", "convert", "package"], "c": ["train"]}
    steps = [
        BuildStep(stage, target, f"{stage}-{target if stage != 'train' else ''}", reasons=(f"of {target}",))
        for target, names in stages.items()
        for stage in names
    ]
    texts = {
        "\n".join(text_of(Plan({}, tuple(given), ())).splitlines()[:7])
        for given in (steps, sorted(steps, key=lambda step: step.target), steps[3:7] + steps[7:] + steps[:3])
    }
    assert texts == {
        "+ train     would run: of a\n"
        "+ quantise  would run: of a\n"
        "+ convert   would run (a): of a\n"
        "+ convert   would run (b): of b\n"
        "+ package   would run (a): of a\n"
        "+ package   would run (b): of b\n"
        "6 of 6 stages would run"
    }


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, "nothing would change"),
        ({"run_key": "old"}, "no board would change; inference would run again on 1"),
        ({"unreachable": "refused"}, "the board is left out"),
        ({"lock": "somebody", "current": "a" * 64}, "the board is left out"),
    ],
)
def test_what_is_said_where_nothing_changes(facts: dict[str, Any], says: str) -> None:
    good = BoardFacts(current=WISH.release, environment="same", run_key=WISH.run_key)
    board = replace(good, **facts)
    assert says in text_of(plan_of({"b": board}, ["b"])).splitlines()
    if "out" in says:
        boards = {"b": board, "c": good}
        assert "1 board is left out; else nothing would change" in text_of(plan_of(boards, list(boards))).splitlines()
        boards["d"] = board
        assert "2 boards are left out; else nothing would change" in text_of(plan_of(boards, list(boards)))
        del boards["c"]
        assert "all 2 boards are left out" in text_of(plan_of(boards, list(boards))).splitlines()


def test_a_thousand_boards_are_shown_as_what_differs() -> None:
    facts = {f"b-{number}": BoardFacts(current="a" * 64, environment="same") for number in range(1000)}
    facts["b-7"] = BoardFacts(current="c" * 64, environment="differs", block=("export A=0",))
    facts |= {
        f"off-{number}": BoardFacts(unreachable="refused", message=f"off-{number}: refused")
        for number in range(30)
    }
    text = text_of(plan_of(facts, list(facts)))
    assert "~ 999 boards: b-0, b-1, b-2, b-3, … b-999: it runs aaaaaaaaaaaa" in text
    assert "✗ 30 boards: off-0, off-1, off-2, off-3, … off-29: refused" in text
    assert "      - export A=0\n      + export A=1" in text
    assert len(text.splitlines()) < 20
