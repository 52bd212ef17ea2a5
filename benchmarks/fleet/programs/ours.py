"""The rollout with this project's own parts: what ``deploy`` does for each board, with another program.

Usage: ours.py SPEC.json. Says at the end, as JSON, what it counted.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from pathlib import Path

from toolkit.artefacts.hashing import walk_files
from toolkit.artefacts.manifest import Release
from toolkit.config.schema import EngineSettings, VerifySettings
from toolkit.errors import CommandFailed
from toolkit.fleet import plan
from toolkit.fleet.engine import interruptible, run_jobs
from toolkit.fleet.job import BoardJob, Session, deploy_board
from toolkit.fleet.journal import RunFolder
from toolkit.remote.address import Address, Limits

# The stages of boards, in their order and by their rules (stages/*.py), with the benchmark's program.


def push(session: Session) -> None:
    if session.todo(plan.INSTALL):
        session.install()


def env(session: Session) -> None:
    # With a new release the environment is written in the same step as the switch.
    if session.todo(plan.ENVIRONMENT) and not session.todo(plan.SWITCH):
        session.agent.set_environment(session.job.environment)


def infer(session: Session) -> None:
    if not session.todo(plan.RUN):
        return
    job = session.job
    argv = ["{python}", "{release}/run.py", "{release}", f"{{app}}/outputs/{job.run_id}"]
    report = session.agent.run(
        argv,
        release=job.release.id,
        cwd="{release}",
        env_file="{release}/env.sh",
        interpreters=job.interpreters,
        need=(),
        limit=job.infer_limit,
    )
    if report.status != 0:
        raise CommandFailed(f"{job.board}: {report.stderr_tail}", host=job.board, argv=argv, status=report.status)


def fetch(session: Session) -> None:
    job = session.job
    if session.todo(plan.RUN):
        session.agent.fetch(f"outputs/{job.run_id}", job.out, limit_bytes=1 << 30, limit_files=100_000)


def verify(session: Session) -> None:
    if session.todo(plan.SWITCH):
        session.switch()
    if session.todo(plan.VERIFY):
        session.confirm({})


STAGES = [("push", push), ("env", env), ("infer", infer), ("fetch", fetch), ("verify", verify)]


def main() -> int:
    begun = time.perf_counter()
    spec = json.loads(Path(sys.argv[1]).read_text())
    release_folder = Path(spec["release"])
    files = dict(walk_files(release_folder))
    release = Release.of_files("bench", files)
    environment = (release_folder / "env.sh").read_text()
    folder = RunFolder(Path(spec["runs"]), "", "apply")
    jobs = [
        BoardJob(
            board=board["name"],
            address=Address(
                name=board["name"],
                host=board["name"] if spec["client"] == "openssh" else board["host"],
                user=spec["user"],
                key_file=spec["key"],
                known_hosts=(spec["known_hosts"],),
                ssh_config=spec["ssh_config"],
                jump="none",
                client=spec["client"],
            ),
            limits=Limits(),
            root="~/HIAI_PROJECTS",
            app="bench",
            release=release,
            files=files,
            environment=environment,
            reference=(),
            program={"device": 0},
            interpreters=("python3",),
            run_id=folder.id,
            holder="benchmark",
            out=Path(spec["out"], board["name"]),
            infer_limit=60,
            gate=VerifySettings(),
            confirm_within=60,
        )
        for board in spec["boards"]
    ]
    if spec["client"] == "fabric":
        importlib.import_module("toolkit.remote.fabric_line")  # imported with the first line: not the connection's time
    stop = threading.Event()
    workers = EngineSettings().workers
    outcomes = []
    dialled = time.perf_counter()
    with interruptible(stop, folder.show):
        for outcome in run_jobs(jobs, lambda job: deploy_board(job, STAGES, folder.show), workers, stop):
            outcomes.append(outcome)
            folder.receipt(outcome.board, outcome.as_json())
            if not outcome.good:
                print(f"{outcome.board}: {outcome.stage}: {outcome.cause}: {outcome.message}", file=sys.stderr)
    folder.close()
    said = {
        "boards": len(outcomes),
        "statuses": sorted({outcome.status for outcome in outcomes}),
        "connections": sum(outcome.connections for outcome in outcomes),
        "requests": sum(outcome.requests for outcome in outcomes),
        "sent": sum(outcome.sent for outcome in outcomes),
        "received": sum(outcome.received for outcome in outcomes),
        "seconds": time.perf_counter() - dialled,
        "before": dialled - begun,
    }
    print(json.dumps(said))
    return 0 if all(outcome.good for outcome in outcomes) else 4


if __name__ == "__main__":
    sys.exit(main())
