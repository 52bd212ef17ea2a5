"""engine=dask on a real cluster of processes, against simulated boards over SSH; a worker is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import SpecCluster

from toolkit.artefacts.hashing import digest_folder, walk_files
from toolkit.artefacts.manifest import Release
from toolkit.artefacts.shared import SharedStore
from toolkit.config.schema import EngineSettings, RolloutSettings, StoreSettings, VerifySettings
from toolkit.errors import ConfigError
from toolkit.fleet import dask_engine
from toolkit.fleet.dask_cluster import QuietScheduler
from toolkit.fleet.dask_engine import DaskEngine, Order
from toolkit.fleet.job import BoardJob, Session
from toolkit.fleet.rollout import Hands, roll_out
from toolkit.remote.address import Address, Limits
from toolkit.sim import SimBoard, Simulation
from toolkit.ui.events import Event, ignore

BOARDS = 8
RUN = "run-1"

PROGRAM = """
import fcntl, os, sys, time
log = open(sys.argv[1], "a", buffering=1)
alone = open(sys.argv[1] + ".alone", "w")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    log.write("overlap\\n")
open(sys.argv[1] + ".pid", "w").write(str(os.getpid()))
log.write("begin\\n")
end = time.monotonic() + 120
while not os.path.exists(sys.argv[4]) and time.monotonic() < end:
    time.sleep(0.02)
