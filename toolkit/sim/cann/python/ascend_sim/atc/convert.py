"""From an ONNX model and ATC's options to an om."""

from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

import onnx
from onnx import TensorProto, helper

from .. import board as boards
from .. import omfile
from . import aipp as aipps
from . import aipp_graph, onnx_model, precision, signature
from . import graph as graphs
from . import shapes as shaping
from .errors import AtcError

OUTPUT_TYPES = {
    "FP32": TensorProto.FLOAT, "FP16": TensorProto.FLOAT16, "UINT8": TensorProto.UINT8,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16, "UINT16": TensorProto.UINT16, "INT32": TensorProto.INT32,
    "UINT32": TensorProto.UINT32, "INT64": TensorProto.INT64, "UINT64": TensorProto.UINT64,
    "DOUBLE": TensorProto.DOUBLE,
}  # fmt: skip
_HALF_INPUT = "atc_fp16_input_"


class Options(NamedTuple):
    """What the command line decided; ``shapes`` and ``gears`` as from :func:`shapes.check`."""

    model: str
    shapes: Dict[str, List[int]]
    gears: Optional[shaping.Gears]
    input_format: str
    insert_op_conf: str
    out_nodes: str
    output_type: str
    input_fp16_nodes: Tuple[str, ...]
    keep_dtype: str
    policy: precision.Policy
    soc_version: str
    version: str
    cmdline: str
    name: str


class Result(NamedTuple):
    """The om's two parts, and how often a pass did something, for fusion_result.json."""

    meta: Dict[str, Any]
    model: bytes
    passes: Dict[str, int]


def convert(options: Options) -> Result:
    """Do the conversion; raises AtcError."""
    model = onnx_model.load(options.model)
    graph = model.graph
    del graph.value_info[:]
    _choose_outputs(graph, options.out_nodes)
    shapes = _input_shapes(model, options)
    order = [value.name for value in graph.input]
    output_names = signature.output_names(graph)
    tensors = [value.name for value in graph.output]
    opset = onnx_model.opset(model)
    values = onnx_model.infer(model, shapes)
    largest = _check_gears(model, shapes, order, options.gears, values)

    for name in options.input_fp16_nodes:
        if name not in order:
            raise AtcError("E10017" if name in _node_names(graph) else "E10016", name, "input_fp16_nodes")
    _check_keep_dtype(graph, options)
    inputs = [signature.describe_input(name, values[name], options.input_format) for name in order]
    infos = _insert_aipp(model, options, shapes, order, opset, inputs, largest)
    exact = {name for node in graph.node if node.name.startswith(aipp_graph.PREFIX) for name in node.output}
    for name in options.input_fp16_nodes:
        _half_input(model, name, opset)
        inputs[order.index(name)]["dtype"] = signature.ACL_TYPES[TensorProto.FLOAT16][0]

    folded = precision.fold_batch_normalisation(graph)
    types = {
        name: (value.type, None if value.dims is None else len(value.dims)) for name, value in values.items()
    }
    for node in graph.node:
        if node.name.startswith(aipp_graph.PREFIX):
            types.update({name: (TensorProto.FLOAT, 4) for name in node.output})
        elif node.name.startswith(_HALF_INPUT):
            types.update({name: types[node.input[0]] for name in node.output})
    for name in [name for node in graph.node if node.name.startswith(_HALF_INPUT) for name in node.output]:
        exact.add(name)
    rounded = precision.apply(graph, opset, options.policy, types, exact)
    produced = _set_output_types(graph, options.output_type, values, output_names)

    outputs = signature.describe_outputs(
        produced, [values[name] for name in tensors], output_names, options.input_format
    )
    _declare(graph, shapes, outputs, infos)
    _drop_unused_constants(graph)
    weight_size = signature.aligned(
        sum(signature.weight_bytes(tensor, options.policy) for tensor in graph.initializer)
    )
    data = model.SerializeToString(deterministic=True)
    if any(dim < 0 for output in outputs for dim in output["dims"]) and options.gears is None:
        data = _measure_outputs(model, outputs, data)
    meta = {
        "name": options.name,
        "soc_version": options.soc_version,
        "atc_version": options.version,
        "cann_version": options.version,
        "framework": 5,
        "cmdline": options.cmdline,
        "precision": "fp32" if options.policy.name == "fp32" else "fp16",
        "inputs": inputs,
        "outputs": outputs,
        "onnx_inputs": order,
        "onnx_outputs": [value.name for value in graph.output],
        "dynamic": options.gears.describe() if options.gears else None,
        "aipp": infos[0] if infos else None,
        "aipp_all": infos,
        "work_size": signature.work_size(model, largest, options.policy),
        "weight_size": weight_size,
        "operators": signature.operator_counts(graph),
    }
    passes = {"ConvBatchnormFusionPass": folded, "ConstantFoldingPass": 0, "CastInsertPass": rounded}
    return Result(meta, data, {name: count for name, count in passes.items() if count})


def pack(result: Result) -> bytes:
    """Return the om's bytes."""
    return omfile.pack(result.meta, result.model)


