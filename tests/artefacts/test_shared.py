"""The shared store: two machines, a folder, memory, a real SFTP server; cut uploads, two writers, damage."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import fsspec
import pytest

from toolkit.artefacts.hashing import digest_folder
from toolkit.artefacts.shared import Damaged, SharedStore, problems
from toolkit.artefacts.store import Store
from toolkit.config.schema import AppSettings, Config, StoreSettings
from toolkit.errors import ConfigError, DeployError, Unreachable
from toolkit.pipeline import build, walk
from toolkit.ui.events import Event

CONFIG = Config(app=AppSettings(name="app"))


class Baker:
    """A stage that writes a big and a small file, made of its inputs and its setting."""

    HELP, VERSION = "", 1

    def __init__(self, name: str, needs: Sequence[str]) -> None:
        self.NAME, self._needs = name, needs
        self.ran = 0

    def needs(self, config: Config) -> Sequence[str]:
        return self._needs

    def settings(self, config: Config) -> Mapping[str, Any]:
        return {"name": self.NAME}

    def tools(self, config: Config) -> Mapping[str, str]:
        return {}

    def files(self, config: Config) -> Mapping[str, Path]:
        return {}

    def run(self, context: Any) -> Mapping[str, Any]:
        self.ran += 1
        text = "".join((path / "small").read_text() for path in context.inputs.values()) + self.NAME
        (context.out / "small").write_text(text)
        (context.out / "in").mkdir()
        (context.out / "in" / "big").write_bytes(text.encode() * 300_000)
        return {"summary": text}


def bakery() -> dict[str, Any]:
    return {"a": Baker("a", ()), "b": Baker("b", ("a",)), "c": Baker("c", ("b",))}


def ran(stages: Mapping[str, Any]) -> str:
    return "".join(name for name, stage in stages.items() if stage.ran)


# ------------------------------------------------------------------------------------------ an SFTP server


class Sftp:
    """An SSH server on a loopback port which serves SFTP below a folder, in a thread."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "sftp"
        self.root.mkdir()
        self.key, self._host_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        self.key_file = folder / "id"
        self.key.write_private_key(str(self.key_file))
        self.host_key = self._host_key.export_public_key().decode().strip()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        root = str(self.root).encode()

        async def start() -> Any:
            authorized = asyncssh.import_authorized_keys(self.key.export_public_key().decode())
            return await asyncssh.listen(
                "127.0.0.1",
                0,
                server_host_keys=[self._host_key],
                authorized_client_keys=authorized,
                sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=root),
            )

        server = self._loop.run_until_complete(start())
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(server.wait_closed())
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        if pending:
            self._loop.run_until_complete(asyncio.wait(pending))
        self._loop.close()

    def __enter__(self) -> Sftp:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def settings(self, **changes: Any) -> StoreSettings:
        url = f"sftp://anna@127.0.0.1:{self.port}//store"
        given = {"url": url, "key_file": str(self.key_file), "host_key": self.host_key, **changes}
        return StoreSettings("shared", **given)


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[Sftp]:
    with Sftp(tmp_path) as server:
        yield server


@pytest.fixture(params=["folder", "memory", "sftp"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], SharedStore]]:
    """Opens the same store again and again, as machines would."""
    with contextlib.ExitStack() as stack:
        if request.param == "sftp":
            settings = stack.enter_context(Sftp(tmp_path)).settings()
        elif request.param == "folder":
            settings = StoreSettings("shared", f"file://{tmp_path}/store")
        else:
            settings = StoreSettings("shared", f"memory://{tmp_path.name}")
        yield lambda: stack.enter_context(contextlib.closing(SharedStore.open(settings)))
        if request.param == "memory":
            fsspec.filesystem("memory").store.clear()


def test_what_one_machine_made_another_one_gets(opener: Callable[[], SharedStore], tmp_path: Path) -> None:
    here, there = bakery(), bakery()
    first = build(here, CONFIG, Store(tmp_path / "1", opener()), ["c"])
    assert ran(here) == "abc"
    other = Store(tmp_path / "2", opener())
    assert [step.artefact is not None for step in walk(there, CONFIG, other, ["c"])] == [True] * 3
    second = build(there, CONFIG, other, ["c"])
    assert ran(there) == ""
    assert {k: v.digest for k, v in first.items()} == {k: v.digest for k, v in second.items()}
    assert digest_folder(second["c"].path) == second["c"].digest
    assert second["c"].notes == first["c"].notes
    brought = {path.name for path in (tmp_path / "2" / "artefacts").iterdir()}
    assert brought == {second["c"].digest}, (
        "what nobody reads is not brought, and nothing half brought is left"
    )


