"""What would be done, and why, as plain data: no network, no files, no clock.

::

    BoardFacts ─┐
    BoardWish ──┼─ decide() → BoardPlan ─┐
    Permits ────┘                        ├─ Plan → digest, differences()
    BuildStep (from toolkit.pipeline) ───┘

``deploy plan`` shows a plan and ``deploy apply`` walks one: there is no second place that decides. The digest
covers what decides what happens, not the words about it, so that two machines get the same one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from toolkit.artefacts.hashing import digest_data
from toolkit.errors import InputError, PlanError

FORMAT = 1

SPARE = 4 << 20
"""Bytes of a board's disk that its agent leaves alone (toolkit/onboard/agent.py)."""

INSTALL, ENVIRONMENT, RUN, VERIFY, SWITCH = "install", "environment", "run", "verify", "switch"


@dataclass(frozen=True)
class Permits:
    """What a call was told to do although a plan would refuse it."""

    take_over: bool = False
    break_lock: bool = False


@dataclass(frozen=True)
class BoardFacts:
    """What decides for one board, as it said by itself.

    unreachable: cause why it did not answer or cannot be used; "" = it answered. missing: SHA-256 of what the
    wished release lacks → bytes that are there. broken: files of ``current`` that are gone or of another size.
    environment: ``same``, ``differs`` or ``absent``. block:
    lines of the environment as it is, where it differs. run_key: of the last run of ``current``. lock: who
    deploys to it now. foreign: why ``current`` is not ours. pending: release of a switch that nobody has
    confirmed."""

    unreachable: str = ""
    message: str = ""
    hint: str = ""
    current: str = ""
    missing: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    environment: str = "absent"
    block: tuple[str, ...] = ()
    run_key: str = ""
    lock: str = ""
    foreign: str = ""
    pending: str = ""
    disk_free: int | None = None

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> BoardFacts:
        """From plain data, such as a test's; what is left out has its default."""
        given: dict[str, Any] = {**value, **{key: tuple(value.get(key, ())) for key in ("block", "broken")}}
        return BoardFacts(**given)


@dataclass(frozen=True)
class BoardWish:
    """What a board ought to have. release: "" while it has still to be built. sizes: SHA-256 → bytes of its
    files."""

    release: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    environment: str = ""
    run_key: str = ""


@dataclass(frozen=True)
class BoardPlan:
    """What would be done with one board: ``steps`` in order; none and no ``cause``: it has everything.

    cause: why nothing is done with it although it lacks something (a stable short word); ``reason`` and
    ``hint`` are for people. files, bytes: what would be sent. environment: the change as the lines of a diff.
    """

    board: str
    target: str = ""
    where: str = ""
    steps: tuple[str, ...] = ()
    cause: str = ""
    reason: str = ""
    hint: str = ""
    release: str = ""
    replaces: str = ""
    files: int = 0
    bytes: int = 0
    environment: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Does the board have everything already?"""
        return not self.steps and not self.cause

    @property
    def changes(self) -> bool:
        """Would something on the board be another afterwards? Inference alone writes outputs only."""
        return bool({INSTALL, ENVIRONMENT, SWITCH} & set(self.steps))

    def decisive(self) -> dict[str, Any]:
        """What decides, without the words about it."""
        return {k: v for k, v in asdict(self).items() if k not in ("reason", "hint")}


@dataclass(frozen=True)
class BuildStep:
    """One build stage for one target.

    fixes: digest of all that decides its result, through the stages that it needs; known even where an input
    has still to be made. fingerprint and artefact are "" where they are not known yet. reasons: why it would
    run."""

    stage: str
    target: str
    fixes: str
    fingerprint: str = ""
    artefact: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        return not self.artefact

    def decisive(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "reasons"}


@dataclass(frozen=True)
class Plan:
    """All that would be done. steps: in the order of the pipeline, for each target. settings: dotted key →
    value of what decides beside the build, for each target."""

    settings: Mapping[str, Any]
    steps: tuple[BuildStep, ...]
    boards: tuple[BoardPlan, ...]
    waves: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(sorted(self.steps, key=lambda step: step.target)))
        object.__setattr__(self, "boards", tuple(sorted(self.boards, key=lambda b: b.board)))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of what decides."""
        return digest_data(
            {
                "format": FORMAT,
                "settings": dict(self.settings),
                "steps": [step.decisive() for step in self.steps],
                "boards": [board.decisive() for board in self.boards],
                "waves": self.waves,
            }
        )

    @property
    def changes(self) -> bool:
        """Would apply build something, or change a board?"""
        return any(step.runs for step in self.steps) or any(board.changes for board in self.boards)

    def of(self, board: str) -> BoardPlan | None:
        """The plan for one board."""
        return self._by_board.get(board)

    @cached_property
    def _by_board(self) -> dict[str, BoardPlan]:
        return {item.board: item for item in self.boards}


