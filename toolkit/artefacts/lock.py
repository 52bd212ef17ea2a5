"""``deploy.lock``: what a rollout was made of, every input by digest; and rolling out from it again.

For each target: the release, and for each stage its artefact, the settings that decided it, the digests of
the user's own files and the versions of its tools; besides, the code, Python and its packages, and what was
typed. There is no time, no host and no user in it: the same inputs give the same bytes.

Rolling out from a lock makes nothing: a stage's result is the artefact that the lock names, from this
machine's store or the shared one, whatever the tools here are. What is missing is named by its digest.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from toolkit.artefacts.hashing import digest_data, digest_file, digest_folder
from toolkit.artefacts.store import Artefact, Store, write_atomically
from toolkit.config.schema import Config
from toolkit.errors import InputError, PlanError
from toolkit.pipeline import Stage, Step, order, walk

FORMAT = 1
NAME = "deploy.lock"

MODELS = ("train", "export", "convert")
"""Stages whose files are listed one by one: checkpoint, exported model and om have digests of their own."""

OF_ONE_CALL = ("lock", "plan", "out", "release", "store", "engine", "sign")
"""What is typed for one call or one machine, and has no place in a lock: settings, and groups as a whole."""

FROM_THE_MACHINE = {("train", "train.threads")}
"""Settings (stage, key) that are taken from the machine where they are not typed."""

_DISTRIBUTION = "ascend-deploy"
_CODE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Locked:
    """One target of a lock: boards that share a config. ``stages``: name → what a lock says of it."""

    name: str
    release: str
    stages: Mapping[str, Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "release": self.release, "stages": self.stages}


@dataclass(frozen=True)
class Lock:
    """A lock file. Hand it to a :class:`Store` as ``pins``."""

    targets: tuple[Locked, ...]
    overrides: tuple[str, ...] = ()
    made_by: Mapping[str, Any] = field(default_factory=dict)
    path: str = NAME

    # -- the file

    @property
    def text(self) -> str:
        """The file: JSON with sorted keys."""
        content = {
            "format": FORMAT,
            "overrides": list(self.overrides),
            "made_by": self.made_by,
            "targets": [target.as_json() for target in self.targets],
        }
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the file, unless it says the same already."""
        content = self.text.encode()
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)

    @staticmethod
    def read(path: Path) -> Lock:
        """Read a lock file.

        :raises InputError: there is none, or it is damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise InputError(f"lock: {path} has format {content['format']}, this program knows {FORMAT}")
            targets = tuple(
                Locked(str(item["name"]), str(item["release"]), dict(item["stages"]))
                for item in content["targets"]
            )
            for target in targets:
                for stage in target.stages.values():
                    if not re.fullmatch("[0-9a-f]{64}", stage["artefact"]):
                        raise ValueError(f"{stage['artefact']!r} is not a digest")
            return Lock(targets, tuple(content["overrides"]), dict(content["made_by"]), str(path))
        except OSError as error:
            raise InputError(
                f"lock: {path} cannot be read: {error.strerror}", hint="`deploy` writes deploy.lock"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"lock: {path} is not a lock file: {error}") from error

    def overrides_beside(self, typed: Iterable[str]) -> list[str]:
        """The lock's overrides without those of which another value was typed."""
        keys = {key_of(item) for item in typed}
        return [item for item in self.overrides if key_of(item) not in keys]

    # -- rolling out from it

    def steps(
        self, stages: Mapping[str, Stage], config: Config, store: Store, wanted: Sequence[str]
    ) -> list[Step]:
        """Every stage with its artefact as the lock names it; those of ``wanted`` are in the store's folder.

        :raises PlanError: ``config`` is not what was locked.
        :raises InputError: artefacts are missing; the message has their digests.
        """
        locked = self.target(stages, config)
        names = order(stages, config, wanted)
        found = []
        for name in names:
            stage = locked.stages.get(name)
            if stage is None:
                raise PlanError(f"{self.path} has nothing for the stage {name} of {locked.name}")
            digest = str(stage["artefact"])
            artefact = Artefact(digest, store.path(digest), {"summary": f"{digest[:12]}, as locked"})
            found.append(Step(name, str(stage["fingerprint"]), artefact, ()))
        missing = [
            f"{step.stage} {step.artefact.digest}"
            for step in found
            if step.stage in wanted and step.artefact and not store.at_hand(step.artefact.digest)
        ]
        if missing:
            where = f"{store.root}" + (f" nor {store.shared.name}" if store.shared else "")
            raise InputError(
                f"{self.path}: neither here in {where}: {', '.join(missing)} (of {locked.name})"
                if store.shared
                else f"{self.path}: not in {where}: {', '.join(missing)} (of {locked.name})",
                hint="store.kind=shared store.url=… brings it from where it is kept; "
                "without lock= it is made anew",
            )
        for step in found:
            if step.stage in wanted and step.artefact:
                store.bring(step.artefact)
        return found

    def target(self, stages: Mapping[str, Stage], config: Config) -> Locked:
        """The target that was locked for ``config``.

        :raises PlanError: there is none; the message names the settings which differ from the nearest one.
        """
        wanted = settings_of(stages, config)
        nearest: tuple[int, str, list[str]] | None = None
        for target in self.targets:
            differing = _differences(target, wanted, config)
            if not differing:
                return target
            if nearest is None or len(differing) < nearest[0]:
                nearest = len(differing), target.name, differing
        if nearest is None:
            raise PlanError(f"{self.path} has no targets")
        count, name, differing = nearest
        more = f"; and {count - 5} more" if count > 5 else ""
        raise PlanError(
            f"{self.path} says otherwise (for {name}): " + "; ".join(differing[:5]) + more,
            hint="type what was locked, or leave lock= out to make a new release",
        )

    def check_release(self, stages: Mapping[str, Stage], config: Config, release: str) -> None:
        """Refuse a release that is not the locked one, bit for bit."""
        locked = self.target(stages, config)
        if locked.release != release:
            raise PlanError(
                f"{self.path}: the release for {locked.name} would be {release[:12]}, "
                f"locked is {locked.release[:12]}",
                hint="the board's profile differs from when it was locked: soc_version, CANN version or name",
            )


