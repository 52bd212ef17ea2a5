"""What this process holds: devices, contexts, handles, and the board it is on.

Handles are numbers that look like addresses and are never used twice, so a handle kept too long is always
noticed.
"""

import os
import threading

from ascend_sim import board as _board

from . import _errors as errors
from . import _problems

BOARD = _board.load()
FAULTS = BOARD.faults
PROBLEMS = _problems.Problems(BOARD.state_dir)
LOCK = threading.RLock()


class Handle(object):
    """Anything that programs hold by a number."""

    kind = "object"

    def __init__(self):
        self.place = _problems.where()
        with LOCK:
            self.handle = State.next_handle
            State.next_handle += 0x80
            HANDLES[self.handle] = self

    def drop(self):
        """The handle is no longer valid."""
        with LOCK:
            HANDLES.pop(self.handle, None)
            self.handle = 0


HANDLES = {}  # type: dict
_FIRST_HANDLE = 0xAAAAE0001000


def _is_stub():
    """Whether the loader would take libascendcl.so from a folder of libraries to link against."""
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if folder and os.path.exists(os.path.join(folder, "libascendcl.so")):
            return os.path.basename(os.path.realpath(folder)) in ("devlib", "stub")
    return False


class State(object):
    """Process-wide switches."""

    stub = _is_stub()  # the compile-time library: it has the names, and answers 100039

    next_handle = _FIRST_HANDLE
    initialised = False
    finalised = False
    references = 0
    config = None  # content of the acl.json of the first init
    lost = False  # the device fell off (fault "lose_device_after")
    executed = 0  # executes so far, for the faults that count them
    inline = False  # no worker threads any more: the interpreter is going down


def find(handle, cls, name):
    """Return the live object of class ``cls``, or None after storing the error message.

    A number that is no live handle would make the real library read freed or foreign memory: that is noted.
    """
    found = HANDLES.get(handle)
    if isinstance(found, cls):
        return found
    if handle == 0:
        errors.null(name)
    else:
        gone = _FIRST_HANDLE <= handle < State.next_handle and found is None
        what = "was destroyed" if gone else "is no {} handle".format(cls.kind)
        PROBLEMS.add("{} 0x{:x} {}; hardware would read foreign memory".format(name, handle, what))
        errors.value("0x{:x}".format(handle), name, "it " + what)
    return None


class Device(object):
    """One chip: its memory and the process's hold on it."""

    def __init__(self, number):
        self.number = number
        self.references = 0
        self.primary = None  # the default context, made by set_device
        self.used = BOARD.system_memory_mb << 20  # bytes of device memory, what npu-smi shows of an idle chip included
        self.total = BOARD.memory_bytes


DEVICES = [Device(number) for number in range(BOARD.chips)]


class _Thread(threading.local):
    """A thread's current context, and the device it set."""

    context = None
    device = None


THREAD = _Thread()


def current_context():
    """Return this thread's context or None."""
    context = THREAD.context
    if context is not None and context.alive:
        return context
    device = THREAD.device
    if device is not None and device.primary is not None and device.primary.alive:
        return device.primary
    return None


def need_context():
    """Return ``(context, 0)`` or ``(None, code)``."""
    if State.stub:
        return None, errors.COMPILING_STUB_MODE
    if State.lost:
        return None, lost()
    context = current_context()
    if context is None:
        return None, errors.runtime(
            errors.RT_CONTEXT_NULL,
            "The current context is null: no set_device or set_context in this thread.",
        )
    return context, 0


def lost():
    """The device is gone: what every call that needs it returns."""
    return errors.fail(
        errors.RT_LOST_HEARTBEAT, "EE9999", "Inner Error! ts lost heartbeat, device is offline."
    )
