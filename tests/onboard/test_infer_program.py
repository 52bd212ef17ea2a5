"""The board's inference program as a process of its own, on simulated boards, against ONNX Runtime's numbers.

The simulated pyACL writes down whatever real hardware would let pass silently (leaks, a wrong order of
release, wrong kinds of copies); after each test here there must be nothing of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit import pictures
from toolkit.preprocess import Preprocess, aipp_config

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]

from infer_release import (  # noqa: E402
    FLOAT,
    FLOAT16,
    LABELS,
    SIMULATED_CANN,
    UINT8,
    Release,
    make_release,
    network,
    pack_om,
)
from interpreters import venv_with  # noqa: E402

SPEC = Preprocess(size=[40, 48], mean=[0.4914, 0.4822, 0.4465], std=[0.2023, 0.1994, 0.2010])


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    logs = [path.read_text() for path in tmp_path.glob("**/acl-*.log")]
    assert logs == [], "pyACL was used wrongly"


def simple(root: Path, spec: Preprocess = SPEC, **options: object) -> Release:
    """A release of a static model, with the ten sample pictures."""
    model = network(spec, **options)  # type: ignore[arg-type]
    om = pack_om(model, spec, **options)  # type: ignore[arg-type]
    release = make_release(root, spec, model, om, int(options.get("input_type", FLOAT)))  # type: ignore[call-overload]
    pictures.draw_samples(release.pictures)
    return release


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def agrees(release: Release, tolerance: float = 0.0) -> None:
    """Every picture's scores, class and confidence are ONNX Runtime's."""
    results = release.results()
    names = [line["picture"] for line in results]
    assert names == sorted(path.name for path in release.pictures.iterdir() if path.suffix != ".csv")
    expected = release.reference(names)
    # Different pictures give clearly different scores, or agreeing would mean little.
    assert np.abs(expected - expected[0]).max() > 0.05
    for line, scores in zip(results, expected, strict=True):
        np.testing.assert_allclose(line["logits"], scores, rtol=0, atol=tolerance)
        shifted = np.exp(scores.astype(np.float64) - scores.max())
        confidences = shifted / shifted.sum()
        assert line["label"] == int(scores.argmax())
        assert line["class"] == LABELS[line["label"]]
        assert line["confidence"] == pytest.approx(confidences.max(), abs=10 * tolerance + 1e-12)
        assert [number for number, _ in line["top"]] == np.argsort(-scores, kind="stable")[:5].tolist()


@pytest.mark.parametrize("run_mode", ["RC", "EP"])
def test_ten_pictures(root, run_mode):
    release = simple(root)
    output = succeeded(release.run("--run", "r-17", board={"run_mode": run_mode}))
    agrees(release)
    assert len({line["label"] for line in release.results()}) > 1
    summary = release.summary()
    assert (summary["run"], summary["count"], summary["failed"], summary["pictures"]) == ("r-17", 10, 0, 10)
    assert (summary["run_mode"], summary["soc_name"], summary["exit"]) == (run_mode, "Ascend310", 0)
    assert summary["acl"].count(".") == 2
    assert summary["peak_rss_mb"] > 10
    assert summary["load_seconds"] > 0
    for phase in ("decode", "preprocess", "execute", "postprocess", "annotate"):
        times = [line["ms"][phase] for line in release.results()]
        assert summary["ms"][phase]["p50"] in times
        assert summary["ms"][phase]["p99"] == max(times)
    assert output.splitlines()[-1] == "@progress 10 10"


def test_it_prints_what_the_tutorial_prints(root):
    release = simple(root)
    output = succeeded(release.run())
    lines = [line for line in output.splitlines() if not line.startswith("@")]
    assert len(lines) == 10 * 7
    for number, result in enumerate(release.results()):
        block = lines[number * 7 : number * 7 + 7]
        assert block[0] == f"images:{release.pictures}/{result['picture']}"
        assert block[1] == "======== top5 inference results: ============="
        for text, (label, confidence) in zip(block[2:], result["top"], strict=True):
            assert text == "label:%d  confidence: %f, class: %s" % (label, confidence, LABELS[label])  # noqa: UP031
    progress = [line for line in output.splitlines() if line.startswith("@")]
    assert all(re.fullmatch(r"@progress \d+ 10", line) for line in progress)


def test_the_class_is_on_each_picture_and_the_originals_are_untouched(root):
    release = simple(root)
    before = {path.name: path.read_bytes() for path in release.pictures.iterdir()}
    succeeded(release.run())
    assert {path.name: path.read_bytes() for path in release.pictures.iterdir()} == before
    written = {path.name for path in release.out.iterdir()}
    assert written == {*before, "results.jsonl", "summary.json"} - {"labels.csv"}
    for name in before.keys() - {"labels.csv"}:
        with Image.open(release.out / name) as annotated, Image.open(release.pictures / name) as original:
            assert annotated.format == original.format
            assert annotated.size == original.size
            change = np.abs(np.asarray(annotated).astype(int) - np.asarray(original)).max(axis=2)
        rows, columns = np.nonzero(change > 120)
        assert len(rows) > 50
        assert (rows.min() >= 50, rows.max() < 80) == (True, True)
        assert 8 <= columns.min() <= 14


VARIANTS = {
    "nhwc": (dataclasses.replace(SPEC, layout="NHWC"), {}, 0.0),
    "bgr": (dataclasses.replace(SPEC, color_order="BGR", resize_filter="lanczos"), {}, 0.0),
    "aipp": (dataclasses.replace(SPEC, aipp=True), {"input_type": UINT8}, 0.0),
    "float16-in": (SPEC, {"input_type": FLOAT16}, 0.0),
    "float16-out": (SPEC, {"output_type": FLOAT16}, 0.0),
    # ONNX Runtime may add up in another order for another batch.
    "batch-4": (SPEC, {"batch": 4}, 1e-5),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_models(root, name):
    spec, options, tolerance = VARIANTS[name]
    release = simple(root, spec, **options)
    succeeded(release.run())
    agrees(release, tolerance)
    assert release.summary()["batch"] == options.get("batch", 1)


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
def test_normalisation_inside_the_om(root, color_order):
    """The AIPP file goes through ATC; the board feeds bytes and gets the scores of the float path."""
    spec = dataclasses.replace(SPEC, color_order=color_order)
    model = network(spec)
    (root / "small.onnx").write_bytes(model)
    (root / "aipp.cfg").write_text(aipp_config(spec))
    atc = [sys.executable, "-m", "ascend_sim.atc", "--model=small.onnx", "--framework=5", "--output=small"]
    flags = ["--soc_version=Ascend310", "--insert_op_conf=aipp.cfg", "--output_type=FP32"]
    subprocess.run([*atc, *flags], cwd=root, env={"PYTHONPATH": str(SIMULATED_CANN)}, check=True)
    fed = dataclasses.replace(spec, aipp=True)
    release = make_release(root, fed, model, (root / "small.om").read_bytes())
    pictures.draw_samples(release.pictures)
    succeeded(release.run())
    assert release.summary()["input"] == "uint8 [1, 40, 48, 3]"
    scores = np.array([line["logits"] for line in release.results()])
    names = [line["picture"] for line in release.results()]
    release.spec = spec
    # The om computes in float16; scores go up to 10.
    np.testing.assert_allclose(scores, release.reference(names), rtol=0, atol=0.06)
    release.spec = dataclasses.replace(spec, color_order="BGR" if color_order == "RGB" else "RGB")
    assert np.abs(scores - release.reference(names)).max() > 1


@pytest.mark.parametrize("limit", ["10", "5", "1"])
def test_a_dynamic_batch_takes_the_smallest_size_that_fits(root, limit):
    model = network(SPEC, batch="N")
    release = make_release(root, SPEC, model, pack_om(model, SPEC, gears=[4, 1, 2]))
    pictures.draw_samples(release.pictures)
    succeeded(release.run("--limit", limit))
    names = [line["picture"] for line in release.results()]
    assert len(names) == int(limit)
    scores = np.array([line["logits"] for line in release.results()])
    np.testing.assert_allclose(scores, release.reference(names), rtol=0, atol=1e-5)
    assert release.summary()["batch"] == 4


def spoil(folder: Path) -> set[str]:
    """Put pictures that can't be read into ``folder``."""
    (folder / "a-text.jpg").write_text("this is no picture\n")
    whole = (folder / "bird.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    jpeg = (folder / "airplane.jpg").read_bytes()
    (folder / "half.JPG").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "nothing.bmp").write_bytes(b"")
    Image.new("I;16", (20, 20), 40000).save(folder / "deep.png")
    return {"a-text.jpg", "half.png", "half.JPG", "nothing.bmp", "deep.png"}


