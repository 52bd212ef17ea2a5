"""Signed releases: ours against OpenSSH's ssh-keygen, the board's own arithmetic, and boards that refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.artefacts import signing
from toolkit.artefacts.manifest import Release, ReleaseFile, blobs_of
from toolkit.artefacts.signing import NAMESPACE, Signer
from toolkit.config.schema import SignSettings
from toolkit.errors import BoardRefused, ConfigError, InputError
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent

AGENT = Path(__file__).resolve().parents[2] / "toolkit" / "onboard" / "agent.py"
RELEASE = Release("app", (ReleaseFile("model.om", "0" * 64, 3),), {"für": "alle"})


@pytest.fixture(scope="module")
def board_side() -> dict[str, Any]:
    """The agent's functions, which nothing in the program imports."""
    names: dict[str, Any] = {"__name__": "agent"}
    exec(compile(AGENT.read_text(encoding="utf-8"), str(AGENT), "exec"), names)
    return names


def new_key(folder: Path, name: str = "key", kind: str = "ed25519", passphrase: str = "") -> Path:
    path = folder / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-f", str(path)], check=True, timeout=60
    )
    return path


def signer(path: Path) -> Signer:
    made = Signer.from_settings(SignSettings("ssh-key", str(path)))
    assert made is not None
    return made


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_openssh_accepts_what_we_sign_and_we_accept_what_it_signs(tmp_path: Path, board_side: Any) -> None:
    ours = signer(new_key(tmp_path))
    allowed, message = tmp_path / "allowed", RELEASE.text.encode()
    allowed.write_text(f'anna namespaces="{NAMESPACE}" {ours.public} a comment\n')
    (tmp_path / "message.sig").write_text(ours.sign(RELEASE))
    arguments = ["-f", allowed, "-I", "anna", "-n", NAMESPACE, "-s", tmp_path / "message.sig"]
    subprocess.run(["ssh-keygen", "-Y", "verify", *arguments], input=message, check=True, timeout=60)
    theirs = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", tmp_path / "key", "-n", NAMESPACE],
        input=message,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout.decode()
    assert theirs == ours.sign(RELEASE), "ed25519 signs the same in the same way"
    assert signing.verify(message, theirs, allowed.read_text()) == "anna"
    assert board_side["signature_problem"](message, theirs, allowed.read_text()) == ""


def test_one_changed_bit_anywhere_and_near_and_far_side_refuse(tmp_path: Path, board_side: Any) -> None:
    ours, other = signer(new_key(tmp_path)), signer(new_key(tmp_path, "other"))
    message, armored = RELEASE.text.encode(), ours.sign(RELEASE)
    allowed = f"anna {ours.public}\n"
    body = armored.index("\n") + 1
    for changed, with_, keys in [
        *((flipped(message, place), armored, allowed) for place in (0, 50, len(message) - 1)),
        *(
            (message, armored[:at] + ("A" if armored[at] != "A" else "B") + armored[at + 1 :], allowed)
            for at in range(body, armored.index("\n-----END") - 4, 23)
        ),
        (message, other.sign(RELEASE), allowed),
        (message, armored, f"anna {other.public}\n"),
        (message, armored, f"# anna {ours.public}\n"),
        (message, armored, f"anna cert-authority {ours.public}\n"),
        (message, armored, f'anna valid-before="20200101" {ours.public}\n'),
        (message, armored, ""),
        (message, "", allowed),
        (message, armored.replace("BEGIN", "").replace("-----", ""), allowed),
    ]:
        if with_ == armored and (changed, keys) == (message, allowed):
            continue
        with pytest.raises(InputError):
            signing.verify(changed, with_, keys)
        assert board_side["signature_problem"](changed, with_, keys), (with_, keys)


def test_a_signature_for_something_else_does_not_fit(tmp_path: Path, board_side: Any) -> None:
    key, message = new_key(tmp_path), RELEASE.text.encode()
    allowed = f"anna {signer(key).public}\n"
    for namespace, hash_name in (("file", "sha512"), (NAMESPACE, "sha256")):
        armored = subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-f", key, "-n", namespace, "-O", f"hashalg={hash_name}"],
            input=message,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout.decode()
        with pytest.raises(InputError):
            signing.verify(message, armored, allowed)
        assert board_side["signature_problem"](message, armored, allowed)


