"""What makes CANN usable in a shell: the text of ``env.sh`` and of the block in ``~/.bashrc``.

POSIX shell, since the login shell of a board may be dash or BusyBox's. Paths may hold variables such as
``$HOME``, which the board expands; anything else that a shell would act on inside double quotes is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolkit.cann.versions import choose
from toolkit.config.schema import CannSettings, EnvironmentRange
from toolkit.errors import ConfigError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Inside double quotes: no quote, command substitution, escape or line break; $NAME is wanted.
_QUOTABLE = re.compile(r"(?!.*\$\()[^\"`\\\n\r\0]+\Z")


# atc wants the driver's library. On a build host there is no driver, but the toolkit has a stub to link against, which
# is enough for it (seen in public reports: CANN 7.0 and 8.0 below devlib; hicann/runtime: devlib/linux/<arch>). Behind
# all else, and only without a chip: the runtime must never load it there.
_STUB = """\
_cann=${ASCEND_TOOLKIT_HOME:-${ASCEND_HOME_PATH:-}}
if [ -n "$_cann" ] && [ ! -e /dev/davinci_manager ]; then
    _arch=$(uname -m)
    for _stub in "$_cann/$_arch-linux/devlib/linux/$_arch" "$_cann/$_arch-linux/devlib" "$_cann/devlib/linux/$_arch" \\
        "$_cann/devlib" "$_cann/runtime/lib64/stub"; do
        if [ -f "$_stub/libascend_hal.so" ]; then
            export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$_stub"; break
        fi
    done
fi
unset _cann _arch _stub"""


def environment_script(cann: CannSettings) -> str:
    """Shell text that makes ``import acl`` work on a board with this CANN.

    :raises ConfigError: no range holds its version, or a path cannot stand in a shell script.
    """
    return _script(cann.environments, cann.version, "board.cann.environments")


def toolkit_script(cann: CannSettings) -> str:
    """Shell text that puts ``atc`` on PATH on a host with this CANN's toolkit (raises as the above)."""
    return _script(cann.toolkits, cann.version, "board.cann.toolkits")


def converter_script(cann: CannSettings) -> str:
    """Shell text that puts ``atc`` on PATH on a machine whose CANN may be another than the board's.

    What is there decides: a set_env.sh of any generation, that of the board's own first; the exports by hand
    that CANN had before only where there is none.
    """
    key = "board.cann.toolkits"
    chosen = choose(cann.toolkits, cann.version)
    ranges = sorted(cann.toolkits, key=lambda item: item is not chosen)
    scripts = list(dict.fromkeys(path for item in ranges for path in item.set_env))
    by_hand = next((item for item in ranges if item.paths), None)
    if not scripts:
        return toolkit_script(cann)
    lines = _sourcing(scripts, key)
    if by_hand is not None:
        lines += ['if [ -z "$_cann" ]; then', *_exports(by_hand, key), *by_hand.lines, "fi"]
    lines += [_STUB]
    complaint = f"no atc on this machine: none of the set_env.sh in {key} is there"
    lines += [f'command -v atc >/dev/null || echo "{complaint}" >&2']
    return "\n".join(lines) + "\n"


def _script(ranges: Sequence[EnvironmentRange], version: str, key: str) -> str:
    chosen = choose(ranges, version)
    if chosen is None:
        raise ConfigError(
            f"{key}: none of its ranges holds CANN {version}", hint="set board.cann.version, or add a range"
        )
    lines = _exports(chosen, key) + list(chosen.lines)
    if chosen.set_env:
        complaint = f"CANN {version}: none of the set_env.sh in {key} is on this machine"
        # Where nothing else leads to CANN, what follows will fail: say why.
        lines += [*_sourcing(chosen.set_env, key, "" if chosen.paths else complaint), "unset _cann"]
    return "\n".join(lines) + "\n"


def _exports(chosen: EnvironmentRange, key: str) -> list[str]:
    lines = [f"export {_name(name, key)}={_quoted(value, key)}" for name, value in chosen.variables.items()]
    for name, folders in chosen.paths.items():
        joined = _quoted(":".join(folders), key)[:-1]
        # No empty entry where the variable was empty: that would mean the working folder.
        lines.append(f'export {_name(name, key)}={joined}${{{name}:+:${name}}}"')
    return lines


def _sourcing(scripts: Sequence[str], key: str, complaint: str = "") -> list[str]:
    """Source the first of ``scripts`` that exists; afterwards ``$_cann`` is that one, or empty."""
    candidates = " ".join(_quoted(path, key) for path in scripts)
    lines = [f'for _cann in {candidates} ""; do', '    if [ -f "$_cann" ]; then . "$_cann"; break; fi']
    if complaint:
        lines.append(f'    if [ -z "$_cann" ]; then echo "{complaint}" >&2; fi')
    return [*lines, "done"]


def _name(name: str, key: str) -> str:
    if not _VARIABLE.match(name):
        raise ConfigError(f"{key}: {name!r} is not a variable's name", hint="letters, digits and _")
    return name


def _quoted(text: str, key: str) -> str:
    if not _QUOTABLE.match(text):
        raise ConfigError(
            f"{key}: {text!r} cannot stand in a shell script",
            hint="no quotes, backslashes, backquotes, $( or line breaks",
        )
    return f'"{text}"'
