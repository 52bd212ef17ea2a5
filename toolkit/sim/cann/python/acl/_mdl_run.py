"""acl.mdl: datasets, gears and execution (hicann/runtime ``python/pyACL/mdl/mdl_wrap.cpp``, hicann/ge
``model.cpp``)."""

import time

from . import _errors as errors
from . import _memory as memory
from ._args import Registry
from ._mdl_load import code_of, loaded
from ._rt_callback import report_exception
from ._rt_device import lose_device_if_due
from ._rt_stream import stream_of
from ._state import BOARD, FAULTS, HANDLES, LOCK, PROBLEMS, Handle, State, find, lost, need_context
from ._tensor import TensorDesc
from ._top import DataBuffer

api = Registry("acl.mdl", "!")
short = Registry("acl.mdl")

# The runtime rounds buffers up to 64 bytes before it compares them with what the model needs.
_TOLERANCE = 64
_sleep = time.sleep


class Dataset(Handle):
    """Data buffers in the order of the model's inputs or outputs, and the gear that was chosen for them."""

    kind = "dataset"

    def __init__(self):
        Handle.__init__(self)
        self.buffers = []
        self.descs = []
        self.gear = None


@api("create_dataset")
def create_dataset():
    """A handle (no ret)."""
    return Dataset().handle


@api("destroy_dataset", "k")
def destroy_dataset(handle):
    """Destroy the dataset with its copies of tensor descriptions, neither its data buffers nor their memory."""
    dataset = find(handle, Dataset, "dataset")
    if dataset is None:
        return errors.INVALID_PARAM
    for copy in dataset.descs:
        if copy is not None:
            copy.drop()
    dataset.drop()
    return 0


@api("add_dataset_buffer", "kk")
def add_dataset_buffer(handle, buffer):
    """(dataset, ret)."""
    dataset = find(handle, Dataset, "dataset")
    if dataset is None or find(buffer, DataBuffer, "dataBuffer") is None:
        return handle, errors.INVALID_PARAM
    dataset.buffers.append(buffer)
    dataset.descs.append(None)
    return handle, 0


@api("get_dataset_num_buffers", "k")
def get_dataset_num_buffers(handle):
    """Number of data buffers (no ret)."""
    dataset = find(handle, Dataset, "dataset")
    return 0 if dataset is None else len(dataset.buffers)


@api("get_dataset_buffer", "kk")
def get_dataset_buffer(handle, index):
    """A data buffer's handle, 0 for a bad index (no ret)."""
    dataset = find(handle, Dataset, "dataset")
    if dataset is None or index >= len(dataset.buffers):
        return 0
    return dataset.buffers[index]


@short("set_dataset_tensor_desc", "kkk")
def set_dataset_tensor_desc(handle, desc_handle, index):
    """(dataset, ret): the dataset keeps a copy of the description; 0 takes it away."""
    dataset = find(handle, Dataset, "dataset")
    if dataset is None:
        return handle, errors.INVALID_PARAM
    if index >= len(dataset.buffers):
        return handle, errors.value(index, "index", "it must be smaller than {}".format(len(dataset.buffers)))
    copy = None
    if desc_handle:
        desc = find(desc_handle, TensorDesc, "tensorDesc")
        if desc is None:
            return handle, errors.INVALID_PARAM
        copy = desc.copy()
    if dataset.descs[index] is not None:
        dataset.descs[index].drop()
    dataset.descs[index] = copy
    return handle, 0


@short("get_dataset_tensor_desc", "kk")
def get_dataset_tensor_desc(handle, index):
    """The handle of the dataset's own tensor description, 0 if none was set (no ret)."""
    dataset = find(handle, Dataset, "dataset")
    if dataset is None or index >= len(dataset.descs) or dataset.descs[index] is None:
        return 0
    return dataset.descs[index].handle


