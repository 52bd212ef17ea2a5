"""Boards on one machine: a network namespace, a PID namespace, a mount namespace and a real sshd each.

::

    client ──veth── hub ──bridge── board-1, board-2, …        the near way, no delay
       └────tun── delay.py ──tun──┘                           the far way, both directions delayed

The machine's own network is not touched: addresses, routes and the bridge are inside the namespaces, which
have no way out of them. Nor are its accounts: the login user stands in copies of /etc/passwd and its kin that
only the boards see, each with a /home, /run and /tmp of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

USER = "HwHiAiUser"
UID = 54321
CHECKOUT = Path(__file__).resolve().parent.parent.parent

# 198.18.0.0/15 is set aside for benchmarks of networks (RFC 2544).
_BOARDS_NET = "198.18.0.0/16"
_HUB, _CLIENT, _CLIENT_HUB = "198.18.255.254", "198.19.0.1", "198.19.0.2"
_FAR_CLIENT, _FAR_HUB = "198.19.1.1", "198.19.1.2"

_number = itertools.count(1)

_BOARD = """
set -e
ip link set lo up; ip link set eth0 up; ip addr add {host}/16 dev eth0; ip route add default via {hub}
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
cp {folder}/host_key {common}/authorized_keys {common}/sshd_config /run/sshd/
chmod 600 /run/sshd/host_key
for file in passwd group shadow; do mount --bind {common}/$file /etc/$file; done
mount --bind {folder}/home /home
mount --bind {folder}/tmp /tmp
cd /
exec {sshd} -D -e -f /run/sshd/sshd_config
"""

# Debian's defaults, but for what keeps 200 logins at once from being turned away, and where things lie.
_SSHD_CONFIG = """
HostKey /run/sshd/host_key
AuthorizedKeysFile /run/sshd/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 1000
PrintMotd no
AcceptEnv LANG LC_*
LogLevel ERROR
Subsystem sftp /usr/lib/openssh/sftp-server
"""


@dataclass(frozen=True)
class Board:
    """One board, seen from the machine that it runs on. ``home``: its login user's home folder."""

    name: str
    host: str
    home: Path
    netns: str


def missing_tools() -> list[str]:
    """What this machine lacks for making boards; each a word with what to install."""
    if os.geteuid() != 0:
        return ["root (network namespaces need it)"]
    wanted = {
        "ip": "iproute2",
        "unshare": "util-linux",
        "setpriv": "util-linux",
        "ssh-keygen": "openssh-client",
        "ssh": "openssh-client",
        "/usr/sbin/sshd": "openssh-server",
        "/usr/bin/python3": "python3",
    }
    lacking = [f"{tool} (apt install {package})" for tool, package in wanted.items() if not shutil.which(tool)]
    if not Path("/dev/net/tun").exists():
        lacking.append("/dev/net/tun (the tun module)")
    return lacking


