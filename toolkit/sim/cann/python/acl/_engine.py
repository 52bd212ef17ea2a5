"""Running an om's model with ONNX Runtime, directly on the "device memory".

ONNX Runtime and NumPy are imported at the first load, so that ``import acl`` stays quick. There is one
session per loaded model; inputs and outputs are bound to the addresses that the program gave, nothing is
copied on the way.
"""

import os
import threading

from . import _memory as memory

MBATCH_NAME = "ascend_mbatch_shape_data"
DYNAMIC_AIPP_NAME = "ascend_dynamic_aipp_data"
INT32, ND = 3, 2

# aclDataType → (NumPy type, bytes)
TYPES = {
    0: ("float32", 4), 1: ("float16", 2), 2: ("int8", 1), 3: ("int32", 4), 4: ("uint8", 1), 6: ("int16", 2),
    7: ("uint16", 2), 8: ("uint32", 4), 9: ("int64", 8), 10: ("uint64", 8),
    11: ("float64", 8), 12: ("bool", 1),
}  # fmt: skip
_ONNX_TYPES = {
    "tensor(float)": 0, "tensor(float16)": 1, "tensor(int8)": 2, "tensor(int32)": 3, "tensor(uint8)": 4,
    "tensor(int16)": 6, "tensor(uint16)": 7, "tensor(uint32)": 8, "tensor(int64)": 9, "tensor(uint64)": 10,
    "tensor(double)": 11, "tensor(bool)": 12,
}  # fmt: skip


class BadModel(ValueError):
    """The om opens, but what is in it cannot run."""


def threads():
    """Return the number of threads for one operator: ``ACL_SIM_THREADS``, or the machine's cores."""
    try:
        return max(1, int(os.environ.get("ACL_SIM_THREADS", "")))
    except ValueError:
        return os.cpu_count() or 1


def product(dims):
    """Number of elements of a fixed shape."""
    count = 1
    for dim in dims:
        count *= dim
    return count


class Tensor(object):
    """One input or output as the om describes it; -1 in ``dims`` is dynamic.

    ``shape`` is what the graph takes: the same, but for YUV420SP pictures, whose ``dims`` show one channel of the
    full height while half as many bytes again follow.
    """

    __slots__ = ("dims", "format", "itemsize", "name", "shape", "type")

    def __init__(self, entry):
        try:
            self.name, self.type = str(entry["name"]), int(entry["dtype"])
            self.format, self.dims = int(entry["format"]), [int(dim) for dim in entry["dims"]]
            self.shape = [int(dim) for dim in entry.get("onnx_dims") or self.dims]
            self.itemsize = TYPES[self.type][1]
        except (KeyError, TypeError, ValueError) as error:
            raise BadModel("tensor description {!r}: {!r}".format(entry, error))


