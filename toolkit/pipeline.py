"""The build stages as a graph: runs what is missing, explains what it skips.

A stage is a module (see :class:`Stage`). Its *fingerprint* covers all that decides its result: its
settings, the digests of its inputs (other stages' artefacts and the user's own files), its tools' versions,
the version number of its code. Where an artefact with that fingerprint is in the store the stage is
skipped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from toolkit.artefacts.hashing import digest_data, digest_file, digest_folder
from toolkit.artefacts.shared import Damaged
from toolkit.artefacts.store import Artefact, Store
from toolkit.config.schema import Config
from toolkit.errors import InputError
from toolkit.ui.events import Emit, Event, ignore


@dataclass(frozen=True)
class Context:
    """What a stage gets to work with.

    inputs:
        the folders of the stages it needs, by name.
    out:
        an empty folder for its result.
    work:
        a folder of its own that outlives an interruption (checkpoints).
    services:
        things of the run that decide nothing about the result, such as how to reach the build host.
    """

    config: Config
    inputs: Mapping[str, Path]
    out: Path
    work: Path
    emit: Emit
    services: Mapping[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Tell people something worth a line."""
        self.emit(Event("log", text, data={"show": True}))


class Stage(Protocol):
    """One build stage: a module with these names."""

    NAME: str
    VERSION: int  # raised when the code changes what it makes
    HELP: str

    def needs(self, config: Config) -> Sequence[str]:
        """The stages whose results this one reads."""

    def settings(self, config: Config) -> Mapping[str, Any]:
        """What in the config decides the result; plain data."""

    def tools(self, config: Config) -> Mapping[str, str]:
        """Name → version of what the result depends on besides our code."""

    def files(self, config: Config) -> Mapping[str, Path]:
        """Setting → file or folder of the user's own that the result depends on."""

    def run(self, context: Context) -> Mapping[str, Any]:
        """Make the result in ``context.out``; return notes."""


@dataclass(frozen=True)
class Step:
    """One stage of a plan. ``reasons`` say why it runs; empty where its artefact is at hand."""

    stage: str
    fingerprint: str  # "" while an input is not made yet
    artefact: Artefact | None
    reasons: tuple[str, ...]


def order(stages: Mapping[str, Stage], config: Config, wanted: Sequence[str]) -> list[str]:
    """Return ``wanted`` and all they need, each after what it needs."""
    done: list[str] = []

    def visit(name: str) -> None:
        if name not in done:
            for need in stages[name].needs(config):
                visit(need)
            done.append(name)

    for name in wanted:
        visit(name)
    return done


def fingerprint_parts(stage: Stage, config: Config, digests: Mapping[str, str]) -> dict[str, Any]:
    """All that decides a stage's result, as plain data.

    ``digests`` are those of the artefacts it needs, by stage name.
    """
    files: dict[str, str] = {}
    for key, path in stage.files(config).items():
        if not path.exists():
            raise InputError(f"{key}: {path} does not exist")
        files[key] = digest_folder(path) if path.is_dir() else digest_file(path)
    return {
        "stage": stage.NAME,
        "version": stage.VERSION,
        "settings": dict(stage.settings(config)),
        "tools": dict(stage.tools(config)),
        "files": files,
        "inputs": dict(digests),
    }


def walk(stages: Mapping[str, Stage], config: Config, store: Store, wanted: Sequence[str]) -> Iterator[Step]:
    """Say step by step what would run and why; changes nothing.

    Behind a stage that would run, the digests of inputs are unknown: those steps have no fingerprint. The
    artefacts of ``wanted`` are in the store's folder, so that they can be read.
    """
    if store.pins is not None:
        yield from store.pins.steps(stages, config, store, wanted)
        return
    digests: dict[str, str | None] = {}
    for name in order(stages, config, wanted):
        stage = stages[name]
        needs = list(stage.needs(config))
        unknown = [need for need in needs if digests[need] is None]
        if unknown:
            # What is wrong with its settings or files comes out now, not after an hour of training.
            fingerprint_parts(stage, config, {})
            digests[name] = None
            yield Step(name, "", None, tuple(f"{need} runs" for need in unknown))
            continue
        parts = fingerprint_parts(stage, config, {need: digests[need] or "" for need in needs})
        fingerprint = digest_data(parts)
        artefact = store.find(name, fingerprint)
        if artefact is not None and name in wanted:
            try:
                store.bring(artefact)
            except Damaged:
                artefact = None
        digests[name] = artefact.digest if artefact else None
        reasons = () if artefact else explain(parts, store.latest(name, config.app.name))
        yield Step(name, fingerprint, artefact, tuple(reasons))


