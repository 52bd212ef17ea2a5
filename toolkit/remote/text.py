"""What a board says is untrusted: make it fit for a terminal and a log before anybody sees it."""

from __future__ import annotations

import re

# Whole escape sequences first (colours, titles, cursor moves), then whatever control codes are left.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(raw: bytes | str, limit: int = 400) -> str:
    """Return ``raw`` as one line without control codes, escape sequences or text-direction marks, cut at
    ``limit``.

    >>> plain(b"\\x1b[31mred\\x1b[0m alarm\\r")
    'red alarm'
    """
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = _CONTROL.sub("", _SEQUENCE.sub("", text[: 4 * limit])).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"
