"""The near side against agents that lie, babble and break off: real processes, each with its own agent."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.artefacts.manifest import Release, ReleaseFile, blobs_of
from toolkit.errors import BoardRefused, CommandFailed, DeployError, InputError, LineLost
from toolkit.remote import local_line
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, Wish
from toolkit.remote.boot import boot_command, boot_payload, pack
from toolkit.remote.incoming import Incoming
from toolkit.ui.events import Event

BOARD = Address("board", "local", client="local", interpreters=(sys.executable,))
LIMITS = Limits(silence=10, board=60)

LIAR = """
import json, os, struct, sys

def send(kind, payload=b""):
    payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    data = kind + struct.pack(">I", len(payload)) + payload
    while data:
        data = data[os.write(1, data):]

def take(size):
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit(0)
        data += part
    return data

def request():
    while True:
        kind, size = struct.unpack(">cI", take(5))
        payload = take(size)
        if kind == b"Q":
            return json.loads(payload)

GOOD = {"facts": {"clock": 1.0, "disk_free": 10**9, "disk_total": 10**9, "cores": 1, "memory_total": 1},
        "folder": "/x", "current": "", "previous": "", "reverted": "", "broken": [],
        "releases": [], "missing": {}, "environment": "same",
        "last_run": None, "lock": None, "pending": None, "foreign": "", "journal_tail": [], "warnings": []}
