"""From a call to its plan: the build steps of every target, the boards as they are, the settings that
decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages import _registry
from stages._fleet import Places, Target, limits_of
from stages._invocation import Invocation, again, split_boards
from stages._loading import load
from toolkit import pipeline
from toolkit.artefacts.hashing import digest_data, walk_files
from toolkit.artefacts.lock import key_of
from toolkit.artefacts.manifest import Release
from toolkit.artefacts.store import Artefact, Store
from toolkit.cann.environment import environment_script
from toolkit.errors import InputError, PlanError
from toolkit.fleet import plan as planning
from toolkit.fleet.plan import BoardFacts, BoardPlan, BoardWish, BuildStep, Permits, Plan
from toolkit.fleet.survey import Probe, survey
from toolkit.fleet.waves import waves
from toolkit.ui.events import Emit

# They decide how fast and how long, not what.
_UNDECISIVE = ("rollout.concurrency", "rollout.retry_first", "rollout.retry_most")


@dataclass(frozen=True)
class Content:
    """What one target's boards get: its release, the files behind it, and what its pictures should give."""

    release: Release
    files: Mapping[str, Path]


def content_of(target: Target, package: Artefact) -> Content:
    """The release that the stage ``package`` made."""
    files = dict(walk_files(package.path))
    profile = target.profile
    meta = {"soc_version": profile.soc_version, "cann": profile.cann.version, "profile": profile.profile}
    return Content(Release.of_files(target.config.app.name, files, meta), files)


def program_of(target: Target) -> dict[str, Any]:
    """Settings of a board's run that its results depend on."""
    infer = target.config.infer
    return {"top_k": infer.top_k, "device": infer.device, "warmup": infer.warmup}


def permits_of(target: Target) -> Permits:
    rollout = target.config.rollout
    return Permits(take_over=rollout.take_over, break_lock=rollout.break_lock)


def build_steps(target: Target, store: Store) -> tuple[list[BuildStep], Artefact | None]:
    """The build part of a plan for one target, and its package where that is made already."""
    stages = _registry.build_stages()
    fixes: dict[str, str] = {}
    steps = []
    package = None
    for step in pipeline.walk(stages, target.config, store, ["package"]):
        stage = stages[step.stage]
        needs = {need: fixes[need] for need in stage.needs(target.config)}
        fixes[step.stage] = digest_data(pipeline.fingerprint_parts(stage, target.config, needs))
        digest = step.artefact.digest if step.artefact else ""
        steps.append(BuildStep(step.stage, target.name, fixes[step.stage], step.fingerprint, digest, step.reasons))
        package = step.artefact if step.stage == "package" else package
    return steps, package


def waves_of(invocation: Invocation, targets: Sequence[Target]) -> list[list[str]]:
    """Who comes when."""
    labels = {board.name: board.labels for target in targets for board in target.boards}
    return waves(labels, invocation.config.rollout)


def make_plan(
    invocation: Invocation, targets: Sequence[Target], store: Store, places: Places | None, emit: Emit
) -> Plan:
    """The plan of a call. Reads the boards, one request each; without ``places`` there is only the build
    part."""
    steps: list[BuildStep] = []
    probes: list[Probe] = []
    wishes: dict[str, tuple[Target, BoardWish]] = {}
    for target in targets:
        found, package = build_steps(target, store)
        steps += found
        content = content_of(target, package) if package else None
        wish = _wish(target, content)
        for board in target.boards if places is not None else ():
            assert places is not None
            wishes[board.name] = (target, wish)
            probes.append(
                Probe(
                    board.name,
                    places.boards[board.name],
                    limits_of(target.config),
                    target.profile.root,
                    target.config.app.name,
                    content.release if content else None,
                    wish.environment,
                    wish.run_key,
                )
            )
    facts = survey(probes, invocation.config.engine.workers, emit)
    return Plan(
        _settings(invocation, targets),
        tuple(steps),
        tuple(_board_plan(invocation, name, facts[name], *wish, places) for name, wish in wishes.items()),
        tuple(tuple(wave) for wave in waves_of(invocation, targets)),
    )


def _wish(target: Target, content: Content | None) -> BoardWish:
    environment = environment_script(target.profile.cann)
    if content is None:
        return BoardWish(environment=environment)
    release = content.release
    run_key = digest_data({"release": release.id, "program": program_of(target)})
    return BoardWish(release.id, {file.sha256: file.size for file in release.files}, environment, run_key)


def _board_plan(
    invocation: Invocation,
    name: str,
    facts: BoardFacts,
    target: Target,
    wish: BoardWish,
    places: Places | None,
) -> BoardPlan:
    where = where_of(invocation, places, name) if places else ""
    return planning.decide(name, facts, wish, permits_of(target), target.name, where)


def where_of(invocation: Invocation, places: Places, board: str) -> str:
    """A board's address as a plan fixes it. Simulated ones get a free port anew each time."""
    address = places.boards[board]
    return "" if invocation.config.simulate else f"{address.user}@{address.host}:{address.port}"


def _settings(invocation: Invocation, targets: Sequence[Target]) -> dict[str, Any]:
    """Dotted key → value of what decides beside the build; of each target where they are several."""
    found: dict[str, Any] = dict(_flat("rollout", invocation.config.rollout))
    for target in targets:
        prefix = f"{target.name}: " if len(targets) > 1 else ""
        config = target.config
        own = {
            "app.name": config.app.name,
            "board.root": target.profile.root,
            **{f"infer.{name}": value for name, value in program_of(target).items()},
            **dict(_flat("verify", config.verify)),
        }
        found |= {prefix + name: value for name, value in own.items()}
    return {name: value for name, value in found.items() if name not in _UNDECISIVE}


def _flat(prefix: str, settings: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in vars(settings).items():
        if hasattr(value, "__dataclass_fields__"):
            found += _flat(f"{prefix}.{name}", value)
        else:
            found.append((f"{prefix}.{name}", value))
    return found


# -- plan files


def overrides_of(invocation: Invocation) -> list[str]:
    """What was typed, without what belongs to one call only."""
    return [item for item in invocation.overrides if key_of(item) not in ("out", "plan")]


def read_plan(invocation: Invocation) -> tuple[Invocation, Plan]:
    """The plan that ``plan=FILE`` names, and the call with what was typed when it was made; what is typed now
    wins.

    :raises InputError: there is no such file, or it is no plan. PlanError: it was edited.
    """
    name = invocation.config.plan
    assert name
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"plan={name}: {error}", hint="deploy plan … out=FILE writes one") from error
    plan, stored = planning.from_text(text, name)
    typed = {key_of(item) for item in invocation.overrides}
    extra, of_boards = split_boards([item for item in stored if key_of(item) not in typed])
    composed = invocation.compose(extra)
    compose = invocation.compose
    return (
        replace(
            invocation,
            composed=composed,
            config=load(composed, invocation.renderer.show),
            overrides=[*invocation.overrides, *extra, *of_boards],
            of_boards=[*invocation.of_boards, *of_boards],
            compose=lambda more: compose([*extra, *more]),
        ),
        plan,
    )


def check_plan(invocation: Invocation, planned: Plan, now: Plan) -> None:
    """Refuse what is not as it was planned, naming every difference."""
    name = str(invocation.config.plan)
    if planned.digest == now.digest:
        return
    found = planning.differences(planned, now)
    if found:
        shown = "; ".join(found[:8]) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")
        raise PlanError(
            f"plan={name}: changed since it was made: {shown}",
            hint=f"look at it and make it again: {again(invocation, 'plan', f'out={name}')}",
        )
