"""Boards in bad moods beside healthy ones: each is named rightly, and the healthy ones are not held up."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shlex
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import bad_boards
import pytest
import sshd as sshd_server

from toolkit.artefacts.manifest import Release, ReleaseFile
from toolkit.errors import BoardRefused, LineLost, RemoteError, Unreachable
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, Wish
from toolkit.remote.boot import boot_command
from toolkit.remote.line import Line, open_line

MEGABYTE = bytes(1 << 20)
# Long beside what a healthy board needs, so that the order of events is certain; the moods wait all at once.
LIMIT = 5.0
HANGS = Limits(connect=LIMIT, banner=LIMIT, auth=LIMIT, channel=LIMIT, silence=LIMIT, board=120)

Talk = Callable[[Line], object]


def push(line: Line) -> None:
    """Send until something stops it."""
    for _ in range(200):
        line.send(MEGABYTE)
    line.recv(1)
    raise AssertionError("200 MB went into a board that was to fail")


def listen(line: Line) -> None:
    assert line.recv(1 << 16) == b""


def install(address: Address, line: Line) -> None:
    """Put a release of a megabyte on the board, below /mnt."""
    content = MEGABYTE
    release = Release("app", (ReleaseFile("model.om", hashlib.sha256(content).hexdigest(), len(content)),))
    agent = BoardAgent(line, address, HANGS)
    agent.inspect("/mnt/board", "app", Wish(release))
    agent.install(release, lambda sha256: io.BytesIO(content), "")


@dataclass
class Mood:
    address: Address
    expected: str
    error: type[RemoteError] = Unreachable
    talk: Talk = listen
    command: str = "true"
    limits: Limits = HANGS
    at_once: bool = False
    """Whether it is known without waiting for a limit."""
    says: str = ""


@pytest.mark.parametrize("client", ["fabric", "openssh"])
def test_twelve_bad_boards_beside_healthy_ones(
    client: str, sshd: sshd_server.Sshd, board: Callable[..., Address], tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        host_key = sshd.host_keys[0]
        sleeping = {at: enter(bad_boards.sleepy(at, host_key)) for at in ("login", "channel")}
        stopped = enter(sshd_server.serve(tmp_path / "stopped"))
        cut, reset, slow = (enter(bad_boards.Proxy(sshd.port)) for _ in range(3))
        other_key = sshd_server.new_key(tmp_path, "ed25519", "other").with_suffix(".pub").read_text()

        def address(name: str, port: int, **changes: object) -> Address:
            # One key for all: behind the proxies, and in the sleepy servers, it is the sshd's own.
            return board(
                name=name,
                port=port,
                client=client,
                **{"host_key": sshd.public(), "known_hosts": (), **changes},
            )

        def after_first_megabyte(trouble: Callable[[], object]) -> Talk:
            def talk(line: Line) -> None:
                line.send(MEGABYTE)
                assert line.recv(2) == b"ok"
                trouble()
                push(line)

            return talk

        taker = "head -c 1048576 >/dev/null; printf ok; cat >/dev/null"
        moods = {
            "blackhole": Mood(address("blackhole", enter(bad_boards.blackhole())), "connect-timeout"),
            "refused": Mood(address("refused", enter(bad_boards.refused())), "refused", at_once=True),
            "no-banner": Mood(address("no-banner", enter(bad_boards.talker(b"", hang_up=False))), "no-banner"),
            "login": Mood(address("login", sleeping["login"]), "auth-timeout"),
            "channel": Mood(address("channel", sleeping["channel"]), "channel-timeout"),
            "stopped": Mood(
                address("stopped", stopped.port, host_key=stopped.public(), key_file=str(stopped.key)),
                "silence",
                LineLost,
                after_first_megabyte(stopped.stop_sessions),
                taker,
            ),
            "cut": Mood(address("cut", cut.port), "silence", LineLost, after_first_megabyte(cut.cut), taker),
            "reset": Mood(
                address("reset", reset.port),
                "reset",
                LineLost,
                after_first_megabyte(reset.reset),
                taker,
                at_once=True,
            ),
            "slow": Mood(
                address("slow", slow.port),
                "board-deadline",
                LineLost,
                after_first_megabyte(lambda: slow.throttle(1024)),
                taker,
                replace(HANGS, silence=60, board=1.4 * LIMIT),
            ),
            "wrong-key": Mood(
                address("wrong-key", sshd.port, host_key=" ".join(other_key.split()[:2])),
                "host-key-changed",
                at_once=True,
            ),
        }
        if shutil.which("unshare") and os.geteuid() == 0:
            # The real agent on a card that is full, and on one that is worn out.
            for name, options in (("disk-full", "size=256k"), ("read-only", "ro")):
                mount = f"mount -t tmpfs -o {options} none /mnt && exec {boot_command(['python3'])}"
                moods[name] = Mood(
                    address(name, sshd.port),
                    name,
                    BoardRefused,
                    partial(install, address(name, sshd.port)),
                    f"exec unshare -m sh -c {shlex.quote(mount)}",
                    at_once=True,
                )
        else:
            moods["disk-full"] = Mood(
                address("disk-full", sshd.port),
                "closed",
                LineLost,
                push,
                "cat >/dev/full",
                at_once=True,
                says="No space left on device",
            )
        outcomes: dict[str, RemoteError | str] = {}
        order: list[str] = []
        lock = threading.Lock()

        def visit(name: str, mood: Mood) -> None:
            outcome: RemoteError | str
            try:
                line = open_line(mood.address, mood.limits, mood.command)
                try:
                    mood.talk(line)
                finally:
                    line.close()
                outcome = "ok"
            except RemoteError as error:
                outcome = error
            with lock:
                outcomes[name] = outcome
                order.append(name)

        def exchange(line: Line) -> None:
            line.send(MEGABYTE)
            got = 0
            while got < len(MEGABYTE):
                got += len(line.recv(1 << 16))

        healthy = {
            f"healthy-{n}": Mood(board(name=f"healthy-{n}", client=client), "ok", talk=exchange, command="cat")
            for n in range(4)
        }
        everybody = {**moods, **healthy}
        threads = [threading.Thread(target=visit, args=item) for item in everybody.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)

    assert set(outcomes) == set(everybody)
    assert {name: outcomes[name] for name in healthy} == dict.fromkeys(healthy, "ok")
    causes = {
        name: (type(error), error.cause) if isinstance(error, RemoteError) else error
        for name, error in outcomes.items()
        if name in moods
    }
    assert causes == {name: (mood.error, mood.expected) for name, mood in moods.items()}
    for name, mood in moods.items():
        error = outcomes[name]
        assert isinstance(error, RemoteError)
        assert error.host == name
        assert name in str(error)
        assert "\n" not in str(error)
        assert error.hint
        assert mood.says in error.detail
    waited = [name for name in order if name in moods and not moods[name].at_once]
    last_healthy = max(order.index(name) for name in healthy)
    assert last_healthy < min(order.index(name) for name in waited), order
