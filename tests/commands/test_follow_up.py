"""Commands that the program prints to go on with run as they are printed, and mean the same boards."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from stages._invocation import Flags, Invocation, again, command_for, selection
from tests.commands.conftest import Fleet, Live
from toolkit.config.schema import BoardSettings, Config
from toolkit.sim import SimBoard
from toolkit.ui.console import renderer


def commands_in(text: str) -> list[list[str]]:
    """What stands behind ``deploy`` in a text, up to the end of the line or a semicolon."""
    return [shlex.split(found) for found in re.findall(r"deploy ((?:trust|rollback|status|doctor|plan) [^;\n]+)", text)]


def invocation(*typed: str, inventory: str | None = None) -> Invocation:
    config = Config(board=None if inventory else BoardSettings(profile="200dk"), inventory=inventory)
    shown = renderer(as_json=True, quiet=False, debug=False)
    compose: Any = None
    return Invocation("apply", compose, config, typed, Flags(), shown, compose)


def test_what_selects_is_repeated_and_nothing_else() -> None:
    typed = ("+board=200dk", "board.port=2222", "train.epochs=1", "app=digits", "ssh.config='~/my ssh'", "lock=x")
    assert selection(invocation(*typed)) == "+board=200dk board.port=2222 app=digits 'ssh.config=~/my ssh'"
    call = invocation("inventory=x", "hosts='@a,!b'", "simulate=true", "atc.log=info", inventory="x")
    assert command_for(call, "status") == "deploy status inventory=x 'hosts=@a,!b' simulate=true"
    assert command_for(call, "trust", ["c", "d"]) == "deploy trust inventory=x simulate=true hosts=c,d"
    assert again(invocation(*typed[:3], "plan=p", "out=o"), "plan", "out=p") == (
        "deploy plan +board=200dk board.port=2222 train.epochs=1 out=p"
    )


@pytest.mark.e2e
@pytest.mark.parametrize("client", ["fabric", "openssh"])
@pytest.mark.parametrize("typed", ["board", "inventory"])
def test_unknown_and_changed_host_keys(live: Callable[..., Live], typed: str, client: str) -> None:
    """Each command that a refusal prints, run as it is, makes the first one work; other boards stay strangers."""
    there = live(SimBoard("new-1"), SimBoard("new-2"))
    first, second = there.simulation.addresses
    chosen = {
        "board": [
            *("+board=200dk", f"board.host={first.host}", f"board.port={first.port}"),
            *(f"board.user={first.user}", f"board.key_file={first.key_file}"),
        ],
        "inventory": ["inventory=live", "hosts=new-*,!new-2"],
    }[typed]
    there.inventory()
    for number in range(2):
        status = there.deploy("status", *chosen, f"ssh.client={client}")
        assert status.code == 5, status.out + status.err
        (board,) = status.of("result")[0]["boards"]
        assert board["cause"] == ("host-key-unknown", "host-key-changed")[number], board
        (printed,) = commands_in(board["hint"])
        assert there.deploy(*printed, "--yes").code == 0
        assert there.deploy("status", *chosen, f"ssh.client={client}").code == 0
        known = there.known_hosts.read_text()
        assert f":{second.port} " not in known
        # Set up anew, at the same address.
        there.known_hosts.write_text(known.replace(first.host_key.split()[1], second.host_key.split()[1]))


@pytest.mark.e2e
def test_a_plan_that_no_longer_holds(own_fleet: Fleet) -> None:
    """The command that makes it again has all the settings that the first one was made with."""
    chosen = [own_fleet.inventory(), "hosts=sim-1", "simulate=true", "app=digits", "infer.top_k=2"]
    file = own_fleet.home / "monday.plan"
    assert own_fleet.deploy("plan", *chosen, f"out={file}").code == 0
    (own_fleet.disk("sim-1") / ".bashrc").write_text("# somebody was here\n")
    refused = own_fleet.deploy("apply", f"plan={file}")
    assert refused.code == 7, refused.out + refused.err
    (printed,) = commands_in(refused.of("error")[0]["hint"])
    before = json.loads(file.read_text())
    assert own_fleet.deploy(*printed).code == 0
    assert json.loads(file.read_text())["overrides"] == before["overrides"]
    applied = own_fleet.deploy("apply", f"plan={file}")
    assert applied.code == 0, applied.out + applied.err
    assert list(applied.boards) == ["sim-1"]
