"""acl.rt: callbacks, of streams and of failed tasks (hicann/runtime ``rt_synchronize.cpp`` of pyACL)."""

import collections
import sys
import threading
import traceback

from . import _errors as errors
from ._args import Registry
from ._rt_stream import stream_of
from ._state import State, lost

api = Registry("acl.rt")


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
    """Queue a callback: ``function(data)`` runs in the subscribed thread; a blocking one holds the stream
    up."""
    if not callable(function):
        raise TypeError("parameter must be callable")
    if block not in (0, 1):
        return errors.value(block, "blockType", "ACL_CALLBACK_BLOCK or ACL_CALLBACK_NO_BLOCK is expected")
    stream, code = stream_of(stream_handle)
    if code:
        return code
    reports = stream.reports
    if reports is None:
        return errors.runtime(
            errors.RT_STREAM_NO_CB_REG, "The stream is not registered to a thread for callbacks."
        )

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
