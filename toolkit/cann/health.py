"""Is a board fit for what its profile says? Pure: from the board's own words to findings with cause and fix.

The words come from ``toolkit/onboard/probe.py`` and from the agent's inspection; causes and fixes from
:mod:`toolkit.cann.catalogue`. A finding is ``ok``, a ``note`` (worth knowing, not in the way) or ``bad``.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.cann import catalogue, npu_smi
from toolkit.cann.versions import holds, newer, parse_version
from toolkit.config.schema import BoardSettings

State = Literal["ok", "note", "bad"]

PROBE_MARK = "@@ascend-deploy-probe "

# °C. The driver's own verdict is the health column; these are for before it speaks up (inferred: chips of
# this family are specified up to a junction temperature of 105 °C).
WARM, HOT = 85, 100

# Bytes: pictures and results of a run, and a model with room for its successor.
SMALL_DISK, FULL_DISK = 500_000_000, 100_000_000

CLOCK_TOLERANCE = 300.0  # s


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``fix`` is empty where nothing is wrong."""

    what: str
    state: State
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Kind:
    """What tells one board profile from another, for naming the one that fits."""

    profile: str
    npu_name: str
    chips: int
    run_mode: str
    memory_mb: int


@dataclass(frozen=True)
class Words:
    """What a board said: the agent's facts and the probe's answer, neither trusted nor complete."""

    facts: Mapping[str, Any]
    probe: Mapping[str, Any] = field(default_factory=dict)
    here: float = 0.0
    """This machine's clock when the board told its own, in seconds since the epoch."""
    environment: str = ""
    """As in Inspection: same, differs, absent; "" = nothing was wished."""
    release: str = ""
    """The release that the board runs; "" = none."""


def unpack_probe(lines: Iterable[str]) -> dict[str, Any]:
    """The probe's answer from the lines it printed. {} where it is not there or damaged."""
    packed = "".join(line[len(PROBE_MARK) :] for line in lines if line.startswith(PROBE_MARK))
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(packed, validate=True), 1 << 22)
        value = json.loads(text)
    except (ValueError, zlib.error):
        return {}
    return value if isinstance(value, dict) else {}


def examine(profile: BoardSettings, words: Words, kinds: Sequence[Kind] = ()) -> list[Finding]:
    """All findings about a board that could be reached, in the order in which a person would look.

    ``kinds``: the profiles there are, to name the one that fits where this one does not.
    """
    table = npu_smi.parse_table(str(_dict(words.probe.get("npu_smi")).get("table", "")))
    return [
        *_disk(words),
        *_clock(words),
        *_python(profile, words),
        *_font(words),
        *_npu(profile, words, table, kinds),
        *_health(words, table),
        *_temperature(table),
        *_memory(profile, table),
        *_driver(profile, words, table),
        *_cann(profile, words),
        *_groups(profile, words, table),
        *_environment(words),
    ]


def examine_host(words: Words) -> list[Finding]:
    """What of a board's findings holds for any machine."""
    version = str(words.facts.get("version", ""))
    return [*_disk(words), *_clock(words), Finding("Python", "ok", version)]


def converter(said: str, *, needed: bool) -> Finding:
    """Can a machine convert? ``said``: what ``TOOLS_PROBE`` prints there, asked for atc."""
    if "missing=atc" in said:
        fix = "install CANN's toolkit there; board.cann.toolkits of its profile says where its set_env.sh is looked for"
        return Finding("atc", "bad" if needed else "note", "not on this machine", fix)
    match = re.search(r"^version=(\S+)", said, re.M)
    return Finding("atc", "ok", f"CANN {match.group(1)}" if match else "of a CANN that does not say its version")


def trainer(status: int, output: str, errors: str, what: str) -> Finding:
    """Can a machine train? ``output``: MindSpore's version; ``what``: with which interpreter, on which device."""
    last = ["", *output.split()][-1]
    if status == 0 and last:
        return Finding("MindSpore", "ok", f"{last} ({what})")
    entry = catalogue.explain(errors)
    said = ["not there", *(line.strip() for line in errors.splitlines() if line.strip())][-1][:160]
    fix = "train.remote.python names an interpreter with MindSpore 2, train.remote.activate a script that prepares it"
    return Finding("MindSpore", "bad", f"{what}: {said}", entry.fix if entry else fix)


def fitting_profiles(
    kinds: Iterable[Kind], name: str, *, chips: int = 0, run_mode: str = "", memory_mb: int = 0
) -> list[str]:
    """The profiles for a chip of this name, the likeliest first: same run mode, same number of chips, memory."""
    same = [kind for kind in kinds if kind.npu_name == name]

    def distance(kind: Kind) -> tuple[bool, bool, int, str]:
        return (
            bool(run_mode) and kind.run_mode != run_mode,
            bool(chips) and kind.chips != chips,
            abs(kind.memory_mb - memory_mb) if memory_mb else 0,
            kind.profile,
        )

    return [kind.profile for kind in sorted(same, key=distance)]


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _explained(what: str, state: State, key: str, text: str = "") -> Finding:
    entry = catalogue.entry(key)
    return Finding(what, state, f"{text}: {entry.cause}" if text else entry.cause, entry.fix)