os.write(1, b"\\x01ascend-deploy\\x02")
send(b"H", {"protocol": 1})
"""

LOOK = LIAR + 'q = request()\nsend(b"A", dict(GOOD, id=q["id"]))\nq = request()\n'


def liar(source: str, limits: Limits = LIMITS, events: list[Event] | None = None) -> BoardAgent:
    """A session with an agent made of ``source``."""
    line = local_line.open_line(BOARD, limits, boot_command(BOARD.interpreters))
    emit = events.append if events is not None else lambda event: None
    return BoardAgent(line, BOARD, limits, emit, pack(source))


def release_of(tmp_path: Path, contents: dict[str, bytes]) -> tuple[Release, dict[str, Path]]:
    files = {}
    for name, data in contents.items():
        files[name] = tmp_path / name.replace("/", "_")
        files[name].write_bytes(data)
    return Release.of_files("app", files), files


# ------------------------------------------------------------------------------------------ babble


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("import os\nos.write(1, b'x' * 200000)", "no agent but xxx"),
        ("import os\nos.write(1, b'\\x01ascend-deploy\\x02' + b'?' * 50)", "not a frame"),
        (LIAR.replace('"protocol": 1', '"protocol": 99'), "protocol 99"),
        (LIAR + 'send(b"A", b"[1]")', "not a JSON object"),
        (LIAR + 'send(b"A", b"{")', "not JSON"),
        (LIAR + 'send(b"A", b"[" * 100000)', "not JSON"),
        (LIAR + 'send(b"A", dict(GOOD, id=7))', "request that was not made"),
        (LIAR + 'os.write(1, b"A\\xff\\xff\\xff\\xff")', "not a frame"),
        (LIAR + 'send(b"D", b"bytes of no file")', "where an answer was due"),
        (LIAR + 'send(b"A", {"id": 1, "error": 5})', "without a cause"),
    ],
)
def test_garbage_is_told(source: str, match: str) -> None:
    with liar(source) as board, pytest.raises(LineLost, match=match) as caught:
        board.inspect("~/x", "app")
    assert caught.value.cause == "garbage"
    assert caught.value.host == "board"


def test_endless_babble_is_cut_off() -> None:
    with liar("import os\nwhile True: os.write(1, b'la' * 9999)") as board, pytest.raises(LineLost) as caught:
        board.inspect("~/x", "app")
    assert caught.value.cause == "garbage"
    assert board.line.received < 1 << 20


def test_agent_that_breaks_off() -> None:
    source = LIAR + 'request()\nos.write(2, b"\\x1b[31mKilled\\n")\nos.write(1, b"A\\0\\0")\nos._exit(9)'
    with liar(source) as board, pytest.raises(LineLost, match="the agent ended: Killed") as caught:
        board.inspect("~/x", "app")
    assert caught.value.cause == "closed"


def test_silent_agent() -> None:
    limits = Limits(silence=0.5, board=60)
    with liar(LIAR + "request()\nrequest()", limits) as board, pytest.raises(LineLost) as caught:
        board.inspect("~/x", "app")
    assert caught.value.cause == "silence"


def test_only_heartbeats_end_at_the_deadline_of_the_board() -> None:
    source = LIAR + 'import time\nwhile True:\n    send(b".")\n    time.sleep(0.05)\n'
    with liar(source, Limits(silence=5, board=1)) as board, pytest.raises(LineLost) as caught:
        board.inspect("~/x", "app")
    assert caught.value.cause == "board-deadline"


# ------------------------------------------------------------------------------------------ lies


@pytest.mark.parametrize(
    "lie",
    [
        {"current": "../../etc"},
        {"current": None},
        {"releases": ["x"]},
        {"releases": 5},
        {"missing": {"0" * 64: 0}},
        {"missing": []},
        {"facts": {}},
        {"facts": {"clock": "now"}},
        {"facts": 7},
        {"environment": "maybe"},
        {"last_run": "none"},
        {"lock": [1]},
        {"lock": {"holder": "x", "since": "yesterday", "age": 1}},
        {"pending": {"release": "x", "former": "", "within": 9}},
        {"pending": {"release": "", "former": ""}},
        {"journal_tail": 5},
        {"foreign": None},
    ],
)
def test_answers_of_the_wrong_shape(lie: dict[str, Any]) -> None:
    source = (
        LIAR
        + f'q = request()\nsend(b"A", dict(GOOD, id=q["id"], **json.loads({json.dumps(json.dumps(lie))})))\n'
    )
    with liar(source) as board, pytest.raises(LineLost) as caught:
        board.inspect("~/x", "app", Wish())
    assert caught.value.cause == "garbage"


def test_texts_lose_their_control_codes() -> None:
    lie = {
        "foreign": "\x1b[2Jx\r\n",
        "journal_tail": ["\x1b]0;t\x07j"],
        "last_run": {"a\x1b[0m": ["\x9bb"]},
        "warnings": ["\x1b[31m\ud800w\u2028"],
    }
    events: list[Event] = []
    source = (
        LIAR
        + f'q = request()\nsend(b"A", dict(GOOD, id=q["id"], **json.loads({json.dumps(json.dumps(lie))})))\n'
    )
    with liar(source, events=events) as board:
        found = board.inspect("~/x", "app")
    assert (found.foreign, found.journal_tail, found.last_run) == ("x", ("j",), {"a": ["b"]})
    assert [(event.kind, event.text) for event in events] == [("warning", "w")]


def test_a_damaged_record_of_the_last_run_is_forgotten_where_it_is_damaged() -> None:
    figures = {"accuracy": 0.5, "difference": None, "p50_ms": "1", "p99_ms": [1], "cosine": float("nan"), "failed": 7}
    lie = {"last_run": {"by": "me", "time": 10**400, "figures": figures}}
    source = (
        LIAR
        + f'q = request()\nsend(b"A", dict(GOOD, id=q["id"], **json.loads({json.dumps(json.dumps(lie))})))\n'
    )
    with liar(source) as board:
        found = board.inspect("~/x", "app")
    assert found.last_run == {"by": "me", "figures": {"accuracy": 0.5, "difference": None}}


def test_an_unknown_cause_stays_in_the_family() -> None:
    error = {"cause": "\x1b[31mboom", "message": "m\x1b[0m" * 999, "detail": "d\n" * 99}
    source = LIAR + f'send(b"A", {{"id": 1, "error": {error!r}}})'
    with liar(source) as board, pytest.raises(BoardRefused) as caught:
        board.inspect("~/x", "app")
    assert caught.value.cause == "agent-failed"
    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)
    assert len(caught.value.detail.splitlines()) == 20


def test_a_board_that_never_has_enough(tmp_path: Path) -> None:
    release, files = release_of(tmp_path, {"a": b"aaa"})
    digest = release.files[0].sha256
    source = (
        LOOK
        + f'while True:\n    send(b"A", {{"id": q["id"], "missing": {{"{digest}": 0}}}})\n    q = request()\n'
    )
    with liar(source) as board:
        board.inspect("~/x", "app", Wish(release))
        with pytest.raises(BoardRefused, match="damaged on the board each time"):
            board.install(release, blobs_of(release, files), "")


def test_a_board_that_wants_what_is_not_ours_to_give(tmp_path: Path) -> None:
    release, files = release_of(tmp_path, {"a": b"aaa"})
    for missing in ({"f" * 64: 0}, {release.files[0].sha256: -1}, {"/etc/passwd": 0}):
        with liar(LOOK + f'send(b"A", {{"id": q["id"], "missing": {missing!r}}})\nrequest()') as board:
            board.inspect("~/x", "app")
            with pytest.raises(LineLost) as caught:
                board.install(release, blobs_of(release, files), "")
            assert caught.value.cause == "garbage"


@pytest.mark.parametrize(
    ("frames", "match"),
    [
        ('send(b"V", {"lines": 5})', "wrong shape"),
        ('send(b"D", b"x")', "wrong shape"),
        ('send(b"A", {"id": 2, "status": "x", "ended": "exit"})', "wrong shape"),
        (
            'send(b"A", {"id": 2, "status": 0, "ended": "never", "stdout_tail": "", "stderr_tail": ""})',
            "wrong shape",
        ),
    ],
)
def test_lies_about_a_command(frames: str, match: str) -> None:
    with liar(LOOK + frames + "\nrequest()") as board:
        board.inspect("~/x", "app")
        with pytest.raises(LineLost, match=match):
            board.run(["true"], limit=5)


def test_killed_command() -> None:
    answer = {
        "id": 2,
        "status": -9,
        "ended": "killed",
        "stdout_tail": "a\n",
        "stderr_tail": "b",
        "interpreter": "",
    }
    with liar(LOOK + f'send(b"A", {answer!r})\nrequest()') as board:
        board.inspect("~/x", "app")
        with pytest.raises(CommandFailed, match="was killed") as caught:
            board.run(["true"], limit=5)
    assert (caught.value.cause, caught.value.status, caught.value.detail) == ("killed", -9, "a\nb")


# ------------------------------------------------------------------------------ files from the board


def sending(*files: tuple[str, bytes]) -> str:
    lines = [LOOK, "import hashlib"]
    for name, data in files:
        lines.append(f"data = {data!r}")
        lines.append(f'send(b"F", {{"name": {name!r}, "size": len(data)}})')
        lines.append('send(b"D", data)\nsend(b"E", hashlib.sha256(data).digest())')
    return "\n".join([*lines, 'send(b"A", {"id": 2})', "request()"])


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/../../x",
        "",
        ".",
        "a//b",
        "a/",
        "a\nb",
        "\x1b[31m",
        "\u202ex",
        "x" * 300,
        "\ud800",
        "a\0b",
    ],
)
def test_names_that_are_refused(name: str, tmp_path: Path) -> None:
    with liar(sending((name, b"evil"))) as board:
        board.inspect("~/x", "app")
        with pytest.raises(LineLost) as caught:
            board.fetch("outputs", tmp_path / "deep" / "into", limit_bytes=1000, limit_files=10)
    assert caught.value.cause == "garbage"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_good_names_are_kept(tmp_path: Path) -> None:
    with liar(sending(("a/b c/ü.jpg", b"1"), ("a/猫.jpg", b"2"), ("-rf", b"3"))) as board:
        board.inspect("~/x", "app")
        paths = board.fetch("outputs", tmp_path, limit_bytes=1000, limit_files=10)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["a/b c/ü.jpg", "a/猫.jpg", "-rf"]
    assert (tmp_path / "a" / "猫.jpg").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ((("a", b"1"), ("a", b"2")), "garbage"),
        ((("a", b"1"), ("A", b"2")), "garbage"),
        ((("a", b"1"), ("a/b", b"2")), "garbage"),
        ((("a/b", b"1"), ("a", b"2")), "garbage"),
        ((("link/b", b"1"),), "garbage"),
        ((("big", b"x" * 2000),), "too-large"),
        (tuple((str(number), b"") for number in range(11)), "too-large"),
    ],
)
def test_sets_of_files_that_are_refused(files: Any, cause: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    into = tmp_path / "into"
    into.mkdir()
    (into / "link").symlink_to(outside)
    with liar(sending(*files)) as board:
        board.inspect("~/x", "app")
        with pytest.raises((LineLost, BoardRefused)) as caught:
            board.fetch("outputs", into, limit_bytes=1000, limit_files=10)
    assert caught.value.cause == cause
    assert list(outside.iterdir()) == []
    assert not [path for path in into.iterdir() if path.name.startswith(".incoming")]


@pytest.mark.parametrize(
    "frames",
    [
        'send(b"F", {"name": "a", "size": 3})\nsend(b"D", b"1234")',  # more than announced
        'send(b"F", {"name": "a", "size": 3})\nsend(b"D", b"1")\nsend(b"E", b"x" * 32)',  # another content
        'send(b"F", {"name": "a", "size": 3})\nsend(b"F", {"name": "b", "size": 3})',  # one within the other
        'send(b"F", {"name": "a", "size": -3})',
        'send(b"F", {"name": 5, "size": 3})',
        'send(b"F", b"?")',
        'send(b"E", b"x" * 32)',
        'send(b"D", b"x")',
    ],
)
def test_pieces_that_do_not_fit(frames: str, tmp_path: Path) -> None:
    with liar(LOOK + frames + "\nrequest()") as board:
        board.inspect("~/x", "app")
        with pytest.raises(LineLost) as caught:
            board.fetch("outputs", tmp_path, limit_bytes=1000, limit_files=10)
    assert caught.value.cause == "garbage"
    assert list(tmp_path.glob("*a*")) == []


class _NoFrames:
    def garbage(self, what: str) -> LineLost:
        return LineLost(what, cause="garbage")

    def json(self, payload: bytes) -> Any:
        return json.loads(payload)


@settings(max_examples=150, deadline=None)
@given(
    name=st.text(max_size=30)
    | st.lists(st.sampled_from(["..", ".", "", "a", "b", "\\", "~", "\n"])).map("/".join)
)
def test_no_name_leaves_the_folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    top = tmp_path_factory.mktemp("names")
    incoming = Incoming(_NoFrames(), top / "into", "board", 100, 10)  # type: ignore[arg-type]
    (top / "into").mkdir()
    try:
        incoming.frame(b"F", json.dumps({"name": name, "size": 0}).encode())
        incoming.frame(
            b"E", bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        )
    except LineLost:
        pass
    finally:
        incoming.close()
    assert list(top.iterdir()) == [top / "into"]
    assert all(path.resolve().is_relative_to(top / "into") for path in incoming.paths)


# ------------------------------------------------------------------------------------------ sending


def test_memory_is_bounded_while_sending(tmp_path: Path) -> None:
    """64 MB from a file that is never in memory as a whole; the board reads and counts."""
    size = 64 << 20

    class Zeros(io.RawIOBase):
        left = size

        def readinto(self, room: Any) -> int:
            assert 0 < len(room) <= 1 << 20
            count = min(len(room), self.left)
            self.left -= count
            return count

        def seek(self, position: int, whence: int = 0) -> int:
            self.left = size - position
            return position

    release = Release("app", (ReleaseFile("model.om", "a" * 64, size),))
    counting = """
