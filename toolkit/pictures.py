"""Folders of pictures: sample pictures, their labels, the check of a user's folder, contact sheets."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

# Pillow only where pictures are read or drawn: each verb that plans wants their folder's labels, if anything.
from toolkit.errors import InputError
from toolkit.ui.words import counted

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
"""What counts as a picture, in any case; ``onboard/infer.py`` takes the same."""

LABELS_FILE = "labels.csv"


def draw_samples(folder: Path) -> list[tuple[str, int]]:
    """Draw a picture for each class of CIFAR-10 into ``folder``, and labels.csv; return (name, label) pairs.

    The bytes are the same each time for one version of Pillow: JPEG of quality 92, and some PNG.
    """
    from toolkit.drawings import DRAWINGS

    folder.mkdir(parents=True, exist_ok=True)
    samples = [(name, label) for label, (name, _) in enumerate(DRAWINGS)]
    for name, draw in DRAWINGS:
        if name.endswith(".png"):
            draw().save(folder / name, "PNG")
        else:
            draw().save(folder / name, "JPEG", quality=92)
    write_labels(folder, samples)
    return samples


def write_labels(folder: Path, labels: Sequence[tuple[str, int]]) -> None:
    """Write ``labels.csv`` into ``folder``: a heading ``picture,label``, then a line for each picture."""
    with open(folder / LABELS_FILE, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["picture", "label"])
        writer.writerows(labels)


def read_labels(folder: Path) -> dict[str, int]:
    """Return the class ids in ``folder``'s labels.csv by picture name; {} if there is no such file.

    Raises :class:`InputError`, naming the line, for a file of another shape.
    """
    path = folder / LABELS_FILE
    labels: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.reader(stream), start=1):
                if not row or (number == 1 and row == ["picture", "label"]):
                    continue
                if len(row) != 2 or not row[1].strip().isdecimal():
                    raise InputError(
                        f"{path}:{number}: not a picture and a label: {','.join(row)!r}",
                        hint="each line is like airplane.jpg,0",
                    )
                labels[row[0]] = int(row[1])
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return labels


def check_picture_folder(folder: Path) -> list[Path]:
    """Return the pictures of ``folder``, sorted by name: regular files ending in one of :data:`EXTENSIONS`.

    Raises :class:`InputError` if there is no such folder, or nothing in it, or no pictures, or none that can be
    decoded. Of one that can't a line is said later, and the others go on.
    """
    hint = "infer.pictures=FOLDER names the folder of pictures"
    if not folder.exists():
        raise InputError(f"there is no folder {folder}", hint=hint)
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder of pictures", hint=hint)
    try:
        there = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}", hint=hint) from error
    if not there:
        raise InputError(f"the folder {folder} is empty", hint=hint)
    found = [path for path in there if path.suffix.lower() in EXTENSIONS and path.is_file()]
    if not found:
        raise InputError(
            f"no pictures in {folder}: none of {counted(len(there), 'file')} ends in {', '.join(EXTENSIONS)}", hint=hint
        )
    problems = []
    for path in found:
        problem = _unreadable(path)
        if problem is None:
            return found
        problems.append(f"{path.name}: {problem}")
    raise InputError(f"no picture in {folder} can be read, such as {problems[0]}", hint=hint)


def _unreadable(path: Path) -> str | None:
    """Why Pillow cannot decode a picture; None where it can."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            opened.load()
    except Exception as error:  # Pillow raises nearly anything for broken files
        return why_unreadable(error)
    return None


def why_unreadable(error: Exception) -> str:
    """What went wrong with a picture, on one line; Pillow's own words for what is none name files of ours."""
    from PIL import UnidentifiedImageError

    return "not a picture" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split()) or repr(error)


def write_contact_sheet(paths: Sequence[Path], out: Path, *, columns: int = 5, side: int = 160) -> None:
    """Write a picture which shows all of ``paths`` in a grid, each ``side`` pixels at most, its name below.

    What can't be read gets a grey field. The format follows ``out``'s extension. Raises :class:`InputError`
    where there are no pictures at all.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not paths:
        raise InputError(f"{out}: no pictures for a contact sheet")
    columns = min(columns, len(paths))
    rows = -(-len(paths) // columns)
    gap, caption = 8, 16
    width, height = side + gap, side + caption + gap
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for number, path in enumerate(paths):
        left, top = gap + number % columns * width, gap + number // columns * height
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
                picture.thumbnail((side, side))
        except Exception:  # Pillow raises nearly anything for broken files
            picture = Image.new("RGB", (side, side), (200, 200, 200))
        sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
        name = path.name.encode("latin-1", "replace").decode("latin-1")
        while len(name) > 4 and draw.textlength(name, font=font) > side:
            name = name[:-4] + "..."
        draw.text((left, top + side + 2), name, font=font, fill=(40, 40, 40))
    sheet.save(out)
