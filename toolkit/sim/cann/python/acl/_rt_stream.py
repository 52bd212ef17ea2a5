"""acl.rt: streams, events, callbacks (hicann/runtime ``python/pyACL/rt/rt_stream.cpp``, ``rt_synchronize.cpp``).

A stream is a queue with a thread of its own, started at its first task: tasks of one stream run in order, those of
different streams at the same time, and nothing is there before the stream is synchronised.
"""

import collections
import sys
import threading
import time
import traceback

from . import _errors as errors
from ._args import Registry
from ._state import HANDLES, PROBLEMS, Handle, State, find, lost, need_context

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
        with self._changed:
            self._tasks.append(task)
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
                task = self._tasks.popleft()
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
                        errors.RT_STREAM_SYNC_TIMEOUT, "EE1002", "Stream synchronization timeout. stream_id={}.".format(
                            self.number
                        )
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


def _create():
    context, code = need_context()
    if code:
        return 0, code
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
    code = need_context()[1]
    used = sum(isinstance(handle, Stream) for handle in HANDLES.values())
    return (0, code) if code else (max(0, 1024 - used), 0)


class Event(Handle):
    """A mark in a stream. ``recorded`` counts record_event calls, ``reached`` says which of them was executed."""

    kind = "event"

    def __init__(self, context):
        Handle.__init__(self)
        self.context = context
        self.recorded = 0
        self.reached = 0
        self.time = 0.0
        self.changed = threading.Condition(threading.Lock())

    def mark(self, number):
        """Executed by the stream."""
        with self.changed:
            self.reached = max(self.reached, number)
            self.time = _clock()
            self.changed.notify_all()
        return 0

    def wait(self, number, seconds=None):
        """Wait for that mark; False at a timeout."""
        with self.changed:
            return self.changed.wait_for(lambda: self.reached >= number, seconds)

    @property
    def complete(self):
        """Whether the last record was executed; False if there was none."""
        return 0 < self.recorded <= self.reached


def _new_event():
    context, code = need_context()
    return (0, code) if code else (Event(context).handle, 0)


@api("create_event")
def create_event():
    """(event, ret)."""
    return _new_event()


@api("create_event_with_flag", "I")
def create_event_with_flag(_flag):
    """(event, ret)."""
    return _new_event()


@api("create_event_ex_with_flag", "I", since="8.0")
def create_event_ex_with_flag(_flag):
    """(event, ret)."""
    return _new_event()


def _event_of(handle):
    code = need_context()[1]
    if code:
        return None, code
    event = find(handle, Event, "event")
    return event, (errors.INVALID_PARAM if handle == 0 else errors.RT_PARAM_INVALID) if event is None else 0


@api("destroy_event", "k")
def destroy_event(handle):
    """Destroy an event."""
    event, code = _event_of(handle)
    if not code:
        event.drop()
    return code


@api("record_event", "kk")
def record_event(handle, stream_handle):
    """Mark the place that the stream has reached so far."""
    event, code = _event_of(handle)
    if code:
        return code
    stream, code = stream_of(stream_handle)
    if code:
        return code
    event.recorded += 1
    number = event.recorded
    stream.submit(lambda: event.mark(number))
    return 0


@api("reset_event", "kk")
def reset_event(handle, stream_handle):
    """Let the stream set the event back."""
    event, code = _event_of(handle)
    if code:
        return code
    stream, code = stream_of(stream_handle)
    if code:
        return code

    def task():
        event.recorded = event.reached = 0
        return 0

    stream.submit(task)
    return 0


@api("query_event", "k")
def query_event(handle):
    """(0 complete | 1 not ready, ret)."""
    event, code = _event_of(handle)
    return (0, code) if code else (0 if event.complete else 1, 0)


@api("query_event_status", "k", since="6.0")
def query_event_status(handle):
    """(0 not ready | 1 complete, ret)."""
    event, code = _event_of(handle)
    return (0, code) if code else (1 if event.complete else 0, 0)


