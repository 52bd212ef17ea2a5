"""acl.rt: devices and contexts (hicann/runtime ``python/pyACL/rt/rt_device.cpp``, ``rt_context.cpp``)."""

from . import _errors as errors
from . import _memory as memory
from ._args import Registry
from ._rt_stream import Stream
from ._state import BOARD, DEVICES, FAULTS, HANDLES, LOCK, PROBLEMS, THREAD, Handle, State
from ._state import current_context, find, lost, need_context

api = Registry("acl.rt")

# AI cores, vector cores: what get_device_capability and get_device_info answer.
_CORES = {
    "Ascend310": (2, 0),
    "Ascend310P1": (10, 8),
    "Ascend310P3": (8, 7),
    "Ascend310B1": (1, 1),
    "Ascend310B4": (1, 1),
    "Ascend910": (32, 0),
    "Ascend910B3": (20, 40),
}


def cores():
    """Return (AI cores, vector cores) of the board's chip."""
    return _CORES.get(BOARD.soc_version, (1, 0))


class Context(Handle):
    """A context: belongs to a device, has streams."""

    kind = "context"

    def __init__(self, device, primary=False):
        Handle.__init__(self)
        self.device = device
        self.primary = primary
        self.alive = True
        self.streams = set()
        self.default_stream = Stream(self, default=True)

    def destroy(self):
        """End the context; its streams stop after what they are doing."""
        self.alive = False
        for stream in [self.default_stream] + list(self.streams):
            stream.stop()
        self.default_stream.drop()
        self.drop()


def device_of(number):
    """Return the device or None after storing the error."""
    if 0 <= number < len(DEVICES):
        return DEVICES[number]
    errors.runtime(
        errors.RT_INVALID_DEVICEID,
        "Invalid device ID {0}. Set drv devId to {0}. The valid device range is [0, {1}).".format(
            number, len(DEVICES)
        ),
    )
    return None


def _permitted():
    if BOARD.may_use_device:
        return 0
    return errors.fail(
        errors.RT_NO_PERMISSION,
        "EL0005",
        "Failed to open /dev/davinci0: permission denied. The user {} is not in the group HwHiAiUser.".format(
            BOARD.user
        ),
    )


@api("set_device", "i")
def set_device(number):
    """Bind this thread to a device; makes the device's default context."""
    if State.stub:
        return errors.COMPILING_STUB_MODE
    if State.lost:
        return lost()
    device = device_of(number)
    if device is None:
        return errors.RT_INVALID_DEVICEID
    code = _permitted()
    if code:
        return code
    if not State.initialised:
        PROBLEMS.add("acl.rt.set_device before acl.init")
    with LOCK:
        device.references += 1
        if device.primary is None or not device.primary.alive:
            device.primary = Context(device, primary=True)
        THREAD.device = device
        THREAD.context = device.primary
    return 0


def _reset(number, force):
    if State.stub:
        return errors.COMPILING_STUB_MODE
    device = device_of(number)
    if device is None:
        return errors.RT_INVALID_DEVICEID
    with LOCK:
        if device.references == 0:
            PROBLEMS.add("acl.rt.reset_device({}) of a device that is not set".format(number))
            return 0
        device.references = 0 if force else device.references - 1
        if device.references:
            return 0
        early = "device {} reset before the {} made at {} was {}"
        for handle in list(HANDLES.values()):
            if handle.kind in ("stream", "event") and handle.context.device is device and not State.lost:
                if handle.context is device.primary and not getattr(handle, "default", False):
                    PROBLEMS.add(early.format(number, handle.kind, handle.place, "destroyed"))
        for handle in list(HANDLES.values()):
            if isinstance(handle, Context) and handle.device is device:
                if not handle.primary and not State.lost:
                    PROBLEMS.add(early.format(number, "context", handle.place, "destroyed"))
                handle.destroy()
        device.primary = None
        if THREAD.device is device:
            THREAD.device = None
        for handle in list(HANDLES.values()):
            if handle.kind == "model" and handle.device is device:
                if not State.lost:
                    PROBLEMS.add(early.format(number, "model", handle.place, "unloaded"))
                handle.release()
        left = [block for block in memory.all_blocks() if block.device is device]
        for block in left:
            # The driver takes the memory back, whatever the program still believes to have.
            memory.forget(block)
        if left and not State.lost:
            total = sum(block.size for block in left)
            PROBLEMS.add(
                "device {} reset with {} bytes in {} block(s) not freed, the first from {}".format(
                    number, total, len(left), left[0].place or "?"
                )
            )
    return 0


@api("reset_device", "i")
def reset_device(number):
    """Undo one set_device; the last one releases the device."""
    return _reset(number, False)


@api("reset_device_force", "i", since="8.0")
def reset_device_force(number):
    """Release the device, however often it was set."""
    return _reset(number, True)


@api("get_device")
def get_device():
    """(device, ret) of this thread."""
    context = current_context()
    if context is None:
        return 0, errors.runtime(errors.RT_CONTEXT_NULL, "The current context is null: no device is set.")
    return context.device.number, 0


@api("get_device_count")
def get_device_count():
    """(count, ret)."""
    return (0, errors.COMPILING_STUB_MODE) if State.stub else (len(DEVICES), 0)


