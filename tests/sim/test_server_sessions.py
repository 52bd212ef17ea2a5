"""Sessions on a simulated board, seen through the clients that people use; they behave as under OpenSSH."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import asyncssh
import fabric
import paramiko
import pytest
from sim_clients import ssh, ssh_command

from toolkit.sim import Address, Simulation

MIB = 1024 * 1024


def wait_for(path: Path, seconds: float = 20) -> None:
    """Wait until ``path`` exists; the condition ends the wait, the limit only ends a failure."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def paramiko_client(address: Address, **login: object) -> paramiko.SSHClient:
    """Connect with paramiko, with the announced host key as the only accepted one."""
    client = paramiko.SSHClient()
    kind, key = address.host_key.split()
    name = f"[{address.host}]:{address.port}"
    client.get_host_keys().add(name, kind, paramiko.Ed25519Key(data=base64.b64decode(key)))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    options = {"key_filename": address.key_file, **login}
    client.connect(
        address.host,
        address.port,
        address.user,
        allow_agent=False,
        look_for_keys=False,
        timeout=20,
        **options,
    )
    return client


def asyncssh_connection(address: Address) -> Any:
    """Connect with asyncssh; an asynchronous context manager."""
    login = {"username": address.user, "client_keys": [address.key_file], "known_hosts": None, "config": []}
    return asyncssh.connect(address.host, address.port, **login)


# Environment


