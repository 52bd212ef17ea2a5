"""Servers in bad moods, and a TCP proxy that delays, throttles, cuts and resets a link. Loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import paramiko

_LINGER_RST = struct.pack("ii", 1, 0)  # close() sends a reset instead of a FIN


@contextlib.contextmanager
def refused() -> Iterator[int]:
    """A port that stays ours, and on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port whose queue of connections is full: the kernel drops what asks for more, as a dead host does."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(16):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.3)
            try:
                waiting.connect(server.getsockname())
            except TimeoutError:
                break
        else:
            raise RuntimeError("the queue of connections does not get full")
        yield server.getsockname()[1]


@contextlib.contextmanager
def talker(say: bytes, *, hang_up: bool) -> Iterator[int]:
    """Accepts every connection, says ``say``, and then waits (or hangs up)."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(16)
    accepted: list[socket.socket] = []

    def run() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                peer.sendall(say)
                if hang_up:
                    # Read what the client sent: closing over unread bytes would be a reset.
                    peer.settimeout(1)
                    peer.recv(4096)
                    peer.close()
            accepted.append(peer)

    thread = threading.Thread(target=run, name="talker")
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)
        for peer in accepted:
            peer.close()


class _Sleepy(paramiko.ServerInterface):
    """Lets everybody in, but falls asleep at ``at`` (login, channel, exec) until ``wake`` is set."""

    def __init__(self, at: str, wake: threading.Event, password: str, method: str) -> None:
        self._at = at
        self._wake = wake
        self._password = password
        self._method = method

    def _perhaps_sleep(self, at: str) -> None:
        if at == self._at:
            self._wake.wait()

    def get_allowed_auths(self, username: str) -> str:
        return self._method

    def check_auth_password(self, username: str, password: str) -> int:
        good = self._method == "password" and password == self._password
        return paramiko.common.AUTH_SUCCESSFUL if good else paramiko.common.AUTH_FAILED

    def check_auth_interactive(self, username: str, submethods: str) -> paramiko.InteractiveQuery | int:
        if self._method != "keyboard-interactive":
            return paramiko.common.AUTH_FAILED
        return paramiko.InteractiveQuery("login", "", ("Password: ", False))

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        good = responses == [self._password]
        return paramiko.common.AUTH_SUCCESSFUL if good else paramiko.common.AUTH_FAILED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self._perhaps_sleep("login")
        if self._method != "publickey":
            return paramiko.common.AUTH_FAILED
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        self._perhaps_sleep("channel")
        if self._at == "no channel":
            return paramiko.common.OPEN_FAILED_RESOURCE_SHORTAGE
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._perhaps_sleep("exec")
        if self._at == "":
            threading.Thread(target=self._talk, args=(channel,), name="sleepy-talk").start()
        return self._at != "no exec"

    @staticmethod
    def _talk(channel: paramiko.Channel) -> None:
        with contextlib.suppress(OSError, paramiko.SSHException, EOFError):
            channel.sendall(b"welcome")
            channel.close()


@contextlib.contextmanager
def sleepy(
    at: str,
    host_key: Path,
    password: str = "",
    method: str = "publickey",
    **transport_options: tuple[str, ...],
) -> Iterator[int]:
    """An SSH server that stops in the middle of the protocol: a real one, over paramiko's server side.

    ``at``: login, channel, exec (falls asleep there), no channel, no exec (refuses), or "": says "welcome".
    ``transport_options``: the lists of algorithms, such as ``_preferred_kex``.
    """
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(16)
    wake = threading.Event()
    transports: list[paramiko.Transport] = []
    key = paramiko.PKey.from_path(host_key)

    def run() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            transport = paramiko.Transport(peer)
            for name, value in transport_options.items():
                setattr(transport, name, value)
            transport.add_server_key(key)
            transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(event=threading.Event(), server=_Sleepy(at, wake, password, method))

    thread = threading.Thread(target=run, name="sleepy")
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        wake.set()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)
        for transport in transports:
            transport.packetizer.complete_handshake()  # stops paramiko's timer thread
            transport.close()
            if transport.is_alive():
                transport.join(10)


class Proxy:
    """A TCP proxy to ``port``. ``delay``: seconds each way. May be cut, throttled or reset while in use.

    ``turns`` counts how often the direction of the bytes changed from the server's to the client's: with a
    delay, each turn is a round trip that the client waited for.
    """

    def __init__(self, port: int, delay: float = 0.0) -> None:
        self.turns = 0
        self.to_server = 0
        self.to_client = 0
        self.connections = 0
        self.port = 0
        self._target = port
        self._delay = delay
        self._last = "server"
        self._rate: float | None = None
        self._cut = False
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._writers: list[asyncio.StreamWriter] = []
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._main(),), name="proxy"
        )

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._call(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """From now on swallow everything, with neither a FIN nor a RST: a cable pulled out."""
        self._cut = True

    def throttle(self, rate: float) -> None:
        """From now on let ``rate`` bytes per second pass, each way."""
        self._rate = rate

    def reset(self) -> None:
        """Break all connections with a RST."""

        def abort() -> None:
            for writer in self._writers:
                sock = writer.get_extra_info("socket")
                if sock is not None:
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
                writer.transport.abort()

        self._call(abort)

    def _call(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, far_writer]
        for one in (writer, far_writer):
            one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        jobs: list[Awaitable[None]] = [
            self._pump(reader, far_writer, "client"),
            self._pump(far_reader, writer, "server"),
        ]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(*jobs)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, side: str) -> None:
        """Reading and writing are apart, so that a delay does not limit the rate."""
        flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(4096)

        async def read() -> None:
            while True:
                data = await reader.read(1024 if self._rate else 262144)
                if self._cut:
                    await asyncio.Event().wait()
                if data:
                    self._count(side, len(data))
                await flight.put((self._loop.time() + self._delay, data))
                if not data:
                    return

        async def write() -> None:
            while True:
                due, data = await flight.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if self._cut:
                    await asyncio.Event().wait()
                if not data:
                    writer.write_eof()
                    return
                if self._rate is not None:
                    await asyncio.sleep(len(data) / self._rate)
                writer.write(data)
                await writer.drain()

        with contextlib.suppress(OSError):
            await asyncio.gather(read(), write())

    def _count(self, side: str, size: int) -> None:
        if side == "client":
            self.to_server += size
            self.turns += self._last == "server"
        else:
            self.to_client += size
        self._last = side
