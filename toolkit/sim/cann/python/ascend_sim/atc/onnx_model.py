"""Reading an ONNX model: is it one that ATC takes, and what shapes flow through it."""

from typing import Dict, List, NamedTuple, Optional, Tuple

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, shape_inference

from . import graph as graphs
from .errors import AtcError
from .optypes import HIGHEST_OPSET, LOWEST_OPSET, SUPPORTED

# Constants up to this many elements take part in shape inference (Reshape's shape and the like).
_SMALL = 4096


class Value(NamedTuple):
    """A tensor as inferred: ONNX element type (0 unknown) and dims (None: rank unknown; -1: open
    dimension).
    """

    type: int
    dims: Optional[Tuple[int, ...]]


def load(path: str) -> onnx.ModelProto:
    """Read the model with its external weights.

    Raises AtcError: E13005 not a model, E16004 no graph, E16001 no input, E16005 several domains, E16002 an
    operator or opset without parser.
    """
    try:
        model = onnx.load(path)
    except (DecodeError, ValueError, TypeError, UnicodeDecodeError):
        raise AtcError("E13005", path)
    except (OSError, onnx.checker.ValidationError) as error:
        # The weights beside a model of more than 2 GB.
        raise AtcError("E13003", path, str(error).splitlines()[0])
    graph = model.graph
    if not model.HasField("graph") or not graph.node:
        # Bytes that happen to parse without a single field that ONNX knows.
        if not model.ir_version and not model.opset_import:
            raise AtcError("E13005", path)
        raise AtcError("E16004")
    _check_operators(model)
    _drop_weight_inputs(model)
    if not graph.input:
        raise AtcError("E16001", "input")
    for index, node in enumerate(graph.node):
        if not node.name:
            # As ATC's parser does; names are needed by --out_nodes and for the outputs' names.
            node.name = "{}_{}".format(node.op_type, index)
    graphs.constants_to_initializers(graph)
    return model


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set."""
    return next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))


def unsupported(model: onnx.ModelProto) -> List[Tuple[str, str]]:
    """Return (node name, type as the parser registry writes it: ``ai.onnx::11::Foo``) for what has no
    parser.
    """
    versions = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    wrong = []
    for node in model.graph.node:
        domain = node.domain or "ai.onnx"
        version = versions.get(domain, 0)
        known = domain == "ai.onnx" and node.op_type in SUPPORTED and LOWEST_OPSET <= version <= HIGHEST_OPSET
        if not known:
            wrong.append((node.name, "{}::{}::{}".format(domain, version, node.op_type)))
    return wrong


def _check_operators(model: onnx.ModelProto) -> None:
    if len(model.opset_import) != 1 and any(not node.domain for node in model.graph.node):
        raise AtcError("E16005", len(model.opset_import))
    wrong = unsupported(model)
    if wrong:
        trace = tuple(
            "No parser is registered for Op [{}, optype [{}]].".format(*entry) for entry in wrong[:20]
        )
        raise AtcError("E16002", wrong[0][1], trace=trace)


def _drop_weight_inputs(model: onnx.ModelProto) -> None:
    """Before IR version 4 every weight was an input, too; as plain constants they can be folded and
    rounded.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    if len(kept) != len(model.graph.input):
        copies = [onnx.ValueInfoProto() for _ in kept]
        for copy, value in zip(copies, kept):
            copy.CopyFrom(value)
        del model.graph.input[:]
        model.graph.input.extend(copies)
        model.ir_version = max(model.ir_version, 4)


def dims_of(value: onnx.ValueInfoProto) -> Optional[List[int]]:
    """Return the declared dims, -1 for open ones; None when even the rank is not declared."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else -1 for dim in tensor.shape.dim
    ]


def infer(model: onnx.ModelProto, shapes: Dict[str, List[int]]) -> Dict[str, Value]:
    """Infer type and dims of every value when the inputs have ``shapes`` (-1 open).

    Large weights take part by their shape only, which keeps a big model from being copied three times. Raises
    AtcError E19999 when the shapes contradict the graph.
    """
    source = model.graph
    graph = onnx.GraphProto(name=source.name or "graph")
    graph.node.extend(source.node)
    found = {}  # type: Dict[str, Value]
    for value in source.input:
        elem = value.type.tensor_type.elem_type
        dims = shapes[value.name]
        symbols = ["{}_{}".format(value.name, axis) if dim < 0 else dim for axis, dim in enumerate(dims)]
        graph.input.append(helper.make_tensor_value_info(value.name, elem, symbols))
        found[value.name] = Value(elem, tuple(dims))
    for tensor in source.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        found[tensor.name] = Value(tensor.data_type, tuple(tensor.dims))
        if size <= _SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    for value in source.output:
        graph.output.append(onnx.ValueInfoProto(name=value.name))
        graph.output[-1].type.tensor_type.elem_type = value.type.tensor_type.elem_type
    skeleton = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    try:
        inferred = shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx raises its own InferenceError, RuntimeError or ValueError, by version
        raise _inference_failed(str(error).strip().splitlines()[0])
    for value in list(inferred.graph.value_info) + list(inferred.graph.output):
        dims = dims_of(value)
        found[value.name] = Value(value.type.tensor_type.elem_type, None if dims is None else tuple(dims))
    _check_channels(source, found)
    return found


def _inference_failed(reason: str) -> AtcError:
    message = "[Call][InferShapeAndType] failed: {}".format(reason)
    return AtcError("E19999", message, trace=("GE GenerateOfflineModel execute failed.",))


def _check_channels(graph: onnx.GraphProto, found: Dict[str, Value]) -> None:
    """Compare what Conv and Gemm sum over, which onnx leaves to the runtime."""
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        left, right = [found.get(name, Value(0, None)).dims for name in node.input[:2]]
        if left is None or right is None or len(left) < 2 or len(right) < 2:
            continue
        if node.op_type == "Conv":
            have, want = left[1], right[1] * graphs.attribute(node, "group", 1)
        else:
            have = left[0 if graphs.attribute(node, "transA", 0) else 1]
            want = right[1 if graphs.attribute(node, "transB", 0) else 0]
        if have > 0 and want > 0 and have != want:
            raise _inference_failed("{}({}): {} channels for {}".format(node.name, node.op_type, have, want))


def run_for_shapes(model: bytes, names: List[str]) -> Optional[Dict[str, Tuple[int, ...]]]:
    """Find the outputs' dims by running the (static) model on zeros; None where ONNX Runtime is not
    installed.
    """
    try:
        import numpy
        import onnxruntime
    except ImportError:
        return None
    types = {"float": "float32", "double": "float64"}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feeds = {}
        for item in session.get_inputs():
            kind = item.type[len("tensor(") : -1]
            feeds[item.name] = numpy.zeros(item.shape, types.get(kind, kind))
        values = session.run(names, feeds)
    except Exception as error:  # whatever ONNX Runtime raises, the model can't be built
        first = str(error).strip().splitlines()[0]
        raise AtcError("E19999", "build graph failed: {}".format(first))
    return {name: tuple(value.shape) for name, value in zip(names, values)}


FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
