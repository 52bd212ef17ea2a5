"""Models: loading, describing, running; dynamic gears; AIPP. The numbers are those of ONNX Runtime, bit
for bit.

PYDOC is hicann/runtime ``python/docs``,
    PYACL its ``python/pyACL``; GE is hicann/ge (``api/acl/acl_model``, the model
executor).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acl_support import (
    FLOAT,
    FLOAT16,
    INT8,
    INT32,
    INT64,
    NHWC,
    UINT8,
    conv_net,
    double_plus_one,
    graph,
    om_meta,
    omfile,
    reference,
    run_acl,
    write_simple,
)
from onnx import helper

X = np.array([[1, -2, 3.5, 0]], np.float32)
EP = {"run_mode": "EP"}


@pytest.mark.parametrize("board", [{}, EP])
def test_a_network_gives_what_onnx_runtime_gives(board: dict[str, Any], tmp_path: Path) -> None:
    """The promise of the simulator: the om's graph run by ONNX Runtime, through device memory."""
    onnx, meta = conv_net()
    omfile.write(tmp_path / "net.om", meta, onnx)
    picture = np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype("f")
    (tmp_path / "x.bin").write_bytes(picture.tobytes())
    got = run_acl("up()\nresult = infer('net.om', open('x.bin', 'rb').read())\ndown()", tmp_path, board)
    assert np.array_equal(
        np.frombuffer(got.result[0], "f").reshape(1, 10), reference(onnx, {"x": picture})[0]
    )
    assert got.problems == []


def many_types() -> tuple[bytes, dict[str, Any]]:
    inputs = [("h", FLOAT16, [2, 3]), ("b", INT8, [4]), ("i", INT32, [2]), ("u", UINT8, [3])]
    outputs = [
        ("h2", FLOAT16, [2, 3]),
        ("b2", INT32, [4]),
        ("i2", INT64, [2]),
        ("u2", UINT8, [3]),
        ("f", FLOAT, [3]),
    ]
    nodes = [
        helper.make_node("Add", ["h", "h"], ["h2"]), helper.make_node("Cast", ["b"], ["b2"], to=6),
        helper.make_node("Cast", ["i"], ["i2"], to=7), helper.make_node("Identity", ["u"], ["u2"]),
        helper.make_node("Cast", ["u"], ["f"], to=1),
    ]  # fmt: skip
    return graph(nodes, inputs, outputs), om_meta(inputs, outputs)