@settings(max_examples=12, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200), place=st.integers(0, 511))
def test_the_boards_ed25519_agrees_with_openssls(seed: bytes, message: bytes, place: int) -> None:
    names: dict[str, Any] = {"__name__": "agent"}
    exec(compile(AGENT.read_text(encoding="utf-8"), str(AGENT), "exec"), names)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = key.sign(message)
    assert names["ed25519_fits"](public, message, signature)
    assert not names["ed25519_fits"](public, message + b"!", signature)
    damaged = bytearray(signature)
    damaged[place // 8] ^= 1 << place % 8
    try:
        fits = names["ed25519_fits"](public, message, bytes(damaged))
    except ValueError:
        fits = False  # no point of the curve
    assert not fits


def test_a_malleable_signature_is_refused(board_side: Any) -> None:
    """RFC 8032 wants S below the group's order: S + L would be another signature of the same message."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = key.sign(b"m")
    larger = int.from_bytes(signature[32:], "little") + board_side["ORDER"]
    assert not board_side["ed25519_fits"](public, b"m", signature[:32] + larger.to_bytes(32, "little"))


def test_keys_that_cannot_sign_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = new_key(tmp_path, "locked", passphrase="open sesame")
    with pytest.raises(ConfigError, match=r"sign\.key"):
        signer(locked)
    monkeypatch.setenv("PHRASE", "open sesame")
    assert Signer.from_settings(SignSettings("ssh-key", str(locked), "env:PHRASE")) is not None
    for path in (new_key(tmp_path, "rsa", "rsa"), tmp_path / "absent"):
        with pytest.raises(ConfigError, match=r"sign\.key"):
            signer(path)
    assert Signer.from_settings(SignSettings()) is None
    assert list(signing.problems(SignSettings("ssh-key")))
    assert "open sesame" not in str(list(signing.problems(SignSettings("ssh-key", "k", "open sesame"))))


# ------------------------------------------------------------------------------------------ boards


class Board:
    """A real agent on this machine, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.app = self.root / "app"
        self.folder = folder

    def release(self, text: str) -> tuple[Release, dict[str, Path]]:
        path = self.folder / f"file-{text}"
        path.write_text(text)
        return Release.of_files("app", {"file.txt": path}), {"file.txt": path}

    def trust(self, *lines: str) -> None:
        self.app.mkdir(parents=True, exist_ok=True)
        (self.app / "allowed_signers").write_text("".join(line + "\n" for line in lines))

    def session(self) -> BoardAgent:
        address = Address("board", "local", client="local", interpreters=(sys.executable,))
        agent = BoardAgent.connect(address, Limits())
        agent.inspect(str(self.root), "app")
        return agent

    def install(self, text: str) -> Release:
        release, files = self.release(text)
        with self.session() as agent:
            agent.install(release, blobs_of(release, files), "")
        return release

    def switch(self, release: Release, signature: str = "") -> str:
        """Cause of the refusal, or ""."""
        with self.session() as agent:
            try:
                agent.switch(release.id, 0, signature)
            except BoardRefused as error:
                return error.cause
            return ""

    @property
    def current(self) -> str:
        link = self.app / "current"
        return link.readlink().name if link.is_symlink() else ""


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_without_keys_and_signatures_nothing_is_asked(board: Board) -> None:
    release = board.install("one")
    assert board.switch(release) == ""
    assert board.current == release.id


def test_a_board_with_keys_takes_signed_releases_only(board: Board, tmp_path: Path) -> None:
    ours, other = signer(new_key(tmp_path)), signer(new_key(tmp_path, "other"))
    board.trust(f"anna {ours.public}")
    one, two = board.install("one"), board.install("two")
    for signature in ("", other.sign(one), ours.sign(two), "nonsense"):
        assert board.switch(one, signature) == "signature"
        assert board.current == ""
    assert board.switch(one, ours.sign(one)) == ""
    assert board.switch(two, ours.sign(two)) == ""
    assert board.current == two.id


def test_going_back_asks_for_the_kept_signature(board: Board, tmp_path: Path) -> None:
    ours = signer(new_key(tmp_path))
    unsigned = board.install("zero")
    board.trust(f"anna {ours.public}")
    one, two = board.install("one"), board.install("two")
    assert board.switch(one, ours.sign(one)) == ""
    assert board.switch(two, ours.sign(two)) == ""
    with board.session() as agent:
        assert agent.revert() == one.id
    with board.session() as agent, pytest.raises(BoardRefused) as refusal:
        agent.revert(unsigned.id)
    assert refusal.value.cause == "signature"
    assert board.current == one.id


def test_a_refusal_says_what_to_do(board: Board, tmp_path: Path) -> None:
    """Signing for a board without keys is refused: somebody thinks it checks, and it would not."""
    ours, place = signer(new_key(tmp_path)), board.app / "allowed_signers"
    release = board.install("one")

    def hint(signature: str) -> str:
        with board.session() as agent, pytest.raises(BoardRefused) as refusal:
            agent.switch(release.id, 0, signature)
        assert refusal.value.cause == "signature"
        return refusal.value.hint

    assert hint(ours.sign(release)) == (
        f"write a line with a name and the public key, NAME ssh-ed25519 AAAA..., into {place} there"
    )
    board.trust(f"anna {signer(new_key(tmp_path, 'other')).public}")
    assert hint("") == f"sign it: sign=ssh-key sign.key=FILE; the keys that count stand in {place}"
    assert hint(ours.sign(release)) == f"the keys that count stand in {place}, a line each: NAME ssh-ed25519 AAAA..."
    board.trust(f"anna {ours.public}")
    assert board.switch(release, ours.sign(release)) == ""


def test_a_signed_manifest_that_was_replaced_on_the_board_is_refused(board: Board, tmp_path: Path) -> None:
    ours = signer(new_key(tmp_path))
    board.trust(f"anna {ours.public}")
    one, two = board.install("one"), board.install("two")
    manifest = board.app / "releases" / one.id / "manifest.json"
    manifest.unlink()
    manifest.write_text(two.text)
    assert board.switch(one, ours.sign(two)) == "signature"
