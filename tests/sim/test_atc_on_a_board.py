"""What the simulated ATC writes runs in the simulated pyACL, and on the Python and ONNX Runtime of old
boards.

Python 3.7 is what CANN 5 to 7 were made for (CANN installation guides); ONNX Runtime 1.14 is the last for it,
and the one that drops a Cast to float16 and back as superfluous.
"""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
from acl_support import run_acl
from atc_support import ARGS, PYTHON, Atc, atc, save, save_nodes
from interpreters import venv_with
from onnx import helper

__all__ = ["atc"]


def test_an_om_runs_in_pyacl(atc: Atc) -> None:
    """Convert with AIPP and batch gears, then load, set a batch, execute: the same bits as ONNX Runtime
    gives.
    """
    save(atc.folder / "net.onnx", batch="N")
    (atc.folder / "aipp.cfg").write_text(
        "aipp_op { aipp_mode: static input_format: RGB888_U8 mean_chn_0: 100 var_reci_chn_1: 0.0196 }"
    )
    om = atc.om("--input_shape=x:-1,3,8,8", "--dynamic_batch_size=1,4", "--insert_op_conf=aipp.cfg")
    picture = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    (atc.folder / "x.bin").write_bytes(picture.tobytes())
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        size = acl.mdl.get_input_size_by_index(desc, 1)
        ins = dataset((put(open("x.bin", "rb").read()), 4 * 192), (malloc(size), size))
        outs = output_buffers(desc)
        assert acl.mdl.set_dynamic_batch_size(model, ins, 1, 4) == 0
        assert acl.mdl.execute(model, ins, dataset(*outs)) == 0
        info = acl.mdl.get_first_aipp_info(model, 0)[0]
        result = [
            get(*outs[0]), acl.mdl.get_input_dims(desc, 0)[0]["dims"],
            acl.mdl.get_input_size_by_index(desc, 0),
            acl.mdl.get_input_data_type(desc, 0), acl.mdl.get_input_format(desc, 0),
            acl.mdl.get_output_name_by_index(desc, 0), info["meanChn0"], info["srcImageSizeW"],
            acl.mdl.get_dynamic_batch(desc)[0],
        ]
        """,
        atc.folder,
        {"cann_version": "5.0.4"},
    )
    result = np.frombuffer(got.result[0], np.float32).reshape(4, 2, 8, 8)
    assert np.array_equal(result, om(picture)[0])
    assert got.result[1:] == [
        [-1, 8, 8, 3], 768, 4, 1, "last:0:y", 100, 8, {"batchCount": 2, "batch": [1, 4]},
    ]  # fmt: skip


def test_a_yuv_picture_runs_in_pyacl(atc: Atc) -> None:
    """YUV420SP shows one channel of the full height, and its buffer holds half as many bytes again (Ascend GE
    documents, AIPP: model input description; H*W*1.5 bytes)."""
    save(atc.folder / "net.onnx")
    (atc.folder / "aipp.cfg").write_text(
        "aipp_op { aipp_mode: static input_format: YUV420SP_U8 csc_switch: true src_image_size_w: 8 "
        "src_image_size_h: 8 var_reci_chn_0: 0.0039 }"
    )
    om = atc.om("--input_shape=x:1,3,8,8", "--insert_op_conf=aipp.cfg")
    picture = np.random.default_rng(1).integers(0, 256, (1, 12, 8, 1), dtype=np.uint8)
    (atc.folder / "x.bin").write_bytes(picture.tobytes())
    got = run_acl(
        """
        up()
        model, desc = load("net.om")
        size = acl.mdl.get_input_size_by_index(desc, 0)
        outs = output_buffers(desc)
        data = open("x.bin", "rb").read()
        assert acl.mdl.execute(model, dataset((put(data), len(data))), dataset(*outs)) == 0
        result = [get(*outs[0]), size, acl.mdl.get_input_dims(desc, 0)[0]["dims"]]
        """,
        atc.folder,
        {"cann_version": "5.0.4"},
    )
    assert np.array_equal(np.frombuffer(got.result[0], np.float32), om(picture)[0].ravel())
    assert got.result[1:] == [96, [1, 8, 8, 1]]


@pytest.fixture(scope="module")
def python37() -> Path:
    """Python 3.7 with onnx and ONNX Runtime of its time."""
    return venv_with("3.7", "numpy", "onnx", "onnxruntime")


def test_python_37_converts_and_rounds_alike(atc: Atc, python37: Path) -> None:
    """The same om, byte for byte, from Python 3.7; and ONNX Runtime 1.14 keeps every rounding in it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "b", "s"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Add", ["p", "p"], ["a"]),
        helper.make_node("Mul", ["a", "a"], ["y"]),
    ]
    rng = np.random.default_rng(2)
    constants = {
        "w": rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "s": rng.uniform(1, 2, 4).astype(np.float32),
        "b": rng.normal(size=4).astype(np.float32),
    }
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [1, 3, 8, 8]}, ["y"], constants)
    (atc.folder / "aipp.cfg").write_text(
        "aipp_op { aipp_mode: static input_format: RGB888_U8 min_chn_0: 123.7 var_reci_chn_0: 0.0171 }"
    )
    flags = [*ARGS, "--insert_op_conf=aipp.cfg"]
    picture = rng.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    np.save(atc.folder / "x.npy", picture)
    om = atc.om("--insert_op_conf=aipp.cfg")
    here = (atc.folder / "net.om").read_bytes()
    (atc.folder / "net.om").unlink()
    program = """
        import json, sys
        import numpy, onnxruntime
        from ascend_sim import omfile
        from ascend_sim.atc import cli
        assert cli.main(sys.argv[1:]) == 0
        meta, model = omfile.read("net.om")
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        y = session.run(None, {"x": numpy.load("x.npy")})[0]
        numpy.save("y.npy", y)
        print("\\n" + json.dumps([sys.version_info[:2], onnxruntime.__version__]))
    """
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("ASCEND", "PYTHON"))},
        "PYTHONPATH": str(PYTHON),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [str(python37), "-c", textwrap.dedent(program), *flags],
        cwd=atc.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[3, 7], "1.14.1"]
    assert (atc.folder / "net.om").read_bytes() == here
    old = np.load(atc.folder / "y.npy")
    assert np.array_equal(old, old.astype(np.float16).astype(np.float32))
    assert np.array_equal(old, om(picture)[0])