def _choose(model_id, handle, index, kind, values):
    """Set the gear whose values these are, and tell it to the model through its index input."""
    dataset = find(handle, Dataset, "dataset")
    if dataset is None:
        return errors.INVALID_PARAM
    if index >= len(dataset.buffers):
        return errors.value(index, "index", "the dataset has {} buffers".format(len(dataset.buffers)))
    buffer = find(dataset.buffers[index], DataBuffer, "dataBuffer")
    if buffer is None:
        return errors.INVALID_PARAM
    if buffer.pointer == 0:
        return errors.inner(errors.GE_DYNAMIC_INPUT_ADDR_INVALID, "Dynamic input addr is nullptr.")
    model = loaded(model_id)
    if model is None:
        return code_of("id")
    om = model.om
    if not om.gears:
        return errors.inner(code_of("static"), "Model {} is not dynamic.".format(model_id))
    if buffer.size < 4 * len(values):
        return errors.inner(
            errors.GE_DYNAMIC_INPUT_LENGTH_INVALID,
            "Dynamic input size [{}] is less than [{}].".format(buffer.size, 4 * len(values)),
        )
    if om.kind != kind or list(values) not in om.gears:
        return errors.inner(
            errors.GE_DYNAMIC_BATCH_SIZE_INVALID,
            "Value {} is none of the gears {} of kind {}.".format(list(values), om.gears, om.kind),
        )
    if index != len(om.inputs):
        PROBLEMS.add(
            "the gear is written to input {}, ascend_mbatch_shape_data is input {}".format(
                index, len(om.inputs)
            )
        )
    else:
        data = b"".join(value.to_bytes(4, "little") for value in values)
        span = memory.Span(buffer.pointer, len(data), "acl.mdl.set_dynamic_*")
        if span.code:
            return span.code
        memory.move(span.address, data, min(len(data), span.safe))
    dataset.gear = model.gear = om.gears.index(list(values))
    return 0


@api("set_dynamic_batch_size", "IkkK")
def set_dynamic_batch_size(model_id, handle, index, batch):
    """Choose the batch for the next execute."""
    if batch == 0:
        return errors.value(0, "batchSize", "batchSize can't be zero")
    return _choose(model_id, handle, index, "batch", [batch])


@api("set_dynamic_hw_size", "IkkKK")
def set_dynamic_hw_size(model_id, handle, index, height, width):
    """Choose the picture size for the next execute."""
    if height == 0 or width == 0:
        return errors.value(0, "height or width", "they can't be zero")
    return _choose(model_id, handle, index, "image", [height, width])


@api("set_input_dynamic_dims", "IkkO")
def set_input_dynamic_dims(model_id, handle, index, dims):
    """Choose the dims for the next execute: ``{dimCount, dims}`` with the dims of all inputs, one after the
    other."""
    if not isinstance(dims, dict):
        raise TypeError("argument 4 is not dict")
    values, count = dims.get("dims"), dims.get("dimCount", 0)
    if not isinstance(values, list):
        raise TypeError("The dims of parameter 4 is not a list.")
    if (
        not isinstance(count, int)
        or count > len(values)
        or not all(isinstance(value, int) for value in values[:count])
    ):
        raise TypeError("the dims of fourth parameter is not list of int")
    values = values[:count]
    model = loaded(model_id)
    if model is None:
        return code_of("id")
    raw = [dim for tensor in model.om.inputs for dim in tensor.dims]
    if model.om.gears and len(values) != len(raw):
        return errors.inner(
            errors.GE_DYNAMIC_INPUT_LENGTH_INVALID,
            "Dynamic dims have {} values, the inputs of the model {}.".format(len(values), len(raw)),
        )
    if any(dim >= 0 and dim != value for dim, value in zip(raw, values)):
        return errors.inner(
            errors.GE_DYNAMIC_BATCH_SIZE_INVALID, "Dims {} change a fixed axis.".format(values)
        )
    return _choose(model_id, handle, index, "dims", [value for dim, value in zip(raw, values) if dim < 0])


def _resolve(dataset, index, name):
    """Return a live data buffer of a dataset, or None."""
    buffer = HANDLES.get(dataset.buffers[index])
    if not isinstance(buffer, DataBuffer):
        PROBLEMS.add("{} {} of the dataset is a data buffer that was destroyed".format(name, index))
        errors.null("dataBuffer")
        return None
    return buffer


def _too_small(name, index, size, needed):
    return errors.fail(
        errors.GE_PARAM_INVALID, "E13025",
        "{} tensor is invalid. Reason: The {} size {} aligned to 64 bytes is smaller than the {} bytes that "
        "the model needs for index {}.".format(name, name.lower(), size, needed, index))  # fmt: skip