def _choose_outputs(graph: onnx.GraphProto, out_nodes: str) -> None:
    """Apply --out_nodes (``node:index;...``, or the name of an output tensor) and drop what only others
    need.
    """
    if not out_nodes:
        return
    by_name = {node.name: node for node in graph.node}
    tensors = {name for node in graph.node for name in node.output}
    chosen = []
    for item in [part.strip() for part in out_nodes.split(";") if part.strip()]:
        name, colon, index = item.rpartition(":")
        if item in tensors:
            chosen.append(item)
        elif colon and index.isdigit() and name in by_name:
            outputs = by_name[name].output
            if int(index) >= len(outputs):
                raise AtcError("E11016", name, index, len(outputs), len(chosen), len(chosen) + 1)
            chosen.append(outputs[int(index)])
        else:
            raise AtcError("E10016", name if colon and index.isdigit() else item, "out_nodes")
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in chosen)
    for value in graph.output:
        # Which type it has is for the inference to say.
        value.type.tensor_type.elem_type = 0
    needed, kept = set(chosen), []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            needed.update(graphs.outer_uses(node))
            kept.append(node)
    graphs.replace_nodes(graph, kept[::-1])
    unused = [value.name for value in graph.input if value.name not in needed]
    inputs = [value for value in graph.input if value.name not in unused]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del graph.input[:]
    graph.input.extend(copies)


def _node_names(graph: onnx.GraphProto) -> Set[str]:
    """Names that mean a node: its own, or a tensor's that it makes."""
    return {node.name for node in graph.node} | {name for node in graph.node for name in node.output}


def _check_keep_dtype(graph: onnx.GraphProto, options: Options) -> None:
    """Names in --keep_dtype that are no nodes: an error before CANN 8, a line in the log from then on
    (hicann/ge keep_dtype_option.cc, and the same file of 2022). Types are not looked at: they are GE's there.
    """
    if boards.version_key(options.version) >= boards.version_key("8.0.RC1"):
        return
    names = {node.name for node in graph.node}
    missing = [name for name in options.policy.keep if not name.startswith("OpType::") and name not in names]
    if missing:
        shown = " ".join("op name:" + name for name in missing[:10]) + (" .." if len(missing) > 10 else "")
        plural = "" if len(missing) == 1 else "s"
        reason = "config file contains {} operator{} not in the graph, {}".format(len(missing), plural, shown)
        raise AtcError("E10003", options.keep_dtype, "keep_dtype", reason)


def _input_shapes(model: onnx.ModelProto, options: Options) -> Dict[str, List[int]]:
    """Return every input's dims: from --input_shape, else as the model declares them."""
    graph = model.graph
    inputs = {value.name: value for value in graph.input}
    for name in options.shapes:
        if name not in inputs:
            raise AtcError("E10017" if name in _node_names(graph) else "E10016", name, "input_shape")
    shapes = {}
    for name, value in inputs.items():
        declared = onnx_model.dims_of(value)
        if name in options.shapes:
            shapes[name] = list(options.shapes[name])
            if declared is not None and len(declared) != len(shapes[name]):
                raise AtcError("E10049", len(shapes[name]), len(declared))
        elif declared is None or -1 in declared:
            text = "{}:{}".format(name, ",".join(map(str, declared or [])))
            raise AtcError("E10011", text, -1)
        else:
            shapes[name] = declared
        if value.type.tensor_type.elem_type not in signature.ACL_TYPES:
            kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise AtcError("E10055", "input {} has data type {}".format(name, kind))
    return shapes


def _check_gears(
    model: onnx.ModelProto,
    shapes: Dict[str, List[int]],
    order: List[str],
    gears: Optional[shaping.Gears],
    static: Dict[str, onnx_model.Value],
) -> Dict[str, onnx_model.Value]:
    """Infer at each gear, as ATC compiles each; return the inference of the largest (or ``static``)."""
    if gears is None:
        return static
    best, most = {}, -1  # type: Dict[str, onnx_model.Value], int
    for profile in gears.profiles:
        values = onnx_model.infer(model, shaping.at_gear(shapes, order, gears, profile))
        elements = sum(signature.count(value.dims) for name, value in values.items() if name in shapes)
        if elements > most:
            best, most = values, elements
    return best


