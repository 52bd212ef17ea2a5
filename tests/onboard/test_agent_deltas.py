"""Changed models on real processes and disks: what is sent, what is rebuilt, and what happens to damage."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from agent_board import APP, ROOT, ForkedLine, Made, board, make_release, no_flush, problems
from interpreters import require

from toolkit.artefacts.manifest import blobs_of
from toolkit.errors import LineLost
from toolkit.remote import outgoing
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, InstallReport
from toolkit.remote.delta import chunks_of, pack_index

COUNT = 150_000
BASE = np.random.default_rng(0).normal(size=COUNT).astype("f4")
MODEL = b"IMOD" + BASE.tobytes()
NUDGED = b"IMOD" + (BASE + np.random.default_rng(1).normal(size=COUNT) / 100).astype("f4").tobytes()
TUNED = MODEL[:-4000] + np.random.default_rng(2).bytes(4000)
GROWN = MODEL[:200_000] + b"a new operator" + MODEL[200_000:]
OTHER = np.random.default_rng(3).bytes(len(MODEL))

Old = Callable[[str, int], Path | None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "board"
    home.mkdir()
    return home


@pytest.fixture
def made(tmp_path: Path) -> Callable[[bytes], Made]:
    def make(model: bytes, **others: bytes) -> Made:
        return make_release(tmp_path / "made", {"model.om": model, **others}, "")

    return make


def here(*releases: Made) -> Old:
    """The old files of these releases are on this machine."""
    known = {file.sha256: one.contents[file.path] for one in releases for file in one.release.files}
    return lambda sha256, size: known.get(sha256)


def nowhere(sha256: str, size: int) -> None:
    return None


def put(agent: BoardAgent, made: Made, old: Old = nowhere, deltas: str = "auto") -> InstallReport:
    agent.inspect(ROOT, APP, made.wish())
    report = agent.install(made.release, blobs_of(made.release, made.contents), "", old, deltas)
    agent.switch(made.id, 0)
    return report


def deploy(home: Path, made: Made, old: Old = nowhere, cut_after: int | None = None) -> InstallReport:
    with board(home, no_flush, cut_after) as agent:
        return put(agent, made, old)


def blobs(home: Path) -> Path:
    return home / "PROJECTS" / APP / "blobs"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------------------ what is sent


@pytest.mark.parametrize(
    ("new", "with_old", "with_index"),
    [(NUDGED, 0.68, 0.86), (TUNED, 0.02, 0.25), (GROWN, 0.2, 0.25), (OTHER, 1.005, 1.005), (MODEL, 0, 0)],
    ids=["nudged", "tuned", "grown", "other", "same"],
)
@pytest.mark.parametrize("known", [True, False])
def test_bytes_on_the_line(
    new: bytes, with_old: float, with_index: float, known: bool, home: Path, made: Callable[..., Made]
) -> None:
    first, second = made(MODEL), made(new, note=b"changed")
    whole = deploy(home, first)
    assert len(MODEL) < whole.bytes <= 1.005 * len(MODEL) + 1024
    with board(home, no_flush) as agent:
        report = put(agent, second, here(first) if known else nowhere)
        # inspect, install, switch; and one question more where the old file is not here.
        assert agent.requests == (3 if known or new == MODEL else 4)
    assert report.bytes <= (with_old if known else with_index) * len(MODEL) + 1024
    assert report.passes == 1
    assert report.deltas == (new not in (OTHER, MODEL))
    assert problems(home, {one.id: one for one in (first, second)}) == []


def test_never_means_whole_and_no_question(home: Path, made: Callable[..., Made]) -> None:
    first, second = made(MODEL), made(TUNED)
    deploy(home, first)
    with board(home, no_flush) as agent:
        report = put(agent, second, deltas="never")
        assert agent.requests == 3
    assert report.deltas == 0
    assert report.bytes > len(MODEL)


@pytest.mark.parametrize(("deltas", "share"), [("auto", 1.0), ("always", 0.67)])
def test_a_fast_line_gets_large_files_as_they_are(
    deltas: str, share: float, home: Path, made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured is the time in which bytes are pushed: here none passes at all."""
    monkeypatch.setattr(outgoing, "time", SimpleNamespace(monotonic=lambda: 0.0))
    old = np.random.default_rng(0).normal(size=5 << 20).astype("f4")
    nudged = (old + np.random.default_rng(1).normal(size=len(old)).astype("f4") / 100).tobytes()
    first, second = made(old.tobytes()), made(nudged)
    deploy(home, first, here(first))
    with board(home, no_flush) as agent:
        report = put(agent, second, here(first), deltas)
    assert report.deltas == 1
    assert share - 0.01 < report.bytes / len(nudged) < share + 0.01
    assert problems(home, {one.id: one for one in (first, second)}) == []


