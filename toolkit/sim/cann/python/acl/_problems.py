"""What hardware lets pass silently but is a bug of the program.

Each problem is one line in ``<state_dir>/acl-<pid>.log``; the file exists only if there is one. With
``ACL_SIM_STRICT=1`` the process also ends with status 1 and the list on stderr; nothing else changes.

The leak check has to come after the very last destructor of the program, and those run when the interpreter
has already cleared the modules: so the check hangs on an object in ``sys``, which is cleared last, and uses
only C functions captured beforehand.
"""

import os
import sys
import threading

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_LIMIT = 500


class Problems(object):
    """The list of problems of this process."""

    def __init__(self, state_dir):
        self.lines = []
        self.leaks = None  # a function giving lines about what is still there; set by the runtime
        self.strict = os.environ.get("ACL_SIM_STRICT", "") not in ("", "0")
        self._state_dir = state_dir
        self._path = os.path.join(state_dir, "acl-{}.log".format(os.getpid()))
        self._pid = os.getpid()
        self._getpid, self._open, self._write, self._close = os.getpid, os.open, os.write, os.close
        self._mkdir, self._exit, self._makedirs = os.mkdir, os._exit, os.makedirs
        self._flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        self._streams = [sys.stdout, sys.stderr]

    def add(self, text):
        """Report one problem; the place in the program that made the call is added."""
        place = where()
        line = "{} ({})".format(text, place) if place else text
        if len(self.lines) < _LIMIT and line not in self.lines:  # once, not for each picture of a loop
            self._put(line)

    def _put(self, line):
        self.lines.append(line)
        data = (line + "\n").encode("utf-8", "replace")
        try:
            try:
                descriptor = self._open(self._path, self._flags, 0o644)
            except OSError:
                try:
                    self._makedirs(self._state_dir)
                except Exception:  # os is already cleared: one level has to do
                    self._mkdir(self._state_dir)
                descriptor = self._open(self._path, self._flags, 0o644)
            try:
                self._write(descriptor, data)
            finally:
                self._close(descriptor)
        except OSError:
            pass  # a read-only board: the list is still shown in strict mode

    def finish(self):
        """Report leaks; end the process if it is to be strict. Runs after the program's last destructor."""
        if self._getpid() != self._pid:
            return  # a forked child: the devices are the parent's
        for line in self.leaks() if self.leaks is not None else ():
            self._put(line)
        if self.strict and self.lines:
            for stream in self._streams:
                try:
                    stream.flush()
                except Exception:
                    pass
            text = "ACL_SIM_STRICT: {} problem(s)\n".format(len(self.lines))
            self._write(
                2, (text + "".join("  " + line + "\n" for line in self.lines)).encode("utf-8", "replace")
            )
            self._exit(1)


class AtTheVeryEnd(object):
    """Calls a function when the interpreter drops it. Lives in ``sys``."""

    def __init__(self, function):
        self._function = function

    def __del__(self):
        try:
            self._function()
        except Exception:
            pass


class _Origin(threading.local):
    """In a stream's thread: the place in the program that queued the task which is running."""

    place = ""


ORIGIN = _Origin()


def where(_frame=sys._getframe, _package=_PACKAGE, _origin=ORIGIN):
    """Return ``file:line`` of the innermost caller outside this package, or ""."""
    try:
        if _origin.place:
            return _origin.place
        frame = _frame(1)
        while frame is not None and frame.f_code.co_filename.startswith(_package):
            frame = frame.f_back
        if frame is None:
            return ""
        return "{}:{}".format(frame.f_code.co_filename.rsplit("/", 1)[-1], frame.f_lineno)
    except Exception:
        return ""
