"""acl.mdl: what a model looks like (hicann/runtime ``python/pyACL/mdl/mdl_wrap.cpp``, hicann/ge
``model.cpp``)."""

from . import _engine as engine
from . import _errors as errors
from ._args import Registry
from ._mdl_load import MODELS, code_of, loaded, open_om, read_file, read_memory
from ._state import Handle, find

api = Registry("acl.mdl", "!")
short = Registry("acl.mdl")

_NAME_LIMIT = 127  # a char[128] in aclmdlIODims
_GEAR_LIMIT = 4096


class Desc(Handle):
    """A model's description; stays readable when the model is unloaded."""

    kind = "model description"

    def __init__(self):
        Handle.__init__(self)
        self.om = None
        self.model_id = 0


@api("create_desc")
def create_desc():
    """A handle (no ret)."""
    return Desc().handle


@api("destroy_desc", "k")
def destroy_desc(handle):
    """Destroy it."""
    desc = find(handle, Desc, "modelDesc")
    if desc is None:
        return errors.INVALID_PARAM
    desc.drop()
    return 0


@api("get_desc", "kI")
def get_desc(handle, model_id):
    """Fill the description from a loaded model."""
    desc = find(handle, Desc, "modelDesc")
    if desc is None:
        return errors.INVALID_PARAM
    model = loaded(model_id)
    if model is None:
        return code_of("id")
    desc.om, desc.model_id = model.om, model_id
    model.om.output_dims(model.om.largest)
    return 0


def _fill(handle, data, name, code):
    desc = find(handle, Desc, "modelDesc")
    if desc is None:
        return errors.INVALID_PARAM
    if code:
        return code
    om, code = open_om(data, name)
    if code:
        return code
    try:
        om.output_dims(om.largest)
    except engine.BadModel as error:
        return errors.inner(code_of("content"), "Model {} cannot be parsed: {}.".format(name, error))
    desc.om, desc.model_id = om, 0
    return 0


@api("get_desc_from_file", "ks", since="7.0")
def get_desc_from_file(handle, path):
    """Fill the description from a file."""
    data, code = read_file(path)
    return _fill(handle, data, path, code)


@api("get_desc_from_mem", "kkk", since="7.0")
def get_desc_from_mem(handle, pointer, size):
    """Fill the description from an om in memory."""
    data, code = read_memory(pointer, size, "acl.mdl.get_desc_from_mem")
    return _fill(handle, data, "in memory", code)


def om_of(handle):
    """Return the Om that a description tells of, or None."""
    desc = find(handle, Desc, "modelDesc")
    return None if desc is None else desc.om


def _count_inputs(om):
    return len(om.inputs) + (1 if om.gears else 0)


@api("get_num_inputs", "k")
def get_num_inputs(handle):
    """Number of inputs, with the one that tells the gear (no ret)."""
    om = om_of(handle)
    return 0 if om is None else _count_inputs(om)


@api("get_num_outputs", "k")
def get_num_outputs(handle):
    """Number of outputs (no ret)."""
    om = om_of(handle)
    return 0 if om is None else len(om.outputs)


@api("get_input_size_by_index", "kk")
def get_input_size_by_index(handle, index):
    """Bytes, of the largest gear; 0 for a bad index (no ret)."""
    om = om_of(handle)
    if om is None or index >= _count_inputs(om):
        return 0
    return om.input_size(index)


@api("get_output_size_by_index", "kk")
def get_output_size_by_index(handle, index):
    """Bytes, of the largest gear; 0 for a bad index (no ret)."""
    om = om_of(handle)
    if om is None or index >= len(om.outputs):
        return 0
    return om.output_size(index)


def _is_index(om, index):
    return bool(om.gears) and index == len(om.inputs)


def _dims(name, dims, handle, side, index):
    if len(name.encode("utf-8")) > _NAME_LIMIT:
        desc = find(handle, Desc, "modelDesc")
        name = "acl_modelId_{}_{}_{}".format(desc.model_id if desc is not None else 0, side, index)
    return {"name": name, "dimCount": len(dims), "dims": list(dims)}


def _bad_index(index, count):
    return errors.value(index, "index", "it must be smaller than {}".format(count))


def _input_dims(handle, index):
    om = om_of(handle)
    if om is None:
        return {}, errors.INVALID_PARAM
    if index >= _count_inputs(om):
        return {}, _bad_index(index, _count_inputs(om))
    if _is_index(om, index):
        return _dims(engine.MBATCH_NAME, om.index_dims, handle, "input", index), 0
    return _dims(om.inputs[index].name, om.inputs[index].dims, handle, "input", index), 0


@api("get_input_dims", "kk")
def get_input_dims(handle, index):
    """({name, dimCount, dims}, ret); -1 where dynamic; {} with an error."""
    return _input_dims(handle, index)


@api("get_input_dims_v2", "kk")
def get_input_dims_v2(handle, index):
    """The same; for models with static AIPP what the program has to give, too."""
    return _input_dims(handle, index)


def _output_dims(handle, index, gear):
    om = om_of(handle)
    if om is None:
        return {}, errors.INVALID_PARAM
    if index >= len(om.outputs):
        return {}, _bad_index(index, len(om.outputs))
    dims = om.output_dims(om.largest if gear is None else gear)[index]
    return _dims(om.outputs[index].name, dims, handle, "output", index), 0


