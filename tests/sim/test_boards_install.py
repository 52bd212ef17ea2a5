"""The CANN that a simulated board has in its home: each generation's places, and its environment lines work.

Small modules stand in for the simulated ones here, so that these tests are about places and paths alone.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from toolkit.sim import SimBoard, boards, install
from toolkit.sim.spec import DEVICE_FAULTS

ATC = """
import json, sys
import ascend_sim
print(json.dumps({"argv": sys.argv, "cwd first": sys.path[0] == "", "python": sys.executable}))
sys.exit(7)
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A stand-in for the simulated CANN's modules."""
    files = {
        "acl/__init__.py": "import ascend_sim\n\ndef get_soc_name():\n    return ascend_sim.NAME\n",
        "ascend_sim/__init__.py": "NAME = 'stand-in'\n",
        "ascend_sim/atc/__init__.py": "",
        "ascend_sim/atc/__main__.py": ATC,
        "ascend_sim/npu_smi.py": "import os, sys\nprint(os.environ['ASCEND_SIM_BOARD'], sys.argv[1:])\n",
    }
    for name, text in files.items():
        path = tmp_path / "modules" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "modules"


class Machine:
    """A prepared board on which commands are run as a session runs them."""

    def __init__(self, board: SimBoard, root: Path, modules: Path) -> None:
        self.folder = boards.prepare(board, root, modules)
        self.home = self.folder.home

    def run(self, command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``command`` in the login shell with nothing but the board's environment."""
        return subprocess.run(
            [boards.login_shell(), "-c", command],
            env=self.folder.environment(),
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )


IMPORT = "python3 -c 'import acl; print(acl.get_soc_name())'"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("20.0", "acllib"),
        ("20.2.rc1", "acllib"),
        ("21.0.2", "acllib"),
        ("5.0.2.alpha005", "acllib"),
        ("5.0.3.alpha005", "acllib"),
        ("5.0.4.alpha002", "toolkit"),
        ("5.0.4", "toolkit"),
        ("5.1.RC1.alpha005", "toolkit"),
        ("6.0.RC1", "toolkit"),
        ("7.0.0", "toolkit"),
        ("8.3.RC1", "toolkit"),
        ("8.5.0", "cann"),
        ("9.0.0.beta1", "cann"),
    ],
)
def test_generations(version: str, expected: str) -> None:
    assert install.generation(version) == expected


@pytest.mark.parametrize(
    ("version", "toolkit", "line"),
    [
        ("7.0.RC1", True, ". ~/Ascend/ascend-toolkit/set_env.sh"),
        ("7.0.RC1", False, ". ~/Ascend/nnrt/set_env.sh"),
        ("8.5.0", True, ". ~/Ascend/cann/set_env.sh"),
        ("9.0.0", False, ". ~/Ascend/nnrt/set_env.sh"),
    ],
)
def test_set_env_makes_acl_importable_and_puts_atc_on_the_path(
    tmp_path: Path, modules: Path, version: str, toolkit: bool, line: str
) -> None:
    board = SimBoard("b", soc_version="Ascend310P3", cann_version=version, toolkit=toolkit)
    # A folder with a blank in its name: set_env.sh must quote.
    machine = Machine(board, tmp_path / "a root", modules)
    assert "No module named 'acl'" in machine.run(IMPORT).stderr
    assert machine.run("command -v atc").returncode == 1
    after = machine.run(f"{line} && {IMPORT} && command -v atc")
    assert after.stdout.splitlines()[0] == "stand-in"
    assert after.returncode == (0 if toolkit else 1), "an nnrt-only machine has no atc"
    assert machine.run(f"{machine.folder.activate}; {IMPORT}").stdout == "stand-in\n"


def test_set_env_sets_the_documented_variables(tmp_path: Path, modules: Path) -> None:
    machine = Machine(SimBoard("b", cann_version="6.0.RC1"), tmp_path, modules)
    output = machine.run("PYTHONPATH=/mine; . ~/Ascend/ascend-toolkit/set_env.sh; env").stdout
    env = dict(line.split("=", 1) for line in output.splitlines())
    home = f"{machine.home}/Ascend/ascend-toolkit/latest"
    driver = f"{machine.home}/Ascend/driver/lib64"
    assert env["ASCEND_TOOLKIT_HOME"] == env["ASCEND_HOME_PATH"] == env["ASCEND_AICPU_PATH"] == home
    assert env["ASCEND_OPP_PATH"] == f"{home}/opp"
    assert env["TOOLCHAIN_HOME"] == f"{home}/toolkit"
    assert env["LD_LIBRARY_PATH"].rstrip(":").split(":") == [
        *(f"{home}/lib64{part}" for part in ("", "/plugin/opskernel", "/plugin/nnengine")),
        *(f"{driver}{part}" for part in ("", "/common", "/driver")),
    ]
    assert env["PATH"].startswith(f"{home}/bin:{home}/compiler/ccec_compiler/bin:")
    assert "PYTHONPATH" not in env or env["PYTHONPATH"].startswith(f"{home}/python/site-packages:")
    for variable in ("LD_LIBRARY_PATH", "PATH"):
        for folder in env[variable].rstrip(":").split(":"):
            # The operators' folder aside, what the variables name is there.
            assert Path(folder).is_dir(), (variable, folder)


