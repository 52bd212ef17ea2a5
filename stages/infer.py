"""Inference on the board: the release's own program, from the staged release, on the release's pictures."""

from __future__ import annotations

from toolkit.fleet import program
from toolkit.fleet.job import Session
from toolkit.fleet.plan import RUN

NAME = "infer"
HELP = "run inference on the boards"

LOG = "infer.log"
"""What the program printed, beside the results."""


def run(session: Session) -> None:
    if not session.todo(RUN):
        session.skip(NAME, "ran before with the same release and settings")
        return
    job = session.job
    settings = job.program
    argv = [
        "{python}",
        "{release}/infer.py",
        *("--release", "{release}"),
        *("--pictures", "{release}/pictures"),
        *("--out", f"{{app}}/outputs/{job.run_id}"),
        *("--run", job.run_id),
        *("--top-k", str(settings["top_k"])),
        *("--device", str(settings["device"])),
        *("--warmup", str(settings["warmup"])),
    ]

    printed: list[str] = []

    def on_line(line: str) -> None:
        if line.startswith(program.PROGRESS):
            done, total = line.split()[1:3]
            session.say(NAME, f"{done}/{total} pictures", done=int(done), total=int(total), unit="pictures")
        else:
            printed.append(line)
            session.say(NAME, line, output=True)

    report = session.agent.run(
        argv,
        release=job.release.id,
        cwd="{release}",
        env_file="{release}/env.sh",
        interpreters=job.interpreters,
        limit=job.infer_limit,
        on_line=on_line,
    )
    session.report = report
    job.out.mkdir(parents=True, exist_ok=True)
    (job.out / LOG).write_text("\n".join([*printed, report.stderr_tail]).strip() + "\n", encoding="utf-8")
    if report.status != 0:
        raise program.failure(job.board, report)