def test_a_folder_whose_artefacts_were_lost_gets_them_back(tmp_path: Path) -> None:
    def store() -> Store:
        return Store(tmp_path / "1", SharedStore.open(StoreSettings("shared", str(tmp_path / "s"))))

    made = build(bakery(), CONFIG, store(), ["c"])["c"]
    (made.path / "small").write_text("something else")
    again = bakery()
    assert (build(again, CONFIG, store(), ["c"])["c"].path / "small").read_text() == "abc"
    assert ran(again) == ""


def test_what_was_made_before_there_was_a_store_is_put_there(tmp_path: Path) -> None:
    build(bakery(), CONFIG, Store(tmp_path / "1"), ["c"])
    settings = StoreSettings("shared", str(tmp_path / "s"))
    stages = bakery()
    build(stages, CONFIG, Store(tmp_path / "1", SharedStore.open(settings)), ["c"])
    assert ran(stages) == ""
    build(stages, CONFIG, Store(tmp_path / "2", SharedStore.open(settings)), ["c"])
    assert ran(stages) == ""


# -------------------------------------------------------------------------------------- cut, torn, at once


class Cut(Exception):
    """The line broke."""


class Breaking:
    """A file system that breaks for ever after so many changes; ``then`` sees each of them."""

    def __init__(self, files: Any, changes: int) -> None:
        self._files, self.left = files, changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cut

    def makedirs(self, *arguments: Any, **options: Any) -> None:
        self._step()
        self._files.makedirs(*arguments, **options)

    def mv(self, *arguments: Any) -> None:
        self._step()
        self._files.mv(*arguments)

    def rm_file(self, path: str) -> None:
        self._step()  # a broken line tidies nothing up
        self._files.rm_file(path)

    @contextlib.contextmanager
    def open(self, path: str, mode: str) -> Iterator[Any]:
        with self._files.open(path, mode) as file:
            if mode != "wb":
                yield file
                return
            self._step()
            yield _Torn(file, self)


class _Torn:
    def __init__(self, file: Any, parent: Breaking) -> None:
        self._file, self._parent = file, parent

    def write(self, data: bytes) -> int:
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._parent._step()
        return half + int(self._file.write(data[half:]))


def test_an_upload_that_breaks_anywhere_shows_nothing_that_is_not_whole(tmp_path: Path) -> None:
    made = build(bakery(), CONFIG, Store(tmp_path / "1"), ["c"])["c"]
    record = next(iter((tmp_path / "1" / "records" / "c").glob("*.json")))
    import json

    content = json.loads(record.read_text())
    broke = 0
    for changes in range(40):
        root = tmp_path / "stores" / str(changes)
        files = Breaking(fsspec.filesystem("file"), changes)
        try:
            store = SharedStore(files, str(root), atomic_put=False)
            store.put(made.digest, made.path)
            store.put_record("c", record.stem, content)
        except DeployError as error:
            broke += isinstance(error.__cause__, Cut)
        whole = SharedStore(fsspec.filesystem("file"), str(root), atomic_put=False)
        if whole.record("c", record.stem) is not None:
            assert files.left >= 0
        if whole.has(made.digest):
            whole.get(made.digest, tmp_path / "got" / str(changes))
        whole.put(made.digest, made.path)  # the next one finishes it
        whole.get(made.digest, tmp_path / "again" / str(changes))
        assert digest_folder(tmp_path / "again" / str(changes)) == made.digest
    assert 8 < broke < 40, "it broke everywhere, and in the end no more"


def test_many_writers_and_readers_of_the_same_at_once(tmp_path: Path) -> None:
    made = build(bakery(), CONFIG, Store(tmp_path / "1"), ["c"])["c"]
    settings = StoreSettings("shared", str(tmp_path / "store"))
    start, wrong = threading.Barrier(8), list[BaseException]()

    def work(number: int) -> None:
        store = SharedStore.open(settings)
        start.wait()
        try:
            for turn in range(5):
                if number % 2:
                    store.put(made.digest, made.path, again=True)
                else:
                    place = tmp_path / f"got-{number}-{turn}"
                    with contextlib.suppress(KeyError):
                        store.get(made.digest, place)
                        assert digest_folder(place) == made.digest
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not [path for path in (tmp_path / "store").rglob("*.part")]