def test_several_inputs_and_outputs_of_many_types(tmp_path: Path) -> None:
    """PYDOC data types; sizes are products of dims and element size, without padding."""
    onnx, meta = many_types()
    omfile.write(tmp_path / "net.om", meta, onnx)
    feed = {
        "h": np.arange(6).reshape(2, 3).astype("float16"), "b": np.array([-128, -1, 0, 127], "int8"),
        "i": np.array([-(2**31), 2**31 - 1], "int32"), "u": np.array([0, 128, 255], "uint8"),
    }  # fmt: skip
    for name, array in feed.items():
        (tmp_path / name).write_bytes(array.tobytes())
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        result = {"out": infer("net.om", *[open(n, "rb").read() for n in "hbiu"]),
                  "types": [acl.mdl.get_input_data_type(desc, i) for i in range(5)],
                  "sizes": [acl.mdl.get_input_size_by_index(desc, i) for i in range(5)],
                  "out_types": [acl.mdl.get_output_data_type(desc, i) for i in range(6)],
                  "counts": [acl.mdl.get_num_inputs(desc), acl.mdl.get_num_outputs(desc)]}
        """,
        tmp_path,
    ).result
    for data, array in zip(got["out"], reference(onnx, feed), strict=True):
        assert data == array.tobytes()
    assert got["types"] == [FLOAT16, INT8, INT32, UINT8, -1]
    assert got["sizes"] == [12, 4, 8, 3, 0]
    assert got["out_types"] == [FLOAT16, INT32, INT64, UINT8, FLOAT, -1]
    assert got["counts"] == [4, 5]


def test_descriptions(tmp_path: Path) -> None:
    """PYACL mdl_wrap.cpp: bare ints and strings without ret; (dict, ret) for dims, {} with an error;
    128-byte names."""
    long = "n" * 140
    inputs, outputs = [(long, FLOAT, [1, 4])], [("y", FLOAT, [1, 4])]
    omfile.write(
        tmp_path / "net.om",
        om_meta(inputs, outputs),
        graph([helper.make_node("Relu", [long], ["y"])], inputs, outputs),
    )
    got = run_acl(
        """
        up()
        model, d = load("net.om"); m = acl.mdl
        result = [m.get_input_dims(d, 0), m.get_output_dims(d, 0), m.get_input_dims(d, 1),
            m.get_cur_output_dims(d, 7),
                  m.get_input_name_by_index(d, 0), m.get_output_name_by_index(d, 3), m.get_input_format(d, 0),
                  m.get_output_format(d, 9), m.get_input_index_by_name(d, "ascend_mbatch_shape_data"),
                  m.get_output_index_by_name(d, "y"), m.get_dynamic_batch(d), m.get_dynamic_hw(d, -1),
                  m.get_input_dynamic_gear_count(d, -1), m.get_num_inputs(0), m.get_input_dims(0, 0),
                  m.get_desc(d, 99), m.get_desc(0, model), m.destroy_desc(0), m.get_tensor_real_name(d, "y"),
                  m.get_op_attr(d, "a", "b"), m.get_first_aipp_info(model, 0), m.get_aipp_type(model, 0)]
        """,
        tmp_path,
    ).result
    dims = {"dimCount": 2, "dims": [1, 4]}
    assert got == [
        [{"name": "acl_modelId_1_input_0", **dims}, 0], [{"name": "y", **dims}, 0], [{}, 100000], [{},
            100000],
        long, "", 2, -1, [0, 100000], [0, 0], [{"batchCount": 0, "batch": []}, 0], [{"hwCount": 0,
            "hw": []}, 0],
        [0, 0], 0, [{}, 100000], 145003, 100000, 100000, "y", "", [None, 145015], [0, 0xFFFFFFFF, 0],
    ]  # fmt: skip


def test_every_way_to_load(tmp_path: Path) -> None:
    """PYDOC load_from_*: ids count up from 1, one per load; weights and work space in the program's
    memory."""
    write_simple(tmp_path / "net.om")
    got = run_acl(
        """
        up()
        free = acl.rt.get_mem_info(0)[0]
        data = open("net.om", "rb").read(); p, n = acl.util.bytes_to_ptr(data), len(data)
        work, weight, ret = acl.mdl.query_size("net.om")
        result = [(work, weight, ret), acl.mdl.query_size_from_mem(p, n), acl.mdl.load_from_file("net.om"),
                  free - acl.rt.get_mem_info(0)[0], acl.mdl.load_from_mem(p, n)]
        a, b = malloc(work), malloc(weight)
        free = acl.rt.get_mem_info(0)[0]
        result += [acl.mdl.load_from_file_with_mem("net.om", a, work, b, weight),
                   acl.mdl.load_from_mem_with_mem(p, n, a, work, b, weight), free - acl.rt.get_mem_info(0)[0],
                   acl.mdl.load_from_file_with_mem("net.om", a, work - 1, b, weight)]
        h = acl.mdl.create_config_handle()
        result += [acl.mdl.load_with_config(h), acl.mdl.set_config_opt(h, 1, 1), acl.mdl.set_config_opt(h,
            2, "net.om"),
                   acl.mdl.load_with_config(h), acl.mdl.destroy_config_handle(h), acl.mdl.unload(5),
                       acl.mdl.unload(5),
                   acl.mdl.load_from_file("net.om")]
        d = acl.mdl.create_desc()
        result += [acl.mdl.get_desc_from_file(d, "net.om"), acl.mdl.get_num_inputs(d),
                   acl.mdl.get_desc_from_mem(d, p, n), acl.mdl.get_output_size_by_index(d, 0)]
        """,
        tmp_path,
        {"cann_version": "8.0.0"},
    ).result
    assert got == [
        [4096, 1024, 0], [4096, 1024, 0], [1, 0], 5120, [2, 0], [3, 0], [4, 0], 0, [0, 145000],
        [0, 100000], 0, 0, [5, 0], 0, 0, 145003, [6, 0], 0, 1, 0, 16,
    ]  # fmt: skip


BAD = {
    "missing": (145002, 100003), "folder": (145002, 100003), "empty": (145000, 100014), "text": (145006,
        100014),
    "short": (145006, 100014), "cut": (145006, 100014), "longer": (145006, 100014), "other_chip": (500002,
        500002),
    "newer": (100012, 100012),
}  # fmt: skip


@pytest.mark.parametrize(("board", "column"), [({}, 0), ({"cann_version": "20.1"}, 1)])
def test_files_that_cannot_be_loaded(board: dict[str, Any], column: int, tmp_path: Path) -> None:
    """GE model_parser_base.cc: 145002 path, 145006 magic or length; older CANN has AscendCL's own codes.

    GE docs --soc_version: an om is for one chip; release notes: a newer om does not load on an older runtime.
    """
    whole = write_simple(tmp_path / "good.om", cann_version="20.0").read_bytes()
    (tmp_path / "folder").mkdir()
    contents = {"empty": b"", "text": b"hello" * 100, "short": whole[:99], "cut": whole[:-1]}
    contents["longer"] = whole + b"\0"
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    write_simple(tmp_path / "other_chip", soc_version="Ascend310P3")
    write_simple(tmp_path / "newer", cann_version="5.1.0")
    got = run_acl(
        f"""
        up()
        names = {list(BAD)}
        result = [[acl.mdl.load_from_file(n), acl.get_recent_err_msg(),
            acl.get_recent_err_msg()] for n in names]
        result.append(acl.mdl.load_from_file("good.om"))
        """,
        tmp_path,
        board,
    ).result
    assert [answer[0] for answer in got[:-1]] == [[0, codes[column]] for codes in BAD.values()]
    assert all(name in answer[1] and answer[2] is None for name, answer in zip(BAD, got, strict=False))
    assert got[-1] == [1, 0]


@pytest.mark.parametrize(("cann", "code"), [("20.2", 100011), ("5.0.0", 145003)])
def test_a_model_is_unloaded_once(cann: str, code: int, tmp_path: Path) -> None:
    """acl_base.h: ACL_ERROR_INVALID_MODEL_ID (100011) before GE's own code, 145003, came through."""
    write_simple(tmp_path / "net.om", cann_version="20.0")
    program = """
        up()
        model, ret = acl.mdl.load_from_file("net.om")
        result = [ret, acl.mdl.unload(model), acl.mdl.unload(model)]
        """
    assert run_acl(program, tmp_path, {"cann_version": cann}).result == [0, 0, code]


