"""A line over the system's own ``ssh`` (``ssh.client=openssh``).

For what only OpenSSH can: host certificates, hardware tokens, GSSAPI, old algorithms that a user allows in
the ssh config. The same promises as :mod:`toolkit.remote.fabric_line`. ``ssh`` has no terminal and asks
nothing; its log goes into a FIFO of its own (``-E``), so that the progress of the connection, and the cause
when it fails, can be told from what the board writes to stderr. What ssh logs is in no standard, but has been
stable since OpenSSH 7; unknown lines change nothing but the precision of the cause.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from functools import partial
from pathlib import Path

from toolkit.errors import ConfigError, LineLost, RemoteError, Unreachable
from toolkit.remote.address import Address, Limits
from toolkit.remote.argv import shell_line
from toolkit.remote.hostkeys import ALGORITHMS, HostKey, parse_pin
from toolkit.remote.line import Tail
from toolkit.remote.text import plain
from toolkit.remote.watchdog import Guard
from toolkit.remote.wire import JUMP_HINTS

_PIPE_SIZE = 1 << 19
"""Room for what ssh is to send. A user's pipes have 64 MiB together; who asks for more gets pipes of 8 KiB."""

# How far the connection is, by the lines of ``ssh -v``.
_CONNECTING, _GREETING, _KEX, _LOGIN, _CHANNEL, _READY = range(6)
_PROGRESS = (
    (re.compile(r"Connection established|Executing proxy command"), _GREETING),
    (re.compile(r"[Rr]emote protocol version"), _KEX),
    (re.compile(r"SSH2_MSG_NEWKEYS received"), _LOGIN),
    (re.compile(r"Authenticated to |Authentication succeeded"), _CHANNEL),
    (re.compile(r"Sending command"), _READY),
)

# What ssh says when no session can be had: the first match counts, so the special ones stand first.
_FAILURES: tuple[tuple[str, str, str], ...] = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED|is revoked|REVOKED", "host-key-changed", ""),
    ("No .*host key is known|Host key verification failed", "host-key-unknown", ""),
    ("Could not resolve hostname", "name-unknown", "check board.host; an IP address works too"),
    ("Connection refused", "refused", "is the board up, is sshd running, is the port right (board.port)?"),
    ("No route to host|Network is unreachable|Host is down", "no-route", "check cable, network and address"),
    ("timed out during banner exchange", "no-banner", "sshd hangs: look at the board's own console"),
    ("timed out|Timeout", "connect-timeout", "is the board switched on, does a firewall drop the packets?"),
    ("invalid characters|Bad remote protocol|banner line contains", "not-ssh", "check board.port"),
    ("kex_exchange_identification", "no-banner", "sshd turns new connections away (MaxStartups, fail2ban)?"),
    ("Unable to negotiate|no matching|Bad server host key", "kex-failed", "update sshd on the board"),
    (
        "Load key .*bad permissions|UNPROTECTED PRIVATE KEY",
        "key-unreadable",
        "ssh takes no key that others may read: chmod 600 FILE",
    ),
    (
        "Load key .*(invalid format|error in libcrypto|incorrect passphrase)",
        "key-unreadable",
        "check board.key_file; add a key with a passphrase to the ssh-agent (ssh-add)",
    ),
    (
        "Permission denied|Too many authentication",
        "auth-failed",
        "check board.user and board.key_file; ssh-copy-id",
    ),
    ("open failed|request failed", "channel-refused", "does the account allow commands?"),
)


def ssh_argv(address: Address, limits: Limits, known_hosts: str, command: str) -> list[str]:
    """Return the argv of ``ssh`` for ``address``; ``known_hosts`` is the file with the pinned key, "" = none.

    :raises ConfigError: what this client cannot do: a password, a fingerprint as a pin.
    """
    if address.password:
        raise ConfigError(
            f"{address.name}: passwords work with ssh.client=fabric only", hint="use a key with openssh"
        )
    if address.host.startswith("-") or address.user.startswith("-"):
        raise ConfigError(f"{address.name}: a host or user cannot begin with a dash")
    return [*_ssh(address, limits, known_hosts), "-v", "-T", "--", address.host, command]