os.makedirs(sys.argv[2])
open(sys.argv[2] + "/result.txt", "w").write(sys.argv[3])
log.write("end\\n")
"""


def put_on(session: Session) -> None:
    """A board stage: install, run for a while, bring the result, switch."""
    job = session.job
    if not session.plan.steps:
        return
    session.install()
    argv = ["{python}", "{release}/program.py", "{app}/log", f"{{app}}/outputs/{RUN}", job.board, job.labels["go"]]
    report = session.agent.run(argv, release=job.release.id, cwd="{app}", need=(), limit=150)
    assert report.status == 0, report.stderr_tail
    session.agent.fetch(f"outputs/{RUN}", job.out, limit_bytes=1 << 20, limit_files=10)
    session.switch()
    session.confirm({"accuracy": 1.0})


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[BoardJob], str]]:
    """Simulated boards, a job for each, and the digest of what they get, which lies in a shared store alone."""
    folder = tmp_path_factory.mktemp("fleet")
    package = folder / "package"
    package.mkdir()
    (package / "program.py").write_text(PROGRAM)
    digest = digest_folder(package)
    SharedStore.open(StoreSettings("shared", str(folder / "shared"))).put(digest, package)
    release = Release.of_files("app", dict(walk_files(package)))
    shutil.rmtree(package)
    names = [f"b{number}" for number in range(BOARDS)]
    with Simulation([SimBoard(name, toolkit=False) for name in names], folder / "sim") as simulation:
        yield folder, [_job(folder, place, release) for place in simulation.addresses], digest


def _job(folder: Path, place: object, release: Release) -> BoardJob:
    known = vars(place)
    address = Address(
        *(known[key] for key in ("name", "host", "port", "user", "key_file")),
        host_key=known["host_key"],
        known_hosts=(),
        ssh_config="",
    )
    return BoardJob(
        board=address.name,
        address=address,
        limits=Limits(),
        root="~/PROJECTS",
        app="app",
        release=release,
        files={},
        environment="",
        reference=(),
        program={},
        interpreters=("python3",),
        run_id=RUN,
        holder="anna@desk",
        out=folder / "runs" / RUN / address.name,
        infer_limit=60,
        gate=VerifySettings(),
        confirm_within=60,
        labels={"go": str(folder / "go")},
    )


def _log(folder: Path, board: str, app: str = "app") -> list[str]:
    path = folder / "sim" / board / "home" / "PROJECTS" / app / "log"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().splitlines()
    return []


def _at_work(folder: Path, board: str, app: str = "app") -> bool:
    """Does the program run on the board?"""
    path = folder / "sim" / board / "home" / "PROJECTS" / app / "log.pid"
    with contextlib.suppress(FileNotFoundError, ValueError):
        return Path(f"/proc/{int(path.read_text())}").exists()
    return False


def test_a_killed_worker_loses_no_board_and_none_is_done_twice_at_once(
    fleet: tuple[Path, list[BoardJob], str],
) -> None:
    folder, jobs, digest = fleet
    events: list[Event] = []
    killed: list[int] = []
    with DaskEngine(
        EngineSettings("dask", workers=2, threads=2),
        [("put", put_on)],
        StoreSettings("shared", str(folder / "shared")),
        here=folder / "nobody-shares-this",
        package=lambda job: digest,
        emit=events.append,
    ) as engine:
        engine.client.wait_for_workers(2, timeout=60)
        assert engine.width == 4
        pids = engine.client.run(os.getpid)

        def kill_one_that_is_at_work() -> None:
            """Every slot of the cluster has a board that has begun and waits: now one worker dies, the rest go on."""
            end = time.monotonic() + 100
            while sum(_log(folder, job.board) == ["begin"] for job in jobs) < 4 and time.monotonic() < end:
                time.sleep(0.02)
            if time.monotonic() < end:
                killed.append(next(iter(pids.values())))
                os.kill(killed[0], signal.SIGKILL)
                while sum(_at_work(folder, job.board) for job in jobs) > 2 and time.monotonic() < end:
                    time.sleep(0.02)
            (folder / "go").touch()

        killer = threading.Thread(target=kill_one_that_is_at_work)
        killer.start()
        outcomes, trip = roll_out(
            jobs,
            RolloutSettings(),
            Hands(engine.deploy, engine.revert),
            workers=engine.width,
            emit=events.append,
            stop=threading.Event(),
        )
        killer.join()
        done_by = dict(engine.workers)
    assert killed, "the test reached its point"
    assert trip is None
    assert sorted(outcome.board for outcome in outcomes) == sorted(job.board for job in jobs)
    assert {outcome.board: (outcome.status, outcome.message) for outcome in outcomes} == {
        job.board: ("ok", "") for job in jobs
    }
    logs = {job.board: _log(folder, job.board) for job in jobs}
    assert not [board for board, log in logs.items() if "overlap" in log]
    assert {board: log.count("end") for board, log in logs.items()} == {job.board: 1 for job in jobs}
    again = [board for board, log in logs.items() if log.count("begin") > 1]
    assert len(again) == 2, "the two boards of the killed worker were begun again"
    assert not [board for board in again if f"pid {killed[0]}" in done_by[board]], "by others"
    for job in jobs:
        assert (job.out / "result.txt").read_text() == job.board, "what came from the board is here"
    shown = [event.board for event in events if event.kind == "outcome"]
    assert sorted(shown) == sorted(job.board for job in jobs), "one outcome a board"
    assert {event.board for event in events if event.kind == "start" and event.stage == "put"} == set(shown)


def told() -> bool:
    """Does this worker know that no further board may begin?"""
    return bool(dask_engine._ended)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(fleet: tuple[Path, list[BoardJob], str], times: int) -> None:
    """Once: what runs finishes, nothing else begins. Twice: the lines are cut. A terminal's Ctrl-C reaches the
    workers, too, and must not end them. Afterwards no process is left."""
    folder, jobs, digest = fleet
    app, go, events = f"ctrl-c-{times}", folder / f"go-{times}", []
    jobs = [replace(job, app=app, out=folder / app / job.board, labels={"go": str(go)}) for job in jobs]
    stop, interrupted = threading.Event(), threading.Event()
    with DaskEngine(
        EngineSettings("dask", workers=2, threads=1),
        [("put", put_on)],
        StoreSettings("shared", str(folder / "shared")),
        here=folder / "nobody-shares-this",
        package=lambda job: digest,
        emit=ignore,
        stop=stop,
    ) as engine:
        workers = list(engine.client.run(os.getpid).values())
        for pid in workers:  # while they start, too: the mask; and then by themselves
            words = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
            held = {word[0]: int(word[1], 16) for word in words if word and word[0] in ("SigBlk:", "SigIgn:")}
            assert [mask >> (signal.SIGINT - 1) & 1 for mask in held.values()] == [1, 1]
        info = engine.client.scheduler_info(n_workers=-1)
        assert [info["services"], *(worker["services"] for worker in info["workers"].values())] == [{}] * 3
        listening = [place.laddr.ip for place in psutil.Process().net_connections("tcp") if place.status == "LISTEN"]
        assert set(listening) == {"127.0.0.1"}

        def press() -> None:
            end = time.monotonic() + 60
            while sum(_at_work(folder, job.board, app) for job in jobs) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            for number in range(times):
                while stop.is_set() < bool(number) and time.monotonic() < end:
                    time.sleep(0.02)
                for pid in (os.getpid(), *workers):
                    os.kill(pid, signal.SIGINT)
            interrupted.set()
            if times == 1:
                while set(engine.client.run(told).values()) != {True} and time.monotonic() < end:
                    time.sleep(0.02)
                go.touch()

        pressing = threading.Thread(target=press)
        pressing.start()
        # As many at a time as there are boards: some wait at the workers, and must not begin either.
        outcomes, _ = roll_out(
            jobs,
            RolloutSettings(),
            Hands(engine.deploy, engine.revert),
            workers=4,
            emit=events.append,
            stop=stop,
        )
        pressing.join()
        assert list(engine.client.run(os.getpid).values()) == workers, "Ctrl-C is not for them"
    assert interrupted.is_set()
    begun = [job.board for job in jobs if _log(folder, job.board, app)]
    found = {outcome.board: (outcome.status, outcome.cause) for outcome in outcomes}
    ended = ("ok", "") if times == 1 else ("failed", "interrupted")
    assert len(begun) == 2
    assert found == {job.board: ended if job.board in begun else ("skipped", "interrupted") for job in jobs}
    assert not [job.board for job in jobs if _at_work(folder, job.board, app)]
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_a_cluster_that_loses_its_last_worker_is_not_waited_for_for_ever(
    fleet: tuple[Path, list[BoardJob], str],
) -> None:
    folder, jobs, digest = fleet
    jobs = [replace(job, app="alone", labels={"go": str(folder / "never")}) for job in jobs[:2]]
    with SpecCluster(
        scheduler={"cls": QuietScheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}, workers={}
    ) as cluster:
        settings = EngineSettings("dask", address=cluster.scheduler_address)
        engine = DaskEngine(
            settings,
            [("put", put_on)],
            StoreSettings("shared", str(folder / "shared")),
            here=folder / "nobody-shares-this",
            package=lambda job: digest,
            emit=ignore,
        )
        engine.patience = 1
        with pytest.raises(ConfigError, match="has no workers"), engine:
            pass
        argv = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
        worker = subprocess.Popen(
            [*argv, "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--nthreads", "1"],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        try:
            engine.patience, engine.absence = 60, 2

            def kill() -> None:
                end = time.monotonic() + 60
                while not any(_at_work(folder, job.board, "alone") for job in jobs) and time.monotonic() < end:
                    time.sleep(0.02)
                worker.kill()

            with engine:
                killing = threading.Thread(target=kill)
                killing.start()
                with ThreadPoolExecutor(2) as pool:
                    outcomes = list(pool.map(engine.deploy, jobs))
                killing.join()
                back = engine.revert(jobs[0], replace(outcomes[0], previous="a" * 64), "budget", "budget")
        finally:
            worker.kill()
            worker.wait()
    assert [(outcome.status, outcome.cause) for outcome in outcomes] == [("failed", "worker")] * 2
    assert "no workers" in outcomes[0].message
    assert (back.status, back.cause) == ("failed", "not-reverted")
    assert f"rollback hosts={back.board}" in back.hint


def test_a_cluster_that_nobody_answers_for_is_a_wrong_setting(tmp_path: Path) -> None:
    settings = EngineSettings("dask", address="tcp://127.0.0.1:1")
    engine = DaskEngine(settings, [], StoreSettings(), here=tmp_path, package=lambda job: "", emit=ignore)
    engine.patience = 1
    with pytest.raises(ConfigError, match=r"engine\.address"), engine:
        pass


def test_an_order_is_plain_data_and_holds_no_secret(
    fleet: tuple[Path, list[BoardJob], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOARD_PASSWORD", "hunter2")
    folder, jobs, digest = fleet
    store = StoreSettings("shared", "sftp://a@b/c", password="env:BOARD_PASSWORD")
    order = Order(jobs[0], (("put", put_on),), digest, folder, store, (), "", "topic")
    packed = pickle.dumps(order)
    assert b"hunter2" not in packed
    assert pickle.loads(packed) == order