def test_atc_is_a_wrapper_that_passes_arguments_and_exit_code_from_any_folder(
    tmp_path: Path, modules: Path
) -> None:
    machine = Machine(SimBoard("b"), tmp_path, modules)
    work = tmp_path / "work"
    work.mkdir()
    (work / "types.py").write_text("raise SystemExit('a file of the user was imported')")
    result = machine.run(
        ". ~/Ascend/ascend-toolkit/set_env.sh; atc --model=a\\ b.onnx --output='$HOME'", cwd=work
    )
    assert result.returncode == 7, result.stderr
    told = json.loads(result.stdout)
    assert told["argv"][1:] == ["--model=a b.onnx", "--output=$HOME"]
    assert not told["cwd first"]


# The tutorial's lines, copied from it. They name the home of a real board.
TUTORIAL_BASHRC = (
    "echo 'export LD_LIBRARY_PATH=/home/HwHiAiUser/Ascend/runtime/lib64:/home/HwHiAiUser/ascend_ddk/arm/lib:"
    "${LD_LIBRARY_PATH}' >> .bashrc ; "
    "echo 'export PYTHONPATH=/home/HwHiAiUser/Ascend/pyACL/python/site-packages/acl:${PYTHONPATH}' >> .bashrc"
)
TUTORIAL_ATC = """
export install_path=$HOME/Ascend/ascend-toolkit/latest
export PATH=/usr/local/python3.7.5/bin:${install_path}/compiler/ccec_compiler/bin:${install_path}/compiler/bin:$PATH
export PYTHONPATH=${install_path}/compiler/python/site-packages:${install_path}/compiler/python/site-packages/auto_tune.egg/auto_tune:${install_path}/compiler/python/site-packages/schedule_search.egg:$PYTHONPATH
export LD_LIBRARY_PATH=${install_path}/compiler/lib64:$LD_LIBRARY_PATH
export ASCEND_OPP_PATH=${install_path}/opp
"""  # noqa: E501 - copied


@pytest.mark.skipif(Path("/home/HwHiAiUser").exists(), reason="this machine has the real home")
@pytest.mark.parametrize("version", ["20.2", "5.0.3.alpha005", "5.0.4", "6.0.0.alpha003"])
def test_a_200dk_takes_the_tutorial_s_own_lines(tmp_path: Path, modules: Path, version: str) -> None:
    machine = Machine(SimBoard("b", cann_version=version), tmp_path / "it's & a | root", modules)
    assert machine.run(TUTORIAL_BASHRC).returncode == 0
    assert "ModuleNotFoundError" in machine.run(IMPORT).stderr, ".bashrc returns early without a terminal"
    result = machine.run(f"bash -ic {shlex.quote(IMPORT)} 2>/dev/null; ls ~/Ascend/runtime/lib64")
    assert result.stdout == "stand-in\nlibascendcl.so\n"
    result = machine.run(f"{TUTORIAL_ATC}\natc --help")
    assert result.returncode == 7, result.stderr


@pytest.mark.parametrize("folder", ["pyACL/python/site-packages/acl", "pyACL/python/site-packages"])
def test_the_old_acl_is_found_through_its_folder_and_through_the_one_above(
    tmp_path: Path, modules: Path, folder: str
) -> None:
    machine = Machine(SimBoard("b", cann_version="5.0.2.alpha003"), tmp_path, modules)
    result = machine.run(f"export PYTHONPATH=$HOME/Ascend/{folder}:$PYTHONPATH; {IMPORT}; {IMPORT}")
    assert result.stdout == "stand-in\nstand-in\n", result.stderr


