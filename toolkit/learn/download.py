"""A file over HTTP: goes on where it was cut, and is used only if its digests are right."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from toolkit.errors import InputError
from toolkit.ui.events import Emit, Event

BLOCK = 1 << 18


class _Cut(Exception):
    """The transfer ended too early; another attempt may get further."""


class Download:
    """One file to fetch. ``size``: bytes, 0: unknown; ``timeout``: seconds; empty digests are not checked."""

    def __init__(
        self,
        url: str,
        target: Path,
        *,
        size: int = 0,
        md5: str = "",
        sha256: str = "",
        timeout: float = 30.0,
        attempts: int = 5,
        pause: float = 1.0,
    ) -> None:
        self.url, self.target, self.size = url, target, size
        self.digests = {"md5": md5, "sha256": sha256}
        self.timeout, self.attempts, self.pause = timeout, attempts, pause
        self.part = target.with_name(target.name + ".part")

    def fetch(self, emit: Emit) -> Path:
        """Return ``target``, fetched if it isn't there; InputError, one line, where it cannot be had or is
        wrong.

        What arrived stays in ``target.part`` after a cut, and the next attempt, or the next run, asks for the
        rest.
        """
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise InputError(f"data.url={self.url}: only http and https", hint=self._by_hand())
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.part):
            if not self.target.exists():
                self._fetch_parts(emit)
                problem = self.defect(self.part)
                if problem:
                    self.part.unlink()
                    raise InputError(f"{self.url}: {problem}; thrown away", hint=self._by_hand())
                os.replace(self.part, self.target)
        return self.target

    def defect(self, path: Path) -> str:
        """Return what is wrong with a file that should be this one, or an empty string."""
        have = path.stat().st_size
        if self.size and have != self.size:
            return f"{have:,} bytes instead of {self.size:,}"
        for name, wanted in self.digests.items():
            if not wanted:
                continue
            digest = hashlib.new(name, usedforsecurity=False)
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            if digest.hexdigest() != wanted.lower():
                return f"its {name.upper()} is {digest.hexdigest()} instead of {wanted}"
        return ""

    def _by_hand(self) -> str:
        return f"fetch {self.url} and put it at {self.target}, or set data.root to the extracted one"

    def _fetch_parts(self, emit: Emit) -> None:
        fruitless = 0
        while True:
            before = self._have()
            try:
                self._fetch_rest(emit)
                return
            except _Cut as cut:
                # Only attempts that brought nothing count: a line that drops every minute still gets there.
                fruitless = 0 if self._have() > before else fruitless + 1
                if fruitless >= self.attempts:
                    raise InputError(f"{self.url} cannot be fetched: {cut}", hint=self._by_hand()) from None
                emit(
                    Event(
                        "log", f"{self.target.name}: {cut}; going on at byte {self._have():,}", stage="data"
                    )
                )
                if fruitless:
                    time.sleep(self.pause * 2 ** (fruitless - 1))

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _fetch_rest(self, emit: Emit) -> None:
        have = self._have()
        if self.size and have == self.size:
            return
        if self.size and have > self.size:
            self.part.unlink()
            have = 0
        request = urllib.request.Request(self.url, headers={"User-Agent": "ascend-deploy"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                if have and not _goes_on_at(answer, have):
                    have = 0  # the server sends all of it again
                length = answer.headers.get("Content-Length")
                total = have + int(length) if length and length.isdigit() else self.size or None
                with self.part.open("ab" if have else "wb") as file:
                    have = self._copy(answer, file, have, total, emit)
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:
                self.part.unlink()  # longer than the file: not a part of it
                raise _Cut("what was there is not a part of the file") from None
            if 400 <= error.code < 500 and error.code not in (408, 429):
                reason = f"{error.code} {error.reason}"
                raise InputError(f"{self.url}: the server says {reason}", hint=self._by_hand()) from None
            raise _Cut(f"the server says {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise _Cut(str(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(str(error) or type(error).__name__) from None
        if total is not None and have < total:
            raise _Cut(f"the connection was cut after {have:,} of {total:,} bytes")

    def _copy(
        self, answer: http.client.HTTPResponse, file: IO[bytes], have: int, total: int | None, emit: Emit
    ) -> int:
        began = told = time.monotonic()
        first = have
        while block := answer.read1(BLOCK):
            file.write(block)
            have += len(block)
            now = time.monotonic()
            if now - told >= 0.2 or have == total:
                told = now
                rate = (have - first) / max(now - began, 1e-6)
                left = None if total is None else (total - have) / max(rate, 1.0)
                figures = {"done": have, "total": total, "unit": "bytes", "seconds_left": left}
                emit(Event("progress", self.target.name, stage="data", data=figures))
        return have


def _goes_on_at(answer: http.client.HTTPResponse, offset: int) -> bool:
    """Is this the rest of the file from ``offset``?"""
    return answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Let other processes that fetch the same file wait. Systems without flock go without."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with part.with_name(part.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
