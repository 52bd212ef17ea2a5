"""``deploy trust``: reading host keys without logging in, pinning them; secrets and argv."""

from __future__ import annotations

import os
import pickle
import shlex
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sshd as sshd_server
from hypothesis import given
from hypothesis import strategies as st
from test_hostkeys import hashed, make_key

from toolkit.errors import ConfigError, InputError
from toolkit.remote import trust
from toolkit.remote.address import Address, Limits
from toolkit.remote.argv import shell_line
from toolkit.remote.line import open_line
from toolkit.remote.secrets import Secret, resolve
from toolkit.remote.text import plain

A, B, RSA = make_key("a"), make_key("b"), make_key("r", "ssh-rsa")
NAME = "[10.0.0.1]:2222"


def test_reading_keys_and_pinning_them_makes_a_board_reachable(
    sshd: sshd_server.Sshd, board: Callable[..., Address], limits: Limits, tmp_path: Path
) -> None:
    path = tmp_path / "ssh" / "known_hosts"
    address = board(known_hosts=(str(path),), key_file=str(tmp_path / "not needed"))
    before = sshd.log().count("Accepted ")
    keys = trust.shown_keys(address, limits)
    assert sshd.log().count("Accepted ") == before
    assert {str(key) for key in keys} == {sshd.public(n) for n in range(3)}
    assert trust.known_keys(address) == []
    assert trust.pin(path, trust.listed_name(address), keys) == keys
    assert trust.known_keys(address) == keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    line = open_line(board(known_hosts=(str(path),)), limits, "printf hello")
    assert line.recv(10) == b"hello"
    line.close()
    # OpenSSH reads it as well.
    found = subprocess.run(
        ["ssh-keygen", "-F", trust.listed_name(address), "-f", path],
        capture_output=True,
        check=True,
        text=True,
    )
    assert sshd.public() in found.stdout


def test_all_other_lines_stay_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    rest = f"# mine\r\n\n  other {A} comment\n@revoked {NAME} {A}\n* {B}\nbroken \xe9\n".encode("latin-1")
    path.write_bytes(rest + f"x,{NAME} {A}\n{hashed(NAME)} {A}\nlast {A}".encode())
    assert trust.pin(path, NAME, [B], replace=True) == [B]
    assert path.read_bytes() == rest + f"x {A}\nlast {A}\n{NAME} {B}\n".encode()


def test_a_changed_key_is_replaced_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    trust.pin(path, NAME, [A, RSA])
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another ssh-ed25519"):
        trust.pin(path, NAME, [B])
    assert path.read_bytes() == before
    assert trust.pin(path, NAME, [A]) == []
    assert path.read_bytes() == before
    assert trust.pin(path, NAME, [B], replace=True) == [B]
    assert path.read_text() == f"{NAME} {B}\n"


def test_link_and_mode_are_kept_and_nothing_is_left_beside(tmp_path: Path) -> None:
    folder = tmp_path / "ssh"
    folder.mkdir()
    real = folder / "real"
    real.write_text(f"one {A}\n")
    real.chmod(0o644)
    link = folder / "known_hosts"
    link.symlink_to(real)
    trust.pin(link, NAME, [B])
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o644
    assert sorted(p.name for p in folder.iterdir()) == ["known_hosts", "real"]


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    threads = [
        threading.Thread(target=trust.pin, args=(path, f"board-{n}", [make_key(str(n))])) for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_text().splitlines()) == sorted(f"board-{n} {make_key(str(n))}" for n in range(12))


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        trust.pin(tmp_path / "file" / "known_hosts", NAME, [A])


def test_secrets_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_SECRET", "s3cret")
    assert resolve("env:THE_SECRET") == "s3cret"
    (tmp_path / "secret").write_text(" s3cret \n")
    assert resolve(f"file:{tmp_path}/secret") == " s3cret "


@pytest.mark.parametrize(
    "reference",
    [
        "env:NOT_THERE_AT_ALL",
        "file:/not/there",
        "keyring:service",
        "keyring:a,b",
        "s3cret",
        "env:",
        "x:s3cret",
    ],
)
def test_references_that_lead_nowhere(reference: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(reference)
    assert "s3cret" not in str(caught.value) + caught.value.hint


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("s3cret")
    assert "s3cret" not in f"{secret} {secret!r} {secret!s:>30} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret.reveal() == "s3cret"


words = st.text(st.characters(blacklist_characters="\0\n\r", blacklist_categories=("Cs",)))


@given(st.lists(words, min_size=1))
def test_a_line_for_the_shell_splits_into_the_same_words(argv: list[str]) -> None:
    assert shlex.split(shell_line(argv)) == argv


def test_a_real_shell_sees_the_same_words() -> None:
    argv = ["printf", "%s|", "a b", "$HOME", "`id`", "'", '"', "\\", "", "*", "ä;", "-n", "!x"]
    out = subprocess.run(["sh", "-c", shell_line(argv)], capture_output=True, check=True).stdout
    assert out.decode() == "|".join(argv[2:]) + "|"


@pytest.mark.parametrize("argv", [[], ["a\nb"], ["a\0b"], ["a\rb"]])
def test_words_that_no_shell_can_carry(argv: list[str]) -> None:
    with pytest.raises(ConfigError):
        shell_line(argv)


@given(st.binary(max_size=300))
def test_nothing_that_a_terminal_obeys_gets_through(raw: bytes) -> None:
    text = plain(raw)
    assert not any(ord(c) < 32 and c != "\t" for c in text)
    assert "\x7f" not in text
    assert len(text) <= 400


@given(st.text(st.characters(codec=None, categories=None), max_size=50))
def test_all_that_gets_through_can_be_printed_and_written_on_one_line(raw: str) -> None:
    text = plain(raw)
    assert text.encode().decode() == text
    assert len(text.splitlines()) <= 1


def test_marks_that_turn_text_around_are_taken_out() -> None:
    assert plain("a\u202egpj.exe\u2066b\u200f") == "agpj.exeb"


def test_no_folder_but_the_file_is_touched(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o750)
    trust.pin(tmp_path / "known_hosts", NAME, [A])
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
