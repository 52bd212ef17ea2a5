"""Which CANN converts for each target: a part of what decides an om, so that another one converts again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stages import convert
from stages._fleet import Target, convert_stand_in, real_host
from stages._invocation import Invocation
from toolkit import paths
from toolkit.artefacts.store import write_atomically
from toolkit.cann.host import ConvertHost
from toolkit.cann.versions import holds
from toolkit.config.schema import BoardSettings
from toolkit.errors import RemoteError
from toolkit.ui.events import Emit, Event


def with_converters(
    invocation: Invocation, targets: Sequence[Target], emit: Emit, *, ask: bool = True
) -> list[Target]:
    """The targets with ``convert.cann_version`` filled in where it is not set. Warns of CANN versions, of boards and
    converters, that do not know the chip.

    A real machine is asked, over a connection of its own; one that does not answer is taken to have what it had the
    last time. With ``lock=`` nothing is converted, and nobody is asked; nor is anybody without ``ask``.
    """
    if invocation.config.lock:
        return list(targets)
    asked: dict[str, str] = {}
    found = []
    for target in targets:
        cann, profile = target.profile.cann, target.profile
        _warn(profile, "board.cann.version:", cann.version, emit)
        version = target.config.convert.cann_version or ""
        if not version and convert.needs_host(target.config):
            if invocation.config.simulate:
                version = convert_stand_in(invocation, target)
            else:
                host = real_host(target, invocation)
                if str(host.address) not in asked:
                    asked[str(host.address)] = _ask(host, emit) if ask else _known().get(str(host.address), "")
                version = asked[str(host.address)]
        if version:
            if version != cann.version:
                _warn(profile, "the converter's CANN", version, emit)
            settings = replace(target.config.convert, cann_version=version)
            target = replace(target, config=replace(target.config, convert=settings))
        found.append(target)
    return found


def _warn(profile: BoardSettings, which: str, version: str | None, emit: Emit) -> None:
    """A CANN that does not know the board's chip, as far as is known, is worth a word; somebody may know better."""
    cann = profile.cann
    ends = (f"since {cann.since}" if cann.since else "", f"before {cann.before}" if cann.before else "")
    known = " and ".join(end for end in ends if end)
    if version and known and not holds(cann, version):
        odd = f"{which} {version} is not among the versions that know an {profile.soc_version}"
        emit(Event("warning", f"{odd}: {known}"))


def _ask(host: ConvertHost, emit: Emit) -> str:
    """The CANN of a machine, "" where nobody knows."""
    known, name = _known(), str(host.address)
    try:
        version = host.version()
    except RemoteError as error:
        version = known.get(name, "")
        if version:
            emit(Event("warning", f"{error}: it is taken to have CANN {version}, as the last time"))
        return version
    if version and known.get(name) != version:
        _remembered().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_remembered(), json.dumps({**known, name: version}, indent=1, sort_keys=True).encode())
    # A machine that lost its toolkit: what was converted there is still good.
    return version or known.get(name, "")


def _remembered() -> Path:
    return paths.home() / "converters.json"


def _known() -> dict[str, str]:
    """Machine → the CANN that it had the last time."""
    try:
        return {str(name): str(version) for name, version in json.loads(_remembered().read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}
