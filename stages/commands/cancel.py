"""End the training jobs in ModelArts that were started from this folder and have not ended.

    deploy cancel store=obs store.obs.bucket=… modelarts.project_id=…

takes the settings that the job was started with; only jobs of the same app are ended.
"""

from __future__ import annotations

from stages._invocation import Invocation
from toolkit import paths
from toolkit.artefacts.store import Store
from toolkit.cloud import jobs

HELP = "end a training job in ModelArts"


def run(invocation: Invocation) -> int:
    """Ask for each job's end and wait for it."""
    config = invocation.config
    cloud = jobs.Cloud(config.store.obs, config.modelarts)
    ended = []
    for work, record in jobs.running(Store(paths.home()).root):
        if record.app != config.app.name:
            continue
        state = jobs.cancel(cloud, record, work)
        ended.append({"job": record.name, "phase": state.phase if state else "never created"})
    lines = [f"training job {item['job']}: {item['phase'].lower()}" for item in ended]
    invocation.renderer.data({"cancelled": ended}, "\n".join(lines) or "no training job is running")
    return 0
