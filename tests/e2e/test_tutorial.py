"""The tutorial's own network on a simulated 200 DK, and a real 200 DK that does not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.conftest import Deploy


@pytest.mark.e2e
def test_resnet50_without_a_dataset(deploy: Deploy, tmp_path: Path) -> None:
    done = deploy("+board=200dk", "simulate=true", "train.epochs=0")
    assert done.code == 0, done.err
    assert done.ran == ["train", "export", "convert", "package"], "no dataset is asked for"
    (outcome,) = done.boards.values()
    assert outcome["board"] == "200dk"
    assert outcome["sent"] > 80_000_000
    assert outcome["figures"]["pictures"] == 10
    assert outcome["figures"]["agreement"] == 1.0
    run = next((tmp_path / "run" / "runs").iterdir())
    assert {"airplane.jpg", "car.jpg"} <= {path.name for path in (run / "200dk").iterdir()}
    command = (run / "convert" / "atc.log").read_text().splitlines()[0]
    assert "--soc_version=Ascend310" in command
    bashrc = (tmp_path / "run/.deploy/sim/200dk/home/.bashrc").read_text()
    assert "$HOME/Ascend/runtime/lib64:$HOME/ascend_ddk/arm/lib" in bashrc
    assert "$HOME/Ascend/pyACL/python/site-packages/acl" in bashrc


@pytest.mark.e2e
def test_a_board_that_is_not_there(deploy: Deploy) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        done = deploy("+board=200dk", "board.host=127.0.0.1", f"board.port={port}", "ssh.limits.connect=3")
    assert done.code == 5
    (outcome,) = done.boards.values()
    assert (outcome["status"], outcome["cause"]) == ("unreachable", "refused")
    assert f"127.0.0.1:{port}" in outcome["message"]
    assert done.ran == [], "nothing is trained for a board that does not answer"