@pytest.mark.parametrize("batch", [1, 4])
def test_unreadable_pictures_are_reported_and_the_rest_goes_on(root, batch):
    release = simple(root, batch=batch)
    broken = spoil(release.pictures)
    output = succeeded(release.run())
    results = release.results()
    failed = {line["picture"]: line["error"] for line in results if "error" in line}
    assert set(failed) == broken
    assert all(text and "\n" not in text and str(root) not in text for text in failed.values()), failed
    good = [line for line in results if "error" not in line]
    assert len(good) == 10
    expected = release.reference([line["picture"] for line in good])
    np.testing.assert_allclose([line["logits"] for line in good], expected, rtol=0, atol=1e-5)
    assert (release.summary()["count"], release.summary()["failed"]) == (15, 5)
    assert output.count("failed: ") == 5
    assert not any((release.out / name).exists() for name in broken)


def test_only_unreadable_pictures(root):
    release = simple(root)
    broken = spoil(release.pictures)
    for path in release.pictures.iterdir():
        if path.name not in broken:
            path.unlink()
    done = release.run()
    assert (done.returncode, release.summary()["failed"]) == (4, 5)
    assert release.summary()["ms"]["execute"] == {"p50": None, "p99": None}


def test_no_pictures(root):
    release = simple(root)
    for path in release.pictures.iterdir():
        path.unlink()
    (release.pictures / "notes.txt").write_text("x")
    done = release.run()
    assert done.returncode == 5
    assert re.fullmatch(r"\S+/pictures: no pictures \(.bmp .jpeg .jpg .png\)\n", done.stderr)
    assert release.summary()["error"] == done.stderr.strip()
    assert release.run("--pictures", "/nowhere").returncode == 5


