"""acl: start and end, version, log, data buffers (hicann/runtime ``python/pyACL/py_init_acl.cpp``,
``acl.cpp``)."""

import json
import os
import struct
import sys
import time

from ascend_sim import board as _board

from . import _errors as errors
from . import _memory as memory
from . import _problems, _rt_device
from ._args import Registry
from ._state import BOARD, DEVICES, HANDLES, LOCK, PROBLEMS, Handle, State, find

api = Registry("acl")

_pack, _unpack = struct.pack, struct.unpack
_CONFIG_LIMIT = 10 * 1024 * 1024


def _read_config(path):
    """Return ``(content, 0)`` or ``(None, code)``."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(_CONFIG_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        return None, errors.fail(
            errors.INVALID_FILE, "EH0003", "Path {} is invalid. Reason: {}.".format(path, reason)
        )
    if not text.strip():
        return {}, 0
    try:
        content = json.loads(text)
    except ValueError as error:
        return None, errors.fail(
            errors.PARSE_FILE,
            "EH0004",
            "File {} is invalid. Reason: {}.".format(path, str(error).split(":")[0]),
        )
    return content if isinstance(content, dict) else {}, 0


def read_dump(path):
    """Return the code for a dump configuration that ``acl.mdl.set_dump`` is given."""
    config, code = _read_config(path)
    return code or _check_dump(config.get("dump"), True)


def _check_dump(dump, strict):
    """Return the code for the "dump" of a configuration (dump.cpp IsValidDumpConfig): 100009 for what is invalid.

    Not ``strict``: an init of the older CANN goes on without dump, unless a value is of a wrong type.
    """
    fields = ("dump_path", "dump_mode", "dump_op_switch", "dump_debug", "dump_scene")
    reason = ""
    if not isinstance(dump, dict):
        reason = "dump must be an object"
    elif any(not isinstance(dump.get(field, ""), str) for field in fields):
        reason = "a value is not a string"
    elif not isinstance(dump.get("dump_list", []), list):
        reason = "dump_list is not a list"
    elif strict and "dump_scene" not in dump:
        path = dump.get("dump_path", "")
        if not path or ":" not in path and not os.access(path, os.R_OK | os.W_OK):
            reason = "dump_path must be a folder that can be written"
        elif dump.get("dump_mode", "output") not in ("input", "output", "all"):
            reason = "dump_mode must be input, output or all"
        elif dump.get("dump_op_switch", "off") not in ("on", "off"):
            reason = "dump_op_switch must be on or off"
    if not reason:
        return 0
    return errors.fail(
        errors.INVALID_DUMP_CONFIG, "EP0001", "The dump configuration is invalid. Reason: {}.".format(reason)
    )


def _check_config(config):
    """Return the code for what an acl.json says."""
    code = _check_dump(config["dump"], BOARD.cann_at_least("8.0")) if "dump" in config else 0
    if code:
        return code
    if "max_opqueue_num" in config:
        text = str(config["max_opqueue_num"])
        if not text.isdigit() or int(text) == 0:
            return errors.value(text, "max_opqueue_num", "it must be greater than zero")
    profiler = config.get("profiler", {})
    if not isinstance(profiler, dict) or profiler.get("switch", "off") not in ("on", "off"):
        return errors.fail(
            errors.INVALID_PROFILING_CONFIG,
            "EK0001",
            "The profiler configuration is invalid. Reason: switch must be on or off.",
        )
    return 0


@api("init", "|s")
def init(path=""):
    """Initialise; once a process (twice from CANN 8 on, if finalize is between)."""
    if State.stub:
        return errors.COMPILING_STUB_MODE
    with LOCK:
        if State.initialised or (State.finalised and not BOARD.cann_at_least("8.0")):
            State.references += 1
            return errors.inner(errors.REPEAT_INITIALIZE, "repeatedly initialized.")
        config = {}
        if path:
            config, code = _read_config(path)
            code = code or _check_config(config)
            if code:
                return code
        if State.config is not None and config != State.config:
            return errors.fail(
                errors.INVALID_PARAM,
                "EH0003",
                "Path {} is invalid. Reason: config content differs from the first "
                "aclInit config file.".format(path),
            )
        State.config = config
        errors.MESSAGES.per_process = str(config.get("err_msg_mode", "0")) == "1"
        State.initialised, State.finalised = True, False
        State.references = 1
    return 0


def _own(handle):
    """Whether the runtime made it itself: default contexts and streams."""
    return getattr(handle, "default", False) or getattr(handle, "primary", False)


_ON_DEVICE = ("context", "stream", "event", "model")


def _finalize():
    left = sum(handle.kind in _ON_DEVICE and not _own(handle) for handle in HANDLES.values())
    if State.lost:
        pass  # nothing on a lost device can be released
    elif left or any(device.references for device in DEVICES):
        PROBLEMS.add(
            "acl.finalize while {} context(s), stream(s), event(s) or model(s) were not released{}".format(
                left,
                "" if not any(device.references for device in DEVICES) else " and a device was not reset",
            )
        )
    State.initialised, State.finalised = False, True
    State.references = 0
    return 0


@api("finalize")
def finalize():
    """Release everything; the last call."""
    if State.stub:
        return errors.COMPILING_STUB_MODE
    with LOCK:
        if State.finalised:
            return errors.inner(errors.REPEAT_FINALIZE, "repeatedly finalized.")
        return _finalize()


@api("finalize_reference", since="8.0")
def finalize_reference():
    """(references left, ret): undo one init, finalize at the last one."""
    with LOCK:
        if State.references > 1:
            State.references -= 1
            return State.references, 0
        if State.references < 1:
            return 0, errors.inner(errors.REPEAT_FINALIZE, "called repeatedly or without proper aclInit.")
        code = _finalize()
        return State.references, code


@api("get_version")
def get_version():
    """(major, minor, patch, ret) of the interface, which is not the CANN version."""
    return (1, 14, 0, 0) if BOARD.cann_at_least("8.0") else (1, 1, 0, 0)


@api("get_soc_name")
def get_soc_name():
    """The chip's name, as in ``atc --soc_version``."""
    return BOARD.soc_version


