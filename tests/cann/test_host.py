"""ATC, AMCT and AOE on a build host: what is sent, what comes back, which CANN it is. Over real SSH."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from omegaconf import OmegaConf
from onnx import TensorProto, helper

from toolkit.cann.environment import converter_script
from toolkit.cann.host import ConvertHost
from toolkit.config.schema import CannSettings
from toolkit.errors import ConfigError
from toolkit.remote.address import Address, Limits
from toolkit.sim import SimBoard, Simulation
from toolkit.ui.events import Event

CONF = Path(__file__).resolve().parents[2] / "conf"
VERSIONS = ["20.2", "5.0.2.alpha003", "5.0.4", "7.0.RC1", "8.5.0"]


def cann(kind: str, version: str) -> CannSettings:
    values: dict[str, Any] = yaml.safe_load((CONF / "cann" / f"{kind}.yaml").read_text())
    settings = OmegaConf.merge(OmegaConf.structured(CannSettings), {**values, "version": version})
    return OmegaConf.to_object(settings)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A build host of each generation of CANN, by its version."""
    boards = [SimBoard(f"builder-{number}", cann_version=version) for number, version in enumerate(VERSIONS)]
    with Simulation(boards, tmp_path_factory.mktemp("hosts")) as simulation:
        yield dict(zip(VERSIONS, simulation.addresses, strict=True))


def host_of(place: Any, board_cann: str, kind: str = "from_20") -> ConvertHost:
    address = Address(
        name=place.name,
        host=place.host,
        port=place.port,
        user=place.user,
        key_file=place.key_file,
        host_key=place.host_key,
        known_hosts=(),
        ssh_config="",
    )
    return ConvertHost(address, Limits(), "~/build", converter_script(cann(kind, board_cann)))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hosts_cann_is_told_whatever_its_generation(machines: dict[str, Any], version: str) -> None:
    # For boards of another version than the host's: what is there decides which environment it needs.
    kind, board = ("set_env", "7.0.0") if version == "8.5.0" else ("from_20", "20.2")
    assert host_of(machines[version], board, kind).version() == version


def test_newer_cann_is_refused_before_anything_is_sent(machines: dict[str, Any], tmp_path: Path) -> None:
    host = host_of(machines["7.0.RC1"], "5.0.4")
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    events: list[Event] = []
    with pytest.raises(ConfigError) as caught:
        host.run(["atc"], {"in/m": model}, into=tmp_path / "r", limit=60, emit=events.append, board="5.0.4")
    assert "has CANN 7.0.RC1, newer than the boards' 5.0.4" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not list((tmp_path / "r").iterdir())
    work = Path(machines["7.0.RC1"].home) / "build" / "convert" / "work"
    assert not list(work.iterdir()), "nothing stays on the host"


def test_the_same_and_an_older_cann_are_taken(machines: dict[str, Any]) -> None:
    assert host_of(machines["5.0.4"], "5.0.4").check("5.0.4") == "5.0.4"
    assert host_of(machines["20.2"], "5.0.4").check("5.0.4") == "20.2"


def test_a_tool_gets_files_and_variables_and_gives_its_results(machines: dict[str, Any], tmp_path: Path) -> None:
    place = machines["5.0.4"]
    program = Path(place.home) / "bin" / "tool"
    program.parent.mkdir(exist_ok=True)
    code = "import json,os,sys; json.dump([sys.argv[1:], open('../in/model').read(), os.environ['BANK']], "
    program.write_text(f"#!{sys.executable}\n{code}open('seen.json','w')); print('done')\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    model = tmp_path / "model"
    model.write_text("network")
    host = host_of(place, "5.0.4")
    report = host.run(
        [str(program), "--x=it's"],
        {"in/model": model},
        into=tmp_path / "r",
        limit=60,
        emit=lambda event: None,
        board="5.0.4",
        variables={"BANK": "{work}/out/bank"},
    )
    assert (report.status, report.output) == (0, "done")
    argv, content, bank = json.loads((tmp_path / "r" / "seen.json").read_text())
    assert (argv, content) == (["--x=it's"], "network")
    assert bank.startswith(os.path.realpath(place.home))
    assert bank.endswith("/out/bank")


@pytest.mark.parametrize("local", [False, True])
def test_atc_runs_in_a_plain_folder_wherever_the_machine_keeps_its_own(tmp_path: Path, local: bool) -> None:
    """ATC refuses paths with spaces, umlauts and the like (E10001)."""
    model = tmp_path / "model.onnx"
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)]), str(model))
    argv = ["atc", "--model=../in/model.onnx", "--framework=5", "--output=model", "--soc_version=Ascend310"]
    before = set(Path("/tmp").glob("ascend-deploy-*"))
    with Simulation([SimBoard("builder")], tmp_path / "mein Prüfstand") as simulation:
        host = host_of(simulation.addresses[0], "5.0.4")
        if local:
            machine = Path(simulation.addresses[0].home).parent
            script = host.environment.replace("$HOME", str(machine / "home"))
            script += f"export ASCEND_SIM_BOARD='{machine / 'board.json'}' PATH='{machine / 'bin'}':\"$PATH\"\n"
            here = Address(name="this machine", host="local", client="local", interpreters=("python3",))
            host = ConvertHost(here, Limits(), str(tmp_path / "mein Projekt" / "convert"), script)
        report = host.run(argv, {"in/model.onnx": model}, into=tmp_path / "r", limit=120, emit=lambda event: None)
    assert report.status == 0, report.output
    assert (tmp_path / "r" / "model.om").read_bytes().startswith(b"IMOD")
    assert set(Path("/tmp").glob("ascend-deploy-*")) <= before, "it is removed again"
