"""Machines that are no targets: where ATC runs, and their simulated stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from toolkit.cann.environment import converter_script
from toolkit.cann.host import LOW_MEMORY, LOW_MEMORY_MB, ConvertHost
from toolkit.config.schema import BoardSettings, Config
from toolkit.remote.address import Address, Limits
from toolkit.sim import SimBoard


def convert_host(
    address: Address, limits: Limits, root: str, profile: BoardSettings, *, board: bool, wanted: str | None = None
) -> ConvertHost:
    """ATC on the machine at ``address``, of ``profile``'s kind; ``board``: it is one of the boards itself.

    ``wanted``: the CANN that it must have.
    """
    environment = converter_script(profile.cann)
    warnings: tuple[str, ...] = ()
    if board and profile.run_mode == "RC" and 0 < profile.memory_mb <= LOW_MEMORY_MB:
        environment += LOW_MEMORY
        warnings = (
            f"convert.host=board: {address.name} has {profile.memory_mb} MB, so ATC compiles with one process; "
            "a build host is faster, and the only way for large networks",
        )
    return ConvertHost(address, limits, root, environment, warnings, wanted or "")


def converting_cann(config: Config) -> Mapping[str, str]:
    """The CANN of the machine that converts, as far as it is known, among the tools that decide a stage's result."""
    return {"cann": config.convert.cann_version or config.board.cann.version} if config.board else {}


def with_toolkit(board: SimBoard, cann_version: str | None) -> SimBoard:
    """A simulated machine as ``board`` with ATC on it, of another CANN if one is given."""
    return replace(board, toolkit=True, cann_version=cann_version or board.cann_version)