@api("get_recent_err_msg")
def get_recent_err_msg():
    """What went wrong in this thread since the last time, or None."""
    return errors.MESSAGES.take()


@api("get_cann_version", "I", since="8.0")
def get_cann_version(package):
    """(dict, ret): the version of a package; 0 is CANN itself."""
    keys = ("version", "major_version", "minor_version", "release_version", "patch_version", "reserved")
    if package > 9:
        return dict.fromkeys(keys, ""), errors.value(package, "name", "no such package")
    parts = (BOARD.cann_version.replace("-", ".").split(".") + ["0"] * 4)[:4]
    return dict(zip(keys, [BOARD.cann_version] + parts + [""])), 0


@api("get_version_str", "s", since="9.0")
def get_version_str(package):
    """(version, ret) of a package by name."""
    if not package:
        return "", errors.value("", "pkgName", "it must not be empty")
    return BOARD.cann_version, 0


@api("get_device_capability", "Ii", since="8.0")
def get_device_capability(number, info):
    """(value, ret): 0 AI cores, 1 vector cores, 2 bytes of L2 cache."""
    if number >= len(DEVICES):
        return 0, errors.runtime(errors.RT_INVALID_DEVICEID, "Invalid device ID {}.".format(number))
    ai, vector = _rt_device.cores()
    table = {0: ai, 1: vector, 2: 8 * 1024 * 1024}
    if info not in table:
        return 0, errors.value(info, "deviceInfo", "it is not known")
    return table[info], 0


@api("get_cann_attribute_list", since="8.0")
def get_cann_attribute_list():
    """([attributes supported], count, ret)."""
    return [], 0, 0


@api("get_cann_attribute", "i", since="8.0")
def get_cann_attribute(attribute):
    """(0 | 1, ret)."""
    return (0, 0) if 0 <= attribute < 64 else (0, errors.value(attribute, "cannAttr", "it is not known"))


def _log_level():
    try:
        return int(os.environ.get("ASCEND_GLOBAL_LOG_LEVEL", "3"))
    except ValueError:
        return 3


class _Log(object):
    """Where app_log writes. All read and looked up once: programs still log in destructors when os is cleared."""

    level = _log_level()
    to_stdout = "1" in (os.environ.get("ASCEND_SLOG_PRINT_TO_STDOUT"), os.environ.get("SLOG_PRINT_TO_STDOUT"))
    origin = "APP({},{})".format(os.getpid(), os.path.basename(sys.executable or "python3"))
    stdout = sys.stdout
    folder = _board.log_folder(BOARD, os.environ)
    path = os.path.join(folder, "plog-{}_{}.log".format(os.getpid(), time.strftime("%Y%m%d%H%M%S000")))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    clock, strftime, localtime = time.time, time.strftime, time.localtime
    open, write, close, makedirs, isdir = os.open, os.write, os.close, os.makedirs, os.path.isdir