@pytest.mark.parametrize("damage", ["blob", "no blob", "list", "record"])
def test_damage_is_noticed_and_repaired(tmp_path: Path, damage: str) -> None:
    settings = StoreSettings("shared", str(tmp_path / "s"))
    made = build(bakery(), CONFIG, Store(tmp_path / "1", SharedStore.open(settings)), ["c"])
    shared = tmp_path / "s"
    target = {
        "blob": max(shared.glob("blobs/*"), key=lambda path: path.stat().st_size),
        "no blob": max(shared.glob("blobs/*"), key=lambda path: path.stat().st_size),
        "list": shared / "artefacts" / f"{made['c'].digest}.json",
        "record": next(shared.glob("records/c/*.json")),
    }[damage]
    content = target.read_bytes()
    if damage == "no blob":
        target.unlink()
    else:
        target.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    events: list[Event] = []
    stages = bakery()
    again = build(
        stages, CONFIG, Store(tmp_path / "2", SharedStore.open(settings)), ["c"], emit=events.append
    )
    assert ran(stages) == "c", "made again from what is whole"
    assert again["c"].digest == made["c"].digest
    assert [e for e in events if e.kind == "warning" and made["c"].digest in e.text] or damage not in (
        "blob",
        "no blob",
    )
    if damage != "record":
        assert target.read_bytes() == content, "and put there again"
    third = bakery()
    build(third, CONFIG, Store(tmp_path / "3", SharedStore.open(settings)), ["c"])
    assert ran(third) == ""


def test_a_store_cannot_write_outside_of_an_artefacts_folder(tmp_path: Path) -> None:
    import hashlib

    from toolkit.artefacts.hashing import canonical_json

    store = SharedStore.open(StoreSettings("shared", str(tmp_path / "s")))
    blob = b"evil"
    sha = hashlib.sha256(blob).hexdigest()
    for name in ("../../evil", "/tmp/evil-of-the-store", "a/../../evil"):
        listed = canonical_json([[name, sha]])
        digest = hashlib.sha256(listed).hexdigest()
        for path, content in ((f"artefacts/{digest}.json", listed), (f"blobs/{sha}", blob)):
            (tmp_path / "s" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "s" / path).write_bytes(content)
        with pytest.raises(DeployError):
            store.get(digest, tmp_path / "x" / digest)
    assert not list(tmp_path.rglob("evil"))


# -------------------------------------------------------------------------------------- strangers and secrets


def test_an_sftp_server_with_another_host_key_is_not_trusted(sftp: Sftp, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    with pytest.raises(Unreachable) as refusal:
        SharedStore.open(sftp.settings(host_key=other))
    assert refusal.value.cause == "host-key-changed"
    known = tmp_path / "known_hosts"
    known.touch()
    with pytest.raises(Unreachable) as refusal:
        SharedStore.open(sftp.settings(host_key=None), (str(known),))
    assert refusal.value.cause == "host-key-unknown"
    assert known.read_text() == "", "nobody is believed at first sight"
    known.write_text(f"[127.0.0.1]:{sftp.port} {sftp.host_key}\n")
    with contextlib.closing(SharedStore.open(sftp.settings(host_key=None), (str(known),))) as store:
        assert store.record("a", "0" * 64) is None


def test_addresses_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store\.url"):
        SharedStore.open(StoreSettings("shared", "teleport://somewhere/x"))
    assert list(problems(StoreSettings("shared")))
    for settings in (
        StoreSettings("shared", "sftp://anna:hunter2@host/x"),
        StoreSettings("shared", "s3://b/x", secret_key="hunter2"),
        StoreSettings("shared", "s3://"),
        StoreSettings("shared", "s3:///x"),
        StoreSettings("shared", "s3://b/x", endpoint="127.0.0.1:9000"),
    ):
        found = list(problems(settings))
        assert found
        assert "hunter2" not in str(found)
    assert not list(problems(StoreSettings("shared", "s3://b/x", secret_key="env:NAME")))


def test_damage_names_the_digest(tmp_path: Path) -> None:
    error = Damaged("ab" * 32, "why")
    assert "ab" * 32 in str(error)