def test_scores_that_are_no_numbers_fail_the_picture(root):
    release = simple(root)
    model = network(SPEC, last_bias=[float("nan")] * 10)
    (release.folder / "model.om").write_bytes(pack_om(model, SPEC))
    assert release.run("--limit", "2").returncode == 4
    assert all("not finite" in line["error"] for line in release.results())


def test_pictures_of_other_modes_and_sizes(root):
    release = simple(root)
    for path in release.pictures.iterdir():
        path.unlink()
    random = np.random.default_rng(1)
    grey = Image.fromarray(random.integers(0, 256, (9, 300), dtype=np.uint8))
    colour = Image.fromarray(random.integers(0, 256, (700, 500, 3), dtype=np.uint8))
    grey.save(release.pictures / "grey.PNG")
    colour.convert("P").save(release.pictures / "palette.png")
    colour.convert("RGBA").save(release.pictures / "alpha.png")
    colour.convert("CMYK").save(release.pictures / "cmyk.jpg")
    colour.resize((32, 32)).save(release.pictures / "tiny.Bmp")
    turned = Image.Exif()
    turned[274] = 6  # the rotation is noted, not done
    colour.save(release.pictures / "exif.jpeg", exif=turned)
    succeeded(release.run())
    agrees(release)
    with Image.open(release.out / "tiny.Bmp") as tiny, Image.open(release.out / "exif.jpeg") as exif:
        assert tiny.size == (128, 128)
        assert exif.size == (500, 700)


def test_choosing_pictures(root):
    release = simple(root)
    listed = root / "list.txt"
    listed.write_text("truck.png\nairplane.jpg\n")
    output = succeeded(release.run("--list", listed, "--top-k", "2"))
    assert [line["picture"] for line in release.results()] == ["truck.png", "airplane.jpg"]
    assert all(len(line["top"]) == 2 for line in release.results())
    assert output.count("======== top2 inference results: =============") == 2
    succeeded(release.run("--limit", "3", "--top-k", "99"))
    assert [line["picture"] for line in release.results()] == ["airplane.jpg", "bird.png", "car.jpg"]
    assert all(len(line["top"]) == 10 for line in release.results())
    listed.write_text("truck.png\nmissing.jpg\n")
    done = release.run("--list", listed)
    assert done.returncode == 2
    assert "1 of 2 pictures are not in" in done.stderr
    assert "missing.jpg" in done.stderr


