"""The cloud's stand-ins on loopback, with keys that no test may find anywhere else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.modelarts_server import ModelArtsServer
from tests.cloud.obs_server import DOMAIN, ObsServer
from toolkit.cloud.settings import ModelArtsSettings, ObsSettings

ACCESS_KEY = "CANARYAK0123456789"
SECRET_KEY = "canary-secret-key-7f3a"
TOKEN = "canary-token-91bc"
PROJECT = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def cloud_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys as a user gives them: in the environment, under the names that Huawei's SDKs read."""
    monkeypatch.setenv("OBS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("OBS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("OBS_SECURITY_TOKEN", TOKEN)
    monkeypatch.delenv("HUAWEICLOUD_SDK_AK", raising=False)
    monkeypatch.delenv("HUAWEICLOUD_SDK_SK", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def obs_server() -> Iterator[ObsServer]:
    server = ObsServer(ACCESS_KEY, SECRET_KEY, TOKEN)
    yield server
    server.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a name server does for OBS: every name below the service's is its address."""
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **named: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(DOMAIN) else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def obs(obs_server: ObsServer) -> ObsSettings:
    """Settings for the stand-in by number, small parts, short waits."""
    return ObsSettings(
        bucket="bucket", endpoint=obs_server.by_number, part_size=100 * 2**10, tasks=3, timeout=5, pause=0.01
    )


@pytest.fixture
def modelarts_server(obs_server: ObsServer, tmp_path: Path) -> Iterator[ModelArtsServer]:
    server = ModelArtsServer(ACCESS_KEY, SECRET_KEY, TOKEN, PROJECT, obs_server, tmp_path / "modelarts")
    yield server
    server.close()


@pytest.fixture
def modelarts(modelarts_server: ModelArtsServer) -> ModelArtsSettings:
    """Settings for the stand-in, with short waits."""
    return ModelArtsSettings(
        project_id=PROJECT,
        endpoint=modelarts_server.endpoint,
        flavor_id="modelarts.vm.cpu.2u",
        engine_id="mindspore_2.7.0-cann_8.0-py_3.11",
        poll=0.02,
        read=5,
    )
