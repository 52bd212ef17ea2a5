"""Boards of an inventory with settings typed beside it; what is wrong with a fleet's settings, all at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig

from stages._fleet import _grouped
from stages._invocation import Flags, Invocation
from tests.commands.conftest import BOARDS, Fleet
from tests.e2e.conftest import Deploy
from toolkit import paths
from toolkit.config.store import load, register_resolvers
from toolkit.inventory import Board
from toolkit.ui.console import renderer


def inventory(home: Path, **boards: dict[str, object]) -> str:
    """Write an inventory, a line for each board; its path."""
    lines = [f"  {name}: {json.dumps(entry)}\n" for name, entry in boards.items()]
    (home / "fleet.yaml").write_text("defaults: {profile: 200dk}\nboards:\n" + "".join(lines))
    return f"inventory={home / 'fleet.yaml'}"


@pytest.mark.e2e
def test_what_is_typed_wins_over_profile_and_inventory(fleet: Fleet) -> None:
    """The boards have their releases below the profile's root, and nothing below another one."""
    chosen = fleet.inventory({"sim-1": {"board.root": "~/HIAI_PROJECTS"}})
    usual = fleet.ask("status", chosen, "simulate=true", "app=digits")
    assert {board["release"] for board in usual.values()} != {""}
    other = fleet.ask("status", chosen, "simulate=true", "app=digits", "board.root=~/OTHER")
    assert {name: board["release"] for name, board in other.items()} == dict.fromkeys(BOARDS, "")


@pytest.mark.parametrize("chosen", [["hosts=b"], ["hosts=b", "+board=300i_pro"]])
def test_the_way_to_one_board_of_an_inventory_can_be_typed(deploy: Deploy, tmp_path: Path, chosen: list[str]) -> None:
    """It replaces the entry's own; a default profile beside it takes nothing from boards that name theirs."""
    given = inventory(tmp_path, a={"host": "192.0.2.1"}, b={"host": "192.0.2.2", "port": 22, "user": "anna"})
    done = deploy("status", given, *chosen, "board.host=127.0.0.1", "board.port=1", "board.user=otto")
    assert done.code == 5, done.out + done.err
    assert "nothing listens on 127.0.0.1:1" in done.out


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("board.host=127.0.0.1", "2 boards are selected, and each has its own"),
        ("board.port=1", "2 boards are selected, and each has its own"),
        ("board.profile=200dk", "an inventory says which boards there are"),
        ("board.count=2", "an inventory says which boards there are"),
        ("board.rot=/x", "there is no such setting; did you mean board.root?"),
    ],
)
def test_what_makes_no_sense_for_a_fleet(deploy: Deploy, tmp_path: Path, typed: str, why: str) -> None:
    given = inventory(tmp_path, a={"host": "127.0.0.1", "port": 1}, b={"host": "127.0.0.1", "port": 2})
    done = deploy("status", given, typed)
    assert done.code == 2, done.out + done.err
    (error,) = done.of("error")
    assert error["text"].startswith(typed.split("=")[0])
    assert why in error["text"]


def test_a_board_setting_without_a_board(deploy: Deploy) -> None:
    done = deploy("status", "board.root=/x")
    assert done.code == 2
    assert done.of("error")[0]["text"] == "board.root=/x: no board is chosen"


def test_values_that_do_not_fit_are_listed_for_all_boards(deploy: Deploy, tmp_path: Path) -> None:
    given = inventory(
        tmp_path,
        a={"overrides": {"infer.top_k": -1}},
        b={"overrides": {"infer.top_k": 0, "infer.warmup": -1}},
        c={"overrides": {"infer.top_k": 0, "infer.warmup": -1}},
    )
    done = deploy("status", given, "simulate=true")
    assert done.code == 2, done.out + done.err
    (error,) = done.of("error")
    assert error["problems"] == [
        f"{tmp_path}/fleet.yaml:3: a: infer.top_k: -1 is too small: at least 1",
        f"{tmp_path}/fleet.yaml:4: b and 1 more: infer.top_k: 0 is too small: at least 1",
        f"{tmp_path}/fleet.yaml:4: b and 1 more: infer.warmup: -1 is too small: at least 0",
    ]


def test_two_boards_at_their_profiles_address(deploy: Deploy, tmp_path: Path) -> None:
    """No packet is sent: it is refused before."""
    done = deploy("status", inventory(tmp_path, a={}, b={}))
    assert done.code == 2
    assert "fleet.yaml:4: b has the address of a (line 3): 192.168.1.2:22" in done.of("error")[0]["text"]


def test_boards_of_a_kind_are_composed_once() -> None:
    """Composing takes some 0.3 s: in a fleet whose boards all have settings of their own that counts."""
    register_resolvers()
    calls: list[list[str]] = []

    def compose(extra: Sequence[str]) -> DictConfig:
        calls.append(list(extra))
        return hydra.compose("deploy", [*extra])

    with hydra.initialize_config_dir(str(paths.CONF), version_base="1.3"):
        composed = hydra.compose("deploy")
        shown = renderer(as_json=True, quiet=True, debug=False)
        call = Invocation("plan", composed, load(composed), [], Flags(), shown, compose)
        boards = [
            Board(f"b{number}", profile, overrides={"board.root": f"/r{number}"})
            for number, profile in enumerate(["200dk", "200dk", "300i_pro", "200dk"])
        ]
        targets = _grouped(call, boards)
    assert sorted(calls) == [["+board=200dk"], ["+board=300i_pro"]]
    assert {target.boards[0].name: target.profile.root for target in targets} == {f"b{n}": f"/r{n}" for n in range(4)}
