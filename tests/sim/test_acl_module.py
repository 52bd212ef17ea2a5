"""The shape of the module: names, arguments, what is there in which CANN.

Sources are named in the docstrings; PYACL is hicann/runtime ``python/pyACL``, the C++ source of the real
module.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from acl_support import run_acl

VERSIONS = ["20.1", "5.0.2", "5.0.4", "6.0.0", "7.0.0", "8.0.0", "9.0.0"]


def test_import_gives_one_module_with_sub_modules_that_show_real_names_only(tmp_path: Path) -> None:
    """PYACL py_init_acl.cpp AddSubModule: attributes of one .so, in sys.modules; no constants."""
    got = run_acl(
        """
        result = {
            "modules": sorted(name for name in sys.modules if name.split(".")[0] == "acl"),
            "same": all(sys.modules["acl." + n] is getattr(acl, n) for n in ("rt", "mdl", "util", "media",
                "op")),
            "names": {n: [x for x in dir(m) if not x.startswith("__")]
                      for n, m in (("acl", acl), ("rt", acl.rt), ("mdl", acl.mdl), ("util", acl.util))},
            "constants": [x for m in (acl, acl.rt, acl.mdl, acl.util) for x in dir(m)
                          if not x.startswith("__") and isinstance(getattr(m, x), (int, str, float))],
        }
        import acl.rt
        from acl import mdl
        """,
        tmp_path,
        {"cann_version": "8.0.0"},
    ).result
    expected = [
        "acl",
        *("acl." + n for n in ["blas", "fv", "himpi", "mdl", "media", "op", "prof", "rt", "util"]),
    ]
    assert got["modules"] == expected
    assert got["same"]
    assert got["constants"] == []
    assert not [name for names in got["names"].values() for name in names if name.startswith("_")]
    assert {"init", "finalize", "create_data_buffer", "app_log", "rt"} <= set(got["names"]["acl"])
    assert not {"get_soc_name", "get_version", "memcpy_sync"} & set(got["names"]["rt"])
    assert set(got["names"]["util"]) == {
        "bytes_to_ptr", "numpy_contiguous_to_ptr", "numpy_to_ptr", "ptr_to_bytes", "ptr_to_numpy",
            "start_thread",
        "stop_thread",
    }  # fmt: skip


def test_each_generation_has_its_own_names(tmp_path: Path) -> None:
    """Ascend/samples test ``"bytes_to_ptr" in dir(acl.util)`` (absent up to 5.0.2); finalize_reference and
    get_cann_version came with 8.x,
        get_version_str with 9.x (PYACL); himpi and fv are not in 5.0 and before."""
    found = {}
    for version in VERSIONS:
        folder = tmp_path / version
        folder.mkdir()
        found[version] = run_acl(
            """
            result = [name for name, there in (
                ("bytes_to_ptr", "bytes_to_ptr" in dir(acl.util)), ("ptr_to_bytes", hasattr(acl.util,
                    "ptr_to_bytes")),
                ("himpi", hasattr(acl, "himpi")), ("fv", hasattr(acl, "fv")),
                ("finalize_reference", hasattr(acl, "finalize_reference")),
                ("get_cann_version", hasattr(acl, "get_cann_version")),
                ("get_version_str", hasattr(acl, "get_version_str"))) if there]
            """,
            folder,
            {"cann_version": version},
        ).result
    pointers, media = ["bytes_to_ptr", "ptr_to_bytes"], ["himpi", "fv"]
    eight = ["finalize_reference", "get_cann_version"]
    assert found == {
        "20.1": [], "5.0.2": [], "5.0.4": pointers, "6.0.0": pointers + media, "7.0.0": pointers + media,
        "8.0.0": pointers + media + eight, "9.0.0": [*pointers, *media, *eight, "get_version_str"],
    }  # fmt: skip


ARGUMENTS = r"""
import ctypes
class Index(object):
    def __init__(self, n): self.n = n
    def __index__(self): return self.n

def attempt(function, *args, **kw):
    try:
        return function(*args, **kw)
    except Exception as error:
        return "{}: {}".format(type(error).__name__, error)
"""


def test_keywords_are_refused(tmp_path: Path) -> None:
    """PYACL: every function is METH_VARARGS."""
    got = run_acl(
        ARGUMENTS
        + """
result = [attempt(acl.rt.malloc, size=4, policy=2), attempt(acl.init, config_path="x"),
    attempt(acl.finalize, a=1)]
