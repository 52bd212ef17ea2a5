"""Initialisation, devices, contexts, streams, events, callbacks, threads.

PYDOC is hicann/runtime ``python/docs``; ACLRT is ``src/acl/aclrt_impl`` of the same repository.
"""

from __future__ import annotations

import json
from pathlib import Path

from acl_support import run_acl


def test_init_once_and_finalize_once(tmp_path: Path) -> None:
    """ACLRT acl.cpp: second init 100002, second finalize 100037; before CANN 8 no init after finalize."""
    program = "result = [acl.init(), acl.init(), acl.finalize(), acl.finalize(), acl.init()]"
    assert run_acl(program, tmp_path).result == [0, 100002, 0, 100037, 100002]
    assert run_acl(program, tmp_path, {"cann_version": "8.0.0"}).result == [0, 100002, 0, 100037, 0]


def test_finalize_reference_counts_inits(tmp_path: Path) -> None:
    """ACLRT acl.cpp aclFinalizeReferenceImpl."""
    program = (
        "acl.init(); acl.init(); result = [acl.finalize_reference(), acl.finalize_reference(), "
        "acl.finalize_reference()]"
    )
    assert run_acl(program, tmp_path, {"cann_version": "8.0.0"}).result == [[1, 0], [0, 0], [0, 100037]]


def test_init_reads_its_configuration(tmp_path: Path) -> None:
    """PYDOC aclError: 100003 file not readable, 100006 not JSON; another content at a second init is
    100000."""
    (tmp_path / "good.json").write_text("{}")
    (tmp_path / "bad.json").write_text("{,}")
    (tmp_path / "other.json").write_text(json.dumps({"err_msg_mode": "1"}))
    got = run_acl(
        """
        result = [acl.init("missing.json"), acl.init("bad.json"), acl.init("good.json"), acl.finalize(),
                  acl.init("other.json")]
        """,
        tmp_path,
        {"cann_version": "8.0.0"},
    ).result
    assert got == [100003, 100006, 0, 0, 100000]


def test_run_mode_is_known_before_init(tmp_path: Path) -> None:
    """Ascend/samples acllite_image.py asks in a class body: 0 = ACL_DEVICE on RC boards, 1 = ACL_HOST on
    EP ones."""
    assert run_acl("result = acl.rt.get_run_mode()", tmp_path).result == [0, 0]
    assert run_acl("result = acl.rt.get_run_mode()", tmp_path, {"run_mode": "EP"}).result == [1, 0]


def test_without_a_device_there_is_no_context(tmp_path: Path) -> None:
    """PYDOC: 107002 (context null) before set_device."""
    got = run_acl(
        """
        acl.init()
        result = [acl.rt.get_device(), acl.rt.get_context(), acl.rt.create_stream(), acl.rt.create_event(),
                  acl.rt.malloc(8, 2), acl.rt.malloc_host(8), acl.rt.synchronize_device(), acl.rt.memcpy(1,
                      8, 2, 8, 0),
                  acl.mdl.load_from_file("nowhere.om"), acl.mdl.unload(1)]
        """,
        tmp_path,
    ).result
    assert got == [[0, 107002]] * 6 + [107002, 107002, [0, 107002], 107002]


def test_device_numbers(tmp_path: Path) -> None:
    """PYDOC: set_device outside the devices is 107001; an Atlas 300I has several chips."""
    got = run_acl(
        """
        acl.init()
        result = [acl.rt.get_device_count(), acl.rt.set_device(4), acl.rt.set_device(-1),
            acl.get_recent_err_msg(),
                  acl.rt.set_device(3), acl.rt.get_device(), acl.rt.create_context(9)]
        """,
        tmp_path,
        {"chips": 4, "run_mode": "EP"},
    ).result
    assert got[:3] == [[4, 0], 107001, 107001]
    assert "Invalid device ID -1" in got[3]
    assert "Invalid device ID 4" in got[3]
    assert got[4:] == [0, [3, 0], [0, 107001]]


def test_set_device_needs_the_group(tmp_path: Path) -> None:
    """PYDOC: 207006 no permission when the user is not in HwHiAiUser."""
    program = "acl.init(); result = [acl.rt.set_device(0), acl.get_recent_err_msg()]"
    code, text = run_acl(program, tmp_path, {"groups": ["users"], "user": "pi"}).result
    assert code == 207006
    assert "HwHiAiUser" in text
    assert run_acl(program, tmp_path, {"faults": {"no_permission": True}}).result[0] == 207006
    assert run_acl(program, tmp_path, {"groups": [], "user": "root"}).result[0] == 0


