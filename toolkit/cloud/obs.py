"""One bucket of OBS through Huawei's own SDK, with its defects kept out.

What ``esdk-obs-python`` (3.26, ``obs/client.py`` and ``obs/transfer.py``) does and we don't want:

* it verifies no TLS certificate unless told to, and never a host's name: it gets a context of Python's own;
* its resumable transfers raise bare ``Exception`` and lose request ids: :mod:`toolkit.cloud.transfer` does
  those;
* a refusal is a return value, a broken connection an exception of any class: both become one
  :class:`~toolkit.errors.CloudError` here, after ``attempts`` tries where another try can help.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from toolkit.cloud.credentials import obs_keys
from toolkit.cloud.settings import ObsSettings
from toolkit.errors import CloudError, ConfigError

CHUNK = 2**18
# What a second try can cure: the server's own trouble and its request to come back later.
TRANSIENT = (408, 429, 500, 502, 503, 504)

HINTS = {
    "SignatureDoesNotMatch": "the secret key is wrong, or this machine's clock (store.obs.secret_key)",
    "InvalidAccessKeyId": "the access key is unknown there, or its token is missing (store.obs.token)",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "AccessDenied": "the account has no right to it; see the bucket's policy in OBS",
    "NoSuchBucket": "create the bucket in store.obs.region, or correct its name",
    "NoSuchKey": "see what is there in OBS's console",
    "InvalidBucketState": "the bucket is archived or frozen; see OBS's console",
}


@dataclass(frozen=True)
class Item:
    """An object: its key, size in bytes, ETag without quotes, and our SHA-256 where it was sent by us."""

    key: str
    size: int
    etag: str
    sha256: str = ""
    encrypted: bool = False  # with a key of KMS: then the ETag is no MD5


@dataclass(frozen=True)
class Refusal:
    """What the service said no with."""

    status: int
    code: str
    message: str
    request_id: str


@dataclass
class Bucket:
    """A bucket. Use as a context manager; thread-safe (the SDK opens a connection for each request)."""

    settings: ObsSettings
    name: str
    sleep: Callable[[float], None] = time.sleep
    _client: Any = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __enter__(self) -> Bucket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    @property
    def host(self) -> str:
        """The service's address, for messages."""
        return endpoint(self.settings).split("//", 1)[-1]

    def head(self, key: str) -> Item | None:
        """The object, or None where there is none."""
        answer = self._ask("look at", key, "getObjectMetadata", key, missing=True)
        if answer is None:
            return None
        headers = {str(name).lower(): str(value) for name, value in answer.header or ()}
        return Item(
            key,
            int(answer.body.contentLength or 0),
            str(answer.body.etag or "").strip('"'),
            headers.get("sha256", ""),
            any("server-side-encryption" in name for name in headers),
        )

    def list(self, prefix: str) -> Iterator[Item]:
        """Every object whose key begins with ``prefix``, in order; folders' own entries are left out."""
        marker: str | None = None
        while True:
            answer = self._ask(
                "list",
                prefix,
                "listObjects",
                prefix=prefix,
                marker=marker,
                max_keys=1000,
            )
            body = answer.body
            last = ""
            for item in body.contents or ():
                last = str(item.key)
                if not last.endswith("/"):
                    yield Item(last, int(item.size or 0), str(item.etag or "").strip('"'))
            following = body.next_marker or last
            if not body.is_truncated or not following or following == marker:
                return
            marker = following

    def put(self, key: str, path: Path, md5: str, sha256: str) -> None:
        """Send a file whole; the service refuses it unless its MD5 (base64) is ``md5``."""
        from obs import PutObjectHeader

        self._ask(
            "send",
            key,
            "putFile",
            key,
            str(path),
            metadata={"sha256": sha256},
            headers=PutObjectHeader(md5=md5),
        )

    def put_bytes(self, key: str, content: bytes) -> None:
        """Send a small object."""
        self._ask("send", key, "putContent", key, content)

    def begin(self, key: str, sha256: str) -> str:
        """Begin a multipart upload; return its id."""
        answer = self._ask(
            "send",
            key,
            "initiateMultipartUpload",
            key,
            metadata={"sha256": sha256},
        )
        return str(answer.body.uploadId)

    def put_part(self, key: str, upload: str, number: int, path: Path, offset: int, size: int, md5: str) -> str:
        """Send ``size`` bytes from ``offset`` as part ``number`` (from 1); return the ETag."""
        answer = self._ask(
            f"send part {number} of",
            key,
            "uploadPart",
            key,
            number,
            upload,
            str(path),
            isFile=True,
            partSize=size,
            offset=offset,
            md5=md5,
        )
        return str(answer.body.etag).strip('"')

    def parts(self, key: str, upload: str) -> dict[int, tuple[int, str]] | None:
        """Number → size and ETag of the parts that are there; None where the upload is not known any more."""
        found: dict[int, tuple[int, str]] = {}
        marker: int | None = None
        while True:
            answer = self._ask(
                "look at the parts of",
                key,
                "listParts",
                key,
                upload,
                maxParts=1000,
                partNumberMarker=marker,
                missing=True,
            )
            if answer is None or answer.body is None:
                return None
            for part in answer.body.parts or ():
                found[int(part.partNumber)] = (int(part.size or 0), str(part.etag).strip('"'))
            following = int(answer.body.nextPartNumberMarker or 0)
            if not answer.body.isTruncated or following <= (marker or 0):
                return found
            marker = following

    def complete(self, key: str, upload: str, etags: Mapping[int, str]) -> None:
        """Make the object of its parts."""
        from obs import CompleteMultipartUploadRequest, CompletePart

        parts = [CompletePart(partNum=number, etag=etags[number]) for number in sorted(etags)]
        self._ask(
            "complete",
            key,
            "completeMultipartUpload",
            key,
            upload,
            CompleteMultipartUploadRequest(parts=parts),
        )

    def abort(self, key: str, upload: str) -> None:
        """Drop an upload and its parts; silently where it is gone already."""
        with contextlib.suppress(CloudError):
            self._ask("drop", key, "abortMultipartUpload", key, upload, missing=True)

    def read(self, item: Item, offset: int, size: int, write: Callable[[int, bytes], None]) -> None:
        """Fetch ``size`` bytes from ``offset`` on and hand them to ``write(offset, bytes)`` as they come.

        A cut connection is taken up again where it broke. CloudError where the object is another by now.
        """
        from obs import GetObjectHeader

        done, tries = 0, 0
        while done < size:
            begin = offset + done
            header = GetObjectHeader(range=f"{begin}-{offset + size - 1}", if_match=item.etag or None)
            answer = self._ask(
                "fetch",
                item.key,
                "getObject",
                item.key,
                headers=header,
            )
            stream = answer.body.response
            before = done
            try:
                while done < size:
                    try:
                        chunk = stream.read(min(CHUNK, size - done))
                    except Exception:  # the SDK's own for a short body is a bare one
                        break
                    if not chunk:
                        break
                    write(offset + done, chunk)
                    done += len(chunk)
            finally:
                with contextlib.suppress(Exception):
                    stream.close()
            tries = 0 if done > before else tries + 1
            if done < size and tries >= self.settings.attempts:
                raise CloudError(
                    f"obs://{self.name}/{item.key}: {self.host} broke the connection {tries} times in a row",
                    cause="cut",
                    host=self.host,
                    hint="run the same command again: it goes on where this one stopped",
                )

    def _ask(self, verb: str, key: str, method: str, *arguments: Any, missing: bool = False, **named: Any) -> Any:
        """The answer of the SDK's ``method``; None where nothing is there and ``missing`` allows it.

        ``verb`` and ``key`` are for the message of the CloudError that is raised otherwise.
        """
        what = f"obs://{self.name}/{key}"
        wait = self.settings.pause
        for attempt in range(1, self.settings.attempts + 1):
            last = attempt == self.settings.attempts
            try:
                answer = getattr(self._connected(), method)(self.name, *arguments, **named)
            except (CloudError, ConfigError):
                raise
            except Exception as error:  # the SDK raises whatever its libraries do, and bare Exception
                if isinstance(error, (OSError, http.client.HTTPException)) and not last:
                    self.sleep(wait)
                    wait *= 2
                    continue
                raise self._broken(verb, what, error) from None
            status = int(answer.status or 0)
            if status < 300:
                return answer
            if missing and status == 404 and answer.errorCode in (None, "", "NoSuchKey", "NoSuchUpload"):
                return None
            if status in TRANSIENT and not last:
                self.sleep(wait)
                wait *= 2
                continue
            raise self._refused(verb, what, answer)
        raise AssertionError("attempts is at least 1")

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _client(self.settings)
            return self._client

    def _broken(self, verb: str, what: str, error: Exception) -> CloudError:
        if isinstance(error, TimeoutError):
            why, cause = f"nothing was heard for {self.settings.timeout:g} s", "timeout"
        elif isinstance(error, ssl.SSLError):
            why, cause = f"its certificate is not trusted ({error.reason or 'TLS failed'})", "tls"
        else:
            why = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
            cause = "unreachable"
        return CloudError(
            f"could not {verb} {what}: {self.host}: {why}",
            cause=cause,
            host=self.host,
            hint="see store.obs.endpoint and store.obs.region, and the network",
        )

    def _refused(self, verb: str, what: str, answer: Any) -> CloudError:
        status, code = int(answer.status), str(answer.errorCode or "")
        # A HEAD has no body that could name the cause.
        code = code or {403: "AccessDenied", 404: "NoSuchKey"}.get(status, "")
        message = str(answer.errorMessage or answer.reason or "").strip().splitlines()
        request = str(answer.requestId or "none given")
        said = " ".join(filter(None, [code, f"({status})", message[0] if message else ""]))
        cause = {403: "forbidden", 401: "unauthorised", 404: "not-found", 412: "changed"}.get(status)
        return CloudError(
            f"could not {verb} {what}: {self.host}: {said}; request {request}",
            cause=cause or ("server" if status >= 500 else "refused"),
            host=self.host,
            hint=HINTS.get(code, "" if status < 500 else "OBS itself is in trouble: try later"),
            request_id=request,
        )


