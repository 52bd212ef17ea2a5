"""acl.rt: streams (hicann/runtime ``python/pyACL/rt/rt_stream.cpp``, ``rt_synchronize.cpp``).

A stream is a queue with a thread of its own, started at its first task: tasks of one stream run in order,
those of different streams at the same time, and nothing is there before the stream is synchronised.
"""

import collections
import threading
import time
import traceback

from . import _errors as errors
from . import _problems
from ._args import Registry
from ._state import BOARD, HANDLES, LOCK, PROBLEMS, Handle, State, find, need_context

api = Registry("acl.rt")
_clock = time.perf_counter


class Stream(Handle):
    """A queue of tasks; a task is a function returning an error code."""

    kind = "stream"

    def __init__(self, context, default=False):
        Handle.__init__(self)
        self.context = context
        self.default = default
        self.number = self.handle >> 7 & 0x3FF
        self.reports = None  # the thread that runs its callbacks
        self._tasks = collections.deque()
        self._changed = threading.Condition(threading.Lock())
        self._pending = 0
        self._error = 0
        self._thread = None
        self._stopped = False

    def submit(self, task):
        """Queue ``task``."""
        if State.inline:
            self._keep(task())
            return
        place = _problems.where()
        with self._changed:
            self._tasks.append((task, place))
            self._pending += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="acl-stream")
                self._thread.daemon = True
                self._thread.start()
            self._changed.notify_all()

    def _keep(self, code):
        if code and not self._error:
            self._error = code

    def _work(self):
        while True:
            with self._changed:
                while not self._tasks:
                    if self._stopped:
                        return
                    self._changed.wait()
                task, _problems.ORIGIN.place = self._tasks.popleft()
            try:
                code = task()
            except Exception:
                # A defect of the simulator must not look like a stream that hangs for ever.
                traceback.print_exc()
                code = errors.RT_MODEL_EXECUTE
            with self._changed:
                self._keep(code)
                self._pending -= 1
                self._changed.notify_all()

    @property
    def idle(self):
        """Whether all tasks are done."""
        return self._pending == 0

    def synchronize(self, seconds=None):
        """Wait until all is done; return the first error of a task since the last time."""
        if State.inline:  # at exit: nothing is pending, and threading may be gone
            code, self._error = self._error, 0
            return code
        deadline = None if seconds is None else _clock() + seconds
        with self._changed:
            while self._pending:
                left = None if deadline is None else deadline - _clock()
                if left is not None and left <= 0:
                    return errors.fail(
                        errors.RT_STREAM_SYNC_TIMEOUT,
                        "EE1002",
                        "Stream synchronization timeout. stream_id={}.".format(self.number),
                    )
                self._changed.wait(left)
            code, self._error = self._error, 0
        if code:
            errors.fail(code, "EZ9999", "Inner Error! " + errors.MEANING.get(code, "task failed") + ".")
        return code

    def stop(self):
        """No more tasks; the thread ends after those queued."""
        if State.inline:
            return
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self, seconds):
        """Wait for the thread to end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)


def stream_of(handle):
    """Return ``(stream, 0)`` or ``(None, code)``; 0 names the current context's default stream."""
    context, code = need_context()
    if code:
        return None, code
    if handle == 0:
        return context.default_stream, 0
    stream = find(handle, Stream, "stream")
    if stream is None:
        return None, errors.RT_PARAM_INVALID
    if stream.context is not context:
        return None, errors.fail(
            errors.RT_STREAM_CONTEXT,
            "EE1010",
            "The operation execution failed because stream does not belong to the current context. Extended "
            "information: stream_id={}, stream_ctx=0x{:x}, cur_ctx=0x{:x}.".format(
                stream.number, stream.context.handle, context.handle
            ),
        )
    return stream, 0


def _available(device):
    """How many streams the device can still give, one being kept for the runtime's own synchronisation."""
    soc = BOARD.soc_version
    most = 512 if soc.startswith("Ascend310B") else 2048 if soc.startswith("Ascend910") else 1024
    used = sum(isinstance(handle, Stream) and handle.context.device is device for handle in HANDLES.values())
    return max(0, most - 1 - used)


def _create():
    context, code = need_context()
    if code:
        return 0, code
    with LOCK:
        if not _available(context.device):
            return 0, errors.fail(
                errors.RT_NO_STREAM_RESOURCE, "EE9999", "Inner Error! Stream creation failed, no stream resource."
            )
    stream = Stream(context)
    context.streams.add(stream)
    return stream.handle, 0


@api("create_stream")
def create_stream():
    """(stream, ret)."""
    return _create()


@api("create_stream_with_config", "ii")
def create_stream_with_config(_priority, _flag):
    """(stream, ret)."""
    return _create()


def _destroy(handle, wait):
    if handle == 0:
        return errors.null("stream")
    stream, code = stream_of(handle)
    if code:
        return code
    if stream.default:
        return errors.runtime(errors.RT_PARAM_INVALID, "The default stream cannot be destroyed.")
    if wait:
        stream.synchronize()
    if stream.reports is not None:
        PROBLEMS.add("stream, made at {}, destroyed before unsubscribe_report".format(stream.place or "?"))
    stream.stop()
    stream.context.streams.discard(stream)
    stream.drop()
    return 0


@api("destroy_stream", "k")
def destroy_stream(handle):
    """Wait for the stream's tasks, then destroy it."""
    return _destroy(handle, True)


@api("destroy_stream_force", "k", since="6.0")
def destroy_stream_force(handle):
    """Destroy without waiting."""
    return _destroy(handle, False)


@api("synchronize_stream", "k")
def synchronize_stream(handle):
    """Wait for all tasks of the stream."""
    stream, code = stream_of(handle)
    return code or stream.synchronize()


@api("synchronize_stream_with_timeout", "ki", since="6.0")
def synchronize_stream_with_timeout(handle, milliseconds):
    """The same, at most that long (-1: for ever)."""
    stream, code = stream_of(handle)
    if code:
        return code
    if milliseconds < -1:
        return errors.value(milliseconds, "timeout", "-1 or more is expected", errors.RT_PARAM_INVALID)
    return stream.synchronize(None if milliseconds < 0 else milliseconds / 1000.0)


@api("stream_query", "k", since="6.0", message="acl.rt.stream_query args parse failed!")
def stream_query(handle):
    """(0 complete | 1 not ready, ret)."""
    stream, code = stream_of(handle)
    return (0xFFFF, code) if code else (0 if stream.idle else 1, 0)


@api("stream_get_id", "k", since="8.0")
def stream_get_id(handle):
    """(id, ret)."""
    stream, code = stream_of(handle)
    return (0, code) if code else (stream.number, 0)


@api("get_stream_available_num", since="8.0")
def get_stream_available_num():
    """(streams that can still be made, ret)."""
    context, code = need_context()
    return (0, code) if code else (_available(context.device), 0)


def stop_all():
    """At exit: end all threads; what is queued is done first, unless it hangs."""
    streams = [handle for handle in list(HANDLES.values()) if isinstance(handle, Stream)]
    for stream in streams:
        if not stream.idle and not State.lost:
            PROBLEMS.add("the program ends with tasks in a stream that was never synchronised")
        stream.stop()
    for stream in streams:
        stream.join(2.0)
    State.inline = True
