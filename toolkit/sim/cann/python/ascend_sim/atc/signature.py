"""The om's description of a model: names, types, formats, sizes."""

from typing import Any, Dict, List, Optional, Tuple

import onnx
from onnx import TensorProto

from . import graph as graphs
from . import onnx_model, precision
from .errors import AtcError

# ONNX element type -> acl data type, and the bytes of one element.
ACL_TYPES = {
    TensorProto.FLOAT: (0, 4),
    TensorProto.FLOAT16: (1, 2),
    TensorProto.INT8: (2, 1),
    TensorProto.INT32: (3, 4),
    TensorProto.UINT8: (4, 1),
    TensorProto.INT16: (6, 2),
    TensorProto.UINT16: (7, 2),
    TensorProto.UINT32: (8, 4),
    TensorProto.INT64: (9, 8),
    TensorProto.UINT64: (10, 8),
    TensorProto.DOUBLE: (11, 8),
    TensorProto.BOOL: (12, 1),
}
NCHW, NHWC, ND, NCDHW = 0, 1, 2, 30
_ALIGN = 512


def count(dims: Optional[Tuple[int, ...]]) -> int:
    """Return the number of elements; an open dimension counts as 1."""
    elements = 1
    for dim in dims or ():
        elements *= max(dim, 1)
    return elements


def aligned(size: int) -> int:
    """Round up to the size of a device memory block."""
    return -(-size // _ALIGN) * _ALIGN


def format_of(dims: List[int], input_format: str) -> int:
    """Return the acl format of a tensor."""
    if len(dims) == 4 and input_format in ("NCHW", ""):
        return NCHW
    return NCDHW if len(dims) == 5 and input_format == "NCDHW" else ND


def describe_input(name: str, value: onnx_model.Value, input_format: str) -> Dict[str, Any]:
    """Return the entry of one input; -1 for open dimensions."""
    dims = list(value.dims or ())
    return {
        "name": name,
        "dtype": ACL_TYPES[value.type][0],
        "format": format_of(dims, input_format),
        "dims": dims,
    }


def output_names(graph: onnx.GraphProto) -> List[str]:
    """Return the outputs' names as an om has them: ``node:index:tensor``."""
    makers = {name: (node.name, index) for node in graph.node for index, name in enumerate(node.output)}
    return [
        "{0[0]}:{0[1]}:{1}".format(makers.get(value.name, (value.name, 0)), value.name)
        for value in graph.output
    ]


def describe_outputs(
    types: List[int], values: List[onnx_model.Value], names: List[str], input_format: str
) -> List[Dict[str, Any]]:
    """Return the entries of the outputs, whose ONNX element types are ``types``; raises AtcError E10055."""
    outputs = []
    for name, elem, value in zip(names, types, values):
        if elem not in ACL_TYPES:
            raise AtcError("E10055", "output {} has data type {}".format(name, elem))
        dims = list(value.dims) if value.dims is not None else [-1]
        outputs.append(
            {
                "name": name,
                "dtype": ACL_TYPES[elem][0],
                "format": format_of(dims, input_format),
                "dims": dims,
            }
        )
    return outputs


def weight_bytes(tensor: TensorProto, policy: precision.Policy) -> int:
    """Return the bytes of a constant on the device: float16 unless the policy keeps float32."""
    size = ACL_TYPES.get(tensor.data_type, (0, 4))[1]
    if tensor.data_type == TensorProto.FLOAT and policy.name != "fp32":
        size = 2
    return count(tuple(tensor.dims)) * size


def work_size(model: onnx.ModelProto, values: Dict[str, onnx_model.Value], policy: precision.Policy) -> int:
    """Estimate device memory for activations: the most that is alive at once, aligned as memory blocks
    are.
    """
    last = {}  # type: Dict[str, int]
    nodes = list(model.graph.node)
    for position, node in enumerate(nodes):
        for name in graphs.outer_uses(node):
            last[name] = position
    constants = {tensor.name for tensor in model.graph.initializer}
    alive = most = 0
    sizes = {}  # type: Dict[str, int]
    for position, node in enumerate(nodes):
        for name in node.output:
            value = values.get(name)
            if value is None or name in constants:
                continue
            size = ACL_TYPES.get(value.type, (0, 4))[1]
            if value.type == TensorProto.FLOAT and policy.name == "fp16":
                size = 2
            sizes[name] = aligned(count(value.dims) * size)
            alive += sizes[name]
        most = max(most, alive)
        for name in set(graphs.outer_uses(node)):
            if last.get(name) == position:
                alive -= sizes.pop(name, 0)
    return max(most, _ALIGN)


def operator_counts(graph: onnx.GraphProto) -> Dict[str, int]:
    """Return how many nodes of each type there are, without those that round."""
    counts = {}  # type: Dict[str, int]
    for node in graph.node:
        if not node.name.startswith("fp16_"):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
