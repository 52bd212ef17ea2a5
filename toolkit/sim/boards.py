"""The folder of a simulated board: its disk, its commands, its description.

Below the root that the caller names:

    .shared/id_ed25519        the key that logs in to every board
    .shared/modules-<digest>  the simulated acl, atc and npu-smi
    .shared/lock, server.log  held and written by the server
    <board>/home              the board's disk: stays from run to run
    <board>/bin               the commands of the board that are not the machine's own
    <board>/board.json        what ASCEND_SIM_BOARD names
    <board>/state             counters and logs of the simulated device
    <board>/ssh_host_ed25519_key
    <board>-<digest>          the same of a board that programs run on without SSH: see local.py

Everything except ``home`` may be thrown away; what the simulator puts into the home (CANN) is refreshed at
each start, and nothing else in it is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath

from toolkit.sim import install
from toolkit.sim.spec import SimBoard, SimulationError

MODULES = Path(__file__).resolve().parent / "cann" / "python"

# The beginning of Ubuntu's own file. The early return is what makes `ssh board command` miss lines added
# below it.
_BASHRC = """# ~/.bashrc: executed by bash(1) for non-login shells.

# If not running interactively, don't do anything
case $- in
    *i*) ;;
      *) return;;
esac

HISTCONTROL=ignoreboth
HISTSIZE=1000
PS1='\\u@{name}:\\w\\$ '

alias ll='ls -alF'
"""

_PROFILE = """# ~/.profile: executed by the command interpreter for login shells.

if [ -n "$BASH_VERSION" ]; then
    if [ -f "$HOME/.bashrc" ]; then
        . "$HOME/.bashrc"
    fi
fi

if [ -d "$HOME/bin" ] ; then
    PATH="$HOME/bin:$PATH"
fi
"""


@dataclass(frozen=True)
class Folder:
    """A board's prepared folder. ``activate`` is a shell line that sets up its CANN environment."""

    board: SimBoard
    path: Path
    activate: str

    @property
    def home(self) -> Path:
        """The board's home folder."""
        return self.path / "home"

    @property
    def description(self) -> Path:
        """The file that ASCEND_SIM_BOARD names."""
        return self.path / "board.json"

    def environment(self) -> dict[str, str]:
        """Return the environment that a login sets, and nothing of this process's own but ``ACL_SIM_*``."""
        return {
            "HOME": str(self.home),
            "USER": self.board.user,
            "LOGNAME": self.board.user,
            "SHELL": login_shell(),
            "PATH": f"{self.path / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "ASCEND_SIM_BOARD": str(self.description),
            # The simulator's own switches are the user's, not the board's.
            **{name: value for name, value in os.environ.items() if name.startswith("ACL_SIM_")},
        }

    def describe(self, board: SimBoard) -> None:
        """Write the description, as whole file or not at all: programs on the board may be reading it."""
        text = json.dumps(board.description(self.path / "state"), indent=1, sort_keys=True)
        _write(self.description, text + "\n", 0o644)


def login_shell() -> str:
    """Return the shell that runs commands: bash, as on real boards, or sh where there is no bash."""
    return next((shell for shell in ("/bin/bash", "/usr/bin/bash") if os.access(shell, os.X_OK)), "/bin/sh")


def shared(root: Path) -> Path:
    """Return the folder of what all boards below ``root`` share, made if it is missing."""
    folder = root / ".shared"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SimulationError(f"cannot make the boards' folder {root}: {error.strerror}") from error
    return folder


def check_root(root: Path) -> Path:
    """Return ``root`` as an absolute path. Raises SimulationError where boards could not work in it."""
    path = root.expanduser().absolute()
    if ":" in str(path) or "\n" in str(path):
        raise SimulationError(
            f"boards cannot live in {path}: PATH cannot hold a name with ':'; choose another"
        )
    return path


