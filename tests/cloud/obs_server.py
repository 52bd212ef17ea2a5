"""A stand-in for OBS on loopback, from OBS's API reference: it verifies signatures and can be made to fail.

Signature: ``Authorization: OBS AK:base64(HMAC-SHA1(SK, StringToSign))`` with ``StringToSign`` = method,
Content-MD5, Content-Type, Date (empty beside ``x-obs-date``), the ``x-obs-`` headers sorted, and the resource
with its sub-resources ("Object Storage Service API Reference", "Authentication of Signature in a Header").
An address by number gets the same scheme under its older name (``AWS``, ``x-amz-``). Knows nothing of the
product.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

DOMAIN = "obs.localhost"
SUBRESOURCES = {
    "acl",
    "uploads",
    "uploadId",
    "partNumber",
    "apiversion",
    "location",
    "versioning",
    "delete",
    "policy",
}
SIGNED_SKEW = 15 * 60


@dataclass
class Stored:
    """An object."""

    content: bytes
    etag: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """What arrived, without its signature."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    scheme: str


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


Fault = Callable[[Request], str | int | None]


class ObsServer:
    """The service. ``faults`` answer requests with a status, ``cut`` (half the body), ``hang`` or None."""

    def __init__(
        self, access_key: str, secret_key: str, token: str = "", buckets: tuple[str, ...] = ("bucket",)
    ) -> None:
        self.access_key, self.secret_key, self.token = access_key, secret_key, token
        self.buckets: dict[str, dict[str, Stored]] = {name: {} for name in buckets}
        self.uploads: dict[str, tuple[str, str, dict[str, str], dict[int, bytes]]] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.numbers = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def by_number(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def by_name(self) -> str:
        return f"http://{DOMAIN}:{self.port}"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def sent(self, method: str, part: str = "") -> list[Request]:
        """The requests of a method whose key or query has ``part``."""
        with self.lock:
            return [r for r in self.requests if r.method == method and (part in r.key or part in r.query)]

    def next_number(self) -> int:
        with self.lock:
            self.numbers += 1
            return self.numbers


def sign(secret_key: str, request: Request, resource: str) -> str:
    """The signature that the documentation asks for."""
    prefix = "x-obs-" if request.scheme == "OBS" else "x-amz-"
    headers = {name: value for name, value in request.headers.items() if name.startswith(prefix)}
    lines = [
        request.method,
        request.headers.get("content-md5", ""),
        request.headers.get("content-type", ""),
        "" if prefix + "date" in headers else request.headers.get("date", ""),
        *(f"{name}:{headers[name].strip()}" for name in sorted(headers)),
    ]
    chosen = sorted(
        (key, value) for key, value in request.query.items() if key in SUBRESOURCES or key.startswith(prefix)
    )
    query = "&".join(f"{key}={value}" if value else key for key, value in chosen)
    text = "\n".join([*lines, resource + ("?" + query if query else "")])
    return base64.b64encode(hmac.new(secret_key.encode(), text.encode(), hashlib.sha1).digest()).decode()


def _handler(server: ObsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.serve()

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def serve(self) -> None:
            request, resource = self.receive()
            with server.lock:
                server.requests.append(request)
            self.close_connection = True
            action = next((what for fault in list(server.faults) if (what := fault(request)) is not None), None)
            try:
                if action == "hang":
                    server.closing.wait(30)
                    return
                if isinstance(action, int):
                    raise Refused(action, "ServiceUnavailable" if action == 503 else "InternalError", "made to fail")
                self.verify(request, resource)
                status, headers, body = self.answer(request)
            except Refused as refusal:
                status, headers = refusal.status, {"Content-Type": "application/xml"}
                body = (
                    f"<Error><Code>{refusal.code}</Code><Message>{escape(str(refusal))}</Message>"
                    f"<RequestId>REQ{server.next_number():06d}</RequestId><HostId>x</HostId></Error>"
                ).encode()
            self.respond(request, status, headers, body, cut=action == "cut")

        def receive(self) -> tuple[Request, str]:
            parts = urlsplit(self.path)
            host = (self.headers.get("Host") or "").split(":")[0]
            path = parts.path
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            if host.endswith("." + DOMAIN):
                bucket, key = host.removesuffix("." + DOMAIN), path[1:]
                resource = f"/{bucket}{path}"
            else:
                bucket, _, key = path[1:].partition("/")
                resource = path
            headers = {name.lower(): value for name, value in self.headers.items() if name.lower() != "authorization"}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            scheme = (self.headers.get("Authorization") or "").partition(" ")[0]
            return Request(self.command, unquote(bucket), unquote(key), query, headers, body, scheme), resource

        def verify(self, request: Request, resource: str) -> None:
            if "apiversion" in request.query:
                return
            scheme, _, rest = (self.headers.get("Authorization") or "").partition(" ")
            access_key, _, signature = rest.partition(":")
            if scheme not in ("OBS", "AWS"):
                raise Refused(403, "AccessDenied", "the request is not signed")
            if access_key != server.access_key:
                raise Refused(403, "InvalidAccessKeyId", "the access key does not exist")
            prefix = "x-obs-" if scheme == "OBS" else "x-amz-"
            date = request.headers.get("date") or request.headers.get(prefix + "date", "")
            try:
                skew = abs(parsedate_to_datetime(date).timestamp() - time.time())
            except (TypeError, ValueError):
                raise Refused(403, "AccessDenied", "no valid date") from None
            if skew > SIGNED_SKEW:
                raise Refused(403, "RequestTimeTooSkewed", "the difference between clocks is too large")
            if not hmac.compare_digest(signature, sign(server.secret_key, request, resource)):
                raise Refused(403, "SignatureDoesNotMatch", "the signature we calculated does not match")
            if request.headers.get(prefix + "security-token", "") != server.token:
                raise Refused(403, "InvalidAccessKeyId", "the security token is not of this key")

        def answer(self, request: Request) -> tuple[int, dict[str, str], bytes]:
            if "apiversion" in request.query:
                return 200, {"x-obs-api": "3.0"}, b""
            bucket = server.buckets.get(request.bucket)
            if bucket is None:
                raise Refused(404, "NoSuchBucket", "the bucket does not exist")
            if "content-md5" in request.headers:
                want = base64.b64decode(request.headers["content-md5"])
                if hashlib.md5(request.body).digest() != want:
                    raise Refused(400, "BadDigest", "the Content-MD5 does not match what was received")
            with server.lock:
                if not request.key:
                    return self.list(request, bucket)
                if "uploads" in request.query or "uploadId" in request.query:
                    return self.multipart(request, bucket)
                return self.object(request, bucket)

        def metadata(self, request: Request) -> dict[str, str]:
            prefix = "x-obs-meta-" if request.scheme == "OBS" else "x-amz-meta-"
            return {name[len(prefix) :]: value for name, value in request.headers.items() if name.startswith(prefix)}

        def object(self, request: Request, bucket: dict[str, Stored]) -> tuple[int, dict[str, str], bytes]:
            if request.method == "PUT":
                etag = hashlib.md5(request.body).hexdigest()
                bucket[request.key] = Stored(request.body, etag, self.metadata(request))
                return 200, {"ETag": f'"{etag}"'}, b""
            stored = bucket.get(request.key)
            if request.method == "DELETE":
                bucket.pop(request.key, None)
                return 204, {}, b""
            if stored is None:
                raise Refused(404, "NoSuchKey", "the key does not exist")
            if request.headers.get("if-match", stored.etag).strip('"') != stored.etag:
                raise Refused(412, "PreconditionFailed", "the object is another by now")
            prefix = "x-obs-meta-" if request.scheme == "OBS" else "x-amz-meta-"
            headers = {
                "ETag": f'"{stored.etag}"',
                **{prefix + name: value for name, value in stored.metadata.items()},
            }
            body, status = stored.content, 200
            if "range" in request.headers:
                first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
                if int(first) >= len(body):
                    raise Refused(416, "InvalidRange", "the range is outside of the object")
                body, status = body[int(first) : int(last) + 1], 206
            return status, headers, body

        def list(self, request: Request, bucket: dict[str, Stored]) -> tuple[int, dict[str, str], bytes]:
            prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
            limit = min(int(request.query.get("max-keys") or 1000), 1000)
            keys = sorted(key for key in bucket if key.startswith(prefix) and key > marker)
            shown = keys[:limit]
            entries = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f'<ETag>"{bucket[key].etag}"</ETag><Size>{len(bucket[key].content)}</Size></Contents>'
                for key in shown
            )
            more = len(keys) > limit
            text = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{entries}"
            text += f"<NextMarker>{escape(shown[-1])}</NextMarker>" if more else ""
            return 200, {"Content-Type": "application/xml"}, (text + "</ListBucketResult>").encode()

        def multipart(self, request: Request, bucket: dict[str, Stored]) -> tuple[int, dict[str, str], bytes]:
            xml = {"Content-Type": "application/xml"}
            if "uploads" in request.query:
                name = f"UP{server.next_number()}"
                server.uploads[name] = (request.bucket, request.key, self.metadata(request), {})
                text = f"<UploadId>{name}</UploadId>"
                return (
                    200,
                    xml,
                    f"<InitiateMultipartUploadResult>{text}</InitiateMultipartUploadResult>".encode(),
                )
            upload = server.uploads.get(request.query["uploadId"])
            if upload is None or upload[:2] != (request.bucket, request.key):
                raise Refused(404, "NoSuchUpload", "the upload does not exist")
            parts = upload[3]
            if request.method == "PUT":
                parts[int(request.query["partNumber"])] = request.body
                return 200, {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'}, b""
            if request.method == "DELETE":
                del server.uploads[request.query["uploadId"]]
                return 204, {}, b""
            if request.method == "GET":
                text = "".join(
                    f'<Part><PartNumber>{number}</PartNumber><ETag>"{hashlib.md5(body).hexdigest()}"</ETag>'
                    f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>{len(body)}</Size></Part>"
                    for number, body in sorted(parts.items())
                )
                return (
                    200,
                    xml,
                    f"<ListPartsResult><IsTruncated>false</IsTruncated>{text}</ListPartsResult>".encode(),
                )
            return self.complete(request, bucket, parts, upload[2])

        def complete(
            self,
            request: Request,
            bucket: dict[str, Stored],
            parts: dict[int, bytes],
            metadata: dict[str, str],
        ) -> tuple[int, dict[str, str], bytes]:
            wanted = [
                (int(part.findtext("PartNumber") or 0), (part.findtext("ETag") or "").strip('"'))
                for part in ET.fromstring(request.body).iter("Part")
            ]
            have = {number: hashlib.md5(body).hexdigest() for number, body in parts.items()}
            if not wanted or wanted != sorted(wanted) or any(have.get(number) != etag for number, etag in wanted):
                raise Refused(400, "InvalidPart", "a part is missing or another one")
            if any(len(parts[number]) < 100 * 1024 for number, _ in wanted[:-1]):
                raise Refused(400, "EntityTooSmall", "a part is below 100 KB")
            whole = b"".join(parts[number] for number, _ in wanted)
            etag = hashlib.md5(b"".join(bytes.fromhex(etag) for _, etag in wanted)).hexdigest() + f"-{len(wanted)}"
            bucket[request.key] = Stored(whole, etag, metadata)
            del server.uploads[request.query["uploadId"]]
            text = f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
            return 200, {"Content-Type": "application/xml"}, text.encode()

        def respond(self, request: Request, status: int, headers: dict[str, str], body: bytes, cut: bool) -> None:
            prefix = "x-amz-" if request.scheme == "AWS" else "x-obs-"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header(prefix + "request-id", f"REQ{server.next_number():06d}")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Date", formatdate(usegmt=True))
            self.end_headers()
            if request.method != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)

    return Handler
