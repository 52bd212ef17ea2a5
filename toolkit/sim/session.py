"""One session channel of a simulated board: a command, a shell or SFTP, behaving as under OpenSSH's sshd.

What callers rely on, and what is therefore the same here:

* a command runs as ``<login shell> -c command`` in a session of its own, in the home folder, with pipes;
* the exit status is sent when the command itself ends; the channel closes when its output is at an end too (a
  background process that keeps the output open keeps the channel open);
* when the connection or the channel goes away, the command is not killed: its input ends, its output breaks;
* with a pseudo-terminal it gets a hang-up instead, because its terminal goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections import deque
from pathlib import Path
from typing import Any, TypeAlias, cast

import asyncssh
from asyncssh.channel import SSHChannel
from asyncssh.stream import SSHServerStreamSession

from toolkit.sim.boards import Folder, login_shell
from toolkit.sim.processes import Reaper

Channel: TypeAlias = asyncssh.SSHServerChannel[bytes]

_CHUNK = 128 * 1024
_PIPE_BYTES = 256 * 1024
_PENDING_HIGH = 1024 * 1024
_PENDING_LOW = 256 * 1024


class Session(SSHServerStreamSession[bytes]):
    """Serves one channel of a board. SFTP is asyncssh's own; the rest is done here, on raw pipes."""

    def __init__(self, folder: Folder, reaper: Reaper, connection: dict[str, str]) -> None:
        super().__init__(None, lambda chan: _Sftp(cast(Channel, chan), folder), 3, False)
        self._folder = folder
        self._reaper = reaper
        self._connection_variables = connection
        self._channel: Channel | None = None
        self._events = asyncio.get_running_loop()
        self._terminal: tuple[int, int, int, int] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._input = -1
        self._outputs: dict[int, int | None] = {}
        self._pending: deque[memoryview] = deque()
        self._pending_bytes = 0
        self._input_ends = False
        self._writing_paused = False
        self._reading_paused = False
        self._exited = False

    # What the client asks for

    def connection_made(self, chan: SSHChannel[bytes]) -> None:
        """Remember the channel."""
        super().connection_made(chan)
        self._channel = cast(Channel, chan)

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Any) -> bool:
        """Grant a pseudo-terminal."""
        self._terminal = term_size
        return True

    def shell_requested(self) -> bool:
        """Grant a shell."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Grant any command."""
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Grant SFTP and nothing else."""
        return subsystem == "sftp"

    def session_started(self) -> None:
        """Start what was asked for."""
        assert self._channel is not None
        if self._channel.get_subsystem():
            self._channel.set_write_buffer_limits(_PENDING_HIGH)
            super().session_started()
        else:
            self._start(self._channel.get_command())

    # The command

    def _environment(self) -> dict[str, str]:
        assert self._channel is not None
        env = {**self._folder.environment(), **self._connection_variables}
        # As Debian's and Ubuntu's sshd_config has it: AcceptEnv LANG LC_*
        for name, value in self._channel.get_environment().items():
            if name == "LANG" or name.startswith("LC_"):
                env[name] = value
        if self._terminal is not None:
            env["TERM"] = self._channel.get_terminal_type() or "dumb"
        return env

    def _start(self, command: str | None) -> None:
        assert self._channel is not None
        shell = login_shell()
        name = Path(shell).name
        argv = [name, "-c", command] if command is not None else [f"-{name}"]
        home = self._folder.home
        ours: list[int] = []
        theirs: list[int] = []
        terminal = None
        try:
            if self._terminal is not None:
                master, slave = pty.openpty()
                ours += [master, os.dup(master)]
                theirs = [slave, slave, slave]
                _resize(master, self._terminal)
                terminal = _take_terminal
            else:
                for index in range(3):
                    reads, writes = os.pipe()
                    _widen(writes)
                    ours.append(writes if index == 0 else reads)
                    theirs.append(reads if index == 0 else writes)
            self._process = subprocess.Popen(
                argv,
                executable=shell,
                cwd=home if home.is_dir() else "/",
                env=self._environment(),
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                start_new_session=True,
                preexec_fn=terminal,
            )
        except OSError as error:
            for fd in ours:
                os.close(fd)
            self._channel.write_stderr(f"the simulated board cannot start a process: {error}\n".encode())
            self._channel.exit(255)
            return
        finally:
            for fd in set(theirs):
                os.close(fd)
        self._reaper.watch(self._process, self._ended)
        for fd in ours:
            os.set_blocking(fd, False)
        self._input = ours[0]
        self._outputs = dict(zip(ours[1:], (None, asyncssh.EXTENDED_DATA_STDERR), strict=False))
        self._channel.set_write_buffer_limits(_PENDING_HIGH)
        self._listen()

    def _ended(self, code: int) -> None:
        """The command is over: say so at once, and close the channel when its output has been sent."""
        self._exited = True
        if self._channel is None:
            return
        self._close_input()
        # asyncssh's own exit() closes the channel together with sending the status; sshd does not.
        with contextlib.suppress(OSError, asyncssh.Error):
            if code >= 0:
                self._channel._send_request(b"exit-status", struct.pack(">I", code))
            else:
                arguments = [_string(_signal_name(-code)), b"\0", _string(""), _string("")]
                self._channel._send_request(b"exit-signal", *arguments)
        self._close_channel_if_done()

    def _close_channel_if_done(self) -> None:
        if self._exited and not self._outputs and self._channel is not None:
            self._channel.write_eof()
            self._channel.close()

    # From the command to the client

    def _listen(self) -> None:
        for fd in self._outputs:
            self._events.add_reader(fd, self._output, fd)

    def _output(self, fd: int) -> None:
        assert self._channel is not None
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # a terminal that nobody has open any more gives EIO
            data = b""
        if data:
            self._channel.write(data, self._outputs[fd])
            return
        self._events.remove_reader(fd)
        os.close(fd)
        del self._outputs[fd]
        self._close_channel_if_done()

    def pause_writing(self) -> None:
        """The client does not keep up: leave the output in the pipe, where it holds the command back."""
        super().pause_writing()
        for fd in self._outputs:
            self._events.remove_reader(fd)

    def resume_writing(self) -> None:
        """The client caught up."""
        super().resume_writing()
        self._listen()

    # From the client to the command

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass input on; what the pipe does not take waits, and holds the client back when it is much."""
        if self._process is None:
            super().data_received(data, datatype)
            return
        if self._input < 0:
            return
        view = memoryview(data)
        if not self._pending:
            view = view[self._write(view) :]
            if not view or self._input < 0:
                return
            self._events.add_writer(self._input, self._flush)
        self._pending.append(view)
        self._pending_bytes += len(view)
        if self._pending_bytes > _PENDING_HIGH and not self._reading_paused and self._channel is not None:
            self._reading_paused = True
            self._channel.pause_reading()

    def _write(self, data: memoryview) -> int:
        """Write to the command; return how much went. One that has closed its input takes everything."""
        try:
            return os.write(self._input, data)
        except BlockingIOError:
            return 0
        except OSError:
            self._close_input()
            return len(data)

    def _flush(self) -> None:
        while self._pending:
            done = self._write(self._pending[0])
            if self._input < 0:
                return
            self._pending_bytes -= done
            if done < len(self._pending[0]):
                self._pending[0] = self._pending[0][done:]
                break
            self._pending.popleft()
        if self._pending_bytes < _PENDING_LOW:
            self._resume_reading()
        if not self._pending:
            self._events.remove_writer(self._input)
            if self._input_ends:
                self._close_input()

    def eof_received(self) -> bool:
        """The client's input is at its end; the channel stays open for the output."""
        if self._process is None:
            return bool(super().eof_received())
        self._input_ends = True
        # A terminal has no end of input; it is the user's Ctrl-D that ends it.
        if not self._pending and self._terminal is None:
            self._close_input()
        return True

    def _close_input(self) -> None:
        if self._input >= 0:
            self._events.remove_writer(self._input)
            os.close(self._input)
            self._input = -1
        self._pending.clear()
        self._pending_bytes = 0
        self._resume_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._channel is not None:
            self._reading_paused = False
            self._channel.resume_reading()

    # The rest

    def signal_received(self, signal: str) -> None:
        """Send the signal to the command's process group."""
        if self._process is not None and not self._exited:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, _signal_number(signal))

    def break_received(self, msec: int) -> bool:
        """Do nothing: there is no serial line."""
        return False

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Pass the new size on to the programs in the terminal."""
        if self._input >= 0 and self._terminal is not None:
            _resize(self._input, (width, height, pixwidth, pixheight))

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone, with or without its connection: let go of the command, but let it live."""
        self._channel = None
        self._close_input()
        for fd in self._outputs:
            self._events.remove_reader(fd)
            os.close(fd)
        self._outputs = {}
        super().connection_lost(exc)