@api("get_run_mode")
def get_run_mode():
    """(0 = ACL_DEVICE | 1 = ACL_HOST, ret); works before acl.init."""
    return (0, errors.COMPILING_STUB_MODE) if State.stub else (0 if BOARD.is_rc else 1, 0)


@api("set_ts_device", "i")
def set_ts_device(number):
    """Choose the task scheduler."""
    if number not in (0, 1):
        return errors.value(number, "tsId", "0 and 1 exist")
    return need_context()[1]


@api("get_device_utilization_rate", "i", since="6.0")
def get_device_utilization_rate(number):
    """({…_utilization}, ret)."""
    device = device_of(number)
    rate = {"cube_utilization": 0, "vector_utilization": 0, "aicpu_utilization": 0, "memory_utilization": 0}
    rate["utilization_extend"] = 0
    if device is None:
        return rate, errors.RT_INVALID_DEVICEID
    rate["memory_utilization"] = int(100 * device.used // device.total) if device.total else 100
    return rate, 0


@api("query_device_status", "i", since="8.0")
def query_device_status(number):
    """(0 normal | 1 abnormal, ret)."""
    if device_of(number) is None:
        return 2, errors.RT_INVALID_DEVICEID
    return (1 if State.lost else 0), 0


@api("get_device_info", "II", since="8.0")
def get_device_info(number, attribute):
    """(value, ret): 0 AI CPU cores, 1 AI cores, 2 cube cores, 101 vector cores."""
    if device_of(number) is None:
        return 0, errors.RT_INVALID_DEVICEID
    ai, vector = cores()
    table = {0: 4, 1: ai, 2: ai, 101: vector}
    if attribute not in table:
        return 0, errors.runtime(
            errors.RT_PARAM_INVALID, "Device attribute {} is not known.".format(attribute)
        )
    return table[attribute], 0


@api("get_device_capability", "iI", since="8.0")
def get_device_capability(number, feature):
    """(0 not supported | 1 supported, ret)."""
    return 0, (errors.RT_INVALID_DEVICEID if device_of(number) is None else 0)


@api("peek_at_last_error", "i", since="8.0", message="acl.rt.peek_at_last_error args parse failed!")
def peek_at_last_error(level):
    """The last error code of this thread."""
    return errors.LAST.code if level == 0 else errors.value(level, "level", "only ACL_RT_THREAD_LEVEL exists")


@api("get_last_error", "i", since="8.0", message="acl.rt.get_last_error args parse failed!")
def get_last_error(level):
    """The last error code of this thread, and forget it."""
    code = peek_at_last_error(level)
    errors.LAST.code = 0
    return code


@api("create_context", "i")
def create_context(number):
    """(context, ret); the new context becomes this thread's current one."""
    if State.stub:
        return 0, errors.COMPILING_STUB_MODE
    if State.lost:
        return 0, lost()
    device = device_of(number)
    if device is None:
        return 0, errors.RT_INVALID_DEVICEID
    code = _permitted()
    if code:
        return 0, code
    context = Context(device)
    THREAD.context = context
    return context.handle, 0


@api("destroy_context", "k")
def destroy_context(handle):
    """Destroy a context made by create_context."""
    context = find(handle, Context, "context")
    if context is None:
        return errors.INVALID_PARAM if handle == 0 else errors.RT_PARAM_INVALID
    if context.primary:
        return errors.runtime(
            errors.RT_PARAM_INVALID, "A default context cannot be destroyed; reset the device."
        )
    for left in list(HANDLES.values()):
        if left.kind in ("stream", "event", "model") and left.context is context:
            if not getattr(left, "default", False):
                PROBLEMS.add("context destroyed before its {}, made at {}".format(left.kind, left.place or "?"))
    context.destroy()
    return 0


@api("set_context", "k")
def set_context(handle):
    """Make a context this thread's current one."""
    if State.lost:
        return lost()
    context = find(handle, Context, "context")
    if context is None:
        return errors.INVALID_PARAM if handle == 0 else errors.RT_CONTEXT_NULL
    THREAD.context = context
    return 0


@api("get_context")
def get_context():
    """(context, ret) of this thread."""
    context = current_context()
    if context is None:
        return 0, errors.runtime(errors.RT_CONTEXT_NULL, "The current context is null.")
    return context.handle, 0


@api("synchronize_device")
def synchronize_device():
    """Wait for all streams of the current device."""
    return _synchronize_device(None)


@api("synchronize_device_with_timeout", "i", since="8.0")
def synchronize_device_with_timeout(milliseconds):
    """The same, at most that long (-1: for ever)."""
    return _synchronize_device(None if milliseconds < 0 else milliseconds / 1000.0)


def _synchronize_device(seconds):
    context, code = need_context()
    if code:
        return code
    for other in list(HANDLES.values()):
        if isinstance(other, Stream) and other.context.device is context.device:
            code = other.synchronize(seconds) or code
    return code


def lose_device_if_due():
    """Fault ``lose_device_after``: count an execute, and let the device fall off at the given one."""
    after = FAULTS.get("lose_device_after")
    if after is not None and State.executed >= int(after):
        State.lost = True
    return State.lost