def _insert_aipp(
    model: onnx.ModelProto,
    options: Options,
    shapes: Dict[str, List[int]],
    order: List[str],
    opset: int,
    inputs: List[Dict[str, Any]],
    largest: Dict[str, onnx_model.Value],
) -> List[Dict[str, Any]]:
    """Insert every aipp_op; ``inputs`` (of the om) change with it."""
    if not options.insert_op_conf:
        return []
    ops = aipps.read(options.insert_op_conf)
    ranks = [op.get("related_input_rank", 0) for op in ops]
    if len(set(ranks)) != len(ranks):
        raise AtcError(
            "E10052",
            "Cannot insert aipp to the same position! Please ensure related_input_rank param is different in "
            "different aipp config",
        )
    infos = []
    for op, rank in zip(ops, ranks):
        if op.get("related_input_name"):
            reason = (
                "related_input_name {} convert rank failed, Please ensure it is caffe scene or "
                "related_input_name in "
                "aipp config is the top name of data node"
            )
            raise AtcError("E10052", reason.format(op["related_input_name"]))
        if rank >= len(order):
            raise AtcError(
                "E10052", "Cannot find the data node by aipp parameter related_input_rank {}".format(rank)
            )
        name = order[rank]
        if name in options.input_fp16_nodes:
            raise AtcError("E10034", name)
        dims = shapes[name]
        if len(dims) != 4 or options.input_format not in ("", "NCHW"):
            reason = "AIPP needs a 4-D input in NCHW, {} has {} dimensions and input_format is {}"
            raise AtcError("E10052", reason.format(name, len(dims), options.input_format or "NCHW"))
        image_gears = options.gears is not None and options.gears.kind == "image"
        aipp = aipps.resolve(op, dims[2], dims[3], dims[1], image_gears and -1 in dims)
        batch = dims[0]
        onnx_dims = aipp_graph.insert(model, name, aipp, opset, batch)
        reported, picture = aipp_graph.meta_dims(aipp, onnx_dims)
        biggest = list(largest[name].dims or dims)
        entry = inputs[rank]
        entry.update(
            {
                "dtype": signature.ACL_TYPES[TensorProto.UINT8][0],
                "format": signature.NHWC,
                "dims": reported,
                "onnx_dims": onnx_dims,
            }
        )
        # NV12 is not height x width x channels bytes, so the size of one batch is said, not left to be
        # computed.
        entry["size"] = biggest[0] * (picture or aipp.picture_bytes(biggest[2], biggest[3]))
        infos.append(aipps.describe(aipp, rank, name, dims, signature.NCHW, biggest[0]))
    return infos


def _half_input(model: onnx.ModelProto, name: str, opset: int) -> None:
    """--input_fp16_nodes: the user feeds float16."""
    graph = model.graph
    value = next(item for item in graph.input if item.name == name)
    if value.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise AtcError("E10055", "input {} is not of data type float32".format(name))
    rewriter = graphs.Rewriter(graph, opset, _HALF_INPUT)
    converted = rewriter.node("Cast", [name], to=TensorProto.FLOAT)
    graphs.rename_uses(graph.node, name, converted)
    value.type.tensor_type.elem_type = TensorProto.FLOAT16
    graphs.replace_nodes(graph, rewriter.nodes + list(graph.node))


def _set_output_types(
    graph: onnx.GraphProto, text: str, values: Dict[str, onnx_model.Value], names: List[str]
) -> List[int]:
    """Apply --output_type; return each output's ONNX element type."""
    types = [values[value.name].type or value.type.tensor_type.elem_type for value in graph.output]
    wanted = list(types)
    if ":" in text:
        for item in [part.strip() for part in text.split(";") if part.strip()]:
            node, _, kind = item.rpartition(":")
            matches = [
                index for index, name in enumerate(names) if name.startswith(node + ":") or name == node
            ]
            if kind not in OUTPUT_TYPES or not matches:
                reason = "The format is node:index:TYPE, node must be an output node of the model"
                raise AtcError("E10001", text, "--output_type", reason)
            for index in matches:
                wanted[index] = OUTPUT_TYPES[kind]
    elif text:
        wanted = [OUTPUT_TYPES[text]] * len(types)
    for index, value in enumerate(graph.output):
        if wanted[index] != types[index]:
            rewriter = graphs.Rewriter(graph, 0, "output_type_")
            converted = rewriter.node("Cast", [value.name], to=wanted[index])
            graph.node.extend(rewriter.nodes)
            value.name = converted
    return wanted


def _measure_outputs(model: onnx.ModelProto, outputs: List[Dict[str, Any]], data: bytes) -> bytes:
    """Fill in the dims that depend on data or that the inference did not know; ``outputs`` change."""
    names = [value.name for value in model.graph.output]
    measured = onnx_model.run_for_shapes(data, names)
    if measured is None:
        return data
    for output, name in zip(outputs, names):
        output["dims"] = list(measured[name])
    return data


def _declare(
    graph: onnx.GraphProto,
    shapes: Dict[str, List[int]],
    outputs: List[Dict[str, Any]],
    infos: List[Dict[str, Any]],
) -> None:
    """Write the fixed dims into the graph's inputs; outputs keep their type only where they are open."""
    by_aipp = {graph.input[info["related_input"]].name for info in infos}
    for value in graph.input:
        if value.name not in by_aipp:
            dims = [None if dim < 0 else dim for dim in shapes[value.name]]
            elem = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(value.name, elem, dims))
    elems = {acl: elem for elem, (acl, _) in signature.ACL_TYPES.items()}
    for value, output in zip(graph.output, outputs):
        known = output["dims"] if all(dim >= 0 for dim in output["dims"]) else None
        value.CopyFrom(helper.make_tensor_value_info(value.name, elems[output["dtype"]], known))


def _drop_unused_constants(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in graphs.outer_uses(node)} | {
        value.name for value in graph.output
    }
    for index in range(len(graph.initializer) - 1, -1, -1):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]