""",
        tmp_path,
    ).result
    assert all(text.startswith("TypeError") and "takes no keyword arguments" in text for text in got)


def test_wrong_arguments_raise_with_the_name_of_the_api(tmp_path: Path) -> None:
    """PYACL CHECK_NULL(PyArg_ParseTuple(…), "<api name> args parse failed"): mdl's end with "!"."""
    got = run_acl(
        ARGUMENTS
        + """
result = [
    attempt(acl.rt.malloc), attempt(acl.rt.malloc, 1), attempt(acl.rt.malloc, 1, 2, 3),
        attempt(acl.rt.malloc, 1.0, 2),
    attempt(acl.rt.malloc, None, 2), attempt(acl.rt.malloc, Index(4), 2), attempt(acl.rt.malloc, 4, 1 << 31),
    attempt(acl.rt.malloc, 4, "2"), attempt(acl.init, 3), attempt(acl.init, "a\\0b"),
    attempt(acl.mdl.load_from_file, None), attempt(acl.mdl.execute, 1, 2), attempt(acl.app_log, 1, b"x"),
    attempt(acl.rt.set_op_execute_time_out, "a"), attempt(acl.mdl.load_with_config, "h"),
]
""",
        tmp_path,
    ).result
    malloc = "TypeError: acl.rt.malloc args parse failed"
    assert got == [malloc] * 8 + [
        "TypeError: acl.init args parse failed", "TypeError: acl.init args parse failed",
        "TypeError: acl.mdl.load_from_file args parse failed!",
            "TypeError: acl.mdl.execute args parse failed!",
        "TypeError: acl.app_log args parse failed",
            "TypeError: acl.rt.set_op_execute_timeout args parse failed!",
        "TypeError: acl.mdl.load_with_config args parse failed",
    ]  # fmt: skip


def test_numpy_integers_fit_where_the_format_is_i_and_not_where_it_is_k(tmp_path: Path) -> None:
    """CPython PyArg_ParseTuple: ``k`` wants PyLong_Check, ``i`` takes ``__index__``."""
    got = run_acl(
        ARGUMENTS
        + """
import numpy
up()
result = [attempt(acl.rt.malloc, numpy.int64(8), 2), attempt(acl.rt.malloc, 8, numpy.int64(2))[1],
          attempt(acl.rt.malloc, 8, Index(2))[1], attempt(acl.rt.malloc, True, 2)[1],
              attempt(acl.data_type_size, 1.0)]
""",
        tmp_path,
    ).result
    assert got == [
        "TypeError: acl.rt.malloc args parse failed", 0, 0, 0,
            "TypeError: acl.data_type_size args parse failed",
    ]  # fmt: skip


def test_negative_sizes_and_pointers_wrap_around(tmp_path: Path) -> None:
    """PYACL format ``k`` has no overflow check; memory.cpp GetAlignedAndPaddingSize tells an overflowing
    sum (100000)
    from a size that no device has (207001)."""
    got = run_acl(
        """
        up()
        buffer = acl.create_data_buffer(-1, -1)
        result = [acl.rt.malloc(-1, 2), acl.rt.malloc(-4096, 2), acl.rt.malloc(0, 2),
            acl.get_data_buffer_addr(buffer),
                  acl.get_data_buffer_size(buffer), acl.get_data_buffer_size_v2(buffer),
                  acl.mdl.get_input_size_by_index(acl.mdl.create_desc(), -1)]
        """,
        tmp_path,
    ).result
    assert got == [[0, 100000], [0, 207001], [0, 100000], 2**64 - 1, 2**32 - 1, 2**64 - 1, 0]


def test_functions_without_parameters_ignore_arguments(tmp_path: Path) -> None:
    """PYACL: ``PyObject* /* args */`` is never parsed; zixfy/pyACL-inference calls
    synchronize_device(device_id)."""
    got = run_acl(
        """
        up()
        result = [acl.rt.synchronize_device(0), acl.rt.create_stream(0)[1], acl.mdl.create_desc("x") > 0,
                  acl.mdl.create_dataset(1, 2) > 0, acl.rt.get_run_mode(9)[1], acl.finalize("now")]
        """,
        tmp_path,
    ).result
    assert got == [0, 0, True, True, 0, 0]


def test_data_type_sizes(tmp_path: Path) -> None:
    """hicann/runtime aclDataTypeSize: unknown types have 8 bytes."""
    got = run_acl("result = {t: acl.data_type_size(t) for t in list(range(-1, 38))}", tmp_path).result
    known = {-1: 0, 13: 0, 12: 1, 2: 1, 4: 1, 1: 2, 6: 2, 7: 2, 27: 2, 0: 4, 3: 4, 8: 4, 17: 16}
    assert {int(key): value for key, value in got.items()} == {t: known.get(t, 8) for t in range(-1, 38)}


def test_float16_conversion(tmp_path: Path) -> None:
    """PYACL acl.float16_to_float, acl.float_to_float16 (IEEE 754 half precision)."""
    got = run_acl(
        "result = [acl.float_to_float16(v) for v in (1.0, -2, 65504.0, 1e9, 5.9604645e-08)] + "
        "[acl.float16_to_float(b) for b in (0x3C00, 0xC000, 0x7BFF, 0x0001)]",
        tmp_path,
    ).result
    assert got == [0x3C00, 0xC000, 0x7BFF, 0x7C00, 0x0001, 1.0, -2.0, 65504.0, 2.0**-24]


