"""``train.where=ssh`` on the command line: a host of the inventory trains."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Deploy, environment
from toolkit.sim import SimBoard, Simulation

pytestmark = pytest.mark.e2e

QUICK = ("train", "app=digits", "train.epochs=0", "train.where=ssh")


def test_a_host_of_the_inventory_trains(deploy: Deploy, tmp_path: Path) -> None:
    # example.yaml's build host, as a simulated stand-in with this machine's MindSpore.
    there = ("inventory=example", "hosts=cam-01", "simulate=true", "train.remote.host=builder")
    script, seen = tmp_path / "it's activate.sh", tmp_path / "sourced"
    activate = f'train.remote.activate="{script}"'
    nothing = deploy(*QUICK, *there, activate)
    assert nothing.code != 0
    assert "train.remote.activate: there is no" in str(nothing.of("error")), nothing.out
    # As conda's: it takes the arguments it is called with for its own.
    script.write_text(f"echo $# >> {seen}\n")
    done = deploy(*QUICK, *there, activate)
    assert done.code == 0, done.err
    (train,) = done.of("done", stage="train")
    assert train["data"]["notes"]["host"] == "train-builder"
    assert train["data"]["notes"]["summary"].endswith("on train-builder")
    assert set(seen.read_text().split()) == {"0"}
    # What has ended cannot be ended.
    ended = deploy("cancel", *QUICK[1:], *there, activate, json_lines=False)
    assert (ended.code, ended.out.strip()) == (0, "no training job is running")


def test_left_alone_it_goes_on_until_it_is_cancelled(deploy: Deploy, tmp_path: Path) -> None:
    with Simulation([SimBoard("gpu", toolkit=False)], tmp_path / "hosts") as simulation:
        (place,) = simulation.addresses
        entry = {name: str(getattr(place, name)) for name in ("host", "port", "user", "key_file", "host_key")}
        inventory = tmp_path / "run" / "inventory" / "mine.yaml"
        inventory.parent.mkdir()
        inventory.write_text(json.dumps({"hosts": {"gpu": {**entry, "port": place.port}}}))
        there = ("train.where=ssh", "train.remote.host=gpu", "inventory=mine", f"train.remote.python={sys.executable}")
        settings = ("app=digits", "train.epochs=999", "data.test_fraction=0.8", *there)
        command = [sys.executable, "-m", "stages", "train", *settings, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(tmp_path / "run")) as first:
            assert first.stdout is not None
            next(line for line in first.stdout if '"progress"' in line and '"epoch"' in line)
            first.send_signal(signal.SIGINT)
            told = first.stdout.read()
            assert first.wait(60) == 130, told
        assert "deploy cancel" in told
        ended = deploy("cancel", *settings)
        assert ended.code == 0, ended.out
        ((job,),) = [event["cancelled"] for event in ended.of("result")]
        assert (job["job"].endswith(" on gpu"), job["phase"]) == (True, "cancelled")
        again = deploy("cancel", *settings)
        assert (again.code, again.of("result")[0]["cancelled"]) == (0, [])
        attached = deploy("train", "--attach", *settings)
        assert (attached.code, "already ended on gpu" in str(attached.of("error"))) == (2, True), attached.out


def test_without_a_host_or_an_inventory_it_says_what_to_give(deploy: Deploy) -> None:
    nobody = deploy(*QUICK)
    assert (nobody.code, "train.remote.host" in str(nobody.of("error"))) == (2, True)
    nowhere = deploy(*QUICK, "train.remote.host=gpu")
    assert (nowhere.code, "inventory=NAME" in str(nowhere.of("error"))) == (2, True)
