"""Inference on the board: the release's own program, from the staged release, on the release's pictures."""

from __future__ import annotations

from toolkit.cann import catalogue
from toolkit.errors import CommandFailed
from toolkit.fleet.job import Session
from toolkit.fleet.plan import RUN

NAME = "infer"
HELP = "run inference on the boards"

# Exit codes of the board's program (toolkit/onboard/infer.py).
MEANING = {
    4: "none of the pictures could be read",
    5: "there are no pictures",
    6: "a call of pyACL failed",
    7: "the module acl cannot be imported",
}


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

    def on_line(line: str) -> None:
        if line.startswith("@progress "):
            done, total = line.split()[1:3]
            session.say(NAME, f"{done}/{total} pictures", done=int(done), total=int(total), unit="pictures")
        else:
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
    if report.status != 0:
        tail = (report.stderr_tail or report.stdout_tail).strip()
        entry = catalogue.explain(report.stderr_tail + "\n" + report.stdout_tail)
        last = tail.splitlines()[-1] if tail else ""
        meaning = MEANING.get(report.status, f"infer.py ended with status {report.status}")
        raise CommandFailed(
            f"{job.board}: {meaning}" + (f": {last}" if last else ""),
            host=job.board,
            hint=f"{entry.cause}: {entry.fix}" if entry else "",
            detail=tail,
            argv=argv,
            status=report.status,
        )