def test_names_of_the_board(tmp_path: Path) -> None:
    """PYACL: get_version is a 4-tuple, get_soc_name a bare string, get_cann_version (dict, ret)."""
    got = run_acl(
        """
        result = [acl.get_soc_name(), len(acl.get_version()), acl.get_version()[3], acl.get_cann_version(0),
                  acl.get_version_str('runtime'), acl.get_recent_err_msg()]
        """,
        tmp_path,
        {"soc_version": "Ascend310B4", "cann_version": "9.0.0", "run_mode": "EP"},
    ).result
    version = {
        "version": "9.0.0", "major_version": "9", "minor_version": "0", "release_version": "0",
            "patch_version": "0",
        "reserved": "",
    }  # fmt: skip
    assert got == ["Ascend310B4", 4, 0, [version, 0], ["9.0.0", 0], None]


@pytest.mark.parametrize("call", ["media.dvpp_jpeg_decode_async", "op.execute_v2", "blas.gemm_ex",
    "prof.start",
                                  "himpi.sys_init", "fv.init", "rt.launch_kernel", "mdl.bundle_load_from_file",
                                  "rt.create_notify", "rt.host_get_device_pointer"])  # fmt: skip
def test_what_is_not_simulated_says_which_function(call: str, tmp_path: Path) -> None:
    """The parts that need the chip's picture and operator units, and the newest of pyrt_methods.cpp (PYACL), exist by
    name only."""
    module, name = call.split(".")
    got = run_acl(
        f"""
        try:
            acl.{module}.{name}(1, 2)
        except NotImplementedError as error:
            result = str(error)
        """,
        tmp_path,
        {"cann_version": "8.5.0"},
    ).result
    assert got.startswith(f"acl.{module}.{name} is not simulated")


@pytest.mark.parametrize(("version", "folder"), [("5.0.4", "plog"), ("5.1.RC1", "debug/plog"), ("9.0.0", "debug/plog")])
def test_app_log_goes_where_its_generation_logs(version: str, folder: str, tmp_path: Path) -> None:
    """Log reference of 5.0.4: $HOME/ascend/log/plog/plog-<pid>_*.log, later ones: log/debug/plog; lines are
    ``[Level] Module(PID,PName):time [file:line]text``. ASCEND_GLOBAL_LOG_LEVEL, ASCEND_SLOG_PRINT_TO_STDOUT and
    ASCEND_PROCESS_LOG_PATH, each as there."""
    program = "result = [acl.app_log(3, 'bad thing'), acl.app_log(3, 'worse'), acl.app_log(1, 'fine'), os.getpid()]"
    quiet = run_acl(program, tmp_path, {"cann_version": version})
    assert quiet.result[:3] == [None, None, None]
    assert "bad thing" not in quiet.stdout
    (log,) = tmp_path.rglob("plog-*.log")
    assert log.parent == tmp_path / "ascend" / "log" / folder
    pid = quiet.result[3]
    assert re.fullmatch(rf"plog-{pid}_\d{{17}}\.log", log.name)
    lines = log.read_text().splitlines()
    assert [line.rpartition("]")[2] for line in lines] == ["bad thing", "worse"]
    stamp = r"\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d\.\d{3}\.\d{3}"
    assert re.match(rf"\[ERROR\] APP\({pid},python[^)]*\):{stamp} \[program\.py:\d+\]bad thing", lines[0])
    log.unlink()
    loud = run_acl(program, tmp_path, environment={"ASCEND_SLOG_PRINT_TO_STDOUT": "1"})
    assert "[ERROR] APP(" in loud.stdout
    assert "bad thing" in loud.stdout
    assert "fine" not in loud.stdout
    assert list(tmp_path.rglob("plog-*.log")) == []
    run_acl(program, tmp_path, {"cann_version": version},
            environment={"ASCEND_PROCESS_LOG_PATH": str(tmp_path / "own"), "ASCEND_GLOBAL_LOG_LEVEL": "1"})  # fmt: skip
    (log,) = (tmp_path / "own" / folder).glob("plog-*.log")
    assert "[INFO] APP(" in log.read_text()


def test_tensor_descriptions(tmp_path: Path) -> None:
    """PYACL acl.create_tensor_desc and its getters."""
    got = run_acl(
        """
        d = acl.create_tensor_desc(1, [1, 3, 4, 5], 0)
        acl.set_tensor_desc_name(d, "t")
        t, ret = acl.trans_tensor_desc_format(d, 1)
        result = [acl.get_tensor_desc_type(d), acl.get_tensor_desc_format(d), acl.get_tensor_desc_size(d),
                  acl.get_tensor_desc_element_count(d), acl.get_tensor_desc_num_dims(d),
                      acl.get_tensor_desc_dim(d, 1),
                  acl.get_tensor_desc_dim_v2(d, 9), acl.get_tensor_desc_name(d), ret,
                  [acl.get_tensor_desc_dim(t, i) for i in range(4)], acl.destroy_tensor_desc(d),
                  acl.set_tensor_shape_range(t, [[1, 2], [3, 3]]), acl.get_tensor_desc_dim_range(t, 0, 2)]
        """,
        tmp_path,
    ).result
    assert got == [1, 0, 120, 60, 4, 3, [-1, 100000], "t", 0, [1, 4, 5, 3], None, 0, [[1, 2], 0]]
