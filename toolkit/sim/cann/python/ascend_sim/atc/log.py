"""ATC's log: files under ``$HOME/ascend/log``, and stdout when ASCEND_SLOG_PRINT_TO_STDOUT=1 and --log asks
for it.

Layout of lines and folders as CANN's slog writes them (see ``board.log_folder``; files ``plog-<pid>_<time>.log``);
ASCEND_GLOBAL_LOG_LEVEL sets what is kept.
"""

import datetime
import os
import sys

from .. import board as boards

_LEVELS = ("debug", "info", "warning", "error", "null")


class Log:
    """Collects lines; :meth:`close` writes the files. ``flag``: the value of --log."""

    def __init__(self, flag: str) -> None:
        level = os.environ.get("ASCEND_GLOBAL_LOG_LEVEL", "3")
        kept = _LEVELS.index(flag) if flag != "null" else (int(level) if level in "01234" and level else 3)
        self.level = kept
        # Older CANN called the variable SLOG_PRINT_TO_STDOUT.
        to_stdout = os.environ.get("ASCEND_SLOG_PRINT_TO_STDOUT", os.environ.get("SLOG_PRINT_TO_STDOUT"))
        self.echo = to_stdout == "1" and flag != "null"
        self.lines = []  # type: List[Tuple[str, str]]

    def write(self, level: str, text: str, kind: str = "debug") -> None:
        """Add a line at ``level`` (debug, info, warning, error; event lines are always kept) to ``kind``'s
        file.
        """
        if level != "event" and _LEVELS.index(level) < self.level:
            return
        now = datetime.datetime.now()
        stamp = "{}.{:03d}.{:03d}".format(
            now.strftime("%Y-%m-%d-%H:%M:%S"), now.microsecond // 1000, now.microsecond % 1000
        )
        line = "[{}] GE({},atc.bin):{} [atc]{}".format(level.upper(), os.getpid(), stamp, text)
        self.lines.append((kind, line))
        if self.echo:
            sys.stdout.write(line + "\n")

    def close(self) -> None:
        """Write the files. A home that can't be written to is no reason to fail."""
        stamp = datetime.datetime.now().strftime("%Y%m%d%H%M%S%f")[:17]
        name = "plog-{}_{}.log".format(os.getpid(), stamp)
        for kind in ("debug", "run", "security"):
            folder = boards.log_folder(boards.load(), os.environ, kind)
            if not folder:
                return
            lines = [line for where, line in self.lines if where == kind]
            try:
                os.makedirs(folder, mode=0o750, exist_ok=True)
                if lines:
                    with open(os.path.join(folder, name), "a", encoding="utf-8") as stream:
                        stream.write("\n".join(lines) + "\n")
            except OSError:
                return
