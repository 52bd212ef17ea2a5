"""Faults of the line and of the server: each is what it says, for the client that meets it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from sim_clients import ssh, ssh_command

from toolkit.sim import Address, SimBoard, Simulation
from toolkit.sim.spec import DEVICE_FAULTS, LINE_FAULTS, SimulationError

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """One board, whose faults each test sets."""
    with Simulation([SimBoard("sim-1", password="Mind@123")], tmp_path_factory.mktemp("boards")) as running:
        yield running


@pytest.fixture
def address(simulation: Simulation) -> Iterator[Address]:
    """The board, healed afterwards."""
    yield simulation.addresses[0]
    simulation.set_faults("sim-1", {})


def connect(address: Address) -> paramiko.SSHClient:
    """Connect with paramiko, with a limit of a second on what is expected to hang."""
    client = paramiko.SSHClient()
    client.load_host_keys(_known_hosts(address))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        address.host,
        address.port,
        address.user,
        key_filename=address.key_file,
        allow_agent=False,
        look_for_keys=False,
        timeout=20,
        banner_timeout=20,
        auth_timeout=1,
        channel_timeout=1,
    )
    return client


def _known_hosts(address: Address) -> str:
    path = Path(address.home).parent / "known_hosts"
    path.write_text(f"[{address.host}]:{address.port} {address.host_key}\n")
    return str(path)


def test_connections_are_refused_at_the_same_port_until_healed(
    simulation: Simulation, address: Address
) -> None:
    simulation.set_faults("sim-1", {"refuse_connections": True})
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port), timeout=5)
    simulation.set_faults("sim-1", {})
    assert ssh(address, "echo healed").stdout == b"healed\n"


def test_no_banner(simulation: Simulation, address: Address) -> None:
    simulation.set_faults("sim-1", {"no_banner": True})
    with socket.create_connection((address.host, address.port), timeout=5) as client:
        client.sendall(b"SSH-2.0-test\r\n")
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_no_answer_to_authentication(simulation: Simulation, address: Address) -> None:
    simulation.set_faults("sim-1", {"no_authentication": True})
    with pytest.raises(paramiko.AuthenticationException, match=r"(?i)timeout"):
        connect(address)


def test_no_answer_to_the_opening_of_a_channel(simulation: Simulation, address: Address) -> None:
    simulation.set_faults("sim-1", {"no_channel": True})
    with connect(address) as client, pytest.raises(paramiko.SSHException, match=r"(?i)timeout"):
        client.get_transport().open_session(timeout=0.5)


def test_another_host_key_than_announced(simulation: Simulation, address: Address) -> None:
    simulation.set_faults("sim-1", {"wrong_host_key": True})
    with pytest.raises(paramiko.BadHostKeyException):
        connect(address)
    simulation.set_faults("sim-1", {})
    connect(address).close()


def test_a_distant_board_answers_no_sooner_than_light_would(simulation: Simulation, address: Address) -> None:
    simulation.set_faults("sim-1", {"latency_ms": 50})
    with connect(address) as client:
        for _ in range(3):
            start = time.monotonic()
            assert client.exec_command("cat", timeout=20)[1].channel.active
            channel = client.get_transport().open_session(timeout=20)
            assert time.monotonic() - start >= 0.1
            channel.close()


def test_a_slow_line_carries_no_more_than_it_can_and_loses_nothing(
    simulation: Simulation, address: Address
) -> None:
    simulation.set_faults("sim-1", {"bytes_per_second": 400_000})
    data = bytes(range(256)) * 1600
    start = time.monotonic()
    assert ssh(address, "cat", data=data).stdout == data
    assert time.monotonic() - start >= len(data) / 400_000 * 0.9


def test_the_link_drops_after_so_many_bytes(simulation: Simulation, address: Address) -> None:
    simulation.set_faults("sim-1", {"drop_after_bytes": MIB})
    result = ssh(address, "cat > dropped", data=b"x" * 4 * MIB)
    assert result.returncode == 255
    simulation.set_faults("sim-1", {})
    size = int(ssh(address, "stat -c %s dropped").stdout)
    assert 0 < size < MIB


def test_the_board_stops_reading_after_so_many_bytes(simulation: Simulation, address: Address) -> None:
    simulation.set_faults("sim-1", {"stall_after_bytes": MIB})
    sent = 0
    with connect(address) as client:
        channel = client.get_transport().open_session()
        channel.exec_command(": > stalled; echo up; cat >> stalled")
        assert channel.recv(3) == b"up\n"

        def push() -> None:
            nonlocal sent
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                while sent < 200 * MIB:
                    sent += channel.send(b"x" * MIB)

        # Windows and buffers take some, then it waits, and no time-out of paramiko's would end that.
        pushing = threading.Thread(target=push)
        pushing.start()
        pushing.join(1)
        assert pushing.is_alive()
        assert sent < 100 * MIB
        assert (Path(address.home) / "stalled").stat().st_size < MIB
        simulation.cut("sim-1")
        pushing.join(20)
        assert not pushing.is_alive()


def test_device_faults_reach_the_next_program_on_the_board(simulation: Simulation, address: Address) -> None:
    simulation.set_faults("sim-1", {"execute_error": 507015, "latency_ms": 1})
    text = ssh(address, "cat $ASCEND_SIM_BOARD").stdout.decode()
    assert '"execute_error": 507015' in text
    assert "latency_ms" not in text
    with pytest.raises(SimulationError, match="no fault 'latency'"):
        simulation.set_faults("sim-1", {"latency": 1})
    with pytest.raises(SimulationError, match="no simulated board 'sim-9'"):
        simulation.set_faults("sim-9", {})


def test_a_cut_connection_ends_the_client_but_not_the_program(
    simulation: Simulation, address: Address
) -> None:
    argv = [*ssh_command(address), f"{address.user}@{address.host}"]
    command = "mkfifo gate; echo up; read line < gate; echo $line > outcome; rm gate"
    client = subprocess.Popen([*argv, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    simulation.cut("sim-1")
    assert client.wait(20) == 255
    client.stdin.close()
    client.stdout.close()
    assert ssh(address, "echo lives > gate; while test -e gate; do :; done; cat outcome").stdout == b"lives\n"


def test_power_off_kills_the_programs_and_power_on_brings_the_disk_back(
    simulation: Simulation, address: Address
) -> None:
    argv = [*ssh_command(address), f"{address.user}@{address.host}"]
    command = "setsid sh -c 'echo $$ > pid; exec sleep 600' & while ! test -s pid; do :; done; echo up; wait"
    client = subprocess.Popen([*argv, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    simulation.power_off("sim-1")
    assert client.wait(20) == 255
    client.stdin.close()
    client.stdout.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port), timeout=5)
    simulation.power_on("sim-1")
    result = ssh(address, "test -s pid && ! kill -0 $(cat pid) 2>/dev/null && echo dead; rm pid")
    assert result.stdout == b"dead\n"


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"nonsense": 1}, "there is no fault 'nonsense'; there are: bytes_per_second"),
        ({"no_banner": 1}, "1 is not true or false"),
        ({"latency_ms": "slow"}, "'slow' is not a number from 0 on"),
        ({"bytes_per_second": float("inf")}, "inf is not a number"),
        ({"drop_after_bytes": 1.5}, "1.5 is not a whole number from 0 on"),
        ({"execute_error": True}, "True is not a whole number"),
        ({"execute_error_every": 0}, "0 is not a whole number from 1 on"),
        ({"memory_mb": -1}, "-1 is not a whole number from 1 on"),
        ({"health": "Bad"}, "'Bad' is not one of OK, Warning, Alarm, Critical"),
        ({"temperature": "hot"}, "'hot' is not a whole number"),
    ],
)
def test_what_nothing_would_carry_out_is_refused(faults: dict[str, object], says: str) -> None:
    with pytest.raises(SimulationError, match="board b: ") as refused:
        SimBoard("b", faults=faults)
    assert says in str(refused.value)


def test_every_fault_takes_a_value() -> None:
    names = LINE_FAULTS | DEVICE_FAULTS
    switches = {name: True for name in names if name.startswith(("no_", "refuse", "wrong"))}
    given = {**dict.fromkeys(names, 1), **switches, "health": "Alarm"}
    assert SimBoard("b", faults=given).faults == given
    assert SimBoard("b", faults=dict.fromkeys(given)).faults == dict.fromkeys(given), "None: not set"
