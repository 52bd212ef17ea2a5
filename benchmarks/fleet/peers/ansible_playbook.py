"""Ansible with mitogen, pipelining, and as many forks as boards; files with rsync.

``ansible.posix.synchronize`` runs rsync on the client; ansible-core comes without that collection, so the
playbook runs the same rsync itself. The program runs when rsync has sent something (``when: changed``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping

from benchmarks.fleet import venv
from benchmarks.fleet.boards import USER
from benchmarks.fleet.peers import PROGRAMS, Peer, Site

_CONFIG = """[defaults]
inventory = {folder}/inventory.json
strategy_plugins = {mitogen}
strategy = mitogen_linear
forks = {forks}
gathering = explicit
interpreter_python = /usr/bin/python3
host_key_checking = True
retry_files_enabled = False
local_tmp = {folder}/tmp
stdout_callback = ansible.builtin.minimal
timeout = 60
[ssh_connection]
pipelining = True
ssh_args = -F {folder}/ssh_config
"""


class AnsiblePlaybook(Peer):
    title = "Ansible + mitogen"

    def lacks(self) -> str:
        if not shutil.which("rsync"):
            return "rsync (apt install rsync)"
        return "" if self._strategy() else "ansible-core and mitogen (made by the script itself, unless --no-install)"

    def _strategy(self) -> str:
        found = sorted(venv.FOLDER.glob("lib/python*/site-packages/ansible_mitogen/plugins/strategy"))
        return str(found[0]) if found and venv.program("ansible-playbook").exists() else ""

    def prepare(self, site: Site) -> None:
        folder = site.folder
        master = ("ControlMaster auto", f"ControlPath {site.fleet.folder}/%C", "ControlPersist 10")
        site.fleet.write_ssh_config(folder / "ssh_config", *master)
        text = _CONFIG.format(folder=folder, mitogen=self._strategy(), forks=len(site.fleet.boards))
        (folder / "ansible.cfg").write_text(text)
        hosts = {board.name: {"ansible_host": board.name} for board in site.fleet.boards}
        variables = {
            "ansible_user": USER,
            "ssh_config": str(folder / "ssh_config"),
            "release": str(site.release),
            "out": str(site.out),
        }
        (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))

    def command(self, site: Site) -> list[str]:
        return [str(venv.program("ansible-playbook")), str(PROGRAMS / "playbook.yml")]

    def environment(self, site: Site) -> Mapping[str, str]:
        return {
            "ANSIBLE_CONFIG": str(site.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(site.folder / "ansible"),
            "LC_ALL": "C.UTF-8",
        }


def make(name: str) -> AnsiblePlaybook:
    return AnsiblePlaybook(name)
