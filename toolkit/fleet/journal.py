"""A run's folder: its config, its journal, its receipts, its pictures.

The journal is append-only JSON lines; what ends a stage or a board is on the disk before anything else happens, so
that a ``kill -9`` leaves a file that tells what happened on each board.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from toolkit.artefacts.store import write_atomically
from toolkit.ui.events import Event

DURABLE = ("outcome", "done", "fail", "summary")


class RunFolder:
    """``runs/<id>/``; the id sorts by time."""

    def __init__(self, runs: Path, config_text: str, verb: str) -> None:
        self.id = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)
        self.path = runs / self.id
        self.path.mkdir(parents=True)
        (self.path / "config.yaml").write_text(config_text, encoding="utf-8")
        self._lock = threading.Lock()
        self._file = (self.path / "journal.jsonl").open("a", encoding="utf-8")
        self.show(Event("start", verb, data={"run": self.id, "pid": os.getpid()}))

    def show(self, event: Event) -> None:
        """Append an event (progress is for eyes only)."""
        if event.kind == "progress":
            return
        line = json.dumps(
            {k: v for k, v in vars(event).items() if v not in ("", {})}, default=str, sort_keys=True
        )
        with self._lock:
            if self._file.closed:
                return
            self._file.write(line + "\n")
            self._file.flush()
            if event.kind in DURABLE:
                os.fsync(self._file.fileno())

    def board(self, name: str) -> Path:
        """The folder for what comes back from one board."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def receipt(self, board: str, content: dict[str, Any]) -> None:
        """Write ``receipts/<board>.json``."""
        text = json.dumps(content, indent=1, sort_keys=True, default=str)
        write_atomically(self.path / "receipts" / f"{board}.json", text.encode())

    def close(self) -> None:
        with self._lock:
            self._file.close()