def _ssh(address: Address, limits: Limits, known_hosts: str) -> list[str]:
    argv = [shutil.which("ssh") or "ssh", "-x", "-a"]
    if address.ssh_config != Address.ssh_config:
        path = os.path.expanduser(address.ssh_config)
        argv += ["-F", path if address.ssh_config and os.path.exists(path) else "none"]
    options = _common(limits)
    files = [known_hosts] if known_hosts else [os.path.expanduser(path) for path in address.known_hosts]
    options["UserKnownHostsFile"] = " ".join(f'"{path}"' for path in files) or "/dev/null"
    if known_hosts:
        pin = parse_pin(address.host_key, address.name)
        options["GlobalKnownHostsFile"] = "/dev/null"
        if isinstance(pin, HostKey):
            options["HostKeyAlgorithms"] = ",".join(ALGORITHMS.get(pin.type, (pin.type,)))
    if address.key_file:
        options |= {"IdentityFile": f'"{os.path.expanduser(address.key_file)}"', "IdentitiesOnly": "yes"}
    if address.user:
        options["User"] = address.user
    if address.port != 22:
        options["Port"] = str(address.port)
    if address.jump:
        options |= _jump(address, limits)
    for key, value in options.items():
        argv += ["-o", f"{key}={value}"]
    return argv


def _common(limits: Limits) -> dict[str, str]:
    return {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "ConnectTimeout": str(max(1, math.ceil(limits.connect + limits.banner))),
        "ConnectionAttempts": "1",
        "ServerAliveInterval": str(max(1, math.ceil(limits.silence / 2))),
        "ServerAliveCountMax": "3",
        "Compression": "no",
        "ControlPath": "none",
        "Ciphers": "^aes128-gcm@openssh.com",
        "KexAlgorithms": "^curve25519-sha256,curve25519-sha256@libssh.org",
    }


def _jump(address: Address, limits: Limits) -> dict[str, str]:
    """``-J`` would start an ssh that knows neither our known_hosts nor our key: start it ourselves."""
    if address.jump.lower() == "none":
        return {"ProxyJump": "none"}
    *before, last = address.jump.split(",")
    login, _, place = last.rpartition("@")
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+)(?::(\d+))?", place)
    if match is None or place.startswith("-") or login.startswith("-"):
        raise ConfigError(f"{address.name}: jump={address.jump} is not [user@]host[:port],…")
    hop = Address(
        name=address.name,
        host=match.group(1).strip("[]"),
        port=int(match.group(2) or 22),
        user=login,
        key_file=address.key_file,
        known_hosts=address.known_hosts,
        ssh_config=address.ssh_config,
        jump=",".join(before),
    )
    argv = [*_ssh(hop, limits, ""), "-W", "[%h]:%p", "--", hop.host]
    # ssh replaces %h and %p in this, and hands it to a shell; all other per cent signs stand for themselves.
    line = shell_line([word if word == "[%h]:%p" else word.replace("%", "%%") for word in argv])
    return {"ProxyCommand": line}


