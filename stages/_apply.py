"""Builds, rolls out, sums up: what ``deploy`` without a verb does, and ``deploy STAGE``."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from stages import _registry
from stages._asking import asker, confirm_fleet
from stages._boards import Answer, Lines, Place, apps_of, both, cut_short
from stages._converters import with_converters
from stages._engine import engine_of
from stages._fleet import Places, Target, inventory_of, limits_of, local_atc, reach, targets_of
from stages._invocation import Invocation, command_for
from stages._locking import keep_lock, open_store, recorder, signature_of
from stages._planning import (
    check_plan,
    content_of,
    make_plan,
    permits_of,
    program_of,
    read_plan,
    waves_of,
    where_of,
)
from stages._training_host import training_target
from toolkit import paths, pipeline, report
from toolkit.artefacts.store import Artefact, Store
from toolkit.cann.environment import converter_script, environment_script
from toolkit.config.schema import Config, GateSettings
from toolkit.errors import ConfigError, DeployError, Interrupted
from toolkit.fleet import journal
from toolkit.fleet.job import BoardJob, despite_ctrl_c
from toolkit.fleet.journal import RunFolder
from toolkit.fleet.outcome import Outcome, exit_code, held_before
from toolkit.fleet.plan import Plan
from toolkit.fleet.plan import to_text as plan_file
from toolkit.fleet.rollout import Hands, Trip, roll_out
from toolkit.learn.settings import Where
from toolkit.remote.agent import local_holder
from toolkit.ui.events import Emit, Event
from toolkit.ui.words import counted, who


def apply(invocation: Invocation, last: str = _registry.BOARD_ORDER[-1]) -> int:
    """Everything: build, roll out, verify, sum up. ``last``: the stage on the boards to stop after; only the last of
    all, ``verify``, switches them to the release."""
    planned: Plan | None = None
    if invocation.config.plan:
        invocation, planned = read_plan(invocation)
    targets = targets_of(invocation)
    confirm_fleet(invocation, targets, len(planned.waves if planned else waves_of(invocation, targets)))
    targets = with_converters(invocation, targets, invocation.renderer.show)
    store = open_store(invocation)
    missing = _missing(targets, store, ["package"])
    _check_training_host(targets, missing)
    needs_host = _needs_host(targets, missing)
    _, killed = cut_short(targets)
    run = RunFolder(paths.runs(), OmegaConf.to_yaml(invocation.composed), invocation.verb)
    emit = both(invocation, run)
    for line in killed:
        emit(Event("log", line, data={"show": True}))
    try:
        with reach(invocation, targets, build_host=needs_host) as places:
            if planned is not None:
                _check_planned(invocation, planned, targets, store, places, run, emit)
            stop = threading.Event()
            trip: Trip | None = None
            outcomes = _silence(invocation, targets, places, emit) if any(missing) else []
            if outcomes:
                missing = []  # for nobody nothing is built
                for outcome in outcomes:
                    emit(Event("outcome", outcome.message, outcome.stage, outcome.board, outcome.as_json()))
                    run.receipt(outcome.board, {"by": local_holder(), "ended": time.time(), **outcome.as_json()})
            else:
                if any(missing):
                    _check_converters(targets, missing, places, emit)
                    _check_local_atc(invocation, targets, needs_host)
                outcomes, trip = _roll_out(invocation, targets, store, places, run, emit, stop, planned, last)
        code = Interrupted.exit_code if stop.is_set() else exit_code(outcomes)
        emit(Event("summary", data={"exit_code": code}))
        built = list(dict.fromkeys(name for names in missing for name in names))
        invocation.renderer.outcomes(outcomes, _notes(invocation, run, outcomes, trip, built))
        return code
    except BaseException as error:
        run.show(Event("fail", f"{type(error).__name__}: {error}"))
        raise
    finally:
        run.close()
        # Also of a run that failed: that is when somebody wants to read it.
        report.write(run.path)


def run_stage(invocation: Invocation) -> int:
    """``deploy STAGE``: a stage and what it needs. After a stage on the boards they run what they ran before."""
    name = invocation.verb
    stages = _registry.build_stages()
    if name not in stages:
        return apply(invocation, name)
    store = open_store(invocation)
    config = invocation.config
    if name in ("data", "train", "export") and config.board is None and not _has_boards(config):
        targets = [Target("", config, ())]
    else:
        targets = targets_of(invocation)
    if name not in ("data", "train", "export"):
        targets = with_converters(invocation, targets, invocation.renderer.show)
    missing = _missing(targets, store, [name])
    _check_training_host(targets, missing)
    needs_host = _needs_host(targets, missing)
    _check_local_atc(invocation, targets, needs_host)
    run = RunFolder(paths.runs(), OmegaConf.to_yaml(invocation.composed), invocation.verb)
    emit = both(invocation, run)
    try:
        if needs_host:
            with reach(invocation, targets, build_host=True, boards_too=False) as places:
                _check_converters(targets, missing, places, emit)
                made = [
                    _build(target, store, [name], places, run, emit, invocation.flags.attach)[name]
                    for target in targets
                ]
        else:
            made = [_build(target, store, [name], None, run, emit, invocation.flags.attach)[name] for target in targets]
        for artefact in made:
            result = {"stage": name, "artefact": artefact.digest, "path": str(artefact.path)}
            invocation.renderer.data(result, f"{name}: {paths.relative(artefact.path)}")
            invocation.results.append({**result, "notes": artefact.notes, "seconds": artefact.seconds})
        run.show(Event("summary", data={"exit_code": 0}))
        return 0
    except BaseException as error:
        run.show(Event("fail", f"{type(error).__name__}: {error}"))
        raise
    finally:
        run.close()


def _has_boards(config: Config) -> bool:
    """Does an inventory name boards? One with nothing but a host to train on does not."""
    return config.inventory is not None and any(item.kind == "board" for item in inventory_of(config))


def _missing(targets: Sequence[Target], store: Store, wanted: list[str]) -> list[list[str]]:
    """The stages that would run, for each target."""
    stages = _registry.build_stages()
    return [
        [step.stage for step in pipeline.walk(stages, target.config, store, wanted) if step.artefact is None]
        for target in targets
    ]


def _check_planned(
    invocation: Invocation,
    planned: Plan,
    targets: Sequence[Target],
    store: Store,
    places: Places,
    run: RunFolder,
    emit: Emit,
) -> None:
    """Refuse before anything is touched what is not as it was when the plan was made."""
    (run.path / "plan.json").write_text(plan_file(planned, invocation.overrides), encoding="utf-8")
    check_plan(invocation, planned, make_plan(invocation, targets, store, places, emit))


def _needs_host(targets: Sequence[Target], missing: Sequence[Sequence[str]]) -> bool:
    """Does one of the stages that would run need a machine with CANN's tools? Such a stage has ``needs_host``."""
    modules = _registry.modules()
    return any(
        modules[name].needs_host(target.config)
        for target, names in zip(targets, missing, strict=True)
        for name in names
        if hasattr(modules[name], "needs_host")
    )


