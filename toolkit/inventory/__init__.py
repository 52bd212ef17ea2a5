"""The boards that exist: read an inventory, check all of it, select boards from it.

::

    load("factory", folders, profiles)      inventory/factory.yaml, our own form
    load("hosts.ini", …)                    an Ansible inventory: INI, YAML, or a program that prints JSON
    load("ssh:cam-*", …)                    entries of ~/.ssh/config
    select(boards, "@canary,site=berlin,!cam-07")

Whatever the source, its reader makes drafts (:mod:`toolkit.inventory.draft`); the checks
(:mod:`toolkit.inventory.checks`) make boards of them and list every problem with its file and line.
"""

from toolkit.inventory.board import HOST_PROFILE, Board, profile_named
from toolkit.inventory.reader import load
from toolkit.inventory.selection import select

__all__ = ["HOST_PROFILE", "Board", "load", "profile_named", "select"]
