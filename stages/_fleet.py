"""Which boards a call means, with which config each, and where they are; starts simulated stand-ins where asked to."""

from __future__ import annotations

import contextlib
import copy
import difflib
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError, safe_load

from stages._hosts import convert_host, with_toolkit
from stages._invocation import Invocation, selection
from stages._loading import load
from toolkit import inventory, paths
from toolkit.artefacts.hashing import digest_data
from toolkit.artefacts.lock import key_of
from toolkit.cann.host import ConvertHost
from toolkit.config.schema import BoardSettings, Config
from toolkit.config.store import wrong_value
from toolkit.errors import ConfigError, UsageError
from toolkit.inventory import Board
from toolkit.inventory.board import CONNECTION
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


def targets_of(invocation: Invocation) -> list[Target]:
    """The boards that the call selects, grouped by their configs. Raises UsageError when it selects none."""
    config = invocation.config
    if config.inventory is None:
        if config.hosts:
            raise UsageError("hosts: selects from an inventory", hint="give inventory=NAME too")
        if config.board is None:
            raise UsageError(
                "no board is chosen",
                hint="+board=sim for simulated boards, +board=200dk for a dev kit, inventory=NAME for a fleet",
            )
        if not config.board.soc_version:
            raise UsageError(
                f"board={config.board.profile}: a machine without a chip is no board",
                hint="write it under hosts: of an inventory, and give convert.host=NAME",
            )
        if config.board.count > 1 and not config.simulate and invocation.verb != "sim":
            raise UsageError("board.count: only simulated boards can be counted", hint="simulate=true, or inventory=")
        return [Target(config.board.profile, config, tuple(_boards_of(config.board)))]
    found = inventory_of(config)
    chosen = inventory.select([item for item in found if item.kind == "board"], config.hosts or "")
    if not chosen:
        raise UsageError(f"inventory={config.inventory}: it has no boards")
    return _grouped(invocation, _with_typed(chosen, invocation))


def machines_of(invocation: Invocation) -> list[Target]:
    """Like :func:`targets_of`, and the machines under ``hosts:`` that the call names or would use.

    Those are the ones that ``hosts=`` names, that of ``convert.host``, and that of ``train.remote.host``; all of them
    where an inventory has nothing else.
    """
    config = invocation.config
    if config.inventory is None:
        return targets_of(invocation)
    found = inventory_of(config)
    chosen = inventory.select(found, config.hosts or "")
    used = {config.convert.host, config.train.remote.host}
    if not chosen:
        used = {item.name for item in found}
    boards = [item for item in chosen if item.kind == "board"]
    hosts = [item for item in found if item.kind == "host" and (item in chosen or item.name in used)]
    # What is typed as board.…= is meant for boards.
    targets = _grouped(invocation, _with_typed(boards, invocation)) if boards else []
    return targets + [replace(target, name=f"host-{target.name}") for target in _grouped(invocation, hosts)]


def _grouped(invocation: Invocation, machines: list[Board]) -> list[Target]:
    """``machines`` of one kind, boards or hosts. Raises ConfigError with all that is wrong with their settings."""
    groups: dict[tuple[str, str], list[Board]] = {}
    for item in machines:
        overrides = json.dumps(dict(item.overrides), sort_keys=True, default=str)
        groups.setdefault((item.profile, overrides), []).append(item)
    kinds = [profile for profile, _ in groups]
    first = {group[0].profile: group[0] for group in groups.values()}
    composed = {profile: _composed_for(invocation, machine) for profile, machine in first.items()}
    targets: list[Target] = []
    problems: list[str] = []
    for (profile, overrides), boards in sorted(groups.items(), key=lambda group: (group[0][1] != "{}", group[0])):
        # Named by what it is, whatever order the boards stand in: plans and locks hold these names.
        name = profile if overrides == "{}" or kinds.count(profile) == 1 else f"{profile}-{_short(overrides)}"
        try:
            targets.append(Target(name, _config_for(invocation, boards[0], composed[profile]), tuple(boards)))
        except ConfigError as error:
            problems += [_placed(problem, boards) for problem in error.problems or [str(error)]]
    if problems:
        count = f"{len(problems)} settings of boards are wrong"
        raise ConfigError(problems[0] if len(problems) == 1 else count, problems=problems)
    return targets


