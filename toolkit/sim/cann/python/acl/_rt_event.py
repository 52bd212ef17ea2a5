"""acl.rt: events (hicann/runtime ``python/pyACL/rt/rt_synchronize.cpp``)."""

import threading
import time

from . import _errors as errors
from ._args import Registry
from ._rt_stream import stream_of
from ._state import Handle, find, need_context

api = Registry("acl.rt")
_clock = time.perf_counter


class Event(Handle):
    """A mark in a stream. ``recorded`` counts record_event calls, ``reached`` says which of them was
    executed."""

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
