"""The commands as a user types them, against both stand-ins; the job really trains, with MindSpore on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.cloud.conftest import PROJECT, SECRET_KEY, TOKEN
from tests.cloud.modelarts_server import ModelArtsServer
from tests.cloud.obs_server import ObsServer
from toolkit.cloud import packing, transfer
from toolkit.cloud.obs import Bucket
from toolkit.cloud.settings import ObsSettings
from toolkit.config import store as config_store
from toolkit.learn import digits

CHECKOUT = Path(__file__).resolve().parents[2]
JOB = (
    "app=digits", "train.where=modelarts", "train.epochs=1", "train.threads=1", "store=obs", "store.obs.bucket=bucket",
    f"modelarts.project_id={PROJECT}", "modelarts.flavor_id=modelarts.vm.cpu.2u",
    "modelarts.engine_id=mindspore_2.7.0-cann_8.0-py_3.11", "modelarts.poll=0.1", "modelarts.requirements=[]",
)  # fmt: skip


def places(obs: ObsServer, modelarts: ModelArtsServer) -> tuple[str, ...]:
    return (f"store.obs.endpoint={obs.by_number}", f"modelarts.endpoint={modelarts.endpoint}")


def deploy(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages", *arguments],
        cwd=home,
        env={**os.environ, "DEPLOY_HOME": str(home), "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.learn
@pytest.mark.e2e
def test_train_in_the_cloud_detach_attach_export(
    obs_server: ObsServer, modelarts_server: ModelArtsServer, deploy_home: Path
) -> None:
    where = places(obs_server, modelarts_server)
    # First: Ctrl-C while the job runs.
    first = subprocess.Popen(
        [sys.executable, "-m", "stages", "train", "--json", *JOB, *where],
        cwd=deploy_home,
        env={**os.environ, "DEPLOY_HOME": str(deploy_home), "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    output = ""
    for line in first.stdout:
        output += line
        if "running" in line:
            first.send_signal(signal.SIGINT)
            break
    rest, errors = first.communicate(timeout=60)
    output += rest + errors
    assert first.returncode == 130, output
    assert "no longer watching" in output
    assert "deploy train --attach" in output
    # Then: follow it, take what it made, and go on with the export that came along.
    second = deploy(deploy_home, "export", "--attach", "--json", *JOB, *where)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "following training job" in second.stdout
    assert "1 epoch, in ModelArts" in second.stdout
    assert "model.onnx, made in ModelArts" in second.stdout
    assert len(modelarts_server.jobs) == 1
    (exported,) = (deploy_home / ".deploy" / "artefacts").glob("*/model.onnx")
    answer = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"]).run(
        None, {"x": np.zeros((1, 3, 32, 32), np.float32)}
    )[0]
    assert answer.shape == (1, 10)
    # The worker's progress came through the job's log.
    events = [json.loads(line) for line in second.stdout.splitlines()]
    assert any(event["event"] == "progress" and "epoch" in str(event) for event in events)
    _no_secret_anywhere(obs_server, modelarts_server, deploy_home, [output, second.stdout, second.stderr])


def _no_secret_anywhere(obs_server: ObsServer, modelarts_server: ModelArtsServer, home: Path, texts: list[str]) -> None:
    """Keys stand nowhere in what was written or sent; the token only in its own header."""
    found: list[str] = []

    def look(where: str, content: bytes) -> None:
        found.extend(f"{where}: {name}" for name in (SECRET_KEY, TOKEN) if name.encode() in content)

    for path in home.rglob("*"):
        if path.is_file():
            look(str(path), path.read_bytes())
    for path in modelarts_server.folder.rglob("*"):
        if path.is_file():
            look(str(path), path.read_bytes())
    for key, stored in obs_server.buckets["bucket"].items():
        look(key, stored.content + repr(stored.metadata).encode())
    for request in (*obs_server.requests, *modelarts_server.calls):
        headers = {name: value for name, value in request.headers.items() if "security-token" not in name}
        look(
            str(request.method),
            request.body + repr(headers).encode() + repr(vars(request).get("path", "")).encode(),
        )
    for job in modelarts_server.jobs.values():
        look(job.id, job.log + json.dumps(job.body).encode() + " ".join(job.arguments).encode())
    for text in texts:
        look("output", text.encode())
    assert found == []
    assert len(obs_server.requests) > 20


def test_obs_paths_are_taken_where_paths_are(
    obs: ObsSettings, obs_server: ObsServer, deploy_home: Path, tmp_path: Path
) -> None:
    made = tmp_path / "digits"
    made.mkdir()
    digits.write(made, 0.2, 0)
    with Bucket(obs, "bucket") as bucket:
        transfer.upload_folder(bucket, made, "sets/digits", records=tmp_path / "r")
    arguments = (
        "data",
        "app=digits",
        "data.root=obs://bucket/sets/digits",
        "store=obs",
        f"store.obs.endpoint={obs_server.by_number}",
    )
    taken = deploy(deploy_home, *arguments)
    assert taken.returncode == 0, taken.stdout + taken.stderr
    again = deploy(deploy_home, *arguments)
    assert "unchanged" in again.stdout
    missing = deploy(deploy_home, *arguments[:2], "data.root=obs://bucket/sets/none", *arguments[3:])
    assert missing.returncode == 5
    assert "obs://bucket/sets/none/: there is nothing" in missing.stderr + missing.stdout
    assert "Traceback" not in missing.stderr + missing.stdout


def test_the_packed_code_is_all_that_a_job_needs(tmp_path: Path) -> None:
    files = packing.pack(tmp_path / "a", {"train": {}}, ["onnx>=1.16"])
    again = packing.pack(tmp_path / "b", {"train": {}}, ["onnx>=1.16"])
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]
    with zipfile.ZipFile(tmp_path / "a" / packing.CODE) as archive:
        archive.extractall(tmp_path / "code")
        assert not [name for name in archive.namelist() if "/remote/" in name or "/fleet/" in name or "/sim/" in name]
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import toolkit.learn.training_job, toolkit.learn.worker, "
        "toolkit.learn.training, toolkit.learn.exporting; "
        "print([n for n, m in sys.modules.items() if n.startswith('toolkit') "
        "and not m.__file__.startswith(sys.argv[1])])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "code")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert answer.stdout.strip().splitlines()[-1] == "[]"


def test_every_setting_of_the_shipped_groups_is_in_the_schema() -> None:
    from hydra import compose, initialize_config_dir

    config_store.register_resolvers()
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        config = config_store.load(compose("deploy", ["store=obs", "store.obs.secret_key=${secret:env,X}"]))
    assert config.store.obs.secret_key == "env:X"
    assert config.modelarts.max_hours == 24
