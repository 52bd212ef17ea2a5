"""The near side of the agent: what the controller can ask of a board, each as one request and one answer.

::

    with BoardAgent.connect(address, limits) as board:
        found = board.inspect("~/HIAI_PROJECTS", "cifar10", Wish(release, environment))
        if release.id != found.current or found.missing:
            board.lock("me@here")
            board.install(release, open_blob, environment)
            board.run(["{python}", "infer.py"], release=release.id, cwd="{release}", limit=60, …)
            board.switch(release.id, confirm_within=120)
            board.confirm({"run_key": …})

The far side is ``toolkit/onboard/agent.py``. Everything that it says is untrusted: shapes are checked,
control codes are taken out, names are mapped, sizes are bounded.
"""

from __future__ import annotations

import getpass
import hashlib
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from toolkit.artefacts.manifest import Release, check_path
from toolkit.errors import BoardRefused, CommandFailed, InputError, LineLost, RemoteError
from toolkit.remote.address import Address, Limits
from toolkit.remote.boot import boot_command, boot_payload
from toolkit.remote.frames import CHUNK, Frames, Json, typed
from toolkit.remote.incoming import Incoming
from toolkit.remote.line import Line, open_line
from toolkit.remote.outgoing import SMALL, SMALLEST, Pace, parts_of
from toolkit.remote.text import plain
from toolkit.ui.events import Emit, Event, ignore
from toolkit.ui.words import counted

if TYPE_CHECKING:
    from toolkit.remote.delta import Delta, Index

_SPARE = 4 << 20
"""Bytes of a board's disk that are left alone, by the agent too."""

_PASSES = 3
"""How often missing or damaged blobs are sent before we give up on a board."""


