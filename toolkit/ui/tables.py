"""Tables as plain text, for verbs whose result is a table."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Lines of aligned columns, two blanks apart; ``right`` names the columns that end flush.

    A column without any content is left out.

    >>> print(table(["board", "ms"], [["a", "10"], ["bb", "9"]], right=["ms"]))
    board  ms
    a      10
    bb      9
    """
    kept = [i for i, _ in enumerate(heads) if any(row[i] for row in rows)] or list(range(len(heads)))
    widths = {i: max(_width(text) for text in (heads[i], *(row[i] for row in rows))) for i in kept}
    lines = []
    for row in (heads, *rows):
        cells = []
        for i in kept:
            blanks = " " * (widths[i] - _width(row[i]))
            cells.append(blanks + row[i] if heads[i] in right else row[i] + blanks)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _width(text: str) -> int:
    """Columns on a terminal: East Asian wide characters take two."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