def lock_target(name: str, stages: Mapping[str, Stage], config: Config, store: Store, release: str) -> Locked:
    """Describe what the release for ``config`` was made of; all of it has been made."""
    if isinstance(store.pins, Lock):
        return store.pins.target(stages, config)
    settings, said = settings_of(stages, config), {}
    for step in walk(stages, config, store, ["package"]):
        if step.artefact is None:
            raise PlanError(f"{step.stage} has not been made: {'; '.join(step.reasons)}")
        stage = stages[step.stage]
        entry: dict[str, Any] = {
            "artefact": step.artefact.digest,
            "fingerprint": step.fingerprint,
            "version": stage.VERSION,
            "tools": dict(stage.tools(config)),
            **settings[step.stage],
        }
        if step.stage in MODELS and store.whole(step.artefact.digest):
            entry["holds"] = {
                path.name: digest_file(path)
                for path in sorted(step.artefact.path.iterdir())
                if path.is_file()
            }
        if step.artefact.notes.get("cann"):
            entry["cann"] = str(step.artefact.notes["cann"])  # of the machine where ATC ran
        said[step.stage] = entry
    return Locked(name, release, said)


def settings_of(stages: Mapping[str, Stage], config: Config) -> dict[str, dict[str, Any]]:
    """What of ``config`` decides each stage's result, and the digests of the user's own files, if here."""
    found = {}
    for name in order(stages, config, ["package"]):
        stage = stages[name]
        files = {key: _digest(path) for key, path in stage.files(config).items() if path.exists()}
        # Once through JSON: what is compared is what a file can hold.
        settings = json.loads(json.dumps(dict(stage.settings(config)), default=str))
        found[name] = {"settings": settings, "files": files}
    return found


def _differences(target: Locked, wanted: Mapping[str, Mapping[str, Any]], config: Config) -> list[str]:
    differing = []
    for name in sorted({*target.stages, *wanted}):
        if name not in wanted or name not in target.stages:
            differing.append(f"{name} {'belongs to' if name in target.stages else 'is not in'} the lock")
            continue
        locked, now = target.stages[name], wanted[name]
        old, new = _flat(locked.get("settings", {})), _flat(now["settings"])
        for key in sorted({*old, *new}):
            if (name, key) in FROM_THE_MACHINE and config.train.threads == 0:
                continue
            if old.get(key) != new.get(key):
                differing.append(
                    f"{_named(name, key)}: locked {_short(old.get(key))}, not {_short(new.get(key))}"
                )
        for key, digest in now["files"].items():
            was = str(locked.get("files", {}).get(key, "nothing"))
            if was != digest:
                differing.append(f"{key}: locked {was[:12]}, not {digest[:12]}")
    return list(dict.fromkeys(differing))


def _named(stage: str, key: str) -> str:
    """A stage's setting, by the name that people type where it has one."""
    return key if key.partition(".")[0] in Config.__dataclass_fields__ and "." in key else f"{stage} {key}"


def made_by() -> dict[str, Any]:
    """The code and the tools of this machine: versions, and a digest of the program's own source."""
    return {
        "code": {"version": _version(_DISTRIBUTION), "sha256": code_digest()},
        "python": platform.python_version(),
        "packages": packages(),
    }


@cache
def code_digest() -> str:
    """SHA-256 over the source of the program: names and contents of its Python files."""
    files = [path for room in ("toolkit", "stages") for path in sorted((_CODE / room).rglob("*.py"))]
    return digest_data([[path.relative_to(_CODE).as_posix(), digest_file(path)] for path in files])


@cache
def packages() -> dict[str, str]:
    """Name → version of the Python packages that the program asks for."""
    try:
        wanted = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        wanted = []
    names = {
        re.split(r"[\s<>=!~\[;]", item, maxsplit=1)[0].lower() for item in wanted if "extra ==" not in item
    }
    return {name: version for name in sorted(names) if (version := _version(name))}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def locked_overrides(typed: Iterable[str]) -> tuple[str, ...]:
    """What was typed, without what belongs to one call or one machine only."""
    return tuple(item for item in typed if key_of(item).partition(".")[0] not in OF_ONE_CALL)


def with_lock(arguments: Sequence[str]) -> list[str]:
    """The command line with what was typed when ``lock=FILE`` was written, before what is typed now.

    What is typed now wins here, and is refused later where it contradicts the lock.
    """
    given = [item.partition("=")[2] for item in arguments if key_of(item) == "lock" and "=" in item]
    if not given or given[-1] in ("", "null"):
        return list(arguments)
    if given[-1].startswith("obs://"):
        # It is read before anything says how to reach OBS.
        raise InputError(f"lock: {given[-1]} is in OBS, and a lock is a file on this machine", hint="fetch it first")
    return [*Lock.read(Path(given[-1]).expanduser().absolute()).overrides_beside(arguments), *arguments]


def key_of(override: str) -> str:
    """``+board=sim`` → ``board``."""
    return override.split("=", 1)[0].lstrip("+~")


def _digest(path: Path) -> str:
    return digest_folder(path) if path.is_dir() else digest_file(path)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat |= _flat(item, f"{prefix}{key}.")
        return flat
    return {prefix.rstrip("."): value}


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "…"