def test_the_index_lies_with_its_blob_and_goes_with_it(home: Path, made: Callable[..., Made]) -> None:
    models = [np.random.default_rng(seed).bytes(70_000) for seed in range(10, 16)]
    for model in models:
        one = made(model)
        deploy(home, one)
        with board(home, no_flush) as agent:
            agent.inspect(ROOT, APP, one.wish())
            agent.confirm({"release": one.id})
    names = sorted(path.name for path in blobs(home).iterdir())
    kept = sorted(sha(model) for model in models[-3:])
    assert names == sorted(name for one in kept for name in (one, one + ".idx"))
    with (blobs(home) / kept[0]).open("rb") as stream:
        assert (blobs(home) / (kept[0] + ".idx")).read_bytes() == pack_index(chunks_of(stream))


def test_small_files_have_no_index_and_are_sent_whole(home: Path, made: Callable[..., Made]) -> None:
    deploy(home, made(MODEL[:1000]))
    report = deploy(home, made(MODEL[:1001]))
    assert report.deltas == 0
    assert not list(blobs(home).glob("*.idx"))


@pytest.mark.parametrize("damage", [b"", b"?" * 100, bytes(120)])
def test_a_damaged_index_is_no_index(damage: bytes, home: Path, made: Callable[..., Made]) -> None:
    first, second = made(MODEL), made(OTHER)
    deploy(home, first)
    (blobs(home) / (sha(MODEL) + ".idx")).write_bytes(damage)
    report = deploy(home, second)
    assert (report.deltas, report.passes) == (0, 1)
    assert problems(home, {one.id: one for one in (first, second)}) == []


