"""The simulator on its own: any pyACL program, a shell, a fleet with addresses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Deploy, environment
from tests.e2e.test_interruptions import processes_of

PROGRAM = """
import sys, acl
codes = [acl.init(), acl.rt.set_device(0)]
print(codes, acl.get_soc_name(), sys.argv[1:])
sys.exit(7)
"""


@pytest.mark.e2e
def test_a_program_runs_in_a_boards_environment(deploy: Deploy, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = ("sim", "run", "+board=200i_dk_a2", "--", "python3", "program.py", "a", "b c")
    done = deploy(*words, json_lines=False, cwd=tmp_path)
    assert done.out == "[0, 0] Ascend310B4 ['a', 'b c']\n"
    assert done.code == 7


@pytest.mark.e2e
@pytest.mark.parametrize("board", ["200dk", "200i_dk_a2"])  # exports and set_env.sh
def test_a_program_has_the_users_variables_modules_and_interpreter(deploy: Deploy, tmp_path: Path, board: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/helper.py").write_text("NAME = 'helper'\n")
    (tmp_path / "mine/acl.py").write_text("raise ImportError('the board has its own')\n")
    (tmp_path / "python-of-mine").write_text(f'#!/bin/sh\nINTERPRETER=mine exec {sys.executable} "$@"\n')
    (tmp_path / "python-of-mine").chmod(0o755)
    (tmp_path / "program.py").write_text(
        "import os, acl, helper; print(acl.init(), helper.NAME, os.environ['MYVAR'], os.environ['INTERPRETER'])\n"
    )
    checkout = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([str(tmp_path / "mine"), *filter(None, [os.environ.get("PYTHONPATH")]), checkout])
    words = ("sim", "run", f"+board={board}", "board.python=./python-of-mine", "--", "python3", "program.py")
    done = deploy(*words, json_lines=False, cwd=tmp_path, MYVAR="x", PYTHONPATH=path)
    assert done.out == "0 helper x mine\n", done.err


@pytest.mark.e2e
def test_faults_come_from_the_command_line(deploy: Deploy, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = ("sim", "run", "+board=200dk", "board.faults.no_permission=true", "--", "python3", "program.py")
    assert deploy(*words, json_lines=False, cwd=tmp_path).out.startswith("[0, 207006] Ascend310 ")


@pytest.mark.e2e
@pytest.mark.parametrize("words", [("sim", "run", "+board=200dk"), ("+board=sim", "--yes")])
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("+board.faults.nonsense=1", "no fault 'nonsense'; there are"),
        ("board.faults.slow_ms=-1", "slow_ms: -1 is not"),
        ("board.python=python2.99", "board.python: this machine has no program python2.99"),
    ],
)
def test_a_fault_or_interpreter_that_is_none_is_one_line(
    deploy: Deploy, words: tuple[str, ...], fault: str, says: str
) -> None:
    done = deploy(*words, fault, *(("--", "true") if words[0] == "sim" else ()))
    assert done.code == 2
    (error,) = done.of("error")
    assert says in error["text"]


@pytest.mark.e2e
def test_without_a_program_it_says_how(deploy: Deploy) -> None:
    done = deploy("sim", "run", "+board=200dk")
    assert done.code == 2
    assert "deploy sim run" in done.of("error")[0]["hint"]


@pytest.mark.e2e
def test_a_shell(tmp_path: Path) -> None:
    home = tmp_path / "run"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "stages", "sim", "shell", "+board=200i_dk_a2"],
        input="npu-smi info; command -v atc; exit 3\n",
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "310B4" in done.stdout
    assert done.stdout.strip().endswith("/atc")


@pytest.mark.e2e
def test_a_fleet_that_plain_ssh_reaches(tmp_path: Path) -> None:
    home = tmp_path / "run"
    home.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "stages", "sim", "up", "inventory=factory", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
        start_new_session=True,
    )
    assert process.stdout is not None
    boards: dict[str, dict[str, object]] = {}
    for line in process.stdout:
        said = json.loads(line)
        if "inventory" in said:
            break
        boards[said["name"]] = said
    assert len(boards) == 8
    assert boards["server-1"]["user"] == "deploy", "as the inventory says, not as the profile"
    for board in boards.values():
        command = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
        command += ["-o", f"UserKnownHostsFile={home}/.deploy/sim/known_hosts", "-i", str(board["key_file"])]
        command += ["-p", str(board["port"]), f"{board['user']}@{board['host']}", "npu-smi", "info"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert answer.returncode == 0, answer.stderr
        assert "npu-smi" in answer.stdout
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert processes_of(home) == []


@pytest.mark.e2e
def test_a_port_in_use_is_one_clear_line(deploy: Deploy) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # Boards of this verb are simulated without simulate=true, and can be counted.
        done = deploy("sim", "up", "+board=200dk", "board.count=2", f"board.port={port}")
    assert done.code == 2
    (error,) = done.of("error")
    assert str(port) in error["text"]
