"""End trainings that go on elsewhere.

    deploy cancel
    deploy cancel train.where=ssh train.remote.host=… inventory=…

In ModelArts it ends the jobs of the app that were started from this folder and have not ended: which region and project
they are in is known here, only the keys are asked for. On a host it ends the one training that was started with the
same settings; what it learned up to its last whole epoch is kept there.
"""

from __future__ import annotations

from stages import _registry
from stages._invocation import Invocation
from stages._locking import open_store
from stages._training_host import training_host
from toolkit import paths, pipeline
from toolkit.artefacts.store import Store
from toolkit.cloud import jobs
from toolkit.learn import over_ssh
from toolkit.learn.settings import Where

HELP = "end a training in ModelArts or on a host"


def run(invocation: Invocation) -> int:
    """Ask for each job's end and wait for it."""
    others: list[str] = []
    if invocation.config.train.where is Where.ssh:
        ended = _on_host(invocation)
    else:
        ended = _in_the_cloud(invocation)
        running = jobs.running(Store(paths.home()).root)
        others = sorted({record.app for _, record in running} - {invocation.config.app.name})
    lines = [f"training job {item['job']}: {item['phase'].lower()}" for item in ended]
    found = "\n".join(lines) or "no training job" + (" of this app" if others else "") + " is running"
    more = [f"not ended, since it is of another app: deploy cancel app.name={app}" for app in others]
    invocation.renderer.data({"cancelled": ended, "other_apps": others}, "\n".join([found, *more]))
    return 0


def _in_the_cloud(invocation: Invocation) -> list[dict[str, str]]:
    config = invocation.config
    cloud = jobs.Cloud(config.store.obs, config.modelarts)
    ended = []
    for work, record in jobs.running(Store(paths.home()).root):
        if record.app != config.app.name:
            continue
        state = jobs.cancel(cloud.of(record), record, work)
        ended.append({"job": record.name, "phase": state.phase if state else "never created"})
    return ended


def _on_host(invocation: Invocation) -> list[dict[str, str]]:
    config, store = invocation.config, open_store(invocation)
    steps = {step.stage: step for step in pipeline.walk(_registry.build_stages(), config, store, ["train"])}
    # Without its pictures nothing was started from here; and what is in the store already runs nowhere.
    if not steps["train"].fingerprint or steps["train"].artefact is not None:
        return []
    name = store.work_folder("train", steps["train"].fingerprint).name
    with training_host(config) as host:
        before = over_ssh.cancel(host, name, invocation.renderer.show)
    return [{"job": f"{name} on {host.name}", "phase": "cancelled"}] if before == "running" else []