def prepare(board: SimBoard, root: Path, modules: Path, name: str = "") -> Folder:
    """Make or refresh the folder of ``board`` below ``root`` and return it; ``name``: not the board's own.

    Safe to repeat while programs run on the board, and from several processes: files are written only where
    they differ, whole or not at all.
    """
    path = root / (name or board.name)
    home = path / "home"
    for needed in (home, path / "bin", path / "state"):
        needed.mkdir(parents=True, exist_ok=True)
    with open(path / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file, text in ((".bashrc", _BASHRC.replace("{name}", board.name)), (".profile", _PROFILE)):
            if not (home / file).exists():
                _write(home / file, text, 0o644)
        layout = install.plan(board, home, modules)
        _refresh(path / "installed.json", home, layout)
        _commands(path, board, modules)
        folder = Folder(board, path, layout.activate)
        folder.describe(board)
    return folder


def install_modules(root: Path) -> Path:
    """Return the copy of the simulated CANN's Python modules below ``root``, made if it is missing.

    One copy for all boards below a root, in a folder named by its content, with links to it in the homes:
    editing the simulator does not change boards that are running, a new version replaces the old one at the
    next start, and 64 boards cost a few links each and compile the modules once, not 64 times.
    """
    sources = sorted(
        path for path in MODULES.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.relative_to(MODULES).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    target = shared(root) / f"modules-{digest.hexdigest()[:16]}"
    if not target.exists():
        new = target.with_name(f"{target.name}.{os.getpid()}.new")
        for path in sources:
            copy = new / path.relative_to(MODULES)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        new.mkdir(parents=True, exist_ok=True)
        try:
            new.rename(target)
        except OSError:  # another process was quicker: its copy has the same name, so the same content
            shutil.rmtree(new, ignore_errors=True)
    return target


def forget_old_modules(root: Path, current: Path) -> None:
    """Remove copies of other versions of the simulator. Only for whoever holds the lock of ``root``."""
    for old in shared(root).glob("modules-*"):
        if old != current:
            shutil.rmtree(old, ignore_errors=True)


def _commands(path: Path, board: SimBoard, modules: Path) -> None:
    """Write the board's own commands: the interpreters and, where it has a chip, npu-smi."""
    python = shlex.quote(board.python)
    old = f"/home/{board.user}/"
    # Lines copied from a tutorial name the real home. Where this machine has no such folder, it means this
    # one.
    sed = shlex.quote(f"s|{old}|{re.sub(r'([&|])', lambda m: chr(92) + m[0], str(path / 'home'))}/|g")
    interpreter = (
        "#!/bin/sh\n"
        f'case "$PYTHONPATH:$LD_LIBRARY_PATH" in *{old}*)\n'
        f"    if [ ! -d {old} ]; then\n"
        f'        PYTHONPATH=$(printf %s "$PYTHONPATH" | sed {sed})\n'
        f'        LD_LIBRARY_PATH=$(printf %s "$LD_LIBRARY_PATH" | sed {sed})\n'
        "    fi;;\n"
        "esac\n"
        f'exec {python} "$@"\n'
    )
    commands = dict.fromkeys(board.interpreters, interpreter)
    if board.chips:
        commands["npu-smi"] = _npu_smi(path, board, modules)
    for stale in set(os.listdir(path / "bin")) - set(commands):
        (path / "bin" / stale).unlink()
    for name, text in commands.items():
        _write(path / "bin" / name, text, 0o755)


def _npu_smi(path: Path, board: SimBoard, modules: Path) -> str:
    """The driver's tool; a machine without a chip has no driver."""
    python = shlex.quote(board.python)
    return (
        "#!/bin/sh\n"
        f"export PYTHONPATH={shlex.quote(str(modules))}\n"
        f"export ASCEND_SIM_BOARD={shlex.quote(str(path / 'board.json'))}\n"
        f"exec {python} -c '{install.RUN_MODULE.format(module='ascend_sim.npu_smi')}' \"$@\"\n"
    )


def _refresh(record: Path, home: Path, layout: install.Install) -> None:
    """Bring the CANN in ``home`` to ``layout``; what an earlier one left and this one has not is removed.

    Any version may follow any other: where one has a folder and the next a link of that name, what a person
    put into that folder is kept beside it (``<name>.kept``).
    """
    wanted = sorted({*layout.files, *layout.links, *layout.folders})
    try:
        before = [str(name) for name in json.loads(record.read_text())]
    except (OSError, ValueError):
        before = []
    for name in sorted(set(before) - set(wanted), reverse=True):  # a folder after what is in it
        _remove(home, name)
    # Each folder once, parents first: most of the time that a new board takes is spent on folders.
    parents = {above for name in wanted for above in PurePath(name).parents}
    parents |= {PurePath(name) for name in layout.folders}
    for parent in sorted(parents):
        if not (home / parent).is_dir():
            _make_way(home / parent)
            (home / parent).mkdir()
    for name, (text, mode) in layout.files.items():
        if (home / name).is_dir():
            _make_way(home / name)
        _write(home / name, text, mode)
    for name, target in layout.links.items():
        if not (home / name).is_symlink():
            _make_way(home / name)
        _link(home / name, target)
    if before != wanted:
        _write(record, json.dumps(wanted), 0o644)


def _remove(home: Path, name: str) -> None:
    """Remove what an earlier version installed as ``name``, and the folders that are empty without it."""
    path = home / name
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
            if path.suffix == ".py":
                shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
        for folder in path.parents:
            if folder == home:
                break
            folder.rmdir()  # ends at the first one that is not empty


def _make_way(path: Path) -> None:
    """Let there be nothing at ``path``: empty folders go, anything else is a person's and kept beside it."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    kept = path.with_name(f"{path.name}.kept")
    number = 1
    while os.path.lexists(kept):
        number += 1
        kept = path.with_name(f"{path.name}.kept{number}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(kept)


def _write(path: Path, text: str, mode: int) -> None:
    """Write ``path`` unless it holds ``text`` already: beside it, then renamed over it. Needs its folder."""
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return
    except FileNotFoundError:
        pass
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    with open(new, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
        stream.write(data)
    new.replace(path)


def _link(path: Path, target: str) -> None:
    """Make the symbolic link ``path`` point to ``target``; replaces another link in one step."""
    if path.is_symlink() and os.readlink(path) == target:
        return
    with contextlib.suppress(FileExistsError):
        path.symlink_to(target)
        return
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    new.symlink_to(target)
    new.replace(path)
