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
from toolkit.pipeline import walk

HELP = "what would be built and changed, and why; changes nothing"


def run(invocation: Invocation) -> int:
    store = Store(paths.home())
    changes = 0
    seen: set[tuple[str, str]] = set()
    plan: list[dict[str, object]] = []
    for target in targets_of(invocation):
        for step in walk(_registry.build_stages(), target.config, store, ["package"]):
            key = (step.stage, step.fingerprint or target.name)
            if key in seen:
                continue
            seen.add(key)
            changes += step.artefact is None
            plan.append(
                {
                    "stage": step.stage,
                    "runs": step.artefact is None,
                    "reasons": list(step.reasons),
                    "artefact": step.artefact.digest if step.artefact else None,
                }
            )
            if step.artefact is None:
                text = f"would run: {'; '.join(step.reasons)}"
                invocation.renderer.line(f"[yellow]+[/] [bold]{step.stage:<9}[/] {text}")
            else:
                invocation.renderer.line(
                    f"[dim]·[/] [bold]{step.stage:<9}[/] unchanged, {step.artefact.digest[:12]}"
                )
    text = f"{changes} of {len(plan)} stages would run" if changes else "nothing to build"
    invocation.renderer.data({"plan": plan, "changes": changes}, text)
    return 3 if changes and invocation.flags.detailed_exitcode else 0