@api("app_log", "is")
def app_log(level, text):
    """Write to the process's log: a file below ``$HOME/ascend/log``, or stdout if ASCEND_SLOG_PRINT_TO_STDOUT=1;
    what is not below ASCEND_GLOBAL_LOG_LEVEL (3, errors, by default)."""
    log = _Log
    if not log.level <= level <= 3:
        return
    now = log.clock()
    line = "[{}] {}:{}.{:03d}.000 [{}]{}\n".format(
        ("DEBUG", "INFO", "WARNING", "ERROR")[max(level, 0)],
        log.origin,
        log.strftime("%Y-%m-%d-%H:%M:%S", log.localtime(now)),
        int(now * 1000) % 1000,
        _problems.where(),
        text,
    )
    if log.to_stdout:
        log.stdout.write(line)
    elif log.folder:
        try:
            if not log.isdir(log.folder):
                log.makedirs(log.folder, 0o750)
            descriptor = log.open(log.path, log.flags, 0o640)
            try:
                log.write(descriptor, line.encode("utf-8", "replace"))
            finally:
                log.close(descriptor)
        except Exception:  # a full or forbidden disk, or a module that is cleared already
            pass


@api("float16_to_float", "H")
def float16_to_float(bits):
    """The number that 16 bits stand for."""
    return _unpack("<e", _pack("<H", bits))[0]


@api("float_to_float16", "f")
def float_to_float16(number):
    """The 16 bits nearest to a number."""
    try:
        return _unpack("<H", _pack("<e", number))[0]
    except OverflowError:
        return 0x7C00 if number > 0 else 0xFC00


# aclDataType → bytes of an element. What is not here has 8, as in the real table.
_SIZES = {-1: 0, 13: 0, 12: 1, 2: 1, 4: 1, 1: 2, 6: 2, 7: 2, 27: 2, 0: 4, 3: 4, 8: 4, 17: 16}


@api("data_type_size", "i")
def data_type_size(data_type):
    """Bytes of one element."""
    return _SIZES.get(data_type, 8)


class DataBuffer(Handle):
    """A pointer and a length; does not own the memory."""

    kind = "data buffer"

    def __init__(self, pointer, size):
        Handle.__init__(self)
        self.pointer, self.size = pointer, size


@api("create_data_buffer", "kk")
def create_data_buffer(pointer, size):
    """A data buffer's handle (no ret)."""
    return DataBuffer(pointer, size).handle


@api("destroy_data_buffer", "k")
def destroy_data_buffer(handle):
    """Destroy the wrapper, not the memory."""
    buffer = find(handle, DataBuffer, "dataBuffer")
    if buffer is None:
        return errors.INVALID_PARAM
    buffer.drop()
    return 0


@api("get_data_buffer_addr", "k")
def get_data_buffer_addr(handle):
    """The pointer, 0 if the handle is null."""
    buffer = find(handle, DataBuffer, "dataBuffer")
    return 0 if buffer is None else buffer.pointer


@api("get_data_buffer_size", "k")
def get_data_buffer_size(handle):
    """The length as the uint32 that this function always returned."""
    buffer = find(handle, DataBuffer, "dataBuffer")
    return 0 if buffer is None else buffer.size & 0xFFFFFFFF


@api("get_data_buffer_size_v2", "k")
def get_data_buffer_size_v2(handle):
    """The length."""
    buffer = find(handle, DataBuffer, "dataBuffer")
    return 0 if buffer is None else buffer.size


@api("update_data_buffer", "kkk")
def update_data_buffer(handle, pointer, size):
    """Give the wrapper other memory."""
    buffer = find(handle, DataBuffer, "dataBuffer")
    if buffer is None:
        return errors.INVALID_PARAM
    buffer.pointer, buffer.size = pointer, size
    return 0


def leaks():
    """Lines about what the program never gave back, though it could: not what was on a device that is lost."""
    lines = []
    groups = {}  # type: dict
    for handle in HANDLES.values():
        if not _own(handle) and not (State.lost and handle.kind in _ON_DEVICE):
            groups.setdefault((handle.kind, handle.place), []).append(handle)
    for (kind, place), found in sorted(groups.items()):
        lines.append("leaked at exit: {} {}(s) (made at {})".format(len(found), kind, place or "?"))
    blocks = {}  # type: dict
    for block in memory.all_blocks() if not State.lost else ():
        blocks.setdefault((block.space, block.place), []).append(block)
    for (space, place), found in sorted(blocks.items()):
        total = sum(block.size for block in found)
        lines.append(
            "leaked at exit: {} bytes of {} memory in {} block(s) (allocated at {})".format(
                total, space, len(found), place or "?"
            )
        )
    for device in DEVICES:
        if device.references and not State.lost:
            lines.append("device {} was never reset".format(device.number))
    if State.initialised:
        lines.append("acl.finalize was never called")
    return lines