@api("get_output_dims", "kk")
def get_output_dims(handle, index):
    """({name, dimCount, dims}, ret) of the largest gear."""
    return _output_dims(handle, index, None)


@api("get_cur_output_dims", "kk")
def get_cur_output_dims(handle, index):
    """The same of the gear that was set last."""
    desc = find(handle, Desc, "modelDesc")
    if desc is None:
        return {}, errors.INVALID_PARAM
    model = MODELS.get(desc.model_id)
    if model is None:
        loaded(desc.model_id)
        return {}, code_of("id")
    return _output_dims(handle, index, model.gear)


def _tensor(handle, index, side):
    om = om_of(handle)
    if om is None:
        return None
    tensors = getattr(om, side)
    if side == "inputs" and _is_index(om, index):
        return engine.Tensor(
            {"name": engine.MBATCH_NAME, "dtype": engine.INT32, "format": engine.ND, "dims": om.index_dims}
        )
    if index >= len(tensors):
        _bad_index(index, len(tensors))
        return None
    return tensors[index]


def _property(name, side, field, missing):
    @api(name, "kk")
    def get(handle, index):
        """One property (no ret)."""
        tensor = _tensor(handle, index, side)
        return missing if tensor is None else getattr(tensor, field)

    return get


for _side in ("input", "output"):
    _property("get_{}_name_by_index".format(_side), _side + "s", "name", "")
    _property("get_{}_format".format(_side), _side + "s", "format", -1)
    _property("get_{}_data_type".format(_side), _side + "s", "type", -1)


def _index(handle, name, names):
    om = om_of(handle)
    if om is None:
        return 0, errors.INVALID_PARAM
    known = names(om)
    if name in known:
        return known.index(name), 0
    return 0, errors.value(name, "name", "the model has no tensor of that name")


@api("get_input_index_by_name", "ks")
def get_input_index_by_name(handle, name):
    """(index, ret); (0, 100000) for a name that is not there."""
    extra = [engine.MBATCH_NAME]
    return _index(
        handle, name, lambda om: [tensor.name for tensor in om.inputs] + (extra if om.gears else [])
    )


@api("get_output_index_by_name", "ks")
def get_output_index_by_name(handle, name):
    """(index, ret); (0, 100000) for a name that is not there."""
    return _index(handle, name, lambda om: [tensor.name for tensor in om.outputs])


@api("get_dynamic_batch", "k")
def get_dynamic_batch(handle):
    """({batchCount, batch}, ret); no batch for a model that is not dynamic."""
    om = om_of(handle)
    if om is None:
        return {}, errors.INVALID_PARAM
    gears = [gear[0] for gear in om.gears] if om.kind == "batch" else []
    return {"batchCount": len(gears), "batch": gears}, 0


@api("get_dynamic_hw", "kk")
def get_dynamic_hw(handle, _index_ignored):
    """({hwCount, hw: [[height, width], …]}, ret)."""
    om = om_of(handle)
    if om is None:
        return {}, errors.INVALID_PARAM
    gears = [list(gear) for gear in om.gears] if om.kind == "image" else []
    return {"hwCount": len(gears), "hw": gears}, 0


@api("get_input_dynamic_gear_count", "kk")
def get_input_dynamic_gear_count(handle, _index_ignored):
    """(gears, ret) of a model with dynamic dims."""
    om = om_of(handle)
    if om is None:
        return 0, errors.INVALID_PARAM
    return (len(om.gears) if om.kind == "dims" else 0), 0


@api("get_input_dynamic_dims", "kkk")
def get_input_dynamic_dims(handle, _index_ignored, count):
    """([{name, dimCount, dims}, …], ret): per gear the dims of all inputs, one after the other."""
    if count > _GEAR_LIMIT:
        return None, errors.INVALID_PARAM
    om = om_of(handle)
    if om is None:
        return [None] * count, errors.INVALID_PARAM
    gears = om.input_dims if om.kind == "dims" else []
    if count < len(gears):
        return [None] * count, errors.value(count, "gearCount", "the model has {} gears".format(len(gears)))
    entries = []
    for gear in range(count):
        dims = [dim for shape in gears[gear] for dim in shape] if gear < len(gears) else []
        entries.append({"name": "", "dimCount": len(dims), "dims": dims})
    return entries, 0


@api("get_input_dims_range", "kk", since="8.0")
def get_input_dims_range(handle, index):
    """({rangeCount, range}, ret): ranges exist for models with a free shape only, which ATC does not build
    here."""
    om = om_of(handle)
    empty = {"rangeCount": 0, "range": []}
    if om is None:
        return empty, errors.INVALID_PARAM
    return (empty, 0) if index < _count_inputs(om) else (empty, _bad_index(index, _count_inputs(om)))


@short("get_op_attr", "kss")
def get_op_attr(handle, _operator, _attribute):
    """An attribute kept by ATC: none."""
    om_of(handle)
    return ""


@short("get_tensor_real_name", "ks")
def get_tensor_real_name(handle, name):
    """The name in full of a tensor whose name get_input_dims shortened; None if there is no such."""
    om = om_of(handle)
    if om is None:
        return None
    desc = find(handle, Desc, "modelDesc")
    for side, tensors in (("input", om.inputs), ("output", om.outputs)):
        for index, tensor in enumerate(tensors):
            if name in (tensor.name, "acl_modelId_{}_{}_{}".format(desc.model_id, side, index)):
                return tensor.name
    return None
