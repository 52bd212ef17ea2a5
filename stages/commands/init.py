"""Put an example of conf/, inventory/ and an app into a folder of your own, to begin with.

    deploy init                       in this folder
    deploy init out=~/my-boards

Then, in that folder:

    deploy --config-dir conf app=mine +board=sim

Files that are there already are left as they are.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from stages._invocation import Invocation
from toolkit import paths
from toolkit.artefacts.hashing import walk_files
from toolkit.errors import InputError

HELP = "an example conf/, inventory/ and app in a folder of your own: out=FOLDER"

EXAMPLE = paths.CHECKOUT / "examples" / "start"


def run(invocation: Invocation) -> int:
    folder = Path(invocation.config.out or ".").expanduser().absolute()
    made, kept = copy(EXAMPLE, folder)
    lines = [f"+ {paths.relative(folder / name)}" for name in made]
    lines += [f"· {paths.relative(folder / name)} is there already: left as it is" for name in kept]
    place = "" if folder == Path.cwd() else f"cd {paths.relative(folder)}; "
    lines.append(f"next: {place}deploy --config-dir conf app=mine +board=sim")
    invocation.renderer.data({"folder": str(folder), "made": made, "kept": kept}, "\n".join(lines))
    return 0


def copy(source: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Copy a tree; return the files that were made, and those that were there. Nothing is overwritten.

    :raises InputError: the folder cannot be written.
    """
    made, kept = [], []
    for name, path in walk_files(source):
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not even in a race: "x" fails where the file appears meanwhile.
            with path.open("rb") as reading, target.open("xb") as writing:
                shutil.copyfileobj(reading, writing)
        except FileExistsError:
            if not os.path.lexists(target):
                raise InputError(f"{target.parent}: a file is in the way of the folder", hint="out=FOLDER") from None
            kept.append(name)
        except NotADirectoryError:
            raise InputError(f"{target.parent}: a file is in the way of the folder", hint="out=FOLDER") from None
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror}", hint="out=FOLDER") from error
        else:
            made.append(name)
    return made, kept
