"""The composed config as an object, with what it names in OBS at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit import paths
from toolkit.cloud import locate
from toolkit.config import store
from toolkit.config.schema import Config
from toolkit.ui.events import Emit

if TYPE_CHECKING:
    from omegaconf import DictConfig


def load(composed: DictConfig | Mapping[str, Any], emit: Emit) -> Config:
    """Like :func:`toolkit.config.store.load`, and ``obs://`` addresses become paths of copies in the cache."""
    config = store.load(composed)
    locate.localise_config(config, paths.home() / "cache", emit)
    return config
