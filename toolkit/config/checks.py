"""Rules that a type cannot say: ranges, and settings that must fit each other. Pure; every problem is listed.

Each problem begins with the dotted key to change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from toolkit import preprocess
from toolkit.artefacts import shared, signing
from toolkit.cann import atc
from toolkit.cann.versions import parse_version
from toolkit.cloud import settings as cloud
from toolkit.config.schema import Config, GateSettings, RolloutSettings
from toolkit.learn import checks as learn
from toolkit.learn.settings import Where
from toolkit.ui.words import counted

MODEL_FILES = ("ckpt", "onnx", "air", "mindir", "om")


def check(config: Config) -> list[str]:
    """Return every problem in ``config``, empty when there is none."""
    return [
        *learn.check(config.data, config.model, config.train, config.export, config.preprocess.size),
        *_numbers(config),
        *_names(config),
        *_rollout(config.rollout),
        *preprocess.check(config.preprocess),
        *atc.problems(config.atc),
        *_fit(config),
    ]


def _numbers(config: Config) -> Iterator[str]:
    at_least: list[tuple[str, float, float]] = [
        ("quantise.pictures", config.quantise.pictures, 1),
        ("infer.top_k", config.infer.top_k, 1),
        ("infer.warmup", config.infer.warmup, 0),
        ("infer.device", config.infer.device, 0),
        ("bench.count", config.bench.count, 1),
        ("bench.warmup", config.bench.warmup, 0),
        ("engine.workers", config.engine.workers, 1),
        ("engine.threads", config.engine.threads, 1),
        ("rollout.concurrency", config.rollout.concurrency, 1),
        ("rollout.keep_releases", config.rollout.keep_releases, 1),
    ]
    for key, value, least in at_least:
        if value < least:
            yield f"{key}: {value:g} is too small: at least {least:g}"
    positive = {
        "convert.limit": config.convert.limit,
        "quantise.limit": config.quantise.limit,
        "tune.limit": config.tune.limit,
        "infer.limit": config.infer.limit,
        "rollout.confirm_within": config.rollout.confirm_within,
        "rollout.retry_first": config.rollout.retry_first,
        "rollout.retry_most": config.rollout.retry_most,
        **{f"ssh.limits.{name}": value for name, value in vars(config.ssh.limits).items()},
    }
    for key, value in positive.items():
        if not value > 0:
            yield f"{key}: {value:g} is not a positive number"
    yield from _limits("verify", config.verify)
    yield from _limits("rollout.gate", config.rollout.gate)
    if config.board is not None:
        if not 1 <= config.board.count <= 10_000:
            yield f"board.count: {config.board.count} is not in 1 … 10000"
        if config.board.chips < 0:
            yield f"board.chips: {config.board.chips} is too small: at least 0"
        if config.board.chips > 0 and config.board.memory_mb < 1:
            yield f"board.memory_mb: {config.board.memory_mb} is too small: at least 1"
        if not 1 <= config.board.port <= 65535:
            yield f"board.port: {config.board.port} is not a port number (1 … 65535)"


_SHARES = {"min_agreement": 0, "min_accuracy": 0, "max_accuracy_drop": 0, "min_cosine": -1}
"""Limits of figures that are at most 1, and the least that these can be; others have no upper end."""


def _limits(key: str, limits: GateSettings) -> Iterator[str]:
    for name, value in vars(limits).items():
        least, most = _SHARES.get(name, 0), 1 if name in _SHARES else math.inf
        if value is not None and not least <= value <= most:
            kind = f"not in {least} … 1" if name in _SHARES else "too small: at least 0"
            yield f"{key}.{name}: {value:g} is {kind}"


def _names(config: Config) -> Iterator[str]:
    choices = {
        "quantise.kind": (config.quantise.kind, ("none", "amct")),
        "tune.kind": (config.tune.kind, ("none", "aoe")),
        "ssh.client": (config.ssh.client, ("fabric", "openssh")),
        "ssh.deltas": (config.ssh.deltas, ("auto", "always", "never")),
        "infer.mode": (config.infer.mode, ("folder",)),
        "engine.name": (config.engine.name, ("threads", "dask")),
        "store.kind": (config.store.kind, ("local", "shared")),
        "sign.kind": (config.sign.kind, ("none", "ssh-key")),
        "rollout.order": (config.rollout.order, ("fixed", "shuffled")),
        "rollout.on_failure": (config.rollout.on_failure, ("halt", "revert_wave", "revert_all")),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            yield f"{key}: {value} is not one of {', '.join(allowed)}"
    if not config.app.name or "/" in config.app.name or config.app.name.startswith("."):
        yield f"app.name: {config.app.name!r} cannot be a folder's name on the board"
    board = config.board
    if board is not None:
        if board.run_mode not in ("RC", "EP"):
            yield f"board.run_mode: {board.run_mode} is neither RC nor EP"
        if board.chips > 0 and not board.soc_version:
            yield "board.soc_version: it is empty: ATC converts for this chip; such as Ascend310"
        if parse_version(board.cann.version) is None and (board.cann.version or board.soc_version):
            yield f"board.cann.version: {board.cann.version!r} is not a version such as 5.0.4 or 8.0.RC1"
        if board.password and not board.password.startswith(("env:", "file:", "keyring:")):
            yield "board.password: a secret does not stand in the config; write ${secret:env,NAME}, or file, or keyring"
        if not board.interpreters:
            yield "board.interpreters: at least one, such as python3"


_AMOUNT = re.compile(r"\d+|\d+(\.\d+)?\s*%")


def _rollout(rollout: RolloutSettings) -> Iterator[str]:
    for size in rollout.waves:
        if not _AMOUNT.fullmatch(str(size)) or float(str(size).rstrip("% ")) <= 0:
            yield f"rollout.waves: {size} is neither a number of boards nor a percentage such as 10%"
    budget = rollout.failure_budget
    if budget is not None and not _AMOUNT.fullmatch(str(budget)):
        yield f"rollout.failure_budget: {budget} is neither a number of boards, a percentage such as 5%, nor null"
    if rollout.pause != "ask" and not (type(rollout.pause) in (int, float) and rollout.pause >= 0):
        yield f"rollout.pause: {rollout.pause} is neither a number of seconds nor ask"


def _fit(config: Config) -> Iterator[str]:
    in_cloud = config.train.where is Where.modelarts
    yield from cloud.problems(config.store.obs, config.modelarts, in_cloud)
    yield from shared.problems(config.store)
    yield from signing.problems(config.sign)
    given = config.model.from_
    if given and given.rsplit(".", 1)[-1] not in MODEL_FILES:
        yield f"model.from: {given} ends in none of {', '.join('.' + kind for kind in MODEL_FILES)}"
    if given.endswith(".mindir"):
        yield "model.from: ATC does not read .mindir; export ONNX from it, or AIR on an Ascend"
    if not given and config.app.labels and len(config.app.labels) != config.model.classes:
        names = counted(len(config.app.labels), "name")
        yield f"app.labels: {names}, and the network tells {config.model.classes} classes apart"
    if config.board is not None and config.board.soc_version and config.infer.device >= config.board.chips:
        yield f"infer.device: {config.infer.device} is out of range: the board has {config.board.chips} chip(s)"
    for job in config.tune.jobs:
        if job not in (1, 2):
            yield f"tune.jobs: {job} is neither 1 (subgraphs) nor 2 (operators)"
    exported = given.rsplit(".", 1)[-1] if given and not given.endswith(".ckpt") else config.export.format.value
    if config.quantise.kind == "amct" and exported in ("air", "om", "pb"):
        yield f"quantise: AMCT reads ONNX only, not .{exported}"
    since = config.convert.cann_version
    if since is not None and parse_version(since) is None:
        yield f"convert.cann_version: {since!r} is not a version such as 5.0.4 or 8.0.RC1"
    if config.lock and config.plan:
        yield "lock: cannot be given together with plan"