def test_ids_beyond_the_labels_are_unknown(root):
    release = simple(root)
    (release.folder / "labels.txt").write_text("only one\n")
    succeeded(release.run())
    classes = {line["label"]: line["class"] for line in release.results()}
    assert set(classes) - {0}
    assert all(name == ("only one" if label == 0 else "unknown") for label, name in classes.items())


STRANGE = ["sp ace.png", "ü.png", "new\nline.png", "@progress 9 9.png", "-dash.png", "quote'\".png"]


@pytest.mark.parametrize("language", ["C", "C.UTF-8"])
def test_strange_names(root, language):
    release = simple(root)
    source = (release.pictures / "bird.png").read_bytes()
    for path in release.pictures.iterdir():
        path.unlink()
    for name in STRANGE:
        (release.pictures / name).write_bytes(source)
    (Path(os.fsdecode(os.fsencode(release.pictures) + b"/bad\xff.png"))).write_bytes(source)
    environment = {"LC_ALL": language, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    output = succeeded(release.run(environment=environment))
    assert {line["picture"] for line in release.results()} == {*STRANGE, "bad\\xff.png"}
    assert {path.name for path in release.out.iterdir()} >= set(STRANGE)
    # A name can't forge a line for the controller.
    assert all(re.fullmatch(r"@progress [1-7] 7", line) for line in output.splitlines() if line[0] == "@")


def one_line(done: subprocess.CompletedProcess[str], code: int, pattern: str) -> None:
    assert done.returncode == code, done.stderr
    assert re.fullmatch(pattern + r"[^\n]*\n", done.stderr), done.stderr


def test_a_failing_execute_ends_the_run_with_what_pyacl_says(root):
    release = simple(root)
    board = {"faults": {"execute_error": 507011, "execute_error_every": 4}}
    one_line(release.run(board=board), 6, r"acl\.mdl\.execute failed: \d{6} E\w{5}: ")
    # The warm-up and two pictures were executed before.
    assert len(release.results()) == 2
    summary = release.summary()
    assert summary["exit"] == 6
    assert summary["error"].startswith("acl.mdl.execute failed")
    assert (summary["count"], summary["pictures"]) == (2, 10)


def test_a_device_lost_in_the_middle(root):
    release = simple(root)
    done = release.run(board={"faults": {"lose_device_after": 3}})
    assert done.returncode == 6
    lines = done.stderr.splitlines()
    # Releasing what is gone fails too, but the cause has the last word, and it is in the summary.
    assert re.match(r"acl\.\S+ failed: \d{6}", lines[-1])
    assert all(line.startswith("warning: acl.") for line in lines[:-1])
    assert release.summary()["error"] == lines[-1]
    # Nothing can be released on a device that is gone; that all was tried is what the warnings say.
    tried = {line.split()[1] for line in lines[:-1]}
    assert {"acl.rt.free", "acl.mdl.unload", "acl.rt.destroy_stream"} <= tried
    for log in root.glob("state/acl-*.log"):
        log.unlink()


def test_a_damaged_om(root):
    release = simple(root)
    om = release.folder / "model.om"
    om.write_bytes(om.read_bytes()[:-100])
    one_line(release.run(), 6, r"acl\.mdl\.load_from_file failed: \d{6}")
    om.unlink()
    one_line(release.run(), 6, r"acl\.mdl\.load_from_file failed: \d{6}")


def test_no_such_device(root):
    one_line(simple(root).run("--device", "7"), 6, r"acl\.rt\.set_device failed: \d{6}")


def test_no_permission(root):
    done = simple(root).run(board={"faults": {"no_permission": True}})
    one_line(done, 6, r"acl\.rt\.set_device failed: \d{6}")


def test_not_enough_memory_on_the_device(root):
    done = simple(root).run(board={"faults": {"memory_mb": 0}})
    one_line(done, 6, r"acl\.\S+ failed: \d{6}")


def test_a_missing_pyacl_names_the_interpreter_and_the_paths(root):
    done = simple(root).run(acl=False, environment={"PYTHONPATH": "/opt/nothing"})
    paths = r"PYTHONPATH=/opt/nothing, LD_LIBRARY_PATH="
    one_line(done, 7, rf"python module acl missing: .*interpreter \S+, {paths}\)")


def test_a_missing_numpy_names_the_interpreter(root):
    release = simple(root)
    done = subprocess.run(
        [sys.executable, "-I", "-S", release.folder / "infer.py"], capture_output=True, text=True, check=False
    )
    one_line(done, 7, r"python module missing: No module named 'numpy' \(interpreter \S+\)")


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(SPEC, size=[48, 40]),
        dataclasses.replace(SPEC, layout="NHWC"),
        dataclasses.replace(SPEC, aipp=True),
    ],
    ids=["size", "layout", "aipp"],
)
def test_a_model_of_another_preprocessing_is_refused(root, other):
    release = simple(root)
    make_release(root / "other", other, b"", b"")
    (release.folder / "spec.json").write_bytes((root / "other/release/spec.json").read_bytes())
    one_line(release.run(), 2, r"model\.om wants float32 \[1, 3, 40, 48\], spec\.json makes \w+ \[1, .*\]")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "preprocess": {}}'])
