"""``obs://bucket/path`` anywhere a path is taken: it is fetched into a cache, and the path is the copy's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cloud.obs import Bucket
from toolkit.cloud.settings import BUCKET, ObsSettings
from toolkit.cloud.transfer import download, download_folder, place
from toolkit.errors import CloudError, ConfigError
from toolkit.ui.events import Emit, ignore

if TYPE_CHECKING:
    from toolkit.config.schema import Config

SCHEME = "obs://"


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
    """Replace every ``obs://`` address in a config by its local copy; return setting → address."""
    places = (
        ("data.root", config.data, "root"),
        ("model.from", config.model, "from_"),
        ("infer.pictures", config.infer, "pictures"),
    )
    found = {}
    for key, section, name in places:
        value = getattr(section, name)
        if isinstance(value, str) and is_url(value):
            found[key] = value
            setattr(section, name, str(localise(value, cache, config.store.obs, emit)))
    return found