def _check_training_host(targets: Sequence[Target], missing: Sequence[Sequence[str]]) -> None:
    """Refuse before the data are made ready what could not be trained afterwards."""
    for target, names in zip(targets, missing, strict=True):
        if "train" in names and target.config.train.where is Where.ssh:
            training_target(target.config)


def _check_local_atc(invocation: Invocation, targets: Sequence[Target], needs_host: bool) -> None:
    """Refuse before training what could not be converted afterwards."""
    if not needs_host or invocation.config.simulate:
        return
    for target in targets:
        if target.config.convert.host in ("auto", "local") and not local_atc(converter_script(target.profile.cann)):
            raise ConfigError(
                "convert.host: there is no atc on this machine",
                hint="name a host with CANN's toolkit (convert.host=NAME of the inventory, or board), "
                "give a converted model (model.from=path.om), or simulate=true",
            )


def _check_converters(
    targets: Sequence[Target], missing: Sequence[Sequence[str]], places: Places, emit: Emit
) -> None:
    """Before a training: is the CANN that converts one whose work the boards can load, and has it all its tools?"""
    modules = _registry.modules()
    for target, names in zip(targets, missing, strict=True):
        tools = [modules[name].TOOL for name in names if hasattr(modules[name], "TOOL")]
        if "train" in names and tools and target.name in places.convert:
            places.convert[target.name].check(target.profile.cann.version, emit, tools)


