"""Faults from the board's description, the problem log, strict mode, and the end of a process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from acl_support import run_acl, write_simple

RUNS = """
    up()
    model, desc = load("net.om")
    ins, outs = dataset((put(bytes(bytearray(16))), 16)), dataset((malloc(16), 16))
    result = [acl.mdl.execute(model, ins, outs) for _ in range(6)]
    """


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (507000, "runtime internal error"),
        (507011, "model execute failed"),
        (507014, "aicore timeout"),
        (507015, "aicore exception"),
        (507017, "aicpu timeout"),
        (507018, "aicpu exception"),
        (507033, "device start-up failed"),
        (507899, "driver error: internal error"),
        (507901, "hdc disconnect"),
    ],
)
def test_execute_fails_as_told(code: int, meaning: str, tmp_path: Path) -> None:
    """rt_error_codes.h: what a chip reports when a model fails (507015: AI core exception)."""
    write_simple(tmp_path / "net.om")
    program = RUNS + "\n    result.append(acl.get_recent_err_msg())"
    *codes, message = run_acl(program, tmp_path, {"faults": {"execute_error": code}}).result
    assert codes == [code] * 6
    assert message.startswith("EZ9999: ")
    assert meaning in message


def test_every_nth_execute_fails(tmp_path: Path) -> None:
    """The same, now and then."""
    write_simple(tmp_path / "net.om")
    got = run_acl(RUNS, tmp_path, {"faults": {"execute_error": 507015, "execute_error_every": 3}}).result
    assert got == [0, 0, 507015, 0, 0, 507015]


def test_a_lost_device_stays_lost(tmp_path: Path) -> None:
    """rt_error_codes.h 507010 (lost heartbeat): every call that needs the device fails from then on."""
    write_simple(tmp_path / "net.om")
    more = """
    result += [acl.rt.malloc(8, 2), acl.rt.synchronize_device(), acl.rt.set_device(0),
        acl.mdl.load_from_file("net.om"),
               acl.rt.create_stream(), acl.get_recent_err_msg().split("\\n")[0], acl.rt.reset_device(0),
                   acl.finalize()]
    """
    got = run_acl(RUNS + more, tmp_path, {"faults": {"lose_device_after": 4}}).result
    assert got[:6] == [0, 0, 0, 507010, 507010, 507010]
    assert got[6:11] == [[0, 507010], 507010, 507010, [0, 507010], [0, 507010]]
    assert "lost heartbeat" in got[11]
    assert got[12:] == [0, 0]


def test_errors_of_a_stream_come_out_at_synchronize(tmp_path: Path) -> None:
    """PYDOC: execute_async succeeds, synchronize_stream brings the task's error; the exception callback
    hears of it."""
    write_simple(tmp_path / "net.om")
    got = run_acl(
        """
        up()
        _, stream = context_and_stream()
        model, desc = load("net.om")
        heard = []
        def callback(info):
            heard.append([acl.rt.get_error_code_from_exception_info(info),
                acl.rt.get_device_id_from_exception_info(info),
                          acl.rt.get_task_id_from_exception_info(info) > 0])
        acl.rt.set_exception_info_callback(callback)
        ins, outs = dataset((put(bytes(bytearray(16))), 16)), dataset((malloc(16), 16))
        result = [acl.mdl.execute_async(model, ins, outs, stream), acl.rt.synchronize_stream(stream),
                  acl.get_recent_err_msg(), acl.rt.synchronize_stream(stream), heard,
                  acl.rt.set_exception_info_callback(), acl.rt.get_error_code_from_exception_info(1)]
        """,
        tmp_path,
        {"faults": {"execute_error": 507015}},
    ).result
    assert got[:2] == [0, 507015]
    assert "aicore exception" in got[2]
    assert got[3:] == [0, [[507015, 0, True]], 0, 0xFFFFFFFF]


CLEAN = """
    up()
    context, stream = context_and_stream()
    result = infer("net.om", bytes(bytearray(16)))
    acl.rt.destroy_stream(stream); acl.rt.destroy_context(context)
    down()
    """


def test_a_clean_program_leaves_no_log_and_passes_strict_mode(tmp_path: Path) -> None:
    """Nothing to say: no file, status 0."""
    write_simple(tmp_path / "net.om")
    got = run_acl(CLEAN, tmp_path, environment={"ACL_SIM_STRICT": "1"})
    assert (got.status, got.problems, got.stderr) == (0, [], "")
    assert got.result == [np.ones(4, "f").tobytes()]
    assert not (tmp_path / "state").exists()


def test_leaks_are_listed_and_fail_strict_mode_only(tmp_path: Path) -> None:
    """What is not released is the driver's to clean up on hardware; a long-running program starves."""
    write_simple(tmp_path / "net.om")
    program = """
        up()
        context, stream = context_and_stream()
        model, desc = load("net.om")
        for _ in range(3):
            acl.rt.malloc(100, 2)
        buffer = acl.create_data_buffer(0, 0)
        """
    relaxed = run_acl(program, tmp_path)
    assert relaxed.status == 0
    assert relaxed.stderr == ""
    expected = ["1 context(s)", "1 stream(s)", "1 model(s)", "1 model description(s)", "1 data buffer(s)",
                "300 bytes of device memory in 3 block(s) (allocated at program.py:",
                    "device 0 was never reset",
                "acl.finalize was never called"]  # fmt: skip
    for text in expected:
        assert any(text in line for line in relaxed.problems), (text, relaxed.problems)
    strict = run_acl(program, tmp_path, environment={"ACL_SIM_STRICT": "1"}, check=False)
    assert strict.status == 1
    assert strict.result == {}  # the output was written before
    assert all(text in strict.stderr for text in expected)