def endpoint(settings: ObsSettings) -> str:
    """The service's address, or ConfigError where neither endpoint nor region is set."""
    if settings.endpoint:
        return settings.endpoint
    if settings.region:
        return f"https://obs.{settings.region}.myhuaweicloud.com"
    raise ConfigError("store.obs.region: it is needed to reach OBS", hint="store=obs store.obs.region=cn-north-4")


def _client(settings: ObsSettings) -> Any:
    try:
        from obs import ObsClient
    except ImportError:
        raise ConfigError("the package esdk-obs-python is needed for OBS", hint="pip install -e '.[cloud]'") from None
    keys = obs_keys(settings)
    client = ObsClient(
        access_key_id=keys.access_key.reveal(),
        secret_access_key=keys.secret_key.reveal(),
        security_token=keys.token.reveal() if keys.token else None,
        server=endpoint(settings),
        region=settings.region or "region",
        signature=settings.signature,
        is_signature_negotiation=settings.signature == "obs",
        timeout=settings.timeout,
        max_retry_count=0,  # the tries are counted here
        ssl_verify=True,
    )
    if client.is_secure:
        # The SDK's own context checks no host name and, with ssl_verify=True, trusts no authority at all.
        client.context = ssl.create_default_context(cafile=settings.ca_file or None)
    return client