def test_newest_codes_for_a_wrong_chip_and_a_newer_om(tmp_path: Path) -> None:
    """ge_error_codes.h: 545001 load model, 545002 load model partition."""
    write_simple(tmp_path / "chip.om", soc_version="Ascend910")
    write_simple(tmp_path / "newer.om", cann_version="8.1.RC1")
    program = "up()\nresult = [acl.mdl.load_from_file(n) for n in ('chip.om', 'newer.om')]"
    assert run_acl(program, tmp_path, {"cann_version": "8.0.0"}).result == [[0, 545001], [0, 545002]]


def test_loading_needs_init_a_context_and_memory(tmp_path: Path) -> None:
    """ge_error_codes.h: 145001 not initialised; PYDOC: 107002 no context; 245002 no device memory."""
    write_simple(tmp_path / "net.om")
    write_simple(tmp_path / "big.om", weight_size=200 << 20)
    got = run_acl(
        """
        acl.rt.set_device(0)
        result = [acl.mdl.load_from_file("net.om")[1], acl.init(), acl.mdl.load_from_file("net.om"),
                  acl.mdl.load_from_file("big.om")]
        """,
        tmp_path,
        {"memory_mb": 100},
    )
    assert got.result == [145001, 0, [1, 0], [0, 245002]]
    assert "acl.rt.set_device before acl.init" in got.problems[0]


