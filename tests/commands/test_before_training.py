"""Before minutes of training: does any board answer?"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from stages._apply import _silence
from stages._fleet import Places, Target, local_atc
from stages._invocation import Flags, Invocation
from tests.e2e.conftest import Deploy
from toolkit.config.schema import AppSettings, BoardSettings, Config, LimitSettings, SshSettings
from toolkit.fleet.outcome import Outcome
from toolkit.inventory import Board
from toolkit.remote.address import Address
from toolkit.ui.console import JsonRenderer
from toolkit.ui.events import ignore


def ask(root: Path, *addresses: Address) -> list[Outcome]:
    config = Config(
        app=AppSettings(name="app"),
        board=BoardSettings(root=str(root)),
        ssh=SshSettings(limits=LimitSettings(banner=1)),
    )
    boards = tuple(Board(item.name, "200dk", item.host) for item in addresses)
    targets, places = [Target("200dk", config, boards)], Places({item.name: item for item in addresses}, {})
    call = Invocation("apply", OmegaConf.create(), config, [], Flags(), JsonRenderer(), lambda _: OmegaConf.create())
    return _silence(call, targets, places, ignore)


def test_boards_that_hang_do_not_hold_up_the_one_that_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = silent.getsockname()[1]
        hanging = [Address(f"b-{n}", "127.0.0.1", port, user="x", ssh_config="", known_hosts=()) for n in range(20)]
        healthy = Address("good", "local", client="local", interpreters=(sys.executable,))
        begun = time.monotonic()
        assert ask(tmp_path, *hanging, healthy) == []
        assert time.monotonic() - begun < 10, "one after the other takes 20 s"


def test_where_none_answers_each_has_its_outcome(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nothing listens
        port = taken.getsockname()[1]
        off = [Address(f"b-{n}", "127.0.0.1", port, user="x", ssh_config="", known_hosts=()) for n in range(3)]
        outcomes = ask(tmp_path, *off)
    assert [(item.board, item.status, item.cause) for item in outcomes] == [
        (f"b-{n}", "unreachable", "refused") for n in range(3)
    ]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("setting", "text"),
    [("board.host_key=ssh-rsa", "neither a public key nor a fingerprint"), ("board.jump=a b:c", "is not [user@]host")],
)
def test_an_address_that_is_none_is_refused_as_input(deploy: Deploy, setting: str, text: str) -> None:
    done = deploy("status", "+board=200dk", "board.host=127.0.0.1", "board.port=1", setting)
    assert done.code == 2
    assert text in done.of("error")[0]["text"]


def test_a_machine_without_bash_has_no_atc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not local_atc("true")