def _silence(invocation: Invocation, targets: Sequence[Target], places: Places, emit: Emit) -> list[Outcome]:
    """Before minutes of training: is there a board to train for? One that answers is enough, and gives [].

    Otherwise how it ended for each of them. With --until-done those that are off are asked again until one answers."""
    delay = invocation.config.rollout.retry_first
    while True:
        outcomes = _ask_for_one(invocation, targets, places, emit)
        if not invocation.flags.until_done or not any(outcome.offline for outcome in outcomes):
            return outcomes
        text = f"none of {counted(len(outcomes), 'board')} answers; again in {delay:g} s"
        emit(Event("warning", text, stage="rollout"))
        time.sleep(delay)
        delay = min(2 * delay, invocation.config.rollout.retry_most)


def _ask_for_one(invocation: Invocation, targets: Sequence[Target], places: Places, emit: Emit) -> list[Outcome]:
    lines = Lines(emit)

    def look(place: Place) -> Outcome | None:
        begun = time.monotonic()
        try:
            with lines.agent(place) as agent:
                agent.inspect(place.target.profile.root, place.target.config.app.name)
            return None
        except DeployError as error:
            told = Answer(place, None, error).failure()
            return Outcome(place.name, stage="connect", seconds=round(time.monotonic() - begun, 3), **told)

    everyone = [Place(board, target, places.boards[board.name]) for target in targets for board in target.boards]
    pool = ThreadPoolExecutor(min(invocation.config.engine.workers, len(everyone)), "look")
    found = {}
    try:
        futures = [pool.submit(look, place) for place in everyone]
        for future in as_completed(futures):
            outcome = future.result()
            if outcome is None:
                return []
            found[outcome.board] = outcome
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        despite_ctrl_c(lines.close)
    return [found[place.name] for place in everyone]


def _build(
    target: Target,
    store: Store,
    wanted: list[str],
    places: Places | None,
    run: RunFolder,
    emit: Emit,
    attach: bool = False,
) -> dict[str, Artefact]:
    services: dict[str, Any] = {"run_folder": run.path, "attach": attach}
    if places is not None and target.name in places.convert:
        services["convert_host"] = places.convert[target.name]
    return pipeline.build(_registry.build_stages(), target.config, store, wanted, emit=emit, services=services)


def _roll_out(
    invocation: Invocation,
    targets: Sequence[Target],
    store: Store,
    places: Places,
    run: RunFolder,
    emit: Emit,
    stop: threading.Event,
    planned: Plan | None,
    last: str,
) -> tuple[list[Outcome], Trip | None]:
    jobs: list[BoardJob] = []
    begun = journal.begun(paths.runs(), apps_of(targets)) - {run.id}
    releases: dict[str, str] = {}
    packages: dict[str, str] = {}
    for target in targets:
        made = _build(target, store, ["package"], places, run, emit, invocation.flags.attach)
        jobs += board_jobs(invocation, target, made["package"], places, run, planned, begun)
        releases[target.name], packages[target.name] = jobs[-1].release.id, made["package"].digest
    keep_lock(invocation, targets, store, releases, run.path)
    settings = invocation.config.rollout
    if last != _registry.BOARD_ORDER[-1]:
        settings = replace(settings, gate=GateSettings())  # nothing is measured
    with engine_of(invocation, packages, last, emit, stop) as (deploy, revert, workers):
        hands = Hands(deploy, revert, asker(invocation, stop), recorder(run, jobs))
        return roll_out(
            jobs,
            settings,
            hands,
            workers=workers,
            emit=emit,
            stop=stop,
            until_done=invocation.flags.until_done,
            planned=planned.waves if planned else None,
        )


