"""A board for tests of the agent: the real source in a forked process, whose disk can be stopped at any step.

``ForkedLine`` forks and runs ``toolkit/onboard/agent.py`` on pipes: no interpreter starts, so that
hundreds of kills take seconds. Its one function that changes the disk, ``disk``, is replaced from here by
one that counts, records and, at step ``die_at``, kills the process. :class:`Durable` keeps what would be
on the disk if the power went at that moment: names since the last flush of their folder and content since
the last flush of its file may be lost, in several ways.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import select
import shutil
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from toolkit.artefacts.manifest import Release, blobs_of
from toolkit.errors import LineLost
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, Inspection, Wish
from toolkit.remote.boot import HEADER

AGENT = Path(__file__).resolve().parents[2] / "toolkit" / "onboard" / "agent.py"
BOARD = Address("board", "local", client="local")
ROOT, APP = "~/PROJECTS", "app"

Patch = Callable[[dict[str, Any]], None]


@functools.cache
def agent_code() -> CodeType:
    return compile(AGENT.read_text(encoding="utf-8"), str(AGENT), "exec")


class ForkedLine:
    """A line to an agent in a forked process. ``cut_after``: bytes after which the line breaks, both ways."""

    host_key = ""
    connections = channels = 1

    def __init__(self, home: Path, patch: Patch | None = None, cut_after: int | None = None) -> None:
        self.sent = self.received = 0
        self.written = bytearray()
        self._left = cut_after
        agent_code()  # compiled once, here, and not in each child
        near_in, far_out = os.pipe()
        far_in, near_out = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                self._be_agent(home, patch, far_in, far_out, (near_in, near_out))
            except BaseException:
                (home / "stderr").write_text(traceback.format_exc())
            finally:
                os._exit(70)
        os.close(far_in)
        os.close(far_out)
        self._in, self._out = near_in, near_out
        self._open = True

    @staticmethod
    def _be_agent(home: Path, patch: Patch | None, far_in: int, far_out: int, near: tuple[int, int]) -> None:
        os.setsid()
        for handle in near:
            os.close(handle)
        os.dup2(far_in, 0)
        os.dup2(far_out, 1)
        os.dup2(os.open(home / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.environ["HOME"] = str(home)
        boot = b""
        while len(boot) < HEADER.size or len(boot) < HEADER.size + HEADER.unpack_from(boot)[1]:
            want = HEADER.size + (HEADER.unpack_from(boot)[1] if len(boot) >= HEADER.size else 0)
            part = os.read(0, want - len(boot))
            if not part:
                os._exit(0)
            boot += part
        namespace: dict[str, Any] = {"__name__": "agent"}
        exec(agent_code(), namespace)
        if patch:
            patch(namespace)
        namespace["main"]()
        os._exit(0)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        piece = bytes(data) if self._left is None else bytes(data)[: max(0, self._left - self.sent)]
        self.written += piece
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._out, view) :]
        except OSError as problem:
            raise LineLost("the agent is gone", cause="closed") from problem
        self.sent += len(piece)
        if len(piece) < len(data):
            self._hang_up()
            raise LineLost("cut by the test", cause="reset")

    def recv(self, size: int) -> bytes:
        if self._left is not None and self.sent >= self._left:
            self._hang_up()
            raise LineLost("cut by the test", cause="reset")
        if not select.select([self._in], [], [], 20)[0]:
            raise LineLost("the agent is silent", cause="silence")
        data = os.read(self._in, size)
        self.received += len(data)
        return data

    def _hang_up(self) -> None:
        if self._open:
            self._open = False
            os.close(self._out)
            os.close(self._in)

    def close(self) -> None:
        self._hang_up()
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0

    def stderr_tail(self) -> str:
        return ""


# ------------------------------------------------------------------------------------------ the disk


@dataclass
class Durable:
    """What is certain to be on the disk, by the records of ``disk``. Files and folders are numbers."""

    names: dict[int, dict[str, int]] = field(default_factory=dict)
    """Folder → its entries as last flushed."""
    now: dict[int, dict[str, int]] = field(default_factory=dict)
    """Folder → its entries as they are."""
    content: dict[int, bytes] = field(default_factory=dict)
    """File → its content as last flushed."""
    links: dict[int, str] = field(default_factory=dict)
    """Symbolic link → its target; always durable together with its name."""
    modes: dict[int, int] = field(default_factory=dict)
    top: str = ""
    count: int = 0

    @staticmethod
    def of(top: Path) -> Durable:
        """All of ``top`` is durable."""
        self = Durable(top=str(top))
        known: dict[int, int] = {}

        def scan(path: Path) -> int:
            status = path.lstat()
            if status.st_ino in known and not stat.S_ISDIR(status.st_mode):
                return known[status.st_ino]
            number = known[status.st_ino] = self._new()
            self.modes[number] = stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                self.links[number] = os.readlink(path)
            elif stat.S_ISDIR(status.st_mode):
                self.now[number] = {entry.name: scan(entry) for entry in path.iterdir()}
                self.names[number] = dict(self.now[number])
            else:
                self.content[number] = path.read_bytes()
            return number

        scan(top)
        return self

    def _new(self) -> int:
        self.count += 1
        return self.count

    def find(self, path: str) -> int:
        number = 1
        relative = os.path.relpath(path, self.top)
        for part in relative.split("/") if relative != "." else []:
            number = self.now[number][part]
        return number

    def _place(self, path: str) -> tuple[dict[str, int], str]:
        return self.now[self.find(os.path.dirname(path))], os.path.basename(path)

    def take(self, record: tuple[Any, ...]) -> None:
        """One change of the disk, after it was made."""
        kind, *rest = record
        if kind in ("open", "mkdir", "symlink"):
            path = rest[-1] if kind == "symlink" else rest[0]
            folder, name = self._place(path)
            if name not in folder:
                number = folder[name] = self._new()
                if kind == "mkdir":
                    self.now[number], self.names[number] = {}, {}
                elif kind == "symlink":
                    self.links[number] = rest[0]
        elif kind == "rename":
            folder, name = self._place(rest[0])
            other, new = self._place(rest[1])
            other[new] = folder.pop(name)
        elif kind == "link":
            other, new = self._place(rest[1])
            other[new] = self.find(rest[0])
        elif kind in ("unlink", "rmdir"):
            folder, name = self._place(rest[0])
            del folder[name]
        elif kind == "flush":
            self._flush(self.find(rest[0]), rest[1])
        elif kind == "flush_all":
            for path, content in rest[0].items():
                self._flush(self.find(path), content)

    def _flush(self, number: int, content: bytes | None) -> None:
        if content is None:
            self.names[number] = dict(self.now[number])
        else:
            self.content[number] = content

    def materialise(self, real: Path, into: Path, keep_names: Callable[[int], bool], data: str) -> None:
        """Write what a crash leaves. ``keep_names(folder)``: its unflushed names made it to the disk.

        ``data``: unflushed content is "kept" as it is in ``real``, "lost" (an empty file) or "zeros".
        """
        actual: dict[int, bytes] = {}

        def read(number: int, path: Path) -> None:
            for name, entry in self.now[number].items():
                if entry in self.now:
                    read(entry, path / name)
                elif entry not in self.links:
                    actual[entry] = (path / name).read_bytes()
                    self.modes[entry] = stat.S_IMODE((path / name).stat().st_mode)

        read(1, real)
        made: dict[int, Path] = {}

        def write(number: int, path: Path) -> None:
            if number in self.links:
                path.symlink_to(self.links[number])
            elif number in self.now:
                path.mkdir()
                for name, entry in (self.now if keep_names(number) else self.names)[number].items():
                    write(entry, path / name)
            elif number in made:
                path.hardlink_to(made[number])
            else:
                made[number] = path
                flushed, last = self.content.get(number), actual.get(number, b"")
                if flushed == last or (data == "kept" and number in actual):
                    path.write_bytes(last)
                elif data == "zeros":
                    start = flushed or b""
                    path.write_bytes(start + b"\0" * (len(last) - len(start)))
                else:
                    path.write_bytes(flushed or b"")
                path.chmod(self.modes.get(number, 0o644))

        write(1, into)


def recording(log: Path, die_at: int) -> Patch:
    """Replace the agent's ``disk``: count, record, and be killed before step ``die_at`` (in the middle, of a
    write). Flushes are recorded and not carried out: what they would have saved is the model's business."""

    def patch(namespace: dict[str, Any]) -> None:
        operations = namespace["OPERATIONS"]
        handles: dict[int, str] = {}
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        steps = 0

        def state(path: str) -> bytes | None:
            return None if os.path.isdir(path) else Path(path).read_bytes()

        def disk(operation: str, *arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == die_at:
                if operation == "write":
                    os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            words = [os.fsdecode(word) if isinstance(word, bytes) else word for word in arguments]
            if operation == "write":
                record: tuple[Any, ...] = (operation,)
            elif operation == "flush":
                record = (operation, words[0], state(words[0]))
            elif operation == "flush_all":
                paths = [
                    os.path.join(top, name) for top, dirs, files in os.walk(words[0]) for name in dirs + files
                ]
                record = (
                    operation,
                    {path: state(path) for path in [words[0], *paths] if not os.path.islink(path)},
                )
            else:
                record = (operation, *words)
            result = None if operation in ("flush", "flush_all") else operations[operation](*arguments)
            if operation == "open":
                handles[result] = words[0]
            os.write(out, pickle.dumps(record))
            return result

        namespace["disk"] = disk

    return patch


def no_flush(namespace: dict[str, Any]) -> None:
    """Where only the outcome counts and no crash is to be survived: nothing waits for the real disk."""
    namespace["OPERATIONS"] = dict(
        namespace["OPERATIONS"], flush=lambda path: None, flush_all=lambda path: None
    )


def records(log: Path) -> Iterator[tuple[Any, ...]]:
    if log.exists():
        with log.open("rb") as stream, contextlib.suppress(EOFError):
            while True:
                yield pickle.load(stream)


def copy_tree(source: Path, target: Path) -> None:
    """Copy with hard links kept, as a board's disk has them."""
    made: dict[int, str] = {}

    def copy(src: str, dst: str) -> str:
        number = os.stat(src, follow_symlinks=False).st_ino
        if number in made and not os.path.islink(src):
            os.link(made[number], dst)
        else:
            shutil.copy2(src, dst, follow_symlinks=False)
            made[number] = dst
        return dst

    shutil.copytree(source, target, symlinks=True, copy_function=copy)


# ------------------------------------------------------------------------------------------ releases


@dataclass(frozen=True)
class Made:
    """A release with its contents, in memory; ``environment`` is its block in ~/.bashrc."""

    release: Release
    contents: Mapping[str, Path]
    environment: str

    @property
    def id(self) -> str:
        return self.release.id

    def wish(self) -> Wish:
        return Wish(self.release, self.environment)

    def install(self, board: BoardAgent, *older: Made) -> Any:
        """``older``: releases whose files are on this machine too."""
        here = {file.sha256: one.contents[file.path] for one in older for file in one.release.files}
        return board.install(
            self.release,
            blobs_of(self.release, self.contents),
            self.environment,
            lambda sha256, size: here.get(sha256),
        )


def make_release(folder: Path, contents: Mapping[str, bytes], environment: str) -> Made:
    files = {}
    for name, data in contents.items():
        path = folder / hashlib.sha256(data + name.encode()).hexdigest()[:16]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if name.endswith(".sh") else 0o644)
        files[name] = path
    return Made(Release.of_files(APP, files, {"note": "für Tests"}), files, environment)


