"""A real OpenSSH server on a loopback port, for tests: its own host keys, account key and config.

Runs as whoever runs the tests and logs in as the same user (any other needs root). ``require()`` skips,
saying so, where there is no ``sshd``; CI installs it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_PLACES = "/usr/sbin:/usr/local/sbin:/usr/lib/openssh:/usr/bin"


def find() -> str | None:
    return shutil.which("sshd", path=os.environ.get("PATH", "") + os.pathsep + _PLACES)


def require() -> str:
    sshd = find()
    if sshd is None or shutil.which("ssh-keygen") is None:
        print(
            "NO SSHD: tests against a real OpenSSH server are skipped (install openssh-server)",
            file=sys.stderr,
        )
        pytest.skip("openssh-server is not installed")
    return sshd


def new_key(folder: Path, kind: str = "ed25519", name: str = "", passphrase: str = "") -> Path:
    """Make a key pair with ssh-keygen; return the path of the private half."""
    path = folder / (name or f"key_{kind}")
    bits = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *bits, "-N", passphrase, "-C", "", "-f", path],
        check=True,
        timeout=60,
    )
    return path


@dataclass
class Sshd:
    """A running server. ``key`` logs in; ``known_hosts`` knows it."""

    port: int
    key: Path
    host_keys: list[Path]
    folder: Path
    process: subprocess.Popen[bytes]
    user: str = field(default_factory=getpass.getuser)

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def public(self, index: int = 0) -> str:
        """``type base64`` of a host key."""
        return " ".join(Path(f"{self.host_keys[index]}.pub").read_text().split()[:2])

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def descendants(self) -> list[int]:
        """The process ids of the server's children, grandchildren…, without itself."""
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += [int(child) for child in (task / "children").read_text().split()]
        return found[1:]

    def stop_sessions(self) -> list[int]:
        """SIGSTOP what serves the connections, as a hanging board would do; they are killed at the end."""
        pids = self.descendants()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return pids


@contextlib.contextmanager
def serve(folder: Path, *, host_keys: tuple[str, ...] = ("ed25519",), options: str = "") -> Iterator[Sshd]:
    """Run an sshd with a fresh host key of each kind and one account key, until the block ends."""
    sshd = require()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's privilege separation wants it
    keys = [new_key(folder, kind, f"host_{kind}") for kind in host_keys]
    account = new_key(folder, "ed25519", "id_account")
    authorized = folder / "authorized_keys"
    shutil.copy(f"{account}.pub", authorized)
    authorized.chmod(0o600)
    for _ in range(20):
        port = _free_port()
        config = folder / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{port}\n"
            + "".join(f"HostKey {key}\n" for key in keys)
            + f"AuthorizedKeysFile {authorized}\nStrictModes no\nUsePAM no\nPidFile none\nLogLevel VERBOSE\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "MaxStartups 1000\nMaxSessions 1000\nUseDNS no\nPermitUserRC no\n"
            f"{options}\n"
        )
        process = subprocess.Popen([sshd, "-D", "-f", config, "-E", folder / "log"], stdin=subprocess.DEVNULL)
        if _listens(port, process):
            break
        process.wait(10)
    else:
        raise RuntimeError("sshd does not start: " + (folder / "log").read_text(errors="replace"))
    server = Sshd(port, account, keys, folder, process)
    server.known_hosts.write_text(
        "".join(f"[127.0.0.1]:{port} {server.public(index)}\n" for index in range(len(keys)))
    )
    try:
        yield server
    finally:
        # Children first: a session that is stopped would outlive its listener.
        for pid in server.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; False if it ended (somebody took the port meanwhile)."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as probe:
            probe.settimeout(5)
            if probe.recv(4) == b"SSH-":
                return True
        time.sleep(0.01)
    process.kill()
    return False
