"""What the agent does on a board: locks, switches that undo themselves, commands that end, bad boards."""

from __future__ import annotations

import ast
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agent_board import (
    APP,
    BOARD,
    ROOT,
    ForkedLine,
    Made,
    board,
    deploy,
    make_release,
    no_flush,
    problems,
    release_damage,
)

from toolkit.artefacts.manifest import blobs_of
from toolkit.errors import BoardRefused, CommandFailed, LineLost
from toolkit.remote import local_line
from toolkit.remote.address import Limits
from toolkit.remote.agent import BoardAgent, Wish
from toolkit.remote.boot import boot_command

LIMITS = Limits(silence=20, board=60)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "board"
    home.mkdir()
    return home


@pytest.fixture
def app(home: Path) -> Path:
    return home / "PROJECTS" / APP


@pytest.fixture
def releases(tmp_path: Path) -> list[Made]:
    """Six releases that share a file, an executable and a content that is both executable and not."""
    script = b"#!/bin/sh\necho run\n"
    return [
        make_release(
            tmp_path / "contents",
            {
                "model.om": b"m" * 5000,
                "run.sh": script,
                "copy.txt": script,
                "spec.json": b'{"number": %d}' % number,
            },
            f"export NUMBER={number}",
        )
        for number in range(6)
    ]


def until(true: Callable[[], Any], what: str, seconds: float = 20) -> None:
    """Poll for a state; no test waits for luck."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """All that a write would change: inode, mode, links, size, times of change."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (
            status.st_ino,
            status.st_mode,
            status.st_nlink,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
    return found


def current(app: Path) -> str:
    return os.readlink(app / "current").rpartition("/")[2] if os.path.lexists(app / "current") else ""


@contextlib.contextmanager
def ready(home: Path, patch: Any = None) -> Iterator[BoardAgent]:
    """A session that has inspected the board."""
    with board(home, patch) as agent:
        agent.inspect(ROOT, APP)
        yield agent


# ------------------------------------------------------------------------------------------ nothing to do


def test_nothing_changed_writes_nothing(home: Path, releases: list[Made]) -> None:
    (home / ".bashrc").write_text("# mine\n")
    deploy(home, releases[0], patch=None)
    (home / "stderr").unlink()
    (home / "stderr").touch()
    before = snapshot(home)

    def no_writes(namespace: dict[str, Any]) -> None:
        def disk(*arguments: Any) -> None:
            raise AssertionError(f"a change of the disk: {arguments}")

        namespace["disk"] = disk

    with board(home, no_writes) as agent:
        found = agent.inspect(ROOT, APP, releases[0].wish())
        assert agent.verify()["ok"]
    assert (found.current, found.missing, found.environment) == (releases[0].id, {}, "same")
    assert found.last_run == {"run_key": releases[0].id, "release": releases[0].id}
    assert snapshot(home) == before


def test_a_whole_update_asks_seven_times(home: Path, releases: list[Made], tmp_path: Path) -> None:
    made = releases[0]
    with board(home) as agent:
        line = agent.line
        assert isinstance(line, ForkedLine)
        agent.inspect(ROOT, APP, made.wish())
        made.install(agent)
        agent.run(["sh", "./run.sh"], cwd="{release}", release=made.id, limit=20)
        agent.switch(made.id, 60)
        agent.run(["true"], limit=20)
        agent.fetch(f"releases/{made.id}", tmp_path / "into", limit_bytes=10**6, limit_files=10)
        agent.confirm({"run_key": "x"})
        assert line.written.count(b'"verb":') == 7


def _mode(call: ast.Call) -> object:
    return getattr(call.args[1], "value", "?") if len(call.args) > 1 else "r"


CHANGING = """rename replace link symlink unlink remove rmdir mkdir makedirs truncate ftruncate fsync chmod
fchmod
    chown fchown utime mknod mkfifo sync rmtree copy copy2 copyfile move"""


def test_every_change_of_the_disk_goes_through_one_function() -> None:
    """What the tests of crashes rest on: nothing but OPERATIONS may change a file system."""
    source = (Path(__file__).resolve().parents[2] / "toolkit" / "onboard" / "agent.py").read_text()
    changing = set(CHANGING.split())
    tree = ast.parse(source)
    allowed: set[int] = set()
    for node in ast.walk(tree):
        named = isinstance(node, ast.FunctionDef) and node.name in ("open_file", "flush_name", "flush_all")
        table = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "OPERATIONS"
        if named or table:
            allowed.update(id(inner) for inner in ast.walk(node))
    lines, where = source.splitlines(), []
    for node in ast.walk(tree):
        if id(node) in allowed or not isinstance(node, ast.Attribute | ast.Call):
            continue
        # Handles opened through disk() name their flags; /dev/null is not on the disk.
        if any(word in lines[node.lineno - 1] for word in ('disk("open"', "devnull")):
            continue
        if isinstance(node, ast.Attribute):
            module = getattr(node.value, "id", "")
            bad = node.attr in ("O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC")
            if bad or (module in ("os", "shutil") and node.attr in changing):
                where.append(f"{node.attr} in line {node.lineno}")
        elif getattr(node.func, "id", "") == "open" and _mode(node) not in ("rb", "r"):
            where.append(f"open in line {node.lineno}")
    assert where == []


