"""Precision: which operators compute in float16, and the rewriting that makes ONNX Runtime do so.

ATC computes in float16 by default, whatever the model says; inputs and outputs keep their type. Constants are
rounded once, here; each result is rounded by the nodes of :meth:`graph.Rewriter.round16`. The sums inside one
operator stay float32, as they do in the cube unit. Batch normalisation is folded into the convolution before
the weights are rounded, as ATC's ConvBatchnormFusionPass does.
"""

from typing import Any, Dict, NamedTuple, Optional, Set, Tuple

import numpy
import onnx
from onnx import TensorProto, numpy_helper

from . import graph as graphs

_LARGEST = 65504.0
CUBE = {
    "Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN", "Einsum",
}  # fmt: skip
# Kept in float32 by the mixed modes: sums over many values, and functions that grow fast.
_MIXED_KEEPS = {
    "Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Erf", "BatchNormalization",
    "InstanceNormalization", "LayerNormalization", "MeanVarianceNormalization", "ReduceSum", "ReduceMean",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare", "CumSum",
    "Sum", "Mean", "LpNormalization", "Softplus", "Sinh", "Cosh", "Tan",
}  # fmt: skip
# The results are some of the inputs' elements (or small exact numbers): rounded inputs give rounded results.
_EXACT = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Slice", "Split", "Gather",
    "GatherElements", "GatherND", "Identity", "Dropout", "Expand", "Tile", "Neg", "Abs", "Sign", "Min", "Max",
    "Where", "DepthToSpace", "SpaceToDepth", "ReduceMax", "ReduceMin", "TopK", "Relu", "MaxPool",
    "GlobalMaxPool",
    "MaxRoiPool", "MaxUnpool", "Clip", "Floor", "Ceil", "Round", "Compress", "ScatterElements", "ScatterND",
    "Scatter", "ReverseSequence", "Pad", "EyeLike", "OneHot", "ConstantOfShape", "Trilu",
}  # fmt: skip
# Monotone, element by element or by picking: rounding may as well come after them, so it does, which leaves
# Conv+Relu(+MaxPool) together for ONNX Runtime to fuse.
_COMMUTES = {
    "Relu",
    "MaxPool",
    "GlobalMaxPool",
    "Clip",
    "Identity",
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
}
# (operator, input) whose float constant is a parameter on the host or of higher precision in the operator.
_KEEP_CONSTANT = {
    ("Resize", 1), ("Resize", 2), ("Upsample", 1), ("QuantizeLinear", 1), ("DequantizeLinear", 1),
    ("BatchNormalization", 1), ("BatchNormalization", 2), ("BatchNormalization", 3), ("BatchNormalization",
    4),
    ("NonMaxSuppression", 3), ("NonMaxSuppression", 4), ("Dropout", 1), ("QLinearConv", 1), ("QLinearConv",
    4),
    ("QLinearConv", 6), ("QLinearMatMul", 1), ("QLinearMatMul", 4), ("QLinearMatMul", 6), ("Range", 0),
    ("Range", 1), ("Range", 2),
}  # fmt: skip
_HOST_SOURCES = {"Shape", "Size"}


class Policy(NamedTuple):
    """``name``: fp16, fp32, mixed, cube16 (only cube operators, results float16) or cube32 (results float32).

    ``keep``: names of nodes that stay float32 (--keep_dtype). ``clip``: finite weights beyond float16 become
    its largest number instead of infinity (--is_weight_clip).
    """

    name: str
    keep: Tuple[str, ...] = ()
    clip: bool = True

    def half_inputs(self, node: onnx.NodeProto) -> bool:
        """Whether the node reads float16."""
        if self.name == "fp32" or node.name in self.keep or "OpType::" + node.op_type in self.keep:
            return False
        if self.name == "fp16":
            return True
        if self.name == "mixed":
            return node.op_type not in _MIXED_KEEPS
        return node.op_type in CUBE

    def half_outputs(self, node: onnx.NodeProto) -> bool:
        """Whether the node writes float16."""
        return self.name != "cube32" and self.half_inputs(node)


POLICIES = {
    "": "fp16", "force_fp16": "fp16", "fp16": "fp16",
    "must_keep_origin_dtype": "fp32", "origin": "fp32", "force_fp32": "fp32",
    "cube_fp16in_fp32out": "cube32",
    "allow_fp32_to_fp16": "cube16",
    "allow_mix_precision": "mixed", "allow_mix_precision_fp16": "mixed", "mixed_float16": "mixed",
}  # type: Dict[str, str]  # fmt: skip
# The chips simulated here have no bfloat16 and no HiF8.
UNSUPPORTED_MODES = (
    "allow_mix_precision_bf16", "allow_fp32_to_bf16", "mixed_bfloat16", "cube_hif8", "mixed_hif8",
)  # fmt: skip


