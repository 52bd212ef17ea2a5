"""A secret is used and shown nowhere: not in a file of the run, not in what is printed, not in a command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Demo, environment
from toolkit.sim import SimBoard, Simulation

CANARY = "canary-7c1f-not-to-be-seen"


def command_lines() -> bytes:
    """The command lines of all processes of this machine."""
    found = b""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += (entry / "cmdline").read_bytes() + b"\n"
            except OSError:
                continue
    return found


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["env", "file"])
def test_a_password_is_used_and_never_shown(demo: Demo, tmp_path: Path, kind: str) -> None:
    home = tmp_path / "run"
    home.mkdir()
    secret = tmp_path / "secret"
    secret.write_text(CANARY + "\n")
    board = SimBoard("safe", password=CANARY, cann_version="20.2")
    reference = {"env": "env:BOARD_PASSWORD", "file": f"file:{secret}"}[kind]
    with Simulation([board], tmp_path / "boards") as simulation:
        (place,) = simulation.addresses
        inventory = tmp_path / "safe.yaml"
        entry = {"profile": "200dk", "host": place.host, "port": place.port, "user": place.user}
        inventory.write_text(
            json.dumps({"boards": {"safe": {**entry, "host_key": place.host_key, "password": reference}}})
        )
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "stages", f"inventory={inventory}", "app=digits", "--debug"),
                f"model.from={demo.artefact('convert') / 'model.om'}",
                "ssh.config=''",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment(home), "HOME": str(tmp_path), "SSH_AUTH_SOCK": "", "BOARD_PASSWORD": CANARY},
        )
        seen = b""
        assert process.stdout is not None
        shown = b""
        while line := process.stdout.readline():
            shown += line
            seen += command_lines()
        assert process.wait(timeout=120) == 0, shown.decode()
    assert b"stages" in seen, "the processes were looked at while it ran"
    assert CANARY.encode() not in seen
    assert CANARY.encode() not in shown
    written = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.name == "journal.jsonl" for path in written)
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []
    config = next(path for path in written if path.name == "config.yaml").read_text()
    assert "inventory" in config


@pytest.mark.e2e
def test_a_secret_in_a_config_stays_a_reference(demo: Demo) -> None:
    done = demo.deploy(
        "--cfg", "job", "--resolve", "+board=200dk", "board.password=${secret:env,BOARD_PASSWORD}",
        json_lines=False, BOARD_PASSWORD=CANARY,
    )  # fmt: skip
    assert done.code == 0
    assert "password: env:BOARD_PASSWORD" in done.out
    assert CANARY not in done.out + done.err
