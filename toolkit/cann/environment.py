"""What makes CANN usable in a shell: the text of ``env.sh`` and of the block in ``~/.bashrc``."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.cann.versions import choose
from toolkit.config.schema import CannSettings, EnvironmentRange
from toolkit.errors import ConfigError


def environment_script(cann: CannSettings) -> str:
    """Shell text that makes ``import acl`` work on a board with this CANN. Raises ConfigError without a fitting range."""
    return _script(cann.environments, cann.version, "board.cann.environments")


def toolkit_script(cann: CannSettings) -> str:
    """Shell text that puts ``atc`` on PATH on a host with this CANN's toolkit."""
    return _script(cann.toolkits, cann.version, "board.cann.toolkits")


def _script(ranges: Sequence[EnvironmentRange], version: str, key: str) -> str:
    chosen = choose(ranges, version)
    if chosen is None:
        raise ConfigError(
            f"{key}: none of its ranges holds CANN {version}", hint="set board.cann.version, or add a range"
        )
    lines = list(chosen.lines)
    if chosen.set_env:
        # "$HOME/…" must be expanded on the board; the candidates come from the profile, not from a board.
        candidates = " ".join(f'"{path}"' for path in chosen.set_env)
        lines += [
            f"for script in {candidates}; do",
            '    if [ -f "$script" ]; then . "$script"; break; fi',
            "done",
        ]
    return "\n".join(lines) + "\n"
