"""The CANN files that a simulated board has in its home, by generation.

Three generations put them in different places (see "Boards and SSH" in docs/simulator.md for the sources):

* up to 5.0.3: ``~/Ascend/{acllib,runtime,pyACL}``, no set_env.sh; ATC needs the "five exports";
* 5.0.4 to 8.3: ``~/Ascend/ascend-toolkit/set_env.sh`` and ``latest/``, or ``~/Ascend/nnrt/`` without ATC;
* from 8.5: ``~/Ascend/cann`` → ``cann-<version>``.

A real board installed by root has the same trees below /usr/local/Ascend.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.sim.spec import SimBoard

#: Runs a module of the simulated CANN without the working folder on sys.path: a picture folder that happens
#: to hold a ``types.py`` must not break the tool.
RUN_MODULE = (
    "import runpy, sys; sys.path[:] = [p for p in sys.path if p]; "
    'sys.argv[0] = "{module}"; runpy.run_module("{module}", run_name="__main__")'
)

_ATC = """#!/bin/bash
# Like the real wrapper: find the package, put its libraries and modules in front, run the compiler.
PKG_PATH="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
export LD_LIBRARY_PATH="${PKG_PATH}/lib64:${LD_LIBRARY_PATH}"
# set_env.sh leaves a colon at the end, which Python takes for the working folder.
export PYTHONPATH="${PKG_PATH}/python/site-packages${PYTHONPATH:+:${PYTHONPATH%:}}"
exec python3 -c '@RUN@' "$@"
""".replace("@RUN@", RUN_MODULE.format(module="ascend_sim.atc"))

# atc.bin is linked with the driver's library. Where no driver is installed, the loader must find the stub.
_NO_DRIVER = """found=
IFS=:
for folder in $LD_LIBRARY_PATH; do
    if [ -f "$folder/libascend_hal.so" ]; then found=1; fi
done
unset IFS
if [ -z "$found" ]; then
    echo "${PKG_PATH}/bin/atc.bin: error while loading shared libraries: libascend_hal.so:" \\
        "cannot open shared object file: No such file or directory" >&2
    exit 127
fi
"""

# acl.so of the early CANN lay in a folder named acl, and PYTHONPATH named that folder; later ones name its
# parent.
_ACL_BESIDE = """# On PYTHONPATH stands this folder or the one above it: the module is the same.
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
del sys.modules[__name__]
import acl  # noqa: E402,F401
"""

_LIBRARY = "A simulated board has no libraries of its own: the module acl runs on ONNX Runtime.\n"


@dataclass
class Install:
    """The CANN of one board: ``files`` and ``links`` relative to the home, and how a shell gets its
    environment.

    ``files`` maps a path to text and mode, ``links`` a path to where it points. ``activate`` is a line of
    POSIX shell that sets the whole environment (with ATC where the board has it).
    """

    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    activate: str = ""

    def text(self, path: str, content: str, mode: int = 0o644) -> None:
        """Add a file."""
        self.files[path] = (content, mode)


def generation(cann_version: str) -> str:
    """Return "acllib", "toolkit" or "cann": which layout CANN ``cann_version`` has.

    Versions 20.x and 21.x are older than 5.0: CANN counted years until 2021.
    """
    numbers = [int(part) for part in re.findall(r"\d+", cann_version.split("alpha")[0].split("RC")[0])]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    if major >= 20 or (major, minor, patch) < (5, 0, 4):
        return "acllib"
    return "toolkit" if (major, minor) < (8, 5) else "cann"


def plan(board: SimBoard, home: Path, modules: Path) -> Install:
    """Return what ``board``'s CANN puts into ``home``; ``modules`` holds ``acl`` and ``ascend_sim``."""
    install = Install()
    which = generation(board.cann_version)
    if board.chips:
        _driver(install, board)
    if which == "acllib":
        _acllib(install, modules)
        install.activate = _acllib_exports(home)
        if board.toolkit:
            _compiler(install, board, "Ascend/ascend-toolkit/latest", modules)
            install.links["Ascend/ascend-toolkit/latest/atc"] = "compiler"
            _info(install, board, home, f"Ascend/ascend-toolkit/latest/{board.arch}-linux", "toolkit")
            install.activate += "; " + _five_exports(home)
        return install
    if board.soc_version == "Ascend310" and which == "toolkit":
        # A 200 DK whose image was updated keeps the old runtime: the environment lines of old tutorials
        # still work.
        _acllib(install, modules)
    if which == "toolkit":
        name = "ascend-toolkit" if board.toolkit else "nnrt"
        package = f"Ascend/{name}/{board.cann_version}"
        install.links[f"Ascend/{name}/latest"] = board.cann_version
        base, script = f"Ascend/{name}/latest", f"Ascend/{name}/set_env.sh"
    else:
        name = "cann" if board.toolkit else "nnrt"
        package = f"Ascend/{name}-{board.cann_version}"
        install.links[f"Ascend/{name}"] = f"{name}-{board.cann_version}"
        base = f"Ascend/{name}"
        # Beside set_env.sh in the package itself: ~/Ascend/cann is a link to it.
        script = f"{package}/set_env.sh"
    _package(install, board, home, package, modules)
    install.text(script, _set_env(board, home, base))
    entry = home / base / "set_env.sh" if which == "cann" else home / script
    install.activate = f". {shlex.quote(str(entry))}"
    return install


