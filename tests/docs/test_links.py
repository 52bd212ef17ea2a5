"""What the documents point at exists: files, headings, commands, settings, picked configs."""

from __future__ import annotations

import copy
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from stages.__main__ import _quoted, _take_flags, _take_verb, _with_plus
from stages._registry import verb_names
from tests.docs.recipe import CHECKOUT, blocks, missing_line
from toolkit import paths
from toolkit.config.checks import check
from toolkit.config.schema import Config
from toolkit.config.store import RENAMED, load, register_resolvers, schema_keys
from toolkit.errors import DeployError

DOCUMENTS = [
    *sorted(CHECKOUT.glob("*.md")),
    *sorted((CHECKOUT / "docs").rglob("*.md")),
    *sorted((CHECKOUT / "benchmarks").glob("*.md")),
]
KEYS = set(schema_keys())


def test_the_documents_are_there() -> None:
    names = {str(path.relative_to(CHECKOUT)) for path in DOCUMENTS}
    assert {"README.md", "README.zh-CN.md", "docs/tutorial.md", "docs/tutorial.zh-CN.md"} <= names
    assert {path.stem for path in (CHECKOUT / "docs" / "recipes").glob("*.md")} >= {
        "your-model", "your-pictures", "mixed-fleet", "canary", "new-board", "air-gapped", "ci", "ansible",
    }  # fmt: skip


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The headings as GitHub links to them."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(CHECKOUT)) for path in DOCUMENTS])
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (document.parent / name) if name else document
        assert found.exists(), f"{document.name}: {target}"
        if anchor:
            assert anchor in anchors(found.read_text("utf-8")), f"{document.name}: no heading for {target}"


def test_programs_of_this_project_that_are_run_with_python_can_be() -> None:
    found = set()
    for document in DOCUMENTS:
        pattern = r"\bpython3? (-m (?:benchmarks|toolkit|stages)[\w.]*|(?:benchmarks|tests)/\S+\.py)"
        found |= set(re.findall(pattern, document.read_text("utf-8")))
    assert len(found) > 4
    for program in found:
        path = CHECKOUT / program.removeprefix("-m ").replace(".", "/") if "-m " in program else CHECKOUT / program
        # A package is run by its __main__, and hides a module of its name.
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert path.is_file(), program


# -- commands -----------------------------------------------------------------------------------------------------


def quoted(text: str) -> Iterator[str]:
    """Lines of blocks, indented ones too, and inline code that begin with ``deploy``, in a document."""
    text = re.sub(r"\\\n *", "", text)
    for block in blocks(text):
        yield from (line for line in block.text.splitlines() if block.kind in ("", "sh", "console", "yaml"))
    outside = prose(text)
    yield from re.findall(r"^ {4}(.*)$", outside, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", outside)


def words_of(line: str) -> list[list[str]]:
    """The words of each ``deploy`` call in a shell line; [] where there is none."""
    line = re.sub(r"^(\$ |- run: |- )", "", line.strip())
    if not re.search(r"(^|[ /(])deploy( |$)", line):
        return []
    reader = shlex.shlex(line, posix=True, punctuation_chars=";|&<>()")
    reader.whitespace_split = True
    reader.commenters = "#"
    try:
        tokens = list(reader)
    except ValueError:  # prose in code marks
        return []
    calls: list[list[str]] = [[]]
    for token in tokens:
        if token and set(token) <= set(";|&<>()"):
            calls.append([])
        else:
            calls[-1].append(token)
    found = []
    for call in calls:
        while call and (re.fullmatch(r"[A-Z_]+=.*", call[0]) or call[0] in ("$", "cd", "eval")):
            call = call[1:]
        if call and call[0].rsplit("/", 1)[-1] == "deploy":
            found.append(call[1:])
    return found


def typed(words: list[str]) -> list[str] | None:
    """The words with something in the place of each ``…``; None for what stands for a command in general."""
    if any(word.startswith("[") or "<" in word or word.isupper() or word == "-sc" for word in words):
        return None
    words = words[: words.index("--")] if "--" in words else words
    return [word.replace("…", "some") for word in words if word not in ("…", "--config-dir", "conf")]


def cases() -> dict[tuple[str, ...], Path]:
    """Every different command, and a document that has it."""
    found: dict[tuple[str, ...], Path] = {}
    for document in DOCUMENTS:
        for line in quoted(document.read_text("utf-8")):
            for words in words_of(line):
                known = typed(words)
                if known is not None:
                    found.setdefault(tuple(known), document)
    return found


def jobs_of(words: list[str]) -> list[list[str]]:
    """The settings of each job of a sweep."""
    parts = [word.partition("=") for word in words]
    every = itertools.product(*(value.split(",") for _, _, value in parts))
    return [[f"{part[0]}={one}" for part, one in zip(parts, chosen, strict=True)] for chosen in every]


def own_groups() -> set[str]:
    """``group/name`` of each config that a document shows."""
    files = [block.file for document in DOCUMENTS for block in blocks(document.read_text("utf-8"))]
    return {name.removeprefix("conf/").removesuffix(".yaml") for name in files if name.startswith("conf/")}


def test_every_quoted_command_is_one() -> None:
    """The verb is known, every picked config is there, every setting is, and its value is one.

    Not composed one by one, which takes most of a second each: values go into one composed config.
    """
    commands = cases()
    assert len(commands) > 60
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(paths.CONF), version_base="1.3"):
        # Which recipe of training the settings must fit.
        kit, demo = (
            OmegaConf.structured(load(compose("deploy", [board]))) for board in ("+board=200dk", "+board=sim")
        )
    known = own_groups() | {
        str(path.relative_to(paths.CONF).with_suffix("")) for path in paths.CONF.rglob("*.yaml")
    }
    wrong = []
    for command, document in commands.items():
        try:
            _, left = _take_flags(list(command))
            _, _, left = _take_verb(left)
            words = [_quoted(_with_plus(word)) for word in _of_hydra(left)]
            base = demo if {"+board=sim", "app=digits"} & set(words) else kit
            every = jobs_of(words) if "-m" in command else [words]
            problems = [text for each in every for text in problems_of(each, base, known)]
        except (DeployError, HydraException) as error:
            problems = [str(error)]
        wrong += [f"{document.name}: deploy {shlex.join(command)}: {problem}" for problem in problems]
    assert not wrong, "\n".join(wrong)


