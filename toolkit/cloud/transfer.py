"""Files and folders to and from OBS: parallel, multipart, resumable, checked; what is there is skipped.

Each object of ours carries its SHA-256 as metadata (``x-obs-meta-sha256``): that decides what is skipped and
what a download must come out as. Parts are checked by MD5 on their way. An interrupted transfer goes on where
it stopped: an upload by what the service says it has, a download by a record beside the unfinished file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from toolkit.cloud.apart import apart
from toolkit.cloud.obs import Bucket, Item
from toolkit.errors import CloudError, InputError
from toolkit.ui.events import Emit, Event, ignore

MAX_PARTS = 10_000  # of one object, says OBS


@dataclass(frozen=True)
class Report:
    """What a transfer did: objects and bytes that went over the line, and objects that were there already."""

    moved: int
    skipped: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.moved} moved ({self.bytes:,} bytes), {self.skipped} already there"


@dataclass
class _Progress:
    """Counts bytes from all threads and tells them, at most a hundred times."""

    emit: Emit
    text: str
    total: int = 0
    done: int = 0
    moved: int = 0
    skipped: int = 0
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    shown: int = 0

    def add(self, size: int, over_the_line: bool = True) -> None:
        with self.lock:
            self.done += size
            self.sent += size if over_the_line else 0
            if (self.done - self.shown) * 100 < self.total and self.done < self.total:
                return
            self.shown = self.done
            data = {"done": self.done, "total": self.total, "unit": "B"}
        self.emit(Event("progress", self.text, data=data))

    def count(self, moved: bool) -> None:
        with self.lock:
            self.moved += moved
            self.skipped += not moved

    def report(self) -> Report:
        return Report(self.moved, self.skipped, self.sent)


def upload(bucket: Bucket, files: Mapping[str, Path], *, records: Path, emit: Emit = ignore) -> Report:
    """Send ``files`` (key → file) and return what was done.

    ``records`` is a folder for what an interrupted upload needs to go on. CloudError, InputError.
    """
    for key, path in files.items():
        if not path.is_file():
            raise InputError(f"{path} is no file", hint=f"it was to become obs://{bucket.name}/{key}")
    records.mkdir(parents=True, exist_ok=True)
    progress = _Progress(emit, f"to obs://{bucket.name}", sum(path.stat().st_size for path in files.values()))

    def one(key: str, path: Path, pool: ThreadPoolExecutor) -> None:
        _upload_file(bucket, key, path, records, progress, pool)

    _each(bucket, files.items(), one)
    return progress.report()


def upload_folder(bucket: Bucket, folder: Path, prefix: str, *, records: Path, emit: Emit = ignore) -> Report:
    """Send every file below ``folder`` under ``prefix``. Links are not followed and not sent."""
    files = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                files[prefix.rstrip("/") + "/" + path.relative_to(folder).as_posix()] = path
    return upload(bucket, dict(sorted(files.items())), records=records, emit=emit)


def download(bucket: Bucket, items: Mapping[Path, Item], *, emit: Emit = ignore) -> Report:
    """Fetch objects (file → object). A file that holds its object already is left alone."""
    progress = _Progress(emit, f"from obs://{bucket.name}", sum(item.size for item in items.values()))

    def one(path: Path, item: Item, pool: ThreadPoolExecutor) -> None:
        _download_file(bucket, path, item, progress, pool)

    _each(bucket, items.items(), one)
    return progress.report()


def download_folder(bucket: Bucket, prefix: str, folder: Path, *, emit: Emit = ignore) -> Report:
    """Fetch every object under ``prefix`` into ``folder``; what else lies there is removed.

    InputError for a key that would lead out of the folder, CloudError where there is nothing.
    """
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    items = {place(folder, item.key[len(prefix) :], item.key): item for item in bucket.list(prefix)}
    if not items:
        raise CloudError(
            f"obs://{bucket.name}/{prefix}: there is nothing",
            cause="not-found",
            host=bucket.host,
            hint="see what is there in OBS's console",
        )
    report = download(bucket, items, emit=emit)
    keep = {*items, *(_record(path) for path in items)}
    for root, _, names in os.walk(folder):
        for name in names:
            if Path(root, name) not in keep:
                Path(root, name).unlink()
    return report


def _each(bucket: Bucket, pairs: Iterable[tuple[object, object]], one: Callable[..., None]) -> None:
    """Do ``one`` for every pair in parallel; the first failure stops what has not begun and is raised."""
    # Parts have a pool of their own: files that wait for their parts must not take the workers from them.
    tasks = bucket.settings.tasks
    parts, files = ThreadPoolExecutor(tasks, "obs-part"), ThreadPoolExecutor(tasks, "obs-file")

    def stop() -> None:
        for pool in (parts, files):
            pool.shutdown(wait=False, cancel_futures=True)

    def work() -> None:
        try:
            _finish([files.submit(one, first, second, parts) for first, second in pairs])
        finally:
            for pool in (parts, files):
                pool.shutdown(wait=True, cancel_futures=True)

    apart(work, stop)


def _finish(futures: list[Future[None]]) -> None:
    done, pending = wait(futures, return_when=FIRST_EXCEPTION)
    failed = next((future for future in done if not future.cancelled() and future.exception()), None)
    if failed is not None:
        for future in pending:
            future.cancel()
        failed.result()


def _upload_file(
    bucket: Bucket, key: str, path: Path, records: Path, progress: _Progress, pool: ThreadPoolExecutor
) -> None:
    size = path.stat().st_size
    sha256, md5 = _digests(path)
    there = bucket.head(key)
    if there is not None and there.size == size and there.sha256 == sha256:
        progress.count(False)
        progress.add(size, over_the_line=False)
        return
    if size <= bucket.settings.part_size:
        bucket.put(key, path, base64.b64encode(bytes.fromhex(md5)).decode(), sha256)
        progress.add(size)
    else:
        _upload_parts(bucket, key, path, size, sha256, records, progress, pool)
    progress.count(True)


def _upload_parts(
    bucket: Bucket,
    key: str,
    path: Path,
    size: int,
    sha256: str,
    records: Path,
    progress: _Progress,
    pool: ThreadPoolExecutor,
) -> None:
    part_size = max(bucket.settings.part_size, -(-size // MAX_PARTS))
    record = records / (hashlib.sha256(f"{bucket.host}/{bucket.name}/{key}".encode()).hexdigest()[:32] + ".json")
    before = _read(record)
    same = before.get("sha256") == sha256 and before.get("part_size") == part_size
    upload_id = str(before.get("upload") or "") if same else ""
    if before.get("upload") and not upload_id:
        bucket.abort(key, str(before["upload"]))  # of an older content: OBS would bill its parts for ever
    there: dict[int, tuple[int, str]] | None = None
    if upload_id:
        there = bucket.parts(key, upload_id)
    if there is None:
        upload_id, there = bucket.begin(key, sha256), {}
        _write(record, {"upload": upload_id, "sha256": sha256, "part_size": part_size})
    etags: dict[int, str] = {}

    def send(number: int, offset: int, length: int) -> None:
        md5 = _part_md5(path, offset, length)
        if there is not None and there.get(number) == (length, md5.hex()):
            progress.add(length, over_the_line=False)
            etags[number] = md5.hex()
            return
        etags[number] = bucket.put_part(key, upload_id, number, path, offset, length, base64.b64encode(md5).decode())
        progress.add(length)

    _finish(
        [
            pool.submit(send, number, offset, min(part_size, size - offset))
            for number, offset in enumerate(range(0, size, part_size), 1)
        ]
    )
    bucket.complete(key, upload_id, etags)
    record.unlink(missing_ok=True)
    made = bucket.head(key)
    if made is None or made.size != size:
        raise CloudError(
            f"obs://{bucket.name}/{key}: {made.size if made else 0:,} bytes arrived of {size:,}",
            cause="damaged",
            host=bucket.host,
            hint="run the same command again",
        )


def _download_file(bucket: Bucket, path: Path, item: Item, progress: _Progress, pool: ThreadPoolExecutor) -> None:
    if _holds(path, item):
        progress.count(False)
        progress.add(item.size, over_the_line=False)
        return
    item = bucket.head(item.key) or item  # a list knows neither our digest nor encryption
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    state = path.with_name(f".{path.name}.part.json")
    _fetch_parts(bucket, item, part, state, progress, pool)
    sha256, md5 = _digests(part)
    plain = len(item.etag) == 32 and not item.encrypted
    wrong = sha256 != item.sha256 if item.sha256 else plain and md5 != item.etag
    if wrong:
        part.unlink(missing_ok=True)
        raise CloudError(
            f"obs://{bucket.name}/{item.key} came out damaged: its digest is not the one it was sent with",
            cause="damaged",
            host=bucket.host,
            hint="run the same command again; if it stays so, send the object anew",
        )
    os.replace(part, path)
    _write(_record(path), {"etag": item.etag, "size": item.size, "mtime_ns": path.stat().st_mtime_ns})
    progress.count(True)


def _fetch_parts(
    bucket: Bucket, item: Item, part: Path, state: Path, progress: _Progress, pool: ThreadPoolExecutor
) -> None:
    """Fill the file ``part`` with the object; the file ``state`` says meanwhile which parts it has."""
    size = bucket.settings.part_size
    known = _read(state)
    have: set[int] = set()
    if part.exists() and known.get("etag") == item.etag and known.get("part_size") == size:
        have = {int(number) for number in known.get("have", ())}  # type: ignore[attr-defined]
    else:
        part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    lock = threading.Lock()
    try:
        os.ftruncate(descriptor, item.size)

        def fetch(number: int, offset: int, length: int) -> None:
            bucket.read(item, offset, length, lambda at, chunk: _write_at(descriptor, chunk, at))
            with lock:
                have.add(number)
                _write(state, {"etag": item.etag, "part_size": size, "have": sorted(have)})
            progress.add(length)

        futures = []
        for number, offset in enumerate(range(0, item.size, size)):
            length = min(size, item.size - offset)
            if number in have:
                progress.add(length, over_the_line=False)
            else:
                futures.append(pool.submit(fetch, number, offset, length))
        try:
            _finish(futures)
        finally:
            for future in futures:
                future.cancel()
            wait(futures)  # nobody may write after the descriptor is closed
    finally:
        os.close(descriptor)
    state.unlink(missing_ok=True)


def _write_at(descriptor: int, chunk: bytes, offset: int) -> None:
    done = 0
    while done < len(chunk):
        done += os.pwrite(descriptor, chunk[done:], offset + done)


def _holds(path: Path, item: Item) -> bool:
    """Whether ``path`` is the object as it was fetched, untouched since."""
    known = _read(_record(path))
    if not path.is_file() or not item.etag:
        return False
    stat = path.stat()
    return known == {"etag": item.etag, "size": item.size, "mtime_ns": stat.st_mtime_ns} and stat.st_size == item.size


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.obs")


def place(folder: Path, relative: str, key: str) -> Path:
    """Where an object goes below ``folder``. Keys are made by anybody: none may lead anywhere else."""
    parts = PurePosixPath(relative).parts
    unsafe = not parts or relative.startswith("/") or "\\" in relative or "\0" in relative
    if unsafe or any(
        part in ("..", ".") or (part.startswith(".") and part.endswith((".obs", ".part"))) for part in parts
    ):
        raise InputError(f"the object {key!r} has a name that cannot be a file's here", hint="rename it in OBS")
    return folder.joinpath(*parts)


def _digests(path: Path) -> tuple[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()


def _part_md5(path: Path, offset: int, length: int) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        file.seek(offset)
        while length > 0 and (chunk := file.read(min(2**20, length))):
            digest.update(chunk)
            length -= len(chunk)
    return digest.digest()


def _read(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(path: Path, value: Mapping[str, object]) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(value), "utf-8")
    os.replace(beside, path)