class Om(object):
    """An om that was opened: its signature, its gears, and (when asked) a session."""

    def __init__(self, meta, onnx):
        try:
            self.name = str(meta.get("name", ""))
            self.inputs = [Tensor(entry) for entry in meta["inputs"]]
            self.outputs = [Tensor(entry) for entry in meta["outputs"]]
            self.onnx_inputs = [str(name) for name in meta["onnx_inputs"]]
            self.onnx_outputs = [str(name) for name in meta["onnx_outputs"]]
            self.work_size, self.weight_size = int(meta.get("work_size", 0)), int(meta.get("weight_size", 0))
            dynamic = meta.get("dynamic")
            self.kind = dynamic["kind"] if dynamic else ""
            self.gears = [_gear(self.kind, gear) for gear in dynamic["gears"]] if dynamic else []
        except (KeyError, TypeError, ValueError) as error:
            raise BadModel("model definition: {!r}".format(error))
        # Static AIPP by input; "aipp" alone is what there was when only the first was kept.
        infos = meta.get("aipp_all") or ([meta["aipp"]] if meta.get("aipp") else [])
        self.aipp = {int(info.get("related_input", 0)): info for info in infos}
        self.soc_version, self.cann_version = (
            str(meta.get("soc_version", "")),
            str(meta.get("cann_version", "")),
        )
        self._onnx = onnx
        self._session = None
        self._lock = threading.RLock()
        self._output_dims = {}
        self._binding = None
        self._bound = {}
        self.input_dims = [self._fixed(gear) for gear in self.gears] or [
            [tensor.shape for tensor in self.inputs]
        ]
        if any(dim < 0 for shapes in self.input_dims for dims in shapes for dim in dims):
            raise BadModel("dynamic axes without a gear for them")
        if self.gears and self.kind not in ("batch", "image", "dims"):
            raise BadModel("dynamic kind {!r}".format(self.kind))
        volumes = [sum(product(dims) for dims in shapes) for shapes in self.input_dims]
        self.largest = volumes.index(max(volumes)) if volumes else 0

    def _fixed(self, gear):
        """The shapes of all inputs in one gear."""
        values = iter(gear)
        shapes = []
        for tensor in self.inputs:
            try:
                if self.kind == "batch":
                    shapes.append([gear[0] if dim < 0 else dim for dim in tensor.shape])
                elif self.kind == "image" and any(dim < 0 for dim in tensor.shape):
                    # One size for all pictures.
                    size = iter(gear)
                    shapes.append([next(size) if dim < 0 else dim for dim in tensor.shape])
                else:
                    shapes.append([next(values) if dim < 0 else dim for dim in tensor.shape])
            except StopIteration:
                raise BadModel("gear {} is too short for the dynamic axes".format(gear))
        return shapes

    @property
    def index_dims(self):
        """Shape of the additional input that tells the gear, or None for a static model."""
        return [len(self.gears[0])] if self.gears else None

    def input_size(self, index):
        """Bytes of an input, in the largest gear."""
        if index == len(self.inputs) and self.gears:
            return 4 * self.index_dims[0]
        return max(product(shapes[index]) for shapes in self.input_dims) * self.inputs[index].itemsize

    def output_dims(self, gear):
        """Shapes of all outputs in one gear."""
        known = self._output_dims.get(gear)
        if known is None:
            known = [list(tensor.dims) for tensor in self.outputs]
            if any(dim < 0 for dims in known for dim in dims):
                known = self._try_out(gear)
            self._output_dims[gear] = known
        return known

    def _try_out(self, gear):
        """Only the graph knows how an output follows the gear: run it once on zeros."""
        import numpy

        session = self.session()
        feed = {}
        for name, tensor, dims in zip(self.onnx_inputs, self.inputs, self.input_dims[gear]):
            feed[name] = numpy.zeros(dims, TYPES[tensor.type][0])
        return [list(array.shape) for array in session.run(self.onnx_outputs, feed)]

    def output_size(self, index, gear=None):
        """Bytes of an output, in one gear or the largest."""
        dims = self.output_dims(self.largest if gear is None else gear)[index]
        return product(dims) * self.outputs[index].itemsize

    def session(self):
        """Return the ONNX Runtime session, made at the first call; raises BadModel."""
        with self._lock:
            if self._session is None:
                import onnxruntime

                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = threads()
                options.log_severity_level = 3
                try:
                    session = onnxruntime.InferenceSession(
                        self._onnx, sess_options=options, providers=["CPUExecutionProvider"]
                    )
                except Exception as error:  # ONNX Runtime has a class of its own for each cause
                    raise BadModel("ONNX Runtime: {}".format(str(error).strip().split("\n")[0]))
                self._check(session)
                self._session, self._onnx = session, b""
            return self._session

    def _check(self, session):
        for names, tensors, nodes in (
            (self.onnx_inputs, self.inputs, session.get_inputs()),
            (self.onnx_outputs, self.outputs, session.get_outputs()),
        ):
            types = {node.name: _ONNX_TYPES.get(node.type) for node in nodes}
            for name, tensor in zip(names, tensors):
                if types.get(name, -1) != tensor.type:
                    raise BadModel("tensor {} is not of data type {} in the graph".format(name, tensor.type))

    def close(self):
        """Drop the session."""
        with self._lock:
            self._session, self._binding, self._bound = None, None, {}
            self._onnx = b""

    def run(self, gear, sources, targets):
        """Run in ``gear`` (0 for a static model).

        ``sources``, ``targets``: ``(address, bytes that may be touched)`` per input and output. Raises what
        ONNX Runtime raises.
        """
        with self._lock:
            session = self.session()
            if self._binding is None:
                self._binding = session.io_binding()
            afterwards = []
            spans = [(address, address + safe) for address, safe in targets]
            for name, tensor, dims, (address, safe) in zip(
                self.onnx_inputs, self.inputs, self.input_dims[gear], sources
            ):
                size = product(dims) * tensor.itemsize
                if (
                    safe < size
                    or address % tensor.itemsize
                    or any(start < address + size and address < end for start, end in spans)
                ):
                    address = self._aside(afterwards, tensor, dims, address, min(safe, size))
                self._bind(self._binding.bind_input, name, tensor, dims, address)
            copies = []
            for name, tensor, dims, (address, safe) in zip(
                self.onnx_outputs, self.outputs, self.output_dims(gear), targets
            ):
                size = product(dims) * tensor.itemsize
                if safe < size or address % tensor.itemsize:
                    beside = self._aside(afterwards, tensor, dims, 0, 0)
                    copies.append((address, beside, min(safe, size)))
                    address = beside
                self._bind(self._binding.bind_output, name, tensor, dims, address)
            session.run_with_iobinding(self._binding)
            for address, beside, size in copies:
                memory.move(address, beside, size)

    def _bind(self, bind, name, tensor, dims, address):
        key = (address, tuple(dims))
        if self._bound.get(name) != key:
            bind(name, "cpu", 0, _numpy_type(tensor.type), dims, address)
            self._bound[name] = key

    @staticmethod
    def _aside(keep, tensor, dims, address, size):
        """Return the address of a zeroed tensor with the first ``size`` bytes from ``address``."""
        import numpy

        array = numpy.zeros(dims, TYPES[tensor.type][0])
        keep.append(array)
        if size:
            memory.move(array.ctypes.data, address, size)
        return array.ctypes.data


_numpy_types = {}


def _numpy_type(acl_type):
    found = _numpy_types.get(acl_type)
    if found is None:
        import numpy

        found = _numpy_types[acl_type] = numpy.dtype(TYPES[acl_type][0]).type
    return found


def _gear(kind, gear):
    return [int(gear)] if kind == "batch" else [int(value) for value in gear]
