"""One connection, one channel, bytes both ways; the ways in which it ends."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import bad_boards
import pytest
import sshd as sshd_server

from toolkit.errors import LineLost, RemoteError, Unreachable
from toolkit.remote.address import Address, Limits
from toolkit.remote.line import Line, open_line
from toolkit.remote.watchdog import WATCHDOG, Guard
from toolkit.remote.wire import Wire, dial

clients = pytest.mark.parametrize("client", ["fabric", "openssh"])


@contextlib.contextmanager
def opened(address: Address, limits: Limits, command: str) -> Iterator[Line]:
    line = open_line(address, limits, command)
    try:
        yield line
    finally:
        line.close()


def read_all(line: Line) -> bytes:
    got = b""
    while data := line.recv(1 << 16):
        got += data
    return got


@clients
def test_one_connection_one_channel_and_every_byte(
    client: str, sshd: sshd_server.Sshd, board: Callable[..., Address], limits: Limits
) -> None:
    payload = bytes(range(256)) * 12288  # 3 MB: more than a channel's window
    before = sshd.log().count("Accepted publickey")
    with (
        bad_boards.Proxy(sshd.port) as proxy,
        opened(
            board(client=client, port=proxy.port, host_key=sshd.public()),
            limits,
            f"head -c {len(payload)} | cksum; echo error >&2",
        ) as line,
    ):
        line.send(payload[:1])
        line.send(memoryview(payload)[1:100_000])
        line.send(bytearray(payload[100_000:]))
        answer = read_all(line)
        assert answer.split()[1] == str(len(payload)).encode()
        assert (line.sent, line.received) == (len(payload), len(answer))
        assert (line.connections, line.channels, proxy.connections) == (1, 1, 1)
        assert line.stderr_tail() == "error"
        if client == "fabric":
            assert line.host_key == sshd.public()
    assert sshd.log().count("Accepted publickey") == before + 1


@clients
def test_three_megabytes_back(client: str, board: Callable[..., Address], limits: Limits) -> None:
    with opened(board(client=client), limits, "head -c 3000000 /dev/zero") as line:
        assert read_all(line) == bytes(3_000_000)
        assert line.received == 3_000_000


@clients
def test_stderr_is_kept_apart_cut_short_and_cleaned(
    client: str, board: Callable[..., Address], limits: Limits
) -> None:
    # Three megabytes of it: whoever does not take it away stops the board's program.
    command = (
        "yes 0123456789012345678901234567890123456789 | head -c 3000000 >&2;"
        r" printf '\n\033[31mred\007 alarm\033[0m\n' >&2; printf done"
    )
    with opened(board(client=client), limits, command) as line:
        assert read_all(line) == b"done"
        lines = line.stderr_tail().splitlines()
    assert len(lines) == 20
    assert lines[-1] == "red alarm"


@clients
def test_the_far_side_ends_while_we_push(client: str, board: Callable[..., Address], limits: Limits) -> None:
    with (
        opened(board(client=client), limits, "echo no more >&2; exit 3") as line,
        pytest.raises(LineLost) as caught,
    ):
        line.send(bytes(100 << 20))
    assert caught.value.cause == "closed"
    assert "no more" in caught.value.detail


@clients
def test_a_status_of_255_is_the_commands_own(
    client: str, board: Callable[..., Address], limits: Limits
) -> None:
    with opened(board(client=client), limits, "printf x; exit 255") as line:
        assert read_all(line) == b"x"


@clients
def test_closing_twice_and_using_it_afterwards(
    client: str, board: Callable[..., Address], limits: Limits
) -> None:
    line = open_line(board(client=client), limits, "cat")
    line.close()
    line.close()
    with pytest.raises(LineLost):
        line.send(b"x")
    with pytest.raises(LineLost):
        line.recv(1)


@clients
def test_silence_counts_only_while_somebody_waits(client: str, board: Callable[..., Address]) -> None:
    short = Limits(silence=1.0)
    with opened(board(client=client), short, "cat") as line:
        # Idle for longer than the limit, on purpose: the caller is busy elsewhere.
        threading.Event().wait(1.6)
        line.send(b"still there")
        assert line.recv(100) == b"still there"
        with pytest.raises(LineLost) as caught:
            line.recv(1)
        assert caught.value.cause == "silence"
        with pytest.raises(LineLost) as again:
            line.send(b"x")
        assert again.value.cause == "silence"


@clients
def test_slow_but_steady_is_not_silence(client: str, board: Callable[..., Address]) -> None:
    with opened(
        board(client=client), Limits(silence=1.5), "for i in 1 2 3 4 5; do sleep 0.5; echo; done"
    ) as line:
        assert read_all(line) == b"\n" * 5


def test_a_deadline_for_the_whole_board(board: Callable[..., Address]) -> None:
    with (
        opened(board(), Limits(board=1.5), "while :; do echo; sleep 0.2; done") as line,
        pytest.raises(LineLost) as caught,
    ):
        read_all(line)
    assert caught.value.cause == "board-deadline"


@pytest.mark.parametrize(
    ("mood", "cause"),
    [("no channel", "channel-refused"), ("no exec", "channel-refused"), ("exec", "silence")],
)
def test_servers_that_refuse_or_never_answer_the_last_steps(
    mood: str, cause: str, sshd: sshd_server.Sshd, board: Callable[..., Address]
) -> None:
    with (
        bad_boards.sleepy(mood, sshd.host_keys[0]) as port,
        pytest.raises(RemoteError) as caught,
        opened(board(port=port, host_key=sshd.public()), Limits(silence=1), "true") as line,
    ):
        line.recv(1)
    assert caught.value.cause == cause


@clients
@pytest.mark.parametrize(
    ("greeting", "hang_up", "cause"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "not-ssh"),
        (b"220 ftp\r\n", False, "not-ssh"),
        (b"", True, "no-banner"),
        (b"SSH-2.0-Board_1.0\r\n", False, "kex-failed"),
        (b"SSH-2.0-Board_1.0\r\n" + b"\0\0\0\x0c\x0agarbage!!!!", True, "kex-failed"),
    ],
)
def test_servers_that_are_none(
    client: str, greeting: bytes, hang_up: bool, cause: str, board: Callable[..., Address]
) -> None:
    with bad_boards.talker(greeting, hang_up=hang_up) as port, pytest.raises(Unreachable) as caught:
        open_line(board(port=port, client=client), Limits(banner=1), "true")
    if client == "openssh" and greeting[:4] in (b"HTTP", b"220 "):
        # ssh itself does not tell a server that talks differently from one that says nothing.
        assert caught.value.cause in ("not-ssh", "no-banner")
    else:
        assert caught.value.cause == cause


def test_endless_talk_before_the_banner_does_not_fill_our_memory(board: Callable[..., Address]) -> None:
    begun = time.monotonic()
    with bad_boards.talker(b"x" * 1_000_000, hang_up=False) as port, pytest.raises(Unreachable) as caught:
        open_line(board(port=port), Limits(banner=60), "true")
    assert caught.value.cause == "not-ssh"
    assert time.monotonic() - begun < 30, "it was listened to until the limit"


def test_an_old_server_that_knows_sha1_only(sshd: sshd_server.Sshd, board: Callable[..., Address]) -> None:
    with (
        sshd_like_2010() as port,
        pytest.raises(Unreachable) as caught,
    ):
        open_line(board(port=port, host_key=sshd.public()), Limits(), "true")
    assert caught.value.cause == "kex-failed"
    assert "diffie-hellman-group1-sha1" in str(caught.value)
    assert "SSH-2.0-OpenSSH_5.3" in str(caught.value)
    assert "too old" in caught.value.hint


def sshd_like_2010() -> contextlib.AbstractContextManager[int]:
    """The greeting and the KEXINIT of an OpenSSH 5.3; it never comes to more."""
    lists = [
        b"diffie-hellman-group-exchange-sha1,diffie-hellman-group14-sha1,diffie-hellman-group1-sha1",
        b"ssh-rsa,ssh-dss",
        b"aes128-ctr,aes128-cbc,3des-cbc",
        b"aes128-ctr,aes128-cbc,3des-cbc",
        b"hmac-md5,hmac-sha1",
        b"hmac-md5,hmac-sha1",
        b"none",
        b"none",
        b"",
        b"",
    ]
    body = b"\x14" + bytes(16) + b"".join(len(x).to_bytes(4, "big") + x for x in lists) + bytes(5)
    padding = 8 - (len(body) + 5) % 8
    padding += 8 if padding < 4 else 0
    packet = (len(body) + 1 + padding).to_bytes(4, "big") + bytes([padding]) + body + bytes(padding)
    return bad_boards.talker(b"SSH-2.0-OpenSSH_5.3\r\n" + packet, hang_up=False)


def test_names_that_no_server_has(board: Callable[..., Address]) -> None:
    with pytest.raises(Unreachable) as caught:
        open_line(board(host="two..dots"), Limits(), "true")
    assert caught.value.cause == "name-unknown"


def test_round_trips_from_connecting_to_the_first_answer(
    sshd: sshd_server.Sshd, board: Callable[..., Address], limits: Limits
) -> None:
    """With 20 ms of delay the flights stay apart: each turn of the line is a round trip waited for."""
    with bad_boards.Proxy(sshd.port, delay=0.02) as proxy:
        with opened(board(port=proxy.port, host_key=sshd.public()), limits, "cat") as line:
            line.send(b"the first request")
            assert line.recv(100) == b"the first request"
        # Banner, key exchange (2), login, channel, command with its first bytes.
        assert proxy.turns <= 6


def test_many_lines_share_one_watchdog_thread(board: Callable[..., Address], limits: Limits) -> None:
    before = threading.active_count()
    lines = [open_line(board(name=f"b{n}"), limits, "cat") for n in range(8)]
    try:
        # One thread of paramiko for each line, and one for all.
        assert threading.active_count() == before + 8 + 1
    finally:
        for line in lines:
            line.close()


@clients
def test_closing_from_another_thread_wakes_who_waits(
    client: str, board: Callable[..., Address], limits: Limits
) -> None:
    line = open_line(board(client=client), limits, "cat")
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            line.recv(1)
        except LineLost as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.3)
    line.close()
    thread.join(20)
    assert [type(error) for error in caught] == [LineLost]


@clients
@pytest.mark.parametrize("silent", ["blackhole", "talker"])
def test_a_line_that_is_only_being_made_can_be_ended(
    client: str, silent: str, board: Callable[..., Address], limits: Limits
) -> None:
    """Nobody holds it yet: Ctrl-C would wait for all the limits of connecting."""
    patient = replace(limits, connect=120, banner=120)
    server = bad_boards.blackhole() if silent == "blackhole" else bad_boards.talker(b"", hang_up=False)
    caught: list[BaseException] = []

    def connect(port: int) -> None:
        try:
            open_line(board(client=client, port=port), patient, "cat").close()
        except RemoteError as error:
            caught.append(error)

    with server as port:
        thread = threading.Thread(target=connect, args=(port,))
        thread.start()
        deadline = time.monotonic() + 20
        while not any(guard.connecting for guard in WATCHDOG._guards) and time.monotonic() < deadline:
            time.sleep(0.01)
        WATCHDOG.end_connecting()
        thread.join(20)
        assert not thread.is_alive()
    assert [type(error) for error in caught] == [LineLost]
    assert "interrupted" in str(caught[0])


def test_a_descriptor_is_not_given_up_while_a_thread_waits_on_it(
    board: Callable[..., Address], limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next connection may get its number, and the kernel lets the woken thread wait on that one."""
    open_when_joined: list[bool] = []
    line = open_line(board(), limits, "cat")
    connector = line._connector  # type: ignore[attr-defined]
    ((_, transport),) = connector._links
    (wire,) = connector._wires
    join = transport.join

    def joined(timeout: float | None = None) -> None:
        join(timeout)
        open_when_joined.append(wire._stream.fileno() >= 0)

    monkeypatch.setattr(transport, "join", joined)
    monkeypatch.setattr(transport, "is_alive", lambda: True)
    line.close()
    assert open_when_joined
    assert all(open_when_joined)
    assert wire._stream.fileno() == -1
    assert not threading.Thread.is_alive(transport)