def test_a_command_runs_in_the_home_with_the_board_s_environment_only(
    board: Address, boards: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = ssh(board, "env -0; echo; pwd")
    variables, _, folder = result.stdout.decode().rpartition("\0\n")
    env = dict(line.split("=", 1) for line in variables.split("\0"))
    for made_by_the_shell in ("PWD", "SHLVL", "_", "OLDPWD"):
        env.pop(made_by_the_shell, None)
    bin_folder = Path(board.home).parent / "bin"
    assert env.pop("SSH_CONNECTION").split()[3] == str(board.port)
    assert env.pop("SSH_CLIENT").split()[2] == str(board.port)
    env.pop("LANG", None)
    env.pop("ACL_SIM_THREADS", None)
    assert env.pop("ACL_SIM_STRICT") == "0", "the simulator's switches come from who started the boards"
    assert env == {
        "HOME": board.home,
        "USER": "HwHiAiUser",
        "LOGNAME": "HwHiAiUser",
        "SHELL": "/bin/bash",
        "PATH": f"{bin_folder}:/usr/local/bin:/usr/bin:/bin",
        "ASCEND_SIM_BOARD": str(bin_folder.parent / "board.json"),
    }
    assert folder.strip() == board.home
    assert "PYTEST_CURRENT_TEST" in os.environ, "the controller's own environment was worth leaking"


def test_only_the_locale_is_taken_from_the_client(board: Address) -> None:
    async def ask() -> str:
        options = {"LC_ALL": "C.UTF-8", "LD_PRELOAD": "/evil.so", "LANG": "C"}
        async with asyncssh_connection(board) as connection:
            result = await connection.run('echo "$LC_ALL,$LANG,$LD_PRELOAD"', env=options)
            return str(result.stdout)

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == "C.UTF-8,C,\n"


def test_lines_added_to_bashrc_are_not_seen_by_a_command_but_by_an_interactive_shell(board: Address) -> None:
    added = ssh(board, "echo 'export ADDED=yes' >> ~/.bashrc; sed -i '1i export FIRST=yes' ~/.bashrc")
    assert added.returncode == 0
    # bash does read the file when it is run by sshd, and Ubuntu's file returns early.
    assert ssh(board, 'echo "$FIRST,$ADDED"').stdout == b"yes,\n"
    assert ssh(board, "bash -ic 'echo $FIRST,$ADDED' 2>/dev/null").stdout == b"yes,yes\n"


def test_an_interactive_shell_has_a_terminal_of_the_asked_size(board: Address) -> None:
    argv = [*ssh_command(board, "-tt"), f"{board.user}@{board.host}"]
    typed = b"echo flags=$-; test -t 0 && tty; stty size; echo $TERM; exit 3\n"
    environment = {**os.environ, "TERM": "vt100"}
    shell = subprocess.run(argv, input=typed, capture_output=True, check=False, timeout=30, env=environment)
    text = shell.stdout.decode()
    assert shell.returncode == 3
    assert re.search(r"flags=[a-zA-Z]*i", text)
    assert "/dev/pts/" in text
    assert "vt100" in text


def test_a_terminal_s_size_and_interrupt_reach_the_program(board: Address) -> None:
    async def talk() -> tuple[str, str, int | None]:
        async with asyncssh_connection(board) as connection:
            process = await connection.create_process(
                "stty size; read line; stty size; trap 'echo caught; exit 5' INT; echo ready;"
                " while :; do sleep 0.05; done",
                term_type="xterm",
                term_size=(81, 25),
            )
            before = await process.stdout.readline()
            process.change_terminal_size(120, 40)
            process.stdin.write("\n")
            await process.stdout.readuntil("40 120")
            await process.stdout.readuntil("ready")
            process.stdin.write("\x03")
            rest = await process.stdout.readuntil("caught")
            await process.wait()
            return before.strip(), rest, process.exit_status

    before, rest, status = asyncio.run(asyncio.wait_for(talk(), 30))
    assert before == "25 81"
    assert rest.endswith("caught")
    assert status == 5


# Streams and their ends


def test_twenty_megabytes_go_in_and_come_out_unchanged_with_openssh(board: Address) -> None:
    data = os.urandom(20 * MIB)
    up = ssh(board, "sha256sum", data=data)
    assert up.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    echo = ssh(board, "cat; echo done >&2", data=data)
    assert hashlib.sha256(echo.stdout).digest() == hashlib.sha256(data).digest()
    assert echo.stderr == b"done\n"


def test_twenty_megabytes_go_both_ways_with_paramiko_while_nobody_reads_for_a_while(board: Address) -> None:
    data = os.urandom(20 * MIB)
    with paramiko_client(board) as client:
        channel = client.get_transport().open_session()
        channel.settimeout(60)
        channel.exec_command("tee copy | sha256sum >&2; cat copy; rm copy")
        channel.sendall(data)
        channel.shutdown_write()
        received = hashlib.sha256()
        count = 0
        while piece := channel.recv(MIB):
            received.update(piece)
            count += len(piece)
        assert channel.recv_stderr(64).decode() == hashlib.sha256(data).hexdigest()
        assert (count, received.digest()) == (len(data), hashlib.sha256(data).digest())
        assert channel.recv_exit_status() == 0


def test_a_command_that_does_not_read_holds_the_client_back(board: Address) -> None:
    """The data waits with the client, not in the server's memory: the window of the channel is finite."""
    ssh(board, "mkfifo ~/fifo")
    with paramiko_client(board) as client:
        channel = client.get_transport().open_session()
        channel.exec_command("read go < ~/fifo; wc -c")
        channel.settimeout(1.0)
        sent = 0
        block = b"x" * MIB
        while sent < 20 * MIB:
            try:
                sent += channel.send(block)
            except TimeoutError:
                break
        assert MIB < sent < 20 * MIB
        assert ssh(board, "echo go > ~/fifo; rm ~/fifo").returncode == 0
        channel.shutdown_write()
        channel.settimeout(20)
        assert int(channel.recv(100)) == sent


def test_a_command_may_end_without_reading_its_input(board: Address) -> None:
    result = ssh(board, "exec 0<&-; echo closed; exit 4", data=b"x" * 8 * MIB)
    assert (result.returncode, result.stdout) == (4, b"closed\n")


@pytest.mark.parametrize("code", [0, 1, 127, 255])
def test_exit_codes_come_back(board: Address, code: int) -> None:
    assert ssh(board, f"exit {code}").returncode == code


def test_an_unknown_command_is_the_shell_s_127(board: Address) -> None:
    result = ssh(board, "no-such-command")
    assert result.returncode == 127
    assert b"no-such-command" in result.stderr


def test_death_by_a_signal_is_reported_as_one(board: Address) -> None:
    with paramiko_client(board) as client:
        _, stdout, _ = client.exec_command("kill -9 $$", timeout=20)
        assert stdout.channel.recv_exit_status() == -1  # paramiko's value for "no exit status"


def test_a_signal_of_the_client_reaches_the_whole_process_group(board: Address) -> None:
    async def talk() -> object:
        async with asyncssh_connection(board) as connection:
            process = await connection.create_process("sleep 600 | sleep 600 & echo up; wait")
            await process.stdout.readline()
            process.send_signal("TERM")
            await process.wait()
            return process.exit_signal

    signal_name = asyncio.run(asyncio.wait_for(talk(), 30))
    assert signal_name is not None
    assert signal_name[0] == "TERM"


def test_a_background_process_keeps_the_channel_open_but_not_the_exit_status_back(board: Address) -> None:
    ssh(board, "mkfifo ~/gate")
    with paramiko_client(board) as client:
        channel = client.get_transport().open_session()
        channel.settimeout(20)
        channel.exec_command("(read x < ~/gate; echo late) & exit 6")
        assert channel.recv_exit_status() == 6
        assert not channel.closed
        assert not channel.eof_received
        ssh(board, "echo > ~/gate; rm ~/gate")
        assert channel.recv(100) == b"late\n"
        assert channel.recv(100) == b""


# Losing the connection


def test_a_command_lives_on_when_the_connection_is_lost_and_sees_its_input_end(board: Address) -> None:
    home = Path(board.home)
    command = "cat > got; echo $? > status; sleep 0.3; echo lives > after; echo x; echo wrote=$? > wrote"
    client = subprocess.Popen(
        [*ssh_command(board), f"{board.user}@{board.host}", f"trap '' PIPE; echo go; {command}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stdout.readline() == b"go\n"
    client.stdin.write(b"first bytes")
    client.stdin.flush()
    wait_for(home / "got")
    while (home / "got").read_bytes() != b"first bytes":
        time.sleep(0.02)
    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stdin.close()
    client.stdout.close()
    wait_for(home / "wrote")
    assert (home / "after").read_text() == "lives\n"
    assert (home / "status").read_text() == "0\n"
    assert (home / "wrote").read_text() == "wrote=1\n", "its output is broken: nobody reads it"


def test_a_program_in_a_terminal_gets_a_hangup_when_the_connection_is_lost(board: Address) -> None:
    home = Path(board.home)
    command = "trap 'echo hup > hung_up; exit' HUP; echo up > ready; while :; do sleep 0.05; done"
    client = subprocess.Popen(
        [*ssh_command(board, "-tt"), f"{board.user}@{board.host}", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(home / "ready")
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert client.stdin is not None
    client.stdin.close()
    wait_for(home / "hung_up")


# Clients


def test_password_login_only_where_the_board_has_one_and_only_with_the_right_one(boards: Simulation) -> None:
    with_password, without = boards.addresses
    login: dict[str, object] = {"key_filename": None, "password": "Mind@123"}
    with paramiko_client(with_password, **login) as client:
        assert client.exec_command("echo in")[1].read() == b"in\n"
    with pytest.raises(paramiko.AuthenticationException):
        paramiko_client(with_password, key_filename=None, password="wrong")
    with pytest.raises(paramiko.ssh_exception.BadAuthenticationType) as refused:
        paramiko_client(without, **login)
    assert refused.value.allowed_types == ["publickey"]


def test_another_user_and_another_key_are_refused(board: Address, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    other.write_private_key(tmp_path / "other")
    (tmp_path / "other").chmod(0o600)
    with pytest.raises(paramiko.AuthenticationException):
        paramiko_client(board, key_filename=str(tmp_path / "other"))
    argv = [*ssh_command(board), f"root@{board.host}", "true"]
    result = subprocess.run(argv, capture_output=True, check=False, timeout=30)
    assert result.returncode == 255
    assert b"Permission denied" in result.stderr


def test_fabric_runs_puts_and_gets(board: Address, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(os.urandom(MIB))
    with fabric.Connection(
        board.host,
        board.user,
        board.port,
        connect_kwargs={"key_filename": board.key_file},
        connect_timeout=20,
    ) as connection:
        assert connection.run("echo $HOME", in_stream=False, hide=True).stdout.strip() == board.home
        assert connection.run("exit 9", in_stream=False, hide=True, warn=True).exited == 9
        assert (
            connection.run("test -t 1 && echo terminal", in_stream=False, hide=True, pty=True).stdout.strip()
            == "terminal"
        )
        connection.put(tmp_path / "up", "folder-less")
        assert (Path(board.home) / "folder-less").read_bytes() == (tmp_path / "up").read_bytes()
        connection.get("folder-less", str(tmp_path / "down"))
        assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()


@pytest.mark.parametrize("options", [["-s"], ["-O"]], ids=["sftp protocol", "scp protocol"])
def test_scp_copies_a_folder_there_and_back(board: Address, tmp_path: Path, options: list[str]) -> None:
    source = tmp_path / "samples"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "deep" / "er" / "b.bin").write_bytes(os.urandom(300_000))
    there = f"{board.user}@{board.host}:copied-{options[0][1]}"
    scp = [*ssh_command(board, *options, "-r", "-q", client="scp")]
    subprocess.run([*scp, str(source), there], check=True, timeout=60)
    subprocess.run([*scp, there, str(tmp_path / "back")], check=True, timeout=60)
    files = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    assert len(files) == 2
    for name in files:
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()


def test_sftp_starts_at_home_and_takes_the_real_board_s_home_for_it(board: Address) -> None:
    with paramiko_client(board) as client, client.open_sftp() as sftp:
        assert sftp.normalize(".") == str(Path(board.home).resolve())
        sftp.mkdir("/home/HwHiAiUser/HIAI_PROJECTS")
        assert (Path(board.home) / "HIAI_PROJECTS").is_dir()
        sftp.rmdir("HIAI_PROJECTS")
        assert sftp.stat("/").st_mode is not None


def test_many_channels_of_one_connection_at_once(board: Address) -> None:
    async def talk() -> list[str]:
        async with asyncssh_connection(board) as connection:
            runs = [connection.run(f"cat; echo {n}", input=f"in{n} ") for n in range(40)]
            return [str(result.stdout) for result in await asyncio.gather(*runs)]

    assert asyncio.run(asyncio.wait_for(talk(), 30)) == [f"in{n} {n}\n" for n in range(40)]
