"""A plan for people: what changes alike is shown once, with how many boards and which. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from toolkit.fleet.plan import ENVIRONMENT, INSTALL, RUN, SWITCH, BoardPlan, BuildStep, Plan
from toolkit.fleet.waves import natural

NAMES = 6
"""How many boards are named before they are only counted."""


def text_of(plan: Plan) -> str:
    """The whole plan."""
    steps = unique_steps(plan.steps)
    lines = [_step_line(step) for step in steps]
    running = sum(step.runs for step in steps)
    lines.append(f"{running} of {len(steps)} stages would run" if running else "nothing to build")
    for group in groups(plan.boards):
        lines += _group_lines(group)
    if len(plan.waves) > 1:
        sizes = ", ".join(str(len(wave)) for wave in plan.waves[:12]) + (
            ", …" if len(plan.waves) > 12 else ""
        )
        lines.append(f"in {len(plan.waves)} waves of {sizes} boards; the first: {named(plan.waves[0])}")
    if not plan.changes:
        again = sum(bool(board.steps) for board in plan.boards)
        silent = sum(bool(board.cause) for board in plan.boards)
        lines.append(
            (f"no board would change; inference would run again on {again}" if again else "nothing would change")
            + (f"; {silent} boards are left out" if silent else "")
        )
    lines.append(f"plan {plan.digest[:12]}")
    return "\n".join(lines)


def unique_steps(steps: Iterable[BuildStep]) -> list[BuildStep]:
    """Each stage once for all targets that share it."""
    return list({(step.stage, step.fixes): step for step in reversed(list(steps))}.values())[::-1]


def groups(boards: Iterable[BoardPlan]) -> list[list[BoardPlan]]:
    """Boards with equal plans together, the largest group first; refused ones last."""
    found: dict[BoardPlan, list[BoardPlan]] = {}
    for board in boards:
        # What a board that does not answer says of it names the board itself.
        reason = "" if board.cause else board.reason
        found.setdefault(replace(board, board="", where="", reason=reason, hint=""), []).append(board)
    return sorted(found.values(), key=lambda group: (bool(group[0].cause), -len(group), group[0].board))


def named(names: Sequence[str]) -> str:
    """Names in their natural order; the first ones and a count where there are many."""
    ordered = sorted(names, key=natural)
    if len(ordered) <= NAMES:
        return ", ".join(ordered)
    return f"{', '.join(ordered[: NAMES - 2])}, … {ordered[-1]}"


def _step_line(step: BuildStep) -> str:
    if step.runs:
        return f"+ {step.stage:<9} would run: {'; '.join(step.reasons)}"
    return f"· {step.stage:<9} unchanged, {step.artefact[:12]}"


def _group_lines(group: Sequence[BoardPlan]) -> Iterable[str]:
    board, names = group[0], named([item.board for item in group])
    who = f"{len(group)} board{'s' if len(group) > 1 else ''}: {names}"
    if board.cause:
        yield f"✗ {who}: {board.cause}: {board.reason}"
        if board.hint:
            yield f"    what to do: {board.hint}"
        return
    if board.done:
        yield f"· {who}: unchanged, {board.release[:12]}"
        return
    yield f"{'~' if board.changes else '·'} {who}: {board.reason}"
    if INSTALL in board.steps:
        what = (
            f"{board.files} files, {size_of(board.bytes)}"
            if board.release
            else "the release that is built first"
        )
        yield f"    send     {what}"
    if SWITCH in board.steps:
        yield f"    release  {board.replaces[:12] or 'nothing'} → {board.release[:12] or '(built first)'}"
    if RUN in board.steps:
        yield "    run      inference, compared with the reference" + (
            " before the switch" if SWITCH in board.steps else ""
        )
    if ENVIRONMENT in board.steps:
        yield "    environment, in ~/.bashrc:"
        yield from (f"      {line}" for line in board.environment)


def size_of(count: int) -> str:
    """Bytes for people."""
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1e3:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