class Fleet:
    """Boards that are up, a namespace for the client, and a line to it with a delay. A context manager.

    ``folder``: a new folder for all that belongs to the boards; their disk is where it lies. All processes
    end with the ``with`` block, with this process at the latest; what a killed process left behind in names
    is swept by the next one.
    """

    def __init__(self, count: int, folder: Path) -> None:
        if not 1 <= count <= 1000:
            raise ValueError(f"{count} boards: 1 to 1000 are possible on one bridge")
        self.folder = folder
        self._prefix = f"fleet{os.getpid()}-{next(_number)}-"
        self.client = f"{self._prefix}client"
        self._hub = f"{self._prefix}hub"
        self.boards = [
            Board(
                name=f"board-{number}",
                host=f"198.18.{number // 250}.{number % 250 + 1}",
                home=folder / f"board-{number}" / "home" / USER,
                netns=f"{self._prefix}b{number}",
            )
            for number in range(1, count + 1)
        ]
        self.key = folder / "key"
        self.known_hosts = folder / "known_hosts"
        self._processes: list[subprocess.Popen[Any]] = []
        self._delay: subprocess.Popen[str] | None = None

    def __enter__(self) -> Fleet:
        try:
            _sweep()
            self._files()
            self._network()
            self._start_delay()
            self.set_rtt(0)
            self._start_boards()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every board and remove the namespaces. Boards' files stay: the folder is the caller's."""
        if self._delay is not None:
            self._delay.kill()
            self._delay = None
        end(self._processes)
        self._processes.clear()
        for name in _namespaces():
            if name.startswith(self._prefix):
                subprocess.run(["ip", "netns", "del", name], check=False)

    # -- making

    def _files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _keygen(self.key)
        common = self.folder / "common"
        common.mkdir()
        (common / "authorized_keys").write_bytes(self.key.with_suffix(".pub").read_bytes())
        (common / "sshd_config").write_text(_SSHD_CONFIG)
        for name, line in {
            "passwd": f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash\n",
            "group": f"{USER}:x:{UID}:\n",
            "shadow": f"{USER}:*:19000::::::\n",
        }.items():
            lines = Path("/etc", name).read_text().splitlines(keepends=True)
            text = "".join(entry for entry in lines if not entry.startswith(f"{USER}:"))
            (common / name).write_text(text + line)
            (common / name).chmod(0o600 if name == "shadow" else 0o644)
        known = []
        for board in self.boards:
            place = self.folder / board.name
            board.home.mkdir(parents=True)
            (place / "tmp").mkdir()
            (place / "tmp").chmod(0o1777)
            _keygen(place / "host_key")
            kind, key = (place / "host_key.pub").read_text().split()[:2]
            known.append(f"{board.host},{board.name} {kind} {key}\n")
        self.known_hosts.write_text("".join(known))
        self.wipe()

    def wipe(self) -> None:
        """Homes and /tmp as on a new board."""
        for board in self.boards:
            for folder in (board.home, self.folder / board.name / "tmp"):
                for entry in folder.iterdir():
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry)
                    else:
                        entry.unlink()
            for name in (".bashrc", ".profile"):
                skeleton = Path("/etc/skel", name)
                (board.home / name).write_bytes(skeleton.read_bytes() if skeleton.exists() else b"")
                os.chown(board.home / name, UID, UID)
            os.chown(board.home, UID, UID)

    def _network(self) -> None:
        names = [self._hub, self.client, *(board.netns for board in self.boards)]
        _ip("".join(f"netns add {name}\n" for name in names))
        lines = [
            "link set lo up",
            "link add br0 type bridge",
            f"addr add {_HUB}/16 dev br0",
            "link set br0 up",
            f"link add h0 type veth peer name c0 netns {self.client}",
            f"addr add {_CLIENT_HUB}/30 dev h0",
            "link set h0 up",
        ]
        for number, board in enumerate(self.boards):
            lines += [
                f"link add p{number} type veth peer name eth0 netns {board.netns}",
                f"link set p{number} master br0",
                f"link set p{number} up",
            ]
        _ip("\n".join(lines) + "\n", self._hub)
        _ip(f"link set lo up\naddr add {_CLIENT}/30 dev c0\nlink set c0 up\n", self.client)
        forward = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]
        subprocess.run(["ip", "netns", "exec", self._hub, *forward], check=True)

    def _start_delay(self) -> None:
        program = Path(__file__).with_name("delay.py")
        self._delay = subprocess.Popen(
            [*_DIES_WITH_US, "ip", "netns", "exec", self._hub, sys.executable, str(program), self.client],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(self._delay)
        self.ask_delay("ready")
        _ip(f"addr add {_FAR_HUB} peer {_FAR_CLIENT} dev t1\nlink set t1 up\n", self._hub)
        _ip(f"addr add {_FAR_CLIENT} peer {_FAR_HUB} dev t0\nlink set t0 up\n", self.client)

    def ask_delay(self, question: str) -> dict[str, Any]:
        """One line to the delay line's process, one JSON object back (see delay.py)."""
        assert self._delay is not None
        assert self._delay.stdin is not None
        assert self._delay.stdout is not None
        self._delay.stdin.write(question + "\n")
        self._delay.stdin.flush()
        answer: dict[str, Any] = json.loads(self._delay.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            raise RuntimeError(f"the delay line: {answer['error']}")
        return answer

    def set_rtt(self, milliseconds: float) -> None:
        """How far the boards are from the client from now on. 0: over the bridge, without the delay line."""
        if milliseconds:
            self.ask_delay(f"rtt {milliseconds}")
            _ip(f"route replace {_BOARDS_NET} dev t0 src {_FAR_CLIENT}\n", self.client)
        else:
            _ip(f"route replace {_BOARDS_NET} via {_CLIENT_HUB} src {_CLIENT}\n", self.client)

    def _start_boards(self) -> None:
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        common = self.folder / "common"
        for board in self.boards:
            place = self.folder / board.name
            script = _BOARD.format(host=board.host, hub=_HUB, folder=place, common=common, sshd=sshd)
            command = ["ip", "netns", "exec", board.netns, "unshare", "-m", "-p", "--fork", "--kill-child"]
            with (place / "sshd.log").open("wb") as log:
                self._processes.append(
                    subprocess.Popen(
                        [*_DIES_WITH_US, *command, "--mount-proc", "sh", "-c", script],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
        command = ["ip", "netns", "exec", self.client, sys.executable, "-c", _WAIT]
        answer = subprocess.run(
            command,
            input="\n".join(board.host for board in self.boards),
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            log = (self.folder / self.boards[0].name / "sshd.log").read_text()
            raise RuntimeError(f"boards did not come up: {answer.stderr.strip()}; sshd says: {log.strip()}")

    def write_ssh_config(self, path: Path, *more: str) -> Path:
        """A config for ssh(1) with every board in it and the options that a careful user would set."""
        general = [
            f"User {USER}",
            f"IdentityFile {self.key}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
            "StrictHostKeyChecking yes",
            # The post-quantum default takes ten times the CPU of a connection.
            "KexAlgorithms curve25519-sha256",
            "Ciphers aes128-gcm@openssh.com",
            "HostKeyAlgorithms ssh-ed25519",
            "PreferredAuthentications publickey",
            "GSSAPIAuthentication no",
            "Compression no",
            "LogLevel ERROR",
            *more,
        ]
        hosts = [f"Host {board.name}\n  HostName {board.host}\n" for board in self.boards]
        path.write_text("".join(hosts) + "Host *\n" + "".join(f"  {line}\n" for line in general))
        return path


_DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"]

_WAIT = """
import socket, sys, time
end = time.monotonic() + 60
for host in sys.stdin.read().split():
    while True:
        try:
            with socket.create_connection((host, 22), 5) as line:
                if line.recv(4) == b"SSH-":
                    break
        except OSError:
            pass
        if time.monotonic() > end:
            sys.exit(host + " does not answer")
        time.sleep(0.05)
"""


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fleet", "-f", path], check=True)


def _ip(batch: str, netns: str = "") -> None:
    where = ["-n", netns] if netns else []
    answer = subprocess.run(["ip", *where, "-batch", "-"], input=batch, text=True, capture_output=True, check=False)
    if answer.returncode != 0:
        raise RuntimeError(f"ip {' '.join(where)}: {answer.stderr.strip()}")


def _namespaces() -> Sequence[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir("/run/netns"))
    return ()


def _sweep() -> None:
    """Remove what a killed run left behind: namespaces named after processes that are gone."""
    for name in _namespaces():
        found = re.fullmatch(r"fleet(\d+)-\d+-(hub|client|b\d+)", name)
        if found and not Path("/proc", found[1]).exists():
            subprocess.run(["ip", "netns", "del", name], check=False)


def end(processes: Sequence[subprocess.Popen[Any]]) -> None:
    """Kill ``unshare --fork`` processes from below, and wait for them.

    The child is the first process of a PID namespace and takes all of it along. Killed from above, it would
    become an orphan, and not every machine's init (containers!) collects those.
    """
    parents = {process.pid for process in processes if process.poll() is None}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and parents:
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) in parents:
                    os.kill(int(entry.name), signal.SIGKILL)
    for process in processes:
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:  # it had no child
            process.kill()
            process.wait()


def settle(seconds: float = 0.2) -> None:
    """Between two measurements: what was written reaches the disk, and ending processes end."""
    os.sync()
    time.sleep(seconds)