def _known(what: str, state: State, said: str, otherwise: str, fix: str) -> Finding:
    """A finding by what was printed, if the catalogue knows it."""
    entry = catalogue.explain(said)
    first = next((line.strip() for line in said.splitlines() if line.strip()), "")[:160]
    if entry is not None:
        return Finding(what, state, f"{first or otherwise}: {entry.cause}", entry.fix)
    return Finding(what, state, f"{otherwise}: {first}" if first else otherwise, fix)


def _disk(words: Words) -> Iterator[Finding]:
    free = int(words.facts.get("disk_free", 0))
    text = f"{free / 1e9:.1f} GB free" if free >= 1e9 else f"{free / 1e6:.0f} MB free"
    if free < FULL_DISK:
        yield _explained("disk", "bad", "disk-full", text)
    elif free < SMALL_DISK:
        yield Finding("disk", "note", text, "releases that are not in use are removed by the next deploy")
    else:
        yield Finding("disk", "ok", text)


def _clock(words: Words) -> Iterator[Finding]:
    behind = words.here - float(words.facts.get("clock", 0.0))
    if abs(behind) <= CLOCK_TOLERANCE:
        yield Finding("clock", "ok", f"within {max(1.0, abs(behind)):.0f} s of this machine's")
    else:
        side = "behind" if behind > 0 else "ahead"
        amount = f"{abs(behind) / 86400:.0f} days" if abs(behind) >= 2 * 86400 else f"{abs(behind) / 60:.0f} min"
        yield _explained("clock", "note", "clock", f"{amount} {side} of this machine's")


def _python(profile: BoardSettings, words: Words) -> Iterator[Finding]:
    """The interpreter that inference takes: the first that imports all of numpy, PIL and acl."""
    candidates = [_dict(item) for item in _list(words.probe.get("interpreters"))]
    there = [item for item in candidates if not item.get("absent")]
    fit = next((item for item in there if all(item.get(name) for name in ("numpy", "PIL", "acl"))), None)
    wanted = ", ".join(profile.interpreters)
    if not there:
        yield Finding("Python", "bad", f"none of {wanted} is on the board", "name one that is in board.interpreters")
        return
    # Where none will do, the one that lacks least is worth looking at.
    shown = fit or max(there, key=lambda item: sum(bool(item.get(name)) for name in ("acl", "numpy", "PIL")))
    version = str(shown.get("version", "?"))
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    label = f"{version} ({shown.get('name')})"
    others = [str(item.get("name")) for item in there if item is not shown]
    if "failed" in shown:
        yield Finding("Python", "bad", f"{shown.get('name')} does not run: {shown['failed']}", "set board.interpreters")
    elif numbers < (3, 6):
        yield Finding("Python", "bad", f"{label} is too old", "set board.interpreters to a Python 3.6 or newer")
    else:
        more = f"; also {', '.join(others)}" if others and fit is None else ""
        yield Finding("Python", "ok", label + more)
    errors = _dict(shown.get("errors"))
    for module, what, key in (
        ("numpy", "NumPy", "no-numpy"),
        ("PIL", "Pillow", "no-pillow"),
        ("acl", "acl", "no-acl"),
    ):
        if shown.get(module):
            yield Finding(what, "ok", str(shown[module]) if module != "acl" else _acl_text(words))
        else:
            entry = catalogue.entry(key)
            yield _known(what, "bad", str(errors.get(module, "")), f"{label} cannot import {module}", entry.fix)
    stubs = _list(words.probe.get("stubs"))
    if stubs:
        yield _explained("libraries", "bad", "stub-libraries", f"{stubs[0]} is in LD_LIBRARY_PATH")


def _acl_text(words: Words) -> str:
    device = _dict(words.probe.get("device"))
    parts = [f"interface {device['acl_version']}" if device.get("acl_version") else "imports"]
    if device.get("soc_name"):
        parts.append(str(device["soc_name"]))
    if device.get("run_mode"):
        parts.append(str(device["run_mode"]))
    return ", ".join(parts)


def _font(words: Words) -> Iterator[Finding]:
    if words.probe.get("font") is False:
        entry = catalogue.entry("no-font")
        yield Finding("font", "note", "DejaVuSans-Bold.ttf is missing: pictures get a small built-in font", entry.fix)