def test_the_five_exports_of_the_old_toolkit_find_atc(tmp_path: Path, modules: Path) -> None:
    machine = Machine(SimBoard("b", cann_version="20.2"), tmp_path, modules)
    assert not (machine.home / "Ascend/ascend-toolkit/set_env.sh").exists()
    assert machine.run("command -v atc").returncode == 1
    exports = (
        "export install_path=$HOME/Ascend/ascend-toolkit/latest; "
        "export PATH=${install_path}/atc/ccec_compiler/bin:${install_path}/atc/bin:$PATH; "
        "export PYTHONPATH=${install_path}/atc/python/site-packages:$PYTHONPATH; "
        "export LD_LIBRARY_PATH=${install_path}/atc/lib64:$LD_LIBRARY_PATH"
    )
    assert machine.run(f"{exports}; atc").returncode == 7
    assert machine.run(f"{exports}; {IMPORT}").returncode == 1, "those lines are ATC's, not pyACL's"
    assert machine.run(f"{machine.folder.activate}; {IMPORT} && atc").returncode == 7


def test_versions_stand_where_real_ones_do(tmp_path: Path, modules: Path) -> None:
    old = Machine(SimBoard("old", cann_version="7.0.RC1", driver_version="23.0.rc3"), tmp_path, modules)
    info = "Ascend/ascend-toolkit/latest/aarch64-linux/ascend_toolkit_install.info"
    values = dict(line.split("=", 1) for line in (old.home / info).read_text().splitlines())
    assert (values["version"], values["arch"], values["os"]) == ("7.0.RC1", "aarch64", "linux")
    assert set(values) == {
        "package_name",
        "version",
        "innerversion",
        "compatible_version",
        "arch",
        "os",
        "path",
    }
    config = (old.home / "Ascend/ascend-toolkit/latest/version.cfg").read_text()
    assert "runtime_running_version=[7.0.RC1:7.0.RC1]" in config
    assert (old.home / "Ascend/driver/version.info").read_text().startswith("Version=23.0.rc3\n")
    new = Machine(
        SimBoard("new", soc_version="Ascend310B4", cann_version="8.5.0", arch="x86_64"), tmp_path, modules
    )
    assert os.readlink(new.home / "Ascend/cann") == "cann-8.5.0"
    for kind in ("toolkit", "ops"):
        path = new.home / f"Ascend/cann/x86_64-linux/ascend_{kind}_install.info"
        assert "version=8.5.0\n" in path.read_text()
    nnrt = Machine(SimBoard("nnrt", cann_version="7.0.0", toolkit=False), tmp_path, modules)
    assert "version=7.0.0" in (nnrt.home / "Ascend/nnrt/latest/ascend_nnrt_install.info").read_text()


def test_commands_of_the_board(tmp_path: Path, modules: Path) -> None:
    board = SimBoard("b", interpreters=["python3", "python3.7.5"])
    machine = Machine(board, tmp_path, modules)
    assert machine.run("npu-smi info -t board; command -v npu-smi").stdout == (
        f"{machine.folder.description} ['info', '-t', 'board']\n{machine.folder.path}/bin/npu-smi\n"
    )
    for name in board.interpreters:
        assert machine.run(f"{name} -c 'import sys; print(sys.prefix)'").stdout.strip() == str(
            Path(board.python).parent.parent
        )
    # An interpreter that the board no longer has is gone.
    Machine(SimBoard("b"), tmp_path, modules)
    assert sorted(os.listdir(machine.folder.path / "bin")) == ["npu-smi", "python3"]


def test_the_description_holds_what_the_programs_on_the_board_need(tmp_path: Path, modules: Path) -> None:
    faults = {"slow_ms": 5, "no_banner": True}
    machine = Machine(SimBoard("b", password="secret", faults=faults), tmp_path, modules)
    text = machine.folder.description.read_text()
    told = json.loads(text)
    assert told["npu_name"] == "310"
    assert told["faults"] == {"slow_ms": 5}
    assert set(told["faults"]) <= set(DEVICE_FAULTS)
    assert told["state_dir"] == str(machine.folder.path / "state")
    assert Path(told["state_dir"]).is_dir()
    assert "secret" not in text


def test_preparing_again_changes_nothing(tmp_path: Path, modules: Path) -> None:
    machine = Machine(SimBoard("b"), tmp_path, modules)
    machine.run("echo 'export MINE=1' >> .bashrc; mkdir -p Ascend/mine; echo x > Ascend/mine/file")

    def snapshot() -> dict[str, tuple[int, int]]:
        paths = machine.folder.path.rglob("*")
        return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in paths}

    before = snapshot()
    Machine(SimBoard("b"), tmp_path, modules)
    assert snapshot() == before


