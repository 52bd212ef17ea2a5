"""The process that serves simulated boards: ``python -m toolkit.sim serve``, started by :class:`Simulation`.

It reads a specification (one line of JSON) from standard input, answers with the addresses (one line of
JSON) on standard output, then obeys one command per line, and ends with everything it started as soon as
standard input is at its end: whoever started it may be killed in any way, the boards go with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import asyncssh

from toolkit.sim import boards, processes
from toolkit.sim.line import LineFaults, carry
from toolkit.sim.session import Session
from toolkit.sim.spec import HOST, Address, SimBoard, SimulationError, check_boards

# GCM first: it is several times cheaper than the others in asyncssh and paramiko. No post-quantum key
# exchange: it costs OpenSSH's client 100 ms of processor time per connection, and nothing here is worth
# recording.
_ALGORITHMS: dict[str, Any] = {
    "kex_algs": ["curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"],
    "encryption_algs": ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr"],
    "mac_algs": ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"],
    "compression_algs": ["none"],
}
_WINDOW = 4 * 1024 * 1024
_PACKET = 128 * 1024
_LOCK_SECONDS = 3.0


class _Login(asyncssh.SSHServer):
    """Decides who may log in to one board."""

    def __init__(self, runtime: _Runtime) -> None:
        self._runtime = runtime
        self._variables: dict[str, str] = {}

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        runtime = self._runtime
        # Of a connection through a bad line only the line knows the peer.
        peer = conn.get_extra_info("peername") or ("127.0.0.1", 0)
        port = peer[1] if isinstance(peer, tuple) else 0
        self._variables = {
            "SSH_CLIENT": f"{HOST} {port} {runtime.port}",
            "SSH_CONNECTION": f"{HOST} {port} {HOST} {runtime.port}",
        }

    async def begin_auth(self, username: str) -> bool:
        if self._runtime.board.faults.get("no_authentication"):
            await asyncio.Event().wait()
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        runtime = self._runtime
        return username == runtime.board.user and key.public_data == runtime.client_key.public_data

    def password_auth_supported(self) -> bool:
        return self._runtime.board.password is not None

    def validate_password(self, username: str, password: str) -> bool:
        board = self._runtime.board
        return username == board.user and board.password is not None and password == board.password

    def session_requested(self) -> Any:
        if self._runtime.board.faults.get("no_channel"):
            return asyncio.Event().wait()
        return Session(self._runtime.folder, self._runtime.reaper, self._variables)


class _Runtime:
    """One board that is being served."""

    def __init__(self, folder: boards.Folder, client_key: asyncssh.SSHKey, reaper: processes.Reaper) -> None:
        self.board = folder.board
        self.folder = folder
        self.client_key = client_key
        self.reaper = reaper
        self.host_key = _key(folder.path / "ssh_host_ed25519_key", folder.board.name)
        self.port = 0
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: set[socket.socket] = set()
        self._options: dict[bool, asyncssh.SSHServerConnectionOptions] = {}

    def open(self) -> None:
        """Bind the board's port and listen, unless its fault is to refuse. Raises SimulationError."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wanted = self.port or self.board.port
        try:
            listener.bind((HOST, wanted))
            if not self.board.faults.get("refuse_connections"):
                listener.listen(128)
        except OSError as error:
            listener.close()
            raise SimulationError(
                f"board {self.board.name}: cannot use port {wanted} on {HOST} ({error.strerror}): "
                "another program has it; choose another port"
            ) from error
        self.port = listener.getsockname()[1]
        self._listener = listener
        if not self.board.faults.get("refuse_connections"):
            self._accepting = asyncio.create_task(self._accept(listener))

    def close(self) -> None:
        """Stop listening and break all connections; commands go on."""
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> None:
        """Break all connections with a reset, as a pulled plug's peer finds out at its next packet."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for task in list(self._tasks):
            task.cancel()

    def change_faults(self, faults: Mapping[str, Any]) -> None:
        """Give the board other faults, for the next connection (line) or program (device)."""
        before = self.board
        self.board = dataclasses.replace(before, faults=dict(faults))
        self.folder.describe(self.board)
        if bool(before.faults.get("refuse_connections")) != bool(faults.get("refuse_connections")):
            if self._accepting is not None:
                self._accepting.cancel()
                self._accepting = None
            if self._listener is not None:
                self._listener.close()
            self.open()

    def address(self, key_file: Path) -> Address:
        """Return where clients find this board."""
        public = self.host_key.export_public_key("openssh").decode().split()
        return Address(
            name=self.board.name,
            host=HOST,
            port=self.port,
            user=self.board.user,
            key_file=str(key_file),
            host_key=" ".join(public[:2]),
            home=str(self.folder.home),
        )

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of file descriptors, or the client went away again
                logging.warning("%s: accept: %s", self.board.name, error)
                await asyncio.sleep(0.05)
                continue
            client.setblocking(False)
            task = asyncio.create_task(self._serve(client))
            self._tasks.add(task)
            self._sockets.add(client)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        """Serve one TCP connection to its end."""
        faults = self.board.faults
        connection: asyncssh.SSHServerConnection | None = None
        line: asyncio.Task[None] | None = None
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if faults.get("no_banner"):
                await asyncio.Event().wait()
            served = client
            bad = LineFaults.of(faults)
            if bad:
                served, other = socket.socketpair()
                for end in (served, other):
                    end.setblocking(False)
                line = asyncio.create_task(carry(client, other, bad))
            options = await self._options_for(bool(faults.get("wrong_host_key")))
            connection = await asyncssh.run_server(served, options=options)
            await connection.wait_closed()
        except (OSError, asyncssh.Error, TimeoutError) as error:
            logging.info("%s: %s", self.board.name, error)
        finally:
            if connection is not None:
                connection.abort()
            if line is not None:
                line.cancel()
                await asyncio.gather(line, return_exceptions=True)
            self._sockets.discard(client)
            client.close()

    async def _options_for(self, wrong_host_key: bool) -> asyncssh.SSHServerConnectionOptions:
        if wrong_host_key not in self._options:
            key = asyncssh.generate_private_key("ssh-ed25519") if wrong_host_key else self.host_key
            self._options[wrong_host_key] = await asyncssh.SSHServerConnectionOptions.construct(
                server_factory=lambda: _Login(self),
                server_host_keys=[key],
                encoding=None,
                window=_WINDOW,
                max_pktsize=_PACKET,
                line_editor=False,
                agent_forwarding=False,
                x11_forwarding=False,
                gss_host=None,
                **_ALGORITHMS,
            )
        return self._options[wrong_host_key]


class _Server:
    """All boards below one root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._runtimes: dict[str, _Runtime] = {}
        self._reaper = processes.Reaper(asyncio.get_running_loop())
        self._lock: IO[str] | None = None

    async def start(self, wanted: list[SimBoard]) -> list[Address]:
        """Bring all boards up; raises SimulationError."""
        check_boards(wanted)
        await self._take_lock()
        processes.sweep(self._root)
        modules = boards.install_modules(self._root)
        boards.forget_old_modules(self._root, modules)
        key_file = boards.shared(self._root) / "id_ed25519"
        client_key = _key(key_file, "simulated-boards")
        for board in wanted:
            folder = boards.prepare(board, self._root, modules)
            self._runtimes[board.name] = _Runtime(folder, client_key, self._reaper)
        for runtime in self._runtimes.values():
            runtime.open()
        return [runtime.address(key_file) for runtime in self._runtimes.values()]

    async def _take_lock(self) -> None:
        """One server per root. One that is just ending is waited for."""
        # Never truncated before it is ours: it names the process that has it.
        self._lock = open(boards.shared(self._root) / "lock", "a+")  # noqa: SIM115 - held as long as we live
        deadline = asyncio.get_running_loop().time() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(0.05)
                    continue
                self._lock.seek(0)
                owner = self._lock.read().strip() or "unknown"
                raise SimulationError(
                    f"boards below {self._root} are running already (process {owner}): use those, stop them, "
                    "or choose another folder"
                ) from None
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def obey(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one command of the parent; return the answer."""
        runtime = self._runtimes[command["board"]]
        action = command["do"]
        if action == "faults":
            runtime.change_faults(command["faults"])
        elif action == "cut":
            runtime.cut()
        elif action == "power_off":
            runtime.close()
            processes.kill_descendants(self._reaper.leaders(), runtime.folder.description)
        elif action == "power_on":
            runtime.close()
            runtime.open()
        else:
            raise SimulationError(f"the boards' server does not know the command {action!r}")
        return {}

    def stop(self) -> None:
        """Bring all boards down and kill all that runs on them."""
        for runtime in self._runtimes.values():
            runtime.close()
        processes.kill_descendants(self._reaper.leaders())
        self._reaper.reap()


def _key(path: Path, comment: str) -> asyncssh.SSHKey:
    """Return the key in ``path``, made if it is missing or unreadable (a crash may have left half of it)."""
    with contextlib.suppress(OSError, asyncssh.KeyImportError):
        return asyncssh.read_private_key(path)
    key = asyncssh.generate_private_key("ssh-ed25519", comment=comment)
    new = path.with_name(f"{path.name}.new")
    with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write(key.export_private_key("openssh"))
    path.with_name(f"{path.name}.pub").write_bytes(key.export_public_key("openssh"))
    new.replace(path)
    return key


async def _main() -> int:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    loop.add_signal_handler(signal.SIGHUP, end.set)
    # Ctrl-C is for whoever started us; the end of standard input tells what came of it. Handled, not ignored:
    # what is ignored stays so in the boards' programs (and a shell in the background had it ignored for us).
    for number in (signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, lambda: None)
    _watch_parent(loop, end)
    processes.adopt_orphans()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    specification = json.loads(await reader.readline() or "{}")
    server = _Server(Path(specification["root"]))
    try:
        addresses = await server.start([SimBoard.from_json(fields) for fields in specification["boards"]])
    except (SimulationError, OSError) as error:
        server.stop()
        _answer({"error": str(error)})
        return 1
    _answer({"addresses": [dataclasses.asdict(address) for address in addresses]})
    commands = asyncio.create_task(_commands(server, reader, end))
    try:
        await end.wait()
    finally:
        server.stop()
        commands.cancel()
    return 0


async def _commands(server: _Server, reader: asyncio.StreamReader, end: asyncio.Event) -> None:
    """Obey standard input line by line until its end."""
    with contextlib.suppress(OSError):
        while line := await reader.readline():
            try:
                answer = server.obey(json.loads(line))
            except (SimulationError, OSError) as error:
                answer = {"error": str(error)}
            except Exception:
                logging.exception("command of the parent")
                answer = {"error": "internal error; see server.log"}
            _answer(answer)
    end.set()


def _watch_parent(loop: asyncio.AbstractEventLoop, end: asyncio.Event) -> None:
    """Notice the parent's death also when a fork of it still holds our standard input open (Linux)."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(os.getppid())
            loop.add_reader(fd, end.set)


def _answer(message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def serve() -> int:
    """Serve the boards that standard input describes, until its end. Returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    return asyncio.run(_main())
