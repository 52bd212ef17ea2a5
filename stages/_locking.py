"""From a call to what it is made of and what is kept of it: store, lock file, signature, receipts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stages import _registry
from stages._fleet import Target
from stages._invocation import Invocation
from toolkit import paths
from toolkit.artefacts import lock as locking
from toolkit.artefacts.lock import Lock
from toolkit.artefacts.manifest import Release
from toolkit.artefacts.shared import SharedStore
from toolkit.artefacts.signing import Signer
from toolkit.artefacts.store import Store
from toolkit.fleet.job import BoardJob
from toolkit.fleet.journal import RunFolder
from toolkit.fleet.outcome import Outcome
from toolkit.fleet.receipts import receipt_of


def open_store(invocation: Invocation) -> Store:
    """The store of the call: this folder's; behind it the shared one, before it the lock, where given."""
    config = invocation.config
    Signer.from_settings(config.sign)  # a key that cannot sign is told of now, not after an hour of training
    shared = None
    if config.store.kind == "shared":
        shared = SharedStore.open(config.store, tuple(config.ssh.known_hosts), config.ssh.config)
    return Store(paths.home(), shared, _lock(invocation) if config.lock else None)


def keep_lock(
    invocation: Invocation, targets: Sequence[Target], store: Store, releases: Mapping[str, str], run: Path
) -> None:
    """Write ``deploy.lock`` into the run's folder and the one that the command is run from.

    ``releases``: a target's name → the id of its release, in the order of ``targets``. A
    rollout from a lock checks them instead, and changes no lock.
    """
    stages = _registry.build_stages()
    if isinstance(store.pins, Lock):
        for target, release in zip(targets, releases.values(), strict=True):
            store.pins.check_release(stages, target.config, release)
        shutil.copyfile(Path(store.pins.path), run / locking.NAME)
        return
    lock = Lock(
        tuple(
            locking.lock_target(key, stages, target.config, store, release)
            for (key, release), target in zip(releases.items(), targets, strict=True)
        ),
        locking.locked_overrides(invocation.overrides),
        locking.made_by(),
    )
    lock.write(run / locking.NAME)
    lock.write(paths.base() / locking.NAME)


def signature_of(invocation: Invocation, release: Release) -> str:
    """The release's signature with ``sign=ssh-key``; "" without."""
    signer = Signer.from_settings(invocation.config.sign)
    return signer.sign(release) if signer else ""


def recorder(run: RunFolder, jobs: Sequence[BoardJob]) -> Callable[[Outcome], None]:
    """Keeps each outcome as the board's next receipt, in its chain and in the run's folder."""
    by_name = {job.board: job for job in jobs}
    made_by = locking.made_by()

    def record(outcome: Outcome) -> None:
        run.receipt(outcome.board, receipt_of(by_name[outcome.board], outcome, made_by))

    return record


def _lock(invocation: Invocation) -> Lock:
    return Lock.read(Path(invocation.config.lock or "").expanduser().absolute())
