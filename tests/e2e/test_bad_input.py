"""What a new user gets wrong: one clear line, the right exit code, no traceback, nothing half done."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.conftest import Demo, Deploy


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["+board=simm"], "did you mean sim?"),
        (["board=999"], "board=999: there is no such board"),
        (["board=host"], "board=host: a machine without a chip is no board"),
        (["pln", "+board=sim"], "did you mean plan?"),
        (["plan", "train"], "one verb at a time"),
        (["+board=sim", "train.epcohs=3"], "train.epcohs: there is no such setting; did you mean train.epochs?"),
        (["+board=sim", "+typo=1"], "typo: there is no such setting"),
        (["+board=sim", "+train.typo=1"], "train.typo: there is no such setting"),
        (["+board=sim", "train.epochs=-1"], "train.epochs: -1 is too small"),
        (["+board=sim", "train.epochs=many"], "train.epochs: Value 'many'"),
        (["+board=sim", "preprocess.std=[0,1,1]"], "preprocess.std"),
        (["+board=sim", "preprocess.mean=[0.5"], "not an override"),
        (["+board=sim", "export.format=air"], "MindSpore writes AIR only on Ascend"),
        (["+board=sim", "export.format=mindir"], "ATC does not read .mindir"),
        (["+board=sim", "model.from=model.pt"], "model.from: model.pt ends in none of"),
        (["+board=sim", "model.from=nowhere.onnx"], "nowhere.onnx does not exist"),
        (["+board=sim", "model.from=net.mindir"], "ATC does not read .mindir"),
        (["+board=sim", "app.labels=[cat,dog]"], "app.labels: 2 names, and the network tells 10 classes apart"),
        (["+board=sim", "board.password=${BOARD_PASSWORD}"], "${secret:env,BOARD_PASSWORD} names an environment"),
        (["+board=sim", "board.password=Mind@123"], "a secret does not stand in the config"),
        (["+board=sim", "infer.device=4"], "the board has 1 chip"),
        (["+board=200dk", "board.count=2"], "only simulated boards can be counted"),
        (["+board=sim", "atc.output=net"], "atc.output: convert sets it: the om comes into the release"),
        (["+board=sim", "atc.compression=a"], "did you mean atc.compression_optimize_conf?"),
        (["+board=sim", "atc.dynamic_batchsize=1,2"], "did you mean atc.dynamic_batch_size?"),
        (["+board=sim", "atc.keep_dtype=./no where.cfg"], "atc.keep_dtype: no where.cfg does not exist"),
        (["inventory=nowhere"], "nowhere"),
        ([], "no board is chosen"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_and_exit_code_2(deploy: Deploy, tmp_path: Path, arguments: list[str], text: str) -> None:
    done = deploy(*arguments, json_lines=False)
    assert done.code == 2, done.out + done.err
    first, *more = done.err.strip().splitlines()
    assert text in done.err.replace("\n", " ")
    assert first.startswith("error: ")
    assert all(line.startswith("  ") for line in more)
    assert "Traceback" not in done.err
    assert not (tmp_path / "run" / ".deploy" / "artefacts").exists(), "refused before anything was made"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("cut.onnx", b"\x08\x07\x12\x04", "is no ONNX model, or cut short"),
        ("none.om", b"PK" * 200, "is no om"),
        ("empty.onnx", b"", "is empty"),
    ],
)
def test_a_broken_model_is_said_before_anything_runs(
    deploy: Deploy, tmp_path: Path, name: str, content: bytes, text: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused = deploy("+board=sim", f"model.from={tmp_path / name}", json_lines=False)
    assert refused.code == 2, refused.out
    assert refused.err.startswith(f"error: model.from: {tmp_path / name} {text}")
    assert not refused.out


@pytest.mark.e2e
def test_a_place_where_nothing_can_be_written(deploy: Deploy, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = deploy("train", "app=digits", "train.epochs=1", json_lines=False, DEPLOY_HOME=str(tmp_path / "file"))
    assert done.code == 2, done.out
    assert "Not a directory" in done.err
    assert "DEPLOY_HOME=FOLDER names another" in done.err


@pytest.mark.e2e
def test_several_problems_are_listed_at_once(deploy: Deploy) -> None:
    done = deploy("+board=sim", "train.epochs=-1", "infer.top_k=0", "verify.max_difference=-1")
    assert done.code == 2
    (error,) = done.of("error")
    assert [problem.split(":")[0] for problem in error["problems"]] == [
        "train.epochs",
        "infer.top_k",
        "verify.max_difference",
    ]


@pytest.mark.e2e
def test_picture_folders_are_looked_at_before_anything_is_made(deploy: Deploy, tmp_path: Path) -> None:
    for name in ("empty", "text", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "text" / "three.jpg").write_text("not a picture")
    (tmp_path / "labels" / "labels.csv").write_text("three.png,three\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "labels" / "three.png")
    for folder, text in (
        ("nowhere", "there is no folder"),
        ("empty", "is empty"),
        ("text", "three.jpg: not a picture"),
        ("labels", "labels.csv:1: not a picture and a label"),
    ):
        done = deploy("+board=sim", f"infer.pictures={tmp_path / folder}", json_lines=False)
        assert done.code == 2, done.out
        assert text in done.err
        assert not (tmp_path / "run" / ".deploy" / "artefacts").exists()


@pytest.mark.e2e
def test_a_text_file_named_jpg_is_told_and_the_rest_goes_on(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = next((demo.artefact("package") / "pictures").glob("3_*.png"))
    (folder / "three.png").write_bytes(good.read_bytes())
    (folder / "text.jpg").write_text("not a picture")
    # More pixels than Pillow opens: its header is all that it takes to say so.
    header = struct.pack(">4sIIBBBBB", b"IHDR", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "zzz.png").write_bytes(bomb)
    done = demo.deploy("+board=sim", "board.count=1", f"infer.pictures={folder}")
    assert done.code == 0, done.err
    assert "text.jpg cannot be read: not a picture" in [event.get("text") for event in done.of("log")]
    (outcome,) = done.boards.values()
    assert outcome["figures"]["failed"] == ["text.jpg", "zzz.png"]


@pytest.mark.e2e
def test_damaged_model_files(demo: Demo, tmp_path: Path) -> None:
    checkpoint = tmp_path / "cut.ckpt"
    checkpoint.write_bytes((demo.artefact("train") / "model.ckpt").read_bytes()[:1000])
    done = demo.deploy("+board=sim", f"model.from={checkpoint}", json_lines=False)
    assert done.code == 2, done.out + done.err
    assert "cut.ckpt" in done.err
    model = tmp_path / "cut.onnx"
    model.write_bytes((demo.artefact("export") / "model.onnx").read_bytes()[:2000])
    done = demo.deploy("+board=sim", f"model.from={model}", json_lines=False)
    assert done.code in (2, 5), done.out + done.err
    assert "ATC cannot read the model" in done.err or "cut.onnx" in done.err


@pytest.mark.e2e
def test_help_config_and_completion(deploy: Deploy, tmp_path: Path) -> None:
    help_text = deploy("--help", json_lines=False)
    assert help_text.code == 0
    assert all(verb in help_text.out for verb in ("apply", "plan", "doctor", "sim", "exit codes"))
    stage = deploy("train", "--help", json_lines=False)
    assert "MindSpore" in stage.out
    printed = deploy("--cfg", "job", "+board=sim", json_lines=False)
    assert printed.code == 0
    assert "soc_version: Ascend310" in printed.out
    words = deploy(
        "-sc", "query=bash", json_lines=False, COMP_LINE="deploy pl", COMP_POINT="9", _TEST_COMPLETION="1"
    )
    assert "plan" in words.out.split()
    assert not list((tmp_path / "run").iterdir()), "looking leaves nothing behind"