# -- deciding


def decide(
    board: str,
    facts: BoardFacts,
    wish: BoardWish,
    permits: Permits | None = None,
    target: str = "",
    where: str = "",
) -> BoardPlan:
    """What to do with one board so that it has its wish."""
    allowed = permits or Permits()
    plan = BoardPlan(board, target, where, release=wish.release, replaces=facts.current)
    if facts.unreachable:
        return replace(plan, cause=facts.unreachable, reason=facts.message or facts.unreachable, hint=facts.hint)
    reasons = []
    steps = []
    settled = bool(wish.release) and facts.current == wish.release and not facts.pending
    torn = max(len(facts.missing), len(facts.broken))
    if not settled:
        steps += [INSTALL]
        reasons.append(_why_another(facts, wish))
    elif torn:
        steps += [INSTALL]
        reasons.append(f"{torn} of its files {'is' if torn == 1 else 'are'} missing or cut short")
    if facts.environment != "same":
        steps += [ENVIRONMENT]
        reasons.append(f"the environment {'differs' if facts.environment == 'differs' else 'is not set'}")
    if not settled or torn or facts.run_key != wish.run_key:
        steps += [RUN, VERIFY]
        if settled and not torn:
            reasons.append("it ran with other settings" if facts.run_key else "it has not run yet")
    if not settled:
        steps += [SWITCH]
    lacking = {sha: max(0, wish.sizes.get(sha, 0) - have) for sha, have in facts.missing.items()}
    plan = replace(
        plan,
        steps=tuple(steps),
        reason="; ".join(reasons),
        files=len(lacking) if INSTALL in steps else 0,
        bytes=sum(lacking.values()) if INSTALL in steps else 0,
        environment=environment_diff(facts, wish) if ENVIRONMENT in steps else (),
    )
    return _refusal(plan, facts, allowed) if steps else plan


def _why_another(facts: BoardFacts, wish: BoardWish) -> str:
    if facts.foreign:
        return facts.foreign
    if facts.pending:
        return f"a switch to {facts.pending[:12]} was never confirmed"
    if not facts.current:
        return "it runs nothing yet"
    return f"it runs {facts.current[:12]}" + (
        "" if wish.release else ", and the release has still to be built"
    )


def _refusal(plan: BoardPlan, facts: BoardFacts, permits: Permits) -> BoardPlan:
    """The plan, or why it must not be carried out on this board."""

    def refused(cause: str, reason: str, hint: str) -> BoardPlan:
        return replace(
            plan, steps=(), cause=cause, reason=reason, hint=hint, files=0, bytes=0, environment=()
        )

    # A link of ours to a release that is gone is nobody's work: it is put in order.
    if facts.foreign and not facts.current and not permits.take_over:
        return refused(
            "foreign-release",
            facts.foreign,
            "rollout.take_over=true moves it aside and deploys; or set board.root",
        )
    if facts.lock and not permits.break_lock:
        return refused(
            "locked",
            f"{facts.lock} is deploying to it",
            "wait for that to end, or end it with rollout.break_lock=true",
        )
    if facts.disk_free is not None and plan.bytes and plan.bytes + SPARE > facts.disk_free:
        return refused(
            "disk-full",
            f"{facts.disk_free} bytes are free, {plan.bytes + SPARE} are needed",
            "make room on the board",
        )
    return plan


def environment_diff(facts: BoardFacts, wish: BoardWish) -> tuple[str, ...]:
    """The change of the environment's block: its lines with ``-`` or ``+`` in front."""
    lines = difflib.ndiff(facts.block, wish.environment.rstrip("\n").split("\n") if wish.environment else [])
    return tuple(line for line in lines if line[:1] in "+-")


def effect(plan: BoardPlan, facts: BoardFacts, wish: BoardWish) -> BoardFacts:
    """The facts of a board once its plan has been carried out: the model that tests hold planning against."""
    now = facts
    if INSTALL in plan.steps:
        now = replace(now, missing={}, broken=(), foreign="" if facts.current else facts.foreign)
    if SWITCH in plan.steps:
        now = replace(
            now, current=wish.release, pending="", foreign="", environment="same", block=(), run_key=""
        )
    if ENVIRONMENT in plan.steps:
        now = replace(now, environment="same", block=())
    if VERIFY in plan.steps:
        now = replace(now, run_key=wish.run_key)
    return replace(now, lock="") if plan.steps else now


