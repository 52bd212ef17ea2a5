"""What can be set about OBS and ModelArts: plain dataclasses for the configuration's schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

SECRET_KINDS = ("env:", "file:", "keyring:")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class ObsSettings:
    """Where objects are kept and how they are sent."""

    bucket: str = ""  # for code, data and results; not needed to read obs:// paths
    prefix: str = "ascend-deploy"  # everything of ours lies below it in the bucket
    region: str = ""  # such as cn-north-4; the endpoint follows from it
    endpoint: str = ""  # https://obs.<region>.myhuaweicloud.com unless set
    signature: str = "obs"  # obs | v4 | v2: the last two for other S3-compatible servers
    ca_file: str = ""  # certificates to trust instead of the system's (a private cloud's)
    access_key: str | None = None  # secret references; None: the SDK's environment names, OBS_ACCESS_KEY_ID …
    secret_key: str | None = None
    token: str | None = None
    part_size: int = 9 * 2**20  # bytes of a part of a large object: 100 KiB … 5 GiB
    tasks: int = 6  # requests at once
    attempts: int = 4  # of one request
    timeout: float = 60.0  # s of silence that end a request
    pause: float = 0.5  # s before the second attempt, doubled each time


@dataclass
class ModelArtsSettings:
    """The training job in ModelArts, and how it is watched."""

    project_id: str = ""  # "": HUAWEICLOUD_SDK_PROJECT_ID
    region: str = ""  # "": OBS's
    endpoint: str = ""  # https://modelarts.<region>.myhuaweicloud.com unless set
    ca_file: str = ""
    access_key: str | None = None  # secret references; None: OBS's
    secret_key: str | None = None
    token: str | None = None
    workspace_id: str = "0"
    flavor_id: str = ""  # as the API lists them (training-job-flavors)
    pool_id: str = ""  # a dedicated resource pool
    engine_id: str = ""  # one of these three: engine_id,
    engine_name: str = ""  # name and version,
    engine_version: str = ""
    image_url: str = ""  # or an image of one's own in SWR
    environments: dict[str, str] = field(default_factory=dict)  # set in the job; never put a secret here
    requirements: list[str] = field(default_factory=list)  # what pip installs in the job before it starts
    max_hours: int = 24  # ModelArts stops the job after that by itself
    poll: float = 10.0  # s between two looks at the job
    connect: float = 10.0  # s
    read: float = 60.0  # s of silence that end a request
    queue: float = 6 * 3600.0  # s that a job may wait for resources before we stop watching
    outage: float = 600.0  # s during which ModelArts may not answer before we stop watching
    stop: float = 300.0  # s that cancelling may take


def problems(obs: ObsSettings, modelarts: ModelArtsSettings, cloud_training: bool) -> Iterator[str]:
    """Every wrong setting, each beginning with its dotted key."""
    for group, settings in (("store.obs", obs), ("modelarts", modelarts)):
        for key in ("access_key", "secret_key", "token"):
            value = getattr(settings, key)
            if value and not value.startswith(SECRET_KINDS):
                yield f"{group}.{key}: a secret does not stand in the config; write ${{secret:env,NAME}}"
        if settings.endpoint:
            yield from _endpoint(f"{group}.endpoint", settings.endpoint)
    if obs.bucket and not BUCKET.fullmatch(obs.bucket):
        yield f"store.obs.bucket: {obs.bucket!r} is not a bucket's name (3 to 63 of a-z, 0-9, - and .)"
    if obs.signature not in ("obs", "v4", "v2"):
        yield f"store.obs.signature: {obs.signature} is not one of obs, v4, v2"
    if not 100 * 2**10 <= obs.part_size <= 5 * 2**30:
        yield f"store.obs.part_size: {obs.part_size} is not in 102400 … 5368709120 bytes"
    counts = {
        "store.obs.tasks": obs.tasks,
        "store.obs.attempts": obs.attempts,
        "modelarts.max_hours": modelarts.max_hours,
    }
    for key, count in counts.items():
        if count < 1:
            yield f"{key}: {count} is too small: at least 1"
    waits = {
        "store.obs.timeout": obs.timeout,
        **{
            f"modelarts.{key}": getattr(modelarts, key)
            for key in ("poll", "connect", "read", "queue", "outage", "stop")
        },
    }
    for key, wait in waits.items():
        if not wait > 0:
            yield f"{key}: {wait:g} is not a positive number"
    for name in modelarts.environments:
        if not VARIABLE.fullmatch(name):
            yield f"modelarts.environments: {name!r} cannot be a variable's name"
    if cloud_training:
        yield from _job(obs, modelarts)


def _endpoint(key: str, endpoint: str) -> Iterator[str]:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield f"{key}: {endpoint} is not an address such as https://obs.cn-north-4.myhuaweicloud.com"
    elif parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1") and not _is_local(parts.hostname):
        yield f"{key}: {endpoint} would send everything in the clear; write https://"


def _is_local(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _job(obs: ObsSettings, modelarts: ModelArtsSettings) -> Iterator[str]:
    if not obs.bucket:
        yield "store.obs.bucket: train.where=modelarts needs one; take store=obs store.obs.bucket=NAME"
    if not modelarts.flavor_id and not modelarts.pool_id:
        yield "modelarts.flavor_id: train.where=modelarts needs one, or modelarts.pool_id"
    given = [
        bool(modelarts.engine_id),
        bool(modelarts.engine_name and modelarts.engine_version),
        bool(modelarts.image_url),
    ]
    if sum(given) != 1:
        yield (
            "modelarts.engine_id: exactly one of engine_id, engine_name with engine_version, and image_url "
            f"is needed ({sum(given)} given)"
        )