q = request()
send(b"A", dict(GOOD, id=q["id"]))
q = request()
for _ in q["blobs"]:  # the index, then the model
    kind, count = b"B", 0
    while kind != b"E":
        kind, size = struct.unpack(">cI", take(5))
        count += len(take(size))
send(b"A", {"id": q["id"], "missing": {}, "new": count == SIZE - 1, "environment_changed": False})
request()
"""
    missing = '"missing": {"' + "a" * 64 + '": 1}'
    source = LIAR.replace('"missing": {}', missing) + counting.replace("SIZE", str(size))
    events: list[Event] = []
    with liar(source, events=events) as board:
        board.inspect("~/x", "app", Wish(release))
        importlib.import_module("toolkit.remote.delta")  # not in the middle of it
        tracemalloc.start()
        report = board.install(release, lambda sha256: Zeros(), "")  # type: ignore[arg-type, return-value]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert report.new
    assert peak < 4 << 20
    assert events[-1].data == {"done": size - 1, "total": size - 1, "unit": "B"}


def test_small_texts_travel_compressed_and_weights_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text, noise = b"the same line again\n" * 5000, os.urandom(100_000)
    release, files = release_of(tmp_path, {"text": text, "noise": noise})
    with BoardAgent.connect(BOARD, LIMITS) as board:
        board.inspect("~/x", "app", Wish(release))
        report = board.install(release, blobs_of(release, files), "")
        assert 100_000 < report.bytes < 105_000
    folder = tmp_path / "x" / "app" / "releases" / release.id
    assert (folder / "text").read_bytes() == text


@pytest.mark.parametrize(
    ("bases", "index"),
    [
        ('{SHA: ["zz", 5]}', "{}"),
        ("{SHA: 5}", "{}"),
        ('{SHA: ["b" * 64, "x"]}', "{}"),
        ("[]", "{}"),
        ('{SHA: ["b" * 64, 70000]}', "[]"),
        ('{SHA: ["b" * 64, 70000]}', '{"b" * 64: 5}'),
        ('{SHA: ["b" * 64, 70000]}', '{"b" * 64: "no hex"}'),
    ],
)
def test_lies_about_old_files(bases: str, index: str, tmp_path: Path) -> None:
    release, files = release_of(tmp_path, {"model.om": os.urandom(70_000)})
    sha = release.files[0].sha256
    source = LIAR.replace('"missing": {}', '"missing": {SHA: 0}, "bases": BASES') + (
        'q = request()\nsend(b"A", dict(GOOD, id=q["id"]))\n'
        'q = request()\nsend(b"A", {"id": q["id"], "index": INDEX})\nrequest()\n'
    )
    source = source.replace("BASES", bases).replace("INDEX", index).replace("SHA", repr(sha))

    def roll_out() -> None:
        with liar(source) as board:
            board.inspect("~/x", "app", Wish(release))
            board.install(release, blobs_of(release, files), "")

    with pytest.raises(LineLost) as caught:
        roll_out()
    assert caught.value.cause == "garbage"


def test_does_not_send_what_cannot_fit(tmp_path: Path) -> None:
    release = Release("app", (ReleaseFile("model.om", "a" * 64, 2 * 10**9),))
    look = LOOK.replace('"missing": {}', '"missing": {"' + "a" * 64 + '": 0}')

    def never(sha256: str) -> BinaryIO:
        raise AssertionError("opened")

    with liar(look) as board:
        board.inspect("~/x", "app", Wish(release))
        with pytest.raises(BoardRefused, match="1000000000 bytes free, 2004194304 are needed") as caught:
            board.install(release, never, "")
    assert caught.value.cause == "disk-full"


def test_inspect_comes_first() -> None:
    with BoardAgent.connect(BOARD, LIMITS) as board:
        with pytest.raises(DeployError, match="before inspect"):
            board.revert()
        assert board.line.sent == 0
    assert len(boot_payload()) > 0


# ------------------------------------------------------------------------------------------ manifests


def test_release_id_is_the_digest_of_its_canonical_text() -> None:
    files = (ReleaseFile("b", "b" * 64, 2, 0o775), ReleaseFile("ä/a", "a" * 64, 1))
    release = Release("app", files, {"z": 1, "a": "ü"})
    assert release.text == (
        '{"app":"app","files":[{"mode":493,"path":"b","sha256":"' + "b" * 64 + '","size":2},'
        '{"mode":420,"path":"ä/a","sha256":"' + "a" * 64 + '","size":1}],"meta":{"a":"ü","z":1}}'
    )
    assert release.id == Release("app", files[::-1], {"a": "ü", "z": 1}).id
    assert Release.from_text(release.text) == release
    assert Release.from_text(release.text).id == release.id


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", "a//b", "manifest.json", ".deploy", "a\nb", "x" * 250]
)
def test_paths_that_no_release_may_have(path: str) -> None:
    with pytest.raises(InputError):
        ReleaseFile(path, "a" * 64, 1)


def test_releases_that_contradict_themselves() -> None:
    one, two = ReleaseFile("a", "a" * 64, 1), ReleaseFile("a/b", "a" * 64, 1)
    for files in ((one, one), (one, two)):
        with pytest.raises(InputError):
            Release("app", files)
    with pytest.raises(InputError):
        Release("../app", (one,))
    for text in (
        "",
        "[]",
        "{}",
        '{"app": "a", "files": [{}], "meta": {}}',
        '{"app": "a", "files": 5, "meta": {}}',
    ):
        with pytest.raises(InputError):
            Release.from_text(text)
