"""Recipes as they are written: their files, their commands, and what the commands should print.

In ``docs/recipes/*.md``, ``docs/operating.md`` and ``docs/scale.md``::

    <!-- in: a clone -->            the folder is a copy of the checkout, which the commands run
    <!-- starts from: demo -->      the folder holds what the demo trained and converted
    <!-- needs: REQUIREMENT … -->   Python packages whose programs are on PATH
    <!-- file: NAME -->             the block that follows is that file
    ```console                      "$ " begins a command; what follows are lines that it prints, in this order

In an expected line ``…`` stands for anything, and a run of spaces for any other. Lines in between may be left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
RECIPES = [
    CHECKOUT / "docs" / "operating.md",
    CHECKOUT / "docs" / "scale.md",
    *sorted(path for path in (CHECKOUT / "docs" / "recipes").glob("*.md") if path.name != "README.md"),
]

_BLOCK = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is (or ""), its text, and its first line's number."""

    kind: str
    file: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command as typed, and the lines that it should print."""

    typed: str
    printed: tuple[str, ...]
    line: int


def blocks(text: str) -> list[Block]:
    """Every fenced block of a document."""
    return [
        Block(match["kind"], match["file"] or "", match["text"], text.count("\n", 0, match.start("text")) + 1)
        for match in _BLOCK.finditer(text)
    ]


def commands(block: Block) -> list[Command]:
    """The commands of a ``console`` block."""
    found: list[Command] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            found.append(Command(line.removeprefix("$ "), (), number))
        elif line.strip():
            assert found, f"line {number}: output without a command"
            last = found.pop()
            found.append(Command(last.typed, (*last.printed, line), last.line))
    return found


def marked(text: str, mark: str) -> list[str]:
    """The words of ``<!-- mark: words -->``."""
    match = re.search(rf"^<!-- {mark}: (.*?) -->$", text, re.MULTILINE)
    return match[1].split() if match else []


def missing_line(printed: str, expected: tuple[str, ...]) -> str | None:
    """The first of the ``expected`` lines that ``printed`` does not have in their order; None: all are there."""
    rest = iter(printed.splitlines())
    for line in expected:
        pattern = ".*".join(re.escape(" ".join(part.split())) for part in line.split("…"))
        # "a … b" has spaces around the dots that "a b" has not twice.
        pattern = pattern.replace(r"\ .*", ".*").replace(r".*\ ", ".*")
        if not any(re.fullmatch(pattern, " ".join(candidate.split())) for candidate in rest):
            return line
    return None