def test_an_unusable_spec(root, text):
    release = simple(root)
    (release.folder / "spec.json").write_text(text)
    one_line(release.run(), 2, r"\S+/spec\.json: unusable: ")


def test_pictures_are_never_overwritten(root):
    release = simple(root)
    before = hashlib.sha256((release.pictures / "car.jpg").read_bytes()).hexdigest()
    (root / "link").symlink_to(release.pictures)
    one_line(release.run("--out", root / "link"), 2, "--out is the folder of the pictures")
    assert hashlib.sha256((release.pictures / "car.jpg").read_bytes()).hexdigest() == before


@pytest.mark.parametrize(
    "flags", [["--top-k", "0"], ["--limit", "0"], ["--mode", "video"], ["--device", "-1"], ["--warmup", "-1"]]
)
def test_wrong_usage(root, flags):
    done = simple(root).run(*flags)
    assert done.returncode == 2
    assert flags[0] in done.stderr.splitlines()[-1]


def test_an_output_folder_that_cannot_be_made(root):
    release = simple(root)
    (root / "file").write_text("x")
    done = release.run("--out", root / "file" / "out")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_terminated_run_releases_the_device(root, number, code):
    release = simple(root)
    (root / "board.json").write_text('{"state_dir": "%s/state", "faults": {"slow_ms": 100}}' % root)  # noqa: UP031
    command = [sys.executable, release.folder / "infer.py", "--pictures", release.pictures, "--out"]
    environment = {"PYTHONPATH": str(SIMULATED_CANN), "ASCEND_SIM_BOARD": str(root / "board.json")}
    with subprocess.Popen(
        [*command, release.out], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("@progress"):
            assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == code
    summary = release.summary()
    assert summary["exit"] == code
    assert 1 <= summary["count"] < 10
    assert len(release.results()) == summary["count"]


def test_nobody_listening_is_no_reason_to_stop(root):
    release = simple(root)
    (root / "board.json").write_text('{"state_dir": "%s/state"}' % root)  # noqa: UP031
    command = [sys.executable, release.folder / "infer.py", "--pictures", release.pictures, "--out"]
    environment = {"PYTHONPATH": str(SIMULATED_CANN), "ASCEND_SIM_BOARD": str(root / "board.json")}
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [*command, release.out],
            env=environment,
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(release.results()) == 10


def test_a_second_run_replaces_the_first(root):
    release = simple(root)
    succeeded(release.run())
    succeeded(release.run("--limit", "2"))
    assert len(release.results()) == 2
    assert release.summary()["count"] == 2


@pytest.mark.parametrize(
    ("version", "packages"),
    [
        ("3.7", ["numpy<1.22", "onnxruntime<1.15", "protobuf<4", "pillow<9"]),
        ("3.13", ["numpy>=2", "pillow", "onnxruntime"]),
    ],
)
@pytest.mark.parametrize("language", ["C", "C.UTF-8"])
def test_on_other_pythons(root, version, packages, language):
    python = venv_with(version, *packages)
    release = simple(root)
    # Lossless pictures: another Pillow has another JPEG decoder, whose pixels may differ by a level.
    for path in list(release.pictures.glob("*.jpg")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".ü.png"))
        path.unlink()
    succeeded(release.run(python=python, environment={"LC_ALL": language, "PYTHONCOERCECLOCALE": "0"}))
    agrees(release, 1e-5)
    assert release.summary()["python"].startswith(version)
    assert len([path for path in release.out.iterdir() if path.suffix == ".png"]) == 10
