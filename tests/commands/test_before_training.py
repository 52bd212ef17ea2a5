"""Before minutes of training: does any board answer?"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from stages._apply import _someone_answers
from stages._fleet import Places, Target, local_atc
from tests.e2e.conftest import Deploy
from toolkit.config.schema import AppSettings, BoardSettings, Config, LimitSettings, SshSettings
from toolkit.errors import RemoteError
from toolkit.inventory import Board
from toolkit.remote.address import Address
from toolkit.ui.events import ignore


def fleet(root: Path, *addresses: Address) -> tuple[list[Target], Places]:
    config = Config(
        app=AppSettings(name="app"),
        board=BoardSettings(root=str(root)),
        ssh=SshSettings(limits=LimitSettings(banner=1)),
    )
    boards = tuple(Board(item.name, "200dk", item.host) for item in addresses)
    return [Target("200dk", config, boards)], Places({item.name: item for item in addresses}, {})


def test_boards_that_hang_do_not_hold_up_the_one_that_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = silent.getsockname()[1]
        hanging = [Address(f"b-{n}", "127.0.0.1", port, user="x", ssh_config="", known_hosts=()) for n in range(20)]
        healthy = Address("good", "local", client="local", interpreters=(sys.executable,))
        begun = time.monotonic()
        _someone_answers(*fleet(tmp_path, *hanging, healthy), ignore)
        assert time.monotonic() - begun < 10, "one after the other takes 20 s"


def test_where_none_answers_it_says_how_many_were_asked(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nothing listens
        port = taken.getsockname()[1]
        off = [Address(f"b-{n}", "127.0.0.1", port, user="x", ssh_config="", known_hosts=()) for n in range(3)]
        with pytest.raises(RemoteError, match="none of the 3 boards") as caught:
            _someone_answers(*fleet(tmp_path, *off), ignore)
    assert caught.value.cause == "refused"
    assert caught.value.exit_code == 5


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