def test_execute_refuses_what_hardware_refuses(tmp_path: Path) -> None:
    """GE model.cpp ModelExecute: null datasets and missing buffers 100000, unknown id 145003;
    davinci_model.cc
    CheckUserAndModelSize: more than 64 bytes too small 145000 with E13025."""
    inputs, outputs = [("x", FLOAT, [1, 64])], [("y", FLOAT, [1, 64])]
    omfile.write(tmp_path / "net.om", om_meta(inputs, outputs), double_plus_one([1, 64]))
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        x = put(bytes(bytearray(256)))
        out = malloc(256)
        good_in, good_out = dataset((x, 256)), dataset((out, 256))
        run = acl.mdl.execute
        result = [run(model, 0, good_out), run(model, good_in, 0), run(9, good_in, good_out),
                  run(model, dataset(), good_out), run(model, good_in, dataset()),
                  run(model, dataset((x, 100)), good_out), acl.get_recent_err_msg().split("\\n")[0],
                  run(model, dataset((x, 192)), good_out), run(model, good_in, dataset((out, 100))),
                  run(model, dataset((x, 256), (x, 256)), good_out), run(model, dataset((x, 9999)), good_out),
                  run(model, good_in, good_out), acl.mdl.add_dataset_buffer(good_in, 0)[1]]
        gone = dataset((x, 256))
        acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(gone, 0))
        result += [run(model, gone, good_out), acl.mdl.unload(model), run(model, good_in, good_out)]
        """,
        tmp_path,
    )
    assert got.result[:6] == [100000, 100000, 145003, 100000, 100000, 145000]
    assert got.result[6].startswith("E13025: Input tensor is invalid. Reason: The input size 100")
    assert got.result[7:] == [0, 145000, 145000, 0, 0, 100000, 100000, 0, 145003]
    assert any("has 192 bytes, the model uses 256" in line for line in got.problems)
    assert any("data buffer that was destroyed" in line for line in got.problems)


def test_outputs_without_memory_get_some(tmp_path: Path) -> None:
    """GE model.cpp: an output data buffer with a null address is given device memory, in synchronous runs."""
    write_simple(tmp_path / "net.om")
    (tmp_path / "x").write_bytes(X.tobytes())
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        outs = dataset((0, 0))
        ret = acl.mdl.execute(model, dataset((put(open("x", "rb").read()), 16)), outs)
        buffer = acl.mdl.get_dataset_buffer(outs, 0)
        p, n = acl.get_data_buffer_addr(buffer), acl.get_data_buffer_size(buffer)
        result = [ret, n, get(p, n), acl.rt.free(p)]
        """,
        tmp_path,
        EP,
    ).result
    assert got == [0, 16, (2 * X + 1).tobytes(), 0]


def test_host_pointers_as_inputs(tmp_path: Path) -> None:
    """Ascend/samples acllite on RC boards hands host addresses on; on EP boards the chip cannot reach
    them."""
    write_simple(tmp_path / "net.om")
    (tmp_path / "x").write_bytes(X.tobytes())
    program = """
        up()
        model, desc = load("net.om")
        data = open("x", "rb").read(); out = bytes(bytearray(16))
        ret = acl.mdl.execute(model, dataset((acl.util.bytes_to_ptr(data), 16)),
            dataset((acl.util.bytes_to_ptr(out), 16)))
        result = [ret, out]
        """
    assert run_acl(program, tmp_path).result == [0, (2 * X + 1).tobytes()]
    assert run_acl(program, tmp_path, EP).result == [507011, bytes(16)]