def _driver(install: Install, board: SimBoard) -> None:
    """The versions of driver and firmware; on a real board in /usr/local/Ascend (RC: also /var/davinci)."""
    version = board.driver_version
    parts = ("ascendhal", "aicpu", "tdt", "log", "prof", "dvppkernels", "tsfw")
    lines = [f"Version={version}", *(f"{part}_version={version}" for part in parts)]
    install.text("Ascend/driver/version.info", "\n".join(lines) + "\n")
    install.text("Ascend/firmware/version.info", f"Version={version}\n")
    install.folders += ["Ascend/driver/lib64/common", "Ascend/driver/lib64/driver"]


def _acllib(install: Install, modules: Path) -> None:
    """The runtime of CANN before 5.0.4."""
    for folder in ("Ascend/acllib/lib64", "Ascend/runtime/lib64"):
        install.text(f"{folder}/libascendcl.so", _LIBRARY)
    beside = "Ascend/pyACL/python/site-packages/acl"
    install.text(f"{beside}/__init__.py", _ACL_BESIDE)
    _modules(install, beside, modules, "acl", "ascend_sim")


def _compiler(install: Install, board: SimBoard, package: str, modules: Path) -> None:
    """ATC and its operators below ``package``."""
    lacks_driver = not board.chips and generation(board.cann_version) != "acllib"
    wrapper = _ATC.replace("exec", _NO_DRIVER + "exec") if lacks_driver else _ATC
    install.text(f"{package}/compiler/bin/atc", wrapper, 0o755)
    _modules(install, f"{package}/compiler/python/site-packages", modules, "ascend_sim")
    install.folders += [f"{package}/compiler/{name}" for name in ("lib64", "ccec_compiler/bin")]
    install.folders += [f"{package}/opp/built-in/op_impl/ai_core/tbe"]


def _package(install: Install, board: SimBoard, home: Path, package: str, modules: Path) -> None:
    """The tree of one package since 5.0.4: toolkit (with ATC) or nnrt (without)."""
    for folder in ("lib64", "runtime/lib64"):
        install.text(f"{package}/{folder}/libascendcl.so", _LIBRARY)
    for library in ("ascendcl", "ascend_hal"):
        install.text(f"{package}/devlib/lib{library}.so", "A stub to link against; never to load.\n")
    install.folders += [f"{package}/lib64/plugin/{name}" for name in ("opskernel", "nnengine")]
    install.folders += [f"{package}/opp"]
    _modules(install, f"{package}/python/site-packages", modules, "acl", "ascend_sim")
    install.links[f"{package}/{board.arch}-linux/lib64"] = "../lib64"
    version = board.cann_version
    parts = ["runtime", "opp", *(["compiler", "toolkit"] if board.toolkit else [])]
    config = ["# version: 1.0", *(f"{part}_running_version=[{version}:{version}]" for part in parts)]
    install.text(f"{package}/version.cfg", "\n".join(config) + "\n")
    infos = ["toolkit" if board.toolkit else "nnrt"]
    if generation(version) == "cann" and board.toolkit:
        infos.append("ops")  # since 8.5 the operators are a package of their own
    for kind in infos:
        _info(install, board, home, f"{package}/{board.arch}-linux", kind)
        # nnrt and older toolkits are also asked at the package's root.
        _info(install, board, home, package, kind)
    if board.toolkit:
        _compiler(install, board, package, modules)
        install.links[f"{package}/bin/atc"] = "../compiler/bin/atc"


