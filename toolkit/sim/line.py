"""A bad line between the client and a simulated board: slow, far away, breaking, or stuck.

A board without such a fault has its TCP connections served directly. With one, every connection is passed
through :func:`carry`, which stands between the client's socket and a socket pair of which the SSH server
has the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CHUNK = 64 * 1024
_QUEUE = 64


@dataclass(frozen=True)
class LineFaults:
    """What is wrong with a line; zero means: nothing.

    ``latency_ms`` is added to each direction, ``bytes_per_second`` limits each direction. The link is reset
    after the client sent ``drop_after_bytes``; nothing more is read from it after ``stall_after_bytes``
    (raw bytes on the wire, with SSH's own handshake of about 3 kB).
    """

    latency_ms: float = 0
    bytes_per_second: float = 0
    drop_after_bytes: int = 0
    stall_after_bytes: int = 0

    @classmethod
    def of(cls, faults: Mapping[str, Any]) -> LineFaults:
        """Pick the faults of the line from all of a board's."""
        return cls(**{name: faults.get(name) or 0 for name in cls.__dataclass_fields__})

    def __bool__(self) -> bool:
        """Whether anything is wrong at all."""
        return any((self.latency_ms, self.bytes_per_second, self.drop_after_bytes, self.stall_after_bytes))


class _Dropped(Exception):
    """The line broke, as it was asked to."""


async def carry(client: socket.socket, server: socket.socket, faults: LineFaults) -> None:
    """Pass bytes between the two connected, non-blocking sockets until one end closes; closes both."""
    up = asyncio.create_task(_direction(client, server, faults, from_client=True))
    down = asyncio.create_task(_direction(server, client, faults, from_client=False))
    try:
        await asyncio.gather(up, down)
    except _Dropped:
        down.cancel()
        # A reset instead of an orderly end: what is on its way to the client is lost, what it sent arrives.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await loop.sock_recv(server, _CHUNK):
                pass
    except OSError:
        pass
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        client.close()
        server.close()


async def _direction(
    source: socket.socket, sink: socket.socket, faults: LineFaults, from_client: bool
) -> None:
    """Carry one direction to its end and pass that end on."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUE)
    deliver = asyncio.create_task(_deliver(queue, sink))
    limits = [(faults.drop_after_bytes, True), (faults.stall_after_bytes, False)] if from_client else []
    seen = 0
    # At a low rate small pieces: a whole chunk at once would be a burst and a pause, not a slow line.
    size = max(256, min(_CHUNK, int(faults.bytes_per_second / 20))) if faults.bytes_per_second else _CHUNK
    try:
        while True:
            room = min([size, *(limit - seen for limit, _ in limits if limit)])
            data = await loop.sock_recv(source, room)
            seen += len(data)
            await queue.put((loop.time() + faults.latency_ms / 1000, data))
            if not data:
                await deliver
                return
            if faults.bytes_per_second:
                await asyncio.sleep(len(data) / faults.bytes_per_second)
            for limit, drops in limits:
                if limit and seen >= limit:
                    if drops:
                        await queue.put((0, b""))
                        await deliver
                        raise _Dropped
                    await asyncio.Event().wait()
    finally:
        deliver.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await deliver


async def _deliver(queue: asyncio.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, data = await queue.get()
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        if not data:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
            return
        await loop.sock_sendall(sink, data)