def test_inputs_and_outputs_may_be_the_same_memory(tmp_path: Path) -> None:
    """The chip reads its inputs before it writes; ONNX Runtime must not see its own output as input."""
    write_simple(tmp_path / "net.om")
    (tmp_path / "x").write_bytes(X.tobytes())
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        p = put(open("x", "rb").read())
        same = dataset((p, 16))
        result = [acl.mdl.execute(model, same, same), acl.mdl.execute(model, same, same), get(p, 16)]
        """,
        tmp_path,
    ).result
    assert got == [0, 0, (4 * X + 3).tobytes()]


def test_execute_async_is_ordered_with_its_stream(tmp_path: Path) -> None:
    """PYDOC execute_async: copy in, run, copy out in one stream; results after synchronize_stream."""
    write_simple(tmp_path / "net.om")
    (tmp_path / "x").write_bytes(X.tobytes())
    got = run_acl(
        """
        up()
        context, stream = context_and_stream()
        model, desc = load("net.om")
        data, out = open("x", "rb").read(), bytes(bytearray(16))
        a, b = malloc(16), malloc(16)
        ins, outs = dataset((a, 16)), dataset((b, 16))
        acl.rt.memset(b, 16, 0, 16)
        s, p, q = stream, acl.util.bytes_to_ptr(data), acl.util.bytes_to_ptr(out)
        result = [acl.rt.memcpy_async(a, 16, p, 16, TO_DEVICE, s), acl.mdl.execute_async(model, ins, outs, s),
                  acl.rt.memcpy_async(q, 16, b, 16, TO_HOST, s), get(b, 16), acl.rt.synchronize_stream(s),
                      out,
                  acl.mdl.execute_async(model, ins, dataset((0, 0)), s), acl.mdl.execute_async(model, ins,
                      outs, 5)]
        """,
        tmp_path,
        {"faults": {"slow_ms": 50}, "run_mode": "EP"},
    ).result
    assert got == [0, 0, 0, bytes(16), 0, (2 * X + 1).tobytes(), 100000, 107000]


def test_execute_v2_waits(tmp_path: Path) -> None:
    """PYACL execute_v2(id, input, output, stream, handle)."""
    write_simple(tmp_path / "net.om")
    (tmp_path / "x").write_bytes(X.tobytes())
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        b = malloc(16)
        h = acl.mdl.create_exec_config_handle()
        ins, outs = dataset((put(open("x", "rb").read()), 16)), dataset((b, 16))
        result = [acl.mdl.set_exec_config_opt(h, 0, 100), acl.mdl.execute_v2(model, ins, outs, 0, h),
            get(b, 16),
                  acl.mdl.execute_v2(model, ins, outs, 0, 0)]
        """,
        tmp_path,
        {"cann_version": "8.0.0"},
    ).result
    assert got == [0, 0, (2 * X + 1).tobytes(), 100000]


def test_models_run_on_the_device_they_were_loaded_on(tmp_path: Path) -> None:
    """PYDOC: 107004 for a model of another context's device; several chips run side by side."""
    write_simple(tmp_path / "net.om")
    (tmp_path / "x").write_bytes(X.tobytes())
    got = run_acl(
        """
        acl.init()
        data = open("x", "rb").read()
        result = []
        kept = []
        for device in (0, 1):
            acl.rt.set_device(device)
            before = acl.rt.get_mem_info(0)[0]
            model, desc = load("net.om")
            b = malloc(16)
            ins, outs = dataset((put(data), 16)), dataset((b, 16))
            kept.append((model, ins, outs))
            used = before - acl.rt.get_mem_info(0)[0]
            result.append([acl.mdl.execute(model, ins, outs), get(b, 16), used])
        result.append(acl.mdl.execute(*kept[0]))
        """,
        tmp_path,
        {"chips": 2, "run_mode": "EP"},
    ).result
    used = (
        4096 + 1024 + 2 * 64
    )  # the model's work space and weights, two blocks of 16 bytes as the runtime rounds them
    assert got == [[0, (2 * X + 1).tobytes(), used]] * 2 + [107004]


DYNAMIC_BATCH = {"dynamic": {"kind": "batch", "gears": [1, 2, 4]}}


def write_dynamic_batch(path: Path) -> None:
    omfile.write(
        path,
        om_meta([("x", FLOAT, [-1, 3])], [("y", FLOAT, [-1, 3])], **DYNAMIC_BATCH),
        double_plus_one(["n", 3]),
    )


