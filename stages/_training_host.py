"""The machine that ``train.where=ssh`` means: a host of the inventory, or its simulated stand-in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace

from hydra import compose
from omegaconf import OmegaConf

from stages._fleet import Target, address_of, limits_of, machine_named, simulated_address, stand_ins
from toolkit import paths
from toolkit.cann.environment import converter_script
from toolkit.config.schema import Config
from toolkit.config.store import load
from toolkit.errors import ConfigError
from toolkit.learn.over_ssh import TrainHost
from toolkit.learn.settings import Device
from toolkit.remote.address import Address
from toolkit.sim import Simulation, SimulationError


@contextlib.contextmanager
def training_host(config: Config) -> Iterator[TrainHost]:
    """Where to train; a simulated machine lives, with all that runs on it, as long as the ``with`` block."""
    its = training_target(config)
    if not config.simulate:
        yield host_of(config, its, address_of(its.boards[0], its))
        return
    # Its own interpreter is this one, which has MindSpore.
    boards = [replace(board, name=f"train-{board.name}", python=sys.executable) for board in stand_ins(its)]
    try:
        with Simulation(boards, paths.home() / "sim-training") as simulation:
            yield host_of(config, its, simulated_address(simulation.addresses[0], its))
    except SimulationError as error:
        raise ConfigError(f"simulate: {error}") from error


def training_target(config: Config) -> Target:
    """The host as a target of its own: its login, its folder and its CANN are those of its own profile."""
    host = machine_named(config, "train.remote.host", config.train.remote.host)
    composed = compose("deploy", [f"+board={host.profile}"])
    OmegaConf.set_struct(composed, False)
    for key, value in host.overrides.items():
        OmegaConf.update(composed, key, value, merge=True)
    return Target(host.profile, replace(load(composed), ssh=config.ssh), (host,))


def host_of(config: Config, its: Target, address: Address) -> TrainHost:
    """The machine at ``address``, and how it is made to train."""
    remote = config.train.remote
    environment = ""
    if remote.activate:
        environment = sourcing(remote.activate)
    elif config.train.device_target is Device.Ascend:
        environment = converter_script(its.profile.cann)
    return TrainHost(address, limits_of(config), its.profile.root, environment, remote.python)


def sourcing(script: str) -> str:
    """Shell text that sources ``script``, and ends everything where it is not there: no training without it.

    In a function, which has no arguments: conda's ``activate`` takes those of the shell for its own.
    """
    inside = script.removeprefix("~/")
    quoted = "'" + inside.replace("'", "'\\''") + "'"
    place = quoted if inside == script else f'"$HOME"/{quoted}'
    complaint = f"echo train.remote.activate: there is no {place} >&2"
    return f"if [ ! -r {place} ]; then {complaint}; exit 1; fi\n_activate() {{ . {place}; }}\n_activate\n"
