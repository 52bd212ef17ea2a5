"""Pictures for the report: small, and drawn anew, since what boards send is not handed on to a browser."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

from PIL import Image

SIDE = 168
"""Pixels of the longer side: shown at half of it on a dense screen."""


def thumbnail(path: Path) -> str:
    """A ``data:`` URI of the picture, at most SIDE pixels wide and high; "" where it cannot be decoded."""
    try:
        with warnings.catch_warnings():
            # A picture of a hundred megapixels from a board is an attack or a mistake.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=86, optimize=True)
    except Exception:  # Pillow raises nearly anything for broken files
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
