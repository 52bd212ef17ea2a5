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


@pytest.mark.parametrize("code", [507011, 507014, 507015, 507018, 507899])
def test_execute_fails_as_told(code: int, tmp_path: Path) -> None:
    """rt_error_codes.h: what a chip reports when a model fails (507015: AI core exception)."""
    write_simple(tmp_path / "net.om")
    program = RUNS + "\n    result.append(acl.get_recent_err_msg().split(':')[0])"
    got = run_acl(program, tmp_path, {"faults": {"execute_error": code}}).result
    assert got == [code] * 6 + ["EZ9999"]


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