class _Sftp(asyncssh.SFTPServer):
    """SFTP over the whole machine, as on a board; relative names belong to the home folder."""

    def __init__(self, chan: Channel, folder: Folder) -> None:
        super().__init__(chan)
        self._home = os.fsencode(folder.home)
        # Commands copied from a tutorial name the real home. Where this machine has none, it means this one.
        real = f"/home/{folder.board.user}"
        self._real = b"" if os.path.isdir(real) else os.fsencode(real)

    def map_path(self, path: bytes) -> bytes:
        """Return the path on this machine."""
        if self._real and (path == self._real or path.startswith(self._real + b"/")):
            path = self._home + path[len(self._real) :]
        return os.path.join(self._home, path)

    def exit(self) -> None:
        """Tell the client that all went well: without an exit status OpenSSH's scp calls it a failure."""
        with contextlib.suppress(OSError):
            self.channel.exit(0)


def _take_terminal() -> None:
    """Make standard input the controlling terminal; in the child, between fork and exec."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _resize(fd: int, size: tuple[int, int, int, int]) -> None:
    width, height, pixel_width, pixel_height = size
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, pixel_width, pixel_height))


def _widen(fd: int) -> None:
    """Give a pipe more room than 64 KiB: fewer turns of the loop for the same bytes (Linux)."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # the user's share of pipe memory is used up
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _string(text: str) -> bytes:
    """SSH's string: length and bytes."""
    return struct.pack(">I", len(text)) + text.encode()


def _signal_name(number: int) -> str:
    """Return a signal's name in the protocol, which has no "SIG" (RFC 4254, section 6.10)."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"{number}@ascend-sim"


def _signal_number(name: str) -> int:
    """Return the number of a signal in the protocol; an unknown one is a no-op."""
    member = signal.Signals.__members__.get(f"SIG{name}")
    return int(member) if member else 0