def _gather(dataset, name, needs, check, blocks):
    """Return ``([(address, bytes)], 0)`` or ``(None, code)``.

    The addresses are real ones; the bytes are those which may be touched. ``blocks`` gets the allocations.
    """
    spans = []
    for index, needed in enumerate(needs):
        buffer = _resolve(dataset, index, name)
        if buffer is None:
            return None, errors.INVALID_PARAM
        if buffer.size == 0 and name == "Input":
            spans.append((0, 0))  # an empty buffer is skipped: the model computes on what it had, here zeros
            continue
        if check and buffer.size + _TOLERANCE < needed:
            return None, _too_small(name, index, buffer.size, needed)
        if buffer.pointer == 0 and name == "Input":
            # GE's own "internal error", which AscendCL passes on as its failure.
            return None, errors.inner(errors.GE_FAILURE, "Input {} of the model is nullptr.".format(index))
        if buffer.pointer == 0:
            return None, errors.null("output address")
        what = "acl.mdl.execute, {} {},".format(name.lower(), index)
        span = memory.Span(buffer.pointer, needed, what, buffer.size)
        if span.code:
            return None, span.code
        if not BOARD.is_rc and not span.on_device:
            PROBLEMS.add("{} {} of acl.mdl.execute is host memory".format(name.lower(), index))
            return None, errors.fail(
                errors.RT_MODEL_EXECUTE,
                "EZ9999",
                "Inner Error! {} {} is not a device address.".format(name, index),
            )
        if buffer.size < needed and span.safe == needed:
            PROBLEMS.add("{} {} of acl.mdl.execute has {} bytes, the model uses {}".format(
                name.lower(), index, buffer.size, needed))  # fmt: skip
        spans.append((span.address, min(span.safe, buffer.size)))
        if span.block is not None:
            blocks.append((what, span.block))
    return spans, 0


def _give_memory(dataset, index, size, device):
    """An output buffer without memory gets some from the runtime; the program has to free it."""
    buffer = _resolve(dataset, index, "Output")
    if buffer is None:
        return errors.INVALID_PARAM
    if buffer.pointer == 0 and size:
        charged = memory.rounded(size, True)
        block = memory.allocate(memory.DEVICE, device, size, charged)
        if block is None:
            return memory.out_of_memory(charged, device)
        buffer.pointer, buffer.size = block.base, size
    return 0


def _execute(model_id, input_handle, output_handle, stream):
    """Check everything, then run now (``stream`` None) or in the stream."""
    context, code = need_context()
    if code:
        return code
    inputs = find(input_handle, Dataset, "input")
    outputs = find(output_handle, Dataset, "output") if inputs is not None else None
    if inputs is None or outputs is None:
        return errors.INVALID_PARAM
    model = loaded(model_id)
    if model is None:
        return code_of("id")
    if model.context is not context and model.device is not context.device:
        return errors.runtime(errors.RT_MODEL_CONTEXT, "The model is not in the current context.")
    om = model.om
    wanted = len(om.inputs) + (1 if om.gears else 0)
    if len(inputs.buffers) < wanted or len(outputs.buffers) < len(om.outputs):
        return errors.value(
            "{}/{}".format(len(inputs.buffers), len(outputs.buffers)), "dataset",
            "the model has {} inputs and {} outputs".format(wanted, len(om.outputs)))  # fmt: skip
    if len(inputs.buffers) > wanted:
        return errors.inner(
            errors.GE_PARAM_INVALID,
            "The number of inputs {} is not the model's {}.".format(len(inputs.buffers), wanted),
        )
    gear = inputs.gear
    if not om.gears:
        gear = 0
    elif gear is None or gear >= len(om.gears):
        return errors.inner(
            errors.GE_DYNAMIC_BATCH_SIZE_INVALID,
            "Model {} is dynamic, and no gear was set for the dataset.".format(model_id),
        )
    shapes = om.input_dims[gear]
    needs = [_product(dims) * tensor.itemsize for dims, tensor in zip(shapes, om.inputs)]
    blocks = []  # type: list
    sources, code = _gather(inputs, "Input", needs, not om.gears, blocks)
    if code:
        return code
    for index in range(len(om.outputs)):
        if stream is None:
            code = _give_memory(outputs, index, om.output_size(index), context.device)
            if code:
                return code
    needs = [om.output_size(index, gear) for index in range(len(om.outputs))]
    targets, code = _gather(outputs, "Output", needs, not om.gears, blocks)
    if code:
        return code
    if stream is None:
        code = _run(model, gear, sources, targets, None)
        if code and code != errors.LAST.code:
            errors.fail(
                code, "EZ9999", "Inner Error! {}.".format(errors.MEANING.get(code, "execution failed"))
            )
        return code

    def task():
        for what, block in blocks:
            if memory.exact(block.base) is not block:
                PROBLEMS.add(
                    "{} uses memory that was freed before its stream was synchronised ({} bytes, from {})".format(
                        what, block.size, block.place or "?"
                    )
                )
        try:
            return _run(model, gear, sources, targets, stream)
        finally:
            with LOCK:
                model.queued -= 1

    with LOCK:
        model.queued += 1
    stream.submit(task)
    return 0