# ------------------------------------------------------------------------------------------ the lock


def test_lock_names_its_holder_and_can_be_broken(home: Path, releases: list[Made]) -> None:
    first = board(home, no_flush)
    first.inspect(ROOT, APP)
    first.lock("anna@desk")
    with board(home, no_flush) as second:
        found = second.inspect(ROOT, APP, releases[0].wish())
        assert found.lock is not None
        assert found.lock["holder"] == "anna@desk"
        assert 0 <= float(found.lock["age"]) < 60
        for attempt in (lambda: second.lock("ben"), lambda: releases[0].install(second)):
            with pytest.raises(BoardRefused, match="anna@desk") as caught:
                attempt()
            assert caught.value.cause == "locked"
            assert "rollout.break_lock=true" in caught.value.hint
        second.lock("ben", break_lock=True)
        releases[0].install(second)
        with pytest.raises(LineLost):
            first.verify()
    first.close()
    with ready(home, no_flush) as third:
        third.lock("carl")  # ben's session has ended, and the lock with it
        third.unlock()
        with ready(home, no_flush) as fourth:
            fourth.lock("dora")


def test_a_stranger_that_locks_a_file_of_the_same_number_is_left_alone(tmp_path: Path) -> None:
    """The kernel's list of locks names inodes; two fresh file systems give their first files the same number."""
    if os.getuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no Python here may mount: not root")
    code = """if True:
        import fcntl, os, sys
        from toolkit.onboard import agent
        handles = [os.open(name, os.O_RDWR | os.O_CREAT) for name in ("a/lock", "b/lock")]
        assert len({os.fstat(handle).st_ino for handle in handles}) == 1
        for handle in handles:
            (ready, told), (end, alive) = os.pipe(), os.pipe()
            holder = os.fork()
            if not holder:
                mine = os.open("/proc/self/fd/%d" % handle, os.O_RDWR)
                for other in (alive, *handles):
                    os.close(other)
                fcntl.flock(mine, fcntl.LOCK_EX)
                os.write(told, b"x")
                os.read(end, 1)
                os._exit(0)
            os.read(ready, 1)
            print(holder in agent.App.lock_holders(handles[1]))
        """
    script = "mkdir a b; mount -t tmpfs none a; mount -t tmpfs none b; exec \"$@\""
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_lock_of_a_killed_agent_is_free(home: Path) -> None:
    first = board(home, no_flush)
    first.inspect(ROOT, APP)
    first.lock("anna")
    line = first.line
    assert isinstance(line, ForkedLine)
    os.kill(line.pid, signal.SIGKILL)
    first.close()
    with ready(home, no_flush) as second:
        assert second.inspect(ROOT, APP).lock is None
        second.lock("ben")


# ------------------------------------------------------------------------------------------ transfers


