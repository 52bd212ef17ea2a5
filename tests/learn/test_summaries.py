"""What MLflow, a real one in an environment of its own, reads of a training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.interpreters import venv_with
from toolkit.learn import summaries

CHECKOUT = Path(__file__).resolve().parents[2]
REPORT = {
    "sha256": "ab" * 32,
    "history": [
        {"epoch": 1, "loss": 1.5, "accuracy": None, "lr": 0.01, "seconds": 3.0},
        {"epoch": 2, "loss": 0.5, "accuracy": 0.75, "lr": 0.05, "seconds": 3.0},
    ],
}
SETTINGS = {"train": {"lr_max": 0.05, "decay": "cosine"}, "model": {"name": "resnet8"}}

WRITE = "import json, sys; from pathlib import Path; from toolkit.learn import summaries\n"
WRITE += "print(summaries.write(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]), 'digits'))"

READ = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
(experiment,) = [item for item in client.search_experiments() if item.name == "digits"]
runs = client.search_runs([experiment.experiment_id])
run = runs[0]
course = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
history = {key: [(m.step, m.value) for m in metrics] for key, metrics in course.items()}
print(json.dumps([len(runs), run.info.status, run.data.params, history, run.data.tags["sha256"]]))
"""


def test_mlflow_reads_parameters_and_metrics(tmp_path: Path) -> None:
    python = venv_with("3.11", "mlflow-skinny>=2.20")
    environment = {"PYTHONPATH": str(CHECKOUT), "HOME": str(tmp_path), "MLFLOW_ALLOW_FILE_STORE": "true"}
    store = tmp_path / "run folder" / "mlflow"

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [python, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    for _ in range(2):  # the second training of a sweep goes beside the first
        assert run(WRITE, str(store), json.dumps(REPORT), json.dumps(SETTINGS)) == "True"
    count, status, parameters, history, sha256 = json.loads(run(READ, store.as_uri()))
    assert (count, status, sha256) == (2, "FINISHED", "ab" * 32)
    assert parameters == {"train.lr_max": "0.05", "train.decay": "cosine", "model.name": "resnet8"}
    assert history == {"loss": [[1, 1.5], [2, 0.5]], "accuracy": [[2, 0.75]], "lr": [[1, 0.01], [2, 0.05]]}
    there = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert there - {"home"} == {"run folder"}


def test_without_mlflow_nothing_is_written(tmp_path: Path) -> None:
    code = "import sys; sys.modules['mlflow'] = None\n" + WRITE.replace("print(", "assert not (")
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m"), json.dumps(REPORT), "{}"],
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(CHECKOUT)},
    )
    assert not (tmp_path / "m").exists()
    assert summaries.METRICS == ("loss", "accuracy", "lr")
