"""What the tests of the simulated boards share: running boards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolkit.sim import Address, SimBoard, Simulation


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """Two running boards for tests that leave them as they were; the first also takes a password."""
    wanted = [SimBoard("sim-1", password="Mind@123"), SimBoard("sim-2")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACL_SIM_STRICT", "0")  # reaches the programs on the boards
        with Simulation(wanted, tmp_path_factory.mktemp("boards")) as simulation:
            yield simulation


@pytest.fixture(scope="module")
def board(boards: Simulation) -> Address:
    """The first of the two."""
    return boards.addresses[0]
