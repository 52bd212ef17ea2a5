"""acl.mdl: loading and unloading (hicann/runtime ``python/pyACL/mdl/mdl_wrap.cpp``, hicann/ge
``api/acl/acl_model``)."""

import os
import stat

from ascend_sim import board as _board
from ascend_sim import omfile

from . import _engine as engine
from . import _errors as errors
from . import _memory as memory
from ._args import Registry
from ._state import BOARD, HANDLES, LOCK, PROBLEMS, Handle, State, find, need_context

api = Registry("acl.mdl", "!")
short = Registry("acl.mdl")  # those whose message has no exclamation mark

MODELS = {}  # id → Loaded

# What went wrong → the code of CANN before 5.0, from 5.0, from 8.0. (The codes of 5.0 on are GE's own;
# before, AscendCL had its own or answered "GE failure".)
_CODES = {
    "path": (errors.INVALID_FILE, errors.GE_MODEL_PATH_INVALID, errors.GE_MODEL_PATH_INVALID),
    "empty": (errors.READ_MODEL_FAILURE, errors.GE_PARAM_INVALID, errors.GE_PARAM_INVALID),
    "data": (errors.READ_MODEL_FAILURE, errors.GE_MODEL_DATA_SIZE_INVALID, errors.GE_MODEL_DATA_SIZE_INVALID),
    "chip": (errors.GE_FAILURE, errors.GE_FAILURE, errors.GE_LOAD_MODEL),
    "newer": (errors.DESERIALIZE_MODEL, errors.DESERIALIZE_MODEL, errors.GE_LOAD_PARTITION),
    "content": (errors.GE_FAILURE, errors.GE_LOAD_MODEL, errors.GE_LOAD_MODEL),
    "id": (100011, errors.GE_MODEL_ID_INVALID, errors.GE_MODEL_ID_INVALID),
    "static": (
        errors.MODEL_NOT_DYNAMIC,
        errors.GE_DYNAMIC_BATCH_SIZE_INVALID,
        errors.GE_DYNAMIC_BATCH_SIZE_INVALID,
    ),
}
_GENERATION = 2 if BOARD.cann_at_least("8.0") else 1 if BOARD.cann_at_least("5.0") else 0


def code_of(cause):
    """The code that this board's CANN gives for a cause."""
    return _CODES[cause][_GENERATION]


class _Counter(object):
    last = 0


class Loaded(Handle):
    """A model on a device."""

    kind = "model"

    def __init__(self, om, context, charge):
        Handle.__init__(self)
        self.om, self.context, self.device, self.charge = om, context, context.device, charge
        self.gear = om.largest
        self.queued = 0  # runs that wait in streams
        with LOCK:
            _Counter.last += 1
            self.id = _Counter.last
            MODELS[self.id] = self

    def release(self):
        """Take it off the device."""
        with LOCK:
            MODELS.pop(self.id, None)
            self.device.used -= self.charge
            self.charge = 0
            self.drop()
        self.om.close()


def loaded(model_id):
    """Return the model with that id, or None after storing the error."""
    model = MODELS.get(model_id)
    if model is None:
        errors.inner(
            code_of("id"), "Model id {} is invalid: no model with this id is loaded.".format(model_id)
        )
    return model


def open_om(data, name):
    """Return ``(Om, 0)`` or ``(None, code)``: the file is an om, for this chip, and not newer than this
    CANN."""
    if not data:
        return None, errors.inner(code_of("empty"), "Model {} is empty.".format(name))
    try:
        meta, onnx = omfile.unpack(data)
    except omfile.OmError as error:
        return None, errors.inner(code_of("data"), "Model data of {} is invalid: {}.".format(name, error))
    try:
        om = engine.Om(meta, onnx)
    except engine.BadModel as error:
        return None, errors.inner(code_of("content"), "Model {} cannot be parsed: {}.".format(name, error))
    if om.soc_version != BOARD.soc_version:
        return None, errors.inner(
            code_of("chip"),
            "Model {} was built for soc_version {}, this device is {}.".format(
                name, om.soc_version, BOARD.soc_version
            ),
        )
    if _board.version_key(om.cann_version) > _board.version_key(BOARD.cann_version):
        return None, errors.inner(
            code_of("newer"),
            "Model {} was built by the ATC of CANN {}, this runtime is {}.".format(
                name, om.cann_version, BOARD.cann_version
            ),
        )
    return om, 0


