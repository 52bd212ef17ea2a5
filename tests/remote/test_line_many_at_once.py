"""Many connections made at once: Fabric's Config is written while a Connection is made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import fabric
import pytest

from toolkit.remote.connector import own_config


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns at nearly every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_connections_made_at_once_have_all_settings() -> None:
    def make(number: int) -> bool:
        made = fabric.Connection(f"board-{number}", user="me", config=own_config(), gateway=False)
        return bool(made.client is not None and made.config.forward_agent is False)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(200))) == [True] * 200