RUN = """
    model, desc = load("net.om")
    p, q = malloc({p}), malloc({q})
    ins, outs = dataset((p, {size})), dataset((q, 16))
    """
DONE = """
    acl.mdl.destroy_desc(desc)
    """
RELEASED = """
    drop(ins); drop(outs)
    acl.mdl.unload(model)
    """
SLIPS = {
    # Reading and writing past a buffer.
    "memcpy (src) goes 34 bytes past the end of the 16 bytes": "p, q = malloc(16), malloc(99)\n"
    "acl.rt.memcpy(q, 99, p, 50, 3)\nacl.rt.free(p)\nacl.rt.free(q)",
    "memcpy (dst) goes 34 bytes past the end of the 16 bytes": "p, q = malloc(16), malloc(99)\n"
    "acl.rt.memcpy(p, 50, q, 50, 3)\nacl.rt.free(p)\nacl.rt.free(q)",
    "memcpy2d (src) goes 4 bytes past": "p, q = malloc(16), malloc(99)\n"
    "acl.rt.memcpy2d(q, 10, p, 10, 10, 2, 4)\nacl.rt.free(p)\nacl.rt.free(q)",
    "memset goes 34 bytes past the end of the 16": "p = malloc(16)\nacl.rt.memset(p, 50, 0, 50)\nacl.rt.free(p)",
    "ptr_to_bytes goes 34 bytes past": "p = malloc(16)\nacl.util.ptr_to_bytes(p, 50)\nacl.rt.free(p)",
    "ptr_to_numpy goes 34 bytes past": "p = malloc(16)\nacl.util.ptr_to_numpy(p, (50,), 2)\nacl.rt.free(p)",
    "42 bytes past the end of a bytes object of 16": "data, q = bytes(bytearray(16)), malloc(99)\n"
    "acl.rt.memcpy(q, 99, acl.util.bytes_to_ptr(data) + 8, 50, 3)\nacl.rt.free(q)",
    "46 bytes past the end of a NumPy array": "import numpy\na, q = numpy.zeros((2, 4), 'uint8'), malloc(99)\n"
    "assert acl.rt.memcpy(q, 99, acl.util.numpy_to_ptr(a[0]), 8, 3) == 0\n"
    "acl.rt.memcpy(q, 99, acl.util.numpy_to_ptr(a[1]), 50, 3)\nacl.rt.free(q)",
    "input 0, goes 8 bytes past the end of the 8 bytes": RUN.format(p=8, q=16, size=16)
    + "assert acl.mdl.execute(model, ins, outs) == 0" + RELEASED + DONE,
    "output 0, goes 8 bytes past the end of the 8 bytes": RUN.format(p=16, q=8, size=16)
    + "assert acl.mdl.execute(model, ins, outs) == 0" + RELEASED + DONE,
    "input 0 of acl.mdl.execute has 8 bytes, the model uses 16": RUN.format(p=16, q=16, size=8)
    + "assert acl.mdl.execute(model, ins, outs) == 0" + RELEASED + DONE,
    # What is freed, and what was freed.
    "acl.rt.free of memory that was freed already (16 bytes": "p = malloc(16)\nacl.rt.free(p)\nacl.rt.free(p)",
    "acl.rt.free_host of memory that was freed already": "p = acl.rt.malloc_host(16)[0]\n"
    "acl.rt.free_host(p)\nacl.rt.free_host(p)",
    "which is device, not host memory": "p = malloc(16)\nacl.rt.free_host(p)\nacl.rt.free(p)",
    "memset uses memory that was freed": "p = malloc(64)\nacl.rt.free(p)\nacl.rt.memset(p, 16, 0, 16)",
    "memset uses memory that is not allocated any more": "p = malloc(64)\nacl.rt.free(p)\n"
    "acl.rt.memset(p + 16, 16, 0, 16)",
    "input 0, uses memory that was freed before its stream was synchronised": RUN.format(p=16, q=16, size=16)
    + "acl.mdl.execute_async(model, ins, outs, 0)\nacl.rt.free(p)\nacl.rt.synchronize_stream(0)\n"
    "acl.rt.free(q)\ndrop(ins, False); drop(outs, False)\nacl.mdl.unload(model)" + DONE,
    "unloaded before the stream that runs it was synchronised": RUN.format(p=16, q=16, size=16)
    + "acl.mdl.execute_async(model, ins, outs, 0)\nacl.mdl.unload(model)\nacl.rt.synchronize_stream(0)\n"
    "drop(ins); drop(outs)" + DONE,
    ", which was unloaded already": RUN.format(p=16, q=16, size=16) + RELEASED
    + "acl.mdl.unload(model)" + DONE,
    # A wrong order.
    "context destroyed before its stream": "c, s = context_and_stream()\nacl.rt.destroy_context(c)\n"
    "acl.rt.set_device(0)\nacl.rt.reset_device(0)",
    "context destroyed before its event": "c = acl.rt.create_context(0)[0]\ne = acl.rt.create_event()[0]\n"
    "acl.rt.destroy_context(c)\nacl.rt.set_device(0)\nacl.rt.destroy_event(e)\nacl.rt.reset_device(0)",
    "context destroyed before its model": "c = acl.rt.create_context(0)[0]\nm, desc = load('net.om')\n"
    "acl.rt.destroy_context(c)\nacl.rt.set_device(0)\nacl.mdl.unload(m)\nacl.rt.reset_device(0)" + DONE,
    "reset before the stream": "s = acl.rt.create_stream()[0]\nacl.rt.reset_device(0)\nacl.rt.set_device(0)",
    "reset before the event": "e = acl.rt.create_event()[0]\nacl.rt.reset_device(0)\nacl.rt.set_device(0)\n"
    "acl.rt.destroy_event(e)",
    "destroyed before unsubscribe_report": "s = acl.rt.create_stream()[0]\n"
    "acl.rt.subscribe_report(threading.get_ident(), s)\nacl.rt.destroy_stream(s)",
}


