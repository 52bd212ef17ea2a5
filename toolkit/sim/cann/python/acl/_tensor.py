"""acl: tensor descriptions (hicann/runtime ``python/pyACL/py_init_acl.cpp``)."""

from . import _errors as errors
from ._args import Registry
from ._state import Handle, find
from ._top import data_type_size

api = Registry("acl")
NCHW, NHWC = 0, 1


class TensorDesc(Handle):
    """Type, shape and format of a tensor."""

    kind = "tensor description"

    def __init__(self, data_type, dims, format_):
        Handle.__init__(self)
        self.data_type, self.dims, self.format = data_type, list(dims), format_
        self.storage_dims, self.storage_format = list(dims), format_
        self.ranges = [[dim, dim] for dim in dims]
        self.name = ""

    def copy(self):
        """Return another one that says the same, for a dataset that owns it."""
        copy = TensorDesc(self.data_type, self.dims, self.format)
        copy.default = True  # not made by the program: no leak of its
        copy.storage_dims, copy.storage_format = list(self.storage_dims), self.storage_format
        copy.ranges, copy.name = [list(pair) for pair in self.ranges], self.name
        return copy

    @property
    def count(self):
        """Number of elements; 0 for an unknown shape."""
        product = 1
        for dim in self.dims:
            product *= max(dim, 0)
        return product


def _ints(values, name="argument 2"):
    if not isinstance(values, list):
        raise TypeError("{} is not list".format(name))
    if not all(isinstance(value, int) for value in values):
        raise TypeError("the list argument is not list of int")
    return values


@api("create_tensor_desc", "iOi")
def create_tensor_desc(data_type, dims, format_):
    """A handle (no ret)."""
    return TensorDesc(data_type, _ints(dims), format_).handle


@api("destroy_tensor_desc", "k")
def destroy_tensor_desc(handle):
    """Returns None."""
    desc = find(handle, TensorDesc, "desc")
    if desc is not None:
        desc.drop()


def _getter(name, value, missing):
    @api(name, "k")
    def get(handle):
        """One property; its null value for a null handle."""
        desc = find(handle, TensorDesc, "desc")
        return missing if desc is None else value(desc)

    return get


_getter("get_tensor_desc_type", lambda desc: desc.data_type, -1)
_getter("get_tensor_desc_format", lambda desc: desc.format, -1)
_getter("get_tensor_desc_size", lambda desc: desc.count * data_type_size(desc.data_type), 0)
_getter("get_tensor_desc_element_count", lambda desc: desc.count, 0)
_getter("get_tensor_desc_num_dims", lambda desc: len(desc.dims), 0)
_getter("get_tensor_desc_name", lambda desc: desc.name, "")


@api("get_tensor_desc_address", "k", message="acl.get_tensor_desc_address args parse failed!")
def get_tensor_desc_address(handle):
    """The address of a constant tensor's data: none here."""
    find(handle, TensorDesc, "desc")
    return 0


@api("get_tensor_desc_by_index", "kk", message="acl.get_tensor_desc_by_index args parse failed!")
def get_tensor_desc_by_index(handle, index):
    """The description itself."""
    return handle if find(handle, TensorDesc, "desc") is not None and index == 0 else 0


@api("get_tensor_desc_dim", "kk")
def get_tensor_desc_dim(handle, index):
    """One dimension, -1 when there is none."""
    return get_tensor_desc_dim_v2(handle, index)[0]


@api("get_tensor_desc_dim_v2", "kk")
def get_tensor_desc_dim_v2(handle, index):
    """(dimension, ret)."""
    desc = find(handle, TensorDesc, "desc")
    if desc is None:
        return -1, errors.INVALID_PARAM
    if index >= len(desc.dims):
        return -1, errors.value(index, "index", "it must be smaller than {}".format(len(desc.dims)))
    return desc.dims[index], 0


@api("get_tensor_desc_dim_range", "kkk", message="acl.get_tensor_desc_dim_range args parse failed!")
def get_tensor_desc_dim_range(handle, index, count):
    """([lowest, highest], ret) of one dimension."""
    desc = find(handle, TensorDesc, "desc")
    if desc is None or count > 4096:
        return None, errors.INVALID_PARAM
    if index >= len(desc.ranges) or count < 2:
        return None, errors.value(index, "index", "it must be smaller than {}".format(len(desc.ranges)))
    return list(desc.ranges[index]) + [0] * (count - 2), 0


@api("set_tensor_desc_name", "ks")
def set_tensor_desc_name(handle, name):
    """Returns None."""
    desc = find(handle, TensorDesc, "desc")
    if desc is not None:
        desc.name = name


def _setter(name, formats, change):
    @api(name, formats, message="acl.{} args parse failed!".format(name))
    def set_(handle, value):
        """Change one property."""
        desc = find(handle, TensorDesc, "desc")
        if desc is None:
            return errors.INVALID_PARAM
        change(desc, value)
        return 0

    return set_


_setter("set_tensor_format", "ki", lambda desc, value: setattr(desc, "storage_format", value))
_setter("set_tensor_storage_format", "ki", lambda desc, value: setattr(desc, "storage_format", value))
_setter("set_tensor_origin_format", "ki", lambda desc, value: setattr(desc, "format", value))
_setter("set_tensor_shape", "kO", lambda desc, value: setattr(desc, "storage_dims", list(_ints(value))))
_setter(
    "set_tensor_storage_shape", "kO", lambda desc, value: setattr(desc, "storage_dims", list(_ints(value)))
)
_setter("set_tensor_origin_shape", "kO", lambda desc, value: setattr(desc, "dims", list(_ints(value))))
_setter("set_tensor_dynamic_input", "ks", lambda desc, value: setattr(desc, "dynamic_input", value))
_setter("set_tensor_place_ment", "ki", lambda desc, value: setattr(desc, "placement", value))


def _pairs(values):
    if not isinstance(values, list) or not all(isinstance(pair, list) and len(pair) >= 2 for pair in values):
        raise TypeError("argument 2 is not list")
    return [list(_ints(pair)[:2]) for pair in values]


_setter("set_tensor_shape_range", "kO", lambda desc, value: setattr(desc, "ranges", _pairs(value)))
_setter("set_tensor_value_range", "kO", lambda desc, value: setattr(desc, "values", _pairs(value)))


@api("set_tensor_const", "kkk")
def set_tensor_const(handle, pointer, size):
    """Mark the tensor as constant."""
    desc = find(handle, TensorDesc, "desc")
    if desc is None or pointer == 0 or size == 0:
        return errors.INVALID_PARAM
    return 0


@api("trans_tensor_desc_format", "ki")
def trans_tensor_desc_format(handle, format_):
    """(new handle, ret): the same tensor in another format; NCHW and NHWC are known."""
    desc = find(handle, TensorDesc, "srcDesc")
    if desc is None:
        return 0, errors.INVALID_PARAM
    order = {(NCHW, NHWC): (0, 2, 3, 1), (NHWC, NCHW): (0, 3, 1, 2)}.get((desc.format, format_))
    if desc.format == format_:
        order = tuple(range(len(desc.dims)))
    if order is None or len(order) != len(desc.dims):
        return 0, errors.fail(
            errors.API_NOT_SUPPORT, "EH0006", "Format {} cannot be made of {}.".format(format_, desc.format)
        )
    return TensorDesc(desc.data_type, [desc.dims[axis] for axis in order], format_).handle, 0
