"""Logging in: keys of all kinds, loaded once; the agent; passwords by reference; ssh_config; jump hosts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import bad_boards
import pytest
import sshd as sshd_server

from toolkit.errors import ConfigError, DeployError, Unreachable
from toolkit.remote import login
from toolkit.remote.address import Address, Limits
from toolkit.remote.line import open_line
from toolkit.remote.route import route

clients = pytest.mark.parametrize("client", ["fabric", "openssh"])
Maker = Callable[..., Address]


def greet(address: Address, limits: Limits) -> bytes:
    """Log in and take the first words."""
    line = open_line(address, limits, "printf welcome")
    try:
        return line.recv(100)
    finally:
        line.close()


def refusal(address: Address, limits: Limits) -> DeployError:
    with pytest.raises(DeployError) as caught:
        greet(address, limits)
    return caught.value


def allow(sshd: sshd_server.Sshd, key: Path) -> None:
    with (sshd.folder / "authorized_keys").open("a") as file:
        file.write(Path(f"{key}.pub").read_text())


@clients
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_kind_of_key(
    client: str, kind: str, sshd: sshd_server.Sshd, board: Maker, limits: Limits, tmp_path: Path
) -> None:
    key = sshd_server.new_key(tmp_path, kind)
    allow(sshd, key)
    assert greet(board(client=client, key_file=str(key)), limits) == b"welcome"


def test_ecdsa_keys_without_a_comment_with_and_without_padding(tmp_path: Path) -> None:
    # The length of the secret number decides; of 16 keys both kinds are among them all but surely.
    for n in range(16):
        key = login.load_key(str(sshd_server.new_key(tmp_path, "ecdsa", f"key-{n}")))
        assert key is not None
        assert key.can_sign()


def test_a_key_is_loaded_once_for_all_boards(sshd: sshd_server.Sshd, board: Maker, limits: Limits) -> None:
    assert greet(board(), limits) == b"welcome"
    first = login.load_key(str(sshd.key))
    assert greet(board(name="another"), limits) == b"welcome"
    assert login.load_key(str(sshd.key)) is first


@clients
def test_a_login_that_is_refused(client: str, sshd: sshd_server.Sshd, board: Maker, limits: Limits) -> None:
    error = refusal(board(client=client, key_file=str(sshd.host_keys[0])), limits)
    assert isinstance(error, Unreachable)
    assert error.cause == "auth-failed"
    assert "publickey" in str(error)


@clients
def test_a_key_file_that_is_missing(client: str, board: Maker, limits: Limits, tmp_path: Path) -> None:
    error = refusal(board(client=client, key_file=str(tmp_path / "nowhere")), limits)
    assert isinstance(error, Unreachable)
    assert error.cause == "key-unreadable"
    assert "nowhere" in str(error)


def test_a_key_that_others_may_read(sshd: sshd_server.Sshd, board: Maker, limits: Limits, tmp_path: Path) -> None:
    """OpenSSH takes none; what to type stands there."""
    key = tmp_path / "key of mine"
    key.write_bytes(sshd.key.read_bytes())
    key.chmod(0o644)
    error = refusal(board(client="openssh", key_file=str(key)), limits)
    assert (error.cause, error.hint) == (
        "key-unreadable",
        f"ssh takes no key that others may read: chmod 600 '{key}'",
    )
    subprocess.run(error.hint.rpartition(": ")[2], shell=True, check=True)
    assert greet(board(client="openssh", key_file=str(key)), limits) == b"welcome"


@pytest.mark.parametrize("what", ["damaged", "public", "passphrase"])
def test_a_key_file_of_no_use(what: str, board: Maker, limits: Limits, tmp_path: Path) -> None:
    key = sshd_server.new_key(tmp_path, "ed25519", "key", passphrase="abcdef" if what == "passphrase" else "")
    if what == "damaged":
        text = key.read_text()
        key.write_text(text[:150] + text[200:])
    path = f"{key}.pub" if what == "public" else str(key)
    error = refusal(board(key_file=path), limits)
    assert isinstance(error, Unreachable)
    assert error.cause == "key-unreadable"
    assert {"damaged": "damaged", "public": ".pub", "passphrase": "ssh-add"}[what] in str(error)


@contextlib.contextmanager
def ssh_agent(folder: Path, monkeypatch: pytest.MonkeyPatch, *keys: Path) -> Iterator[int]:
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed")
    path = folder / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it says where it listens when it does
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        for key in keys:
            subprocess.run(["ssh-add", "-q", key], check=True, timeout=30, stdin=subprocess.DEVNULL)
        yield process.pid
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_key_from_the_agent(
    sshd: sshd_server.Sshd, board: Maker, limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.remote.route.DEFAULT_KEYS", ())
    with ssh_agent(tmp_path, monkeypatch, sshd.key):
        assert greet(board(key_file=""), limits) == b"welcome"
        # A named key is the only one that is offered, whatever the agent holds.
        other = sshd_server.new_key(tmp_path, "ed25519", "other")
        error = refusal(board(key_file=str(other)), limits)
        assert isinstance(error, Unreachable)
        assert error.cause == "auth-failed"


def test_a_key_with_a_passphrase_that_lies_open_in_the_agent(
    sshd: sshd_server.Sshd, board: Maker, limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = sshd_server.new_key(tmp_path, "ed25519", "guarded")
    allow(sshd, key)
    with ssh_agent(tmp_path, monkeypatch, sshd_server.new_key(tmp_path, "ed25519", "other"), key):
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "abcdef", "-f", key], check=True, timeout=60)
        assert greet(board(key_file=str(key)), limits) == b"welcome"


def test_an_agent_that_hangs_is_left_alone(
    sshd: sshd_server.Sshd, board: Maker, limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.remote.login._AGENT_TIMEOUT", 0.5)
    monkeypatch.setattr("toolkit.remote.route.DEFAULT_KEYS", (str(sshd.key),))
    with ssh_agent(tmp_path, monkeypatch, sshd.key) as pid:
        os.kill(pid, signal.SIGSTOP)
        assert greet(board(key_file=""), limits) == b"welcome"


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
@pytest.mark.parametrize("good", [True, False])
def test_a_password_by_reference_that_shows_nowhere(
    method: str,
    good: bool,
    sshd: sshd_server.Sshd,
    board: Maker,
    limits: Limits,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(0)
    monkeypatch.setenv("BOARD_PASSWORD", "Mind@123-right" if good else "Mind@123-wrong")
    with bad_boards.sleepy("", sshd.host_keys[0], "Mind@123-right", method) as port:
        address = board(port=port, host_key=sshd.public(), password="env:BOARD_PASSWORD")
        if good:
            assert greet(address, limits) == b"welcome"
        else:
            error = refusal(address, limits)
            assert isinstance(error, Unreachable)
            assert error.cause == "auth-failed"
            assert "password" in str(error)
            shown = "".join(traceback.format_exception(error)) + repr(vars(error))
            assert "Mind@123" not in shown
    assert "Mind@123" not in caplog.text + repr(address)


def test_openssh_refuses_passwords_and_fingerprint_pins(board: Maker, limits: Limits) -> None:
    assert "ssh.client=fabric" in str(refusal(board(client="openssh", password="env:X"), limits))
    error = refusal(board(client="openssh", host_key="SHA256:" + "A" * 43), limits)
    assert "ssh.client=fabric" in error.hint


@clients
def test_ssh_config_names_host_port_user_and_key(
    client: str, sshd: sshd_server.Sshd, board: Maker, limits: Limits, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host dk-*\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.key}\n  IdentitiesOnly yes\n"
    )
    address = board(client=client, host="dk-7", port=22, user="", key_file="", ssh_config=str(config))
    assert greet(address, limits) == b"welcome"


@clients
def test_through_a_jump_host(
    client: str, sshd: sshd_server.Sshd, board: Maker, limits: Limits, tmp_path: Path
) -> None:
    with sshd_server.serve(tmp_path / "jump", options="AllowTcpForwarding yes") as jump:
        allow(jump, sshd.key)
        both = tmp_path / "known_hosts"
        both.write_text(jump.known_hosts.read_text() + sshd.known_hosts.read_text())
        through = f"{jump.user}@127.0.0.1:{jump.port}"
        address = board(client=client, jump=through, known_hosts=(str(both),))
        with bad_boards.Proxy(jump.port) as proxy:
            both.write_text(both.read_text().replace(f":{jump.port} ", f":{proxy.port} "))
            through = f"{jump.user}@127.0.0.1:{proxy.port}"
            address = board(client=client, jump=through, known_hosts=(str(both),))
            assert greet(address, limits) == b"welcome"
            assert proxy.connections == 1
            # The jump host's own key is checked as well.
            both.write_text(sshd.known_hosts.read_text())
            error = refusal(address, limits)
        assert isinstance(error, Unreachable)
        assert error.cause == "host-key-unknown"
        assert "jump host" in str(error)
        assert "ssh-keyscan" in error.hint
        assert "deploy trust" not in error.hint, "it reads boards' keys through this host"


@clients
def test_a_board_that_the_jump_host_cannot_reach(
    client: str, sshd: sshd_server.Sshd, board: Maker, limits: Limits
) -> None:
    with bad_boards.refused() as port:
        error = refusal(board(client=client, port=port, jump=f"{sshd.user}@127.0.0.1:{sshd.port}"), limits)
    assert isinstance(error, Unreachable)
    assert error.cause == "refused"
    assert "board.port" in error.hint


@clients
@pytest.mark.parametrize("cause", ["refused", "no-banner"])
def test_a_jump_host_that_is_not_there(
    client: str, cause: str, sshd: sshd_server.Sshd, board: Maker, limits: Limits
) -> None:
    server = bad_boards.refused() if cause == "refused" else bad_boards.talker(b"", hang_up=False)
    with server as port:
        error = refusal(board(client=client, jump=f"{sshd.user}@127.0.0.1:{port}"), limits)
    assert isinstance(error, Unreachable)
    assert error.cause == cause
    assert "jump host" in str(error)
    assert "jump host" in error.hint
    assert "board.port" not in error.hint


def test_jumps_from_ssh_config_and_in_a_circle(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host board\n  ProxyJump ann@gate:2200,inner\nHost gate\n  HostName 10.1.1.1\n"
        "Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n"
    )
    address = Address("b", "board", ssh_config=str(config), user="me")
    assert [(hop.user, hop.host, hop.port) for hop in route(address)][:2] == [
        ("ann", "10.1.1.1", 2200),
        (route(address)[1].user, "inner", 22),
    ]
    assert [hop.board for hop in route(address)] == [False, False, True]
    assert len(route(Address("b", "board", ssh_config=str(config), jump="none"))) == 1
    with pytest.raises(ConfigError, match="jump hosts"):
        route(Address("a", "a", ssh_config=str(config)))


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "-oProxyCommand=touch"},
        {"host": "a b"},
        {"host": "a\nb"},
        {"user": "-l"},
        {"user": "a;b"},
        {"user": "a\nb"},
        {"jump": "a b"},
        {"port": 70000},
    ],
)
def test_addresses_that_are_none(changes: dict[str, object]) -> None:
    fields: dict[str, object] = {"name": "x", "host": "h", "ssh_config": "", **changes}
    with pytest.raises(ConfigError):
        route(Address(**fields))  # type: ignore[arg-type]


def test_a_user_without_a_name(tmp_path: Path) -> None:
    """As in a container that runs as some number: getpass, which paramiko and Fabric call, finds nobody."""
    nameless = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if not shutil.which("unshare") or subprocess.run([*nameless, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    config = tmp_path / "config"
    config.write_text("Host b\n  IdentityFile %d/key\n")
    code = (
        "import sys; from toolkit.remote import agent, connector, route; from toolkit.remote.address import Address;"
        "connector.own_config();"
        "print(route.route(Address('b', 'b', ssh_config=sys.argv[1]))[0].user, agent.local_holder())"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("LOGNAME", "USER", "LNAME", "USERNAME")}
    command = [*nameless, sys.executable, "-c", code, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == f"uid-54321 uid-54321@{socket.gethostname()}\n", done.stderr


def test_a_boards_password_is_not_for_its_jump_hosts(
    sshd: sshd_server.Sshd, board: Maker, limits: Limits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BOARD_PASSWORD", "canary")
    monkeypatch.setenv("HOME", str(tmp_path))
    through = f"{sshd.user}@127.0.0.1:{sshd.port}"
    error = refusal(board(key_file="", password="env:BOARD_PASSWORD", jump=through), limits)
    assert "jump host" in str(error)
    assert "tried: nothing" in str(error)


def test_a_server_is_not_tried_with_more_keys_than_it_stands(
    sshd: sshd_server.Sshd, board: Maker, limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [sshd_server.new_key(tmp_path, "ed25519", f"key-{number}") for number in range(login._MAX_KEYS + 3)]
    config = tmp_path / "config"
    config.write_text("".join(f"IdentityFile {key}\n" for key in keys))
    error = refusal(board(key_file="", ssh_config=str(config)), limits)
    assert str(error).count("key-") == login._MAX_KEYS, "sshd hangs up after six"


def test_openssh_asks_nobody(
    sshd: sshd_server.Sshd, board: Maker, limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = sshd_server.new_key(tmp_path, "ed25519", "guarded", passphrase="abcdef")
    allow(sshd, key)  # or ssh would not even open it
    window = tmp_path / "askpass"
    window.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexit 1\n")
    window.chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(window))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    refusal(board(client="openssh", key_file=str(key)), limits)
    assert not (tmp_path / "asked").exists()