def read_file(path):
    """Return ``(bytes, 0)`` or ``(None, code)``."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(0, "not a regular file")
        with open(path, "rb") as stream:
            return stream.read(), 0
    except OSError as error:
        return None, errors.fail(
            code_of("path"),
            "E19999",
            "Inner Error! Model file path {} is invalid: {}.".format(path, error.strerror),
        )


def read_memory(pointer, size, what):
    """Return ``(bytes, 0)`` or ``(None, code)``."""
    if pointer == 0:
        return None, errors.null("model")
    if size == 0:
        return None, errors.value(0, "modelSize", "it must be greater than zero")
    address = memory.host_address(pointer, size, what)
    if address is None:
        return None, errors.value("0x{:x}".format(pointer), "model", "there is no such memory")
    block = memory.find(pointer)
    room = size if block is None else block.base + block.size - pointer
    return memory.read(address, min(size, room)), 0


def _load(data, name, work=(0, 0), weight=(0, 0)):
    """Return ``(id, ret)``."""
    context, code = need_context()
    if code:
        return 0, code
    if not State.initialised:
        return 0, errors.inner(
            errors.GE_EXEC_NOT_INIT, "GE executor not initialized yet: acl.init was not called."
        )
    om, code = open_om(data, name)
    if code:
        return 0, code
    charge = 0
    for (pointer, size), needed, title in ((work, om.work_size, "work"), (weight, om.weight_size, "weight")):
        if pointer == 0:
            charge += needed
        elif size < needed:
            return 0, errors.inner(
                errors.GE_PARAM_INVALID,
                "The {} memory of {} bytes is less than the {} needed.".format(title, size, needed),
            )
    device = context.device
    with LOCK:
        if device.used + charge > device.total:
            memory.out_of_memory(charge, device)
            return 0, errors.inner(
                errors.GE_DEVICE_MEMORY_ALLOCATION,
                "Device memory of {} bytes cannot be allocated.".format(charge),
            )
        device.used += charge
    try:
        om.session()
    except engine.BadModel as error:
        device.used -= charge
        return 0, errors.inner(code_of("content"), "Model {} cannot be loaded: {}.".format(name, error))
    return Loaded(om, context, charge).id, 0


def _ready():
    """The context comes first: without one the file is not even looked at."""
    return need_context()[1]


@api("load_from_file", "s")
def load_from_file(path):
    """(model id, ret)."""
    code = _ready()
    if code:
        return 0, code
    data, code = read_file(path)
    return (0, code) if code else _load(data, path)


@api("load_from_mem", "kk")
def load_from_mem(pointer, size):
    """(model id, ret): the om's bytes are in memory."""
    code = _ready()
    if code:
        return 0, code
    data, code = read_memory(pointer, size, "acl.mdl.load_from_mem")
    return (0, code) if code else _load(data, "in memory")


@api("load_from_file_with_mem", "skkkk")
def load_from_file_with_mem(path, work, work_size, weight, weight_size):
    """(model id, ret): into memory that the program manages."""
    code = _ready()
    if code:
        return 0, code
    data, code = read_file(path)
    return (0, code) if code else _load(data, path, (work, work_size), (weight, weight_size))


@api("load_from_mem_with_mem", "kkkkkk")
def load_from_mem_with_mem(pointer, size, work, work_size, weight, weight_size):
    """(model id, ret): both."""
    code = _ready()
    if code:
        return 0, code
    data, code = read_memory(pointer, size, "acl.mdl.load_from_mem_with_mem")
    return (0, code) if code else _load(data, "in memory", (work, work_size), (weight, weight_size))


