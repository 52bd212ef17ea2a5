"""Access keys of the cloud: from secret references, or the environment names that Huawei's own SDKs read."""

from __future__ import annotations

import os
from dataclasses import dataclass

from toolkit.cloud.settings import ModelArtsSettings, ObsSettings
from toolkit.errors import ConfigError
from toolkit.remote.secrets import Secret, resolve

# esdk-obs-python reads the first of each pair, huaweicloudsdkcore the second.
ACCESS_KEY = ("OBS_ACCESS_KEY_ID", "HUAWEICLOUD_SDK_AK")
SECRET_KEY = ("OBS_SECRET_ACCESS_KEY", "HUAWEICLOUD_SDK_SK")
TOKEN = ("OBS_SECURITY_TOKEN", "HUAWEICLOUD_SDK_SECURITY_TOKEN")


@dataclass(frozen=True)
class Keys:
    """What requests are signed with. The token is there for temporary keys only."""

    access_key: Secret
    secret_key: Secret
    token: Secret | None


def obs_keys(obs: ObsSettings) -> Keys:
    """The keys for OBS, or ConfigError saying where they were looked for."""
    return _keys("store.obs", obs.access_key, obs.secret_key, obs.token)


def modelarts_keys(modelarts: ModelArtsSettings, obs: ObsSettings) -> Keys:
    """The keys for ModelArts: its own, or those for OBS."""
    if modelarts.access_key or modelarts.secret_key:
        return _keys("modelarts", modelarts.access_key, modelarts.secret_key, modelarts.token)
    return obs_keys(obs)


def _keys(group: str, access_key: str | None, secret_key: str | None, token: str | None) -> Keys:
    # A token belongs to its keys: one from the environment never goes with keys from elsewhere.
    from_environment = not access_key and not secret_key
    found_token = resolve(token) if token else _environment(TOKEN) if from_environment else ""
    return Keys(
        Secret(resolve(access_key) if access_key else _needed(group, "access_key", ACCESS_KEY)),
        Secret(resolve(secret_key) if secret_key else _needed(group, "secret_key", SECRET_KEY)),
        Secret(found_token) if found_token else None,
    )


def _environment(names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


def _needed(group: str, key: str, names: tuple[str, ...]) -> str:
    value = _environment(names)
    if not value:
        raise ConfigError(
            f"{group}.{key}: there is none, and neither {' nor '.join(names)} is set",
            hint=f"export {names[0]}=…, or {group}.{key}='${{secret:file,PATH}}'",
        )
    return value
