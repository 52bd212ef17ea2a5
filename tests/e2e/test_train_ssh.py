"""``train.where=ssh`` on the command line: a host of the inventory trains."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Deploy

pytestmark = pytest.mark.e2e

QUICK = ("train", "app=digits", "train.epochs=0", "train.where=ssh")


def test_a_host_of_the_inventory_trains(deploy: Deploy) -> None:
    # example.yaml's build host, as a simulated stand-in with this machine's MindSpore.
    done = deploy(*QUICK, "inventory=example", "hosts=cam-01", "simulate=true", "train.remote.host=builder")
    assert done.code == 0, done.err
    (train,) = done.of("done", stage="train")
    assert train["data"]["notes"]["host"] == "train-builder"
    assert train["data"]["notes"]["summary"].endswith("on train-builder")


def test_without_a_host_or_an_inventory_it_says_what_to_give(deploy: Deploy) -> None:
    nobody = deploy(*QUICK)
    assert (nobody.code, "train.remote.host" in str(nobody.of("error"))) == (2, True)
    nowhere = deploy(*QUICK, "train.remote.host=gpu")
    assert (nowhere.code, "inventory=NAME" in str(nowhere.of("error"))) == (2, True)
