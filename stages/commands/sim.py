"""Simulated boards of their own, for any program that uses AscendCL.

    deploy sim +board=200i_dk_a2 board.count=3         start boards, print how to log in (Ctrl-C ends them)
    deploy sim up inventory=factory                    the same for a fleet
    deploy sim up +board=200dk board.port=2222         on a port of your choice (several boards: the next ones)
    deploy sim run +board=200dk -- python3 program.py  run a program in such a board's environment, without SSH
    deploy sim shell +board=200dk                      a shell in it

A program gets your variables and PYTHONPATH; board.python=python3.7 names another interpreter for it.
ACL_SIM_STRICT=1 before it fails programs for what hardware lets pass: leaks, memory freed twice, reading past a buffer.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
from collections.abc import Mapping
from dataclasses import replace

from stages._fleet import stand_ins, targets_of
from stages._invocation import Invocation
from toolkit import paths
from toolkit.errors import ConfigError, UsageError
from toolkit.sim import SimBoard, Simulation, SimulationError, run_command, shell

HELP = "start simulated boards and leave them up; run a program on one"


def run(invocation: Invocation) -> int:
    targets = targets_of(invocation)
    profiles = {board.name: target.profile.profile for target in targets for board in target.boards}
    boards = [board for target in targets for board in stand_ins(target)]
    word = invocation.words[0] if invocation.words else "up"
    root = paths.home() / "sim"
    try:
        if word == "run":
            if not invocation.rest:
                raise UsageError("sim run: no program", hint="deploy sim run +board=… -- python3 program.py")
            invocation.renderer.close()
            return run_command(_with_toolkit(boards[0]), root, list(invocation.rest))
        if word == "shell":
            invocation.renderer.close()
            return shell(_with_toolkit(boards[0]), root)
        typed = any(item.startswith("board.port=") for item in invocation.overrides)
        if typed and invocation.config.board is not None:
            first = invocation.config.board.port
            boards = [replace(board, port=first + number) for number, board in enumerate(boards)]
        return _up(invocation, boards, profiles)
    except SimulationError as error:
        raise ConfigError(f"sim: {error}") from error


def _with_toolkit(board: SimBoard) -> SimBoard:
    # Without SSH this is somebody's workbench: ATC belongs to it.
    return replace(board, toolkit=True)


def _up(invocation: Invocation, boards: list[SimBoard], profiles: Mapping[str, str]) -> int:
    with Simulation(boards, paths.home() / "sim") as simulation:
        known = _known_hosts(simulation)
        for place in simulation.addresses:
            command = [
                "ssh", "-i", str(place.key_file), "-p", str(place.port),
                "-o", f"UserKnownHostsFile={known}", f"{place.user}@{place.host}",
            ]  # fmt: skip
            invocation.renderer.data(
                {"name": place.name, "host": place.host, "port": place.port, "user": place.user,
                 "key_file": str(place.key_file), "host_key": place.host_key, "home": str(place.home)},
                f"{place.name:<12} {shlex.join(command)}",
            )  # fmt: skip
        listed = _inventory(simulation, profiles)
        invocation.renderer.data(
            {"inventory": listed}, f"deploy inventory={listed} reaches them; Ctrl-C ends them"
        )
        # Ctrl-C is how this ends: nothing was cut short.
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


def _known_hosts(simulation: Simulation) -> str:
    path = paths.home() / "sim" / "known_hosts"
    path.write_text("".join(f"[{item.host}]:{item.port} {item.host_key}\n" for item in simulation.addresses))
    return str(path)


def _inventory(simulation: Simulation, profiles: Mapping[str, str]) -> str:
    """An inventory of the running boards, for ``deploy inventory=…`` from another terminal."""
    path = paths.home() / "sim" / "boards.yaml"
    boards = {
        place.name: {
            "profile": profiles[place.name],
            "host": place.host,
            "port": place.port,
            "user": place.user,
            "key_file": str(place.key_file),
            "host_key": place.host_key,
        }
        for place in simulation.addresses
    }
    path.write_text(json.dumps({"boards": boards}, indent=1))  # JSON is YAML
    return str(path)