def test_another_cann_replaces_the_old_one_and_nothing_else(tmp_path: Path, modules: Path) -> None:
    machine = Machine(SimBoard("b", cann_version="5.0.4"), tmp_path, modules)
    machine.run("echo mine > ~/Ascend/ascend-toolkit/notes; rm ~/Ascend/driver/version.info")
    Machine(SimBoard("b", soc_version="Ascend310P3", cann_version="8.5.0"), tmp_path, modules)
    files = {str(p.relative_to(machine.home)) for p in (machine.home / "Ascend").rglob("*") if not p.is_dir()}
    assert "Ascend/ascend-toolkit/notes" in files
    assert "Ascend/driver/version.info" in files, "what was deleted is there again"
    assert not {name for name in files if name.startswith(("Ascend/ascend-toolkit/set_env", "Ascend/pyACL"))}
    assert machine.run(f". ~/Ascend/cann/set_env.sh; {IMPORT}").stdout == "stand-in\n"


def tree(folder: Path) -> dict[str, str]:
    """What is below ``folder``: each name with "folder", where the link points, or the file's text."""
    found = {}
    for above, folders, files in os.walk(folder):
        for path in (Path(above) / name for name in [*folders, *files]):
            what = os.readlink(path) if path.is_symlink() else "folder" if path.is_dir() else path.read_text()
            found[str(path.relative_to(folder))] = what.replace(str(folder), "~")
    return found


def test_any_cann_may_follow_any_other(tmp_path: Path, modules: Path) -> None:
    """What was a folder in one generation is a link in another (ascend-toolkit/latest, nnrt)."""
    kinds = [
        SimBoard("b", soc_version="Ascend310", cann_version=version, toolkit=toolkit)
        for version in ("20.0", "7.0.0", "8.5.0", "9.0.0")
        for toolkit in (True, False)
    ]
    fresh = [tree(boards.prepare(kind, tmp_path / str(n), modules).home) for n, kind in enumerate(kinds)]
    for old, new in itertools.permutations(range(len(kinds)), 2):
        for number in (old, new):
            home = boards.prepare(kinds[number], tmp_path / "one", modules).home
            assert tree(home) == fresh[number], (kinds[old], kinds[new])


def test_a_persons_files_stay_where_the_next_cann_has_a_link(tmp_path: Path, modules: Path) -> None:
    machine = Machine(SimBoard("b", cann_version="20.0"), tmp_path, modules)
    line = "from acl import get_soc_name"
    machine.run(f"{machine.folder.activate}; python3 -c '{line}'; echo mine > ~/Ascend/ascend-toolkit/latest/notes")
    after = Machine(SimBoard("b", soc_version="Ascend310P3", cann_version="7.0.0"), tmp_path, modules)
    assert os.readlink(after.home / "Ascend/ascend-toolkit/latest") == "7.0.0"
    kept = after.home / "Ascend/ascend-toolkit/latest.kept"
    assert tree(kept) == {"notes": "mine\n"}
    assert not (after.home / "Ascend/pyACL").exists(), "nor what Python compiled beside the old modules"
    # The record of what was installed may be thrown away, and a person may stand in the way.
    (after.folder.path / "installed.json").unlink()
    after.run("rm ~/Ascend/ascend-toolkit/latest; mkdir -p ~/Ascend/ascend-toolkit/latest/own")
    after.run("cd ~/Ascend/ascend-toolkit; echo own > latest/own/file; rm set_env.sh; mkdir set_env.sh")
    again = Machine(SimBoard("b", soc_version="Ascend310P3", cann_version="7.0.0"), tmp_path, modules)
    assert again.run(f". ~/Ascend/ascend-toolkit/set_env.sh; {IMPORT}").stdout == "stand-in\n"
    assert tree(after.home / "Ascend/ascend-toolkit/latest.kept2") == {"own": "folder", "own/file": "own\n"}


def test_a_new_version_of_the_simulator_replaces_the_old_copy(
    tmp_path: Path, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "MODULES", modules)
    root = tmp_path / "root"
    first = boards.install_modules(root)
    machine = Machine(SimBoard("b"), root, first)
    activate = ". ~/Ascend/ascend-toolkit/set_env.sh; "
    (modules / "ascend_sim" / "__init__.py").write_text("NAME = 'newer'\n")
    assert machine.run(activate + IMPORT).stdout == "stand-in\n", "a running board is not changed by an edit"
    assert boards.install_modules(root) != first
    second = boards.install_modules(root)
    Machine(SimBoard("b"), root, second)
    boards.forget_old_modules(root, second)
    assert machine.run(activate + IMPORT).stdout == "newer\n"
    assert sorted((root / ".shared").glob("modules-*")) == [second]
    # Compiled files do not make it another version.
    (modules / "acl" / "__pycache__").mkdir()
    (modules / "acl" / "__pycache__" / "x.pyc").touch()
    assert boards.install_modules(root) == second