def board(home: Path, patch: Patch | None = None, cut_after: int | None = None) -> BoardAgent:
    """A session with the agent whose home folder is ``home``."""
    return BoardAgent(ForkedLine(home, patch, cut_after), BOARD, Limits(silence=20, board=60))


def deploy(
    home: Path, made: Made, patch: Patch | None = no_flush, cut_after: int | None = None, always: bool = False
) -> Inspection:
    """What a rollout does with one board: look, change what is to be changed (or ``always``), confirm."""
    with board(home, patch, cut_after) as agent:
        found = agent.inspect(ROOT, APP, made.wish())
        if (
            always
            or found.current != made.id
            or found.missing
            or found.environment != "same"
            or found.pending
        ):
            agent.lock("tests")
            made.install(agent)
            agent.switch(made.id, 60)
            agent.confirm({"run_key": made.id, "release": made.id})
        return found


def problems(home: Path, allowed: Mapping[str, Made]) -> list[str]:
    """What is wrong with the board's disk as it lies: ``current`` must be a whole release, or absent."""
    app = home / "PROJECTS" / APP
    wrong = []
    for pointer in ("current", "previous"):
        link = app / pointer
        if os.path.lexists(link):
            name = os.readlink(link).rpartition("/")[2]
            wrong += (
                [f"{pointer} is not a release of ours"]
                if name not in allowed
                else release_damage(app, allowed[name])
            )
    for blob in (app / "blobs").glob("*"):
        name = blob.name.partition(".")[0]
        if not blob.name.endswith((".part", ".idx")) and hashlib.sha256(blob.read_bytes()).hexdigest() != name:
            wrong.append(f"blob {name[:8]} holds something else")
    return wrong


def release_damage(app: Path, made: Made) -> list[str]:
    folder = app / "releases" / made.id
    wrong = []
    for file in made.release.files:
        path = folder / file.path
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
            wrong.append(f"{made.id[:8]}/{file.path} is damaged")
        elif path.stat().st_mode & 0o777 != file.mode:
            wrong.append(f"{made.id[:8]}/{file.path} has the wrong mode")
    manifest = folder / "manifest.json"
    if not manifest.is_file() or manifest.read_text(encoding="utf-8") != made.release.text:
        wrong.append(f"{made.id[:8]}/manifest.json is damaged")
    return wrong


def left_over(home: Path) -> list[str]:
    """What nobody needs after a rollout that ended well."""
    app = home / "PROJECTS" / APP
    rest = [str(path.relative_to(home)) for path in home.rglob("*") if path.name.endswith((".tmp", ".part"))]
    return rest + (["pending"] if (app / "pending").exists() else [])


def tidy(home: Path) -> None:
    """A rollout with nothing to change writes nothing; the first session that takes the lock tidies up."""
    with board(home, no_flush) as agent:
        agent.inspect(ROOT, APP)
        agent.lock("tests")


assert sys.platform == "linux", "boards run Linux, and so does this harness"
