"""Sample pictures, labels, and the check of a user's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit import pictures
from toolkit.drawings import DRAWINGS, SIDE
from toolkit.errors import InputError

CHECKOUT = Path(__file__).resolve().parent.parent


def test_ten_samples_with_labels(tmp_path):
    samples = pictures.draw_samples(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert [label for _, label in samples] == list(range(10))
    assert {"airplane.jpg": 0, "car.jpg": 1}.items() <= dict(samples).items()
    assert pictures.read_labels(folder) == dict(samples)
    found = pictures.check_picture_folder(folder)
    assert [path.name for path in found] == sorted(name for name, _ in samples)
    formats = set()
    for path in found:
        with Image.open(path) as image:
            assert image.size == (SIDE, SIDE)
            assert image.mode == "RGB"
            formats.add(image.format)
            # A drawing, not a flat field.
            assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 500
    assert formats == {"JPEG", "PNG"}


def test_samples_are_the_same_bytes_in_every_process(tmp_path):
    pictures.draw_samples(tmp_path / "a")
    code = "import sys, pathlib, toolkit.pictures as p; p.draw_samples(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, tmp_path / "b"]
    subprocess.run(command, check=True, cwd=CHECKOUT, env={"PYTHONHASHSEED": "7"})
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert len(names) == len(DRAWINGS) + 1
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_no_two_samples_look_alike():
    small = [np.asarray(draw().resize((16, 16))).astype(float) for _, draw in DRAWINGS]
    for number, one in enumerate(small):
        for other in small[:number]:
            assert np.abs(one - other).mean() > 8


def test_labels_may_be_missing_or_come_from_a_spreadsheet(tmp_path):
    assert pictures.read_labels(tmp_path) == {}
    (tmp_path / "labels.csv").write_bytes(b'\xef\xbb\xbfpicture,label\r\n"a, b.jpg",3\r\n\r\nc.png,0\r\n')
    assert pictures.read_labels(tmp_path) == {"a, b.jpg": 3, "c.png": 0}


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg,cat", "a.jpg,-1", "a.jpg,1,2"])
def test_a_wrong_line_of_labels_is_named(line, tmp_path):
    (tmp_path / "labels.csv").write_text(f"picture,label\nok.jpg,1\n{line}\n")
    with pytest.raises(InputError, match=r"labels\.csv:3: "):
        pictures.read_labels(tmp_path)


def test_labels_of_another_encoding(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00,1\n")
    with pytest.raises(InputError, match="cannot be read"):
        pictures.read_labels(tmp_path)


def test_only_regular_files_with_a_pictures_extension_count(tmp_path):
    for name in ("b.JPG", "a.jpeg", "ä.png", "c.Bmp", "notes.txt", "labels.csv", "png"):
        (tmp_path / name).write_bytes(b"x")
    Image.new("RGB", (2, 2)).save(tmp_path / "c.Bmp")  # one that can be read is enough
    (tmp_path / "folder.png").mkdir()
    found = [path.name for path in pictures.check_picture_folder(tmp_path)]
    assert found == ["a.jpeg", "b.JPG", "c.Bmp", "ä.png"]


def test_folders_without_pictures_get_one_clear_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    (tmp_path / "file.jpg").write_text("x")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jpg").write_text("x")
    (tmp_path / "text" / "b.png").write_text("x")
    for folder, says in (
        ("missing", "there is no folder"),
        ("empty", "is empty"),
        ("other", "none of 1 file ends in .jpg"),
        ("file.jpg", "is a file, not a folder"),
        ("text", "no picture in .*text can be read, such as a.jpg: not a picture"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            pictures.check_picture_folder(tmp_path / folder)
        assert "\n" not in str(caught.value)
        assert "infer.pictures" in caught.value.hint


def test_the_contact_sheet_shows_every_picture(tmp_path):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    for number, colour in enumerate(colours):
        Image.new("RGB", (400, 300), colour).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_text("no picture")
    paths = [*sorted(tmp_path.glob("*.png")), tmp_path / "broken.jpg"]
    pictures.write_contact_sheet(paths, tmp_path / "sheet.png", columns=2, side=100)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * 108 + 8, 2 * 124 + 8)
        seen = {tuple(pixel) for pixel in np.asarray(sheet).reshape(-1, 3).tolist()}
    assert {*colours, (200, 200, 200)} <= seen
    with pytest.raises(InputError, match="no pictures"):
        pictures.write_contact_sheet([], tmp_path / "none.png")
