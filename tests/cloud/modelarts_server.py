"""A stand-in for ModelArts on loopback, written from the documentation of its API v2 (training jobs).

It refuses what the API refuses (unsigned and wrongly signed requests, missing and contradicting fields, bad
names, folders that are not in OBS, stopping what has ended) and really runs the boot file as the job: code and
inputs are copied out of the OBS stand-in, outputs into it, as ModelArts does before and after. The signature is
SDK-HMAC-SHA256 ("API Request Signing Guide"). Knows nothing of the product.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tests.cloud.obs_server import ObsServer, Refused, Stored

FINAL = ("Completed", "Failed", "Terminated", "Abnormal")
PREVIEW = 64 * 1024  # bytes of the log that the preview gives


@dataclass
class Job:
    """A training job."""

    id: str
    body: dict[str, Any]
    phase: str = "Creating"
    log: bytes = b""
    exit_code: int | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    arguments: list[str] = field(default_factory=list)


@dataclass
class Call:
    """What arrived, without its signature."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Program = Callable[[Job, Path, Callable[[str], None]], int]


class ModelArtsServer:
    """The service. ``gates``: phase → an event that the job waits for before it goes on to that phase.

    ``program`` stands for the container's run (default: the boot file as a process of its own);
    ``faults`` are asked about each request: a status, ``drop`` (do it, and close without an answer) or None.
    """

    def __init__(
        self, access_key: str, secret_key: str, token: str, project: str, obs: ObsServer, folder: Path
    ) -> None:
        self.access_key, self.secret_key, self.token, self.project = access_key, secret_key, token, project
        self.obs, self.folder = obs, folder
        self.jobs: dict[str, Job] = {}
        self.calls: list[Call] = []
        self.faults: list[Callable[[Call], str | int | None]] = []
        self.gates: dict[str, threading.Event] = {}
        self.program: Program = self.run_boot
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        for job in self.jobs.values():
            job.stop.set()
        for event in self.gates.values():
            event.set()
        for thread in self._threads:
            thread.join(30)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def started(self, method: str, part: str) -> list[Call]:
        with self.lock:
            return [call for call in self.calls if call.method == method and part in call.path]

    def begin(self, body: dict[str, Any]) -> Job:
        job = Job(str(uuid.uuid4()), body)
        self.jobs[job.id] = job
        thread = threading.Thread(target=self.live, args=(job,), daemon=True)
        self._threads.append(thread)
        thread.start()
        return job

    def live(self, job: Job) -> None:
        """The job's life: each phase in turn, unless it is stopped."""
        for phase in ("Pending", "Running"):
            self.gate(phase, job)
            if job.stop.is_set():
                job.phase = "Terminated"
                return
            job.phase = phase
        home = self.folder / job.id
        home.mkdir(parents=True)

        def write(text: str) -> None:
            with self.lock:
                job.log += text.encode()

        status = self.program(job, home, write)
        self.gate("final", job)
        self.publish(job, home)
        job.exit_code = status
        job.phase = "Terminated" if job.stop.is_set() else "Failed" if status else "Completed"

    def gate(self, phase: str, job: Job) -> None:
        gate = self.gates.get(phase)
        while gate is not None and not gate.wait(0.01) and not job.stop.is_set():
            pass

    def copy_out(self, url: str, folder: Path) -> None:
        bucket, _, prefix = url.strip("/").partition("/")
        folder.mkdir(parents=True, exist_ok=True)
        for key, stored in list(self.obs.buckets[bucket].items()):
            if key.startswith(prefix + "/") and not key.endswith("/"):
                path = folder / key[len(prefix) + 1 :]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(stored.content)

    def publish(self, job: Job, home: Path) -> None:
        for output in job.body["algorithm"].get("outputs") or []:
            bucket, _, prefix = output["remote"]["obs"]["obs_url"].strip("/").partition("/")
            root = home / "outputs" / f"{output['name']}_0"
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    content = path.read_bytes()
                    key = f"{prefix}/{path.relative_to(root).as_posix()}"
                    self.obs.buckets[bucket][key] = Stored(content, hashlib.md5(content).hexdigest())

    def run_boot(self, job: Job, home: Path, write: Callable[[str], None]) -> int:
        """What the container does: download, run the boot file with its arguments, collect the log."""
        algorithm = job.body["algorithm"]
        code = home / "user-job-dir" / algorithm["code_dir"].rstrip("/").rpartition("/")[2]
        self.copy_out(algorithm["code_dir"], code)
        arguments = []
        for item in algorithm.get("inputs") or []:
            folder = home / "inputs" / f"{item['name']}_0"
            self.copy_out(item["remote"]["obs"]["obs_url"], folder)
            arguments.append(f"--{item['name']}={folder}")
        for item in algorithm.get("outputs") or []:
            folder = home / "outputs" / f"{item['name']}_0"
            folder.mkdir(parents=True)
            arguments.append(f"--{item['name']}={folder}")
        boot = code / algorithm["boot_file"][len(algorithm["code_dir"].rstrip("/")) + 1 :]
        job.arguments = [str(boot), *arguments, "--init_method=tcp://127.0.0.1:1"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home),
            "MA_JOB_DIR": str(code.parent),
        }
        environment |= algorithm.get("environments") or {}
        process = subprocess.Popen(
            [sys.executable, *job.arguments],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        watcher = threading.Thread(target=self.end_when_stopped, args=(job, process), daemon=True)
        watcher.start()
        assert process.stdout is not None
        for line in process.stdout:
            write(line)
        status = process.wait()
        watcher.join()
        return status

    @staticmethod
    def end_when_stopped(job: Job, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            if job.stop.wait(0.05):
                os.killpg(process.pid, 15)
                return

    def check(self, body: dict[str, Any]) -> None:
        """Refuse what the API refuses."""

        def need(ok: object, message: str) -> None:
            if not ok:
                raise Refused(400, "ModelArts.0104", message)

        need(body.get("kind") == "job", "kind is invalid")
        name = (body.get("metadata") or {}).get("name", "")
        need(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name), "metadata.name: 1 to 64 of letters, digits, _ and -")
        need(all(job.body["metadata"]["name"] != name for job in self.jobs.values()), "the name is taken")
        need(len(body["metadata"].get("description") or "") <= 256, "metadata.description is too long")
        algorithm = body.get("algorithm") or {}
        code, boot = algorithm.get("code_dir", ""), algorithm.get("boot_file", "")
        need(code.startswith("/") and code.endswith("/"), "algorithm.code_dir: /bucket/path/")
        need(boot.startswith(code) and boot.endswith(".py"), "algorithm.boot_file is not in code_dir")
        need(self.exists(boot), "algorithm.boot_file does not exist in OBS")
        engine = algorithm.get("engine") or {}
        ways = [
            engine.get("engine_id"),
            engine.get("engine_name") and engine.get("engine_version"),
            engine.get("image_url"),
        ]
        need(
            sum(bool(way) for way in ways) == 1,
            "algorithm.engine: one of engine_id, name and version, image_url",
        )
        for kind in ("inputs", "outputs"):
            for item in algorithm.get(kind) or []:
                url = ((item.get("remote") or {}).get("obs") or {}).get("obs_url", "")
                need(item.get("name"), f"algorithm.{kind}.name is missing")
                need(url.startswith("/") and url.endswith("/"), f"algorithm.{kind}.obs_url: /bucket/path/")
                need(self.exists(url), f"algorithm.{kind}.obs_url {url} does not exist in OBS")
        for key, value in (algorithm.get("environments") or {}).items():
            need(re.fullmatch(r"[A-Za-z_]\w*", key) and len(value) <= 4096, "algorithm.environments is invalid")
        resource = (body.get("spec") or {}).get("resource") or {}
        need(resource.get("flavor_id") or resource.get("pool_id"), "spec.resource: flavor_id is missing")
        need(resource.get("node_count", 1) >= 1, "spec.resource.node_count is invalid")
        stop = body["spec"].get("auto_stop")
        need(not stop or (stop["time_unit"] == "HOURS" and stop["duration"] >= 1), "spec.auto_stop is invalid")

    def exists(self, url: str) -> bool:
        bucket, _, key = url.lstrip("/").partition("/")
        return any(name == key or name.startswith(key.rstrip("/") + "/") for name in self.obs.buckets.get(bucket, {}))

    def shown(self, job: Job) -> dict[str, Any]:
        metadata = {**job.body["metadata"], "id": job.id, "create_time": int(time.time() * 1000)}
        status: dict[str, Any] = {
            "phase": job.phase,
            "secondary_phase": job.phase,
            "duration": 1,
            "tasks": ["worker-0"],
        }
        if job.phase in FINAL and job.exit_code is not None:
            status["task_statuses"] = [
                {
                    "task": "worker-0",
                    "exit_code": job.exit_code,
                    "message": "" if not job.exit_code else "exited",
                }
            ]
        return {"kind": "job", "metadata": metadata, "status": status, "algorithm": {}, "spec": {}}


def signature(secret_key: str, call: Call, signed: list[str]) -> str:
    """The signature that the signing guide asks for."""
    parts = urlsplit(call.path)
    path = "/".join(quote(unquote(piece), safe="~") for piece in parts.path.split("/"))
    lines = [
        call.method,
        path if path.endswith("/") else path + "/",
        "&".join(sorted(parts.query.split("&"))) if parts.query else "",
        "".join(f"{name}:{call.headers.get(name, '').strip()}\n" for name in signed),
        ";".join(signed),
        hashlib.sha256(call.body).hexdigest(),
    ]
    date = call.headers.get("x-sdk-date", "")
    text = f"SDK-HMAC-SHA256\n{date}\n{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
    return hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()


def _handler(server: ModelArtsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items() if name.lower() != "authorization"}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = Call(self.command, self.path, headers, body)
            with server.lock:
                server.calls.append(call)
            action = next((what for fault in list(server.faults) if (what := fault(call)) is not None), None)
            try:
                if isinstance(action, int):
                    raise Refused(action, "ModelArts.0010", "made to fail")
                self.verify(call)
                with server.lock:
                    status, value = self.answer(call)
            except Refused as refusal:
                status, value = refusal.status, {"error_code": refusal.code, "error_msg": str(refusal)}
            if action == "drop":
                self.close_connection = True
                self.connection.close()
                return
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.send_header("X-Request-Id", f"MAREQ{len(server.calls):05d}")
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_DELETE = do_GET

        def verify(self, call: Call) -> None:
            match = re.fullmatch(
                r"SDK-HMAC-SHA256 Access=([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})",
                self.headers.get("Authorization") or "",
            )
            if match is None:
                raise Refused(401, "APIGW.0301", "Incorrect IAM authentication information: not signed")
            access_key, signed, given = match.groups()
            names = signed.split(";")
            try:
                at = datetime.strptime(call.headers.get("x-sdk-date", ""), "%Y%m%dT%H%M%SZ").replace(
                    tzinfo=timezone.utc
                )
            except ValueError:
                raise Refused(401, "APIGW.0301", "no valid X-Sdk-Date") from None
            right = signature(server.secret_key, call, names)
            if access_key != server.access_key or not hmac.compare_digest(given, right):
                raise Refused(401, "APIGW.0301", "Incorrect IAM authentication information: verify aksk signature fail")
            if "x-sdk-date" not in names or abs(time.time() - at.timestamp()) > 900:
                raise Refused(401, "APIGW.0301", "X-Sdk-Date is not signed, or too old")
            if call.headers.get("x-security-token", "") != server.token:
                raise Refused(401, "APIGW.0301", "the security token is not of this key")

        def answer(self, call: Call) -> tuple[int, Any]:
            base = f"/v2/{server.project}/"
            if not call.path.startswith(base):
                raise Refused(404, "APIGW.0101", "the project does not exist")
            rest = urlsplit(call.path).path[len(base) :].strip("/").split("/")
            value = json.loads(call.body) if call.body else {}
            if rest == ["training-job-searches"] and call.method == "POST":
                wanted = next(iter(value["filters"]))["value"][0]
                found = [job for job in server.jobs.values() if wanted in job.body["metadata"]["name"]]
                return 200, {
                    "total": len(found),
                    "count": len(found),
                    "items": [server.shown(job) for job in found],
                }
            if rest == ["training-jobs"] and call.method == "POST":
                server.check(value)
                return 201, server.shown(server.begin(value))
            job = server.jobs.get(rest[1]) if rest[0] == "training-jobs" and len(rest) > 1 else None
            if job is None:
                raise Refused(404, "ModelArts.2772", "the training job does not exist")
            if len(rest) == 2:
                return 200, server.shown(job)
            if rest[2] == "actions":
                if value != {"action_type": "terminate"} or job.phase in (*FINAL, "Terminating"):
                    raise Refused(400, "ModelArts.2774", f"a job in phase {job.phase} cannot be terminated")
                job.phase = "Terminating"
                job.stop.set()
                return 202, server.shown(job)
            if rest[2:] == ["tasks", "worker-0", "logs", "preview"]:
                text = job.log[-PREVIEW:].decode("utf-8", "ignore")
                return 200, {"content": text, "current_size": len(text), "full_size": len(job.log)}
            raise Refused(404, "APIGW.0101", "there is no such API")

    return Handler