def test_a_descriptor_is_not_given_up_while_a_thread_sends() -> None:
    """The job's own thread sends, another one closes the line: Ctrl-C does that, and no thread of ours is joined."""
    entered, go_on = threading.Event(), threading.Event()

    class Held(socket.socket):
        def send(self, data: object, flags: int = 0) -> int:
            entered.set()
            assert go_on.wait(20)
            return super().send(data, flags)  # type: ignore[arg-type]

    near, far = socket.socketpair()
    with far, Held(fileno=near.detach()) as stream:
        wire = Wire(stream, Guard("board-1", Limits(), lambda: None))
        sender = threading.Thread(target=push, args=(wire,))
        sender.start()
        assert entered.wait(20)
        wire.close()
        wire.release()
        assert stream.fileno() >= 0
        go_on.set()
        sender.join(20)
        assert stream.fileno() == -1
        assert isinstance(wire.error, BrokenPipeError)


def push(wire: Wire) -> None:
    with contextlib.suppress(OSError):
        wire.send(b"x")


def test_a_local_line_is_not_closed_under_a_thread_that_waits(limits: Limits) -> None:
    """What it waits on gets another owner at once, as where many boards' lines are opened and closed."""
    # Its output stays open for a moment after its input has ended.
    line = open_line(Address("here", "local", client="local"), limits, "cat; sleep 0.5")
    process = line._process  # type: ignore[attr-defined]
    quiet, caught = os.pipe(), []

    def wait() -> None:
        try:
            line.recv(1)
        except LineLost as error:
            caught.append(error.cause)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.3)
    reused = [process.stdout.fileno(), process.stderr.fileno()]
    for stream, number in zip((process.stdout, process.stderr), reused, strict=True):
        stream.close = lambda number=number: os.dup2(quiet[0], number)
    try:
        line.close()
        thread.join(10)
        assert caught == ["closed"]
    finally:
        for number in (*quiet, *reused):
            os.close(number)
        thread.join(60)


