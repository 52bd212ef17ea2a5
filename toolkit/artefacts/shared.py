"""A store of artefacts that machines share: a folder, an S3, OBS or SFTP address, anything that fsspec
reaches.

::

    <url>/blobs/<sha256>                        each content once
    <url>/artefacts/<digest>.json               [[name, sha256], …]: its own SHA-256 is the artefact's digest
    <url>/records/<stage>/<fingerprint>.json    which fingerprint gave which artefact

An artefact's digest is the SHA-256 of its list of files (see
:func:`toolkit.artefacts.hashing.digest_folder`), so everything proves itself with a hash function: the list
against the digest, each blob against the list. What does not is never used. The list is written after its
blobs and the record after the list, each whole (a temporary name and a rename, or one PUT where those are
atomic): what is visible is complete, whoever is cut off or writes the same meanwhile. Only the records are
believed: whoever may write to the store can say what a stage makes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from toolkit.artefacts.hashing import CHUNK, canonical_json, digest_data, digest_file, walk_files
from toolkit.artefacts.manifest import check_path
from toolkit.config.schema import StoreSettings
from toolkit.errors import ConfigError, DeployError, InputError

OBJECTS = ("memory", "s3", "s3a", "obs", "gs", "gcs", "abfs", "abfss", "az", "oss")
"""Protocols whose PUT shows an object wholly or not at all, and which have no rename."""

S3 = ("s3", "s3a")

SFTP = ("sftp", "ssh")


class Damaged(InputError):
    """What came from the store is not what its digest says."""

    def __init__(self, digest: str, what: str) -> None:
        super().__init__(
            f"the shared store's artefact {digest} is damaged: {what}", hint="it has to be made again"
        )
        self.digest = digest


class SharedStore:
    """Artefacts below ``root`` of a file system of fsspec.

    Not for two threads at once: an SFTP session isn't either.
    """

    def __init__(self, files: Any, root: str, *, atomic_put: bool, name: str = "") -> None:
        self.files = files
        self.root = root.rstrip("/")
        self.name = name or root
        self._atomic_put = atomic_put

    @classmethod
    def open(
        cls, settings: StoreSettings, known_hosts: tuple[str, ...] = (), ssh_config: str = ""
    ) -> SharedStore:
        """The store that ``store.*`` names. Resolves its secrets here, where they are used.

        :raises ConfigError: no such protocol, or its package is not installed.
        :raises Unreachable: an SFTP server with a cause.
        """
        url = settings.url or ""
        protocol, _, rest = url.partition("://")
        if not rest:
            protocol, rest = "file", os.path.abspath(os.path.expanduser(url))
        if protocol in SFTP:
            return cls._sftp(settings, rest, known_hosts, ssh_config)
        import fsspec  # only for those who share

        try:
            files = fsspec.filesystem(protocol, **_options(settings, protocol))
        except (ImportError, ValueError) as error:
            missing = protocol in S3 and isinstance(error, ImportError)
            raise ConfigError(
                f"store.url: {protocol}:// cannot be used: {_line(error)}",
                hint="pip install -e '.[s3]'" if missing else "",
            ) from error
        root = files._strip_protocol(f"{protocol}://{rest}")
        store = cls(files, str(root), atomic_put=protocol in OBJECTS, name=url)
        if protocol in S3:
            store._check_bucket()
        return store

    @classmethod
    def _sftp(
        cls, settings: StoreSettings, rest: str, known_hosts: tuple[str, ...], ssh_config: str
    ) -> SharedStore:
        from toolkit.remote.address import Address, Limits
        from toolkit.remote.sftp import StrictSFTP

        place, _, path = rest.partition("/")
        login, _, host = place.rpartition("@")
        name, port = _host_and_port(host)
        address = Address(
            name="store",
            host=name,
            port=port,
            user=login,
            key_file=settings.key_file or "",
            password=settings.password or "",
            host_key=settings.host_key or "",
            known_hosts=known_hosts,
            ssh_config=ssh_config,
        )
        # As in scp's URIs: one slash is from the login's home folder, two are from the root.
        return cls(StrictSFTP(address, Limits()), path or ".", atomic_put=False, name=f"sftp://{rest}")

    def close(self) -> None:
        """End the connection, where there is one."""
        if hasattr(self.files, "close"):
            self.files.close()

    def _check_bucket(self) -> None:
        """Nobody wants an hour of training before a typo in a bucket's name shows."""
        bucket = self.root.partition("/")[0]
        with self._explained():
            try:
                self.files.info(bucket)
            except FileNotFoundError:
                raise ConfigError(
                    f"store.url: there is no bucket {bucket}", hint="make it first, or correct its name"
                ) from None
            except PermissionError:
                pass  # keys may be good for what is in a bucket only: reading and writing will tell

    # -- looking

    def record(self, stage: str, fingerprint: str) -> dict[str, Any] | None:
        """What is recorded for ``fingerprint``, if the artefact's list is there too; None where it is not."""
        content = self._small(f"records/{stage}/{fingerprint}.json")
        try:
            record = json.loads(content) if content is not None else None
        except ValueError:
            return None
        if not isinstance(record, dict) or digest_data(record.get("parts")) != fingerprint:
            return None
        return record if self.has(str(record.get("digest"))) else None

    def has(self, digest: str) -> bool:
        """Is the artefact there? Its list is looked at, its blobs are not."""
        try:
            return self._list(digest) is not None
        except Damaged:
            return False

    # -- getting

    def get(self, digest: str, final: Path) -> None:
        """Bring an artefact to the folder ``final``, which appears when everything in it has been verified.

        :raises Damaged: the list, or a blob, is not what its digest says, or a blob is missing.
        :raises KeyError: there is no such artefact.
        """
        entries = self._list(digest)
        if entries is None:
            raise KeyError(digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        folder = final.with_name(f".{final.name[:16]}.{secrets.token_hex(4)}")
        try:
            folder.mkdir()
            for name, sha in entries:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._get_blob(digest, sha, path)
            _flush(folder)
            with contextlib.suppress(OSError):  # somebody else brought it meanwhile: the same
                os.replace(folder, final)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _get_blob(self, digest: str, sha: str, path: Path) -> None:
        hasher = hashlib.sha256()
        try:
            with self._reading(f"blobs/{sha}") as stream, path.open("wb") as file:
                while chunk := stream.read(CHUNK):
                    hasher.update(chunk)
                    file.write(chunk)
        except FileNotFoundError:
            raise Damaged(digest, f"its file {path.name} (blob {sha}) is missing") from None
        if hasher.hexdigest() != sha:
            raise Damaged(digest, f"its file {path.name} (blob {sha}) has another content")

    # -- putting

    def put(self, digest: str, folder: Path, *, again: bool = False) -> None:
        """Add the artefact in ``folder``. ``again`` rewrites blobs that seem to be there: damaged."""
        entries = [(name, digest_file(path), path) for name, path in walk_files(folder)]
        listed = canonical_json([[name, sha] for name, sha, _ in entries])
        if hashlib.sha256(listed).hexdigest() != digest:
            raise DeployError(f"{folder} is not the artefact {digest}", hint="something writes into .deploy/")
        if self.has(digest) and not again:
            return
        for _, sha, path in entries:
            if again or self._size(f"blobs/{sha}") != path.stat().st_size:
                with path.open("rb") as stream:
                    self._write(f"blobs/{sha}", stream)
        self._write_small(f"artefacts/{digest}.json", listed)

    def put_record(self, stage: str, fingerprint: str, record: Mapping[str, Any]) -> None:
        """Say that ``fingerprint`` gives ``record["digest"]``, which has been put before."""
        self._write_small(f"records/{stage}/{fingerprint}.json", canonical_json(record))

    # -- the file system

    def _list(self, digest: str) -> list[tuple[str, str]] | None:
        content = self._small(f"artefacts/{digest}.json")
        if content is None:
            return None
        if hashlib.sha256(content).hexdigest() != digest:
            raise Damaged(digest, "its list of files has another content")
        # It has the right hash, so whoever named the digest vouches for it; still, paths are looked at.
        entries = [(str(name), str(sha)) for name, sha in json.loads(content)]
        for name, _ in entries:
            check_path(name, what="an artefact")
        return entries

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _size(self, name: str) -> int | None:
        with self._explained():
            try:
                return int(self.files.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def _small(self, name: str) -> bytes | None:
        try:
            with self._reading(name) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[BinaryIO]:
        with self._explained(), self.files.open(self._path(name), "rb") as stream:
            yield cast(BinaryIO, stream)

    def _write_small(self, name: str, content: bytes) -> None:
        self._write(name, io.BytesIO(content))

    def _write(self, name: str, source: BinaryIO) -> None:
        """Write a whole file; two writers of the same do not disturb each other."""
        final = self._path(name)
        place = final if self._atomic_put else f"{final}.{secrets.token_hex(6)}.part"
        with self._explained(missing=True):
            if not self._atomic_put:  # stores of objects have no folders; s3fs would make a bucket
                self.files.makedirs(final.rpartition("/")[0], exist_ok=True)
            try:
                with self.files.open(place, "wb") as target:
                    shutil.copyfileobj(source, target, CHUNK)
                if place != final:
                    self.files.mv(place, final)
            except BaseException:
                if place != final:
                    with contextlib.suppress(Exception):
                        self.files.rm_file(place)
                raise

    @contextlib.contextmanager
    def _explained(self, *, missing: bool = False) -> Iterator[None]:
        """Errors of any file system as one of ours; ``missing``: that something is not there, too."""
        try:
            yield
        except DeployError:
            raise
        except Exception as error:  # fsspec's back ends raise what they like
            if isinstance(error, FileNotFoundError) and not missing:
                raise
            hint = next(
                (text for kind, text in _HINTS.items() if kind in type(error).__name__),
                "is it reachable, may this login write there?",
            )
            raise InputError(
                f"the shared store {self.name} fails: {_line(error)}", hint=f"{hint} (store=local does without)"
            ) from error


# By a part of the error's name: botocore's are not imported for that.
_HINTS = {
    "Credentials": "name the keys: store.access_key=${secret:env,NAME} store.secret_key=${secret:env,NAME}",
    "Permission": "may these keys, or this login, read and write there?",
    "Connection": "is store.endpoint right, is it reachable from here?",
    "Timeout": "is store.endpoint right, is it reachable from here?",
}


def problems(settings: StoreSettings) -> Iterator[str]:
    """What is wrong with ``store.*``, each beginning with its key."""
    if settings.kind != "shared":
        return
    if not settings.url:
        yield "store.url: no value; a folder, s3://bucket/path, or sftp://user@host/path"
    protocol, scheme, rest = (settings.url or "").partition("://")
    place = rest.partition("/")[0]
    if scheme and (not rest or (protocol in S3 and not place)):
        yield f"store.url: {settings.url} names no place; such as s3://bucket/path, or sftp://user@host/path"
    if settings.endpoint and not re.match(r"https?://[^/\s]", settings.endpoint):
        yield f"store.endpoint: {settings.endpoint} is no address such as https://obs.cn-north-4.myhuaweicloud.com"
    if ":" in place.rpartition("@")[0]:
        yield "store.url: a password does not stand in the address; write store.password=${secret:env,NAME}"
    for key in ("password", "access_key", "secret_key"):
        value = getattr(settings, key)
        if value and not value.startswith(("env:", "file:", "keyring:")):
            yield (
                f"store.{key}: a secret does not stand in the config; "
                "write ${secret:env,NAME}, or file, or keyring"
            )


def _options(settings: StoreSettings, protocol: str) -> dict[str, Any]:
    """What fsspec's file system of ``protocol`` wants to be told."""
    from toolkit.remote.secrets import resolve

    if protocol in ("file", "local"):
        return {"auto_mkdir": False}
    if protocol not in S3:
        return {}
    # Its own limits add up to minutes for each request of an endpoint that says nothing.
    limits = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
    options: dict[str, Any] = {"config_kwargs": limits}
    if settings.access_key:
        options["key"] = resolve(settings.access_key)
    if settings.secret_key:
        options["secret"] = resolve(settings.secret_key)
    if settings.endpoint:
        options["endpoint_url"] = settings.endpoint
    return options


def _host_and_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.lstrip(":")
    else:
        host, _, port = text.partition(":")
    if not host or (port and not port.isdigit()):
        raise ConfigError(f"store.url: {text!r} is not a host and a port", hint="sftp://user@host:port/path")
    return host, int(port or 22)


def _flush(folder: Path) -> None:
    for _, path in walk_files(folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