def test_dynamic_batch(tmp_path: Path) -> None:
    """PYDOC get_input_dims (-1), get_output_dims and sizes (largest gear), get_cur_output_dims (gear last
    set), the
    input ascend_mbatch_shape_data; GE SetDynamicBatchSize: 145013 for a batch that is no gear,
        100000 for 0."""
    write_dynamic_batch(tmp_path / "net.om")
    x = np.arange(12, dtype="f").reshape(4, 3)
    (tmp_path / "x").write_bytes(x.tobytes())
    got = run_acl(
        """
        up()
        m = acl.mdl
        model, d = load("net.om")
        index, ret = m.get_input_index_by_name(d, "ascend_mbatch_shape_data")
        gear = malloc(m.get_input_size_by_index(d, index))
        out = malloc(48)
        ins, outs = dataset((put(open("x", "rb").read()), 48), (gear, 4)), dataset((out, 48))
        result = {"counts": [m.get_num_inputs(d), index, ret, m.get_input_size_by_index(d, index)],
                  "dims": [m.get_input_dims(d, 0), m.get_output_dims(d, 0), m.get_input_size_by_index(d, 0),
                           m.get_output_size_by_index(d, 0), m.get_cur_output_dims(d, 0),
                               m.get_dynamic_batch(d)],
                  "unset": m.execute(model, ins, outs), "runs": [],
                  "bad": [m.set_dynamic_batch_size(model, ins, index, 3), m.set_dynamic_batch_size(model,
                      ins, index, 0),
                          m.set_dynamic_batch_size(model, ins, 7, 2), m.set_dynamic_batch_size(9, ins,
                              index, 2),
                          m.set_dynamic_hw_size(model, ins, index, 2, 2), m.set_dynamic_batch_size(model,
                              0, index, 2)]}
        for batch in (2, 4, 1):
            acl.rt.memset(out, 48, 0, 48)
            result["runs"].append([m.set_dynamic_batch_size(model, ins, index, batch), m.execute(model,
                ins, outs),
                                   get(out, 48), m.get_cur_output_dims(d, 0)[0]["dims"], get(gear, 4)])
        result["missing"] = m.execute(model, dataset((gear, 48)), outs)
        """,
        tmp_path,
    ).result
    assert got["counts"] == [2, 1, 0, 4]
    batches = {"batchCount": 3, "batch": [1, 2, 4]}

    def dims(name: str, first: int) -> list[Any]:
        return [{"name": name, "dimCount": 2, "dims": [first, 3]}, 0]

    assert got["dims"] == [dims("x", -1), dims("y", 4), 48, 48, dims("y", 4), [batches, 0]]
    assert got["unset"] == 145013
    # A picture size is two numbers, and the index buffer of this model holds one.
    assert got["bad"] == [145013, 100000, 100000, 145003, 145012, 100000]
    assert got["missing"] == 100000
    for (ret, run, data, current, told), batch in zip(got["runs"], (2, 4, 1), strict=True):
        expected = np.zeros((4, 3), "f")
        expected[:batch] = 2 * x[:batch] + 1
        assert (ret, run, current, told) == (0, 0, [batch, 3], batch.to_bytes(4, "little"))
        assert data == expected.tobytes()


