"""``obs://bucket/path`` wherever something is read: it is fetched into a cache, and the path is the copy's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cloud.settings import BUCKET, ObsSettings
from toolkit.errors import CloudError, ConfigError
from toolkit.ui.events import Emit, ignore

if TYPE_CHECKING:
    from toolkit.config.schema import Config

SCHEME = "obs://"
TAKEN = ("data.root", "model.from", "infer.pictures", "quantise.config", "inventory")
"""Settings that name something to read; besides, the files that ATC's flags name."""


def is_url(value: str) -> bool:
    """Whether ``value`` names something in OBS."""
    return value.startswith(SCHEME)


def split(url: str) -> tuple[str, str]:
    """``obs://bucket/some/path`` → bucket and key. ConfigError where it is no such thing."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    if not is_url(url) or not BUCKET.fullmatch(bucket) or not key.strip("/"):
        raise ConfigError(f"{url}: not an address in OBS", hint="write obs://bucket/path")
    return bucket, key


def localise(where: str, cache: Path, obs: ObsSettings, emit: Emit = ignore) -> Path:
    """A local path for ``where``: itself, or for ``obs://…`` a copy below ``cache``, brought up to date.

    An address with an object of exactly that name is a file, anything else a folder.
    """
    if not is_url(where):
        return Path(where).expanduser()
    # Every call looks for such addresses, and hardly any has one.
    from toolkit.cloud.obs import Bucket
    from toolkit.cloud.transfer import download, download_folder, place

    name, key = split(where)
    with Bucket(obs, name) as bucket:
        item = None if key.endswith("/") else bucket.head(key)
        path = place(cache / "obs" / name, key.rstrip("/"), key)
        if item is not None:
            if path.is_dir():
                raise CloudError(
                    f"{where}: it was a folder and is an object now", cause="changed", hint=f"remove {path}"
                )
            download(bucket, {path: item}, emit=emit)
        else:
            download_folder(bucket, key, path, emit=emit)
    return path


def localise_config(config: Config, cache: Path, emit: Emit = ignore) -> Mapping[str, str]:
    """Replace every ``obs://`` address in a config by its local copy; return setting → address.

    ConfigError where a setting has one that means a place to write to, a secret or a file of a board's.
    """
    found: dict[str, str] = {}
    refused = []
    for key, section, name, value in _addresses(config):
        if key in TAKEN or key.startswith("atc."):
            found[key] = value
            setattr(section, name, str(localise(value, cache, config.store.obs, emit)))
        else:
            refused.append(f"{key}: {value} is in OBS, and this is a path on a machine")
    if refused:
        raise ConfigError(
            refused[0] if len(refused) == 1 else f"{len(refused)} settings are wrong",
            hint=f"fetch it first; {', '.join(TAKEN)} and the files of atc.… take obs:// addresses",
            problems=refused,
        )
    return found


def _addresses(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, str, str]]:
    """Every setting that is an ``obs://`` address: dotted key, where it stands, its name there, the address.

    What a training job gets as its environment is the job's own business.
    """
    for item in fields(section):
        key, value = prefix + item.name.rstrip("_"), getattr(section, item.name)
        if is_dataclass(value):
            yield from _addresses(value, f"{key}.")
        elif isinstance(value, str) and is_url(value):
            yield key, section, item.name, value