@api("query_size", "s")
def query_size(path):
    """(work bytes, weight bytes, ret)."""
    data, code = read_file(path)
    om, code = (None, code) if code else open_om(data, path)
    return (0, 0, code) if code else (om.work_size, om.weight_size, 0)


@api("query_size_from_mem", "kk")
def query_size_from_mem(pointer, size):
    """(work bytes, weight bytes, ret)."""
    data, code = read_memory(pointer, size, "acl.mdl.query_size_from_mem")
    om, code = (None, code) if code else open_om(data, "in memory")
    return (0, 0, code) if code else (om.work_size, om.weight_size, 0)


@api("unload", "I")
def unload(model_id):
    """Take a model off its device."""
    code = need_context()[1]
    if code:
        return code
    model = loaded(model_id)
    if model is None:
        if 0 < model_id <= _Counter.last:
            PROBLEMS.add("acl.mdl.unload of model {}, which was unloaded already".format(model_id))
        return code_of("id")
    if model.queued:
        PROBLEMS.add(
            "model, made at {}, unloaded before the stream that runs it was synchronised".format(model.place or "?")
        )
    model.release()
    return 0


class Config(Handle):
    """How to load: aclmdlConfigAttr → value."""

    kind = "model configuration"

    def __init__(self):
        Handle.__init__(self)
        self.values = {}


_TYPE, _PATH, _MEMORY, _MEMORY_SIZE, _WEIGHT, _WEIGHT_SIZE, _WORK, _WORK_SIZE = 1, 2, 3, 4, 5, 6, 7, 8
_FROM_FILE, _FROM_FILE_WITH_MEM, _FROM_MEM, _FROM_MEM_WITH_MEM = 1, 2, 3, 4


@short("create_config_handle")
def create_config_handle():
    """A handle (no ret)."""
    return Config().handle


@short("destroy_config_handle", "k")
def destroy_config_handle(handle):
    """Destroy it."""
    config = find(handle, Config, "handle")
    if config is None:
        return errors.INVALID_PARAM
    config.drop()
    return 0


@short("set_config_opt", "kiO")
def set_config_opt(handle, attribute, value):
    """Set one attribute: a string for the path, ints for the rest."""
    message = "acl.mdl.set_config_opt args parse failed!"
    if attribute == _PATH:
        if not isinstance(value, str) or "\0" in value:
            raise TypeError(message)
    elif not isinstance(value, int):
        raise TypeError(message)
    config = find(handle, Config, "handle")
    if config is None:
        return errors.INVALID_PARAM
    if attribute < 0:
        return errors.value(attribute, "attr", "it is not an attribute")
    config.values[attribute] = value
    return 0


@short("load_with_config", "k")
def load_with_config(handle):
    """(model id, ret)."""
    code = _ready()
    if code:
        return 0, code
    config = find(handle, Config, "handle")
    if config is None:
        return 0, errors.INVALID_PARAM
    get = config.values.get
    how = get(_TYPE)
    with_mem = how in (_FROM_FILE_WITH_MEM, _FROM_MEM_WITH_MEM)
    work = (get(_WORK, 0), get(_WORK_SIZE, 0)) if with_mem else (0, 0)
    weight = (get(_WEIGHT, 0), get(_WEIGHT_SIZE, 0)) if with_mem else (0, 0)
    if how in (_FROM_FILE, _FROM_FILE_WITH_MEM) and _PATH in config.values:
        data, code = read_file(get(_PATH))
        return (0, code) if code else _load(data, get(_PATH), work, weight)
    if how in (_FROM_MEM, _FROM_MEM_WITH_MEM) and _MEMORY in config.values and _MEMORY_SIZE in config.values:
        data, code = read_memory(get(_MEMORY), get(_MEMORY_SIZE), "acl.mdl.load_with_config")
        return (0, code) if code else _load(data, "in memory", work, weight)
    return 0, errors.value(how, "loadType", "the load type is not set, not supported or lacks an attribute")


def models_left():
    """Models that are still loaded."""
    return [handle for handle in HANDLES.values() if isinstance(handle, Loaded)]