def test_an_index_of_something_else_costs_a_second_pass(home: Path, made: Callable[..., Made]) -> None:
    first, second = made(MODEL), made(OTHER)
    deploy(home, first)
    wrong = blobs(home) / (sha(OTHER) + ".idx")
    deploy(home, second)
    os.replace(wrong, blobs(home) / (sha(MODEL) + ".idx"))
    deploy(home, first)
    third = made(OTHER[:-5] + b"third")
    report = deploy(home, third)
    assert (report.deltas, report.passes) == (1, 2)
    assert problems(home, {one.id: one for one in (first, third)}) == []


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("damage", ["other", "shorter", "longer"])
def test_a_damaged_old_file_is_noticed_and_all_is_sent(
    known: bool, damage: str, home: Path, made: Callable[..., Made]
) -> None:
    first, second = made(MODEL), made(GROWN)
    deploy(home, first)
    with (blobs(home) / sha(MODEL)).open("r+b") as stream:
        if damage == "other":
            stream.seek(1000)
            stream.write(b"bad card")
        else:
            stream.truncate(len(MODEL) // 2 if damage == "shorter" else len(MODEL) + 1)
    with board(home, no_flush) as agent:
        report = put(agent, second, here(first) if known else nowhere)
        assert agent.verify()["ok"]
    sent_twice = damage != "longer"  # what is behind the end is of no importance
    assert report.passes == (2 if sent_twice else 1)
    assert (report.bytes > len(GROWN)) is sent_twice
    assert not list(blobs(home).glob("*.part"))


def test_an_old_file_that_goes_meanwhile_means_sending_all(home: Path, made: Callable[..., Made]) -> None:
    first, second = made(MODEL), made(GROWN)
    deploy(home, first)
    with board(home, no_flush) as agent:
        agent.inspect(ROOT, APP, second.wish())
        (blobs(home) / sha(MODEL)).unlink()
        report = agent.install(second.release, blobs_of(second.release, second.contents), "", here(first))
        assert report.passes == 2
        agent.switch(second.id, 0)
        assert agent.verify()["ok"]


@pytest.mark.parametrize("how", ["size", "content"])
def test_a_wrong_old_file_here_does_no_harm(how: str, home: Path, made: Callable[..., Made]) -> None:
    first, second = made(MODEL), made(NUDGED)
    deploy(home, first)
    mine = here(first)(sha(MODEL), 0)
    assert mine
    mine.write_bytes(MODEL[:-1] if how == "size" else b"DOMI" + MODEL[4:])
    with board(home, no_flush) as agent:
        # No two tests share what is remembered of this pair.
        second = made(NUDGED + how.encode())
        report = put(agent, second, here(first))
        assert report.passes == (1 if how == "size" else 2)
        assert agent.verify()["ok"]


def test_executables_and_renamed_files(home: Path, made: Callable[..., Made], tmp_path: Path) -> None:
    """The role is the path; a base may be an executable, whose blob is another file."""
    first = make_release(tmp_path / "x", {"tool.sh": MODEL, "a.om": OTHER}, "")
    second = make_release(tmp_path / "x", {"tool.sh": TUNED, "b.om": OTHER[:-1]}, "")
    deploy(home, first)
    assert list(blobs(home).glob("*.x"))
    report = deploy(home, second, here(first))
    assert report.deltas == 1
    assert len(OTHER) < report.bytes < 1.05 * len(OTHER)
    assert problems(home, {first.id: first, second.id: second}) == []


def test_a_damaged_manifest_gives_no_roles(home: Path, made: Callable[..., Made]) -> None:
    first, second = made(MODEL), made(GROWN)
    deploy(home, first)
    (home / "PROJECTS" / APP / "releases" / first.id / "manifest.json").write_text('{"files": 5}')
    report = deploy(home, second, here(first))
    assert (report.deltas, report.passes) == (0, 1)


# ------------------------------------------------------------------------------------------ cut


@pytest.mark.parametrize("known", [True, False])
def test_cut_differences_go_on_where_they_stopped(
    known: bool, home: Path, made: Callable[..., Made], tmp_path: Path
) -> None:
    first, second = made(MODEL), made(NUDGED)
    old = here(first) if known else nowhere
    deploy(home, first)
    line = ForkedLine(home, no_flush)
    with BoardAgent(line, Address("board", "local", client="local"), Limits(silence=20, board=60)) as agent:
        agent.inspect(ROOT, APP, second.wish())
        before = line.sent
        agent.install(second.release, blobs_of(second.release, second.contents), "", old)
        all_of_it = line.sent - before
    for path in [*blobs(home).glob(sha(NUDGED) + "*")]:
        path.unlink()
    with pytest.raises(LineLost):
        deploy(home, second, old, cut_after=before + all_of_it * 3 // 4)
    part = blobs(home) / (sha(NUDGED) + ".part")
    there = part.stat().st_size
    assert there >= 1 << 18
    assert NUDGED.startswith(part.read_bytes())
    report = deploy(home, second, old)
    assert report.passes == 1
    assert report.bytes < 0.75 * all_of_it
    assert problems(home, {one.id: one for one in (first, second)}) == []


def test_what_was_cut_whole_goes_on_as_a_difference_and_the_other_way_round(
    home: Path, made: Callable[..., Made]
) -> None:
    first, second, other = made(MODEL), made(NUDGED), made(OTHER)
    deploy(home, other)
    with pytest.raises(LineLost):
        deploy(home, second, cut_after=400_000)
    assert (blobs(home) / (sha(NUDGED) + ".part")).stat().st_size > 100_000
    deploy(home, first)
    report = deploy(home, second, here(first))
    assert (report.deltas, report.passes) == (1, 1)
    with board(home, no_flush) as agent:
        agent.inspect(ROOT, APP, second.wish())
        assert agent.verify()["ok"]


# ------------------------------------------------------------------------------------------ old Pythons


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.13"])
def test_rebuilt_by_old_and_new_pythons(
    version: str, home: Path, made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    address = Address("board", "local", client="local", interpreters=(str(require(version)),))
    releases = [made(data) for data in (MODEL, NUDGED, GROWN, TUNED)]
    for number, one in enumerate(releases):
        with BoardAgent.connect(address, Limits(silence=20, board=60)) as agent:
            report = put(agent, one, here(*releases) if number != 2 else nowhere)
            assert (report.deltas, report.passes) == (int(number > 0), 1)
            assert agent.verify()["ok"]