def test_dynamic_image_size(tmp_path: Path) -> None:
    """PYDOC set_dynamic_hw_size(height, width), get_dynamic_hw; the output follows the picture."""
    inputs, outputs = [("x", FLOAT, [1, 1, -1, -1])], [("y", FLOAT, [1, 1, -1, -1])]
    onnx = graph(
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
        [("x", FLOAT, [1, 1, "h", "w"])], [("y", FLOAT, [1, 1, "a", "b"])],
    )  # fmt: skip
    meta = om_meta(inputs, outputs, dynamic={"kind": "image", "gears": [[2, 4], [4, 4]]})
    omfile.write(tmp_path / "net.om", meta, onnx)
    x = np.arange(8, dtype="f").reshape(1, 1, 2, 4)
    (tmp_path / "x").write_bytes(x.tobytes())
    got = run_acl(
        """
        up()
        m = acl.mdl
        model, d = load("net.om")
        gear, out = malloc(8), malloc(16)
        picture = put(open("x", "rb").read() + bytes(bytearray(32)))
        ins, outs = dataset((picture, 64), (gear, 8)), dataset((out, 16))
        result = [m.get_dynamic_hw(d, -1), m.get_input_dims(d, 0)[0]["dims"], m.get_output_dims(d,
            0)[0]["dims"],
                  m.get_input_size_by_index(d, 0), m.get_output_size_by_index(d, 0),
                      m.get_input_size_by_index(d, 1),
                  m.set_dynamic_hw_size(model, ins, 1, 4, 2), m.set_dynamic_hw_size(model, ins, 1, 2, 4),
                  m.execute(model, ins, outs), get(out, 8), m.get_cur_output_dims(d, 0)[0]["dims"],
                      get(gear, 8)]
        """,
        tmp_path,
    ).result
    pooled = reference(onnx, {"x": x})[0]
    assert got == [
        [{"hwCount": 2, "hw": [[2, 4], [4, 4]]}, 0], [1, 1, -1, -1], [1, 1, 2, 2], 64, 16, 8, 145013, 0, 0,
        pooled.tobytes(), [1, 1, 1, 2], b"\2\0\0\0\4\0\0\0",
    ]  # fmt: skip


def test_dynamic_dims(tmp_path: Path) -> None:
    """PYDOC set_input_dynamic_dims: the dims of all inputs one after the other; get_input_dynamic_dims per
    gear."""
    inputs, outputs = [("a", FLOAT, [-1, 2]), ("b", FLOAT, [2, -1])], [("y", FLOAT, [-1, -1])]
    onnx = graph(
        [helper.make_node("MatMul", ["a", "b"], ["y"])], [("a", FLOAT, ["m", 2]), ("b", FLOAT, [2, "n"])],
        [("y", FLOAT, ["m", "n"])],
    )  # fmt: skip
    meta = om_meta(inputs, outputs, dynamic={"kind": "dims", "gears": [[1, 3], [2, 2]]})
    omfile.write(tmp_path / "net.om", meta, onnx)
    got = run_acl(
        """
        import struct
        up()
        m = acl.mdl
        model, d = load("net.om")
        gear, out = malloc(8), malloc(16)
        a, b = struct.pack("<4f", 1, 2, 3, 4), struct.pack("<6f", 1, 2, 3, 4, 5, 6)
        ins, outs = dataset((put(a), 16), (put(b), 24), (gear, 8)), dataset((out, 16))
        def choose(*dims):
            return m.set_input_dynamic_dims(model, ins, 2, {"dimCount": len(dims), "dims": list(dims)})
        result = [m.get_input_dynamic_gear_count(d, -1), m.get_input_dynamic_dims(d, -1, 2),
            m.get_input_size_by_index(d, 1),
                  choose(1, 2, 2, 2), choose(1, 2), choose(1, 9, 2, 3), choose(1, 2, 2, 3),
                      m.execute(model, ins, outs),
                  list(struct.unpack("<3f", get(out, 12))), m.get_cur_output_dims(d, 0)[0]["dims"]]
        try:
            m.set_input_dynamic_dims(model, ins, 2, [1])
        except TypeError as error:
            result.append(str(error))
        """,
        tmp_path,
    ).result
    gears = [
        {"name": "", "dimCount": 4, "dims": [1, 2, 2, 3]},
        {"name": "", "dimCount": 4, "dims": [2, 2, 2, 2]},
    ]
    assert got == [
        [2, 0], [gears, 0], 24, 145013, 145012, 145013, 0, 0, [9.0, 12.0, 15.0], [1, 3],
            "argument 4 is not dict",
    ]  # fmt: skip


