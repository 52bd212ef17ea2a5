"""Memory: sizes, copies, limits, RC against EP.

ACLRT memory.cpp is hicann/runtime ``src/acl/aclrt_impl/memory.cpp``; PYACL ``python/pyACL``.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from acl_support import run_acl, write_simple


def test_bytes_move_through_true_addresses(tmp_path: Path) -> None:
    """PYACL bytes_convert.cpp: bytes_to_ptr is the buffer itself; acllite copies *into* an immutable bytes
    object."""
    got = run_acl(
        """
        import ctypes
        up()
        data = bytes(bytearray(range(256)))
        pointer = put(data)
        target = bytes(bytearray(256))
        acl.rt.memcpy(acl.util.bytes_to_ptr(target), 256, pointer, 256, TO_HOST)
        result = [ctypes.string_at(acl.util.bytes_to_ptr(data), 256) == data, target == data,
                  acl.util.ptr_to_bytes(acl.util.bytes_to_ptr(data) + 3, 4)]
        try:
            acl.util.bytes_to_ptr(bytearray(3))
        except ValueError as error:
            result.append(str(error))
        """,
        tmp_path,
    ).result
    assert got == [True, True, b"\3\4\5\6", "needs an byte as argument"]


@pytest.mark.parametrize(("version", "warned"), [("20.1", 0), ("5.0.2", 0), ("5.0.4", 3), ("9.0.0", 3)])
def test_numpy_warnings_come_with_what_replaces_it(version: str, warned: int, tmp_path: Path) -> None:
    """PYACL numpy_convert.cpp names bytes_to_ptr, which CANN up to 5.0.2 does not have; the warning about an array
    that is not C-contiguous is PyArray_ISCONTIGUOUS."""
    got = run_acl(
        """
        import numpy, warnings
        up()
        a = numpy.zeros((2, 3), numpy.float32)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pointer = acl.util.numpy_to_ptr(a)
            acl.util.numpy_contiguous_to_ptr(a)
            acl.util.ptr_to_numpy(pointer, (6,), 11)
            deprecated = len(caught)
            acl.util.numpy_to_ptr(a.T)
        result = [deprecated, sum("discontiguous" in str(each.message) for each in caught)]
        """,
        tmp_path,
        {"cann_version": version},
    ).result
    assert got == [warned, 1]


def test_numpy_views(tmp_path: Path) -> None:
    """PYACL numpy_convert.cpp: ptr_to_numpy is a writeable view without copy; numpy_to_ptr warns that it
    goes away."""
    got = run_acl(
        """
        import numpy, warnings
        up()
        a = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            p = acl.util.numpy_to_ptr(a)
            view = acl.util.ptr_to_numpy(p, (3, 2), 11)
            q, c = acl.util.numpy_contiguous_to_ptr(a.T)
            acl.util.numpy_to_ptr(a[:, ::2])
        same = c.tolist() == a.T.tolist()
        view[0, 1] = 42
        half = acl.util.ptr_to_numpy(p, (12,), 23)
        result = [p == a.ctypes.data, a.tolist(), q == c.ctypes.data, same, str(half.dtype),
                  [str(w.message) for w in caught], [os.path.basename(w.filename) for w in caught]]
        for bad in ((p, [3, 2], 11), (p, (2.0,), 11)):
            try:
                acl.util.ptr_to_numpy(*bad)
            except (ValueError, TypeError) as error:
                result.append(type(error).__name__)
        """,
        tmp_path,
    ).result
    assert got[:5] == [True, [[0, 42, 2], [3, 4, 5]], True, True, "float16"]
    assert got[5][0] == "acl.util.numpy_to_ptr will be deprecated. Please use acl.util.bytes_to_ptr instead."
    assert "discontiguous" in got[5][4]
    assert set(got[6]) == {"program.py"}
    assert got[7:] == ["ValueError", "TypeError"]


@pytest.mark.parametrize(
    ("function", "sizes"),
    [
        ("malloc", {1: 64, 32: 64 + 32, 33: 96, 1000: 1056}),
        ("malloc_align32", {1: 32, 32: 32, 33: 64, 1000: 1024}),
    ],
)
def test_sizes_are_rounded_up(function: str, sizes: dict[int, int], tmp_path: Path) -> None:
    """ACLRT memory.cpp GetAlignedAndPaddingSize: (size + 32 + padding - 1) // 32 * 32, padding 32 or none."""
    got = run_acl(
        f"""
        up()
        result = dict()
        for size in {list(sizes)}:
            before = acl.rt.get_mem_info(0)[0]
            pointer, ret = acl.rt.{function}(size, 2)
            result[size] = before - acl.rt.get_mem_info(0)[0]
            acl.rt.free(pointer)
            assert acl.rt.get_mem_info(0)[0] == before
        """,
        tmp_path,
        {"cann_version": "7.0.0"},
    ).result
    expected = {str(size): (size + 32 + (32 if function == "malloc" else 0) - 1) // 32 * 32 for size in sizes}
    assert got == expected


def test_memory_is_what_the_board_has(tmp_path: Path) -> None:
    """PYDOC aclError 207001; the fault ``memory_mb`` takes some away; in RC mode host memory is the
    chip's, too. What npu-smi shows as used by the system (65 % on a 200 DK, 33 % on its cards) is not free."""
    program = """
        up()
        mib = 1 << 20
        result = [acl.rt.get_mem_info(0), acl.rt.malloc(64 * mib, 0)[1], acl.rt.malloc(64 * mib, 0)]
        result += [acl.get_recent_err_msg(), acl.rt.malloc_host(60 * mib)[1], acl.rt.get_mem_info(1),
            acl.rt.get_mem_info(99)]
        """
    got = run_acl(program, tmp_path, {"memory_mb": 286}).result
    assert got[:3] == [[101 << 20, 286 << 20, 0], 0, [0, 207001]]
    assert "Available memory is insufficient" in got[3]
    assert got[4:] == [207001, [0, 0, 0], [0, 0, 107000]]
    got = run_acl(
        program, tmp_path, {"memory_mb": 8192, "faults": {"memory_mb": 100}, "run_mode": "EP"}
    ).result
    assert got[:2] == [[67 << 20, 100 << 20, 0], 0]
    assert got[4] == 0


def test_free_rules(tmp_path: Path) -> None:
    """ACLRT memory.cpp: free(0) is 100000; what was not allocated, or freed already, is refused by the
    runtime."""
    got = run_acl(
        """
        up()
        p, h = malloc(10), acl.rt.malloc_host(10)[0]
        result = [acl.rt.free(0), acl.rt.free_host(0), acl.rt.free(p + 1), acl.rt.free(h),
            acl.rt.free_host(p),
                  acl.rt.free(p), acl.rt.free(p), acl.rt.free_host(h), acl.rt.free_host(h)]
        """,
        tmp_path,
    )
    assert got.result == [100000, 100000, 107000, 107000, 107000, 0, 107000, 0, 107000]
    assert sum("freed already" in line for line in got.problems) == 2
    assert any("acl.rt.free of" in line and "program.py:" in line for line in got.problems)


def test_memcpy_checks_its_arguments(tmp_path: Path) -> None:
    """ACLRT memory.cpp: null is 100000, a kind outside the enumeration 100000, count above destMax 107000."""
    got = run_acl(
        """
        up()
        a, b = put(b"0123456789abcdef"), malloc(16)
        result = [acl.rt.memcpy(0, 16, a, 16, 3), acl.rt.memcpy(b, 16, 0, 16, 3), acl.rt.memcpy(b, 8, a,
            16, 3),
                  acl.rt.memcpy(b, 16, a, 16, 9), acl.rt.memcpy(b, 16, a, 16, -1), acl.rt.memcpy(b, 16, a,
                      0, 3),
                  acl.rt.memcpy(b, 16, a, 16, 3), get(b, 16), acl.rt.memset(b, 16, 65, 4), acl.rt.memset(b,
                      2, 0, 4),
                  acl.rt.memset(0, 2, 0, 2), get(b, 6)]
        """,
        tmp_path,
    ).result
    assert got == [
        100000, 100000, 107000, 100000, 100000, 107000, 0, b"0123456789abcdef", 0, 107000, 100000, b"AAAA45",
    ]  # fmt: skip


def test_memcpy2d(tmp_path: Path) -> None:
    """ACLRT memory.cpp CheckMemcpy2dParam: width above a pitch is 100000; kinds H2D, D2H and default only."""
    got = run_acl(
        """
        up()
        a, b = bytes(bytearray(range(16))), malloc(8)
        p = acl.util.bytes_to_ptr(a)
        result = [acl.rt.memcpy2d(b, 2, p, 4, 2, 4, 1), get(b, 8), acl.rt.memcpy2d(b, 1, p, 4, 2, 4, 1),
                  acl.rt.memcpy2d(b, 2, p, 4, 2, 4, 3)]
        """,
        tmp_path,
    ).result
    assert got == [0, bytes([0, 1, 4, 5, 8, 9, 12, 13]), 100000, 100000]


COPIES = """
    up()
    data = bytes(bytearray(8))
    host, device = acl.util.bytes_to_ptr(data), malloc(8)
    other = malloc(8)
    pinned = acl.rt.malloc_host(8)[0]
    result = {}
    for kind in range(5):
        result[str(kind)] = [acl.rt.memcpy(dst, 8, src, 8, kind) for dst, src in
                             ((pinned, host), (device, host), (host, device), (other, device))]
    """


def test_in_rc_mode_every_kind_of_copy_works_between_any_memory(tmp_path: Path) -> None:
    """In RC mode (PYDOC get_run_mode: ACL_DEVICE) program and chip share the memory."""
    assert run_acl(COPIES, tmp_path).result == {str(kind): [0, 0, 0, 0] for kind in range(5)}


def test_in_ep_mode_the_kind_must_fit_the_memory(tmp_path: Path) -> None:
    """PYDOC memcpy: H2H, H2D, D2H, D2D name the sides; 4 (default) finds them out itself."""
    no = 107000
    assert run_acl(COPIES, tmp_path, {"run_mode": "EP"}).result == {
        "0": [0, no, no, no], "1": [no, 0, no, no], "2": [no, no, 0, no], "3": [no, no, no, 0], "4": [0, 0,
            0, 0],
    }  # fmt: skip


@pytest.mark.parametrize(
    "touch", ["acl.util.ptr_to_bytes(p, 8)", "acl.util.ptr_to_numpy(p, (8,), 2)", "ctypes.string_at(p, 8)"]
)
def test_device_memory_of_an_ep_board_is_out_of_reach_of_the_host(touch: str, tmp_path: Path) -> None:
    """On an EP board a device address means nothing to the host: touching it is a segmentation fault."""
    got = run_acl(f"import ctypes\nup()\np = malloc(8)\n{touch}", tmp_path, {"run_mode": "EP"}, check=False)
    assert got.status == -signal.SIGSEGV
    if "acl.util" in touch:
        assert "simulated segmentation fault" in got.stderr
        assert any("touches device memory from the host" in line for line in got.problems)


def test_reading_past_a_block_is_noted_and_harmless(tmp_path: Path) -> None:
    """Hardware copies what lies behind the buffer without a word; here the log says by how much."""
    got = run_acl(
        """
        up()
        small, big = malloc(10), malloc(100)
        acl.rt.memset(big, 100, 7, 100)
        short = b"0123456789"
        result = [acl.rt.memcpy(big, 100, small, 50, 3),
                  acl.rt.memcpy(big, 100, acl.util.bytes_to_ptr(short), 20, TO_DEVICE), get(big, 12)[10:]]
        """,
        tmp_path,
    )
    assert got.result == [0, 0, b"\7\7"]
    assert any("40 bytes past the end of the 10 bytes" in line for line in got.problems)
    assert any("10 bytes past the end of a bytes object of 10" in line for line in got.problems)


@pytest.mark.parametrize("size", [40, 5000, 10 << 20])
def test_the_pointer_of_a_bytes_object_that_is_gone_is_noted(size: int, tmp_path: Path) -> None:
    """PYDOC bytes_to_ptr: the caller has to keep the object; ``bytes_to_ptr(a.tobytes())`` is the usual
    slip."""
    got = run_acl(
        f"""
        import numpy
        up()
        device = malloc({size})
        a = numpy.ones({size}, numpy.uint8)
        for _ in range(3):
            pointer = acl.util.bytes_to_ptr(a.tobytes())
            assert acl.rt.memcpy(device, {size}, pointer, {size}, TO_DEVICE) in (0, 507899)
        kept = a.tobytes()
        for _ in range(20):
            assert acl.rt.memcpy(device, {size}, acl.util.bytes_to_ptr(kept), {size}, TO_DEVICE) == 0
        """,
        tmp_path,
    )
    gone = [line for line in got.problems if "bytes object that is gone" in line]
    assert len(gone) == 1, "one line for each place in the program"


def test_use_after_free_is_noted(tmp_path: Path) -> None:
    """Hardware may give old bytes, other bytes, or a fault."""
    got = run_acl(
        "up()\na, b = malloc(64), malloc(64)\nacl.rt.free(a)\nresult = acl.rt.memcpy(b, 64, a, 64, 3)",
        tmp_path,
    )
    assert got.result == 0
    assert any("uses memory that was freed (64 bytes, from program.py:" in line for line in got.problems)


@pytest.mark.parametrize("mode", ["RC", "EP"])
def test_addresses_that_are_no_memory_are_errors_and_never_a_crash(mode: str, tmp_path: Path) -> None:
    """GE davinci_model.cc ZeroCopyInput: an input whose data is nullptr is an internal error, which
    AscendCL gives as 500002; a copy that the driver cannot do is 507899 (PYDOC ge/aclError.md, "driver
    internal error"). acl.util touches the memory in the program's own process: there hardware crashes, here
    it is a ValueError.
    """
    write_simple(tmp_path / "net.om")
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        good, data = malloc(16), bytes(16)
        after = malloc(16)
        assert acl.rt.free(after) == 0
        below = good - 4096 if not RC else 0x10000000
        result = {}
        for name, bad in (("null", 0), ("low", 4096), ("unmapped", below), ("never given", good + (1 << 28)),
                          ("kernel", (1 << 64) - 4096), ("wrapped", -16)):
            codes = [acl.mdl.execute(model, dataset((bad, 16)), dataset((good, 16))),
                     0 if bad == 0 else acl.mdl.execute(model, dataset((good, 16)), dataset((bad, 16))),
                     acl.rt.memcpy(good, 16, bad, 16, TO_DEVICE), acl.rt.memcpy(bad, 16, good, 16, TO_HOST),
                     acl.rt.memset(bad, 16, 0, 16), acl.mdl.load_from_mem(bad, 64)[1],
                     acl.rt.memcpy_async(bad, 16, good, 16, TO_HOST, 0) or acl.rt.synchronize_stream(0)]
            for call in (lambda: acl.util.ptr_to_bytes(bad, 16), lambda: acl.util.ptr_to_numpy(bad, (4,), 11)):
                try:
                    call()
                    codes.append(0)
                except ValueError:
                    codes.append(1)
            result[name] = codes
        text = acl.get_recent_err_msg()
        # A length that ends in memory which is not there, and nothing at all of it.
        result["long"] = [acl.rt.memcpy(good, 16, acl.util.bytes_to_ptr(data), 16, TO_DEVICE),
                          acl.rt.memcpy_async(good, 1 << 50, good + (1 << 29), 1 << 50, 3, 0)]
        result["text"] = text
        """,
        tmp_path,
        {"run_mode": mode, "soc_version": "Ascend310"},
    ).result
    assert "no memory of 16 bytes at 0x" in got.pop("text")
    assert got.pop("long") == [0, 0]
    null = got.pop("null")
    assert null[:6] == [500002, 0, 100000, 100000, 100000, 100000]
    assert null[7:] == [0, 0], "as PyBytes_FromStringAndSize(NULL, n) and NumPy do"
    for name, codes in got.items():
        assert codes == [507899] * 5 + [100000, 507899, 1, 1], name