def _placed(problem: str, boards: list[Board]) -> str:
    """A problem of boards that share their settings, with the file and line that it comes from."""
    first, key = boards[0], problem.split(":", 1)[0]
    more = f" and {len(boards) - 1} more" if len(boards) > 1 else ""
    return f"{first.lines.get(key, first.place)}: {first.name}{more}: {problem}"


def _with_typed(boards: list[Board], invocation: Invocation) -> list[Board]:
    """The boards without what was typed as ``board.…=``, which wins over their entries; refuses what makes no
    sense there."""
    typed = {key_of(item) for item in invocation.overrides}
    for key in ("board.profile", "board.count"):
        if key in typed:
            raise UsageError(
                f"{key}: an inventory says which boards there are, and of which profile", hint="give +board=… alone"
            )
    for key in ("board.host", "board.port", "board.host_key"):
        if key in typed and len(boards) > 1:
            raise UsageError(
                f"{key}: {len(boards)} boards are selected, and each has its own", hint="hosts=NAME selects one of them"
            )
    empty: dict[str, Any] = {
        name: 0 if name == "port" else "" for name in CONNECTION if f"board.{name}" in typed
    }
    return [replace(board, **empty) for board in boards] if empty else boards


def inventory_of(config: Config) -> list[Board]:
    """All machines of the call's inventory; boards that name no profile are of ``+board=``'s."""
    default = config.board.profile if config.board else ""
    folders = [paths.base() / "inventory", paths.INVENTORY]
    files = _profile_files()
    return inventory.load(
        config.inventory or "",
        folders,
        sorted(files),
        default,
        ssh_config=config.ssh.config,
        addresses={} if config.simulate else _addresses(files),
        wrong=wrong_value,
    )


def _profile_files() -> dict[str, Path]:
    """The board profiles there are, by name: ours, and those in the folder of ``--config-dir``."""
    folders = [paths.CONF]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders += [Path(source.path) for source in sources if source.schema == "file"]
    found = {path.stem: path for folder in folders for path in (folder / "board").glob("*.yaml")}
    found.pop("sim", None)  # that one is no kind of board: it chooses the demo's app, too
    return found


def _addresses(files: Mapping[str, Path]) -> dict[str, str]:
    """The profiles' default addresses, of those that have one."""
    found = {}
    for name, path in files.items():
        with contextlib.suppress(OSError, ValueError, YAMLError):  # whoever composes it is told what is wrong with it
            content = safe_load(path.read_text("utf-8"))
            if isinstance(content, Mapping) and isinstance(content.get("host"), str):
                found[name] = content["host"]
    return found


def _short(overrides: str) -> str:
    return digest_data(json.loads(overrides))[:6]


def _composed_for(invocation: Invocation, machine: Board) -> DictConfig:
    """The call's config with this machine's profile. Composing takes longer than all else: once for all of a kind."""
    if invocation.config.board is not None and invocation.config.board.profile == machine.profile:
        return invocation.compose([])
    # A build host is none of the boards that board.…= was typed for.
    typed_too = invocation.of_boards if machine.kind == "board" else []
    return invocation.compose([f"+board={machine.profile}", *typed_too])


