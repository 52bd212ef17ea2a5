"""A line with a delay, in user space: packets between two tun devices, each held back for half the RTT.

For kernels without netem, and since it can count. It works on packets, so that TCP's handshake, slow start
and windows are what they are on a real line; large ones pass unsplit (virtio headers), so that it is fast
enough.

Started inside the hub's namespace with the client's as its argument. One line on stdin, one JSON object back::

    ready               {}     the devices t0 (in the client's namespace) and t1 are there
    rtt 20              {}     milliseconds, from now on; forgets what was counted
    report              {"198.18.0.2": {"round_trips": 8, "connections": 1, "turns": 9, "up": 99, "down": 9}}
    trace 198.18.0.2    {"packets": [[12.1, "up", 48, 0], …]}
                               ms since the first, way, payload bytes, clock; the first 1000

**round_trips** is exact, not a quotient of times: whenever a packet with payload (or a SYN) arrives, its
receiver knows one thing more; what the client sends afterwards may depend on it. Each packet carries how many
answers its sender had had (a Lamport clock), and the greatest value that the client reaches is the number of
round trips. What is sent without waiting for an answer adds nothing. With an RTT far above the computing
times (200 ms), work that only happened to take longer than the line adds nothing either. **turns** are plain
changes of direction, as an observer in the middle sees them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO_ECN = 0x01, 0x02, 0x08
_VNET = 10  # bytes of struct virtio_net_hdr
_SYN = 0x02


class Counter:
    """What went over the line to one board."""

    def __init__(self) -> None:
        self.client = self.board = self.connections = self.turns = self.up = self.down = 0
        self._last_up = False
        self.packets: list[tuple[float, str, int, int]] = []

    def leaves(self, up: bool, payload: int, syn: bool) -> int:
        """A packet that counts enters the line; returns the clock that it carries."""
        if up:
            self.connections += syn
            self.up += payload
            self.turns += not self._last_up
        else:
            self.down += payload
        self._last_up = up
        clock = self.client if up else self.board + 1
        if len(self.packets) < 1000:
            self.packets.append((time.monotonic(), "up" if up else "down", payload, clock))
        return clock

    def arrives(self, up: bool, clock: int) -> None:
        if up:
            self.board = max(self.board, clock)
        else:
            self.client = max(self.client, clock)

    def report(self) -> dict[str, int]:
        return {
            "round_trips": self.client,
            "connections": self.connections,
            "turns": self.turns,
            "up": self.up,
            "down": self.down,
        }


def open_tun(name: str) -> int:
    """A tun device in this process' network namespace; checksums and segmentation are left to the kernel."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(device, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO_ECN)
    return device


class Line:
    """The line: ``near`` is the client's tun device, ``far`` the boards'."""

    def __init__(self, near: int, far: int) -> None:
        self.delay = 0.0
        self.counters: dict[bytes, Counter] = {}
        self._ends = {near: far, far: near}
        self._near = near
        self._waiting: deque[tuple[float, int, bytes, Counter | None, int]] = deque()

    def run(self, questions: int) -> None:
        """Carry packets until the questions end."""
        text = b""
        while True:
            pause = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            ready = select.select([questions, *self._ends], [], [], pause)[0]
            for end in ready:
                if end != questions:
                    self._take(end)
                    continue
                data = os.read(questions, 4096)
                if not data:
                    return
                *lines, text = (text + data).split(b"\n")
                for line in lines:
                    answer = self._answer(line.decode().split())
                    os.write(1, json.dumps(answer).encode() + b"\n")
            self._give()

    def _answer(self, words: list[str]) -> dict[str, object]:
        if words[0] == "rtt":
            self.delay = float(words[1]) / 2000
            self.counters.clear()
        elif words[0] == "report":
            return {socket.inet_ntoa(host): counter.report() for host, counter in self.counters.items()}
        elif words[0] == "trace":
            packets = self.counters[socket.inet_aton(words[1])].packets
            return {"packets": [[round((when - packets[0][0]) * 1000, 1), *rest] for when, *rest in packets]}
        elif words[0] != "ready":
            return {"error": f"not a question: {words}"}
        return {}

    def _take(self, end: int) -> None:
        for _ in range(64):
            try:
                packet = os.read(end, 70_000)
            except BlockingIOError:
                return
            except OSError:
                sys.exit(0)  # the device went with its namespace
            counter, clock = self._count(end == self._near, packet)
            self._waiting.append((time.monotonic() + self.delay, end, packet, counter, clock))

    def _give(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, end, packet, counter, clock = self._waiting.popleft()
            if counter is not None:
                counter.arrives(end == self._near, clock)
            # A device that is down takes nothing, like a cable that has been pulled.
            with contextlib.suppress(OSError):
                os.write(self._ends[end], packet)

    def _count(self, up: bool, packet: bytes) -> tuple[Counter | None, int]:
        if packet[_VNET] >> 4 != 4 or packet[_VNET + 9] != socket.IPPROTO_TCP:
            return None, 0
        tcp = _VNET + (packet[_VNET] & 15) * 4
        payload = len(packet) - tcp - (packet[tcp + 12] >> 4) * 4
        syn = bool(packet[tcp + 13] & _SYN)
        if not payload and not syn:
            return None, 0
        host = packet[_VNET + 16 : _VNET + 20] if up else packet[_VNET + 12 : _VNET + 16]
        counter = self.counters.setdefault(host, Counter())
        return counter, counter.leaves(up, payload, syn)


def main() -> None:
    near, far = open_tun("t0"), open_tun("t1")
    for name in ("t0", "t1"):
        subprocess.run(["ip", "link", "set", name, "txqueuelen", "20000"], check=True)
    subprocess.run(["ip", "link", "set", "t0", "netns", sys.argv[1]], check=True)
    Line(near, far).run(0)


if __name__ == "__main__":
    main()
