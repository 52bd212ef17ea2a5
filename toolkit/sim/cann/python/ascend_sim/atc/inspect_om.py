"""Modes 6 and 1: show what is in an om, write an om or a model as JSON.

The block of mode 6 is that of hicann/ge ``PrintModelInfo``; sizes are those of this om's own parts.
"""

import json
from typing import Any, Dict, Tuple

from .. import omfile
from .errors import AtcError
from .paths import check_output

_FRAMEWORKS = {0: "Caffe", 1: "MindSpore", 3: "TensorFlow", 5: "Onnx"}


def _read(path: str) -> Tuple[Dict[str, Any], bytes]:
    try:
        return omfile.read(path)
    except (OSError, omfile.OmError) as error:
        raise AtcError("E10041", path, trace=(str(error),))


def display(path: str) -> str:
    """Return the block that ``--mode=6`` and ``--display_model_info=1`` print."""
    meta, model = _read(path)
    definition = len(
        json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    )
    return (
        "============ Display Model Info start ============\n"
        "Original Atc command line: {cmdline}\n"
        "system   info: atc_version[{atc_version}], soc_version[{soc_version}], framework_type[{kind}].\n"
        "resource info: memory_size[{work_size} B], weight_size[{weight_size} B], stream_num[1], "
        "event_num[0].\n"
        "om       info: modeldef_size[{definition} B], weight_data_size[{weights} B], tbe_kernels_size[0 B], "
        "cust_aicpu_kernel_store_size[0 B], task_info_size[0 B], so_store_size[0 B].\n"
        "============ Display Model Info end   ============\n"
    ).format(
        definition=definition, weights=len(model), kind=_FRAMEWORKS.get(meta.get("framework"), ""), **meta
    )


def om_to_json(path: str, target: str) -> None:
    """``--mode=1`` without --framework: the om's description as JSON."""
    meta, model = _read(path)
    keys = ("atc_version", "soc_version", "cmdline")
    content = {
        "name": meta["name"],
        "version": meta["cann_version"],
        "attr": [
            {"key": "atc_cmdline" if key == "cmdline" else key, "value": {"s": meta[key]}} for key in keys
        ],
        "atc_version": meta["atc_version"],
        "soc_version": meta["soc_version"],
        "cmdline": meta["cmdline"],
        "memory_size": meta["work_size"],
        "weight_size": meta["weight_size"],
        "inputs": meta["inputs"],
        "outputs": meta["outputs"],
        "dynamic": meta["dynamic"],
        "aipp": meta["aipp_all"],
        "graph": _graph(model),
    }
    _write(target, content)


def onnx_to_json(path: str, target: str) -> None:
    """``--mode=1 --framework=5``: the ONNX model as JSON, weights left out as ATC does."""
    from . import onnx_model

    model = onnx_model.load(path)
    for tensor in model.graph.initializer:
        for field in ("raw_data", "float_data", "int64_data", "int32_data", "double_data"):
            tensor.ClearField(field)
    _write(target, json.loads(_to_json(model)))


def _graph(model: bytes) -> Any:
    try:
        import onnx
    except ImportError:
        return []
    graph = onnx.load_from_string(model).graph
    return [
        {"name": graph.name, "op": [
            {"name": node.name, "type": node.op_type, "input": list(node.input), "output": list(node.output)}
            for node in graph.node
        ]}
    ]  # fmt: skip


def _to_json(message: Any) -> str:
    from google.protobuf import json_format

    return str(json_format.MessageToJson(message))


def _write(target: str, content: Any) -> None:
    check_output(target, "--json")
    try:
        with open(target, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=4, sort_keys=True, ensure_ascii=False)
            stream.write("\n")
    except OSError as error:
        raise AtcError("E13004", target, error.strerror)