def build(
    stages: Mapping[str, Stage],
    config: Config,
    store: Store,
    wanted: Sequence[str],
    *,
    emit: Emit = ignore,
    services: Mapping[str, Any] | None = None,
) -> dict[str, Artefact]:
    """Run what is missing of ``wanted`` and what they need; return every artefact by stage name.

    Those of ``wanted`` are in the store's folder; what was only needed to find them may lie in the shared
    one.
    """
    if store.pins is not None:
        return {step.stage: step.artefact for step in store.pins.steps(stages, config, store, wanted)}
    while True:
        try:
            made = _build(stages, config, store, wanted, emit, services or {})
            for name in wanted:
                store.bring(made[name])
            return made
        except Damaged as damage:  # counts as missing from now on
            emit(Event("warning", f"{damage}: {damage.hint}"))


def _build(
    stages: Mapping[str, Stage],
    config: Config,
    store: Store,
    wanted: Sequence[str],
    emit: Emit,
    services: Mapping[str, Any],
) -> dict[str, Artefact]:
    made: dict[str, Artefact] = {}
    for name in order(stages, config, wanted):
        stage = stages[name]
        inputs = {need: made[need] for need in stage.needs(config)}
        parts = fingerprint_parts(stage, config, {need: item.digest for need, item in inputs.items()})
        fingerprint = digest_data(parts)
        busy = Event("warning", "another deploy in this folder makes this: waiting for it", stage=name)
        with store.lock(name, fingerprint, partial(emit, busy)):
            artefact = store.find(name, fingerprint)
            if artefact is not None:
                told = {"notes": dict(artefact.notes), "artefact": artefact.digest}
                emit(Event("skip", "unchanged", stage=name, data=told))
            else:
                reasons = explain(parts, store.latest(name, config.app.name))
                inputs = {need: store.bring(item) for need, item in inputs.items()}
                artefact = _make(stage, config, store, fingerprint, parts, inputs, reasons, emit, services)
            store.share(name, fingerprint, artefact)
        made[name] = artefact
    return made


def _make(
    stage: Stage,
    config: Config,
    store: Store,
    fingerprint: str,
    parts: Mapping[str, Any],
    inputs: Mapping[str, Artefact],
    reasons: Sequence[str],
    emit: Emit,
    services: Mapping[str, Any],
) -> Artefact:
    work = store.work_folder(stage.NAME, fingerprint)
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)  # half a result of an interrupted run is no result
    out.mkdir()

    def tagged(event: Event) -> None:
        emit(Event(event.kind, event.text, event.stage or stage.NAME, event.board, event.data, event.time))

    tagged(Event("start", "; ".join(reasons)))
    begun = time.monotonic()
    context = Context(
        config, {name: item.path for name, item in inputs.items()}, out, work, tagged, services
    )
    try:
        notes = stage.run(context)
    except BaseException:
        tagged(Event("fail", "interrupted or failed"))
        raise
    seconds = time.monotonic() - begun
    artefact = store.keep(
        stage.NAME, fingerprint, out, parts=parts, group=config.app.name, notes=notes, seconds=seconds
    )
    told = {"seconds": seconds, "notes": dict(notes), "artefact": artefact.digest}
    tagged(Event("done", str(notes.get("summary", "")), data=told))
    return artefact


def explain(parts: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """Say what differs from the last time this stage ran."""
    if before is None:
        return ["never made here"]
    reasons = []
    for kind, label in (("settings", ""), ("tools", "tool "), ("files", "file "), ("inputs", "input ")):
        old, new = _flat(before.get(kind, {})), _flat(parts.get(kind, {}))
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                if kind in ("inputs", "files"):
                    reasons.append(f"{label}{key} changed")
                else:
                    reasons.append(f"{label}{key}: {_short(old.get(key))} → {_short(new.get(key))}")
    if before.get("version") != parts.get("version"):
        reasons.append("this stage's code changed")
    return reasons or ["its result is no longer in the store"]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat.update(_flat(item, f"{prefix}{key}."))
        return flat
    return {prefix.rstrip("."): value}


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "…"