def _product(dims):
    count = 1
    for dim in dims:
        count *= dim
    return count


def _run(model, gear, sources, targets, stream):
    """Run, with the faults of the board's description; return the code."""
    with LOCK:
        State.executed += 1
        turn = State.executed
        gone = lose_device_if_due()
    if FAULTS:
        if FAULTS.get("slow_ms"):
            _sleep(float(FAULTS["slow_ms"]) / 1000.0)
        if gone:
            code = lost()
            report_exception(code, model.device, stream)
            return code
        code = int(FAULTS.get("execute_error") or 0)
        if code and turn % max(1, int(FAULTS.get("execute_error_every") or 1)) == 0:
            errors.fail(
                code,
                "EZ9999",
                "Inner Error! The device reports: {}.".format(errors.MEANING.get(code, "error")),
            )
            report_exception(code, model.device, stream)
            return code
    try:
        model.om.run(gear, sources, targets)
    except Exception as error:  # ONNX Runtime has a class of its own for each cause
        text = str(error).strip().split("\n")[0]
        code = errors.fail(
            errors.RT_MODEL_EXECUTE, "EZ9999", "Inner Error! model execute failed: {}.".format(text)
        )
        report_exception(code, model.device, stream)
        return code
    return 0


@api("execute", "Ikk")
def execute(model_id, inputs, outputs):
    """Run a model and wait for it."""
    return _execute(model_id, inputs, outputs, None)


@api("execute_async", "Ikkk")
def execute_async(model_id, inputs, outputs, stream_handle):
    """Run a model in a stream; the outputs are there after synchronize_stream."""
    stream, code = stream_of(stream_handle)
    return code or _execute(model_id, inputs, outputs, stream)


class ExecConfig(Handle):
    """How to execute."""

    kind = "execution configuration"


@short("create_exec_config_handle", since="8.0")
def create_exec_config_handle():
    """A handle (no ret)."""
    return ExecConfig().handle


@short("destroy_exec_config_handle", "k", since="8.0")
def destroy_exec_config_handle(handle):
    """Destroy it."""
    config = find(handle, ExecConfig, "handle")
    if config is None:
        return errors.INVALID_PARAM
    config.drop()
    return 0


@api("set_exec_config_opt", "kkI", since="8.0")
def set_exec_config_opt(handle, attribute, _value):
    """0 synchronisation time-out in ms, 1 event time-out in ms."""
    config = find(handle, ExecConfig, "handle")
    if config is None:
        return errors.INVALID_PARAM
    return 0 if attribute in (0, 1) else errors.value(attribute, "attr", "it is not an attribute")


@api("execute_v2", "Ikkkk", since="8.0")
def execute_v2(model_id, inputs, outputs, stream_handle, config):
    """Run a model and wait for it, behind what the stream has to do."""
    if find(config, ExecConfig, "handle") is None:
        return errors.INVALID_PARAM
    stream, code = stream_of(stream_handle)
    code = code or stream.synchronize()
    return code or _execute(model_id, inputs, outputs, None)
