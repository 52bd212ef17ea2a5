"""``deploy sim run`` and ``deploy sim shell``: a program as on a board, in the user's own terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sim_clients import ssh

from toolkit.sim import SimBoard, Simulation, SimulationError, run_command

CHECKOUT = Path(__file__).resolve().parents[2]
CALL = """
import sys
from pathlib import Path
sys.path.insert(0, {checkout!r})
from toolkit.sim import SimBoard, run_command, shell
board = SimBoard("b", cann_version="7.0.0")
argv = sys.argv[2:]
sys.exit(run_command(board, Path(sys.argv[1]), argv) if argv else shell(board, Path(sys.argv[1])))
"""


def call(root: Path, *argv: str) -> list[str]:
    """Return the command line of a caller which runs ``argv`` on a board (nothing: a shell)."""
    return [sys.executable, "-c", CALL.format(checkout=str(CHECKOUT)), str(root), *argv]


def test_all_but_home_is_the_caller_s(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys; data = sys.stdin.buffer.read(); "
        "print(os.environ['HOME'], os.getcwd(), len(data), sys.argv[1:]); "
        "print('err', file=sys.stderr); sys.exit(9)"
    )
    work = tmp_path / "work"
    work.mkdir()
    result = subprocess.run(
        call(tmp_path / "root", "python3", "-c", code, "a b", "$HOME", ""),
        input=b"x" * 300_000,
        capture_output=True,
        cwd=work,
        check=False,
        timeout=60,
    )
    assert result.returncode == 9
    (board,) = (tmp_path / "root").glob("b-*")
    assert result.stdout.decode() == f"{board}/home {work} 300000 ['a b', '$HOME', '']\n"
    assert result.stderr == b"err\n"


def test_the_environment_is_the_board_s_with_cann_set_up(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": "/mine", "VIRTUAL_ENV": "/venv", "TERM": "vt100", "MYVAR": "1"}
    env |= {"LD_LIBRARY_PATH": "/usr/local/Ascend/lib64", "TOOLCHAIN_HOME": "/other", "USER": "me"}
    switches = {"ACL_SIM_STRICT": "1", "ACL_SIM_THREADS": "3", "ASCEND_GLOBAL_LOG_LEVEL": "0"}
    env |= {**switches, "ASCEND_NNRT_HOME": "/usr/local/Ascend/nnrt", "ASCEND_SIM_BOARD": "/other/board.json"}
    result = subprocess.run(
        call(tmp_path, "env"), capture_output=True, text=True, env=env, check=False, timeout=60
    )
    seen = dict(line.split("=", 1) for line in result.stdout.splitlines())
    (board,) = tmp_path.glob("b-*")
    assert seen["ASCEND_TOOLKIT_HOME"] == f"{board}/home/Ascend/ascend-toolkit/latest"
    assert switches.items() <= seen.items()
    assert ("ASCEND_NNRT_HOME" in seen, seen["ASCEND_SIM_BOARD"]) == (False, f"{board}/board.json")
    first, *_, last = seen["PYTHONPATH"].split(":")
    assert (first.startswith(f"{board}/home/Ascend/"), last) == (True, "/mine")
    assert "/usr/local" not in seen["LD_LIBRARY_PATH"] + seen["TOOLCHAIN_HOME"] + seen["PATH"].split(":")[0]
    assert "VIRTUAL_ENV" not in seen
    assert (seen["USER"], seen["TERM"], seen["MYVAR"]) == ("HwHiAiUser", "vt100", "1")
    assert (
        subprocess.run(call(tmp_path, "sh", "-c", "command -v atc"), check=False, timeout=60).returncode == 0
    )


def test_failures_have_the_shell_s_codes(tmp_path: Path) -> None:
    board = SimBoard("b")
    assert run_command(board, tmp_path, ["no-such-program"]) == 127
    assert run_command(board, tmp_path, ["sh", "-c", "kill -9 $$"]) == 137
    with pytest.raises(SimulationError, match="name one"):
        run_command(board, tmp_path, [])


def test_ctrl_c_is_the_program_s(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(77)); "
        "print('up', flush=True); time.sleep(60)"
    )
    caller = subprocess.Popen(
        call(tmp_path, "python3", "-c", code), stdout=subprocess.PIPE, start_new_session=True
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == b"up\n"
    os.killpg(caller.pid, signal.SIGINT)
    assert caller.wait(20) == 77
    caller.stdout.close()


def test_the_shell_is_interactive_and_has_cann_set_up(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    caller = subprocess.Popen(
        call(tmp_path), stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, start_new_session=True
    )
    os.close(slave)
    os.write(master, b"echo at=$PWD soc=$ASCEND_TOOLKIT_HOME flags=$-.; exit 4\n")
    text = b""
    try:
        while piece := os.read(master, 65536):
            text += piece
    except OSError:  # the terminal's last user is gone
        pass
    os.close(master)
    assert caller.wait(20) == 4
    line = next(line for line in text.decode().splitlines() if line.startswith("at=/"))
    (board,) = tmp_path.glob("b-*")
    assert line.startswith(f"at={tmp_path} soc={board}/home/Ascend/ascend-toolkit/latest flags=")
    assert "i" in line.rpartition("flags=")[2]


def test_a_run_changes_no_board_that_is_served_and_no_other_run(tmp_path: Path) -> None:
    served = SimBoard("b", cann_version="5.0.4")
    other = replace(served, cann_version="8.5.0", soc_version="Ascend310P3", faults={"no_permission": True})
    with Simulation([served], tmp_path) as simulation:
        description = tmp_path / "b" / "board.json"
        before = description.read_bytes(), sorted(os.listdir(tmp_path / "b/home/Ascend"))
        # At the same time, into the same fresh folder: neither trips over the other.
        runs = [subprocess.Popen(call(tmp_path, "sh", "-c", "command -v atc >&2")) for _ in range(3)]
        assert run_command(other, tmp_path, ["sh", "-c", "test -d ~/Ascend/cann-8.5.0"]) == 0
        assert [run.wait(60) for run in runs] == [0, 0, 0]
        assert (description.read_bytes(), sorted(os.listdir(tmp_path / "b/home/Ascend"))) == before
        line = ". ~/Ascend/nnrt/set_env.sh 2>/dev/null || . ~/Ascend/ascend-toolkit/set_env.sh; python3 -c "
        line += "'import acl; print(acl.get_soc_name())'"
        assert ssh(simulation.addresses[0], line).stdout == b"Ascend310\n"
