"""Fixtures: one OpenSSH server for the session, addresses that lead to it, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sshd as sshd_server

from toolkit.remote.address import Address, Limits
from toolkit.remote.watchdog import WATCHDOG


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd_server.Sshd]:
    with sshd_server.serve(tmp_path_factory.mktemp("sshd"), host_keys=("ed25519", "rsa", "ecdsa")) as server:
        yield server


AddressMaker = Callable[..., Address]


@pytest.fixture
def board(sshd: sshd_server.Sshd) -> AddressMaker:
    """Make an address of the server; keywords change it. Nothing of the user's own ~/.ssh is looked at."""

    def make(**changes: object) -> Address:
        fields: dict[str, object] = {
            "name": "board-1",
            "host": "127.0.0.1",
            "port": sshd.port,
            "user": sshd.user,
            "key_file": str(sshd.key),
            "known_hosts": (str(sshd.known_hosts),),
            "ssh_config": "",
        }
        return Address(**{**fields, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def limits() -> Limits:
    return Limits(connect=10, banner=20, auth=20, channel=20, silence=30, board=120)


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Every test gives its threads back: the watchdog's, paramiko's, its own."""
    before = set(threading.enumerate())
    yield
    WATCHDOG.join()
    end = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left, left