def test_set_device_and_reset_device_are_counted(tmp_path: Path) -> None:
    """PYDOC reset_device: the last of as many resets as sets destroys the default context."""
    got = run_acl(
        """
        up(); acl.rt.set_device(0)
        result = [acl.rt.reset_device(0), acl.rt.get_device(), acl.rt.reset_device(0), acl.rt.get_device()]
        """,
        tmp_path,
    ).result
    assert got == [0, [0, 0], 0, [0, 107002]]


def test_contexts_belong_to_threads(tmp_path: Path) -> None:
    """PYDOC set_context: a new thread has none (107002) until set_context or set_device."""
    got = run_acl(
        """
        up()
        context, stream = context_and_stream()
        seen = []
        def work():
            seen.append(acl.rt.get_context())
            seen.append(acl.rt.malloc(8, 2))
            seen.append(acl.rt.set_context(context))
            seen.append(acl.rt.get_context() == (context, 0))
            seen.append(acl.rt.synchronize_stream(stream))
        t = threading.Thread(target=work); t.start(); t.join()
        result = seen + [acl.rt.get_context() == (context, 0), acl.rt.set_context(0),
            acl.rt.set_context(12345)]
        """,
        tmp_path,
    ).result
    assert got == [[0, 107002], [0, 107002], 0, True, 0, True, 100000, 107002]


def test_streams_belong_to_their_context(tmp_path: Path) -> None:
    """PYDOC: 107003 for a stream of another context; EE1010 is the message."""
    got = run_acl(
        """
        up()
        first, stream = context_and_stream()
        second, _ = acl.rt.create_context(0)
        result = [acl.rt.synchronize_stream(stream), acl.get_recent_err_msg(), acl.rt.destroy_stream(stream)]
        acl.rt.set_context(first)
        result += [acl.rt.synchronize_stream(stream), acl.rt.destroy_stream(stream),
            acl.rt.destroy_stream(stream),
                   acl.rt.destroy_stream(0)]
        """,
        tmp_path,
    )
    assert got.result[0] == 107003
    assert got.result[1].startswith("EE1010: ")
    assert got.result[2:] == [107003, 0, 0, 107000, 100000]
    assert any("was destroyed" in line for line in got.problems)


def test_destroying_the_context_first_makes_its_stream_foreign(tmp_path: Path) -> None:
    """Release order of Ascend/samples is stream, context, device; the other way round destroy_stream
    fails."""
    got = run_acl(
        """
        up()
        context, stream = context_and_stream()
        result = [acl.rt.destroy_context(context), acl.rt.destroy_stream(stream),
            acl.rt.destroy_context(context)]
        """,
        tmp_path,
    )
    assert got.result == [0, 107003, 107000]
    assert any("before its stream" in line for line in got.problems)


def test_default_context_and_stream_cannot_be_destroyed(tmp_path: Path) -> None:
    """PYDOC: only reset_device ends what set_device made; stream 0 is the default stream."""
    got = run_acl(
        """
        up()
        context, _ = acl.rt.get_context()
        result = [acl.rt.destroy_context(context), acl.rt.synchronize_stream(0), acl.rt.reset_device(0)]
        """,
        tmp_path,
    ).result
    assert got == [107000, 0, 0]


def test_a_stream_works_in_order_and_apart_from_the_program(tmp_path: Path) -> None:
    """PYDOC: asynchronous calls return at once, synchronize_stream waits for all of a stream's tasks."""
    got = run_acl(
        """
        up()
        context, stream = context_and_stream()
        gate, order = threading.Event(), []
        tid = [0]
        go = threading.Event()
        def reporter():
            acl.rt.set_context(context); tid[0] = threading.get_ident(); go.wait()
            while len(order) < 2:
                acl.rt.process_report(1000)
        t = threading.Thread(target=reporter); t.start()
        while not tid[0]: time.sleep(0.001)
        acl.rt.subscribe_report(tid[0], stream); go.set()
        a, b = put(b"abcd"), malloc(4)
        event, _ = acl.rt.create_event()
        def hold(data):
            gate.wait(); order.append(data)
        assert acl.rt.launch_callback(hold, "first", 1, stream) == 0
        assert acl.rt.memcpy_async(b, 4, a, 4, 3, stream) == 0
        assert acl.rt.record_event(event, stream) == 0
        assert acl.rt.launch_callback(lambda data: order.append(data), "second", 1, stream) == 0
        before = acl.rt.query_event(event)
        timed_out = acl.rt.synchronize_stream_with_timeout(stream, 20)
        gate.set()
        done = acl.rt.synchronize_stream(stream)
        result = [before, timed_out, done, acl.rt.query_event(event), get(b, 4), order]
        t.join()
        """,
        tmp_path,
        {"cann_version": "7.0.0"},
    ).result
    assert got == [[1, 0], 507046, 0, [0, 0], b"abcd", ["first", "second"]]


