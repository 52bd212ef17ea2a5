"""A plan for people: what changes alike is shown once, with how many boards and which. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from toolkit.fleet.plan import ENVIRONMENT, INSTALL, RUN, SWITCH, BoardPlan, BuildStep, Plan
from toolkit.ui.words import counted, named


def text_of(plan: Plan) -> str:
    """The whole plan."""
    steps = unique_steps(plan.steps)
    several = {step.stage for step, _ in steps if sum(other.stage == step.stage for other, _ in steps) > 1}
    lines = [_step_line(step, names if step.stage in several else ()) for step, names in steps]
    running = sum(step.runs for step, _ in steps)
    lines.append(f"{running} of {len(steps)} stages would run" if running else "nothing to build")
    for group in groups(plan.boards):
        lines += _group_lines(group)
    if len(plan.waves) > 1:
        sizes = ", ".join(str(len(wave)) for wave in plan.waves[:12]) + (
            ", …" if len(plan.waves) > 12 else ""
        )
        lines.append(f"in {len(plan.waves)} waves of {sizes} boards; the first: {named(plan.waves[0])}")
    if not plan.changes:
        lines.append(_no_change(plan.boards))
    lines.append(f"plan {plan.digest[:12]}")
    return "\n".join(lines)


def _no_change(boards: Sequence[BoardPlan]) -> str:
    """The sum of a plan that changes nothing. Of boards that are left out nobody knows what they lack."""
    again = sum(bool(board.steps) for board in boards)
    out = sum(bool(board.cause) for board in boards)
    if out and out == len(boards):
        return "the board is left out" if out == 1 else f"all {out} boards are left out"
    text = f"no board would change; inference would run again on {again}" if again else "nothing would change"
    if not out:
        return text
    left = f"{counted(out, 'board')} {'is' if out == 1 else 'are'} left out"
    return f"{left}; else {text}"


def unique_steps(steps: Iterable[BuildStep]) -> list[tuple[BuildStep, tuple[str, ...]]]:
    """Each stage once for all targets that share it, with their names; in the order of the pipeline, then by name."""
    places: dict[str, int] = {}  # of the stages: a target may have one that others do without
    counts: dict[str, int] = {}
    shared: dict[tuple[str, str], list[BuildStep]] = {}
    for step in sorted(steps, key=lambda step: step.target):
        counts[step.target] = counts.get(step.target, 0) + 1
        places[step.stage] = max(places.get(step.stage, 0), counts[step.target])
        shared.setdefault((step.stage, step.fixes), []).append(step)
    alike = [(group[0], tuple(step.target for step in group)) for group in shared.values()]
    return sorted(alike, key=lambda item: (places[item[0].stage], item[1]))


def groups(boards: Iterable[BoardPlan]) -> list[list[BoardPlan]]:
    """Boards with equal plans together, the largest group first; refused ones last."""
    found: dict[BoardPlan, list[BoardPlan]] = {}
    for board in boards:
        # What a board that does not answer says of it names the board itself.
        reason = "" if board.cause else board.reason
        found.setdefault(replace(board, board="", where="", reason=reason, hint=""), []).append(board)
    return sorted(found.values(), key=lambda group: (bool(group[0].cause), -len(group), group[0].board))


def _step_line(step: BuildStep, targets: Sequence[str]) -> str:
    for_whom = f" ({named(targets)})" if targets else ""
    if step.runs:
        return f"+ {step.stage:<9} would run{for_whom}: {'; '.join(step.reasons)}"
    return f"· {step.stage:<9} unchanged{for_whom}, {step.artefact[:12]}"


def _group_lines(group: Sequence[BoardPlan]) -> Iterable[str]:
    board, names = group[0], named([item.board for item in group])
    who = f"{counted(len(group), 'board')}: {names}"
    if board.cause:
        yield f"✗ {who}: {board.cause}: {board.reason.removeprefix(f'{board.board}: ')}"
        if board.hint:
            yield f"    what to do: {board.hint}"
        return
    if board.done:
        yield f"· {who}: unchanged, {board.release[:12]}"
        return
    yield f"{'~' if board.changes else '·'} {who}: {board.reason}"
    if INSTALL in board.steps:
        what = (
            f"{counted(board.files, 'file')}, {size_of(board.bytes)}"
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
