"""Every shipped board profile composes, is complete, and says where its facts come from."""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from toolkit import paths
from toolkit.cann.environment import converter_script, environment_script, toolkit_script
from toolkit.cann.versions import holds, parse_version
from toolkit.config.schema import Config
from toolkit.config.store import load, register_resolvers
from toolkit.inventory import profile_named
from toolkit.sim import SimBoard
from toolkit.sim.boards import install_modules, prepare

# sim is no kind of board, host is a machine that is none.
PROFILES = sorted(path.stem for path in (paths.CONF / "board").glob("*.yaml") if path.stem not in ("sim", "host"))
NAMED = [
    "200dk", "200i_dk_a2", "orangepi_aipro", "200i_a2", "300i", "ai1s", "300i_pro", "300i_duo", "300v_pro",
    "atlas500", "atlas500_a2", "800_inference",
]  # fmt: skip
SHELLS = [shell for shell in ("bash", "dash", "sh") if shutil.which(shell)]


def composed(conf: Path, *overrides: str) -> Config:
    """The config of its own that these overrides make; composing is slow, so each is composed once."""
    return copy.deepcopy(_composed(conf, overrides))


@functools.cache
def _composed(conf: Path, overrides: tuple[str, ...]) -> Config:
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return load(compose("deploy", list(overrides)))


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    GlobalHydra.instance().clear()


def test_the_named_boards_are_all_there() -> None:
    assert set(NAMED) <= set(PROFILES)


def test_a_profile_composes_and_is_complete(profile: str) -> None:
    board = composed(paths.CONF, f"+board={profile}").board
    assert board is not None
    assert board.profile == profile
    assert board.product
    assert board.driver
    assert board.groups
    assert board.interpreters
    assert board.soc_version == "Ascend" + board.npu_name
    assert re.fullmatch(r"Ascend310(P3|B1|B4)?", board.soc_version)
    assert board.run_mode in ("RC", "EP")
    assert board.arch in ("aarch64", "x86_64")
    assert board.chips >= 1
    assert board.memory_mb > 2000
    assert board.port == 22
    assert board.password is None
    # A simulated stand-in makes a command of each name; a path is none.
    assert all(re.fullmatch(r"python3(\.\d+)*", name) for name in board.interpreters)
    assert len(set(board.interpreters)) == len(board.interpreters)


def test_a_profile_knows_its_own_cann(profile: str) -> None:
    board = composed(paths.CONF, f"+board={profile}").board
    assert board is not None
    cann = board.cann
    assert cann.since, "else nobody is warned of a CANN that is older than the chip"
    for version in (cann.version, cann.since, cann.before):
        assert version is None or parse_version(version) is not None
    assert holds(cann, cann.version)
    # Each range of versions that the lists distinguish has both an environment and a toolkit.
    for version in ["5.0.4", "5.1.RC2", "7.0.RC1", "8.3.RC1", "8.5.0", "9.0.0", cann.version]:
        cann.version = version
        for script in (environment_script(cann), toolkit_script(cann)):
            assert "Ascend" in script
            for shell in SHELLS:
                done = subprocess.run(
                    [shell, "-n"], input=script, text=True, capture_output=True, check=False
                )
                assert (done.returncode, done.stderr) == (0, "")


def test_every_place_is_looked_for_below_home_and_below_root(profile: str) -> None:
    board = composed(paths.CONF, f"+board={profile}").board
    assert board is not None
    for version, folder in [("7.0.0", "ascend-toolkit"), ("8.5.0", "cann")]:
        board.cann.version = version
        for script in (environment_script(board.cann), toolkit_script(board.cann)):
            own, root = f"$HOME/Ascend/{folder}/set_env.sh", f"/usr/local/Ascend/{folder}/set_env.sh"
            assert 0 < script.index(own) < script.index(root)


