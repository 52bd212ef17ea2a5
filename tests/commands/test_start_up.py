"""What a call does not do before it begins: packages that the verb needs not, and configs composed twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from stages import _registry
from stages.__main__ import _run_composed, run
from toolkit import paths
from toolkit.config.store import register_resolvers

NOBODY = ["+board=200dk", "app=digits", "board.host=127.0.0.1", "board.port=1"]
HEAVY = {"numpy", "PIL", "mindspore", "sklearn", "onnx", "onnxruntime", "matplotlib", "jinja2", "asyncssh", "obs"}


@pytest.mark.parametrize(
    ("line", "code", "spared"),
    [
        (["--version"], 0, {"hydra", "omegaconf", "yaml", "paramiko"}),
        (["--help"], 0, {"hydra", "omegaconf", "yaml", "paramiko"}),
        (["--cfg", "job", "+board=200dk"], 0, {"paramiko", "fabric"}),
        (["status", *NOBODY, "--json"], 5, {"rich"}),
        (["status", *NOBODY, "ssh.client=openssh"], 5, {"paramiko", "fabric"}),
        (["plan", *NOBODY], 0, set()),
        (["doctor", *NOBODY], 5, set()),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_verb_imports_nothing_heavy_that_it_does_not_need(
    line: list[str], code: int, spared: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_HOME", str(tmp_path))
    program = (
        "import json, sys; from stages.__main__ import run; code = run(sys.argv[1:]); "
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *line]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL)
    ended, modules = json.loads(done.stderr.splitlines()[-1])
    assert ended == code, done.stdout
    assert not {name.partition(".")[0] for name in modules} & (HEAVY | spared)


def test_help_is_read_as_the_modules_have_it() -> None:
    verbs, stages = _registry.verb_names(), _registry.modules()
    for name in {*verbs, *stages}:
        module = _registry.verb(name) if name in verbs else stages[name]
        assert _registry.help_of(name) == (module.HELP, module.__doc__)


class Seen:
    """A task that keeps what it is given."""

    def __init__(self) -> None:
        self.configs: list[str] = []
        self.hydra: list[object] = []

    def __call__(self, composed: DictConfig) -> None:
        assert OmegaConf.is_struct(composed)
        self.configs.append(OmegaConf.to_yaml(composed))
        around = OmegaConf.to_container(HydraConfig.get(), resolve=True)
        assert isinstance(around, dict)
        # hydra.main names itself after the program, and writes down the mode that it found out.
        self.hydra.append([around["mode"], around["runtime"], around["run"], around["overrides"]["task"]])


@pytest.mark.parametrize("line", [["+board=200dk"], ["+board=sim", "train.epochs=3", "hosts='a,b'", "app=digits"]])
def test_composed_once_is_what_hydra_main_composes(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    register_resolvers()
    mine, its = Seen(), Seen()
    assert _run_composed(line, mine)
    assert not HydraConfig.initialized()
    monkeypatch.setattr(sys, "argv", ["deploy", *line])
    hydra.main(version_base="1.3", config_path=str(paths.CONF), config_name="deploy")(its)()
    assert (mine.configs, mine.hydra) == (its.configs, its.hydra)


def test_a_plain_line_needs_no_hydra_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(**_: object) -> None:
        raise AssertionError

    monkeypatch.setenv("DEPLOY_HOME", str(tmp_path))
    monkeypatch.setattr(hydra, "main", main)
    assert run(["status", *NOBODY]) == 5


@pytest.mark.parametrize(
    ("line", "edited"),
    [
        ("-m +board=200dk", ""),
        ("+board=200dk hydra.verbose=true", ""),
        ("+board=200dk train.epochs=1,2", ""),
        ("+board=200dk typo=1", ""),
        ("+board=200dk", "  mode: MULTIRUN\n"),
        ("+board=200dk", "  callbacks: {mine: {_target_: hydra.experimental.callback.Callback}}\n"),
    ],
)
def test_what_only_hydra_main_can_do_is_left_to_it(
    line: str, edited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(paths.CONF, conf)
    with (conf / "deploy.yaml").open("a", encoding="utf-8") as file:
        file.write(edited)  # "hydra:" is the last of it
    monkeypatch.setattr(paths, "CONF", conf)
    register_resolvers()
    task = Seen()
    assert not _run_composed(line.split(), task)
    assert not task.configs
