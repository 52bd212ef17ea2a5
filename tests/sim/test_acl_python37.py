"""The same module under a real Python 3.7 with the NumPy and ONNX Runtime of its time, as on the boards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from acl_support import conv_net, omfile, reference, run_acl, write_simple
from interpreters import venv_with


@pytest.fixture(scope="module")
def python37() -> Path:
    """CANN 5 to 7 are made for Python 3.7.5 to 3.9."""
    return venv_with("3.7", "numpy<1.22", "onnxruntime<1.15", "protobuf<4")


def test_inference(python37: Path, tmp_path: Path) -> None:
    """Loading, running, describing, several threads; the numbers are ONNX Runtime's up to its version's
    rounding."""
    onnx, meta = conv_net()
    omfile.write(tmp_path / "net.om", meta, onnx)
    picture = np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype("f")
    (tmp_path / "x.bin").write_bytes(picture.tobytes())
    got = run_acl(
        "up()\nresult = [sys.version_info[:2], infer('net.om', open('x.bin', 'rb').read())[0]]\ndown()",
        tmp_path,
        python=python37,
        environment={"ACL_SIM_STRICT": "1"},
    )
    assert got.result[0] == [3, 7]
    np.testing.assert_allclose(
        np.frombuffer(got.result[1], "f").reshape(1, 10),
        reference(onnx, {"x": picture})[0],
        rtol=1e-4,
        atol=1e-5,
    )
    assert (got.problems, got.stderr) == ([], "")


def test_streams_errors_and_arguments(python37: Path, tmp_path: Path) -> None:
    """A slice through the other contract tests."""
    write_simple(tmp_path / "net.om")
    (tmp_path / "bad.om").write_bytes(b"x" * 300)
    got = run_acl(
        """
        import numpy
        up()
        context, stream = context_and_stream()
        model, desc = load("net.om")
        ins, outs = dataset((put(numpy.ones(4, "f").tobytes()), 16)), dataset((malloc(16), 16))
        result = [acl.mdl.execute_async(model, ins, outs, stream), acl.rt.synchronize_stream(stream),
                  acl.rt.malloc(0, 2), acl.get_recent_err_msg(), acl.mdl.load_from_file("bad.om"),
                  acl.mdl.get_input_dims(desc, 0), acl.rt.malloc(-4096, 2), "himpi" in dir(acl)]
        for call in (lambda: acl.rt.malloc(numpy.int64(3), 2), lambda: acl.rt.malloc(size=3),
                     lambda: acl.media.dvpp_malloc(1)):
            try:
                call()
            except Exception as error:
                result.append(type(error).__name__ + " " + str(error)[:40])
        gone = acl.util.bytes_to_ptr(numpy.ones(500, "f").tobytes())
        acl.rt.memcpy(malloc(2000), 2000, gone, 2000, TO_DEVICE)
        """,
        tmp_path,
        python=python37,
    )
    assert got.result == [
        0, 0, [0, 100000], "EH0001: Value 0 for size is invalid. Reason: size must be greater than zero.",
            [0, 145006],
        [{"name": "x", "dimCount": 2, "dims": [1, 4]}, 0], [0, 207001], False,
        "TypeError acl.rt.malloc args parse failed", "TypeError malloc() takes no keyword arguments",
        "NotImplementedError acl.media.dvpp_malloc is not simulated: ",
    ]  # fmt: skip
    assert any("bytes object that is gone" in line for line in got.problems)


def test_teardown(python37: Path, tmp_path: Path) -> None:
    """Destructors of globals at the end, with strict mode."""
    write_simple(tmp_path / "net.om")
    got = run_acl(
        """
        up()
        class Resource(object):
            def __init__(self):
                self.free, self.reset = acl.rt.free, acl.rt.reset_device
                self.finalize, self.write = acl.finalize, os.write
                self.pointer = malloc(9)
            def __del__(self):
                codes = [self.free(self.pointer), self.reset(0), self.finalize()]
                self.write(1, ("TEARDOWN %s\\n" % codes).encode())
        resource = Resource()
        """,
        tmp_path,
        python=python37,
        environment={"ACL_SIM_STRICT": "1"},
    )
    assert "TEARDOWN [0, 0, 0]" in got.stdout
    assert (got.stderr, got.problems) == ("", [])
