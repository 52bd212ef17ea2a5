"""Which boards a call means, with which config each, and where they are; starts simulated stand-ins where asked to."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from stages._hosts import convert_host, with_toolkit
from stages._invocation import Invocation
from stages._loading import load
from toolkit import inventory, paths
from toolkit.artefacts.hashing import digest_data
from toolkit.cann.host import ConvertHost
from toolkit.config.schema import BoardSettings, Config
from toolkit.errors import ConfigError, UsageError
from toolkit.inventory import Board
from toolkit.remote.address import Address, Limits
from toolkit.sim import SimBoard, Simulation, SimulationError


@dataclass(frozen=True)
class Target:
    """Boards that share one config: everything is built once for them."""

    name: str
    config: Config
    boards: tuple[Board, ...]

    @property
    def profile(self) -> BoardSettings:
        assert self.config.board is not None
        return self.config.board


@dataclass(frozen=True)
class Reached:
    """A board with an address to reach it at."""

    board: Board
    address: Address


def targets_of(invocation: Invocation) -> list[Target]:
    """The boards that the call selects, grouped by their configs. Raises UsageError when it selects none."""
    config = invocation.config
    if config.inventory is None:
        if config.board is None:
            raise UsageError(
                "no board is chosen",
                hint="+board=sim for simulated boards, +board=200dk for a dev kit, inventory=NAME for a fleet",
            )
        if config.hosts:
            raise UsageError("hosts: selects from an inventory", hint="give inventory=NAME too")
        if config.board.count > 1 and not config.simulate:
            raise UsageError("board.count: only simulated boards can be counted", hint="simulate=true, or inventory=")
        return [Target(config.board.profile, config, tuple(_boards_of(config.board)))]
    found = inventory_of(config)
    chosen = inventory.select([item for item in found if item.kind == "board"], config.hosts or "")
    if not chosen:
        raise UsageError(f"inventory={config.inventory}: it has no boards")
    groups: dict[tuple[str, str], list[Board]] = {}
    for board in chosen:
        overrides = json.dumps(dict(board.overrides), sort_keys=True, default=str)
        groups.setdefault((board.profile, overrides), []).append(board)
    kinds = [profile for profile, _ in groups]
    composed = {profile: _composed_for(invocation, profile) for profile in dict.fromkeys(kinds)}
    return [
        # Named by what it is, whatever order the boards stand in: plans and locks hold these names.
        Target(
            profile if overrides == "{}" or kinds.count(profile) == 1 else f"{profile}-{_short(overrides)}",
            _config_for(invocation, boards[0], composed[profile]),
            tuple(boards),
        )
        for (profile, overrides), boards in sorted(groups.items(), key=lambda group: (group[0][1] != "{}", group[0]))
    ]


def inventory_of(config: Config, default: str = "") -> list[Board]:
    """All machines of the call's inventory. ``default``: the profile of those that name none."""
    default = default or (config.board.profile if config.board else "")
    folders = [paths.base() / "inventory", paths.INVENTORY]
    return inventory.load(config.inventory or "", folders, profiles(), default, ssh_config=config.ssh.config)


def profiles() -> list[str]:
    """The board profiles there are: ours, and those in the folder of ``--config-dir``."""
    folders = [paths.CONF]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders += [Path(source.path) for source in sources if source.schema == "file"]
    names = {path.stem for folder in folders for path in (folder / "board").glob("*.yaml")}
    # That one is no kind of board: it chooses the demo's app, too.
    return sorted(names - {"sim"})


def _short(overrides: str) -> str:
    return digest_data(json.loads(overrides))[:6]


def _composed_for(invocation: Invocation, profile: str) -> DictConfig:
    """The call's config with this profile. Composing takes longer than all else: once for all boards of a kind."""
    mine = invocation.config.board is not None and invocation.config.board.profile == profile
    return invocation.compose([] if mine else [f"+board={profile}"])


def _config_for(invocation: Invocation, board: Board, composed: DictConfig) -> Config:
    """``composed`` with the board's overrides; what was typed wins over the inventory."""
    composed = copy.deepcopy(composed)
    typed = {item.split("=", 1)[0].lstrip("+") for item in invocation.overrides}
    OmegaConf.set_struct(composed, False)
    for key, value in board.overrides.items():
        if key not in typed:
            OmegaConf.update(composed, key, value, merge=True)
    try:
        return load(composed, invocation.renderer.show)
    except ConfigError as error:
        raise ConfigError(f"board {board.name}: {error}", hint=error.hint, problems=error.problems) from error


def _boards_of(profile: BoardSettings) -> Iterator[Board]:
    prefix = "sim" if profile.count > 1 else profile.profile
    for number in range(1, profile.count + 1):
        name = f"{prefix}-{number}" if profile.count > 1 else prefix
        yield Board(
            name=name,
            profile=profile.profile,
            host=profile.host or "",
            port=profile.port,
            user=profile.user,
            key_file=profile.key_file or "",
            password=profile.password or "",
            host_key=profile.host_key or "",
            jump=profile.jump or "",
            labels={},
            overrides={},
        )


def limits_of(config: Config) -> Limits:
    return Limits(**vars(config.ssh.limits))