def _config_for(invocation: Invocation, board: Board, composed: DictConfig) -> Config:
    """``composed`` with the board's overrides; what was typed wins over the inventory."""
    composed = copy.deepcopy(composed)
    typed = {key_of(item) for item in invocation.overrides}
    OmegaConf.set_struct(composed, False)
    for key, value in board.overrides.items():
        if key not in typed:
            OmegaConf.update(composed, key, value, merge=True)
    return load(composed, invocation.renderer.show)


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
def reach(
    invocation: Invocation, targets: list[Target], *, build_host: bool, boards_too: bool = True
) -> Iterator[Places]:
    """Give every board an address; simulated boards live as long as the ``with`` block.

    Without ``boards_too`` real boards may have none.
    """
    if not invocation.config.simulate:
        yield Places(
            {
                item.name: _checked(invocation, item, target)
                for target in targets
                for item in (target.boards if boards_too else ())
            },
            {target.name: real_host(target, invocation) for target in targets} if build_host else {},
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
                {
                    name: simulated_address(places[name], target, selection(invocation, [name]))
                    for target in targets
                    for name in _names(target)
                },
                {
                    target.name: convert_host(
                        simulated_address(places[hosts[target.name].name], kinds[target.name]),
                        limits_of(target.config),
                        target.profile.root,
                        with_cann(kinds[target.name].profile, target.profile),
                        board=target.config.convert.host == "board",
                        wanted=target.config.convert.cann_version,
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
    return [_stand_in(item.name, target, toolkit=item.kind == "host", user=item.user) for item in target.boards]


def _names(target: Target) -> list[str]:
    return [item.name for item in target.boards]


def _unique(boards: Any) -> list[SimBoard]:
    return list({item.name: item for item in boards}.values())


def _stand_in(name: str, target: Target, toolkit: bool = False, user: str = "") -> SimBoard:
    """A simulated board of the target's kind; ``user``: the login that the inventory gives it, if it gives one."""
    profile = target.profile
    try:
        return SimBoard(
            name=name,
            product=profile.product,
            soc_version=profile.soc_version,
            npu_name=profile.npu_name,
            chips=profile.chips,
            run_mode=profile.run_mode,
            memory_mb=profile.memory_mb,
            arch=profile.arch,
            cann_version=profile.cann.version or SimBoard.cann_version,
            driver_version=profile.driver or "0",
            groups=tuple(profile.groups),
            user=user or profile.user or "root",
            toolkit=toolkit,
            python=_interpreter(profile.python),
            interpreters=tuple(profile.interpreters),
            faults={} if toolkit else {name: value for name, value in profile.faults.items() if value is not None},
        )
    except SimulationError as error:
        raise ConfigError(f"simulate: {error}") from error


def _interpreter(wanted: str | None) -> str:
    """The interpreter of this machine that ``board.python`` names; its own name, whatever it is a link to, says which
    virtual environment it belongs to."""
    if not wanted:
        return SimBoard.python
    found = shutil.which(os.path.expanduser(wanted))
    if not found:
        raise ConfigError(
            f"board.python: this machine has no program {wanted}", hint="name or path of a Python interpreter"
        )
    return str(Path(found).absolute())


def simulated_address(place: Any, target: Target, words: str = "") -> Address:
    """``words``: see :class:`Address`."""
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
        words=words,
    )


def _checked(invocation: Invocation, board: Board, target: Target) -> Address:
    """A board's address. What is wrong with it is an error of the call; inventories were looked at when they were
    read."""
    address = address_of(board, target, selection(invocation, [board.name]))
    if invocation.config.inventory is None:
        if address.host_key:
            from toolkit.remote.hostkeys import parse_pin

            parse_pin(address.host_key, address.name)
        if address.client == "fabric":
            from toolkit.remote.route import route  # paramiko, which stages that only build can do without

            route(address)
    return address


def address_of(board: Board, target: Target, words: str = "") -> Address:
    """``words``: see :class:`Address`; where the call's are not at hand, those that select it in its inventory."""
    profile, ssh = target.profile, target.config.ssh
    if not words and target.config.inventory:
        words = shlex.join([f"inventory={target.config.inventory}", f"hosts={board.name}"])
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
        words=words,
    )


def _build_stand_in(invocation: Invocation, target: Target, board: SimBoard) -> tuple[Target, SimBoard]:
    """The simulated machine with ATC that ``convert.host`` means, and what kind of machine it is."""
    wanted, version = target.config.convert.host, target.config.convert.cann_version
    if wanted == "board":
        return target, with_toolkit(board, version)
    if wanted in ("auto", "local"):
        other = version if version != target.profile.cann.version else None
        name = f"build-{target.name}" + (f"-{other}" if other else "")
        # Another machine than the board: what board.python names may well lack what ATC needs.
        return target, with_toolkit(replace(_stand_in(name, target, toolkit=True), python=SimBoard.python), version)
    its = _inventory_host(invocation, target)
    stand_in = _stand_in(f"build-{wanted}", its, toolkit=True, user=its.boards[0].user)
    return its, with_toolkit(stand_in, version or its.profile.cann.version or target.profile.cann.version)


def convert_stand_in(invocation: Invocation, target: Target) -> str:
    """The CANN of the simulated machine that converts."""
    return _build_stand_in(invocation, target, _stand_in(target.name, target))[1].cann_version


def machine_named(config: Config, key: str, wanted: str) -> Board:
    """The machine of the inventory that the setting ``key`` names. UsageError where there is none."""
    if config.inventory is None:
        raise UsageError(f"{key}={wanted}: hosts stand in an inventory", hint="give inventory=NAME")
    found = inventory_of(config)
    for item in found:
        if item.name == wanted:
            return item
    # Machines under hosts: first: one of them is meant, most likely.
    names = [item.name for item in sorted(found, key=lambda item: item.kind != "host")]
    near = difflib.get_close_matches(wanted, names, n=1)
    raise UsageError(
        f"{key}={wanted}: there is no such machine in inventory={config.inventory}",
        hint=f"did you mean {near[0]}?" if near else f"there are: {', '.join(names[:8])}",
    )


def _inventory_host(invocation: Invocation, target: Target) -> Target:
    """The host of the inventory that ``convert.host`` names."""
    wanted = target.config.convert.host
    if wanted not in invocation.build_hosts:
        host = machine_named(target.config, "convert.host", wanted)
        # It is a machine of its own kind: its login, its folder and its CANN are not the board's.
        config = _config_for(invocation, host, _composed_for(invocation, host))
        invocation.build_hosts[wanted] = Target(host.profile, config, (host,))
    its: Target = invocation.build_hosts[wanted]
    return its


def real_host(target: Target, invocation: Invocation) -> ConvertHost:
    """The machine with ATC as ``convert.host`` names it: this one, the board, or a host of the inventory."""
    config, profile = target.config, target.profile
    wanted, version = config.convert.host, config.convert.cann_version
    if wanted in ("auto", "local"):
        address = Address(name="this machine", host="local", client="local", interpreters=("python3",))
        root = str(paths.home() / "convert")
        return convert_host(address, limits_of(config), root, profile, board=False, wanted=version)
    if wanted == "board":
        address = address_of(target.boards[0], target, selection(invocation, [target.boards[0].name]))
        return convert_host(address, limits_of(config), profile.root, profile, board=True, wanted=version)
    its = _inventory_host(invocation, target)
    address = address_of(its.boards[0], its)
    profile = with_cann(its.profile, profile)
    return convert_host(address, limits_of(its.config), profile.root, profile, board=False, wanted=version)


def with_cann(profile: BoardSettings, board: BoardSettings | None) -> BoardSettings:
    """A build host whose CANN nobody told: the generation of the boards' is looked for first."""
    if profile.cann.version or board is None:
        return profile
    return replace(profile, cann=replace(profile.cann, version=board.cann.version))


def local_atc(script: str) -> bool:
    """Is there an ``atc`` on this machine once ``script`` has been sourced?"""
    import subprocess

    if shutil.which("atc"):
        return True
    command = ["bash", "-c", f"{script}\ncommand -v atc >/dev/null"]
    try:
        # A script of somebody's that asks or hangs must not hold us up.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
