"""Say what would be built and changed and why, and change nothing.

    deploy plan +board=sim atc.precision_mode=must_keep_origin_dtype
    deploy plan inventory=mine out=monday.plan
    deploy apply plan=monday.plan

Reads the boards, one request each. With out=FILE the plan is kept: `deploy apply plan=FILE` carries out
exactly that plan, or refuses (exit 7) and names what changed meanwhile.

With --detailed-exitcode it exits with 3 when something would be built, or changed on a board. Settings that only
concern inference, such as infer.top_k=3, change nothing in this sense. It exits with 4 when nothing would change as
far as is known, but some boards could not be asked or would be refused, and with 5 when that is true of all.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from stages._boards import cut_short, exit_code
from stages._converters import with_converters
from stages._fleet import reach, targets_of
from stages._invocation import Invocation
from stages._locking import open_store
from stages._planning import make_plan, overrides_of
from toolkit.artefacts.store import write_atomically
from toolkit.errors import InputError
from toolkit.fleet.plan import to_text
from toolkit.fleet.plan_text import text_of, unique_steps

HELP = "what would be built and changed, and why; changes nothing"


def run(invocation: Invocation) -> int:
    targets = with_converters(invocation, targets_of(invocation), invocation.renderer.show)
    with reach(invocation, targets, build_host=False) as places:
        plan = make_plan(invocation, targets, open_store(invocation), places, invocation.renderer.show)
    killed, lines = cut_short(targets)
    out = invocation.config.out
    if out:
        try:
            write_atomically(
                Path(out).expanduser().absolute(), to_text(plan, overrides_of(invocation)).encode()
            )
        except OSError as error:
            raise InputError(f"out={out}: {error}") from error
    steps = [
        {
            "stage": step.stage,
            "runs": step.runs,
            "reasons": list(step.reasons),
            "fingerprint": step.fingerprint,
            "artefact": step.artefact or None,
            "targets": list(names),
        }
        for step, names in unique_steps(plan.steps)
    ]
    result = {
        "plan": steps,
        "changes": plan.changes,
        "digest": plan.digest,
        "boards": [asdict(board) for board in plan.boards],
        "waves": plan.waves,
        "out": out,
        "cut_short": killed or None,
    }
    text = text_of(plan) + (f", kept in {out}" if out else "")
    invocation.renderer.data(result, "\n".join([*lines, text]))
    if not invocation.flags.detailed_exitcode:
        return 0
    return 3 if plan.changes else exit_code(sum(bool(board.cause) for board in plan.boards), len(plan.boards))