@pytest.mark.parametrize("version", ["20.2", "20.1.rc1", "5.0.2", "5.0.3"])
def test_the_tutorials_dev_kit_is_known(version: str, tmp_path: Path) -> None:
    board = composed(paths.CONF, "+board=200dk", f'board.cann.version="{version}"').board
    assert board is not None
    assert board.cann.version == version
    assert (board.host, board.user) == ("192.168.1.2", "HwHiAiUser")

    def variable(script: str, name: str) -> list[str]:
        done = subprocess.run(
            ["sh", "-c", f'{script}\nprintf %s "${name}"'],
            env={"HOME": "/home/HwHiAiUser", "PATH": "/bin:/usr/bin"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.split(":")

    script = environment_script(board.cann)
    libraries = variable(script, "LD_LIBRARY_PATH")
    assert libraries[:3] == [
        "/home/HwHiAiUser/Ascend/acllib/lib64",
        "/home/HwHiAiUser/Ascend/runtime/lib64",
        "/home/HwHiAiUser/ascend_ddk/arm/lib",
    ]
    assert variable(script, "PYTHONPATH")[0] == "/home/HwHiAiUser/Ascend/pyACL/python/site-packages/acl"
    toolkit = toolkit_script(board.cann)
    latest = "/home/HwHiAiUser/Ascend/ascend-toolkit/latest"
    assert {f"{latest}/compiler/bin", f"{latest}/atc/bin"} <= set(variable(toolkit, "PATH"))
    assert variable(toolkit, "ASCEND_OPP_PATH") == [f"{latest}/opp"]
    for value in (libraries, variable(script, "PYTHONPATH"), variable(toolkit, "PATH")):
        assert "" not in value


def test_the_stand_in_of_a_profile_has_its_cann_where_the_profile_looks(profile: str, tmp_path: Path) -> None:
    board = composed(paths.CONF, f"+board={profile}").board
    assert board is not None
    stand_in = SimBoard(
        name="b", product=board.product, soc_version=board.soc_version, npu_name=board.npu_name,
        chips=board.chips, run_mode=board.run_mode, memory_mb=board.memory_mb, arch=board.arch,
        cann_version=board.cann.version, driver_version=board.driver, user=board.user or "root",
        groups=board.groups, interpreters=board.interpreters,
    )  # fmt: skip
    folder = prepare(stand_in, tmp_path, install_modules(tmp_path))

    def ask(script: str, question: str) -> str:
        done = subprocess.run(
            ["sh", "-c", f"{script}\n{question}"],
            env=folder.environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.strip()

    find_acl = f"{board.interpreters[0]} -c 'import importlib.util as u; print(u.find_spec(\"acl\").origin)'"
    assert ask(environment_script(board.cann), find_acl).startswith(str(folder.home / "Ascend"))
    assert ask(toolkit_script(board.cann), "command -v atc").startswith(str(folder.home / "Ascend"))


def test_the_simulated_atc_knows_chips_as_long_as_their_profiles_say() -> None:
    listed = subprocess.run(
        [sys.executable, "-c", "import json; from ascend_sim.atc import optypes as o; print(json.dumps(o.SOC_RANGES))"],
        env={"PYTHONPATH": str(paths.CONF.parent / "toolkit" / "sim" / "cann" / "python")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ranges = json.loads(listed.stdout)
    for name in PROFILES:
        board = composed(paths.CONF, f"+board={name}").board
        assert board is not None
        since, before = next((a, b) for start, a, b in ranges if board.soc_version.startswith(start))
        assert since in ("", board.cann.since)
        # The 200 DK was given up before its chip was.
        assert before == (board.cann.before or "") or name == "200dk"


def test_a_profile_names_its_sources(profile: str) -> None:
    text = (paths.CONF / "board" / f"{profile}.yaml").read_text("utf-8")
    head = text.split("\n\n")[0]
    assert head.startswith("# ")
    assert "Sources" in head
    assert "github" in head.lower() or re.search(r"hiascend|huaweicloud|Ascend/|third-party", head)


def test_versions_are_texts_and_names_no_numbers(profile: str) -> None:
    raw = yaml.safe_load((paths.CONF / "board" / f"{profile}.yaml").read_text("utf-8"))
    for value in (raw["driver"], raw["npu_name"], raw["cann"]["version"], raw["cann"].get("since", "")):
        assert isinstance(value, str), value
    (override,) = OverridesParser.create().parse_overrides([f"+board={profile}"])
    assert override.value() == profile  # Hydra would read a bare number as an int


def test_where_there_is_no_documented_address_none_is_made_up() -> None:
    addresses = {
        name: (board := composed(paths.CONF, f"+board={name}").board) and board.host for name in PROFILES
    }
    assert {name: host for name, host in addresses.items() if host} == {
        "200dk": "192.168.1.2",
        "200i_dk_a2": "192.168.0.2",
    }


def test_the_products_numbers_mean_the_profiles() -> None:
    assert profile_named("500", PROFILES) == "atlas500"
    assert profile_named("500_a2", PROFILES) == "atlas500_a2"
    assert profile_named("200dk", PROFILES) == "200dk"
    assert profile_named("600", PROFILES) == ""


def test_a_build_host_has_no_chip_and_knows_every_generation_of_cann(tmp_path: Path) -> None:
    host = composed(paths.CONF, "+board=host").board
    assert host is not None
    assert (host.profile, host.soc_version, host.chips, host.cann.version) == ("host", "", 0, "")
    for number, version in enumerate(("20.2", "5.0.2.alpha003", "5.0.4", "7.0.0", "8.5.0")):
        machine = SimBoard(name=f"h{number}", soc_version="", chips=0, cann_version=version, groups=())
        folder = prepare(machine, tmp_path, install_modules(tmp_path))
        done = subprocess.run(
            ["sh", "-c", f"{converter_script(host.cann)}\ncommand -v atc; command -v npu-smi; atc --help >/dev/null"],
            env=folder.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.stdout.count("\n"), done.stderr) == (1, ""), version
        assert done.stdout.startswith(str(folder.home / "Ascend"))


def test_sim_is_three_dev_kits() -> None:
    config = composed(paths.CONF, "+board=sim")
    assert config.simulate
    assert config.board is not None
    assert (config.board.profile, config.board.count, config.board.soc_version) == ("200dk", 3, "Ascend310")