@contextlib.contextmanager
def reach(invocation: Invocation, targets: list[Target], *, build_host: bool) -> Iterator[Places]:
    """Give every board an address; simulated boards live as long as the ``with`` block."""
    if not invocation.config.simulate:
        yield Places(
            {item.name: address_of(item, target) for target in targets for item in target.boards},
            {target.name: _real_host(target, invocation) for target in targets} if build_host else {},
        )
        return
    boards: list[SimBoard] = []
    hosts: dict[str, SimBoard] = {}
    kinds: dict[str, Target] = {}
    for target in targets:
        own = stand_ins(target)
        if build_host and target.name not in hosts:
            kinds[target.name], hosts[target.name] = _build_stand_in(invocation, target, own[0])
            # A board that converts is one of the boards, with ATC.
            own = [hosts[target.name] if item.name == hosts[target.name].name else item for item in own]
        boards += own
    root = paths.home() / "sim"
    try:
        with Simulation(_unique([*boards, *hosts.values()]), root) as simulation:
            places = {address.name: address for address in simulation.addresses}
            yield Places(
                {name: simulated_address(places[name], target) for target in targets for name in _names(target)},
                {
                    target.name: convert_host(
                        simulated_address(places[hosts[target.name].name], kinds[target.name]),
                        limits_of(target.config),
                        target.profile.root,
                        kinds[target.name].profile,
                        board=target.config.convert.host == "board",
                    )
                    for target in targets
                    if build_host
                },
            )
    except SimulationError as error:
        raise ConfigError(f"simulate: {error}") from error


@dataclass(frozen=True)
class Places:
    """Addresses of the boards by name, and the machine with ATC for each target by name."""

    boards: Mapping[str, Address]
    convert: Mapping[str, ConvertHost]


def stand_ins(target: Target) -> list[SimBoard]:
    """The simulated stand-ins of a target's boards."""
    return [_stand_in(item.name, target) for item in target.boards]


def _names(target: Target) -> list[str]:
    return [item.name for item in target.boards]


def _unique(boards: Any) -> list[SimBoard]:
    return list({item.name: item for item in boards}.values())


def _stand_in(name: str, target: Target, toolkit: bool = False) -> SimBoard:
    profile = target.profile
    return SimBoard(
        name=name,
        product=profile.product,
        soc_version=profile.soc_version,
        npu_name=profile.npu_name,
        chips=profile.chips,
        run_mode=profile.run_mode,
        memory_mb=profile.memory_mb,
        arch=profile.arch,
        cann_version=profile.cann.version,
        driver_version=profile.driver or "0",
        groups=tuple(profile.groups),
        user=profile.user or "root",
        toolkit=toolkit,
        interpreters=tuple(profile.interpreters),
        faults={} if toolkit else {name: value for name, value in profile.faults.items() if value is not None},
    )


def simulated_address(place: Any, target: Target) -> Address:
    return Address(
        name=place.name,
        host=place.host,
        port=place.port,
        user=place.user,
        key_file=str(place.key_file),
        host_key=place.host_key,
        known_hosts=(),
        ssh_config="",
        client=target.config.ssh.client,
        interpreters=tuple(target.profile.interpreters),
    )


def address_of(board: Board, target: Target) -> Address:
    profile, ssh = target.profile, target.config.ssh
    host = board.host or profile.host
    if not host:
        raise UsageError(
            f"{board.name}: the profile {profile.profile} has no default address", hint="give board.host=…"
        )
    return Address(
        name=board.name,
        host=host,
        port=board.port or profile.port,
        user=board.user or profile.user,
        key_file=board.key_file or profile.key_file or "",
        password=board.password or profile.password or "",
        host_key=board.host_key or profile.host_key or "",
        known_hosts=tuple(ssh.known_hosts),
        ssh_config=ssh.config,
        jump=board.jump or profile.jump or "",
        client=ssh.client,
        interpreters=tuple(profile.interpreters),
    )


def _build_stand_in(invocation: Invocation, target: Target, board: SimBoard) -> tuple[Target, SimBoard]:
    """The simulated machine with ATC that ``convert.host`` means, and what kind of machine it is."""
    wanted, version = target.config.convert.host, target.config.convert.cann_version
    if wanted == "board":
        return target, with_toolkit(board, version)
    if wanted in ("auto", "local"):
        name = f"build-{target.name}" + (f"-{version}" if version else "")
        return target, with_toolkit(_stand_in(name, target, toolkit=True), version)
    its = _inventory_host(invocation, target)
    return its, with_toolkit(_stand_in(f"build-{wanted}", its, toolkit=True), version)


def _inventory_host(invocation: Invocation, target: Target) -> Target:
    """The host of the inventory that ``convert.host`` names."""
    wanted = target.config.convert.host
    if target.config.inventory is None:
        raise UsageError(
            f"convert.host={wanted}: hosts stand in an inventory", hint="give inventory=NAME, or convert.host=local"
        )
    host = inventory.select(inventory_of(target.config, target.profile.profile), wanted)[0]
    # It is a machine of its own kind: its login, its folder and its CANN are not the board's.
    config = _config_for(invocation, host, _composed_for(invocation, host.profile))
    return Target(host.profile, config, (host,))


def _real_host(target: Target, invocation: Invocation) -> ConvertHost:
    """The machine with ATC as ``convert.host`` names it: this one, the board, or a host of the inventory."""
    config, profile = target.config, target.profile
    wanted = config.convert.host
    if wanted in ("auto", "local"):
        address = Address(name="this machine", host="local", client="local", interpreters=("python3",))
        return convert_host(address, limits_of(config), str(paths.home() / "convert"), profile, board=False)
    if wanted == "board":
        return convert_host(address_of(target.boards[0], target), limits_of(config), profile.root, profile, board=True)
    its = _inventory_host(invocation, target)
    address = address_of(its.boards[0], its)
    return convert_host(address, limits_of(its.config), its.profile.root, its.profile, board=False)


def local_atc(script: str) -> bool:
    """Is there an ``atc`` on this machine once ``script`` has been sourced?"""
    import subprocess

    answer = subprocess.run(
        ["bash", "-c", f"{script}\ncommand -v atc >/dev/null"], capture_output=True, check=False, env=dict(os.environ)
    )
    return answer.returncode == 0 or shutil.which("atc") is not None