def problems_of(words: list[str], base: DictConfig, known: set[str]) -> list[str]:
    """What is wrong with a command's overrides. ``known``: ``group/name`` of every config."""
    config = copy.deepcopy(base)
    for override in OverridesParser.create().parse_overrides(words):
        key, value = override.key_or_group, override.value()
        if (paths.CONF / key).is_dir():
            if f"{key}/{value}" not in known:
                return [f"there is no conf/{key}/{value}.yaml"]
        elif key not in KEYS and not key.startswith("board.faults."):
            return [f"there is no setting {key}"]
        elif not override.is_sweep_override():
            OmegaConf.update(config, RENAMED.get(key, key), value, force_add=True)
    return check(cast(Config, OmegaConf.to_object(config)))


def _of_hydra(words: list[str]) -> list[str]:
    """Take Hydra's own flags off."""
    return [word for word in words if word not in ("--cfg", "job", "-m", "--help")]


def test_what_is_wrong_with_a_command_is_found() -> None:
    base = OmegaConf.structured(Config())
    known = {"board/200dk"}
    assert problems_of(["+board=200dk", "infer.top_k=3"], base, known)[:1] != [
        "there is no conf/board/200dk.yaml"
    ]
    assert problems_of(["+board=201dk"], base, known) == ["there is no conf/board/201dk.yaml"]
    assert problems_of(["infer.topk=3"], base, known) == ["there is no setting infer.topk"]
    assert any("infer.top_k" in problem for problem in problems_of(["infer.top_k=0"], base, known))
    assert [
        words_of("$ cd site && X=1 .venv/bin/deploy plan hosts=a,!b  # why"),
        words_of("the deploy.lock"),
    ] == [
        [["plan", "hosts=a,!b"]],
        [],
    ]


def test_settings_named_in_prose_exist() -> None:
    """``a.b`` and ``a.b=value`` in code marks, where ``a`` is a group of settings."""
    groups = {key.split(".")[0] for key in KEYS if "." in key}
    inner = {key.rsplit(".", 1)[0] for key in KEYS if "." in key}
    wrong = []
    for document in DOCUMENTS:
        for code in re.findall(r"`([^`\n]+)`", prose(document.read_text("utf-8"))):
            match = re.fullmatch(r"([a-z_]+(?:\.[a-z_0-9]+)+)(?:=.*)?", code)
            if (
                match
                and match[1].split(".")[0] in groups
                and not re.search(r"\.(yaml|md|py|json|sh|om|ckpt)$", match[1])
            ):
                key = match[1]
                if key not in KEYS | inner and not key.startswith("board.faults."):
                    wrong.append(f"{document.name}: {code}")
    assert not wrong, "\n".join(wrong)


# -- the reader of recipes ----------------------------------------------------------------------------------------


def test_expected_lines_are_looked_for_in_order() -> None:
    printed = "one   two three\nfour\nexit code 7\n"
    assert missing_line(printed, ("one … three", "exit code 7")) is None
    assert missing_line(printed, ("one two three", "…")) is None
    assert missing_line(printed, ("exit code 7", "four")) == "four"
    assert missing_line(printed, ("one two",)) == "one two"
    assert missing_line(printed, ("exit code 0",)) == "exit code 0"


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_every_verb_board_and_group(name: str) -> None:
    text = (CHECKOUT / name).read_text("utf-8")
    words = {word for code in re.findall(r"`([^`]+)`", prose(text)) for word in code.split()}
    boards = {path.stem for path in (paths.CONF / "board").glob("*.yaml")} - {"sim", "host"}
    root = (paths.CONF / "deploy.yaml").read_text("utf-8")
    groups = {"board", *re.findall(r"^  - (\w+): ", root, re.MULTILINE)}
    assert {*verb_names(), *boards, *groups} - words == set()