def fold_batch_normalisation(graph: onnx.GraphProto) -> int:
    """Fold BatchNormalization into the Conv before it; return how many."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    uses = count_uses(graph)
    makers = {name: node for node in graph.node for name in node.output}
    kept, folded = [], 0
    for node in graph.node:
        conv = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or not _foldable(conv, node, tensors, uses):
            kept.append(node)
            continue
        gamma, beta, mean, variance = [
            numpy_helper.to_array(tensors[name]).astype(numpy.float64) for name in node.input[1:5]
        ]
        scale = gamma / numpy.sqrt(variance + graphs.attribute(node, "epsilon", 1e-5))
        weights = numpy_helper.to_array(tensors[conv.input[1]])
        shape = (-1,) + (1,) * (weights.ndim - 1)
        bias = numpy.zeros(len(scale))
        if len(conv.input) > 2 and conv.input[2]:
            bias = numpy_helper.to_array(tensors[conv.input[2]]).astype(numpy.float64)
        folded += 1
        weights_name = _replace(graph, tensors, conv.input[1], weights * scale.reshape(shape), uses)
        old_bias = conv.input[2] if len(conv.input) > 2 else ""
        bias_name = _replace(
            graph, tensors, old_bias or conv.output[0] + "_bias", beta + (bias - mean) * scale, uses
        )
        del conv.input[1:]
        conv.input.extend([weights_name, bias_name])
        conv.output[0] = node.output[0]
    if folded:
        graphs.replace_nodes(graph, kept)
    return folded


def _foldable(
    conv: onnx.NodeProto, norm: onnx.NodeProto, tensors: Dict[str, Any], uses: Dict[str, int]
) -> bool:
    constants = list(norm.input[1:5]) + [name for name in conv.input[1:] if name]
    return (
        conv.op_type == "Conv"
        and uses.get(conv.output[0]) == 1
        and len([name for name in norm.output if name]) == 1
        and not graphs.attribute(norm, "training_mode", 0)
        and all(name in tensors and tensors[name].data_type == TensorProto.FLOAT for name in constants)
    )


def _replace(
    graph: onnx.GraphProto, tensors: Dict[str, Any], name: str, values: Any, uses: Dict[str, int]
) -> str:
    """Store float32 ``values`` under ``name``, or under a new name while another node reads that constant."""
    shared = uses.get(name, 0) > 1
    if name in tensors and not shared:
        tensors[name].CopyFrom(numpy_helper.from_array(values.astype(numpy.float32), name))
        return name
    taken = set(tensors) | graphs.names(graph)
    fresh, number = name, 0
    while fresh in taken:
        number += 1
        fresh = "{}_folded{}".format(name, number)
    if shared:
        uses[name] -= 1
    graph.initializer.append(numpy_helper.from_array(values.astype(numpy.float32), fresh))
    tensors[fresh] = graph.initializer[-1]
    return fresh


def count_uses(graph: onnx.GraphProto) -> Dict[str, int]:
    """Return how often each value is read; being an output of the graph counts."""
    uses = {}  # type: Dict[str, int]
    for node in graph.node:
        for name in graphs.outer_uses(node):
            uses[name] = uses.get(name, 0) + 1
    for value in graph.output:
        uses[value.name] = uses.get(value.name, 0) + 1
    return uses


def apply(
    graph: onnx.GraphProto,
    opset: int,
    policy: Policy,
    types: Dict[str, Tuple[int, Optional[int]]],
    exact: Set[str],
) -> int:
    """Rewrite ``graph`` after ``policy``; return how many results are rounded.

    ``types``: value -> (ONNX element type, rank or None). ``exact``: values that are rounded already (from
    AIPP); the nodes which make them are left alone.
    """
    if policy.name == "fp32":
        return 0
    pass_ = _Rounding(graph, opset, policy, types, exact)
    pass_.constants()
    return pass_.results()


class _Rounding:
    def __init__(
        self,
        graph: onnx.GraphProto,
        opset: int,
        policy: Policy,
        types: Dict[str, Tuple[int, Optional[int]]],
        exact: Set[str],
    ) -> None:
        self.graph, self.policy, self.types = graph, policy, types
        self.initializers = {tensor.name for tensor in graph.initializer}
        self.rewriter = graphs.Rewriter(graph, opset, "fp16_")
        self.uses = count_uses(graph)
        self.readers = {}  # type: Dict[str, List[onnx.NodeProto]]
        for node in graph.node:
            for name in graphs.outer_uses(node):
                self.readers.setdefault(name, []).append(node)
        self.before = exact
        self.host = self._host_values()
        self.rounded = set(self.initializers) | exact

    def is_float(self, name: str) -> bool:
        return self.types.get(name, (0, None))[0] == TensorProto.FLOAT

    def _host_values(self) -> Set[str]:
        """What is computed from shapes alone: ATC does that arithmetic while compiling, not in float16."""
        host = set()  # type: Set[str]
        for node in self.graph.node:
            inputs = [name for name in node.input if name]
            known = [name in host or name in self.initializers for name in inputs]
            if node.op_type in _HOST_SOURCES or (
                inputs and all(known) and any(name in host for name in inputs)
            ):
                host.update(node.output)
        return host

    def is_host(self, node: onnx.NodeProto) -> bool:
        return any(name in self.host for name in node.output)

    def constants(self) -> None:
        """Round the float constants that float16 operators read."""
        wanted, kept = set(), set()
        for node in self.graph.node:
            half = self.policy.half_inputs(node) and not self.is_host(node)
            for index, name in enumerate(node.input):
                if name in self.initializers and name not in self.before:
                    keep = (
                        not half
                        or (node.op_type, index) in _KEEP_CONSTANT
                        or node.op_type.startswith("QLinear")
                    )
                    (kept if keep else wanted).add(name)
        for tensor in list(self.graph.initializer):
            if tensor.name not in wanted or tensor.data_type != TensorProto.FLOAT:
                continue
            values = numpy_helper.to_array(tensor)
            if self.policy.clip:
                # Only finite numbers are clipped; an infinity in the model (a mask) stays one.
                values = numpy.where(numpy.isfinite(values), numpy.clip(values, -_LARGEST, _LARGEST), values)
            with numpy.errstate(over="ignore"):
                values = values.astype(numpy.float16).astype(numpy.float32)
            if tensor.name in kept:
                name = self.rewriter.name(tensor.name + "_fp16")
                self.graph.initializer.append(numpy_helper.from_array(values, name))
                for node in self.graph.node:
                    if self.policy.half_inputs(node) and not self.is_host(node):
                        for index, used in enumerate(node.input):
                            if used == tensor.name and (node.op_type, index) not in _KEEP_CONSTANT:
                                node.input[index] = name
                self.rounded.add(name)
            else:
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    def results(self) -> int:
        """Round the inputs and the results of float16 operators."""
        rewriter, count = self.rewriter, 0
        edges = {}  # type: Dict[str, str]
        late = set()  # type: Set[str]
        for node in list(self.graph.node):
            made_before = any(name in self.before for name in node.output)
            if made_before or self.is_host(node) or not self.policy.half_inputs(node):
                rewriter.nodes.append(node)
                continue
            for index, name in enumerate(node.input):
                if (
                    not name
                    or not self.is_float(name)
                    or name in self.rounded
                    or name in late
                    or name in self.host
                ):
                    continue
                if node.op_type == "QuantizeLinear":
                    continue
                if name not in edges:
                    edges[name] = rewriter.round16(name, self.types[name][1])
                    count += 1
                node.input[index] = edges[name]
            rewriter.nodes.append(node)
            if node.op_type == "DequantizeLinear":
                # Left whole, see _only_quantised.
                self.rounded.update(node.output)
                continue
            if not self.policy.half_outputs(node):
                continue
            through = any(name in late for name in node.input)
            for index, name in enumerate(node.output):
                if not name or not self.is_float(name):
                    continue
                if node.op_type in _EXACT and not through and self._exact_parameters(node):
                    self.rounded.add(name)
                elif self._postponed(name):
                    late.add(name)
                elif not self._only_quantised(name):
                    raw = rewriter.name(name + "_fp32")
                    node.output[index] = raw
                    rewriter.round16(raw, self.types[name][1], name)
                    self.rounded.add(name)
                    count += 1
        graphs.replace_nodes(self.graph, rewriter.nodes)
        return count

    def _postponed(self, name: str) -> bool:
        readers = self.readers.get(name, [])
        return (
            self.uses.get(name) == 1
            and len(readers) == 1
            and readers[0].op_type in _COMMUTES
            and self._exact_parameters(readers[0])
            and readers[0].input[0] == name
            and self.policy.half_outputs(readers[0])
        )

    def _only_quantised(self, name: str) -> bool:
        """What goes straight into QuantizeLinear keeps ONNX Runtime's integer kernels whole if nothing comes
        between.
        """
        readers = self.readers.get(name, [])
        return (
            bool(readers)
            and len(readers) == self.uses.get(name)
            and all(reader.op_type == "QuantizeLinear" for reader in readers)
        )

    @staticmethod
    def _exact_parameters(node: onnx.NodeProto) -> bool:
        """Attributes that put numbers of their own into the result: are they float16 numbers?"""
        for key in ("min", "max", "value"):
            number = graphs.attribute(node, key)
            if isinstance(number, float) and abs(number) < 3e38 and float(numpy.float16(number)) != number:
                return False
            if isinstance(number, TensorProto):
                return not numpy_helper.to_array(number).any()
        return True