# -- comparing


def differences(planned: Plan, now: Plan) -> list[str]:
    """What changed since ``planned`` was made, one line each; progress made by carrying it out is no
    change."""
    return [
        *_settings_differ(planned.settings, now.settings),
        *_steps_differ(planned.steps, now.steps),
        *_boards_differ(planned, now),
    ]


def _settings_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            yield f"{key}: {_short(before.get(key))} → {_short(after.get(key))}"


def _steps_differ(before: Sequence[BuildStep], after: Sequence[BuildStep]) -> Iterable[str]:
    old, new = ({(s.target, s.stage): s for s in steps} for steps in (before, after))
    for key in sorted({*old, *new}):
        was, step = old.get(key), new.get(key)
        if was is None or step is None:
            yield f"{key[1]}: {'not part of the plan' if was is None else 'no longer needed'} ({key[0]})"
        elif was.fixes != step.fixes:
            if step.reasons and all(reason.endswith(" runs") for reason in step.reasons):
                continue  # only because a stage that it needs differs, which is named itself
            yield f"{step.stage}: {'; '.join(step.reasons) or 'what it is made from changed'}"
        elif was.artefact and not step.artefact:
            yield f"{step.stage}: the artefact {was.artefact[:12]} is gone"
        elif was.artefact and was.artefact != step.artefact:
            yield f"{step.stage}: the artefact is {step.artefact[:12]}, was {was.artefact[:12]}"


def _boards_differ(planned: Plan, now: Plan) -> Iterable[str]:
    for name in sorted({item.board for item in (*planned.boards, *now.boards)}):
        was, is_ = planned.of(name), now.of(name)
        if was is None or is_ is None:
            yield f"{name}: {'not in the plan' if was is None else 'no longer selected'}"
        elif (text := board_differs(was, is_)) is not None:
            yield f"{name}: {text}"


def board_differs(was: BoardPlan, is_: BoardPlan) -> str | None:
    """What changed about one board since it was planned; None where nothing, or only what the plan wanted.

    A board that doesn't answer now is no change of the plan: carrying it out will say so.
    """
    if was.where != is_.where:
        return f"is at {is_.where}, was at {was.where}"
    if is_.done or was.cause == is_.cause != "":
        return None
    if is_.cause:
        return None if _unreachable(is_) else is_.reason
    if was.cause:
        return f"is fit now, was not when planned ({was.cause})"
    if was.replaces != is_.replaces:
        return f"runs {is_.replaces[:12] or 'nothing'}, ran {was.replaces[:12] or 'nothing'} when planned"
    if was.release and was.release != is_.release:
        return f"would get {is_.release[:12]}, was to get {was.release[:12]}"
    if set(is_.steps) - set(was.steps):
        return f"{is_.reason or 'needs other steps'} (when planned: {was.reason or 'nothing to do'})"
    if was.environment != is_.environment and ENVIRONMENT in is_.steps:
        return "its environment was changed"
    return None


def _unreachable(plan: BoardPlan) -> bool:
    return plan.cause not in ("foreign-release", "locked", "disk-full")


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


# -- keeping


def to_text(plan: Plan, overrides: Sequence[str]) -> str:
    """The file that ``deploy plan out=FILE`` writes. ``overrides``: what was typed, for composing the same
    again."""
    content = {
        "format": FORMAT,
        "digest": plan.digest,
        "overrides": list(overrides),
        "settings": dict(plan.settings),
        "steps": [asdict(step) for step in plan.steps],
        "boards": [asdict(board) for board in plan.boards],
        "waves": plan.waves,
    }
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def from_text(text: str, name: str) -> tuple[Plan, list[str]]:
    """Read such a file: the plan and the overrides.

    :raises InputError: it is no plan, was cut off, or is another version's. PlanError: it was edited."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"it is of format {content['format']}, this version reads format {FORMAT}")
        plan = Plan(
            content["settings"],
            tuple(BuildStep(**_tuples(item)) for item in content["steps"]),
            tuple(BoardPlan(**_tuples(item)) for item in content["boards"]),
            tuple(tuple(wave) for wave in content["waves"]),
        )
        overrides = [str(item) for item in content["overrides"]]
        digest, found = content["digest"], plan.digest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        hint = "deploy plan … out=FILE writes one"
        raise InputError(f"plan={name}: not a plan of this version: {what}", hint=hint) from error
    if found != digest:
        raise PlanError(
            f"plan={name}: it was edited: its digest is {found[:12]}, it says {str(digest)[:12]}",
            hint=f"look at it and make it again: deploy plan … out={name}",
        )
    return plan, overrides


def _tuples(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
