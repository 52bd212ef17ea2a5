"""Builds, rolls out, sums up: what ``deploy`` without a verb does, and ``deploy STAGE``."""

from __future__ import annotations

import getpass
import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from stages import _registry
from stages._fleet import Places, Target, limits_of, local_atc, reach, targets_of
from stages._invocation import Invocation
from toolkit import paths, pipeline
from toolkit.artefacts.hashing import walk_files
from toolkit.artefacts.manifest import Release
from toolkit.artefacts.store import Artefact, Store
from toolkit.cann.environment import environment_script, toolkit_script
from toolkit.errors import ConfigError, Interrupted, RemoteError
from toolkit.fleet.engine import run_jobs
from toolkit.fleet.job import BoardJob, deploy_board
from toolkit.fleet.journal import RunFolder
from toolkit.fleet.outcome import Outcome, exit_code
from toolkit.remote.agent import BoardAgent
from toolkit.ui.events import Emit, Event


def apply(invocation: Invocation) -> int:
    """Everything: build, roll out, verify, sum up."""
    targets = targets_of(invocation)
    store = Store(paths.home())
    missing = _missing(targets, store, ["package"])
    needs_host = any("convert" in names for names in missing.values())
    run = RunFolder(paths.runs(), OmegaConf.to_yaml(invocation.composed), invocation.verb)
    emit = _both(invocation, run)
    try:
        with reach(invocation, targets, build_host=needs_host) as places:
            if any(missing.values()):
                _someone_answers(targets, places, emit)
                _check_local_atc(invocation, targets, needs_host)
            stop = threading.Event()
            outcomes = _roll_out(invocation, targets, store, places, run, emit, stop)
        code = Interrupted.exit_code if stop.is_set() else exit_code(outcomes)
        emit(Event("summary", data={"exit_code": code}))
        invocation.renderer.outcomes(outcomes, _notes(run, outcomes))
        return code
    except BaseException as error:
        run.show(Event("fail", f"{type(error).__name__}: {error}"))
        raise
    finally:
        run.close()


def run_stage(invocation: Invocation) -> int:
    """``deploy STAGE``: a build stage and what it needs; a board stage means the whole way to it."""
    name = invocation.verb
    stages = _registry.build_stages()
    if name not in stages:
        return apply(invocation)
    store = Store(paths.home())
    config = invocation.config
    if name in ("data", "train", "export") and config.board is None and config.inventory is None:
        targets = [Target("", config, ())]
    else:
        targets = targets_of(invocation)
    missing = _missing(targets, store, [name])
    needs_host = any("convert" in names for names in missing.values())
    _check_local_atc(invocation, targets, needs_host)
    run = RunFolder(paths.runs(), OmegaConf.to_yaml(invocation.composed), invocation.verb)
    emit = _both(invocation, run)
    try:
        if needs_host:
            with reach(invocation, targets, build_host=True) as places:
                made = [_build(target, store, [name], places, run, emit, invocation.flags.attach)[name] for target in targets]
        else:
            made = [_build(target, store, [name], None, run, emit, invocation.flags.attach)[name] for target in targets]
        for artefact in made:
            invocation.renderer.data(
                {"stage": name, "artefact": artefact.digest, "path": str(artefact.path)},
                f"{name}: {_relative(artefact.path)}",
            )
        return 0
    finally:
        run.close()


def _both(invocation: Invocation, run: RunFolder) -> Emit:
    def emit(event: Event) -> None:
        run.show(event)
        invocation.renderer.show(event)

    return emit


def _missing(targets: list[Target], store: Store, wanted: list[str]) -> dict[str, list[str]]:
    """Target → the stages that would run for it."""
    return {
        target.name: [
            step.stage
            for step in pipeline.walk(_registry.build_stages(), target.config, store, wanted)
            if step.artefact is None
        ]
        for target in targets
    }


def _check_local_atc(invocation: Invocation, targets: list[Target], needs_host: bool) -> None:
    """Refuse before training what could not be converted afterwards."""
    if not needs_host or invocation.config.simulate:
        return
    for target in targets:
        if target.config.convert.host in ("auto", "local") and not local_atc(toolkit_script(target.profile.cann)):
            raise ConfigError(
                "convert.host: there is no atc on this machine",
                hint="name a host with CANN's toolkit (convert.host=NAME of the inventory, or board), "
                "give a converted model (model.from=path.om), or simulate=true",
            )


def _someone_answers(targets: list[Target], places: Places, emit: Emit) -> None:
    """Before minutes of training: is there a board to train for? One that answers is enough."""
    last: RemoteError | None = None
    for target in targets:
        for board in target.boards:
            try:
                with BoardAgent.connect(places.boards[board.name], limits_of(target.config), emit) as agent:
                    agent.inspect(target.profile.root, target.config.app.name)
                return
            except RemoteError as error:
                last = error
    if last is not None:
        raise last


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
    return pipeline.build(
        _registry.build_stages(), target.config, store, wanted, emit=emit, services=services
    )


def _roll_out(
    invocation: Invocation,
    targets: list[Target],
    store: Store,
    places: Places,
    run: RunFolder,
    emit: Emit,
    stop: threading.Event,
) -> list[Outcome]:
    jobs: list[BoardJob] = []
    for target in targets:
        made = _build(target, store, ["package"], places, run, emit, invocation.flags.attach)
        jobs += _jobs(target, made["package"], places, run)
    stages = _registry.board_stages()
    engine = invocation.config.engine
    outcomes = []
    for outcome in run_jobs(jobs, lambda job: deploy_board(job, stages, emit), engine.workers, emit, stop):
        outcomes.append(outcome)
        run.receipt(outcome.board, outcome.as_json())
    order = {job.board: number for number, job in enumerate(jobs)}
    return sorted(outcomes, key=lambda item: order[item.board])


def _jobs(target: Target, package: Artefact, places: Places, run: RunFolder) -> list[BoardJob]:
    config, profile = target.config, target.profile
    files = dict(walk_files(package.path))
    release = Release.of_files(
        config.app.name,
        files,
        {"soc_version": profile.soc_version, "cann": profile.cann.version, "profile": profile.profile},
    )
    reference = json.loads((package.path / "reference.json").read_text())["pictures"]
    return [
        BoardJob(
            board=board.name,
            address=places.boards[board.name],
            limits=limits_of(config),
            root=profile.root,
            app=config.app.name,
            release=release,
            files=files,
            environment=environment_script(profile.cann),
            reference=reference,
            program={"top_k": config.infer.top_k, "device": config.infer.device, "warmup": config.infer.warmup},
            interpreters=tuple(profile.interpreters),
            run_id=run.id,
            holder=f"{getpass.getuser()}@{socket.gethostname()}",
            out=run.path / board.name,
            infer_limit=config.infer.limit,
            tolerance=config.verify.max_difference,
            confirm_within=config.rollout.confirm_within,
        )
        for board in target.boards
    ]


def _notes(run: RunFolder, outcomes: list[Outcome]) -> list[str]:
    notes = []
    largest = [o.figures["difference"] for o in outcomes if o.figures.get("difference") is not None]
    if largest:
        notes.append(f"largest difference between a board and the reference: {max(largest):.2g}")
    if any(item.status == "ok" for item in outcomes):
        notes.append(f"pictures and results: {_relative(run.path)}/<board>/")
    elif outcomes and all(item.status == "unchanged" for item in outcomes):
        notes.append("nothing changed: nothing was trained, converted or sent")
    return notes


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


