"""Simulated boards start, stay what they were, and leave nothing behind, however their owner ends."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sim_clients import processes_with, ssh, ssh_command

from toolkit.sim import Address, SimBoard, Simulation, SimulationError

CHECKOUT = Path(__file__).resolve().parents[2]

# A controller of its own, to be killed: it starts a board and says where it is.
OWNER = """
import dataclasses, json, sys, time
from pathlib import Path
from toolkit.sim import SimBoard, Simulation
with Simulation([SimBoard("sim-1")], Path(sys.argv[1])) as simulation:
    print(json.dumps(dataclasses.asdict(simulation.addresses[0])), flush=True)
    {then}
    time.sleep(600)
"""

# Ways for a program on the board to escape: the command itself, a background process, a session of its own,
# and a daemon (a session of its own whose parent is gone). The marker tells them from other tests'.
RUNAWAYS = """
    sleep 601.{marker} &
    setsid sleep 602.{marker} &
    (setsid sh -c 'sleep 603.{marker} & exec sleep 604.{marker}' < /dev/null > /dev/null 2>&1 &)
    echo up
    exec sleep 605.{marker}
"""


def wait_until(condition: object, what: str, seconds: float = 20) -> None:
    """Wait for ``condition()``; the limit only ends a failure."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def start_runaways(address: Address, marker: str) -> subprocess.Popen[bytes]:
    """Start a client whose command on the board leaves five processes in four ways."""
    argv = [*ssh_command(address), f"{address.user}@{address.host}", RUNAWAYS.format(marker=marker)]
    client = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    wait_until(lambda: len(sleeping(marker)) == 5, "five processes on the board")
    return client


def sleeping(marker: str) -> list[str]:
    """Return the runaways that still run."""
    return [line for line in processes_with(f".{marker}") if line.startswith("sleep 60")]


