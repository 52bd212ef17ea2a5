"""The benchmark of rollouts, run tiny: every peer leaves the same release and fetches the same results.

Two boards with a real sshd each, in network namespaces. Counted, not timed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.fleet import cli, peers
from benchmarks.fleet.boards import Fleet, missing_tools
from benchmarks.fleet.measure import Figures
from benchmarks.fleet.peers import Peer, Site
from benchmarks.fleet.workload import Workload, contents

LACKING = missing_tools()
pytestmark = pytest.mark.skipif(
    bool(LACKING), reason=f"no boards in network namespaces here: this machine lacks {', '.join(LACKING)}"
)
BOARDS = 2


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(BOARDS, tmp_path_factory.mktemp("boards")) as made:
        yield made


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    return Workload(tmp_path_factory.mktemp("workload"), model_mb=1, files=20)


def installed(name: str) -> Peer:
    peer = peers.get(name)
    if peer.lacks():
        pytest.skip(f"the benchmark's peer {name} is not installed: {peer.lacks()}")
    return peer


def site_of(peer: Peer, fleet: Fleet, workload: Workload, tmp_path: Path) -> Site:
    fleet.wipe()
    site = cli.new_site(fleet, workload, peer, tmp_path / peer.name)
    site.out.mkdir()
    return site


def run(peer: Peer, site: Site, workload: Workload, scenario: str) -> Figures:
    """Go on to ``scenario`` and look at every board afterwards, file by file."""
    workload.enter(scenario)
    figures = cli.run(peer, site)
    for board in site.fleet.boards:
        cli.check(peer, site, workload, board, wholly=True)
    return figures


@pytest.mark.parametrize("name", [name for name in peers.NAMES if peers.get(name).rolls_out])
def test_every_way_leaves_the_same_release(name: str, fleet: Fleet, workload: Workload, tmp_path: Path) -> None:
    peer = installed(name)
    site = site_of(peer, fleet, workload, tmp_path)
    first = run(peer, site, workload, "first")
    assert first.wire > BOARDS * 1_000_000, "a model of 1 MB went to each board"
    assert first.connections >= BOARDS
    if name != "ansible":  # a second run of it takes as long as all of the others'
        retrained = run(peer, site, workload, "retrained")
        assert retrained.wire > BOARDS * 100_000, "every weight is another one"


def test_the_limit_is_the_bytes_and_then_the_connections(fleet: Fleet, workload: Workload, tmp_path: Path) -> None:
    peer = installed("bare")
    site = site_of(peer, fleet, workload, tmp_path)
    workload.enter("first")
    first = cli.run(peer, site)
    for board in fleet.boards:
        assert contents(peer.installed(board)) == workload.contents()
    again = cli.run(peer, site)
    assert first.connections == again.connections == BOARDS
    assert first.wire > BOARDS * 1_000_000
    assert again.wire < BOARDS * 20_000


@pytest.mark.parametrize("name", ["ours", "ours-openssh"])
def test_ours_asks_once_when_nothing_changed(name: str, fleet: Fleet, workload: Workload, tmp_path: Path) -> None:
    peer = installed(name)
    site = site_of(peer, fleet, workload, tmp_path)
    run(peer, site, workload, "first")
    same = run(peer, site, workload, "same")
    assert same.said["statuses"] == ["unchanged"]
    assert same.said["requests"] == BOARDS
    assert same.connections == BOARDS == same.said["connections"], "counted by the kernel, and by us"
    assert same.wire < BOARDS * 100_000
    changed = run(peer, site, workload, "one-file")
    assert changed.said["statuses"] == ["ok"]
    assert changed.connections == BOARDS
    assert changed.wire < BOARDS * 500_000, "the model stayed where it was"


def test_round_trips_are_counted(fleet: Fleet, workload: Workload, tmp_path: Path) -> None:
    """At 200 ms the count is of what waits for what: the handshakes of TCP and SSH, and one request."""
    peer = installed("ours")
    site = site_of(peer, fleet, workload, tmp_path)
    run(peer, site, workload, "first")
    fleet.set_rtt(200)
    try:
        figures = run(peer, site, workload, "same")
        report = fleet.ask_delay("report")
    finally:
        fleet.set_rtt(0)
    assert set(report) == {board.host for board in fleet.boards}
    for counted in report.values():
        assert counted["connections"] == 1
        assert 6 <= counted["round_trips"] <= 12
        assert counted["up"] > 1000
        assert counted["down"] > 1000
    assert figures.wall > 6 * 0.2, "a round trip takes its time"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with Fleet(1, tmp_path / "boards") as made:
        names = {made.client, *(board.netns for board in made.boards)}
        assert names <= set(os.listdir("/run/netns"))
        init = [process.pid for process in made._processes]
    assert not names & set(os.listdir("/run/netns"))
    assert not [pid for pid in init if Path("/proc", str(pid)).exists()]
    assert "fleet" not in Path("/etc/passwd").read_text()


def test_a_peer_that_fails_is_no_figure(fleet: Fleet, workload: Workload, tmp_path: Path) -> None:
    """A release that is not on the board, or results that are another release's, are found."""
    peer = installed("rsync") if not peers.get("rsync").lacks() else installed("scp")
    site = site_of(peer, fleet, workload, tmp_path)
    run(peer, site, workload, "first")
    workload.enter("one-file")
    with pytest.raises(AssertionError, match="result 0 of board-1"):
        cli.check(peer, site, workload, fleet.boards[0], wholly=False)
    (fleet.boards[0].home / "bench" / "release" / "env.sh").unlink()
    workload.enter("first")
    with pytest.raises(AssertionError, match="the release on board-1"):
        cli.check(peer, site, workload, fleet.boards[0], wholly=True)
