"""An inventory that a program prints: Ansible's dynamic form, or our own, as JSON."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from yaml.nodes import MappingNode, Node

from toolkit.errors import ConfigError
from toolkit.inventory import ansible, native
from toolkit.inventory.draft import Draft
from toolkit.inventory.nodes import Problems, from_json, text_of


def read_program(path: Path, shown: str, limit: float, problems: Problems) -> list[Draft]:
    """Run ``path --list`` in its folder, for at most ``limit`` seconds, and return the machines that it
    prints.

    :raises ConfigError: it does not start, fails, takes too long, or prints something else.
    """
    return read_printed(_run(path, shown, limit), shown, problems, path.parent)


def read_printed(text: str, shown: str, problems: Problems, folder: Path) -> list[Draft]:
    """Return the machines of JSON ``text``."""
    try:
        root = from_json(text, shown)
    except ValueError as error:
        raise ConfigError(f"{shown}: what it prints is not JSON: {error}") from None
    if _is_native(root):
        return native.read(root, problems)
    return ansible.read_dynamic(root, problems, folder)


def _is_native(root: Node) -> bool:
    if not isinstance(root, MappingNode):
        return True
    return any(text_of(key) == "boards" for key, _ in root.value)


def _run(path: Path, shown: str, limit: float) -> str:
    try:
        # A session of its own: whatever it has started ends with it.
        process = subprocess.Popen(
            [str(path.absolute()), "--list"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=path.absolute().parent,
            start_new_session=True,
        )
    except OSError as error:
        hint = "does its first line name an interpreter, as #!/usr/bin/env python3?"
        raise ConfigError(f"{shown}: cannot be run: {error.strerror}", hint=hint) from None
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{shown}: printed no inventory within {limit:g} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    if process.returncode != 0:
        lines = err.decode("utf-8", "replace").strip().splitlines()
        why = f": {lines[-1]}" if lines else ""
        raise ConfigError(f"{shown}: ended with status {process.returncode}{why}")
    return out.decode("utf-8", "replace")