@api("query_event_wait_status", "k", since="6.0")
def query_event_wait_status(handle):
    """(0 complete | 1 not ready, ret)."""
    return query_event(handle)


@api("synchronize_event", "k")
def synchronize_event(handle):
    """Wait for the event's last record."""
    event, code = _event_of(handle)
    if code:
        return code
    if not event.recorded:
        return errors.runtime(errors.RT_PARAM_INVALID, "The event is not recorded.")
    event.wait(event.recorded)
    return 0


@api("synchronize_event_with_timeout", "ki", since="8.0",
     message="acl.rt.synchronize_event_with_timeout args parse failed!")  # fmt: skip
def synchronize_event_with_timeout(handle, milliseconds):
    """The same, at most that long."""
    event, code = _event_of(handle)
    if code:
        return code
    if not event.recorded:
        return errors.runtime(errors.RT_PARAM_INVALID, "The event is not recorded.")
    if event.wait(event.recorded, None if milliseconds < 0 else milliseconds / 1000.0):
        return 0
    return errors.fail(errors.RT_STREAM_SYNC_TIMEOUT, "EE1002", "Event synchronization timeout.")


@api("event_elapsed_time", "kk")
def event_elapsed_time(start_handle, end_handle):
    """(milliseconds, ret) between two executed marks."""
    start, code = _event_of(start_handle)
    end, code_end = _event_of(end_handle)
    if code or code_end:
        return 0.0, code or code_end
    if not (start.complete and end.complete):
        return 0.0, errors.runtime(errors.RT_EVENT_TIMESTAMP_INVALID, "An event has no timestamp yet.")
    return (end.time - start.time) * 1000.0, 0


@api("event_get_timestamp", "k", since="6.0")
def event_get_timestamp(handle):
    """(microseconds, ret)."""
    event, code = _event_of(handle)
    if code:
        return 0, code
    if not event.complete:
        return 0, errors.runtime(errors.RT_EVENT_TIMESTAMP_INVALID, "The event has no timestamp yet.")
    return int(event.time * 1e6), 0


@api("stream_wait_event", "kk")
def stream_wait_event(stream_handle, handle):
    """Let a stream wait for what the event has recorded so far."""
    stream, code = stream_of(stream_handle)
    if code:
        return code
    event, code = _event_of(handle)
    if code:
        return code
    number = event.recorded

    def task():
        event.wait(number)
        return 0

    if number:
        stream.submit(task)
    return 0


class Reports(object):
    """The callbacks waiting for one thread."""

    def __init__(self):
        self.streams = set()
        self.waiting = collections.deque()
        self.changed = threading.Condition(threading.Lock())


_reports = {}  # thread id → Reports


@api("subscribe_report", "Kk")
def subscribe_report(thread_id, stream_handle):
    """Let thread ``thread_id`` run the callbacks of a stream."""
    stream, code = stream_of(stream_handle)
    if code:
        return code
    if stream.reports is not None:
        return errors.runtime(errors.RT_STREAM_SUBSCRIBE, "The stream has been subscribed.")
    stream.reports = _reports.setdefault(thread_id, Reports())
    stream.reports.streams.add(stream)
    return 0


@api("unsubscribe_report", "Kk")
def unsubscribe_report(thread_id, stream_handle):
    """Undo subscribe_report."""
    stream, code = stream_of(stream_handle)
    if code:
        return code
    reports = _reports.get(thread_id)
    if reports is None or stream.reports is not reports:
        return errors.runtime(errors.RT_THREAD_SUBSCRIBE, "The thread is not subscribed to the stream.")
    reports.streams.discard(stream)
    stream.reports = None
    if not reports.streams:
        del _reports[thread_id]
    return 0


