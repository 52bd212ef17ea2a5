"""A program with the call sequence of Ascend/samples (acllite and its picture classifiers), run unchanged.

The classes here are our own; the calls, their order, and the quirks are those of
``python/common/acllite``: the run
mode is asked in a class body before acl.init, the name of the gear input is looked up at every execute,
    the output
is copied into an immutable bytes object, and everything is released in destructors at the interpreter's end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acl_support import conv_net, omfile, reference, run_acl

CLASSIFIER = """
import sys
import acl
import numpy as np

ACL_HOST, NORMAL_ONLY, H2D, D2H, D2D = 1, 2, 1, 2, 3
NUMPY = {0: np.float32, 1: np.float16, 2: np.int8, 3: np.int32, 4: np.uint8}


class Picture(object):
    run_mode, _ = acl.rt.get_run_mode()


class Resource(object):
    def __init__(self, device=0):
        self.device, self.context, self.stream = device, None, None

    def init(self):
        assert acl.init() == 0
        assert acl.rt.set_device(self.device) == 0
        self.context, ret = acl.rt.create_context(self.device); assert ret == 0
        self.stream, ret = acl.rt.create_stream(); assert ret == 0
        self.run_mode, ret = acl.rt.get_run_mode(); assert ret == 0

    def __del__(self):
        if self.stream:
            acl.rt.destroy_stream(self.stream)
        if self.context:
            acl.rt.destroy_context(self.context)
        acl.rt.reset_device(self.device)
        acl.finalize()
        print("Release acl resource success")


class Model(object):
    def __init__(self, run_mode, path):
        self.run_mode = run_mode
        self.kind_in = H2D if run_mode == ACL_HOST else D2D
        self.kind_out = D2H if run_mode == ACL_HOST else D2D
        self.id, ret = acl.mdl.load_from_file(path); assert ret == 0
        self.desc = acl.mdl.create_desc()
        assert acl.mdl.get_desc(self.desc, self.id) == 0
        self.outputs = acl.mdl.create_dataset()
        for i in range(acl.mdl.get_num_outputs(self.desc)):
            size = acl.mdl.get_output_size_by_index(self.desc, i)
            pointer, ret = acl.rt.malloc(size, NORMAL_ONLY); assert ret == 0
            _, ret = acl.mdl.add_dataset_buffer(self.outputs, acl.create_data_buffer(pointer,
                size)); assert ret == 0
        self.inputs_wanted = acl.mdl.get_num_inputs(self.desc)

    def execute(self, arrays):
        _, ret = acl.mdl.get_input_index_by_name(self.desc, "ascend_mbatch_shape_data")
        assert ret != 0
        inputs = acl.mdl.create_dataset()
        for i, array in enumerate(arrays):
            assert array.nbytes == acl.mdl.get_input_size_by_index(self.desc, i)
            if "bytes_to_ptr" in dir(acl.util):
                data = array.tobytes()
                source = acl.util.bytes_to_ptr(data)
            else:
                source = acl.util.numpy_to_ptr(array)
            pointer, ret = acl.rt.malloc(array.nbytes, NORMAL_ONLY); assert ret == 0
            assert acl.rt.memcpy(pointer, array.nbytes, source, array.nbytes, self.kind_in) == 0
            _, ret = acl.mdl.add_dataset_buffer(inputs, acl.create_data_buffer(pointer,
                array.nbytes)); assert ret == 0
        assert acl.mdl.execute(self.id, inputs, self.outputs) == 0
        for i in range(acl.mdl.get_dataset_num_buffers(inputs)):
            buffer = acl.mdl.get_dataset_buffer(inputs, i)
            acl.rt.free(acl.get_data_buffer_addr(buffer))
            acl.destroy_data_buffer(buffer)
        acl.mdl.destroy_dataset(inputs)
        return [self.output(i) for i in range(acl.mdl.get_dataset_num_buffers(self.outputs))]

    def output(self, i):
        buffer = acl.mdl.get_dataset_buffer(self.outputs, i)
        pointer, size = acl.get_data_buffer_addr(buffer), int(acl.get_data_buffer_size(buffer))
        dims = acl.mdl.get_output_dims(self.desc, i)[0]["dims"]
        kind = NUMPY[acl.mdl.get_output_data_type(self.desc, i)]
        if "bytes_to_ptr" in dir(acl.util):
            data = bytes(bytearray(size))
            assert acl.rt.memcpy(acl.util.bytes_to_ptr(data), size, pointer, size, self.kind_out) == 0
            return np.frombuffer(data, dtype=kind).reshape(tuple(dims)).copy()
        array = np.zeros(dims, kind)
        assert acl.rt.memcpy(acl.util.numpy_to_ptr(array), size, pointer, size, self.kind_out) == 0
        return array

    def __del__(self):
        for i in range(acl.mdl.get_dataset_num_buffers(self.outputs)):
            buffer = acl.mdl.get_dataset_buffer(self.outputs, i)
            acl.rt.free(acl.get_data_buffer_addr(buffer))
            acl.destroy_data_buffer(buffer)
        acl.mdl.destroy_dataset(self.outputs)
        acl.mdl.unload(self.id)
        acl.mdl.destroy_desc(self.desc)
        print("Model release source success")


def main():
    resource = Resource()
    resource.init()
    model = Model(resource.run_mode, sys.argv[1])
    answers = []
    for path in sys.argv[2:]:
        picture = np.fromfile(path, np.float32).reshape(1, 3, 32, 32)
        answers.append([float(v) for v in model.execute([picture])[0].flatten()])
    acl.app_log(1, "done")
    del model
    return answers, resource
"""


@pytest.mark.parametrize(
    "board",
    [{}, {"cann_version": "5.0.2"}, {"run_mode": "EP", "product": "Atlas 300I", "cann_version": "6.0.1"}],
    ids=["200DK", "old CANN", "EP card"],
)
@pytest.mark.parametrize("release", ["at the end", "in main"])
def test_the_sample_runs_unchanged(board: dict[str, Any], release: str, tmp_path: Path) -> None:
    """Ascend/samples python/common/acllite/{acllite_resource,acllite_model,acllite_utils}.py."""
    onnx, meta = conv_net()
    omfile.write(tmp_path / "net.om", {**meta, "cann_version": "5.0.1"}, onnx)
    pictures = [np.random.default_rng(n).standard_normal((1, 3, 32, 32)).astype("f") for n in range(3)]
    for number, picture in enumerate(pictures):
        (tmp_path / f"{number}.bin").write_bytes(picture.tobytes())
    ending = "result, keep = main()" if release == "at the end" else "result, keep = main()\ndel keep"
    got = run_acl(
        CLASSIFIER + ending, tmp_path, board, prelude=False, environment={"ACL_SIM_STRICT": "1"},
        arguments=[tmp_path / "net.om", *(tmp_path / f"{number}.bin" for number in range(3))],
        check=release == "in main",
    )  # fmt: skip
    for answer, picture in zip(got.result, pictures, strict=True):
        assert np.array_equal(np.array(answer, "f").reshape(1, 10), reference(onnx, {"x": picture})[0])
    assert "Model release source success" in got.stdout
    if release == "in main":
        assert "Release acl resource success" in got.stdout
        warnings = [
            line for line in got.stderr.splitlines() if "deprecated" not in line and "acl.util" not in line
        ]
        assert (warnings, got.problems) == ([], [])
