"""The graph of stages: runs what is missing, explains what it skips, takes nothing half done for done."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from toolkit.artefacts.store import Store
from toolkit.config.schema import AppSettings, Config
from toolkit.errors import InputError
from toolkit.pipeline import Context, Stage, build, explain, walk
from toolkit.ui.events import Event


class Cook:
    """A stage that writes its inputs' texts and its setting."""

    HELP = ""

    def __init__(self, name: str, needs: Sequence[str], setting: str = "", version: int = 1) -> None:
        self.NAME, self.VERSION, self._needs, self.setting = name, version, needs, setting
        self.file: Path | None = None
        self.fails = False
        self.ran = 0

    def needs(self, config: Config) -> Sequence[str]:
        return self._needs

    def settings(self, config: Config) -> Mapping[str, Any]:
        return {"dish": self.setting}

    def tools(self, config: Config) -> Mapping[str, str]:
        return {"oven": "1"}

    def files(self, config: Config) -> Mapping[str, Path]:
        return {"recipe": self.file} if self.file else {}

    def run(self, context: Context) -> Mapping[str, Any]:
        self.ran += 1
        parts = [(path / "dish").read_text() for path in context.inputs.values()]
        (context.out / "dish").write_text("+".join([*parts, self.setting]))
        if self.fails:
            (context.out / "crumbs").touch()
            raise KeyboardInterrupt
        return {"summary": self.setting}


def kitchen(**changes: str) -> dict[str, Stage]:
    return {
        "a": Cook("a", (), changes.get("a", "a")),
        "b": Cook("b", ("a",), changes.get("b", "b")),
        "c": Cook("c", ("b",), changes.get("c", "c")),
    }


CONFIG = Config(app=AppSettings(name="app"))


def ran(stages: Mapping[str, Stage]) -> str:
    return "".join(name for name, stage in stages.items() if stage.ran)  # type: ignore[attr-defined]


def test_everything_runs_once_and_never_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, again = kitchen(), kitchen()
    made = build(first, CONFIG, store, ["c"])
    assert (made["c"].path / "dish").read_text() == "a+b+c"
    assert ran(first) == "abc"
    build(again, CONFIG, Store(tmp_path), ["c"])
    assert ran(again) == ""


@pytest.mark.parametrize(("changed", "runs"), [("a", "abc"), ("b", "bc"), ("c", "c")])
def test_a_change_runs_what_depends_on_it(tmp_path: Path, changed: str, runs: str) -> None:
    build(kitchen(), CONFIG, Store(tmp_path), ["c"])
    stages = kitchen(**{changed: "other"})
    planned = [step.stage for step in walk(stages, CONFIG, Store(tmp_path), ["c"]) if step.artefact is None]
    assert ran(stages) == "", "walking changes nothing"
    build(stages, CONFIG, Store(tmp_path), ["c"])
    assert ran(stages) == "".join(planned) == runs


def test_the_same_result_cuts_the_chain_short(tmp_path: Path) -> None:
    build(kitchen(), CONFIG, Store(tmp_path), ["c"])
    stages = kitchen()
    stages["a"].VERSION = 2
    build(stages, CONFIG, Store(tmp_path), ["c"])
    assert ran(stages) == "a", "new code, the same bytes: nothing behind it runs"


def test_an_interrupted_stage_is_not_done(tmp_path: Path) -> None:
    stages = kitchen()
    stages["b"].fails = True  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        build(stages, CONFIG, Store(tmp_path), ["c"])
    again = kitchen()
    made = build(again, CONFIG, Store(tmp_path), ["c"])
    assert ran(again) == "bc"
    assert (made["c"].path / "dish").read_text() == "a+b+c"
    assert not (made["b"].path / "crumbs").exists(), "half a result is none"


def test_the_users_own_file_counts_by_content(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe"
    recipe.write_text("1")

    def with_recipe() -> dict[str, Stage]:
        stages = kitchen()
        stages["b"].file = recipe  # type: ignore[attr-defined]
        return stages

    store = Store(tmp_path / "store")
    build(with_recipe(), CONFIG, store, ["c"])
    recipe.touch()
    assert all(step.artefact for step in walk(with_recipe(), CONFIG, store, ["c"]))
    recipe.write_text("2")
    steps = {step.stage: step for step in walk(with_recipe(), CONFIG, store, ["c"])}
    assert steps["b"].reasons == ("file recipe changed",)
    assert steps["c"].reasons == ("b runs",)
    recipe.unlink()
    with pytest.raises(InputError, match=r"recipe: .* does not exist"):
        list(walk(with_recipe(), CONFIG, store, ["c"]))


def test_events_frame_each_stage(tmp_path: Path) -> None:
    events: list[Event] = []
    build(kitchen(), CONFIG, Store(tmp_path), ["b"], emit=events.append)
    assert [(event.kind, event.stage) for event in events] == [
        ("start", "a"),
        ("done", "a"),
        ("start", "b"),
        ("done", "b"),
    ]
    events.clear()
    build(kitchen(), CONFIG, Store(tmp_path), ["b"], emit=events.append)
    assert [event.kind for event in events] == ["skip", "skip"]


def test_two_at_once_make_it_once_and_the_second_says_that_it_waits(tmp_path: Path) -> None:
    stage = Cook("a", ())
    begun, go_on = threading.Event(), threading.Event()
    store, told = Store(tmp_path), threading.Event()
    work = stage.run

    def slow(context: Context) -> Mapping[str, Any]:
        begun.set()
        assert go_on.wait(30)
        return work(context)

    stage.run = slow  # type: ignore[method-assign]

    def emit(event: Event) -> None:
        if event.kind == "warning":
            assert "waiting" in event.text
            told.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(build, {"a": stage}, CONFIG, store, ["a"])
        assert begun.wait(30)
        second = pool.submit(build, {"a": stage}, CONFIG, Store(tmp_path), ["a"], emit=emit)
        try:
            assert told.wait(30)
        finally:
            go_on.set()
        assert first.result()["a"].digest == second.result()["a"].digest
    assert stage.ran == 1


def test_explanations_name_the_setting() -> None:
    before = {"version": 1, "settings": {"atc": {"mode": "a"}}, "tools": {"cann": "7.0"}, "inputs": {"x": "1"}}
    after = {"version": 1, "settings": {"atc": {}}, "tools": {"cann": "8.0"}, "inputs": {"x": "2"}}
    assert explain(after, before) == ["atc.mode: a → unset", "tool cann: 7.0 → 8.0", "input x changed"]
    assert explain(before, before) == ["its result is no longer in the store"]
    assert explain(before, None) == ["never made here"]
    assert explain({**before, "version": 2}, before) == ["this stage's code changed"]
