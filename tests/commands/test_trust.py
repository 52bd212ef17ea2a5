"""``deploy trust``: shown, asked about, pinned; and what a changed key takes."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest

from tests.commands.conftest import Live
from toolkit.sim import SimBoard


def fingerprint(host_key: str) -> str:
    digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@pytest.mark.e2e
def test_from_unknown_to_trusted_to_changed(live: Callable[..., Live]) -> None:
    there = live(SimBoard("new-1"), SimBoard("new-2"))
    there.inventory()
    shown = [fingerprint(place.host_key) for place in there.simulation.addresses]

    asked = there.deploy("trust", "inventory=live", json_lines=False)
    assert asked.code == 2
    assert all(text in asked.out for text in shown)
    assert "--yes" in asked.err
    assert not there.known_hosts.exists(), "nobody said yes"

    done = there.deploy("trust", "inventory=live", "hosts=new-1", "--yes")
    assert done.code == 0, done.out + done.err
    (result,) = done.of("result")
    assert result["pinned"] == 1
    assert [key["fingerprint"] for key in result["boards"][0]["keys"]] == shown[:1]
    assert len(there.known_hosts.read_text().splitlines()) == 1

    status = there.deploy("status", "inventory=live")
    assert status.code == 4
    (result,) = status.of("result")
    assert [item.get("cause", "") for item in result["boards"]] == ["", "host-key-unknown"]

    # The first board is set up anew, at the same address: another key.
    lines = there.known_hosts.read_text().replace(
        there.simulation.addresses[0].host_key, there.simulation.addresses[1].host_key
    )
    there.known_hosts.write_text(lines)
    changed = there.deploy("trust", "inventory=live", "hosts=new-1", "--yes")
    assert changed.code == 5
    (result,) = changed.of("result")
    assert result["boards"][0]["cause"] == "host-key-changed"
    assert "replace=true" in result["boards"][0]["hint"]
    assert there.known_hosts.read_text() == lines, "refused, not replaced"

    assert there.deploy("trust", "inventory=live", "replace=true", "--yes").code == 0
    assert there.deploy("status", "inventory=live").code == 0
    again = there.deploy("trust", "inventory=live", json_lines=False)
    assert again.code == 0
    assert "all of them are known" in again.out


@pytest.mark.e2e
def test_hosts_that_nobody_knows(live: Callable[..., Live]) -> None:
    there = live(SimBoard("new-1"))
    there.inventory()
    done = there.deploy("trust", "inventory=live", "hosts=nobody", json_lines=False)
    assert done.code == 2
    assert "nobody" in done.err
    # A name alone could be anybody's, a profile with an address of its own, too: it is not looked for.
    for name in ("new-1", "200dk"):
        alone = there.deploy("trust", f"hosts={name}", json_lines=False)
        assert alone.code == 2
        assert "give inventory=NAME" in alone.err


@pytest.mark.e2e
def test_a_single_board_by_its_profile(live: Callable[..., Live]) -> None:
    there = live(SimBoard("dk"))
    (place,) = there.simulation.addresses
    at = (f"board.host={place.host}", f"board.port={place.port}")
    unknown = there.deploy("status", "+board=200dk", *at, "app=digits", "ssh.limits.connect=9")
    hint = unknown.of("result")[0]["boards"][0]["hint"]
    # What a hint says is typed as it stands: at the profile's own address is another board, or none.
    words = shlex.split(hint.partition("then: deploy ")[2])
    assert set(at) < set(words)
    assert there.deploy(*words, "--yes").of("result")[0]["pinned"] == 1
    done = there.deploy("trust", "+board=200dk", *at, "--yes")
    assert done.code == 0, done.out + done.err
    assert there.known_hosts.read_text().count("ssh-ed25519") == 1


@pytest.mark.e2e
def test_machines_that_convert_and_train(live: Callable[..., Live]) -> None:
    """Trusted and examined like boards where they are named, or where the call would use them."""
    there = live(SimBoard("dk"), SimBoard("builder", toolkit=True), SimBoard("gpu", toolkit=False))
    there.inventory()
    file = there.home / "inventory" / "live.yaml"
    entries = json.loads(file.read_text())
    entries["hosts"] = {name: {**entries["boards"].pop(name), "overrides": {}} for name in ("builder", "gpu")}
    file.write_text(json.dumps(entries))
    convert, train = "convert.host=builder", "train.remote.host=gpu"

    def named(verb: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = there.deploy(verb, *arguments)
        assert done.code == code, done.out + done.err
        (result,) = done.of("result")
        return {item["board"]: item for item in result["boards"]}

    assert list(named("trust", "inventory=live", "hosts=gpu", "--yes")) == ["gpu"]
    assert list(named("trust", "inventory=live", convert, "--yes")) == ["dk", "builder"]

    used = named("doctor", "inventory=live", convert, train, f"train.remote.python={sys.executable}")
    assert list(used) == ["dk", "builder", "gpu"]
    findings = {name: {one["what"]: one for one in item["findings"]} for name, item in used.items()}
    assert (findings["builder"]["atc"]["state"], findings["builder"]["atc"]["text"]) == ("ok", "CANN 5.0.4")
    assert (findings["gpu"]["atc"]["state"], findings["gpu"]["MindSpore"]["state"]) == ("note", "ok")
    assert version("mindspore") in findings["gpu"]["MindSpore"]["text"]
    wrong = named("doctor", "inventory=live", "hosts=gpu", "convert.host=gpu", train, "train.remote.python=py9", code=5)
    bad = {one["what"]: one for one in wrong["gpu"]["findings"] if one["state"] == "bad"}
    assert set(bad) == {"atc", "MindSpore"}
    assert "py9" in bad["MindSpore"]["text"]
    assert "train.remote.python" in bad["MindSpore"]["fix"]