def test_a_cut_transfer_goes_on_where_it_stopped(home: Path, tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    made = make_release(tmp_path / "contents", {"model.om": data, "a.txt": b"a" * 300}, "")
    line = ForkedLine(home, cut_after=1_500_000)
    agent = BoardAgent(line, BOARD, LIMITS)
    agent.inspect(ROOT, APP, made.wish())
    with pytest.raises(LineLost):
        made.install(agent)
    agent.close()
    with board(home) as agent:
        found = agent.inspect(ROOT, APP, made.wish())
        sizes = {file.sha256: file.size for file in made.release.files}
        there = sum(found.missing.values())
        assert there > 1_000_000  # the small file came first, and is whole
        report = made.install(agent)
        assert report.bytes < sum(sizes.values()) - there + 2000
    assert release_damage(home / "PROJECTS" / APP, made) == []


def test_what_earlier_crashes_left_damaged_is_sent_again(home: Path, app: Path, releases: list[Made]) -> None:
    made = releases[0]
    deploy(home, made)
    model = made.release.files[1]
    assert model.path == "model.om"
    (app / "releases" / made.id / "model.om").write_bytes(
        b"x" * model.size
    )  # the blob too: it is the same inode
    (app / "releases" / made.id / "spec.json").unlink()
    (app / "releases" / made.id / "manifest.json").chmod(0o600)
    with board(home) as agent:
        found = agent.inspect(ROOT, APP, made.wish())
        assert found.missing == {}  # by size alone: reading 60 MB is not part of a look
        checked = agent.verify()
        assert (checked["ok"], checked["damaged"], checked["missing"]) == (False, ["model.om"], ["spec.json"])
        report = made.install(agent)
        assert (report.new, report.blobs) == (False, 1)
        assert agent.verify()["ok"]
    assert problems(home, {made.id: made}) == []


def test_a_damaged_part_is_noticed(home: Path, app: Path, releases: list[Made]) -> None:
    made = releases[0]
    (app / "blobs").mkdir(parents=True)
    for file in made.release.files:
        (app / "blobs" / f"{file.sha256}.part").write_bytes(b"?" * (file.size + 7))
    deploy(home, made)
    assert problems(home, {made.id: made}) == []


def test_executables_share_their_content_with_plain_files(
    home: Path, app: Path, releases: list[Made]
) -> None:
    deploy(home, releases[0])
    folder = app / "releases" / releases[0].id
    assert os.access(folder / "run.sh", os.X_OK)
    assert (folder / "copy.txt").stat().st_mode & 0o777 == 0o644
    assert (folder / "copy.txt").read_bytes() == (folder / "run.sh").read_bytes()


def test_few_flushes_for_many_small_files(home: Path, tmp_path: Path) -> None:
    """300 small files must not cost 300 waits for a slow card."""
    contents = {f"pictures/{number}.jpg": b"picture %d" % number for number in range(300)}
    made = make_release(tmp_path / "contents", {**contents, "model.om": b"m" * 2_000_000}, "")
    log = tmp_path / "flushes"

    def counting(namespace: dict[str, Any]) -> None:
        real = namespace["disk"]

        def disk(operation: str, *arguments: Any) -> Any:
            if operation.startswith("flush"):
                with log.open("a") as stream:
                    stream.write(f"{operation} {os.fsdecode(arguments[0])}\n")
            return real(operation, *arguments)

        namespace["disk"] = disk

    with board(home, counting) as agent:
        agent.inspect(ROOT, APP, made.wish())
        made.install(agent)
    flushes = log.read_text().splitlines()
    assert len(flushes) < 12
    assert sum(line.startswith("flush_all") for line in flushes) == 1
    model = next(file.sha256 for file in made.release.files if file.path == "model.om")
    assert any(line.startswith("flush ") and model in line for line in flushes)


# ------------------------------------------------------------------------------------------ the switch


def prepared(home: Path, releases: list[Made], patch: Any = no_flush) -> None:
    """The first release runs, the second is staged."""
    deploy(home, releases[0])
    with board(home, patch) as agent:
        agent.inspect(ROOT, APP, releases[1].wish())
        releases[1].install(agent)


def test_switches_back_by_itself_when_nobody_confirms(home: Path, app: Path, releases: list[Made]) -> None:
    (home / ".bashrc").write_text("# mine\n")
    prepared(home, releases)
    before = (home / ".bashrc").read_text()
    with ready(home, no_flush) as agent:
        assert agent.switch(releases[1].id, 0.3) == releases[0].id
        assert current(app) == releases[1].id
        assert "NUMBER=1" in (home / ".bashrc").read_text()
    # The session is over; what is left is the watcher.
    until(lambda: current(app) == releases[0].id, "the watcher puts the former release back")
    until(lambda: not (app / "pending").exists(), "the watcher is done")
    assert (home / ".bashrc").read_text() == before
    with board(home, no_flush) as agent:
        found = agent.inspect(ROOT, APP, releases[1].wish())
        assert (found.current, found.pending) == (releases[0].id, None)
        assert "reverted" in found.journal_tail[-1]
        with pytest.raises(BoardRefused) as caught:
            agent.confirm({"release": releases[1].id})
        assert caught.value.cause == "reverted"


def test_first_release_switches_back_to_none(home: Path, app: Path, releases: list[Made]) -> None:
    with board(home, no_flush) as agent:
        agent.inspect(ROOT, APP, releases[0].wish())
        releases[0].install(agent)
        agent.switch(releases[0].id, 0.3)
    until(lambda: not (app / "pending").exists(), "the watcher is done")
    assert current(app) == ""
    assert (home / ".bashrc").read_text() == ""


def test_switches_back_though_the_agent_is_killed(home: Path, app: Path, releases: list[Made]) -> None:
    prepared(home, releases)
    agent = board(home, no_flush)
    agent.inspect(ROOT, APP)
    agent.switch(releases[1].id, 0.5)
    line = agent.line
    assert isinstance(line, ForkedLine)
    os.killpg(line.pid, signal.SIGHUP)
    os.killpg(line.pid, signal.SIGKILL)
    agent.close()
    until(lambda: current(app) == releases[0].id, "the watcher puts the former release back")


def test_confirmed_from_a_new_connection(home: Path, app: Path, releases: list[Made]) -> None:
    prepared(home, releases)
    with ready(home, no_flush) as agent:
        agent.switch(releases[1].id, 60)
    with board(home, no_flush) as agent:
        found = agent.inspect(ROOT, APP)
        assert found.pending is not None
        assert found.pending["release"] == releases[1].id
        agent.confirm({"release": releases[1].id, "run_key": "k"})
        found = agent.inspect(ROOT, APP)
        assert (found.current, found.previous, found.pending) == (releases[1].id, releases[0].id, None)
        assert found.last_run == {"release": releases[1].id, "run_key": "k"}
    until(lambda: not watchers(app), "the watcher leaves")


def watchers(app: Path) -> list[tuple[int, str]]:
    """Processes that hold this board's `pending` open, and what it is called (it may have been removed)."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for handle in os.listdir(f"/proc/{pid}/fd"):
                path = os.readlink(f"/proc/{pid}/fd/{handle}")
                if path.startswith(str(app / "pending")):
                    found.append((int(pid), path))
    return found


def test_confirm_within_the_deadline_of_an_agent_that_hangs(
    home: Path, app: Path, releases: list[Made]
) -> None:
    """The session that switched still holds the lock: confirming from elsewhere works all the same."""
    prepared(home, releases)
    with ready(home, no_flush) as stuck:
        stuck.lock("stuck")
        stuck.switch(releases[1].id, 60)
        with ready(home, no_flush) as agent:
            agent.confirm({"release": releases[1].id})
            assert current(app) == releases[1].id
            assert not (app / "pending").exists()


def rebooted(uptime: float) -> Callable[[dict[str, Any]], None]:
    def patch(namespace: dict[str, Any]) -> None:
        no_flush(namespace)
        namespace["boot_id"] = lambda: "another boot"
        offset = time.monotonic() - uptime

        namespace["time"] = SimpleNamespace(
            monotonic=lambda: time.monotonic() - offset,
            time=lambda: 30.0,  # 1970: no battery
            gmtime=lambda: time.gmtime(30),
            sleep=time.sleep,
            strftime=time.strftime,
        )

    return patch


def without_watcher(namespace: dict[str, Any]) -> None:
    no_flush(namespace)
    namespace["App"].watch = lambda self, pending: None


def test_reboot_in_the_middle_of_a_switch(home: Path, app: Path, releases: list[Made]) -> None:
    """The watcher is gone and the clock says 1970. Any next agent sees to it."""
    prepared(home, releases)
    with ready(home, without_watcher) as agent:
        agent.switch(releases[1].id, 50)
    with ready(home, rebooted(uptime=20)) as agent:
        found = agent.inspect(ROOT, APP)
        assert found.current == releases[1].id  # there is still time
        assert "1970" in found.warnings[0]
        minding = {pid for pid, path in watchers(app) if path == str(app / "pending")}
        assert len(minding) == 1  # and somebody who minds it
    with ready(home, rebooted(uptime=51)) as agent:
        assert agent.inspect(ROOT, APP).current == releases[0].id
    assert not (app / "pending").exists()


def test_another_release_may_follow_an_unconfirmed_one(home: Path, app: Path, releases: list[Made]) -> None:
    prepared(home, releases)
    with ready(home, no_flush) as agent:
        agent.switch(releases[1].id, 60)
    deploy(home, releases[2])
    with ready(home, no_flush) as agent:
        found = agent.inspect(ROOT, APP)
        assert (found.current, found.previous) == (releases[2].id, releases[0].id)


def test_same_release_again_starts_the_time_anew(home: Path, app: Path, releases: list[Made]) -> None:
    prepared(home, releases)
    with ready(home, no_flush) as agent:
        agent.switch(releases[1].id, 60)
    with ready(home, no_flush) as agent:
        assert agent.switch(releases[1].id, 0.2) == releases[0].id
    until(lambda: current(app) == releases[0].id, "the second deadline counts")


def test_revert(home: Path, app: Path, releases: list[Made]) -> None:
    deploy(home, releases[0])
    with ready(home, no_flush) as agent, pytest.raises(BoardRefused, match="no previous release") as caught:
        agent.revert()
    assert caught.value.cause == "no-release"
    deploy(home, releases[1])
    deploy(home, releases[2])
    with ready(home, no_flush) as agent:
        assert agent.revert() == releases[1].id
        assert "NUMBER=1" in (home / ".bashrc").read_text()
        found = agent.inspect(ROOT, APP)
        assert (found.current, found.previous) == (releases[1].id, releases[2].id)
        assert found.last_run is not None
        assert found.last_run["run_key"] == releases[1].id
        assert found.reverted == releases[2].id
        assert agent.revert() == releases[1].id, "a second time is not forward again"
        assert agent.revert(releases[2].id) == releases[2].id, "by its name it comes back"
        assert agent.inspect(ROOT, APP).reverted == ""
        assert agent.revert() == releases[1].id
        assert agent.revert(releases[0].id) == releases[0].id
        agent.switch(releases[2].id, 60)
        assert agent.revert() == releases[0].id  # from an unconfirmed switch: to where it came from
        assert agent.inspect(ROOT, APP).reverted == releases[2].id
        assert agent.revert() == releases[0].id
        with pytest.raises(BoardRefused):
            agent.switch(releases[5].id, 60)


@pytest.mark.parametrize("damage", ["gone", "a file gone", "cut short", "manifest cut short"])
def test_no_way_back_to_a_release_that_is_not_whole(
    home: Path, app: Path, releases: list[Made], damage: str
) -> None:
    deploy(home, releases[0])
    deploy(home, releases[1])
    folder = app / "releases" / releases[0].id
    if damage == "gone":
        shutil.rmtree(folder)
    elif damage == "a file gone":
        next(path for path in folder.iterdir() if path.name[0] != "." and path.name != "manifest.json").unlink()
    else:
        name = "manifest.json" if damage.startswith("manifest") else releases[0].release.files[0].path
        data = (folder / name).read_bytes()
        (folder / name).unlink()  # not the blob's content
        (folder / name).write_bytes(data[:-1])
    before = snapshot(home)
    for to in ("", releases[0].id):
        with ready(home, no_flush) as agent, pytest.raises(BoardRefused) as caught:
            agent.revert(to)
        assert caught.value.cause == "no-release"
        assert "not whole" in str(caught.value) or damage == "gone"
    after = snapshot(home)
    assert {name: state for name, state in before.items() if "lock" not in name and "stderr" not in name} == {
        name: state for name, state in after.items() if "lock" not in name and "stderr" not in name
    }


@pytest.mark.parametrize("theirs", ["folder", "link"])
@pytest.mark.parametrize("pending", [False, True])
def test_what_somebody_else_put_there_is_not_moved_by_a_way_back(
    home: Path, app: Path, releases: list[Made], theirs: str, pending: bool
) -> None:
    """Not by one that is asked for, and not by the board's own deadline; and the board can still be looked at."""
    prepared(home, releases)
    with ready(home, no_flush) as agent:
        agent.switch(releases[1].id, 0.3 if pending else 0)
        (app / "current").unlink()
        if theirs == "folder":
            (app / "current").mkdir()
            (app / "current" / "work").touch()
        else:
            (app / "current").symlink_to("/")
        for to in ("", releases[0].id, "none"):
            with pytest.raises(BoardRefused) as caught:
                agent.revert(to)
            assert caught.value.cause == "foreign-release"
    until(lambda: not watchers(app), "the watcher leaves")
    with ready(home, no_flush) as agent:
        found = agent.inspect(ROOT, APP)
        assert "was not made by this program" in found.foreign
        assert found.pending is None
    assert (app / "current" / "work").exists() if theirs == "folder" else os.readlink(app / "current") == "/"


def test_a_look_sees_files_that_are_gone_or_cut_short(home: Path, app: Path, releases: list[Made]) -> None:
    """Also where the blobs are whole; and installing again links them anew without sending anything."""
    deploy(home, releases[0])
    first, *others = releases[0].release.files
    folder = app / "releases" / releases[0].id
    (folder / first.path).unlink()
    wanted = [first.path]
    for other in others[:1]:
        (folder / other.path).unlink()
        (folder / other.path).write_bytes(b"")
        wanted.append(other.path)
    with board(home, no_flush) as agent:
        found = agent.inspect(ROOT, APP, releases[0].wish())
        assert found.broken == tuple(sorted(wanted))
        assert found.missing == {}
        report = releases[0].install(agent)
        assert report.blobs == 0
        assert agent.inspect(ROOT, APP).broken == ()
        assert agent.verify()["ok"]


@pytest.mark.parametrize("where", [".bashrc", "journal", "current"])
def test_a_switch_that_fails_is_taken_back(home: Path, app: Path, releases: list[Made], where: str) -> None:
    """The disk is full, or a file is somebody else's, in the middle of the switch."""
    prepared(home, releases)

    def broken(namespace: dict[str, Any]) -> None:
        no_flush(namespace)
        real = namespace["OPERATIONS"]
        failed = False

        def open_file(path: bytes, *flags: int) -> int:
            nonlocal failed
            if os.path.basename(os.fsdecode(path)).startswith(where) and not failed:
                failed = True
                raise OSError(28, "No space left on device", path)
            return int(real["open"](path, *flags))

        def symlink(target: bytes, path: bytes) -> None:
            nonlocal failed
            if where == "current" and not failed:
                failed = True
                raise OSError(28, "No space left on device", path)
            real["symlink"](target, path)

        namespace["OPERATIONS"] = dict(real, open=open_file, symlink=symlink)

    with ready(home, broken) as agent:
        if where == "journal":  # for people: no reason to fail
            assert agent.switch(releases[1].id, 60) == releases[0].id
            return
        with pytest.raises(BoardRefused) as caught:
            agent.switch(releases[1].id, 60)
        assert caught.value.cause == "disk-full"
        found = agent.inspect(ROOT, APP, releases[0].wish())
        assert (found.current, found.pending, found.environment) == (releases[0].id, None, "same")
        assert agent.switch(releases[1].id, 60) == releases[0].id


def test_foreign_current_is_left_alone(home: Path, app: Path, releases: list[Made]) -> None:
    (app / "current").mkdir(parents=True)
    (app / "current" / "theirs").touch()
    with board(home, no_flush) as agent:
        assert "was not made by this program" in agent.inspect(ROOT, APP).foreign
        releases[0].install(agent)
        with pytest.raises(BoardRefused) as caught:
            agent.switch(releases[0].id, 60)
        assert caught.value.cause == "foreign-release"
    assert (app / "current" / "theirs").exists()


# ------------------------------------------------------------------------------------------ pruning


def test_keeps_three_and_what_is_in_use(home: Path, app: Path, releases: list[Made], tmp_path: Path) -> None:
    deploy(home, releases[0])
    with ready(home, no_flush) as agent:
        busy = subprocess.Popen(["sleep", "60"], cwd=app / "releases" / releases[0].id)
        try:
            for made in releases[1:5]:
                deploy(home, made)
            kept = set(agent.inspect(ROOT, APP).releases)
            # Newest, its predecessor, and the one in which somebody works.
            assert kept == {releases[4].id, releases[3].id, releases[0].id}
        finally:
            busy.kill()
            busy.wait()
    deploy(home, releases[5])
    known = {made.id: made for made in releases}
    with ready(home, no_flush) as agent:
        assert agent.inspect(ROOT, APP).releases == tuple(made.id for made in releases[3:6])
    assert problems(home, known) == []
    used = {file.sha256 for made in releases[3:6] for file in made.release.files}
    assert {blob.name.partition(".")[0] for blob in (app / "blobs").iterdir()} == used


def test_keeps_as_many_as_it_is_told(home: Path, releases: list[Made]) -> None:
    for made in releases[:4]:
        deploy(home, made)
    with ready(home, no_flush) as agent:
        agent.confirm({"release": releases[3].id}, 1)
        # The one before stays in any case: it is what a board goes back to.
        assert agent.inspect(ROOT, APP).releases == (releases[2].id, releases[3].id)
        agent.confirm({"release": releases[3].id}, 3)
        releases[4].install(agent)
        agent.switch(releases[4].id, 0)
        agent.confirm({"release": releases[4].id}, 3)
        assert agent.inspect(ROOT, APP).releases == tuple(made.id for made in releases[2:5])


def test_keeps_five_outputs(home: Path, app: Path, releases: list[Made]) -> None:
    for number in range(8):
        run = app / "outputs" / f"run{number}"
        run.mkdir(parents=True)
        (run / "results.jsonl").touch()
        os.utime(run, (1000 + number, 1000 + number))
    (app / "outputs" / "link").symlink_to(home)
    deploy(home, releases[0])
    assert {path.name for path in (app / "outputs").iterdir()} == {"link", *(f"run{n}" for n in range(3, 8))}


# ------------------------------------------------------------------------------------------ ~/.bashrc


@pytest.mark.parametrize("before", ["", "alias a=b", "x\n", "# >>> ascend-deploy: app >>>\nstray\n"])
def test_environment_block(home: Path, before: str) -> None:
    real = home / "dotfiles"
    real.write_text(before)
    real.chmod(0o640)
    (home / ".bashrc").symlink_to("dotfiles")
    with ready(home, no_flush) as agent:
        assert agent.set_environment("export A=1\nexport Ä=2")
        once = real.read_text()
        assert not agent.set_environment("export A=1\nexport Ä=2\n")
        assert real.read_text() == once
        assert agent.set_environment("export A=2")
        assert real.read_text().count(">>> ascend-deploy") == 1 + before.count(">>> ascend")
        assert agent.inspect(ROOT, APP, Wish(None, "export A=2")).environment == "same"
        assert agent.inspect(ROOT, APP, Wish(None, "export A=3")).environment == "differs"
        real.write_text(real.read_text() + "alias after=block\n")
        assert agent.set_environment("")
        assert not agent.set_environment("")
        assert agent.inspect(ROOT, APP, Wish(None, "export A=2")).environment == "absent"
    newline = "" if before.endswith("\n") or not before else "\n"
    assert real.read_text() == before + newline + "alias after=block\n"
    assert real.stat().st_mode & 0o777 == 0o640
    assert (home / ".bashrc").is_symlink()


# ------------------------------------------------------------------------------------------ running


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SPAWN = "echo $$; sleep 300 & echo $!; wait"


@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_command_ends_with_its_session(home: Path, how: str) -> None:
    """Over SSH nothing else would end it."""
    pids: list[int] = []
    line = ForkedLine(home)
    agent = BoardAgent(line, BOARD, LIMITS)
    agent.inspect(ROOT, APP)

    def gone(text: str) -> None:
        pids.append(int(text))
        if len(pids) == 2 and how == "close":
            line._hang_up()
        elif len(pids) == 2:
            os.kill(line.pid, signal.SIGKILL)

    with pytest.raises((LineLost, OSError)):
        agent.run(["sh", "-c", SPAWN], limit=300, on_line=gone)
    until(lambda: not any(map(alive, pids)), "the command and its child end")
    agent.close()


def test_a_command_has_a_deadline_on_the_board(home: Path) -> None:
    pids: list[str] = []
    with ready(home) as agent:
        with pytest.raises(CommandFailed, match=r"took longer than 0\.5 s") as caught:
            agent.run(["sh", "-c", "trap '' TERM; " + SPAWN], limit=0.5, on_line=pids.append)
        assert caught.value.cause == "command-timeout"
        assert not any(alive(int(pid)) for pid in pids)
        # A child left behind does not keep us waiting, and is not left behind.
        report = agent.run(["sh", "-c", "sleep 300 & echo $!"], limit=20)
        assert not alive(int(report.stdout_tail))


def test_status_signals_and_what_cannot_start(home: Path) -> None:
    with ready(home) as agent:
        assert agent.run(["sh", "-c", "exit 7"], limit=20).status == 7
        assert agent.run(["sh", "-c", "kill -9 $$"], limit=20).status == -9
        assert agent.run(["sh", "-c", "echo out; echo err >&2"], limit=20).stderr_tail == "err\n"
        for arguments in ({"argv": ["no-such-program"]}, {"argv": ["true"], "cwd": "/nowhere"}):
            with pytest.raises(BoardRefused) as caught:
                agent.run(**arguments, limit=20)  # type: ignore[arg-type]
            assert caught.value.cause == "missing"
        with pytest.raises(BoardRefused, match="is not on the board"):
            agent.run(["ls", "{release}"], limit=20)


def test_output_is_streamed_capped_and_cleaned(home: Path) -> None:
    program = (
        "import sys, time\n"
        "print('first'); sys.stdout.flush()\n"
        "sys.stdin.read()\n"
        "print('\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07\\x9btext\\u202e')\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe\\n' + b'x' * 20000 + b'\\n')\n"
        "for i in range(200000): print('line', i, '.' * 50)\n"
    )
    lines: list[str] = []
    with ready(home) as agent:
        report = agent.run([sys.executable, "-c", program], limit=60, on_line=lines.append)
    assert lines[:3] == ["first", "red text", "\N{REPLACEMENT CHARACTER}" * 2]
    assert all(len(line) <= 8192 for line in lines)
    assert lines[-1] == "[the rest of the output is not shown]"
    assert sum(map(len, lines)) < 9 << 20
    assert report.status == 0
    assert report.stdout_tail.endswith("line 199999 " + "." * 50 + "\n")
    assert len(report.stdout_tail) <= 65536


def test_heartbeats_while_the_disk_is_slow(home: Path, releases: list[Made]) -> None:
    def slow(namespace: dict[str, Any]) -> None:
        namespace["BEAT"] = 0.02

        def flush(path: bytes) -> None:
            end = time.monotonic() + 10
            while (
                namespace["threading"].active_count() > 1
                and namespace["beats"] < 5
                and time.monotonic() < end
            ):
                time.sleep(0.005)

        namespace["beats"] = 0
        real = namespace["Channel"].send

        def send(self: Any, kind: bytes, payload: bytes = b"") -> None:
            namespace["beats"] += kind == b"."
            real(self, kind, payload)

        namespace["Channel"].send = send
        namespace["OPERATIONS"] = dict(namespace["OPERATIONS"], flush=flush)

    class Watching(ForkedLine):
        heard = b""

        def recv(self, size: int) -> bytes:
            data = super().recv(size)
            self.heard += data
            return data

    with BoardAgent(Watching(home, slow), BOARD, LIMITS) as agent:
        agent.inspect(ROOT, APP, releases[0].wish())
        releases[0].install(agent)
        assert isinstance(agent.line, Watching)
        assert agent.line.heard.count(b".\0\0\0\0") >= 5


def test_work_folders(home: Path, app: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(os.urandom(700_000))
    with ready(home, no_flush) as agent:
        agent.put("convert-1", {"in/model.onnx": source, "aipp.cfg": source})
        agent.run(["sh", "-c", "cat in/model.onnx aipp.cfg > both"], cwd="{app}/work/convert-1", limit=20)
        back = agent.fetch("work/convert-1", tmp_path / "back", limit_bytes=10**7, limit_files=5)
        assert sorted(path.stat().st_size for path in back) == [700_000, 700_000, 1_400_000]
        for folder in ("../x", "/etc", "work/../../x", ""):
            with pytest.raises(BoardRefused):
                agent.put(folder, {"x": source})
            with pytest.raises(BoardRefused):
                agent.remove(folder)
        agent.remove("work/convert-1")
        agent.remove("convert-1")
    assert list((app / "work").iterdir()) == []


def test_fetch_sends_plain_files_only(home: Path, app: Path, tmp_path: Path) -> None:
    run = app / "outputs" / "run"
    run.mkdir(parents=True)
    (run / "a.jpg").write_bytes(b"a")
    (run / "link").symlink_to("/etc/passwd")
    (run / "folder").symlink_to("/etc")
    os.mkfifo(run / "pipe")
    (app / "outputs" / "link").symlink_to("/etc")
    with ready(home) as agent:
        back = agent.fetch("outputs/run", tmp_path / "back", limit_bytes=100, limit_files=3)
        assert [path.name for path in back] == ["a.jpg"]
        for folder, cause in (
            ("outputs/link", "missing"),
            ("outputs/none", "missing"),
            ("../..", "agent-failed"),
        ):
            with pytest.raises(BoardRefused) as caught:
                agent.fetch(folder, tmp_path / "back", limit_bytes=100, limit_files=3)
            assert caught.value.cause == cause


def test_fetch_limits(home: Path, app: Path, tmp_path: Path) -> None:
    (app / "outputs").mkdir(parents=True)
    for number in range(4):
        (app / "outputs" / str(number)).write_bytes(b"x" * 100)
    for limits in ({"limit_bytes": 399, "limit_files": 9}, {"limit_bytes": 999, "limit_files": 3}):
        with ready(home) as agent, pytest.raises(BoardRefused) as caught:
            agent.fetch("outputs", tmp_path / "back", **limits)
        assert caught.value.cause == "too-large"


# ------------------------------------------------------------------------------ boards in bad shape


@pytest.mark.parametrize(
    ("need", "cause"),
    [("numpy", "no-numpy"), ("PIL", "no-pillow"), ("acl", "no-acl"), ("no_such", "agent-failed")],
)
def test_missing_packages_are_named(home: Path, need: str, cause: str) -> None:
    """An interpreter without site-packages has none of them."""
    bare = home / "python-bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with ready(home) as agent, pytest.raises(BoardRefused, match=need) as caught:
        agent.run(["{python}"], interpreters=["nothing", str(bare)], need=("json", need), limit=20)
    assert caught.value.cause == cause


def test_no_interpreter_for_a_program(home: Path) -> None:
    with ready(home) as agent, pytest.raises(BoardRefused) as caught:
        agent.run(["{python}"], interpreters=["nothing"], limit=20)
    assert caught.value.cause == "no-python"


def mounted(home: Path, options: str) -> BoardAgent:
    """A session in a mount namespace of its own, with a small disk as the projects' folder."""
    if os.getuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no Python here may mount: not root")
    (home / "PROJECTS").mkdir(exist_ok=True)
    inner = f"mount -t tmpfs -o {options} none {home}/PROJECTS && exec {boot_command([sys.executable])}"
    command = f"HOME={shlex.quote(str(home))} exec unshare -m sh -c {shlex.quote(inner)}"
    return BoardAgent(local_line.open_line(BOARD, LIMITS, command), BOARD, LIMITS)


def test_read_only_root(home: Path, releases: list[Made]) -> None:
    with mounted(home, "ro") as agent:
        agent.inspect(ROOT, APP, releases[0].wish())
        with pytest.raises(BoardRefused, match="read-only") as caught:
            agent.lock("tests")
        assert caught.value.cause == "read-only"
        with pytest.raises(BoardRefused) as caught:
            releases[0].install(agent)
        assert caught.value.cause == "read-only"


def test_space_is_checked_before_the_first_byte(home: Path, tmp_path: Path) -> None:
    made = make_release(tmp_path / "big", {"model.om": os.urandom(1_000_000)}, "")

    def never(sha256: str) -> Any:
        raise AssertionError("a blob was opened")

    for options in ("size=512k", "size=100m,nr_inodes=20"):
        with mounted(home, options) as agent:
            found = agent.inspect(ROOT, APP, made.wish())
            opener = never if found.facts["disk_free"] < 1_000_000 else blobs_of(made.release, made.contents)
            with pytest.raises(BoardRefused) as caught:
                agent.install(made.release, opener, "")
            assert caught.value.cause == "disk-full"


def test_disk_that_fills_up_in_the_middle(home: Path, releases: list[Made]) -> None:
    def full(namespace: dict[str, Any]) -> None:
        real = namespace["OPERATIONS"]
        calls = 0

        def write(handle: int, data: bytes) -> int:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise OSError(28, "No space left on device")
            return int(real["write"](handle, data))

        namespace["OPERATIONS"] = dict(
            real, write=write, flush=lambda path: None, flush_all=lambda path: None
        )

    with board(home, full) as agent:
        agent.inspect(ROOT, APP, releases[0].wish())
        with pytest.raises(BoardRefused) as caught:
            releases[0].install(agent)
        assert caught.value.cause == "disk-full"
        releases[0].install(agent)  # room was made: the same session goes on
        assert agent.switch(releases[0].id, 0) == ""
        assert agent.verify()["ok"]


def test_wrong_owner(home: Path, app: Path, releases: list[Made], tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("no Python may become somebody else without being root")
    deploy(home, releases[0])

    def nobody(namespace: dict[str, Any]) -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    for folder in [home, *home.parents]:
        if folder == Path("/"):
            break
        folder.chmod(folder.stat().st_mode | 0o055)
    with board(home, nobody) as agent:
        found = agent.inspect(ROOT, APP, releases[1].wish())
        assert found.current == releases[0].id
        with pytest.raises(BoardRefused, match="belongs to root") as caught:
            agent.lock("tests")
        assert caught.value.cause == "wrong-owner"
        assert "board.user" in caught.value.hint
        with pytest.raises(BoardRefused) as caught:
            agent.set_environment("export A=1")
        assert caught.value.cause == "wrong-owner"