def _info(install: Install, board: SimBoard, home: Path, folder: str, kind: str) -> None:
    """``ascend_<kind>_install.info``: key=value lines."""
    values = {
        "package_name": f"Ascend-cann-{kind}",
        "version": board.cann_version,
        "innerversion": f"V100R001C00SIM.{board.cann_version}",
        "compatible_version": "[]",
        "arch": board.arch,
        "os": "linux",
        "path": str(home / folder),
    }
    install.text(f"{folder}/ascend_{kind}_install.info", "".join(f"{k}={v}\n" for k, v in values.items()))


def _modules(install: Install, folder: str, modules: Path, *names: str) -> None:
    """Links to the simulated modules: see boards.install_modules for why they are not copies."""
    for name in names:
        install.links[f"{folder}/{name}"] = str(modules / name)


def _acllib_exports(home: Path) -> str:
    """The environment lines of the SD-card image and of the tutorials of that time."""
    ascend = shlex.quote(str(home / "Ascend"))
    return "; ".join(
        (
            f"export LD_LIBRARY_PATH={ascend}/acllib/lib64:{ascend}/runtime/lib64:$LD_LIBRARY_PATH",
            f"export PYTHONPATH={ascend}/pyACL/python/site-packages/acl:$PYTHONPATH",
            f"export ASCEND_AICPU_PATH={ascend}",
        )
    )


def _five_exports(home: Path) -> str:
    """The "five exports" which ATC needed before there was a set_env.sh."""
    latest = shlex.quote(str(home / "Ascend/ascend-toolkit/latest"))
    return "; ".join(
        (
            f"export install_path={latest}",
            'export PATH="$install_path/atc/ccec_compiler/bin:$install_path/atc/bin:$PATH"',
            'export PYTHONPATH="$install_path/atc/python/site-packages:$PYTHONPATH"',
            'export LD_LIBRARY_PATH="$install_path/atc/lib64:$LD_LIBRARY_PATH"',
            'export ASCEND_OPP_PATH="$install_path/opp"',
        )
    )


def _set_env(board: SimBoard, home: Path, base: str) -> str:
    """The text of set_env.sh: the variables that the real one sets, with paths inside this home."""
    driver = '"$ASCEND_SIM_DRIVER/lib64:$ASCEND_SIM_DRIVER/lib64/common:$ASCEND_SIM_DRIVER/lib64/driver'
    head = "ASCEND_TOOLKIT_HOME" if board.toolkit else "ASCEND_NNRT_HOME"
    lines = [
        f"ASCEND_SIM_DRIVER={shlex.quote(str(home / 'Ascend/driver'))}",
        f'export LD_LIBRARY_PATH={driver}:$LD_LIBRARY_PATH"',
        "unset ASCEND_SIM_DRIVER",
        f"export {head}={shlex.quote(str(home / base))}",
        f'export ASCEND_HOME_PATH="${head}"',
        f'export LD_LIBRARY_PATH="${head}/lib64:${head}/lib64/plugin/opskernel:${head}/lib64/plugin/nnengine'
        ':$LD_LIBRARY_PATH"',
        f'export ASCEND_AICPU_PATH="${head}"',
        f'export ASCEND_OPP_PATH="${head}/opp"',
    ]
    if board.toolkit:
        lines += [
            f'export PYTHONPATH="${head}/python/site-packages:${head}/opp/built-in/op_impl/ai_core/tbe'
            ':$PYTHONPATH"',
            f'export PATH="${head}/bin:${head}/compiler/ccec_compiler/bin:$PATH"',
            f'export TOOLCHAIN_HOME="${head}/toolkit"',
        ]
    else:
        lines += [f'export PYTHONPATH="${head}/python/site-packages:$PYTHONPATH"']
    return "\n".join(lines) + "\n"
