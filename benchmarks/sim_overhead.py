"""What the simulated pyACL costs beside ONNX Runtime itself, and how long ``import acl`` takes.

    python -m benchmarks.sim_overhead [--repeats 60] [--json FILE]

The same graph runs in one process, turn by turn, in three ways: ``session.run`` (a fresh output array at
each run),
``session.run_with_iobinding`` (everything bound once: the least that ONNX Runtime can take),
    and ``acl.mdl.execute``
on device memory. Turn by turn and in changing order,
    because a shared machine gets slower and faster. With one thread (the
default here) all work is done in the calling thread, and its CPU time is compared,
    which does not count the time that
other programs took; the smallest value is taken, because whatever disturbs a run makes it longer.
The claim: ``acl.mdl.execute`` costs at most 5 % or 0.2 ms more than ``session.run``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
CANN_PYTHON = CHECKOUT / "toolkit" / "sim" / "cann" / "python"
sys.path[:0] = [str(CHECKOUT / "tests" / "sim"), str(CANN_PYTHON)]

ALLOWED_RATIO = 1.05
ALLOWED_MS = 0.2
IMPORT_LIMIT_S = 0.3


def import_seconds(repeats: int = 5) -> float:
    """Median seconds that ``import acl`` adds to an empty Python process, imports of numpy and the like
    included."""
    program = "import time; t = time.perf_counter(); import acl; print(time.perf_counter() - t)"
    environment = {**os.environ, "PYTHONPATH": str(CANN_PYTHON)}
    environment.pop("ASCEND_SIM_BOARD", None)
    found = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        found.append(float(done.stdout))
    return statistics.median(found)


def _timed(function: Callable[[], object]) -> float:
    clock = time.thread_time if os.environ["ACL_SIM_THREADS"] == "1" else time.perf_counter
    start = clock()
    function()
    return (clock() - start) * 1000.0


def compare(onnx: bytes, meta: dict[str, Any], repeats: int) -> dict[str, float]:
    """Smallest time of a run in milliseconds per way, for a model with one float32 input and output."""
    import acl
    import numpy as np
    import onnxruntime
    from ascend_sim import omfile

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["ACL_SIM_THREADS"])
    session = onnxruntime.InferenceSession(onnx, sess_options=options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(3).standard_normal(meta["inputs"][0]["dims"]).astype("f")
    y = np.zeros(meta["outputs"][0]["dims"], "f")
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.om"
        omfile.write(path, meta, onnx)
        model, ret = acl.mdl.load_from_file(str(path))
    assert ret == 0, acl.get_recent_err_msg()

    def buffer(size: int) -> tuple[int, int]:
        pointer, ret = acl.rt.malloc(size, 2)
        assert ret == 0
        dataset = acl.mdl.create_dataset()
        acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(pointer, size))
        return pointer, dataset

    source, inputs = buffer(x.nbytes)
    target, outputs = buffer(y.nbytes)
    data = x.tobytes()
    acl.rt.memcpy(source, x.nbytes, acl.util.bytes_to_ptr(data), x.nbytes, 3)

    def execute() -> None:
        assert acl.mdl.execute(model, inputs, outputs) == 0

    ways: dict[str, Callable[[], object]] = {
        "session.run": lambda: session.run(None, {"x": x}),
        "run_with_iobinding": lambda: session.run_with_iobinding(binding),
        "acl.mdl.execute": execute,
    }
    for way in ways.values():
        for _ in range(5):
            way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(repeats):
        for name in order:
            times[name].append(_timed(ways[name]))
        order = [*order[1:], order[0]]
    got = acl.util.ptr_to_bytes(target, y.nbytes)
    assert np.array_equal(np.frombuffer(got, "f").reshape(y.shape), session.run(None, {"x": x})[0])
    acl.mdl.unload(model)
    return {name: min(values) for name, values in times.items()}


def main() -> int:
    """Print one line per model; status 1 if a claim does not hold."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--repeats", type=int, default=60, help="runs per way and model")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    options = parser.parse_args()
    os.environ.setdefault("ACL_SIM_THREADS", "1")
    os.environ.pop("ASCEND_SIM_BOARD", None)

    imported = import_seconds()
    held = imported < IMPORT_LIMIT_S
    print(f"import acl: {imported * 1000:.0f} ms (limit {IMPORT_LIMIT_S * 1000:.0f} ms)")

    import acl
    from acl_support import conv_net

    assert acl.init() == 0
    assert acl.rt.set_device(0) == 0
    report: dict[str, Any] = {"import_s": imported, "models": {}}
    shapes = {
        "tiny (1 block, 8 channels, 32x32)": {"channels": 8, "blocks": 1, "size": 32},
        "small (4 blocks, 32 channels, 32x32)": {"channels": 32, "blocks": 4, "size": 32},
        "large (8 blocks, 64 channels, 112x112)": {"channels": 64, "blocks": 8, "size": 112},
    }
    for title, shape in shapes.items():
        onnx, meta = conv_net(**shape)
        repeats = options.repeats if shape["size"] < 100 else max(9, options.repeats // 4)
        found = compare(onnx, meta, repeats)
        direct, through = found["session.run"], found["acl.mdl.execute"]
        ok = through <= direct * ALLOWED_RATIO or through - direct <= ALLOWED_MS
        held = held and ok
        report["models"][title] = {**found, "ratio": through / direct}
        print(
            f"{title}: session.run {direct:.3f} ms, bound {found['run_with_iobinding']:.3f} ms, "
            f"acl.mdl.execute {through:.3f} ms: x{through / direct:.3f}, {through - direct:+.3f} ms"
            f"{'' if ok else '  TOO MUCH'}"
        )
    acl.rt.reset_device(0)
    acl.finalize()
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
