"""For all tests: a folder of its own for what the program writes, and no silent skips in CI."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Why a test may be skipped in CI: a part of the reason → what makes it acceptable there.
ALLOWED_SKIPS: dict[str, str] = {
    "no Python": "the machine lacks an old interpreter; the README names those that are tested",
    "the benchmark's peer": "other tools are installed by whoever runs the benchmark, not for the tests",
}


def pytest_configure() -> None:
    """Shells start what runs in the background (``make test &``) deaf to Ctrl-C, and all its children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def deploy_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that the program writes goes below the test's own folder."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DEPLOY_HOME", str(home))
    return home


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI a skip is a failure, unless its reason is on the list."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(part in reason for part in ALLOWED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}"
