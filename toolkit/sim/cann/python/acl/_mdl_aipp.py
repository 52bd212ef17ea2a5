"""acl.mdl: AIPP and dump (hicann/runtime ``python/pyACL/mdl/mdl_wrap.cpp``, hicann/ge ``acl_aipp.cpp``).

Static AIPP is in the om's graph; ATC put it there. Dynamic AIPP is not simulated: the setters check and
keep their values, and binding them to a model answers that it has no dynamic AIPP, as hardware does for a
model without.
"""

from . import _errors as errors
from ._args import Registry
from ._mdl_load import code_of, loaded
from ._mdl_run import Dataset
from ._state import Handle, State, find
from ._top import read_dump

api = Registry("acl.mdl", "!")
short = Registry("acl.mdl")

WITHOUT, STATIC = 0, 1
_NO_INDEX = 0xFFFFFFFF

_INTEGERS = (
    "cscSwitch matrixR0C0 matrixR0C1 matrixR1C0 matrixR1C1 matrixR1C2 matrixR2C2 outputBias0 "
    "outputBias1 outputBias2 inputBias0 inputBias1 inputBias2 rbuvSwapSwitch axSwapSwitch "
    "singleLineMode srcImageSizeW srcImageSizeH srcFormat srcDatatype srcDimNum shapeCount inputFormat "
    "aippExtend cropSwitch loadStartPosW loadStartPosH cropSizeW cropSizeH resizeSwitch resizeOutputW "
    "resizeOutputH paddingSwitch leftPaddingSize rightPaddingSize topPaddingSize bottomPaddingSize "
    "meanChn0 meanChn1 meanChn2 meanChn3"
).split()
_FLOATS = "minChn0 minChn1 minChn2 minChn3 varReciChn0 varReciChn1 varReciChn2 varReciChn3".split()


@api("get_first_aipp_info", "Ik")
def get_first_aipp_info(model_id, index):
    """(dict or None, ret): the static AIPP of an input; 145015 if it has none."""
    model = loaded(model_id)
    if model is None:
        return None, code_of("id")
    aipp = model.om.aipp.get(index)
    if aipp is None:
        return None, errors.inner(errors.GE_AIPP_NOT_EXIST, "Input {} has no AIPP.".format(index))
    info = dict.fromkeys(_INTEGERS, 0)
    info.update(dict.fromkeys(_FLOATS, 0.0))
    info["outDims"] = []
    info.update((key, value) for key, value in aipp.items() if key != "related_input")
    return info, 0


@api("get_aipp_type", "Ik")
def get_aipp_type(model_id, index):
    """(0 without | 1 static, index of the dynamic AIPP's input, ret)."""
    model = loaded(model_id)
    if model is None:
        return WITHOUT, 0, code_of("id")
    if index >= len(model.om.inputs):
        return (
            WITHOUT,
            0,
            errors.value(index, "index", "it must be smaller than {}".format(len(model.om.inputs))),
        )
    return (STATIC if index in model.om.aipp else WITHOUT), _NO_INDEX, 0


class Aipp(Handle):
    """Parameters of a dynamic AIPP."""

    kind = "AIPP"

    def __init__(self, batch):
        Handle.__init__(self)
        self.batch = batch
        self.values = {}


@api("create_aipp", "K")
def create_aipp(batch):
    """A handle, 0 for a batch of 0 (no ret)."""
    if not 0 < batch <= 127:
        errors.value(batch, "batchSize", "it must be 1 to 127")
        return 0
    return Aipp(batch).handle


@api("destroy_aipp", "k")
def destroy_aipp(handle):
    """Destroy it."""
    aipp = find(handle, Aipp, "aippParmsSet")
    if aipp is None:
        return errors.INVALID_PARAM
    aipp.drop()
    return 0


def _setter(name, formats, check):
    per_batch = formats.endswith("K")

    @api(name, "k" + formats)
    def set_(handle, *values):
        """Set some parameters."""
        aipp = find(handle, Aipp, "aippParmsSet")
        if aipp is None:
            return errors.INVALID_PARAM
        if per_batch and values[-1] >= aipp.batch:
            return errors.value(values[-1], "batchIndex", "it must be smaller than {}".format(aipp.batch))
        if not check(*values):
            return errors.value(values, name, "a value is out of its range")
        aipp.values[name] = values
        return 0

    return set_


def _is_switch(value):
    return value in (0, 1)


_setter("set_aipp_input_format", "I", lambda value: 1 <= value <= 10)
_setter("set_aipp_csc_params", "bhhhhhhhhhBBBBBB", lambda switch, *rest: _is_switch(switch))
_setter("set_aipp_rbuv_swap_switch", "b", _is_switch)
_setter("set_aipp_ax_swap_switch", "b", _is_switch)
_setter("set_aipp_src_image_size", "ii", lambda width, height: 2 <= width <= 4096 and 1 <= height <= 4096)
_setter("set_aipp_crop_params", "biiiiK", lambda switch, *rest: _is_switch(switch) and min(rest) >= 0)
_setter("set_aipp_padding_params", "biiiiK", lambda switch, *rest: _is_switch(switch) and min(rest) >= 0)
_setter("set_aipp_dtc_pixel_mean", "hhhhK", lambda *rest: True)
_setter("set_aipp_dtc_pixel_min", "ffffK", lambda *rest: True)
_setter("set_aipp_pixel_var_reci", "ffffK", lambda *rest: True)


def _bind(model_id, dataset, _index, aipp):
    if find(dataset, Dataset, "dataset") is None or find(aipp, Aipp, "aippParmsSet") is None:
        return errors.INVALID_PARAM
    if loaded(model_id) is None:
        return code_of("id")
    return errors.inner(errors.GE_AIPP_NOT_EXIST, "The model has no dynamic AIPP.")


api("set_input_aipp", "Ikkk")(_bind)
api("set_aipp_by_input_index", "Ikkk")(_bind)


@short("get_aipp_data_size", "K", since="6.0")
def get_aipp_data_size(batch):
    """(bytes, ret) of the input for dynamic AIPP parameters: a head of 64 and 96 per picture."""
    if not 0 < batch <= 127:
        return 0, errors.value(batch, "batchSize", "it must be 1 to 127")
    return 64 + 96 * batch, 0


class _Dump(object):
    on = False


@api("init_dump")
def init_dump():
    """Start dumping; nothing is dumped here."""
    if not State.initialised:
        return errors.inner(errors.UNINITIALIZE, "acl.init was not called.")
    if _Dump.on:
        return errors.inner(errors.REPEAT_INITIALIZE, "dump is initialized repeatedly.")
    _Dump.on = True
    return 0


@api("set_dump", "|s")
def set_dump(path=""):
    """Read a dump configuration."""
    if not _Dump.on:
        return errors.inner(errors.UNINITIALIZE, "acl.mdl.init_dump was not called.")
    return read_dump(path)


@api("finalize_dump")
def finalize_dump():
    """Stop dumping."""
    if not _Dump.on:
        return errors.inner(errors.UNINITIALIZE, "acl.mdl.init_dump was not called.")
    _Dump.on = False
    return 0
