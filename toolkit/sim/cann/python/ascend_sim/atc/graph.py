"""Small helpers around an ONNX graph that is being rewritten."""

from typing import Any, Iterator, List, Optional, Sequence, Set

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
# Where a node keeps a constant, Squeeze and Unsqueeze take their axes from an input since opset 13.
_AXES_AS_INPUT = 13


class Rewriter:
    """Collects nodes and constants with names that the graph does not use yet; ``nodes`` is what was made."""

    def __init__(self, graph: onnx.GraphProto, opset: int, prefix: str) -> None:
        self.graph, self.opset, self.prefix = graph, opset, prefix
        self.nodes = []  # type: List[onnx.NodeProto]
        self._taken = names(graph)
        self._constants = {}  # type: Dict[Any, str]

    def name(self, hint: str) -> str:
        """Return a name that starts with ``hint`` and is new."""
        name, number = hint, 0
        while name in self._taken:
            number += 1
            name = "{}_{}".format(hint, number)
        self._taken.add(name)
        return name

    def constant(self, values: Any, dtype: Any, hint: str = "const") -> str:
        """Return an initializer holding ``values``; equal ones are shared."""
        array = numpy.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.name(self.prefix + hint)
            self.graph.initializer.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Append a node; return its (only) output."""
        output = output or self.name(self.prefix + kind.lower())
        self.nodes.append(
            helper.make_node(kind, list(inputs), [output], name=self.prefix + output, **attributes)
        )
        return output

    def round16(self, value: str, rank: Optional[int], output: str = "") -> str:
        """Append what rounds ``value`` (float32) to float16 and back.

        ONNX Runtime up to 1.15 takes Cast(float16)->Cast(float32) for superfluous and drops it, even with
        optimisation off; a float16 node between them, which costs nothing, keeps them. Reshape to the same
        shape is that node, or Unsqueeze and Squeeze where the rank is not known.
        """
        halves = self.node("Cast", [value], to=FLOAT16)
        if rank:
            kept = self.node("Reshape", [halves, self.constant([0] * rank, numpy.int64)])
            return self.node("Cast", [kept], output, to=FLOAT)
        if self.opset >= _AXES_AS_INPUT:
            axes = self.constant([0], numpy.int64)
            kept = self.node("Cast", [self.node("Unsqueeze", [halves, axes])], to=FLOAT)
            return self.node("Squeeze", [kept, axes], output)
        kept = self.node("Cast", [self.node("Unsqueeze", [halves], axes=[0])], to=FLOAT)
        return self.node("Squeeze", [kept], output, axes=[0])


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            for body in attribute.graphs:
                yield body


def names(graph: onnx.GraphProto) -> Set[str]:
    """Return every value name of the graph and of the graphs inside it."""
    found = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        found.update(node.input)
        found.update(node.output)
        for body in subgraphs(node):
            found |= names(body)
    return found


def outer_uses(node: onnx.NodeProto) -> List[str]:
    """Return what the node reads: its inputs, and what its bodies take from outside."""
    used = [name for name in node.input if name]
    for body in subgraphs(node):
        inside = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        for inner in body.node:
            used += [name for name in outer_uses(inner) if name not in inside]
            inside.update(inner.output)
        used += [value.name for value in body.output if value.name not in inside]
    return used


def rename_uses(nodes: Sequence[onnx.NodeProto], old: str, new: str) -> None:
    """Make every node (and body) that reads ``old`` read ``new``."""
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
        for body in subgraphs(node):
            rename_uses(body.node, old, new)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return an attribute's value, or ``default``."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initializers, so that the other passes need to know one kind of constant
    only.
    """
    kept = []
    for node in graph.node:
        tensor = _constant_value(node) if node.op_type == "Constant" and not node.domain else None
        if tensor is None:
            kept.append(node)
        else:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
    if len(kept) != len(graph.node):
        replace_nodes(graph, kept)


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Give the graph these nodes, which may be its own."""
    copies = [onnx.NodeProto() for _ in nodes]
    for copy, node in zip(copies, nodes):
        copy.CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)


def _constant_value(node: onnx.NodeProto) -> Optional[TensorProto]:
    for item in node.attribute:
        value = helper.get_attribute_value(item)
        if item.name == "value":
            copy = TensorProto()
            copy.CopyFrom(value)
            return copy
        if item.name in ("value_float", "value_floats"):
            return numpy_helper.from_array(numpy.array(value, numpy.float32))
        if item.name in ("value_int", "value_ints"):
            return numpy_helper.from_array(numpy.array(value, numpy.int64))
    return None