def test_slips_that_hardware_lets_pass_are_noted_and_fail_strict_mode(tmp_path: Path) -> None:
    """Each is undefined behaviour or a leak for the real runtime, which says nothing (ACLRT memory.cpp, PYDOC on
    the order of release): a line with the place in the program, and status 1 in strict mode."""
    write_simple(tmp_path / "net.om")
    program = "acl.init()\n"
    for number, slip in enumerate(SLIPS.values()):
        rows = "\n".join(row.strip() for row in slip.splitlines())
        program += f"acl.rt.set_device(0)\n{rows}\nacl.rt.reset_device(0)\nresult['{number}'] = 'passed'\n"
    got = run_acl(
        program + "acl.finalize()\n",
        tmp_path,
        {"faults": {"slow_ms": 50}},
        environment={"ACL_SIM_STRICT": "1"},
        check=False,
    )
    assert got.result is not None, got.stderr
    assert len(got.result) == len(SLIPS)
    assert got.status == 1
    for line in SLIPS:
        assert any(line in problem and "program.py:" in problem for problem in got.problems), line


def test_objects_released_twice_and_not_at_all_fail_strict_mode(tmp_path: Path) -> None:
    """Handles are pointers: the real library frees the same memory again."""
    write_simple(tmp_path / "net.om")
    program = """
        up()
        made = {"data buffer": (acl.create_data_buffer(1, 1), acl.destroy_data_buffer),
                "dataset": (acl.mdl.create_dataset(), acl.mdl.destroy_dataset),
                "model description": (acl.mdl.create_desc(), acl.mdl.destroy_desc),
                "tensor description": (acl.create_tensor_desc(0, [1], 0), acl.destroy_tensor_desc),
                "AIPP": (acl.mdl.create_aipp(1), acl.mdl.destroy_aipp),
                "model configuration": (acl.mdl.create_config_handle(), acl.mdl.destroy_config_handle),
                "event": (acl.rt.create_event()[0], acl.rt.destroy_event),
                "stream": (acl.rt.create_stream()[0], acl.rt.destroy_stream)}
        for handle, destroy in made.values():
            if TWICE:
                destroy(handle); destroy(handle)
        result = sorted(made)
        down()
        """
    for twice in ("True", "False"):
        got = run_acl(program.replace("TWICE", twice), tmp_path, environment={"ACL_SIM_STRICT": "1"}, check=False)
        assert got.status == 1
        for kind in got.result:
            if twice == "False":
                assert any(f"leaked at exit: 1 {kind}(s)" in line for line in got.problems), kind
        assert sum("was destroyed; hardware would" in line for line in got.problems) == 8 * (twice == "True")


