"""``train.where=ssh`` on the command line: a host of the inventory trains."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages._training_host import sourcing
from tests.commands.conftest import run as in_process
from tests.e2e.conftest import Deploy, environment
from toolkit.sim import SimBoard, Simulation

pytestmark = pytest.mark.e2e

QUICK = ("train", "app=digits", "train.epochs=0", "train.where=ssh")


def test_a_host_of_the_inventory_trains(deploy: Deploy) -> None:
    # example.yaml's build host, as a simulated stand-in with this machine's MindSpore.
    done = deploy(*QUICK, "inventory=example", "hosts=cam-01", "simulate=true", "train.remote.host=builder")
    assert done.code == 0, done.err
    (train,) = done.of("done", stage="train")
    assert train["data"]["notes"]["host"] == "train-builder"
    assert train["data"]["notes"]["summary"].endswith("on train-builder")


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_activating_script_is_sourced_without_arguments_or_missed(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "it's activate.sh"
    script.write_text("FOUND=$#\n")
    for named in (str(script), f"~/{script.name}"):
        command = [shell, "-c", f"{sourcing(named)}echo found $FOUND $1", "sh", "an argument"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)})
        assert (done.returncode, done.stdout, done.stderr) == (0, "found 0 an argument\n", "")
    command = [shell, "-c", f"{sourcing('/no/such/script')}echo went on"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "train.remote.activate: there is no /no/such/script\n"


def test_left_alone_it_goes_on_until_it_is_cancelled(deploy: Deploy, tmp_path: Path) -> None:
    with Simulation([SimBoard("gpu", toolkit=False)], tmp_path / "hosts") as simulation:
        (place,) = simulation.addresses
        entry = {name: str(getattr(place, name)) for name in ("host", "port", "user", "key_file", "host_key")}
        inventory = tmp_path / "run" / "inventory" / "mine.yaml"
        inventory.parent.mkdir()
        inventory.write_text(json.dumps({"hosts": {"gpu": {**entry, "port": place.port}}}))
        there = ("train.where=ssh", "train.remote.host=gpu", "inventory=mine", f"train.remote.python={sys.executable}")
        script, seen = tmp_path / "activate.sh", tmp_path / "activated"
        script.write_text(f"echo activated > {seen}\n")
        there = (*there, f"train.remote.activate={script}")
        settings = ("app=digits", "train.epochs=999", "data.test_fraction=0.8", *there)
        command = [sys.executable, "-m", "stages", "train", *settings, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(tmp_path / "run")) as first:
            assert first.stdout is not None
            next(line for line in first.stdout if '"progress"' in line and '"epoch"' in line)
            first.send_signal(signal.SIGINT)
            told = first.stdout.read()
            assert first.wait(60) == 130, told
        assert "deploy cancel" in told
        assert seen.exists()
        at_home = functools.partial(in_process, tmp_path / "run")
        ended = at_home("cancel", *settings)
        assert ended.code == 0, ended.out
        ((job,),) = [event["cancelled"] for event in ended.of("result")]
        assert (job["job"].endswith(" on gpu"), job["phase"]) == (True, "cancelled")
        attached = at_home("train", "--attach", *settings)
        assert (attached.code, "already ended on gpu" in str(attached.of("error"))) == (2, True), attached.out


def test_without_a_host_or_an_inventory_it_says_what_to_give(deploy: Deploy, tmp_path: Path) -> None:
    local = in_process(tmp_path / "run", "train", "--attach", "app=digits", "train.epochs=0")
    assert (local.code, "--attach" in str(local.of("error"))) == (2, True)
    nobody = deploy(*QUICK)
    assert (nobody.code, "train.remote.host" in str(nobody.of("error"))) == (2, True)
    wrong = in_process(tmp_path / "run", *QUICK, "train.epochs=1", "train.remote.host=bilder", "inventory=example")
    assert (wrong.code, wrong.of("start")) == (2, []), "told before anything is made"
    assert "train.remote.host=bilder: there is no such machine" in wrong.of("error")[0]["text"]
    assert wrong.of("error")[0]["hint"] == "did you mean builder?"
    nowhere = deploy(*QUICK, "train.remote.host=gpu")
    assert (nowhere.code, "inventory=NAME" in str(nowhere.of("error"))) == (2, True)