def _npu(profile: BoardSettings, words: Words, table: npu_smi.Table, kinds: Sequence[Kind]) -> Iterator[Finding]:
    """The chip against the profile: its name decides the soc_version of everything that is converted."""
    smi = _dict(words.probe.get("npu_smi"))
    device = _dict(words.probe.get("device"))
    said = str(device.get("soc_name", "")).removeprefix("Ascend")
    if smi.get("absent"):
        yield Finding("npu-smi", "note", "not on the board", "install the driver's tools, or look in /usr/local/sbin")
    elif not table.chips:
        yield _known("npu-smi", "bad", str(smi.get("table", "")), "shows no chip", "reboot the board; read dmesg")
    else:
        count = len(table.chips)
        yield Finding("npu-smi", "ok", f"{table.version or 'no version'}, {count} chip{'s' if count != 1 else ''}")
    name = table.chips[0].name if table.chips else said
    if not name:
        return
    chips = len(table.chips) or int(device.get("devices") or 0)
    right = f"Ascend{name}" == profile.soc_version and name == profile.npu_name
    mode = str(device.get("run_mode") or "")
    memory = table.chips[0].device_memory if table.chips else None
    total = memory[1] if memory else 0
    fits = fitting_profiles(kinds, name, chips=chips, run_mode=mode, memory_mb=total)
    if not right:
        fix = (
            f"board={fits[0]}" + (f" (or {', '.join(fits[1:])})" if len(fits) > 1 else "")
            if fits
            else (f"no profile has this chip: board.soc_version=Ascend{name} board.npu_name={name}")
        )
        entry = catalogue.entry("om-other-chip")
        yield Finding(
            "chip", "bad",
            f"{name}; the profile {profile.profile} says {profile.npu_name} ({profile.soc_version}): {entry.cause}",
            fix,
        )  # fmt: skip
        return
    # The chip is right, and yet another board of its kind may be what this one is.
    other = f"board={fits[0]}, or " if fits and fits[0] != profile.profile else ""
    if mode and mode != profile.run_mode:
        text = f"{name} in {mode} mode; the profile {profile.profile} says {profile.run_mode}"
        yield Finding("chip", "note", text, f"{other}board.run_mode={mode}")
    elif chips and chips != profile.chips:
        state: State = "bad" if chips < profile.chips else "note"
        text = f"{chips} of {name}; the profile {profile.profile} says {profile.chips}"
        yield Finding("chip", state, text, f"{other}board.chips={chips}")
    elif other and profile.memory_mb and total > 1.25 * profile.memory_mb:
        text = f"{name} with {total} MB; the profile {profile.profile} says {profile.memory_mb}"
        yield Finding("chip", "note", text, f"{other}board.memory_mb={total}")
    else:
        yield Finding("chip", "ok", f"{name}, as {profile.soc_version}" + (f" ({chips} of them)" if chips > 1 else ""))


def _health(words: Words, table: npu_smi.Table) -> Iterator[Finding]:
    if not table.chips:
        return
    worst = max(table.chips, key=lambda chip: npu_smi.HEALTH.index(chip.health))
    if worst.health == "OK":
        yield Finding("health", "ok", "OK")
        return
    smi = _dict(words.probe.get("npu_smi"))
    event = npu_smi.field(str(smi.get("health", "")), "Error Code")
    told = npu_smi.field(str(smi.get("health", "")), "Error Information")
    detail = worst.health + (f" {event}" if event else "") + (f" ({told})" if told else "")
    if worst.health == "Alarm" and worst.name.startswith("310B"):
        yield _explained("health", "note", "health-alarm", detail)
    elif worst.health == "Warning":
        yield Finding("health", "note", detail, "npu-smi info -t health shows the event; watch temperature and power")
    else:
        yield Finding("health", "bad", detail, "reboot the board; if it stays, the chip or its supply is failing")


def _temperature(table: npu_smi.Table) -> Iterator[Finding]:
    known = [chip.temperature for chip in table.chips if chip.temperature is not None]
    if not known:
        return
    hottest = max(known)
    text = f"{hottest:.0f} °C"
    if hottest >= HOT:
        yield Finding("temperature", "bad", text, "cool it: at this temperature the chip slows down or switches off")
    elif hottest >= WARM:
        yield Finding("temperature", "note", text, "look at fan, heat sink and the air around it")
    else:
        yield Finding("temperature", "ok", text)


