"""``copy`` takes one file, ``copy_parallel`` the contents of a folder; a missing source is an error."""

import os
import shutil


def _local(place: str) -> str:
    for scheme in ("obs://", "s3://"):
        if place.startswith(scheme):
            return os.path.join(os.environ["MOXING_ROOT"], place[len(scheme) :])
    return place


def copy(source: str, target: str) -> None:
    """Copy one file."""
    if not os.path.isfile(_local(source)):
        raise OSError(f"{source} is no file")
    os.makedirs(os.path.dirname(_local(target)), exist_ok=True)
    shutil.copyfile(_local(source), _local(target))


def copy_parallel(source: str, target: str) -> None:
    """Copy what is in a folder."""
    if not os.path.isdir(_local(source)):
        raise OSError(f"{source} is no folder")
    shutil.copytree(_local(source), _local(target), dirs_exist_ok=True)
