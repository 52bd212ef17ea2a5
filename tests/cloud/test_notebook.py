"""The stages as functions, and the boot file, with a stand-in for moxing; real training with MindSpore on the CPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from toolkit.cloud import moving, notebook, packing
from toolkit.cloud.boot import MARK
from toolkit.cloud.training import exported, job_of
from toolkit.config.schema import Config
from toolkit.errors import ConfigError, InputError
from toolkit.learn import digits
from toolkit.learn.settings import Device, Format, Where

STANDIN = Path(__file__).parent / "moxing_standin"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(STANDIN))
    monkeypatch.setenv("MOXING_ROOT", str(tmp_path / "obs"))
    (tmp_path / "obs" / "bucket").mkdir(parents=True)
    (tmp_path / "obs" / "my-bucket").symlink_to("bucket")
    yield tmp_path / "obs" / "bucket"
    for name in ("moxing", "moxing.file"):
        sys.modules.pop(name, None)


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.learn
def test_what_the_documents_say_runs_in_a_notebook(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their cell to the letter, but with few digits instead of CIFAR-10, one epoch, and no Ascend."""
    cells = re.compile(r"^ *from toolkit\.cloud import notebook\n.*?^ *notebook\.upload.*?$", re.M | re.S)
    names = ("cloud.md", "tutorial.md", "tutorial.zh-CN.md")
    found = [textwrap.dedent(cell) for name in names for cell in cells.findall((DOCS / name).read_text("utf-8"))]
    assert len(found) == len(names)
    assert len(set(found)) == 1
    monkeypatch.chdir(tmp_path)
    small = {"model": "resnet8", "preprocess": "digits", "device_target": "CPU"}
    for function, few in ((notebook.train, {**small, "recipe": "digits"}), (notebook.export, small)):
        monkeypatch.setattr(function, "__kwdefaults__", {**function.__kwdefaults__, **few})
    (bucket / "cifar-10-batches-bin").mkdir()
    digits.write(bucket / "cifar-10-batches-bin", 0.8, 0)
    exec(found[0].replace('"cifar10"', '"digits"').replace("epochs=90", "epochs=1"), {})
    assert (tmp_path / "work/data/data_batch_1.bin").stat().st_size == 359 * 3073
    made = bucket / "exported" / "model.onnx"
    assert made.read_bytes() == (tmp_path / "work/exported/model.onnx").read_bytes()
    shown = [line for line in capsys.readouterr().out.splitlines() if "epoch 1/1" in line]
    assert len(shown) == 1, "each epoch once"
    with pytest.raises(ConfigError, match="epoch: there is no such setting"):
        notebook.train("work/data", "x", epoch=3)


def test_moving(bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "f").write_bytes(b"1")
    moving.copy_folder(str(tmp_path / "a"), "obs://bucket/a")
    assert (bucket / "a" / "sub" / "f").read_bytes() == b"1"
    moving.copy_folder("obs://bucket/a", str(tmp_path / "new"))
    moving.copy_folder(str(tmp_path / "new"), str(tmp_path / "newer"))
    assert (tmp_path / "newer" / "sub" / "f").read_bytes() == b"1"
    with pytest.raises(InputError, match="no such folder"):
        moving.copy_folder(str(tmp_path / "none"), "obs://bucket/a")


def test_without_moxing_obs_is_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only there in ModelArts"):
        moving.copy_folder(str(tmp_path), "obs://bucket/a")


def config(**export: object) -> Config:
    made = Config()
    made.train.where = Where.modelarts
    made.train.epochs = 0
    made.train.threads = 1
    made.train.remote.host = "train-host.example"
    made.export.tolerance = 1e-3
    for key, value in export.items():
        setattr(made.export, key, value)
    return made


def boot(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(STANDIN),
    }
    environment["MOXING_ROOT"] = os.environ.get("MOXING_ROOT", "")
    return subprocess.run(
        [sys.executable, str(folder / "boot.py"), *arguments, "--init_method=x"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.mark.learn
def test_the_boot_file_with_addresses_for_moxing(bucket: Path, tmp_path: Path) -> None:
    job = job_of(config())
    assert "train-host" not in json.dumps(job)
    packing.pack(tmp_path / "code", job, [])
    done = boot(tmp_path / "code", "--train_url=obs://bucket/out")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((bucket / "out" / "result.json").read_text())
    assert sorted(result["files"])[:2] == ["export/model.onnx", "history.csv"] or "model.ckpt" in result["files"]
    assert (bucket / "out" / "export" / "model.onnx").exists()
    said = [json.loads(line[len(MARK) :]) for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert said[-1] == {"finished": True}
    assert not [path for path in (tmp_path / "code").iterdir() if path.name.startswith("ascend-deploy-")]


def test_the_boot_file_says_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    packing.pack(folder, job_of(config()), [])
    (folder / "job.json").write_text("{}")
    for arguments, words in (((), "no output train_url"), ((f"--train_url={tmp_path}/out",), "train")):
        done = boot(folder, *arguments)
        assert done.returncode != 0
        last = done.stdout.strip().splitlines()[-1]
        assert words in json.loads(last[len(MARK) :])["error"]["message"]
    assert not (tmp_path / "out" / "result.json").exists()


def test_an_air_that_came_along_is_taken_if_it_is_the_one_that_is_wanted(tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    (trained / "export").mkdir(parents=True)
    (trained / "export" / "model.air").write_bytes(b"air")
    wanted = config()
    wanted.train.device_target = Device.Ascend
    record = {"settings": job_of(wanted)["export"], "export": {"file": "model.air", "format": "air"}}
    (trained / "export" / "export.json").write_text(json.dumps(record))
    out = tmp_path / "out"
    out.mkdir()
    taken = exported(wanted, trained, out)
    assert taken is not None
    assert taken["summary"] == "model.air, made in ModelArts"
    assert [path.name for path in out.iterdir()] == ["model.air"]
    wanted.export.batch_size = 8
    with pytest.raises(ConfigError, match="only an Ascend exports AIR"):
        exported(wanted, trained, out)
    wanted.export.format = Format.onnx
    assert exported(wanted, trained, out) is None
    assert exported(wanted, tmp_path, out) is None