def test_a_local_line_whose_descriptors_have_large_numbers(limits: Limits) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this machine does not allow as many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with opened(Address("here", "local", client="local"), limits, "cat") as line:
            line.send(b"x")
            assert line.recv(1) == b"x"
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@clients
def test_a_step_that_is_late_at_the_very_moment_when_it_is_done(
    client: str, board: Callable[..., Address], limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, asked = Guard.ready, []

    def look_first(guard: Guard) -> None:
        assert guard._step is not None
        asked.append(guard._step[1]().cause)  # as the watchdog does
        ready(guard)

    monkeypatch.setattr(Guard, "ready", look_first)
    with opened(board(client=client), limits, "true"):
        assert asked == ["channel-timeout"]


def test_the_log_of_ssh_ends_in_one_thread_while_another_looks(board: Callable[..., Address], limits: Limits) -> None:
    class Vanishing(dict[str, int]):
        def __contains__(self, key: object) -> bool:
            there = super().__contains__(key)
            if key == "log" and there:
                os.close(self.pop("log"))
            return there

    with opened(board(client="openssh"), limits, "cat") as line:
        line.send(b"x")
        line._fds = Vanishing(line._fds)  # type: ignore[attr-defined]
        assert line.recv(1) == b"x"


@clients
def test_sending_and_receiving_at_once(client: str, board: Callable[..., Address], limits: Limits) -> None:
    payload = bytes(range(256)) * 65536  # 16 MB: more than all buffers on the way
    with opened(board(client=client), limits, "cat") as line:
        sender = threading.Thread(target=line.send, args=(payload,))
        sender.start()
        got = bytearray()
        while len(got) < len(payload):
            got += line.recv(1 << 16)
        sender.join(20)
        assert got == payload


def test_a_name_server_that_never_answers(
    board: Callable[..., Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()

    def hang(*args: object, **options: object) -> list[object]:
        answer.wait(30)
        return []

    monkeypatch.setattr("socket.getaddrinfo", hang)
    try:
        with pytest.raises(Unreachable) as caught:
            open_line(board(host="board.invalid"), Limits(connect=0.3), "true")
    finally:
        answer.set()
    assert caught.value.cause == "name-unknown"


def push_through_timeouts(wire: Wire) -> None:
    for _ in range(500):
        with contextlib.suppress(TimeoutError):
            wire.send(bytes(1 << 20))


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT")
def test_the_kernels_own_time_out_is_a_broken_line_and_not_a_poll() -> None:
    with bad_boards.talker(b"", hang_up=False) as port, bad_boards.Proxy(port) as proxy:
        guard = Guard("board-1", Limits(), lambda: None)
        sock = dial("127.0.0.1", proxy.port, guard, "board-1")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 65_000
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
        sock.settimeout(0.2)
        wire = Wire(sock, guard)
        proxy.cut()
        with pytest.raises(ConnectionAbortedError):
            push_through_timeouts(wire)
        assert isinstance(wire.error, TimeoutError)
        wire.close()
        wire.release()


def test_the_next_address_is_tried(
    sshd: sshd_server.Sshd, board: Callable[..., Address], limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bad_boards.refused() as nothing:
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", nothing)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", sshd.port)),
        ]
        monkeypatch.setattr("socket.getaddrinfo", lambda *args, **options: addresses)
        with opened(board(host="two.faces", host_key=sshd.public()), limits, "printf x") as line:
            assert line.recv(1) == b"x"


def test_limits_are_not_shared(board: Callable[..., Address], limits: Limits) -> None:
    """One line's silence ends that line only."""
    hasty = replace(limits, silence=0.5)
    with opened(board(), limits, "cat") as good, opened(board(), hasty, "cat") as bad:
        with pytest.raises(LineLost):
            bad.recv(1)
        good.send(b"x")
        assert good.recv(1) == b"x"