def local_holder() -> str:
    """``user@host`` of this process, for locks and journals."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


@dataclass(frozen=True)
class Wish:
    """What a board ought to have: compared by the board while it inspects itself.

    ``environment``: the text of the block in ``~/.bashrc``, "" = none. ``run_key``: names the results wanted;
    compare it with that in :attr:`Inspection.last_run`.
    """

    release: Release | None = None
    environment: str = ""
    run_key: str = ""


@dataclass(frozen=True)
class Inspection:
    """What a board is and has. Sizes in bytes, times in seconds, points in time by the board's clock."""

    facts: Mapping[str, Any]
    """python, version, user, home, arch, system, kernel, hostname, clock (epoch), disk_free, disk_total,
    boot_id, cores, memory_total, groups."""
    folder: str
    """Absolute path of <root>/<app> on the board."""
    current: str
    previous: str
    reverted: str
    """The release that was taken back last, by a person, a rollout or the board itself; "" once another one came."""
    broken: tuple[str, ...]
    """Paths in the current release whose files are missing or have another size."""
    releases: tuple[str, ...]
    """Ids of the complete releases, oldest first."""
    missing: Mapping[str, int]
    """SHA-256 of what the wished release lacks → bytes of it that are there already."""
    environment: str
    """The block in ~/.bashrc against the wish: ``same``, ``differs`` or ``absent``; "" without a wish."""
    last_run: Mapping[str, Any] | None
    """What :meth:`BoardAgent.confirm` stored for the current release. ``time`` is a number if it is there, ``figures``
    holds numbers, None, and ``failed``, a list of names."""
    lock: Mapping[str, Any] | None
    """holder, since (epoch), age (seconds) of somebody else's lock."""
    pending: Mapping[str, Any] | None
    """release, former, within of a switch that waits to be confirmed."""
    foreign: str
    """Why ``current`` is not ours; "" where it is, or where there is none."""
    journal_tail: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What is odd about the board without being in the way, such as a clock in 1970."""


@dataclass(frozen=True)
class InstallReport:
    """What it took: blobs and payload bytes sent, passes over the missing ones, whether anything was new.

    ``deltas``: how many of the blobs were sent as what differs from an older one.
    """

    release: str
    new: bool
    blobs: int = 0
    bytes: int = 0
    passes: int = 1
    environment_changed: bool = False
    deltas: int = 0


@dataclass(frozen=True)
class RunReport:
    """How a command ended. ``status``: exit status, or minus the number of the signal that killed it."""

    status: int
    stdout_tail: str
    """The last 64 KiB, control codes stripped line by line."""
    stderr_tail: str
    seconds: float
    interpreter: str = ""
    peak_rss: int = 0
    """Bytes, of the largest process."""


@dataclass
class _Session:
    root: str
    app: str
    holder: str
    missing: dict[str, int] = field(default_factory=dict)
    bases: dict[str, tuple[str, int]] = field(default_factory=dict)
    wished: str = ""
    folder: str = ""
    disk_free: int | None = None
    switched: str = ""


class BoardAgent:
    """One session with one board: one connection, one channel. A context manager; not for two threads at
    once.

    Methods raise :class:`toolkit.errors.Unreachable` (no session), :class:`toolkit.errors.BoardRefused` (the
    board cannot, with the cause), :class:`toolkit.errors.LineLost` (the session broke; a new one goes on).
    """

    def __init__(
        self, line: Line, address: Address, limits: Limits, emit: Emit = ignore, boot: bytes = b""
    ) -> None:
        self.line = line
        self.address = address
        self._limits = limits
        self._emit = emit
        self._frames = Frames(line, address.name, boot or boot_payload())
        self._session = _Session("", "", local_holder())
        self._first = True

    @classmethod
    def connect(cls, address: Address, limits: Limits, emit: Emit = ignore) -> BoardAgent:
        """Open a line to the board and start the agent on it; its source leaves with the first request."""
        return cls(open_line(address, limits, boot_command(address.interpreters)), address, limits, emit)

    @property
    def requests(self) -> int:
        """Requests made so far in this session."""
        return self._frames.requests

    def __enter__(self) -> BoardAgent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; the board's lock goes with it, a running command too."""
        self.line.close()

    # -- looking

    def inspect(self, root: str, app: str, wish: Wish | None = None) -> Inspection:
        """Look at ``<root>/<app>`` (root may begin with ``~``) and the board. Changes nothing on it.

        The first request of a session: the others act on the root and app given here.
        """
        self._session.root, self._session.app = root, app
        blobs: list[list[Any]] = []
        if wish and wish.release:
            # The role of a large file is its path: the current release may have an older version there.
            roles = {f.sha256: (f.size, f.path if f.size >= SMALLEST else "") for f in wish.release.files}
            blobs = [[sha, size, role] for sha, (size, role) in roles.items()]
            self._session.wished = wish.release.id
        asked = {"environment": wish.environment, "blobs": blobs} if wish else None
        answer = self._ask("inspect", wish=asked)
        with typed(self._frames):
            facts = {str(key): _clean(value) for key, value in answer["facts"].items()}
            for key in ("clock", "disk_free", "disk_total", "cores", "memory_total"):
                facts[key] = float(facts[key]) if key == "clock" else int(facts[key])
            known = {sha for sha, _, _ in blobs}
            missing = {str(sha): int(size) for sha, size in answer["missing"].items()}
            if not known.issuperset(missing) or any(size < 0 for size in missing.values()):
                raise ValueError("missing blobs that nobody asked for")
            bases = {sha: (_release_id(one[0]), int(one[1])) for sha, one in answer.get("bases", {}).items()}
            self._session.bases = {sha: base for sha, base in bases.items() if sha in missing and base[0]}
            self._session.missing, self._session.disk_free = missing, facts["disk_free"]
            self._session.folder = plain(answer["folder"], 4096)
            found = Inspection(
                facts=facts,
                folder=self._session.folder,
                current=_release_id(answer["current"]),
                previous=_release_id(answer["previous"]),
                reverted=_release_id(answer["reverted"]),
                broken=tuple(plain(name) for name in answer["broken"]),
                releases=tuple(_release_id(name) for name in answer["releases"]),
                missing=missing,
                environment=_one_of(answer.get("environment", ""), "same", "differs", "absent", ""),
                last_run=_remembered(answer["last_run"]),
                lock=_record(answer["lock"], holder=str, since=float, age=float),
                pending=_record(answer["pending"], release=_release_id, former=_release_id, within=float),
                foreign=plain(answer["foreign"]),
                journal_tail=tuple(plain(line) for line in answer["journal_tail"]),
                warnings=tuple(plain(line) for line in answer["warnings"]),
            )
        for warning in found.warnings:
            self._emit(Event("warning", warning, board=self.address.name))
        return found

    def verify(self) -> dict[str, Any]:
        """Re-hash the files of the current release on the board.

        :returns: ``ok``, ``release``, ``damaged`` and ``missing`` (paths), ``environment``, ``foreign``.
        """
        answer = self._ask("verify")
        with typed(self._frames):
            return {
                "ok": answer["ok"] is True,
                "release": _release_id(answer["release"]),
                "damaged": [plain(name) for name in answer["damaged"]],
                "missing": [plain(name) for name in answer["missing"]],
                "environment": _one_of(answer["environment"], "same", "differs", "absent"),
                "foreign": plain(answer["foreign"]),
            }

    def read_log(self, name: str) -> str:
        """The last 64 KiB of a text file below ``<root>/<app>``, such as ``journal``; no control codes."""
        answer = self._ask("read-log", name=name)
        with typed(self._frames):
            return _lines(answer["text"])

    # -- the lock

    def lock(self, holder: str, break_lock: bool = False) -> None:
        """Take the app's lock on the board, for the session. Requests that change the board take it by
        themselves.

        ``holder`` is for people. ``break_lock`` ends the agent that holds it (it may be killed at any point).

        :raises BoardRefused: cause ``locked``; the message names the holder and the age.
        """
        self._session.holder = holder
        self._ask("lock", **{"break": break_lock})

    def unlock(self) -> None:
        """Give the lock back before the session ends."""
        self._ask("unlock")

    # -- changing

    def install(
        self,
        release: Release,
        open_blob: Callable[[str], BinaryIO],
        environment: str,
        old_blob: Callable[[str, int], Path | None] = lambda sha256, size: None,
        deltas: str = "auto",
    ) -> InstallReport:
        """Put a release on the board, beside the one in use, and keep ``environment`` with it for the switch.

        Sends what is missing (a cut transfer goes on where it stopped) in one stream; the board verifies each
        content and builds the release. Installing the current release again repairs it, and sets its
        environment.

        ``open_blob``: SHA-256 → a new binary stream at its start. ``old_blob``: SHA-256 and size → the file
        with that content, if it is here, for sending what differs from what the board has. Where it is not,
        the board is asked for its index of that content, and ranges that it holds are not sent. ``deltas``:
        ``always``, ``never``, or ``auto``: where the line turns out to be slower than working them out.
        """
        sizes = {file.sha256: file.size for file in release.files}
        missing = self._session.missing if self._session.wished == release.id else {}
        self._must_fit(sum(sizes[sha] - min(have, sizes[sha]) for sha, have in missing.items()))
        found = self._deltas(missing, sizes, open_blob, old_blob) if deltas != "never" else {}
        pace = Pace(deltas == "auto")
        total = blobs = differing = 0
        for number in range(1, _PASSES + 1):
            sent, differed = self._send_release(release, environment, missing, sizes, open_blob, found, pace)
            total += sent
            blobs += len(missing)
            differing += differed
            answer = self._answer()
            with typed(self._frames):
                lack = {str(sha): int(size) for sha, size in answer["missing"].items()}
                if not lack:
                    self._session.missing, self._session.wished = {}, release.id
                    return InstallReport(
                        release.id,
                        bool(answer["new"]),
                        blobs,
                        total,
                        number,
                        bool(answer["environment_changed"]),
                        differing,
                    )
                if not sizes.keys() >= lack.keys() or any(have < 0 for have in lack.values()):
                    raise ValueError("missing blobs that are not in the release")
            # What the board rebuilt from its old content was wrong, so that is not what it should be.
            missing, found = lack, {}
        raise BoardRefused(
            f"{self.address.name}: {counted(len(missing), 'file')} damaged on the board each time, however often sent",
            cause="agent-failed",
            host=self.address.name,
            hint="the board's card or memory is failing",
        )

    def _deltas(
        self,
        missing: Mapping[str, int],
        sizes: Mapping[str, int],
        open_blob: Callable[[str], BinaryIO],
        old_blob: Callable[[str, int], Path | None],
    ) -> dict[str, tuple[str, Delta]]:
        """SHA-256 of a missing content → that of an older one on the board, and the difference."""
        bases = {sha: self._session.bases[sha] for sha in missing if sha in self._session.bases}
        if not bases:
            return {}
        from toolkit.remote.delta import delta_of, unpack_index

        old: dict[str, Path | Index | None] = {}
        for base, size in bases.values():
            path = old_blob(base, size)
            old[base] = path if path and path.stat().st_size == size else None
        unknown = {base: size for base, size in bases.values() if old[base] is None}
        if unknown:
            answer = self._ask("index", blobs=sorted(unknown))
            with typed(self._frames):
                for base, size in unknown.items():
                    old[base] = unpack_index(bytes.fromhex(answer["index"].get(base, "")), size)
        deltas = {}
        for sha, (base, _) in bases.items():
            known = old[base]
            delta = delta_of(base, sha, sizes[sha], partial(open_blob, sha), known) if known else None
            if delta:
                deltas[sha] = base, delta
        return deltas

    def _must_fit(self, size: int) -> None:
        """Refuse before the first byte; the board checks again, with what it has left by then."""
        free, need = self._session.disk_free, size + _SPARE
        if free is not None and need > free:
            raise BoardRefused(
                f"{self.address.name}: {self._session.folder} has {free} bytes free, {need} are needed",
                cause="disk-full",
                host=self.address.name,
                hint="make room on the board",
            )

    def _send_release(
        self,
        release: Release,
        environment: str,
        missing: Mapping[str, int],
        sizes: Mapping[str, int],
        open_blob: Callable[[str], BinaryIO],
        deltas: Mapping[str, tuple[str, Delta]],
        pace: Pace,
    ) -> tuple[int, int]:
        """One pass: the request, then the blobs of ``missing`` (SHA-256 → bytes there).

        :returns: bytes sent, and how many blobs were sent as differences.
        """
        parts = parts_of(missing, sizes, open_blob, deltas, pace)
        before = self.line.sent
        self._request(
            "install",
            release=release.id,
            manifest=release.text,
            environment=environment,
            blobs=[part.entry for part in parts],
        )
        total, done = sum(part.size - part.start for part in parts), 0
        for part in parts:
            for payload, step in part.payloads():
                with pace.sending(len(payload)):
                    self._frames.frame(b"B", payload)
                done += step
                self._progress(done, total, step)
            self._frames.frame(b"E")
        self._frames.flush()
        return self.line.sent - before, sum(len(part.packing) > 1 for part in parts)

    def _progress(self, done: int, total: int, step: int) -> None:
        if done == total or done // SMALL != (done - step) // SMALL:
            data = {"done": done, "total": total, "unit": "B"}
            self._emit(Event("progress", stage="push", board=self.address.name, data=data))

    def set_environment(self, text: str) -> bool:
        """Make our block in ``~/.bashrc`` say ``text`` ("" removes it) at once. True if it did not yet."""
        answer = self._ask("set-environment", text=text)
        with typed(self._frames):
            return bool(answer["changed"])

    def switch(self, release_id: str, confirm_within: float, signature: str = "") -> str:
        """Point ``current`` to an installed release; returns the former id ("" = none).

        Unless :meth:`confirm` comes within ``confirm_within`` seconds, in this session or another, the board
        puts ``current`` and the environment back by itself. 0 = nothing to confirm.

        ``signature``: of the manifest (:mod:`toolkit.artefacts.signing`); the board checks it with the keys that
        it was given, and keeps it with the release.

        :raises BoardRefused: causes ``no-release``, ``foreign-release``, ``locked``, ``signature``.
        """
        answer = self._ask("switch", release=release_id, within=confirm_within, signature=signature)
        self._session.switched = release_id
        with typed(self._frames):
            return _release_id(answer["former"])

    def confirm(self, record: Mapping[str, Any], keep_releases: int = 3) -> None:
        """Keep the switch, store ``record`` (JSON) for the next :meth:`inspect`, collect what is not needed.

        ``keep_releases``: how many stay on the board; those that are in use, the previous one among them, do
        in any case. In a new session, ``record["release"]`` says which release is meant.

        :raises BoardRefused: cause ``reverted``: too late, the board has put its former release back.
        """
        release = self._session.switched or str(record.get("release", ""))
        self._ask("confirm", release=release, record=dict(record), keep=keep_releases)

    def revert(self, to: str = "") -> str:
        """Back to the release ``to``, or to the previous one; "none": back to no release at all, as before
        a board's first one. Returns the id that is current now.

        Without ``to``, a board that went back already stays where it is: again would be forward.

        :raises BoardRefused: causes ``no-release`` (gone, or not whole), ``foreign-release``, ``locked``,
            ``signature``.
        """
        answer = self._ask("revert", to=to)
        with typed(self._frames):
            return _release_id(answer["current"])

    # -- running

    def run(
        self,
        argv: Sequence[str],
        *,
        release: str = "",
        cwd: str = "",
        env_file: str = "",
        interpreters: Sequence[str] = (),
        need: Sequence[str] = ("acl", "numpy", "PIL"),
        limit: float,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> RunReport:
        """Run a command on the board, at most ``limit`` seconds; it ends with the session whatever happens.

        ``{release}`` and ``{app}`` in ``argv``, ``cwd`` and ``env_file`` stand for folders (of
        ``release``, or the current one). ``argv[0] == "{python}"`` is the first of ``interpreters`` that
        can import all of ``need`` once ``env_file`` has been sourced. ``on_line`` gets each line of stdout
        as it comes.

        :raises CommandFailed: cause ``command-timeout`` or ``killed``. A non-zero status is only reported.
        """

        def other(kind: bytes, payload: bytes) -> None:
            with typed(self._frames):
                lines = self._frames.json(payload)["lines"] if kind == b"V" else None
                if not isinstance(lines, list):
                    raise TypeError(f"frame {kind!r} in a command's output")
            for line in lines:
                on_line(plain(str(line), 8192))

        self._request(
            "run",
            argv=list(argv),
            release=release,
            cwd=cwd,
            env_file=env_file,
            interpreters=list(interpreters),
            need=list(need),
            limit=limit,
        )
        answer = self._answer(other)
        with typed(self._frames):
            report = RunReport(
                status=int(answer["status"]),
                stdout_tail=_lines(answer["stdout_tail"]),
                stderr_tail=_lines(answer["stderr_tail"]),
                seconds=float(answer.get("seconds", 0)),
                interpreter=plain(answer["interpreter"]),
                peak_rss=int(answer.get("peak_rss", 0)),
            )
            ended = _one_of(answer["ended"], "exit", "deadline", "killed")
        if ended == "exit":
            return report
        raise CommandFailed(
            f"{self.address.name}: {argv[-1] if len(argv) == 1 else ' '.join(argv[:2])} "
            + (f"took longer than {limit:g} s" if ended == "deadline" else "was killed"),
            cause="command-timeout" if ended == "deadline" else "killed",
            host=self.address.name,
            hint="raise the limit" if ended == "deadline" else "look at the board's memory and dmesg",
            detail="\n".join((report.stdout_tail + report.stderr_tail).splitlines()[-20:]),
            argv=argv,
            status=report.status,
        )

    # -- files

    def fetch(self, folder: str, into: Path, *, limit_bytes: int, limit_files: int) -> list[Path]:
        """Copy the files below ``<root>/<app>/<folder>`` into ``into``, in one stream. Returns their paths.

        :raises BoardRefused: causes ``missing``, ``too-large``.
        """
        into.mkdir(parents=True, exist_ok=True)
        incoming = Incoming(self._frames, into, self.address.name, limit_bytes, limit_files)
        try:
            self._request("fetch", folder=folder, limit_bytes=limit_bytes, limit_files=limit_files)
            self._answer(incoming.frame)
        except LineLost:
            raise
        except RemoteError as problem:
            if problem.cause == "too-large":
                self.close()  # the rest is still coming: this session is of no more use
            raise
        finally:
            incoming.close()
        return incoming.paths

    def put(self, folder: str, files: Mapping[str, Path]) -> None:
        """Copy files (name → file here) into the folder ``<root>/<app>/work/<folder>``, in one stream."""
        entries = []
        for name, file in files.items():
            check_path(name, what="a work folder")
            status = file.stat()
            entries.append((name, file, status.st_size, status.st_mode))
        self._request("put", folder=folder, files=[[name, size, mode] for name, _, size, mode in entries])
        for name, file, size, _ in entries:
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                while piece := stream.read(CHUNK):
                    digest.update(piece)
                    self._frames.frame(b"B", piece)
            if file.stat().st_size != size:
                raise InputError(f"{file} changed while it was being sent", hint=f"send {name} again")
            self._frames.frame(b"E", digest.digest())
        self._answer()

    def remove(self, folder: str) -> None:
        """Remove the work folder ``<root>/<app>/work/<folder>`` with all that is in it."""
        self._ask("remove", folder=folder)

    # -- asking

    def _ask(self, verb: str, **arguments: Any) -> Json:
        self._request(verb, **arguments)
        return self._answer()

    def _request(self, verb: str, **arguments: Any) -> None:
        session = self._session
        if not session.root:
            raise InputError(f"{verb} before inspect: the agent does not know the app's folder yet")
        if self._first:
            arguments["limits"] = {"silence": 2 * self._limits.silence, "board": self._limits.board}
            self._first = False
        self._frames.request(verb, root=session.root, app=session.app, holder=session.holder, **arguments)

    def _answer(self, other: Callable[[bytes, bytes], None] | None = None) -> Json:
        return self._frames.answer(other)


def _clean(value: Any) -> Any:
    """A JSON value with every string in it made plain."""
    if isinstance(value, str):
        return plain(value, 65536)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {plain(str(key)): _clean(item) for key, item in value.items()}
    return value


def _lines(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError("text")
    return "\n".join(plain(line, 8192) for line in text.split("\n"))


def _release_id(value: Any) -> str:
    if value != "" and not (
        isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    ):
        raise ValueError("a release's id")
    return str(value)


def _one_of(value: Any, *words: str) -> str:
    if value not in words:
        raise ValueError(f"one of {words}")
    return str(value)


def _record(value: Any, **types: Callable[[Any], Any]) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise TypeError("a record")
    record = dict(_clean(value))
    return record | {key: kind(record[key]) for key, kind in types.items()}


def _remembered(value: Any) -> dict[str, Any] | None:
    """A record that lay on the board: what is no number where people will read one counts as not remembered."""
    record = _record(value)
    if record is None:
        return None
    figures = record.pop("figures", None)
    if isinstance(figures, dict):
        failed = figures.pop("failed", None)
        record["figures"] = {key: item for key, item in figures.items() if item is None or _is_number(item)}
        if isinstance(failed, list):
            record["figures"]["failed"] = [str(name) for name in failed]
    if not _is_number(record.get("time")):
        record.pop("time", None)
    return record


def _is_number(value: Any) -> bool:
    """Finite, and so small that it can be shown and made a date of."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e11