@api("process_report", "i")
def process_report(milliseconds):
    """Run one waiting callback in this thread; wait for one at most that long (-1: for ever)."""
    if milliseconds < -1 or milliseconds == 0:
        return errors.value(
            milliseconds,
            "timeout",
            "-1 represents infinite wait, timeout value greater than 0 represents waiting for a fixed time",
        )
    reports = _reports.get(threading.get_ident())
    if reports is None:
        return errors.fail(errors.RT_THREAD_SUBSCRIBE, "EE9999", "Inner Error! The thread is not subscribed.")
    with reports.changed:
        if not reports.changed.wait_for(
            lambda: reports.waiting, None if milliseconds < 0 else milliseconds / 1000.0
        ):
            return errors.RT_REPORT_TIMEOUT
        function, data, done = reports.waiting.popleft()
    try:
        function(data)
    except Exception:
        traceback.print_exc(file=sys.stderr)
    finally:
        done.set()
    return 0


@api("launch_callback", "OOik")
def launch_callback(function, data, block, stream_handle):
    """Queue a callback: ``function(data)`` runs in the subscribed thread; a blocking one holds the stream up."""
    if not callable(function):
        raise TypeError("parameter must be callable")
    if block not in (0, 1):
        return errors.value(block, "blockType", "ACL_CALLBACK_BLOCK or ACL_CALLBACK_NO_BLOCK is expected")
    stream, code = stream_of(stream_handle)
    if code:
        return code
    reports = stream.reports
    if reports is None:
        return errors.runtime(errors.RT_STREAM_NO_CB_REG, "The stream is not registered to a thread for callbacks.")

    def task():
        done = threading.Event()
        with reports.changed:
            reports.waiting.append((function, data, done))
            reports.changed.notify_all()
        if block:
            done.wait()
        return 0

    stream.submit(task)
    return 0


class _ExceptionInfo(object):
    """What set_exception_info_callback's function can ask about a failed task."""

    callback = None
    infos = {}  # type: dict


def report_exception(code, device, stream):
    """A task failed: call the program's exception callback, if there is one."""
    callback = _ExceptionInfo.callback
    if callback is None:
        return
    handle = 0xFFFE00000000 + 0x100 * len(_ExceptionInfo.infos)
    _ExceptionInfo.infos[handle] = {
        "task_id": State.executed, "stream_id": stream.number if stream is not None else 0,
        "thread_id": threading.get_ident() & 0xFFFFFFFF, "device_id": device.number, "error_code": code,
    }  # fmt: skip
    try:
        callback(handle)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        _ExceptionInfo.callback = None  # the real wrapper drops a callback that raises
    finally:
        _ExceptionInfo.infos.pop(handle, None)


@api("set_exception_info_callback", "|O")
def set_exception_info_callback(function=None):
    """Set (or, without argument, take away) the function called with each failed task."""
    if function is not None and not callable(function):
        raise TypeError("acl.rt.set_exception_info_callback args parse failed")
    _ExceptionInfo.callback = function
    return 0


def _getter(field):
    @api("get_{}_from_exception_info".format(field), "k")
    def get(handle):
        """One field of an exception info; 0xFFFFFFFF… outside the callback."""
        info = _ExceptionInfo.infos.get(handle)
        if info is None:
            errors.null("info")
            return 0xFFFFFFFF
        return info[field]

    return get


for _field in ("task_id", "stream_id", "thread_id", "device_id", "error_code"):
    _getter(_field)


def _timeout(_seconds):
    """Set how long operators may take; the simulated ones never hang."""
    return lost() if State.lost else 0


api("set_op_wait_timeout", "I", message="acl.rt.set_op_wait_timeout args parse failed!")(_timeout)
api("set_op_execute_time_out", "I", message="acl.rt.set_op_execute_timeout args parse failed!")(_timeout)


def stop_all():
    """At exit: end all threads; what is queued is done first, unless it hangs."""
    streams = [handle for handle in list(HANDLES.values()) if isinstance(handle, Stream)]
    for stream in streams:
        if not stream.idle:
            PROBLEMS.add("the program ends with tasks in a stream that was never synchronised")
        stream.stop()
    for stream in streams:
        stream.join(2.0)
    State.inline = True
