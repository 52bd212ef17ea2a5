"""deploy.lock: two clean machines make the same bits, and a lock is rolled out again without making anything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from toolkit import paths
from toolkit.artefacts.lock import Lock, locked_overrides, with_lock
from toolkit.errors import InputError

CALL = ("+board=sim", "board.count=1", "train.epochs=1", "verify.max_difference=1")


@dataclass(frozen=True)
class Machine:
    """A user, a place and a time zone of its own; ``checkout`` is where the program lies there."""

    folder: Path
    checkout: Path
    umask: int
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "work"

    def deploy(self, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, events and stderr."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "DEPLOY_", "LC_", "LANG"))}
        for folder in (self.home, self.folder / "home"):
            folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "stages", *arguments, "--json"],
            capture_output=True,
            timeout=400,
            cwd=self.checkout,
            umask=self.umask,
            env={
                **kept,
                "ONEDNN_MAX_CPU_ISA": "AVX2",
                "DEPLOY_HOME": str(self.home),
                "HOME": str(self.folder / "home"),
                **self.environment,
            },
            check=False,
        )
        events = [json.loads(line) for line in done.stdout.decode().splitlines()]
        return done.returncode, events, done.stderr.decode()

    @property
    def lock(self) -> Path:
        return self.home / "deploy.lock"

    def copy(self, folder: Path, *, artefacts: bool = True) -> Machine:
        """A clean machine that has at most the artefacts of this one: no records, no boards, no runs."""
        other = Machine(folder, self.checkout, self.umask, self.environment)
        if artefacts:
            shutil.copytree(self.home / ".deploy" / "artefacts", other.home / ".deploy" / "artefacts")
        return other


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> list[Machine]:
    """Two machines that differ in all that must not matter; each has made and rolled out the same release."""
    folder = tmp_path_factory.mktemp("machines")
    here, elsewhere = folder / "checkout", folder / "another-place" / "of-the-checkout"
    for room in ("toolkit", "stages", "conf", "inventory"):
        shutil.copytree(paths.CHECKOUT / room, here / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(here, elsewhere)
    first = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "USER": "anna", "LOGNAME": "anna"}
    second = {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C",
        "LANG": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONHASHSEED": "4711",
        "USER": "berta",
        "LOGNAME": "berta",
    }
    made = [
        Machine(folder / "one", here, 0o022, first),
        Machine(folder / "the-other-one", elsewhere, 0o077, second),
    ]
    for machine in made:
        code, events, err = machine.deploy(*CALL)
        assert code == 0, err + json.dumps(of(events, "error"))
        assert [event["stage"] for event in of(events, "done")] == ["data", "train", "export", "convert", "package"]
    return made


@pytest.mark.learn
def test_two_machines_make_the_same_bits(machines: list[Machine]) -> None:
    one, other = machines
    locks = [json.loads(machine.lock.read_text()) for machine in machines]
    assert locks[0]["targets"] == locks[1]["targets"], "every artefact, fingerprint and release"
    assert one.lock.read_bytes() == other.lock.read_bytes()
    held = [sorted(path.name for path in (m.home / ".deploy" / "artefacts").iterdir()) for m in machines]
    assert held[0] == held[1]
    assert len(held[0]) == 5
    for machine in machines:
        (run,) = (machine.home / "runs").iterdir()
        assert (run / "deploy.lock").read_bytes() == machine.lock.read_bytes()
        current = machine.home / ".deploy/sim/200dk/home/HIAI_PROJECTS/digits/current"
        assert current.readlink().name == locks[0]["targets"][0]["release"]


@pytest.mark.learn
def test_two_machines_make_the_same_plan(machines: list[Machine], tmp_path: Path) -> None:
    digests = set()
    for number, machine in enumerate(machines):
        clean = machine.copy(tmp_path / str(number))
        code, events, err = clean.deploy("plan", f"lock={machine.lock}")
        assert code == 0, err
        (result,) = of(events, "result")
        digests.add(result["digest"])
        assert not [step for step in result["plan"] if step["runs"]]
    assert len(digests) == 1


@pytest.mark.learn
def test_the_lock_names_every_input(machines: list[Machine]) -> None:
    lock = json.loads(machines[0].lock.read_text())
    (target,) = lock["targets"]
    stages = target["stages"]
    assert set(stages) == {"data", "train", "export", "convert", "package"}
    assert set(stages["train"]["holds"]) >= {"model.ckpt"}
    assert set(stages["export"]["holds"]) >= {"model.onnx"}
    assert set(stages["convert"]["holds"]) == {"model.om"}
    assert stages["convert"]["cann"] == stages["convert"]["tools"]["cann"] == "20.2"
    assert stages["train"]["tools"]["mindspore"] == lock["made_by"]["packages"]["mindspore"]
    assert set(lock["made_by"]["code"]) == {"version", "sha256"}
    assert lock["overrides"] == list(CALL)
    text = machines[0].lock.read_text()
    assert str(machines[0].folder) not in text, "no paths of this machine"
    assert "anna" not in text


@pytest.mark.learn
def test_a_lock_is_rolled_out_without_making_anything(machines: list[Machine], tmp_path: Path) -> None:
    one = machines[0]
    clean = one.copy(tmp_path / "clean")
    code, events, err = clean.deploy(f"lock={one.lock}")
    assert code == 0, err
    assert of(events, "done") == []
    release = json.loads(one.lock.read_text())["targets"][0]["release"]
    (board,) = of(events, "result")[-1]["boards"]
    assert (board["status"], board["release"]) == ("ok", release)
    assert not clean.lock.exists(), "nothing was locked anew"
    assert not (clean.home / ".deploy" / "records").exists()


@pytest.mark.learn
def test_what_contradicts_the_lock_is_refused(machines: list[Machine]) -> None:
    one = machines[0]
    typed = ["train.epochs=2", "atc.precision_mode=force_fp32", "preprocess.mean=[0.1,0.2,0.3]"]
    code, events, _ = one.deploy("plan", f"lock={one.lock}", *typed)
    assert code == 7
    (error,) = of(events, "error")
    for named in ("train.epochs: locked 1, not 2", "atc.precision_mode: locked unset", "preprocess.mean: locked"):
        assert named in error["text"]
    assert error["hint"]
    code, events, _ = one.deploy("plan", f"lock={one.lock}", "board.cann.version=5.0.4")
    assert code == 7, "another CANN is another release"


@pytest.mark.learn
def test_a_missing_artefact_is_named_by_its_digest(machines: list[Machine], tmp_path: Path) -> None:
    one = machines[0]
    digest = json.loads(one.lock.read_text())["targets"][0]["stages"]["package"]["artefact"]
    empty = one.copy(tmp_path / "empty", artefacts=False)
    shared = ("store=shared", f"store.url={tmp_path}/shared")
    for more in ((), shared):
        code, events, _ = empty.deploy(f"lock={one.lock}", *more)
        assert code == 2
        (error,) = of(events, "error")
        assert digest in error["text"]
    assert one.deploy("package", *CALL, *shared)[0] == 0, "puts there what it has"
    code, events, err = empty.deploy("plan", f"lock={one.lock}", *shared)
    assert code == 0, err
    assert {path.name for path in (empty.home / ".deploy" / "artefacts").iterdir()} == {digest}


# -------------------------------------------------------------------------------------- without any machine


def test_what_belongs_to_one_call_is_not_locked() -> None:
    typed = ["+board=sim", "train.epochs=1", "store=shared", "store.url=x", "engine=dask", "plan=p", "sign.key=k"]
    assert locked_overrides(typed) == ("+board=sim", "train.epochs=1")


def test_what_is_typed_takes_the_place_of_what_was_locked(tmp_path: Path) -> None:
    lock = Lock((), ("+board=sim", "train.epochs=1", "infer.top_k=3"))
    lock.write(tmp_path / "a.lock")
    arguments = [f"lock={tmp_path}/a.lock", "+board=200dk", "infer.top_k=5"]
    assert with_lock(arguments) == ["train.epochs=1", *arguments]
    assert with_lock(["+board=sim"]) == ["+board=sim"]
    assert with_lock(["lock=null"]) == ["lock=null"]


def test_a_lock_that_says_the_same_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    Lock((), ("a=1",)).write(path)
    before = path.stat()
    Lock((), ("a=1",)).write(path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    Lock((), ("a=2",)).write(path)
    assert path.stat().st_ino != before.st_ino


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "targets": [{}]}', "\x00"])
def test_what_is_no_lock_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "deploy.lock"
    path.write_text(content)
    with pytest.raises(InputError) as refusal:
        Lock.read(path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
