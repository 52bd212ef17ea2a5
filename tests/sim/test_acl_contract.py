"""Contracts of the small functions, one line each, grouped by kind; and that no function is without one.

Sources: PYACL is hicann/runtime ``python/pyACL`` (which arguments, which shape of answer), ACLRT
``src/acl/aclrt_impl``, GE hicann/ge ``api/acl/acl_model``, PYDOC the pyACL and AscendCL reference (ranges,
codes).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from acl_support import CANN_PYTHON, run_acl, write_simple

#: group → (source, what is done before, [(expression, what it gives)]). Expressions see what earlier ones set with
#: ``keep(name=value)``.
CONTRACTS: dict[str, tuple[str, str, list[tuple[str, object]]]] = {
    "data buffers": (
        "PYACL py_init_acl.cpp; PYDOC aclUpdateDataBuffer: other address and size, null handle 100000",
        "b = acl.create_data_buffer(4096, 16)",
        [
            ("acl.update_data_buffer(b, 8192, 1 << 33)", 0),
            ("acl.get_data_buffer_addr(b)", 8192),
            ("acl.get_data_buffer_size(b)", 0),  # the lower 32 bits of a uint32
            ("acl.get_data_buffer_size_v2(b)", 1 << 33),
            ("acl.update_data_buffer(0, 1, 1)", 100000),
            ("acl.destroy_data_buffer(b)", 0),
        ],
    ),
    "tensor descriptions": (
        "PYACL py_init_acl.cpp and PYDOC aclTensorDesc: the origin shape and format are what the getters tell, "
        "storage is kept beside; null handles are 100000",
        "d = acl.create_tensor_desc(0, [1, 3, 4, 5], 0)",
        [
            ("acl.set_tensor_format(d, 3)", 0),
            ("acl.set_tensor_storage_format(d, 3)", 0),
            ("acl.set_tensor_shape(d, [1, 1, 4, 5, 16])", 0),
            ("acl.set_tensor_storage_shape(d, [1, 1, 4, 5, 16])", 0),
            ("(acl.get_tensor_desc_format(d), acl.get_tensor_desc_num_dims(d))", [0, 4]),
            ("acl.set_tensor_origin_format(d, 1)", 0),
            ("acl.set_tensor_origin_shape(d, [2, 7])", 0),
            ("(acl.get_tensor_desc_format(d), acl.get_tensor_desc_element_count(d))", [1, 14]),
            ("acl.get_tensor_desc_address(d)", 0),
            ("acl.get_tensor_desc_by_index(d, 0) == d", True),
            ("acl.get_tensor_desc_by_index(d, 1)", 0),
            ("acl.set_tensor_dynamic_input(d, 'x')", 0),
            ("acl.set_tensor_place_ment(d, 1)", 0),
            ("acl.set_tensor_value_range(d, [[0, 255]])", 0),
            ("raised(acl.set_tensor_value_range, d, [1])", "TypeError"),
            ("acl.set_tensor_const(d, 4096, 4)", 0),
            ("acl.set_tensor_const(d, 0, 4)", 100000),
            ("[acl.trans_tensor_desc_format(d, 3), acl.trans_tensor_desc_format(0, 1)]", [[0, 200001], [0, 100000]]),
            ("[acl.set_tensor_format(0, 1), acl.set_tensor_origin_shape(0, [1])]", [100000, 100000]),
            ("acl.destroy_tensor_desc(d)", None),
        ],
    ),
    "capabilities": (
        "PYACL py_init_acl.cpp, rt_device.cpp: (value, ret); PYDOC: an unknown device is 107001, an unknown question "
        "100000 (acl) or 107000 (acl.rt)",
        "",
        [
            ("acl.get_cann_attribute_list()", [[], 0, 0]),
            ("acl.get_cann_attribute(0)", [0, 0]),
            ("acl.get_cann_attribute(-1)", [0, 100000]),
            ("acl.get_device_capability(0, 0)", [2, 0]),  # AI cores of an Ascend310
            ("acl.get_device_capability(9, 0)[1]", 107001),
            ("acl.get_device_capability(0, 99)[1]", 100000),
            ("acl.rt.get_device_capability(0, 1)", [0, 0]),
            ("acl.rt.get_device_capability(9, 1)[1]", 107001),
            ("acl.rt.get_device_info(0, 1)", [2, 0]),
            ("acl.rt.get_device_info(0, 999)[1]", 107000),
            ("acl.rt.query_device_status(0)", [0, 0]),
            ("acl.rt.query_device_status(5)[1]", 107001),
            ("sorted(acl.rt.get_device_utilization_rate(0)[0])",
             ["aicpu_utilization", "cube_utilization", "memory_utilization", "utilization_extend",
              "vector_utilization"]),
            ("acl.rt.get_device_utilization_rate(3)[1]", 107001),
            ("acl.rt.device_can_access_peer(0, 0)", [0, 0]),
            ("acl.rt.device_can_access_peer(0, 1)", [1, 0]),
            ("acl.rt.device_can_access_peer(0, 2)[1]", 107001),
            ("[acl.rt.device_enable_peer_access(1, 0), acl.rt.device_disable_peer_access(1)]", [0, 0]),
            ("acl.rt.device_enable_peer_access(0, 0)", 107001),  # the current device itself
        ],
    ),
    "devices": (
        "ACLRT device.cpp, PYDOC aclrtSetTsDevice (0 and 1), aclrtResetDeviceForce (whatever was counted), "
        "aclrtPeekAtLastError / aclrtGetLastError (the latter forgets)",
        "",
        [
            ("[acl.rt.set_ts_device(0), acl.rt.set_ts_device(1), acl.rt.set_ts_device(2)]", [0, 0, 100000]),
            ("acl.rt.peek_at_last_error(0)", 100000),
            ("acl.rt.get_last_error(0)", 100000),
            ("acl.rt.peek_at_last_error(0)", 0),
            ("acl.rt.get_last_error(1)", 100000),  # only the thread's level exists
            ("[acl.rt.set_op_wait_timeout(5), acl.rt.set_op_execute_time_out(5)]", [0, 0]),
            ("[acl.rt.synchronize_device_with_timeout(100), acl.rt.synchronize_device_with_timeout(-1)]", [0, 0]),
            ("[acl.rt.set_device(0), acl.rt.set_device(0), acl.rt.reset_device_force(0), acl.rt.get_device()[1]]",
             [0, 0, 0, 107002]),
            ("acl.rt.set_device(0)", 0),
        ],
    ),
    "memory": (
        "ACLRT memory.cpp: sizes of 0 and null pointers are 100000, the 2-D copies take a stream behind the rest; "
        "PYDOC aclrtMallocAlign32 has no padding",
        "p, q = malloc(64), malloc(64)",
        [
            ("acl.rt.malloc_cached(0, 0)", [0, 100000]),
            ("[acl.rt.free(acl.rt.malloc_cached(8, 0)[0]), acl.rt.free(acl.rt.malloc_align32(8, 0)[0])]", [0, 0]),
            ("[acl.rt.mem_flush(p, 64), acl.rt.mem_invalidate(p, 64)]", [0, 0]),
            ("[acl.rt.mem_flush(0, 64), acl.rt.mem_invalidate(p, 0)]", [100000, 100000]),
            ("acl.rt.memset(p, 64, 7, 64)", 0),
            ("acl.rt.memset(q, 64, 0, 64)", 0),
            ("acl.rt.memcpy2d_async(q, 16, p, 8, 4, 3, 3, 0)", 0),
            ("[acl.rt.synchronize_stream(0), list(get(q, 40))]",
             [0, ([7] * 4 + [0] * 12) * 2 + [7] * 4 + [0] * 4]),
            ("acl.rt.memcpy2d_async(q, 2, p, 8, 4, 3, 3, 0)", 100000),  # rows longer than the pitch
            ("[acl.rt.free(p), acl.rt.free(q)]", [0, 0]),
        ],
    ),
    "streams": (
        "PYACL rt_stream.cpp: (stream, ret); PYDOC aclrtStreamQuery 0 complete, aclrtDestroyStreamForce, "
        "aclrtGetStreamAvailableNum",
        "s = acl.rt.create_stream_with_config(0, 1)[0]",
        [
            ("acl.rt.stream_query(s)", [0, 0]),
            ("acl.rt.stream_query(7)[1]", 107000),
            ("[isinstance(value, int) for value in acl.rt.stream_get_id(s)]", [True, True]),
            ("acl.rt.stream_get_id(s) != acl.rt.stream_get_id(0)", True),
            ("acl.rt.get_stream_available_num()[1]", 0),
            ("before - acl.rt.get_stream_available_num()[0] if keep(before=acl.rt.get_stream_available_num()[0], "
             "t=acl.rt.create_stream()[0]) else None", 1),
            ("[acl.rt.destroy_stream_force(s), acl.rt.destroy_stream_force(t)]", [0, 0]),
            ("acl.rt.destroy_stream_force(0)", 100000),
        ],
    ),
    "events": (
        "PYACL rt_synchronize.cpp: (value, ret); PYDOC aclrtQueryEventStatus 1 is complete, aclrtQueryEvent 0 is",
        "e = acl.rt.create_event_with_flag(1)[0]; f = acl.rt.create_event_ex_with_flag(8)[0]",
        [
            ("acl.rt.query_event_status(e)", [0, 0]),
            ("acl.rt.event_get_timestamp(e)[1]", 107006),
            ("[acl.rt.record_event(e, 0), acl.rt.record_event(f, 0), acl.rt.synchronize_stream(0)]", [0, 0, 0]),
            ("[acl.rt.query_event_status(e), acl.rt.query_event(e), acl.rt.query_event_wait_status(e)]",
             [[1, 0], [0, 0], [0, 0]]),
            ("acl.rt.event_get_timestamp(f)[0] >= acl.rt.event_get_timestamp(e)[0] > 0", True),
            ("[acl.rt.synchronize_event_with_timeout(e, 10), acl.rt.synchronize_event_with_timeout(e, -1)]", [0, 0]),
            ("[acl.rt.reset_event(e, 0), acl.rt.synchronize_stream(0), acl.rt.query_event_status(e)]", [0, 0, [0, 0]]),
            ("acl.rt.synchronize_event_with_timeout(e, 10)", 107000),  # never recorded
            ("acl.rt.reset_event(0, 0)", 100000),
            ("[acl.rt.destroy_event(e), acl.rt.destroy_event(f)]", [0, 0]),
        ],
    ),
    "exception info": (
        "PYACL rt_exception_callback: outside the callback there is no info: 0xFFFFFFFF",
        "",
        [
            ("acl.rt.get_stream_id_from_exception_info(1)", 0xFFFFFFFF),
            ("acl.rt.get_thread_id_from_exception_info(1)", 0xFFFFFFFF),
        ],
    ),
    "model descriptions": (
        "GE model.cpp: index 100000 and an empty answer; PYDOC aclmdlGetInputDimsV2 as get_input_dims, "
        "aclmdlGetInputDimsRange empty for fixed shapes; aclmdlSetDatasetTensorDesc copies, and takes away with null",
        "m, d = load('net.om'); ds = dataset((4096, 16)); t = acl.create_tensor_desc(0, [1, 4], 2)",
        [
            ("acl.mdl.get_input_dims_v2(d, 0)", [{"name": "x", "dimCount": 2, "dims": [1, 4]}, 0]),
            ("acl.mdl.get_input_dims_v2(d, 1)", [{}, 100000]),
            ("acl.mdl.get_input_dims_range(d, 0)", [{"rangeCount": 0, "range": []}, 0]),
            ("acl.mdl.get_input_dims_range(d, 1)[1]", 100000),
            ("acl.mdl.get_dataset_tensor_desc(ds, 0)", 0),
            ("acl.mdl.set_dataset_tensor_desc(ds, t, 0) == (ds, 0)", True),
            ("acl.mdl.get_dataset_tensor_desc(ds, 0) not in (0, t)", True),
            ("acl.set_tensor_origin_shape(t, [7])", 0),
            ("acl.get_tensor_desc_dim(acl.mdl.get_dataset_tensor_desc(ds, 0), 1)", 4),
            ("acl.mdl.set_dataset_tensor_desc(ds, t, 1)[1]", 100000),
            ("[acl.mdl.set_dataset_tensor_desc(ds, 0, 0)[1], acl.mdl.get_dataset_tensor_desc(ds, 0)]", [0, 0]),
            ("acl.mdl.set_dataset_tensor_desc(ds, t, 0)[1]", 0),
            ("acl.mdl.destroy_exec_config_handle(acl.mdl.create_exec_config_handle())", 0),
            ("acl.mdl.destroy_exec_config_handle(0)", 100000),
            ("[acl.destroy_tensor_desc(t), acl.mdl.unload(m), acl.mdl.destroy_desc(d), drop(ds, False)]",
             [None, 0, 0, None]),
        ],
    ),
    "dynamic AIPP": (
        "GE acl_aipp.cpp: switches are 0 or 1, picture sizes 2..4096, batch indices below the batch",
        "a = acl.mdl.create_aipp(2)",
        [
            ("acl.mdl.set_aipp_src_image_size(a, 224, 224)", 0),
            ("[acl.mdl.set_aipp_src_image_size(a, 1, 224), acl.mdl.set_aipp_src_image_size(a, 224, 4097)]",
             [100000, 100000]),
            ("[acl.mdl.set_aipp_rbuv_swap_switch(a, 1), acl.mdl.set_aipp_rbuv_swap_switch(a, 2)]", [0, 100000]),
            ("[acl.mdl.set_aipp_ax_swap_switch(a, 0), acl.mdl.set_aipp_ax_swap_switch(a, 3)]", [0, 100000]),
            ("acl.mdl.set_aipp_csc_params(a, 1, *[256] * 9, *[0] * 6)", 0),
            ("acl.mdl.set_aipp_crop_params(a, 1, 0, 0, 8, 8, 1)", 0),
            ("acl.mdl.set_aipp_crop_params(a, 1, 0, 0, 8, 8, 2)", 100000),
            ("acl.mdl.set_aipp_padding_params(a, 1, 1, 1, 1, 1, 0)", 0),
            ("acl.mdl.set_aipp_padding_params(a, 1, -1, 1, 1, 1, 0)", 100000),
            ("acl.mdl.set_aipp_dtc_pixel_min(a, 0.5, 0.5, 0.5, 0.0, 0)", 0),
            ("acl.mdl.set_aipp_pixel_var_reci(a, 0.5, 0.5, 0.5, 0.0, 2)", 100000),
            ("acl.mdl.set_aipp_pixel_var_reci(0, 0.5, 0.5, 0.5, 0.0, 0)", 100000),
            ("[acl.mdl.get_aipp_data_size(2), acl.mdl.get_aipp_data_size(0)]", [[256, 0], [0, 100000]]),
            ("acl.mdl.destroy_aipp(a)", 0),
        ],
    ),
    "dump": (
        "GE acl dump.cpp IsValidDumpConfig: 100001 before init_dump, 100003 for a file that is not there, 100006 for "
        "one that is no JSON, 100009 for no or a wrong dump",
        "text = ('{', '{}', '{\"dump\": {\"dump_path\": \".\"}}', '{\"dump\": {\"dump_path\": \"./none\"}}'); "
        "[open('dump%d.json' % n, 'w').write(text[n]) for n in range(4)]",
        [
            ("acl.mdl.set_dump('dump2.json')", 100001),
            ("acl.mdl.init_dump()", 0),
            ("[acl.mdl.set_dump('dump%d.json' % n) for n in range(5)]", [100006, 100009, 0, 100009, 100003]),
            ("acl.mdl.finalize_dump()", 0),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("group", CONTRACTS)
def test_contracts(group: str, tmp_path: Path) -> None:
    """The source stands with each group."""
    _, before, lines = CONTRACTS[group]
    write_simple(tmp_path / "net.om")
    program = f"""
        def keep(**values):
            globals().update(values)
            return True
        def raised(function, *arguments):
            try:
                return function(*arguments)
            except Exception as error:
                return type(error).__name__
        up()
        {before}
        result = [eval(line, globals()) for line in {[line for line, _ in lines]!r}]
        down()
        """
    board = {"cann_version": "9.0.0", "chips": 2, "run_mode": "RC"}
    got = run_acl(program, tmp_path, board)
    assert not [problem for problem in got.problems if "leaked" in problem]
    for (line, expected), value in zip(lines, got.result, strict=True):
        assert value == expected, line


@pytest.mark.parametrize(("version", "bad_dump"), [("5.0.4", 0), ("8.0.0", 100009)])
def test_what_acl_json_may_say(version: str, bad_dump: int, tmp_path: Path) -> None:
    """GE acl dump.cpp HandleDumpConfig: an init of the older CANN goes on without a dump that is wrong, unless a value
    has a wrong type; later ones hand it to Adump, 100009. max_opqueue_num: op_model_manager.cpp, greater than 0.
    ACL_ERROR_INVALID_PROFILING_CONFIG: acl_base.h."""
    configs: list[tuple[object, int]] = [
        ({"dump": {"dump_path": 7, "dump_list": []}}, 100009),
        ({"dump": []}, 100009),
        ({"dump": {"dump_path": "/none", "dump_list": [{"model_name": "x"}]}}, bad_dump),
        ({"dump": {"dump_path": ".", "dump_list": [], "dump_mode": "some"}}, bad_dump),
        ({"dump": {"dump_path": ".", "dump_list": [], "dump_op_switch": "yes"}}, bad_dump),
        ({"max_opqueue_num": "0"}, 100000),
        ({"profiler": {"switch": "maybe"}}, 100010),
        ({"profiler": ["on"]}, 100010),
        ({"dump": {"dump_path": ".", "dump_list": [{"model_name": "x"}]}, "max_opqueue_num": "10",
          "profiler": {"switch": "on"}}, 0),
    ]  # fmt: skip
    got = run_acl(
        f"""
        result = []
        for text in {[json.dumps(config) for config, _ in configs]!r}:
            open("acl.json", "w").write(text)
            pid = os.fork()  # an init for each
            if not pid:
                code = acl.init("acl.json")
                os.write(2, (str(code) + chr(10)).encode())
                os._exit(0)
            os.waitpid(pid, 0)
        """,
        tmp_path,
        {"cann_version": version},
    )
    assert [int(code) for code in got.stderr.split()] == [code for _, code in configs]


def test_libraries_to_link_against_answer_100039(tmp_path: Path) -> None:
    """acl_base.h ACL_ERROR_COMPILING_STUB_MODE: the libascendcl.so of devlib/ or lib64/stub was loaded."""
    for folder in ("devlib", "lib64/stub", "lib64"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "libascendcl.so").touch()
    program = """
        result = [acl.init(), acl.rt.set_device(0), acl.rt.get_run_mode()[1], acl.rt.get_device_count()[1],
                  acl.rt.create_context(0), acl.rt.malloc(8, 0), acl.mdl.load_from_file("x")[1],
                  acl.rt.reset_device(0), acl.finalize()]
        """
    for paths, code in (("devlib", 100039), ("none:lib64/stub:lib64", 100039), ("lib64:devlib", 0)):
        path = ":".join(str(tmp_path / name) for name in paths.split(":"))
        got = run_acl(program, tmp_path, environment={"LD_LIBRARY_PATH": path}).result
        if code:
            assert got == [code] * 4 + [[0, code]] * 2 + [code] * 3
        else:
            assert got[:4] == [0, 0, 0, 0]


@pytest.mark.parametrize(("chip", "most"), [("Ascend310", 1022), ("Ascend310B4", 510), ("Ascend910B3", 2046)])
def test_a_device_gives_so_many_streams(chip: str, most: int, tmp_path: Path) -> None:
    """PYDOC create_stream: 1024 on the 310 and 310P, 512 on the 310B, 2048 on the 910, less the default stream and
    one for the runtime's synchronisation; then 207008."""
    got = run_acl(
        """
        up()
        result = [acl.rt.get_stream_available_num()]
        streams = []
        while True:
            stream, ret = acl.rt.create_stream()
            if ret:
                break
            streams.append(stream)
        result += [len(streams), stream, ret, acl.get_recent_err_msg() is not None]
        acl.rt.destroy_stream(streams.pop())
        result.append(acl.rt.create_stream()[1])
        """,
        tmp_path,
        {"soc_version": chip, "cann_version": "9.0.0"},
    ).result
    assert got == [[most, 0], most, 0, 207008, True, 0]


def test_every_function_has_a_contract(tmp_path: Path) -> None:
    """A function that is simulated is called by a test of this folder."""
    program = "import acl, json; print(json.dumps([(m.__name__, n) for m in (acl, acl.rt, acl.mdl, acl.util) "
    program += "for n in dir(m) if n[0] != '_' and getattr(m, n).__doc__]))"
    (tmp_path / "board.json").write_text(json.dumps({"cann_version": "99.0.0", "state_dir": str(tmp_path)}))
    environment = {**os.environ, "PYTHONPATH": str(CANN_PYTHON), "ASCEND_SIM_BOARD": str(tmp_path / "board.json")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    names = [(module, name) for module, name in json.loads(done.stdout)]
    assert len(names) > 190
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("*acl*.py"))
    calls = {"acl": r"\bacl\.", "acl.rt": r"\brt\.", "acl.mdl": r"\b(mdl|m)\.", "acl.util": r"\butil\."}
    missing = [f"{module}.{name}" for module, name in names if not re.search(rf"{calls[module]}{name}\b", text)]
    assert missing == []