def servers_below(root: Path) -> list[str]:
    """Return the boards' servers which hold the lock of ``root``; only the server's own number is in it."""
    pid = (root / ".shared" / "lock").read_text().strip()
    return [pid] if pid and Path(f"/proc/{pid}/cmdline").exists() and _is_alive(pid) else []


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_owner(root: Path, then: str = "", **options: object) -> tuple[subprocess.Popen[bytes], Address]:
    """Start a process that owns one board."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.replace("{then}", then), str(root)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert owner.stdout is not None
    return owner, Address(**json.loads(owner.stdout.readline()))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_owner_ends(tmp_path: Path, how: signal.Signals) -> None:
    owner, address = start_owner(tmp_path)
    marker = str(owner.pid)
    client = start_runaways(address, marker)
    assert servers_below(tmp_path)
    # Ctrl-C in a terminal goes to the whole process group; kill goes to one process.
    (os.killpg if how == signal.SIGINT else os.kill)(owner.pid, how)
    owner.wait(20)
    wait_until(lambda: not sleeping(marker) and not servers_below(tmp_path), "all of it is gone")
    assert client.wait(20) == 255
    for process in (owner, client):
        assert process.stdout is not None
        process.stdout.close()


def test_the_boards_end_with_their_owner_though_a_fork_of_it_lives_on(tmp_path: Path) -> None:
    """A worker that the owner forked has the pipe to the server too: its end alone would never come."""
    fork = "import os\n    child = os.fork()\n    if child == 0: os.close(1); time.sleep(600)\n"
    owner, _ = start_owner(tmp_path, then=fork + "    print(child, flush=True)")
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    try:
        owner.kill()
        owner.wait(20)
        wait_until(lambda: not servers_below(tmp_path), "the server is gone")
        assert _is_alive(str(child))
    finally:
        os.kill(child, signal.SIGKILL)
        owner.stdout.close()


def test_stop_kills_all_that_runs_on_the_boards(tmp_path: Path) -> None:
    marker = f"{os.getpid()}1"
    simulation = Simulation([SimBoard("sim-1")], tmp_path)
    client = start_runaways(simulation.start()[0], marker)
    simulation.stop()
    assert sleeping(marker) == []
    assert servers_below(tmp_path) == []
    assert client.wait(20) == 255
    simulation.stop()  # a second time does nothing


def test_a_server_that_was_killed_is_cleaned_up_after_and_can_be_started_again(tmp_path: Path) -> None:
    marker = f"{os.getpid()}2"
    simulation = Simulation([SimBoard("sim-1")], tmp_path)
    address = simulation.start()[0]
    client = start_runaways(address, marker)
    ssh(address, "echo kept > file")
    os.kill(int(servers_below(tmp_path)[0]), signal.SIGKILL)
    client.wait(20)
    with pytest.raises(SimulationError, match="ended unexpectedly"):
        simulation.cut("sim-1")
    assert len(sleeping(marker)) == 5, "nobody was there to kill them"
    again = Simulation([SimBoard("sim-1")], tmp_path)
    try:
        # The next start puts it in order, also when the first owner is gone without a word.
        assert ssh(again.start()[0], "cat file").stdout == b"kept\n"
        assert sleeping(marker) == []
    finally:
        again.stop()
        simulation.stop()


def test_half_written_files_of_a_crash_do_no_harm(tmp_path: Path) -> None:
    with Simulation([SimBoard("sim-1")], tmp_path) as simulation:
        before = simulation.addresses[0]
    folder = tmp_path / "sim-1"
    (folder / "ssh_host_ed25519_key").write_bytes(b"-----BEGIN OPENSSH PRIV")
    (folder / "board.json").write_text('{"name": "si')
    (folder / "installed.json").write_text("[")
    (folder / "bin" / ".python3.1.new").write_text("#!")
    (tmp_path / ".shared" / "id_ed25519").write_bytes(b"")
    with Simulation([SimBoard("sim-1")], tmp_path) as simulation:
        after = simulation.addresses[0]
        assert after.host_key != before.host_key, "the old one is lost"
        assert ssh(after, "python3 -c 'print(1)'").stdout == b"1\n"
        assert ssh(after, "cat $ASCEND_SIM_BOARD").stdout.startswith(b'{\n "arch"')


def test_home_and_host_key_stay_from_run_to_run_and_differ_between_boards(tmp_path: Path) -> None:
    boards = [SimBoard("sim-1"), SimBoard("sim-2")]
    with Simulation(boards, tmp_path) as simulation:
        before = simulation.addresses
        assert ssh(before[0], "echo kept > file; mkdir -p a/b").returncode == 0
        assert ssh(before[1], "cat file").returncode == 1
    with Simulation(boards, tmp_path) as simulation:
        after = simulation.addresses
        assert ssh(after[0], "cat file; ls -d a/b").stdout == b"kept\na/b\n"
    assert [board.host_key for board in before] == [board.host_key for board in after]
    assert before[0].host_key != before[1].host_key
    assert before[0].key_file == after[0].key_file
    assert os.stat(before[0].key_file).st_mode & 0o777 == 0o600


def test_thirty_two_boards_serve_at_once(tmp_path: Path) -> None:
    boards = [SimBoard(f"sim-{n}") for n in range(32)]
    with Simulation(boards, tmp_path) as simulation:
        assert [address.name for address in simulation.addresses] == [board.name for board in boards]
        assert len({address.port for address in simulation.addresses}) == 32
        assert len({address.host_key for address in simulation.addresses}) == 32
        pipe = subprocess.PIPE
        clients = [
            subprocess.Popen([*ssh_command(a), f"{a.user}@{a.host}", "cat; pwd"], stdin=pipe, stdout=pipe)
            for a in simulation.addresses
        ]
        answers = [client.communicate(b"x" * 100_000, timeout=60)[0] for client in clients]
        for address, answer in zip(simulation.addresses, answers, strict=True):
            assert answer == b"x" * 100_000 + f"{address.home}\n".encode()


# What cannot be


def test_a_wanted_port_is_taken_or_refused_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = foreign.getsockname()[1]
        with pytest.raises(SimulationError) as refused:
            Simulation([SimBoard("sim-1"), SimBoard("sim-2", port=port)], tmp_path).start()
        message = str(refused.value)
        assert f"sim-2: cannot use port {port}" in message
        assert "\n" not in message
        assert not servers_below(tmp_path)
    with Simulation([SimBoard("sim-1"), SimBoard("sim-2", port=port)], tmp_path) as simulation:
        assert simulation.addresses[1].port == port
        assert ssh(simulation.addresses[1], "echo here").stdout == b"here\n"


def test_two_simulations_do_not_share_a_root(tmp_path: Path) -> None:
    with Simulation([SimBoard("sim-1")], tmp_path) as first:
        with pytest.raises(SimulationError, match=r"running already \(process \d+\)"):
            Simulation([SimBoard("sim-2")], tmp_path).start()
        assert ssh(first.addresses[0], "echo here").stdout == b"here\n"


@pytest.mark.parametrize(
    ("boards", "message"),
    [
        ([], "no boards"),
        ([SimBoard("a"), SimBoard("A")], "two simulated boards are named A"),
        ([SimBoard("a", port=2222), SimBoard("b", port=2222)], "another board wants port 2222"),
    ],
)
def test_lists_of_boards_that_cannot_be(tmp_path: Path, boards: list[SimBoard], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        Simulation(boards, tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "../up"}, "board name"),
        ({"name": ".shared"}, "board name"),
        ({"name": "x" * 64}, "board name"),
        ({"user": "a b"}, "not a user name"),
        ({"run_mode": "rc"}, "RC or EP"),
        ({"port": 65536}, "within 0..65535"),
        ({"interpreters": ["../python3"]}, "plain command name"),
        ({"faults": {"no_baner": True}}, "no fault 'no_baner'; there are: .*no_banner"),
    ],
)
def test_boards_that_cannot_be(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        dataclasses.replace(SimBoard("sim-1"), **fields)


def test_a_root_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="choose another"):
        Simulation([SimBoard("sim-1")], tmp_path / "a:b")
    (tmp_path / "file").touch()
    with pytest.raises(SimulationError, match="cannot make the boards' folder"):
        Simulation([SimBoard("sim-1")], tmp_path / "file" / "root").start()


def test_importing_the_package_does_not_load_asyncssh() -> None:
    code = "import sys, toolkit.sim; sys.exit('asyncssh' in sys.modules or 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False).returncode == 0
