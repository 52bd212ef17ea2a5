"""pyinfra with ``files.rsync``, all boards in parallel. The program runs when something was sent.

pyinfra's rsync operation always counts as a change, so the board itself looks whether anything is newer than
the results.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping

from benchmarks.fleet import venv
from benchmarks.fleet.boards import USER
from benchmarks.fleet.peers import PROGRAMS, Peer, Site

_INVENTORY = """import json, paramiko
_spec = json.load(open({spec!r}))
_others = [name for name in paramiko.Transport._preferred_ciphers if name != "aes128-gcm@openssh.com"]
_slow = [name for name in paramiko.Transport._preferred_kex if "curve25519" not in name]
boards = (
    _spec["boards"],
    {{
        "ssh_user": _spec["user"],
        "ssh_key": _spec["key"],
        "ssh_config_file": _spec["ssh_config"],
        "ssh_known_hosts_file": _spec["known_hosts"],
        "ssh_strict_host_key_checking": "yes",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
        "ssh_paramiko_connect_kwargs": {{"disabled_algorithms": {{"ciphers": _others, "kex": _slow}}}},
        "release": _spec["release"],
        "out": _spec["out"],
    }},
)
"""


class PyinfraDeploy(Peer):
    title = "pyinfra + files.rsync"

    def lacks(self) -> str:
        if not shutil.which("rsync"):
            return "rsync (apt install rsync)"
        installed = venv.program("pyinfra").exists()
        return "" if installed else "pyinfra (made by the script itself, unless --no-install)"

    def prepare(self, site: Site) -> None:
        folder = site.folder
        master = ("ControlMaster auto", f"ControlPath {site.fleet.folder}/%C", "ControlPersist 10")
        site.fleet.write_ssh_config(folder / "ssh_config", *master)
        spec = {
            "boards": [board.name for board in site.fleet.boards],
            "user": USER,
            "key": str(site.fleet.key),
            "known_hosts": str(site.fleet.known_hosts),
            "ssh_config": str(folder / "ssh_config"),
            "release": str(site.release),
            "out": str(site.out),
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        (folder / "inventory.py").write_text(_INVENTORY.format(spec=str(folder / "spec.json")))
        shutil.copy(PROGRAMS / "pyinfra_deploy.py", folder / "deploy.py")

    def command(self, site: Site) -> list[str]:
        parallel = ["--parallel", str(len(site.fleet.boards))]
        return [str(venv.program("pyinfra")), "-y", *parallel, "inventory.py", "deploy.py"]

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"LC_ALL": "C.UTF-8"}


def make(name: str) -> PyinfraDeploy:
    return PyinfraDeploy(name)
