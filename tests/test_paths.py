"""Where things are, as people are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import paths


def test_what_is_shown_can_be_typed_where_people_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("DEPLOY_HOME", str(elsewhere))
    assert paths.relative(paths.runs()) == str(elsewhere / "runs")
    monkeypatch.setenv("DEPLOY_HOME", str(here))
    assert paths.relative(paths.runs()) == "runs"
