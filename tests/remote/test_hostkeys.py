"""known_hosts: read in linear time, asked strictly."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
from pathlib import Path

import pytest
import sshd as sshd_server
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ConfigError, Unreachable
from toolkit.remote import hostkeys
from toolkit.remote.address import Address
from toolkit.remote.hostkeys import HostKey, HostKeyCheck, KnownHosts, host_name, parse_line


def make_key(seed: str, kind: str = "ssh-ed25519") -> HostKey:
    """A key of the right shape; nobody needs its private half here."""
    raw = kind.encode()
    body = hashlib.sha256(seed.encode()).digest()
    return HostKey(kind, len(raw).to_bytes(4, "big") + raw + len(body).to_bytes(4, "big") + body)


def hashed(name: str, salt: bytes = b"s" * 20) -> str:
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def read(*lines: str) -> KnownHosts:
    known = KnownHosts()
    known.read("\n".join(lines) + "\n", "known_hosts")
    return known


def check(path: Path, host: str = "board", port: int = 22, **options: str) -> HostKeyCheck:
    address = Address("board-1", host, port=port, known_hosts=(str(path),))
    return HostKeyCheck(address, host, port, **options)


A, B, RSA = make_key("a"), make_key("b"), make_key("r", "ssh-rsa")


def test_10000_lines_are_read_once_and_a_look_up_is_one_hmac_per_hashed_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "known_hosts"
    lines = [f"plain-{n},10.0.{n // 250}.{n % 250} {make_key(str(n))}" for n in range(5000)]
    lines += [f"{hashed(f'hidden-{n}', os.urandom(20))} {make_key(f'h{n}')}" for n in range(5000)]
    path.write_text("\n".join(lines))
    known = hostkeys.load([str(path)])
    assert known.work.lines == 10_000
    assert known.work.hmacs == 0
    assert [e.key for e in known.find("plain-4999")] == [make_key("4999")]
    assert known.work.hmacs == 5000
    assert [e.key for e in known.find("hidden-123")] == [make_key("h123")]
    assert known.work.hmacs == 10_000
    # Every further board of the process asks the same object, and no line is read again.
    for _ in range(10):
        assert hostkeys.load([str(path)]) is known
    assert known.work.lines == 10_000


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"one {A}\n")
    assert hostkeys.load([str(path)]).find("one")
    path.write_text(f"one {A}\ntwo {B}\n")
    assert hostkeys.load([str(path)]).find("two")


@pytest.mark.parametrize("hash_names", [False, True])
def test_it_reads_what_openssh_writes(sshd: sshd_server.Sshd, tmp_path: Path, hash_names: bool) -> None:
    path = tmp_path / "known_hosts"
    command = ["ssh-keyscan", "-p", str(sshd.port), *(["-H"] if hash_names else []), "127.0.0.1"]
    path.write_bytes(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    found = hostkeys.load([str(path)]).find(host_name("127.0.0.1", sshd.port))
    assert {str(entry.key) for entry in found} == {sshd.public(n) for n in range(3)}
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", f"{sshd.host_keys[0]}.pub"], capture_output=True, check=True, text=True
    ).stdout
    assert parse_line(f"x {sshd.public()}", "").key.fingerprint in shown  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        ("board", "board", True),
        ("board", "boards", False),
        ("Board", "bOARD", True),
        ("a,board,10.0.0.1", "10.0.0.1", True),
        ("[board]:2222", "[board]:2222", True),
        ("[board]:2222", "board", False),
        ("board", "[board]:2222", False),
        ("*.lab", "a.lab", True),
        ("*.lab,!b.lab", "b.lab", False),
        ("!b.lab", "a.lab", False),
        ("10.0.0.?", "10.0.0.7", True),
        ("10.0.0.?", "10x0.0.7", False),
        ("[10.0.0.*]:22*", "[10.0.0.9]:2201", True),
        ("fe80::1", "fe80::1", True),
    ],
)
def test_names(names: str, asked: str, found: bool) -> None:
    assert bool(read(f"{names} {A}").find(asked)) is found
    if names == asked:
        assert read(f"{hashed(names)} {A}").find(asked)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# board ssh-ed25519 AAAA",
        "board",
        "board ssh-ed25519",
        "board ssh-ed25519 !!!!",
        f"board ssh-rsa {str(A).split()[1]}",  # says rsa, is ed25519
        f"@nobody-knows board {A}",
        f"@revoked {A}",
        "|1|broken board AAAA",
    ],
)
def test_damaged_lines_are_no_keys(line: str) -> None:
    assert read(line).find("board") == []


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    known = KnownHosts()
    known.read(text, "known_hosts")
    assert known.find("board") == []


def test_the_known_key_is_taken_and_its_type_asked_for_first(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"board {RSA}\n")
    asked = check(path)
    assert asked.key_types()[:3] == ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519")
    asked(RSA)
    assert asked.shown == RSA


@pytest.mark.parametrize(
    ("line", "shown", "cause"),
    [
        ("", A, "host-key-unknown"),
        (f"other {A}", A, "host-key-unknown"),
        (f"board {A}", B, "host-key-changed"),
        (f"board {A}", RSA, "host-key-changed"),
        (f"board {A}\n@revoked * {A}", A, "host-key-changed"),
        (f"@cert-authority board {A}", A, "host-key-unknown"),
        (f"@revoked board {A}", B, "host-key-unknown"),
    ],
)
def test_what_is_not_known_stops_the_board(tmp_path: Path, line: str, shown: HostKey, cause: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(line)
    with pytest.raises(Unreachable) as caught:
        check(path)(shown)
    assert caught.value.cause == cause
    assert caught.value.host == "board-1"
    assert shown.fingerprint in str(caught.value)
    if "revoked *" not in line:
        assert "deploy trust hosts=board-1" in caught.value.hint


def test_the_key_of_a_jump_host_is_not_pinned_through_itself(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    address = Address("board-1", "board", known_hosts=(str(path),))
    hints = {"": "then: ssh-keyscan -p 2222 jump >> ", f"[jump]:2222 {B}": "then: ssh-keygen -R '[jump]"}
    for known, command in hints.items():
        path.write_text(known)
        with pytest.raises(Unreachable) as caught:
            HostKeyCheck(address, "jump", 2222, who="board-1: jump host jump")(A)
        assert command in caught.value.hint
        assert "deploy trust" not in caught.value.hint


def test_a_key_known_without_port_counts_for_other_ports(
    tmp_path: Path,
) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"board {A}\n")
    check(path, port=2222)(A)
    with pytest.raises(Unreachable) as caught:
        check(path, port=2222)(B)
    assert caught.value.cause == "host-key-unknown"


def test_an_alias_stands_for_host_and_port(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"factory-7 {A}\n")
    check(path, "10.0.0.7", 2222, alias="factory-7")(A)


@pytest.mark.parametrize("pin", [str(A), f"{A} with a comment", A.fingerprint, A.fingerprint + "="])
def test_a_pin_is_the_only_truth(tmp_path: Path, pin: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"board {B}\n")
    check(path, pinned=pin)(A)
    with pytest.raises(Unreachable) as caught:
        check(path, pinned=pin)(B)
    assert caught.value.cause == "host-key-changed"


@pytest.mark.parametrize("pin", ["SHA256:short", "ssh-ed25519", "ssh-ed25519 AAAA", "MD5:aa:bb"])
def test_a_pin_that_is_none(tmp_path: Path, pin: str) -> None:
    with pytest.raises(ConfigError, match="neither"):
        check(tmp_path / "none", pinned=pin)