def _memory(profile: BoardSettings, table: npu_smi.Table) -> Iterator[Finding]:
    known = [chip.device_memory for chip in table.chips if chip.device_memory is not None]
    if not known:
        return
    used, total = min(known, key=lambda pair: pair[1] - pair[0])
    text = f"{total - used} of {total} MB free"
    if total - used < max(64, total // 20):
        yield _explained("memory", "bad", "device-memory", text)
    elif profile.memory_mb and total < 0.75 * profile.memory_mb:
        yield Finding("memory", "note", f"{text}; the profile says {profile.memory_mb} MB", f"board.memory_mb={total}")
    else:
        yield Finding("memory", "ok", text)


def _driver(profile: BoardSettings, words: Words, table: npu_smi.Table) -> Iterator[Finding]:
    smi = _dict(words.probe.get("npu_smi"))
    written = _list(_dict(words.probe.get("versions")).get("driver"))
    version = (
        npu_smi.field(str(smi.get("board", "")), "Software Version")
        or table.version
        or (str(written[0]) if written else "")
    )
    if not version:
        yield Finding("driver", "note", "no version is written anywhere", "see /usr/local/Ascend/driver/version.info")
        return
    generations = [int(found.group()) for found in map(re.compile(r"\d+").match, (version, profile.driver)) if found]
    if len(generations) == 2 and generations[0] < generations[1]:
        yield _explained("driver", "note", "driver-pair", f"{version}, older than the profile's {profile.driver}")
    else:
        yield Finding("driver", "ok", version)


def _cann(profile: BoardSettings, words: Words) -> Iterator[Finding]:
    """The CANN on the board against the profile's: it decides environment and conversion."""
    cann = profile.cann
    written = _list(_dict(words.probe.get("versions")).get("cann"))
    if not written:
        old = parse_version(cann.version)
        first = parse_version("5.0.4")
        if old is not None and first is not None and old < first:
            yield Finding("CANN", "ok", f"{cann.version} by the profile; images this old do not write it down")
        else:
            yield Finding(
                "CANN", "note", f"no version is written where CANN {cann.version} writes it",
                "see whether CANN is installed: ls ~/Ascend /usr/local/Ascend",
            )  # fmt: skip
        return
    version, place = str(written[0]), str(written[1]) if len(written) > 1 else ""
    if parse_version(version) is None:
        yield Finding("CANN", "note", f"{version!r} in {place} is no version", "set board.cann.version")
    elif not holds(cann, version):
        limits = (f"since {cann.since}" if cann.since else "", f"before {cann.before}" if cann.before else "")
        ends = " and ".join(word for word in limits if word)
        yield Finding(
            "CANN", "bad", f"{version}; it knows {profile.npu_name} only {ends}",
            "install one of those versions; converting with another gives an om that the chip does not run",
        )  # fmt: skip
    elif newer(cann.version, version):
        entry = catalogue.entry("om-newer-cann")
        yield Finding(
            "CANN", "bad", f"{version}, older than the profile's {cann.version}: {entry.cause}",
            f"board.cann.version={version}, or upgrade the board",
        )  # fmt: skip
    elif newer(version, cann.version):
        yield Finding(
            "CANN",
            "note",
            f"{version}, newer than the profile's {cann.version}",
            f"board.cann.version={version}",
        )
    else:
        yield Finding("CANN", "ok", version)


def _groups(profile: BoardSettings, words: Words, table: npu_smi.Table) -> Iterator[Finding]:
    """What counts is whether the device opens; the groups only explain why it does not."""
    device = _dict(words.probe.get("device"))
    nodes = _dict(words.probe.get("devices"))
    smi = _dict(words.probe.get("npu_smi"))
    user = str(words.facts.get("user", "")) or "the user"
    groups = {str(name) for name in _list(words.facts.get("groups"))}
    missing = [name for name in profile.groups if name not in groups]
    errors = [str(item) for item in _list(device.get("errors"))]
    if device.get("opened") or (table.chips and not errors and not nodes.get("closed")):
        yield Finding("permission", "ok", f"{user} opens the device")
        return
    refused = catalogue.explain(" ".join([*errors, str(smi.get("table", ""))]))
    closed = _list(nodes.get("closed"))
    if closed or (refused is not None and refused.key == "no-permission"):
        what = f"{user} may not open {closed[0] if closed else 'the device'}"
        if missing and words.probe.get("uid") != 0:
            what += f" and is not in {', '.join(missing)}"
        entry = catalogue.entry("no-permission")
        names = ",".join(missing or profile.groups)
        yield Finding("permission", "bad", f"{what}: {entry.cause}", f"usermod -aG {names} {user}, then log in again")
    elif errors:
        yield _known("device", "bad", errors[0], "the device cannot be opened", "reboot the board; read its logs")


def _environment(words: Words) -> Iterator[Finding]:
    if not words.release:
        yield Finding("environment", "ok", "nothing is deployed yet")
    elif words.environment == "same":
        yield Finding("environment", "ok", "the block in ~/.bashrc is as the profile says")
    elif words.environment in ("differs", "absent"):
        told = "differs from the profile" if words.environment == "differs" else "is not there"
        yield Finding("environment", "note", f"the block in ~/.bashrc {told}", "deploy writes it again")


__all__ = ["Finding", "Kind", "Words", "examine", "fitting_profiles", "unpack_probe"]