class OpensshLine:
    """See :class:`toolkit.remote.line.Line`."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self.sent = 0
        self.received = 0
        self.connections = 0
        self.channels = 0
        self.host_key = ""
        self._address = address
        self._limits = limits
        self._guard = Guard(address.name, limits, self._kill)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._fds: dict[str, int] = {}
        self._stderr = Tail()
        self._log = b""
        self._state = _CONNECTING
        # Sending, receiving and closing may happen in different threads; a descriptor must not be closed, and
        # given to somebody else, under a thread that waits for it.
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._collecting = threading.Lock()

    @classmethod
    def open(cls, address: Address, limits: Limits, command: str) -> OpensshLine:
        """See :func:`toolkit.remote.line.open_line`."""
        line = cls(address, limits)
        try:
            line._start(command)
            line._connect()
        except BaseException:
            line.close()
            raise
        return line

    # ---- connecting

    def _start(self, command: str) -> None:
        known_hosts = ""
        self._folder = tempfile.TemporaryDirectory(prefix="deploy-ssh-")
        if self._address.host_key:
            pin = parse_pin(self._address.host_key, self._address.name)
            if not isinstance(pin, HostKey):
                raise ConfigError(
                    f"{self._address.name}: ssh.client=openssh cannot pin a fingerprint",
                    hint="pin the whole key, 'ssh-ed25519 AAAA…', or use ssh.client=fabric",
                )
            known_hosts = os.path.join(self._folder.name, "known_hosts")
            Path(known_hosts).write_text(f"* {pin}\n")
        argv = ssh_argv(self._address, self._limits, known_hosts, command)
        # A FIFO, since ssh closes all descriptors but the first three that it is started with.
        log = os.path.join(self._folder.name, "log")
        os.mkfifo(log, 0o600)
        self._fds["log"] = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._process = process = subprocess.Popen(
                [argv[0], "-E", log, *argv[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # its ProxyCommand's processes end with it
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise ConfigError(
                f"ssh cannot be started: {error.strerror}", hint="install openssh-client"
            ) from None
        for name, pipe in (("in", process.stdin), ("out", process.stdout), ("err", process.stderr)):
            if pipe is not None:
                self._fds[name] = pipe.fileno()
        os.set_blocking(self._fds["in"], False)
        os.set_blocking(self._fds["err"], False)
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._fds["in"], fcntl.F_SETPIPE_SZ, _PIPE_SIZE)  # Linux
        self.connections += 1

    def _connect(self) -> None:
        begun = -1
        limits = self._limits
        times = (limits.connect, limits.banner, limits.banner, limits.auth, limits.channel)
        while self._state != _READY:
            if self._state != begun:
                begun = self._state
                self._guard.begin(times[begun], partial(self._late, begun))
            if not self._wait("log"):
                raise self._guard.fate or self._refused()
        self.channels += 1
        self._guard.ready()

    def _wait(self, name: str, writing: bool = False) -> bool:
        """Wait until the descriptor ``name`` is ready; take what comes on stderr and the log meanwhile.

        False: ``name`` is the log, and it ended.
        """
        while True:
            self._guard.check()
            poll = select.poll()
            fds = dict(self._fds)  # who sends may take one away while who receives looks
            fd = fds.get(name)
            for key in ("err", "log"):
                if key in fds:
                    poll.register(fds[key], select.POLLIN)
            if fd is not None:
                poll.register(fd, select.POLLOUT if writing else select.POLLIN)
            # The watchdog ends the process, and that wakes us; the second is for a child that keeps a pipe.
            ready = {number for number, _ in poll.poll(1000)}
            self._collect(ready)
            if name == "log":
                # ssh may end before it opens its log (a bad option): then stderr ends, the log never.
                if ready or "err" not in self._fds:
                    return name in self._fds and "err" in self._fds
            elif fd in ready:
                return True

    def _collect(self, ready: set[int]) -> None:
        """Take what is there on stderr and the log."""
        with self._collecting:
            for key in ("err", "log"):
                fd = self._fds.get(key)
                if fd in ready and not self._take(key):
                    del self._fds[key]
                    if key == "log":
                        os.close(fd)

    def _take(self, key: str) -> bool:
        try:
            data = os.read(self._fds[key], 65536)
        except BlockingIOError:
            return True
        if key == "err":
            self._stderr.feed(data)
        else:
            self._log = (self._log + data)[-65536:]
            for pattern, state in _PROGRESS:
                if state > self._state and pattern.search(self._log.decode("utf-8", "replace")):
                    self._state = state
        return bool(data)

    # ---- what went wrong

    def _at_jump(self, state: int) -> bool:
        """Is the way to the board, which another ssh makes, all that there is in this state?"""
        return state == _GREETING and b"Executing proxy command" in self._log

    def _late(self, state: int) -> Unreachable:
        """The step ``state`` took too long. Called by the watchdog: the connection may be further by now."""
        limits, name = self._limits, self._address.name
        where = f"{self._address.host}:{self._address.port}"
        cause, message = {
            _CONNECTING: ("connect-timeout", f"no answer from {where} within {limits.connect:g} s"),
            _GREETING: ("no-banner", f"{where} sent no SSH banner within {limits.banner:g} s"),
            _KEX: ("kex-failed", f"key exchange with {where} not done within {limits.banner:g} s"),
            _LOGIN: ("auth-timeout", f"{where} did not answer the login within {limits.auth:g} s"),
            _CHANNEL: ("channel-timeout", f"the server opened no channel within {limits.channel:g} s"),
        }[state]
        if self._at_jump(state):
            return Unreachable(
                f"{name}: {where} sent no SSH banner through the jump host within {limits.banner:g} s",
                cause=cause,
                host=name,
                hint="is the jump host up (board.jump), and can it reach the board?",
            )
        return Unreachable(
            f"{name}: {message}", cause=cause, host=name, hint="is the board up? look at its own console"
        )

    def _messages(self) -> str:
        """What ssh itself said, without debug lines, and the stderr (where a jump's ssh writes)."""
        lines = self._log.decode("utf-8", "replace").splitlines()
        said = [plain(line) for line in lines if not re.match(r"debug\d:|OpenSSH_", line)]
        return "\n".join([*said, str(self._stderr)])

    def _refused(self) -> Unreachable:
        name, said = self._address.name, self._messages()
        debug = self._log.decode("utf-8", "replace").replace("\r", "")
        # "no such identity" is a debug line where the key was named by an option.
        missing = self._address.key_file and not os.path.exists(os.path.expanduser(self._address.key_file))
        where = f"{self._address.host}:{self._address.port}"
        last = next(
            (line for line in reversed(said.splitlines()) if line.strip()), "ssh ended without a word"
        )
        cause, hint = ("kex-failed", "") if self._state == _KEX else ("auth-failed", "")
        if self._state in (_CONNECTING, _GREETING):
            cause = "no-banner"
        elif self._state == _CHANNEL:
            cause = "channel-refused"
        for pattern, known, advice in _FAILURES:
            found = re.search(pattern, said)
            if found:
                cause, hint = known, advice
                last = next((line for line in said.splitlines() if re.search(pattern, line)), last)
                break
        at_jump = self._at_jump(self._state) and not re.search("open failed|forwarding failed", said)
        if at_jump:
            hint, where = JUMP_HINTS.get(cause, hint), f"{where}: jump host"
        if cause == "key-unreadable" and self._address.key_file:
            hint = hint.replace("FILE", shlex.quote(self._address.key_file))
        if cause == "auth-failed" and missing:
            cause, last = "key-unreadable", f"{self._address.key_file} does not exist"
        if cause == "host-key-unknown" and re.search(r"host key for .* has changed", debug):
            cause = "host-key-changed"
        if cause.startswith("host-key") and at_jump:
            # deploy trust reads boards' keys through it, and so needs it trusted already.
            file = next(iter(self._address.known_hosts), "known_hosts")
            hint = f"compare the fingerprint with the jump host's own, then put its key into {file} (ssh-keyscan)"
        elif cause == "host-key-changed":
            hint = f"compare the fingerprint, then: {self._address.command('trust', 'replace=true')}"
        elif cause == "host-key-unknown":
            hint = f"compare the fingerprint with the board's, then: {self._address.command('trust')}"
        return Unreachable(
            f"{name}: {where}: {last.strip('@ ')}", cause=cause, host=name, hint=hint, detail=said[-2000:]
        )

    def _lost(self) -> RemoteError:
        if self._guard.fate is not None:
            return self._guard.fate
        said = self._messages()
        name = self._address.name
        if re.search(r"not responding|timed out", said):
            return self._guard.silent()
        if re.search(r"[Cc]onnection reset|Broken pipe|[Cc]onnection aborted", said):
            cause, message = "reset", "the connection was reset"
        elif re.search(r"Corrupted MAC|Bad packet|message authentication code incorrect", said):
            cause, message = "garbage", "what arrived is not SSH any more"
        else:
            cause, message = "closed", "the connection was closed"
        return LineLost(
            f"{name}: {message}", cause=cause, host=name, hint="run again", detail=self.stderr_tail()
        )

    # ---- traffic

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`toolkit.remote.line.Line.send`."""
        view = memoryview(data).cast("B")
        with self._sending, self._guard.traffic():
            self._check_open()
            while view:
                self._wait("in", writing=True)
                try:
                    count = os.write(self._fds["in"], view[:_PIPE_SIZE])
                except BlockingIOError:
                    continue
                except OSError:
                    self._finish()
                    raise self._lost() from None
                self._guard.moved_now()
                self.sent += count
                view = view[count:]

    def recv(self, size: int) -> bytes:
        """See :meth:`toolkit.remote.line.Line.recv`."""
        with self._receiving, self._guard.traffic():
            self._check_open()
            self._wait("out")
            data = os.read(self._fds["out"], min(size, _PIPE_SIZE))
            if data:
                self._guard.moved_now()
                self.received += len(data)
                return data
            status = self._finish()
        # 255 is ssh's own, or the command's: its log tells.
        ended = status != 255 or b"Exit status 255" in self._log
        if self._guard.fate is None and not self._guard.closed and ended:
            return b""
        raise self._lost()

    def _finish(self) -> int:
        """The far side has ended: take the last words of ssh, and its exit status."""
        process = self._process
        if process is None:
            return 255
        while "log" in self._fds and self._wait("log"):
            pass
        try:
            return process.wait(self._limits.silence)
        except subprocess.TimeoutExpired:
            return 255

    def _check_open(self) -> None:
        if self._guard.closed or "in" not in self._fds:
            raise LineLost(
                f"{self._address.name}: the line is closed", cause="closed", host=self._address.name
            )

    def stderr_tail(self) -> str:
        """See :meth:`toolkit.remote.line.Line.stderr_tail`."""
        fd = self._fds.get("err")
        if fd is not None:
            self._collect({fd})
        return str(self._stderr)

    def close(self) -> None:
        """See :meth:`toolkit.remote.line.Line.close`."""
        self._guard.close()
        self._kill()
        # Whoever waits for the process is woken by its end, and leaves before the descriptors are closed.
        with self._sending, self._receiving, self._collecting:
            process, self._process = self._process, None
            log = self._fds.pop("log", None)
            self._fds.clear()
            if log is not None:
                os.close(log)
            if process is not None:
                process.wait(10)
                for pipe in (process.stdin, process.stdout, process.stderr):
                    if pipe is not None:
                        pipe.close()
            if self._folder is not None:
                self._folder.cleanup()

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
