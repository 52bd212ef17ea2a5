"""The course of a training for MLflow, where it is installed: a file store in the run's folder.

``mlflow ui --backend-store-uri runs/<id>/mlflow`` shows it. Nothing is sent anywhere.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METRICS = ("loss", "accuracy", "lr")


def write(folder: Path, report: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> bool:
    """Write a finished training into the MLflow file store ``folder``; False where MLflow is not installed.

    ``report``: what the worker returned; ``settings``: parameter → value, nested ones with dotted names.
    """
    if importlib.util.find_spec("mlflow") is None:
        return False
    # MLflow would ask its makers how it is used, and since version 3 warns of file stores or refuses them.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    tracking: Any = importlib.import_module("mlflow.tracking")
    entities: Any = importlib.import_module("mlflow.entities")
    client = tracking.MlflowClient(tracking_uri=folder.resolve().as_uri())
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    run = client.create_run(experiment, run_name=name).info.run_id
    now = int(time.time() * 1000)
    metrics = [
        entities.Metric(metric, float(row[metric]), now, int(row["epoch"]))
        for row in report["history"]
        for metric in METRICS
        if row.get(metric) is not None
    ]
    parameters = [entities.Param(key, str(value)) for key, value in _flat(settings)]
    client.log_batch(run, metrics=metrics, params=parameters)
    client.set_tag(run, "sha256", report["sha256"])
    client.set_terminated(run)
    return True


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return found
