"""Say what would be built and why, and change nothing.

    deploy plan +board=sim atc.precision_mode=must_keep_origin_dtype

With --detailed-exitcode it exits with 3 when something would be built.
"""

from __future__ import annotations

from stages import _registry
from stages._fleet import targets_of
from stages._invocation import Invocation
from toolkit import paths
from toolkit.artefacts.store import Store
from toolkit.pipeline import Step, walk

HELP = "what would be built and changed, and why; changes nothing"


def run(invocation: Invocation) -> int:
    store = Store(paths.home())
    targets = targets_of(invocation)
    steps: dict[tuple[str, str], Step] = {}
    for target in targets:
        for step in walk(_registry.build_stages(), target.config, store, ["package"]):
            steps.setdefault((step.stage, step.fingerprint or target.name), step)
    changes = [step for step in steps.values() if step.artefact is None]
    lines = [_line(step) for step in steps.values()]
    lines.append(f"{len(changes)} of {len(steps)} stages would run" if changes else "nothing to build")
    lines.append(f"boards: {', '.join(board.name for target in targets for board in target.boards)}")
    plan = [
        {
            "stage": step.stage,
            "runs": step.artefact is None,
            "reasons": list(step.reasons),
            "artefact": step.artefact.digest if step.artefact else None,
        }
        for step in steps.values()
    ]
    invocation.renderer.data({"plan": plan, "changes": len(changes)}, "\n".join(lines))
    return 3 if changes and invocation.flags.detailed_exitcode else 0


def _line(step: Step) -> str:
    if step.artefact is None:
        return f"+ {step.stage:<9} would run: {'; '.join(step.reasons)}"
    return f"· {step.stage:<9} unchanged, {step.artefact.digest[:12]}"