def board_jobs(
    invocation: Invocation,
    target: Target,
    package: Artefact,
    places: Places,
    run: RunFolder,
    planned: Plan | None = None,
    begun: frozenset[str] = frozenset(),
) -> list[BoardJob]:
    """One job for each board of a target: all of them share the release and what goes with it."""
    config, profile = target.config, target.profile
    content = content_of(target, package)
    reference = json.loads((package.path / "reference.json").read_text())["pictures"]
    environment, program, permits = environment_script(profile.cann), program_of(target), permits_of(target)
    signature = signature_of(invocation, content.release)
    return [
        BoardJob(
            board=board.name,
            address=places.boards[board.name],
            limits=limits_of(config),
            root=profile.root,
            app=config.app.name,
            release=content.release,
            files=content.files,
            environment=environment,
            reference=reference,
            program=program,
            interpreters=tuple(profile.interpreters),
            run_id=run.id,
            holder=local_holder(),
            out=run.path / board.name,
            infer_limit=config.infer.limit,
            gate=config.verify,
            confirm_within=config.rollout.confirm_within,
            target=target.name,
            where=where_of(invocation, places, board.name),
            labels=board.labels,
            permits=permits,
            planned=planned.of(board.name) if planned else None,
            signature=signature,
            store=paths.home(),
            deltas=config.ssh.deltas,
            keep_releases=config.rollout.keep_releases,
            heat=_heat(invocation, target),
            begun=begun,
        )
        for board in target.boards
    ]


def _heat(invocation: Invocation, target: Target) -> str:
    """The setting for which the boards' temperature is measured; "" = none."""
    if target.config.verify.max_temperature is not None:
        return "verify.max_temperature"
    return "rollout.gate.max_temperature" if invocation.config.rollout.gate.max_temperature is not None else ""


def _notes(
    invocation: Invocation, run: RunFolder, outcomes: Sequence[Outcome], trip: Trip | None, built: Sequence[str]
) -> list[str]:
    """What is to be said at the end. ``built``: the stages that ran."""
    notes = []
    if trip is not None:
        back = sum(item.status == "reverted" for item in outcomes)
        was = "was" if back == 1 else "were"
        notes.append(f"stopped: {trip.why}" + (f"; {counted(back, 'board')} {was} put back" if back else ""))
        kept = [item.board for item in outcomes if item.cause == "not-reverted"]
        if kept:
            notes.append(f"could not be put back: {', '.join(kept)}")
    if held := [item.board for item in held_before(outcomes)]:
        notes.append(
            f"ran the refused release before and keep it: {who(held)}; "
            f"to put them back: {command_for(invocation, 'rollback', held)}"
        )
    largest = [o.figures["difference"] for o in outcomes if o.figures.get("difference") is not None]
    if largest:
        notes.append(f"largest difference between a board and the reference: {max(largest):.2g}")
    for count, total, names in _unread(outcomes):
        notes.append(f"{count} of {counted(total, 'picture')} could not be read on {who(names)}")
    if any(item.status == "ok" and (run.path / item.board).is_dir() for item in outcomes):
        notes.append(f"pictures and results: {paths.relative(run.path)}/<board>/")
    if any(item.status != "unchanged" for item in outcomes):
        notes.append(f"report: {paths.relative(run.path)}/report.html")
    else:
        notes.append(
            f"no board changed: what was built ({', '.join(built)}) gave what they have"
            if built
            else "nothing changed: nothing was trained, converted or sent"
        )
    return notes


def _unread(outcomes: Sequence[Outcome]) -> list[tuple[int, int, list[str]]]:
    """How many pictures of how many could not be read, and on which boards."""
    found: dict[tuple[int, int], list[str]] = {}
    for item in outcomes:
        failed, total = item.figures.get("failed") or (), item.figures.get("answers") or 0
        if item.status == "ok" and failed and total:
            found.setdefault((len(failed), int(total)), []).append(item.board)
    return [(*counts, names) for counts, names in found.items()]