def test_callbacks_run_in_the_subscribed_thread_only(tmp_path: Path) -> None:
    """PYDOC subscribe_report/process_report; ACLRT callback.cpp: time-out 0 is 100000; 107015, 107012,
    507012."""
    got = run_acl(
        """
        up()
        _, stream = context_and_stream()
        me = threading.get_ident()
        result = [acl.rt.launch_callback(print, [], 0, stream), acl.rt.process_report(10),
                  acl.rt.subscribe_report(me, stream), acl.rt.subscribe_report(me, stream),
                      acl.rt.process_report(0),
                  acl.rt.process_report(10), acl.rt.launch_callback(print, [], 2, stream)]
        seen = []
        acl.rt.launch_callback(lambda data: seen.append((data, threading.get_ident() == me)), ["x"], 0,
            stream)
        acl.rt.synchronize_stream(stream)
        result += [list(seen), acl.rt.process_report(1000), list(seen), acl.rt.unsubscribe_report(me, stream),
                   acl.rt.unsubscribe_report(me, stream)]
        """,
        tmp_path,
    ).result
    assert got == [107015, 107012, 0, 107011, 100000, 507012, 100000, [], 0, [[["x"], True]], 0, 107012]


def test_events_order_streams_and_measure(tmp_path: Path) -> None:
    """PYDOC stream_wait_event, event_elapsed_time; a mark that no stream reached has no time stamp
    (107006)."""
    got = run_acl(
        """
        up()
        context, first = context_and_stream()
        second, _ = acl.rt.create_stream()
        start, _ = acl.rt.create_event(); end, _ = acl.rt.create_event()
        result = [acl.rt.query_event(start), acl.rt.event_elapsed_time(start, end)]
        n = 1 << 20
        a, b, c = put(b"z" * n), malloc(n), malloc(n)
        acl.rt.record_event(start, first)
        acl.rt.memcpy_async(b, n, a, n, 3, first)
        acl.rt.record_event(end, first)
        acl.rt.stream_wait_event(second, end)
        acl.rt.memcpy_async(c, n, b, n, 3, second)
        result += [acl.rt.synchronize_stream(second), get(c, n) == b"z" * n, acl.rt.synchronize_event(end)]
        ms, ret = acl.rt.event_elapsed_time(start, end)
        result += [ms > 0, ret, acl.rt.destroy_event(start), acl.rt.destroy_event(start),
            acl.rt.destroy_event(0)]
        """,
        tmp_path,
    ).result
    assert got == [[1, 0], [0.0, 107006], 0, True, 0, True, 0, 0, 107000, 100000]


def test_threads_of_acl_util(tmp_path: Path) -> None:
    """PYACL util/thread.cpp: one argument (the list), stop_thread joins and raises RuntimeError with the
    type."""
    got = run_acl(
        """
        seen = []
        def work(arguments): seen.append(arguments)
        def fail(arguments): raise KeyError("gone")
        tid, ret = acl.util.start_thread(work, [1, "two"])
        result = [ret, tid > 0, acl.util.stop_thread(tid), seen]
        tid, _ = acl.util.start_thread(fail, [])
        try:
            acl.util.stop_thread(tid)
        except RuntimeError as error:
            result.append(str(error))
        try:
            acl.util.start_thread(3, [])
        except TypeError as error:
            result.append(str(error))
        """,
        tmp_path,
    )
    assert got.result == [
        0, True, 0, [[1, "two"]], "exception=KeyError,msg=thread call failed;", "parameter must be callable",
    ]  # fmt: skip
    assert "KeyError: 'gone'" in got.stderr


def test_error_messages_are_per_thread_and_read_once(tmp_path: Path) -> None:
    """PYDOC get_recent_err_msg: reading clears; newest on top; per process with err_msg_mode 1."""
    (tmp_path / "acl.json").write_text('{"err_msg_mode": "1"}')
    program = """
        acl.init(*CONFIG); acl.rt.set_device(0)
        acl.rt.malloc(0, 2)
        acl.rt.memcpy(0, 1, 0, 1, 0)
        seen = []
        t = threading.Thread(target=lambda: seen.append(acl.get_recent_err_msg())); t.start(); t.join()
        result = [seen[0], acl.get_recent_err_msg(), acl.get_recent_err_msg()]
        """
    other, mine, again = run_acl("CONFIG = []\n" + _dedent(program), tmp_path).result
    assert (other, again) == (None, None)
    assert mine.startswith("EH0002: Argument dst must not be null.\n")
    assert "EH0001: Value 0 for size is invalid. Reason: size must be greater than zero." in mine
    other, mine, _ = run_acl("CONFIG = ['acl.json']\n" + _dedent(program), tmp_path).result
    assert other.startswith("EH0002")
    assert mine is None


def _dedent(text: str) -> str:
    return "\n".join(line[8:] for line in text.splitlines())
