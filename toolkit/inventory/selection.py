"""``hosts=``: which boards of an inventory.

::

    expression ::= term ("," term)*         one of the terms, less what the negated ones name
    term       ::= ["!"] (name | glob | "@" label | label "=" value)

In a glob, and in the value after ``=``, ``* ? [ ]`` mean what they mean in a shell. ``profile`` counts as a
label. Negated terms alone mean: all boards but those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from toolkit.errors import UsageError
from toolkit.inventory.board import Board

GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Term:
    """One term; ``kind`` is "name", "label" (has it) or "value" (has it with this value)."""

    written: str
    negated: bool
    kind: str
    key: str
    value: str = ""

    @classmethod
    def parse(cls, written: str) -> Term:
        """Read one term."""
        text = written.strip()
        negated = text.startswith("!")
        text = text.removeprefix("!").strip()
        if text.startswith("@"):
            return cls(written.strip(), negated, "label", text[1:])
        key, equals, value = text.partition("=")
        return cls(written.strip(), negated, "value" if equals else "name", key.strip(), value.strip())

    def match(self, name: str, profile: str, labels: Mapping[str, str]) -> bool:
        """Does it name this board, its negation aside?"""
        if self.kind == "name":
            return name == self.key or fnmatchcase(name, self.key)
        if self.kind == "label":
            return self.key in labels
        if self.key == "profile":
            return fnmatchcase(profile, self.value)
        return self.key in labels and (
            labels[self.key] == self.value or fnmatchcase(labels[self.key], self.value)
        )


@dataclass(frozen=True)
class Terms:
    """A whole expression."""

    terms: tuple[Term, ...]

    @classmethod
    def parse(cls, expression: str) -> Terms:
        """Read an expression; empty terms (a comma at the end) don't count."""
        return cls(tuple(Term.parse(part) for part in expression.split(",") if part.strip()))

    def match(self, name: str, profile: str, labels: Mapping[str, str]) -> bool:
        """Does the expression select this board? An empty one selects every board."""
        wanted = [term for term in self.terms if not term.negated]
        if any(term.match(name, profile, labels) for term in self.terms if term.negated):
            return False
        return not wanted or any(term.match(name, profile, labels) for term in wanted)


def select(boards: Sequence[Board], expression: str) -> list[Board]:
    """Return the boards that ``expression`` selects, in the inventory's order, each once; "" selects all.

    A machine of kind "host" is selected by its exact name only, never by a glob, a label or "": nothing is
    rolled out to a build host that nobody named.

    :raises UsageError: a term names nothing (a negated one too: a typo there would deploy to a board that was
        meant to be left out), or nothing remains.
    """
    terms = Terms.parse(expression)
    for term in terms.terms:
        if not any(_names(term, board) for board in boards):
            raise _names_nothing(term, [board for board in boards if board.kind == "board"])
    chosen = [board for board in boards if _selects(terms, board)]
    if terms.terms and not chosen:
        raise UsageError(
            f"hosts={expression} leaves no board", hint="its negations take away all that it selects"
        )
    return chosen


def _names(term: Term, board: Board) -> bool:
    if board.kind != "board":
        return term.kind == "name" and term.key == board.name
    return term.match(board.name, board.profile, board.labels)


def _selects(terms: Terms, board: Board) -> bool:
    if board.kind == "board":
        return terms.match(board.name, board.profile, board.labels)
    naming = [term for term in terms.terms if _names(term, board)]
    return bool(naming) and not any(term.negated for term in naming)


def _names_nothing(term: Term, candidates: Sequence[Board]) -> UsageError:
    """Say which name or label was probably meant."""
    names = [board.name for board in candidates]
    labels = sorted({label for board in candidates for label in board.labels} | {"profile"})
    not_ = "!" if term.negated else ""
    if term.kind == "name":
        if term.key in labels:
            return UsageError(
                f"hosts={term.written}: no board has this name", hint=f"a label has: hosts={not_}@{term.key}"
            )
        what = "no board matches" if GLOB.search(term.key) else "no board has this name"
        return UsageError(f"hosts={term.written}: {what}", hint=_hint(term.key, names, not_))
    if term.kind == "value" and term.key in labels:
        values = {{"profile": board.profile, **board.labels}.get(term.key, "") for board in candidates} - {""}
        hint = _hint(term.value, sorted(values), f"{not_}{term.key}=")
        return UsageError(f"hosts={term.written}: no board has this value", hint=hint)
    prefix, suffix = (f"{not_}@", "") if term.kind == "label" else (not_, f"={term.value}")
    hint = _hint(term.key, labels, prefix, suffix)
    return UsageError(f"hosts={term.written}: no board has this label", hint=hint)


def _hint(wanted: str, known: Sequence[str], prefix: str, suffix: str = "") -> str:
    close = get_close_matches(wanted, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean hosts={prefix}{close[0]}{suffix}?"
    shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
    return f"there are: {shown}" if known else "the inventory has no boards"
