"""What a board says is untrusted: make it fit for a terminal and a log before anybody sees it."""

from __future__ import annotations

import re

# Whole escape sequences first (colours, titles, cursor moves), then whatever control codes are left. JSON can hold
# halves of surrogate pairs, which no terminal and no file takes.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(raw: bytes | str, limit: int = 400) -> str:
    """Return ``raw`` as one line without control codes, escape sequences, text-direction marks or lone surrogates,
    cut at ``limit``.

    >>> plain(b"\\x1b[31mred\\x1b[0m alarm\\r")
    'red alarm'
    """
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = _CONTROL.sub("", _SEQUENCE.sub("", text[: 4 * limit])).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"