def test_gears_of_a_static_model(tmp_path: Path) -> None:
    """PYDOC aclError 100019 (older), 145013: the model is not dynamic; 145011, 145012: no, or a short,
    index buffer."""
    write_simple(tmp_path / "static.om", cann_version="20.0")
    write_dynamic_batch(tmp_path / "dynamic.om")
    program = """
        up()
        model, d = load("static.om")
        ins = dataset((malloc(16), 16))
        result = [acl.mdl.set_dynamic_batch_size(model, ins, 0, 1)]
        if os.path.exists("dynamic.om"):
            model, d = load("dynamic.om")
            result += [acl.mdl.set_dynamic_batch_size(model, dataset((malloc(48), 48), (0, 4)), 1, 1),
                       acl.mdl.set_dynamic_batch_size(model, dataset((malloc(48), 48), (malloc(4), 2)), 1, 1)]
        """
    assert run_acl(program, tmp_path).result == [145013, 145011, 145012]
    (tmp_path / "dynamic.om").unlink()
    assert run_acl(program, tmp_path, {"cann_version": "20.2"}).result == [100019]


def test_static_aipp(tmp_path: Path) -> None:
    """PYDOC get_first_aipp_info; GE docs AIPP: the program gives uint8 NHWC pictures, the om does the
    rest."""
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=1), helper.make_node("Transpose", ["c"], ["t"], perm=[0,
            3, 1, 2]),
        helper.make_node("Mul", ["t", "s"], ["y"]),
    ]  # fmt: skip
    inputs, outputs = [("x", UINT8, [1, 2, 2, 3])], [("y", FLOAT, [1, 3, 2, 2])]
    onnx = graph(nodes, inputs, outputs, {"s": np.array(1 / 255, "f")})
    aipp = {
        "related_input": 0,
        "srcImageSizeW": 2,
        "srcImageSizeH": 2,
        "rbuvSwapSwitch": 1,
        "varReciChn0": 0.5,
    }
    meta = om_meta(inputs, outputs, aipp=aipp)
    meta["inputs"][0]["format"] = NHWC
    omfile.write(tmp_path / "net.om", meta, onnx)
    picture = np.arange(12, dtype="uint8").reshape(1, 2, 2, 3) * 20
    (tmp_path / "x").write_bytes(picture.tobytes())
    got = run_acl(
        """
        up()
        out = infer("net.om", open("x", "rb").read())
        model, d = load("net.om")
        info, ret = acl.mdl.get_first_aipp_info(model, 0)
        result = [out[0], ret, info, acl.mdl.get_aipp_type(model, 0)[0], acl.mdl.get_first_aipp_info(model,
            1),
                  acl.mdl.get_input_format(d, 0), acl.mdl.get_input_data_type(d, 0),
                      acl.mdl.get_input_size_by_index(d, 0),
                  acl.mdl.get_first_aipp_info(77, 0)]
        """,
        tmp_path,
    ).result
    assert got[0] == reference(onnx, {"x": picture})[0].tobytes()
    info = got[2]
    assert (info["srcImageSizeW"], info["rbuvSwapSwitch"], info["varReciChn0"], info["cropSwitch"]) == (
        2,
        1,
        0.5,
        0,
    )
    assert {"cscSwitch", "loadStartPosW", "meanChn3", "minChn0", "outDims", "shapeCount"} <= set(info)
    assert got[3:] == [1, [None, 145015], NHWC, UINT8, 12, [None, 145003]]


def test_dynamic_aipp_is_answered_as_by_a_model_without(tmp_path: Path) -> None:
    """GE acl_aipp.cpp: 145015 when the model has no (dynamic) AIPP; the setters check their ranges."""
    write_simple(tmp_path / "net.om")
    got = run_acl(
        """
        up()
        m = acl.mdl
        model, d = load("net.om")
        a = m.create_aipp(1)
        ins = dataset((malloc(16), 16))
        result = [m.create_aipp(0), m.set_aipp_input_format(a, 2), m.set_aipp_input_format(a, 99),
                  m.set_aipp_dtc_pixel_mean(a, 1, 2, 3, 0, 0), m.set_aipp_dtc_pixel_mean(a, 1, 2, 3, 0, 1),
                  m.set_input_aipp(model, ins, 0, a), m.set_input_aipp(model, ins, 0, 0), m.destroy_aipp(a),
                  m.init_dump(), m.init_dump(), m.finalize_dump(), m.finalize_dump()]
        """,
        tmp_path,
    ).result
    assert got == [0, 0, 100000, 0, 100000, 145015, 100000, 0, 0, 100002, 0, 100001]
