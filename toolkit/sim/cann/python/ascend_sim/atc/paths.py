"""Checks of paths on ATC's command line (hicann/ge ``base/common/util.cc``: CheckInputPathValid,
CheckOutputPathValid).
"""

import os
import re

from .errors import AtcError

_MAX_PATH = 4096
_ALLOWED = re.compile("^[\u4e00-\u9fa5A-Za-z0-9./_-]+$")
_REASON = "The path can only contain 'a-z' 'A-Z' '0-9' '-' '.' '_' and chinese characters"


def check_input(path: str, flag: str) -> None:
    """The file is there, readable, and its resolved name has allowed characters only; else E10004 or
    E10001.
    """
    if not path:
        raise AtcError("E10004", flag.lstrip("-"))
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise AtcError("E10001", path, flag, "realpath error, errmsg:No such file or directory")
    if not _ALLOWED.match(real):
        raise AtcError("E10001", path, flag, _REASON)
    if not _accessible(real, os.R_OK):
        raise AtcError("E10001", path, flag, "cat not access, errmsg:[Errno 13] Permission denied")


def check_output(path: str, flag: str) -> None:
    """The file can be written: over the one that is there, or into its folder, which ATC makes if it is
    missing.
    """
    if not path:
        raise AtcError("E10004", flag.lstrip("-"))
    if len(path) >= _MAX_PATH:
        raise AtcError("E10021", flag.lstrip("-"), _MAX_PATH)
    real = os.path.realpath(path)
    if not _ALLOWED.match(real):
        raise AtcError("E10001", path, flag, _REASON)
    if os.path.isdir(real):
        raise AtcError("E10001", path, flag, "Path is a directory")
    if os.path.exists(real):
        if not _accessible(real, os.W_OK):
            raise AtcError("E10001", path, flag, "Can not write file, errmsg:[Errno 13] Permission denied")
        return
    folder = os.path.dirname(real)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        reason = "Can not create directory, errmsg:[Errno {}] {}".format(error.errno, error.strerror)
        raise AtcError("E10001", path, flag, reason)
    if not _accessible(folder, os.W_OK):
        raise AtcError("E10001", path, flag, "Can not write file, errmsg:[Errno 13] Permission denied")


def check_file_name(path: str) -> None:
    """``--output`` names a file, not only a folder (E10022)."""
    if path.endswith("/") or path.endswith("\\"):
        raise AtcError("E10022", path, "output")


def _accessible(path: str, mode: int) -> bool:
    """Like access(2), except that root's privileges do not hide a missing permission bit from a simulated
    user.
    """
    if not os.access(path, mode):
        return False
    if os.geteuid() == 0:
        bits = 0o444 if mode == os.R_OK else 0o222
        return bool(os.stat(path).st_mode & bits)
    return True