def test_what_a_lost_device_keeps_is_not_the_program_s_leak(tmp_path: Path) -> None:
    """After 507010 nothing on the device can be released; what the host holds still can."""
    write_simple(tmp_path / "net.om")
    program = """
        up()
        context, stream = context_and_stream()
        event = acl.rt.create_event()[0]
        model, desc = load("net.om")
        ins, outs = dataset((put(bytes(16)), 16)), dataset((malloc(16), 16))
        codes = [acl.mdl.execute(model, ins, outs), acl.mdl.unload(model), acl.rt.destroy_stream(stream)]
        KEEP
        acl.mdl.destroy_desc(desc)
        acl.rt.reset_device(0)
        result = codes + [acl.finalize()]
        """
    for keep, problems in (("drop(ins, False); drop(outs, False)", []), ("drop(ins, False)", ["data buf", "dataset"])):
        got = run_acl(
            program.replace("KEEP", keep),
            tmp_path,
            {"faults": {"lose_device_after": 1}},
            environment={"ACL_SIM_STRICT": "1"},
            check=False,
        )
        assert got.result == [507010, 507010, 507010, 0]
        assert len(got.problems) == len(problems), got.problems
        assert all(word in line for word, line in zip(problems, got.problems, strict=True))
        assert got.status == (1 if problems else 0)


def test_reset_and_finalize_too_early_are_noted(tmp_path: Path) -> None:
    """PYDOC: finalize comes last, after everything was released."""
    write_simple(tmp_path / "net.om")
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        p = malloc(8)
        result = [acl.finalize(), acl.rt.reset_device(0), acl.rt.free(p), acl.mdl.unload(model)]
        """,
        tmp_path,
    )
    assert got.result == [0, 0, 107002, 107002]
    assert any("acl.finalize while 1" in line for line in got.problems)
    assert any("reset before the model" in line for line in got.problems)
    assert any("reset with 8 bytes in 1 block(s)" in line for line in got.problems)


@pytest.mark.parametrize("where", ["global", "cycle", "module function"])
def test_destructors_after_the_modules_were_cleared_work(where: str, tmp_path: Path) -> None:
    """CPython clears modules before the last destructors; real programs of Ascend/samples release there.

    What is still reachable of pyACL has to work as the C functions do, and what is released there is no leak.
    """
    write_simple(tmp_path / "net.om")
    program = """
        up()
        context, stream = context_and_stream()
        class Resource(object):
            def __init__(self):
                self.rt, self.mdl, self.acl = acl.rt, acl.mdl, acl
                self.free, self.unload, self.reset = acl.rt.free, acl.mdl.unload, acl.rt.reset_device
                self.destroy, self.stream, self.context = acl.rt.destroy_stream, stream, context
                self.destroy_context, self.drop = acl.rt.destroy_context, acl.mdl.destroy_desc
                self.finalize = acl.finalize
                self.model, self.desc = load("net.om")
                self.pointer = malloc(100)
                self.write = os.write
                assert acl.rt.memset_async(self.pointer, 100, 1, 100, stream) == 0
            def __del__(self):
                codes = [self.free(self.pointer), self.unload(self.model), self.drop(self.desc),
                         self.destroy(self.stream), self.destroy_context(self.context), self.reset(0),
                         self.finalize(), self.finalize()]
                self.write(1, ("TEARDOWN %s\\n" % codes).encode())
        resource = Resource()
        assert acl.rt.synchronize_stream(stream) == 0
        KEEP
        """.replace(
        "KEEP",
        {
            "global": "pass",
            "cycle": "resource.self = resource; del resource",
            "module function": "threading.keep = resource; del resource",
        }[where],
    )
    got = run_acl(program, tmp_path, environment={"ACL_SIM_STRICT": "1"})
    assert "TEARDOWN [0, 0, 0, 0, 0, 0, 0, 100037]" in got.stdout
    assert (got.stderr, got.problems) == ("", [])


def test_ending_with_work_in_a_stream_is_noted_and_ends(tmp_path: Path) -> None:
    """A program that never synchronises ends all the same."""
    write_simple(tmp_path / "net.om")
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        ins, outs = dataset((put(bytes(bytearray(16))), 16)), dataset((malloc(16), 16))
        result = acl.mdl.execute_async(model, ins, outs, 0)
        """,
        tmp_path,
        {"faults": {"slow_ms": 300}},
    )
    assert got.result == 0
    assert any("never synchronised" in line for line in got.problems)
