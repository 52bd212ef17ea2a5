"""The failures that people meet with Ascend boards are known: symptom → cause → fix."""

from __future__ import annotations

import re

import pytest

from toolkit.cann import catalogue

# One symptom for each usual failure, as it is printed, and what it must be taken for. ATC's and npu-smi's are words
# of logs that people published, or of the tools' own sources.
SYMPTOMS = [
    ("E40000: Failed to import te.platform.log_util.", "atc-python-packages"),
    (
        "EC0010: [PID: 129520] 2025-07-08-10:25:28.680.962 Failed to import Python module "
        "[ModuleNotFoundError: No module named 'decorator'.].",
        "atc-python-packages",
    ),
    ("EC0010: Failed to import Python module [AttributeError: `np.float_` was removed in the NumPy 2.0]", "atc-numpy"),
    (
        "/home/c/Ascend/ascend-toolkit/8.0.0/x86_64-linux/bin/atc.bin: error while loading shared libraries: "
        "libascend_hal.so: cannot open shared object file: No such file or directory",
        "no-driver-library",
    ),
    ("E10054: The requied parameter [--model] for ATC is empty. Another possible reason is …", "atc-flag-missing"),
    (
        "E10007: [PID: 10490] 2025-03-18-09:02:18.501.341 [--framework] is required. "
        "The value must be [0(Caffe) or 1(MindSpore) or 3(TensorFlow) or 5(Onnx)].",
        "atc-framework-missing",
    ),
    (
        "E10001: Value [-1] for parameter [input_2] is invalid. Reason: maybe you should set input_shape to specify "
        "its shape.",
        "atc-dynamic-model",
    ),
    ("E19010: No parser is registered for Op [model1 div node, optype [ai.onnx::23::Div]]", "atc-opset"),
    ("E16005: The model has [2] [--domain_version] fields, but only one is allowed.", "atc-opset"),
    ("EZ3003: No supported Ops kernel and engine are found for [AddDsl], optype [AddDsl].", "atc-operator"),
    ("E16002: No ONNX parser is registered for optype [FFT].", "atc-operator"),
    (
        "E40021: Failed to compile Op [Index2]. (oppath: [Compile /usr/local/Ascend/ascend-toolkit/7.0.0/opp/built-in/"
        "op_impl/ai_core/tbe/impl/dynamic/index.py failed with errormsg/stack: …",
        "atc-compile",
    ),
    ("E10016: Opname [out] specified in [--out_nodes] is not found in the model.", "atc-node-name"),
    (
        "[PID: 7] 2026-01-01-00:00:00.000.000 Invalid_Argument_Operator_Name(E10016): Opname y specified in "
        "--input_shape is not found in the model.",
        "atc-input-shape",
    ),
    ("E10049: Dimension count [3] configured in [--input_shape] does not match …", "atc-input-dimensions"),
    (
        "E10002: Value [x:1,3,a] for parameter [--input_shape] is invalid. Reason: [x]. The value must …",
        "atc-shape-numbers",
    ),
    ("E10009: [--dynamic_batch_size], … are mutually exclusive.", "atc-gears-exclusive"),
    ("E10039: The --dynamic_batch_size, … argument have duplicate profiles.", "atc-gears"),
    ("E10047: [--precision_mode] and [--precision_mode_v2] are mutually exclusive.", "atc-flags-exclude"),
    ("ERROR: unknown command line flag 'is_weight_clip'", "atc-unknown-flag"),
    ("E10034: Nodes (for example, [x]) connected to AIPP must not be of type fp16.", "atc-aipp-fp16"),
    ("E10052: AIPP configuration is invalid. Reason: [var_reci_chn_0].", "atc-aipp"),
    (
        "E10001: Value [/home/my user/net.onnx] for parameter [--model] is invalid. Reason: The path can only contain "
        "'a-z' 'A-Z' '0-9' '-' '.' '_' and chinese character",
        "atc-path",
    ),
    (
        "E10001: Value [net.onnx] for parameter [--model] is invalid. Reason: realpath error, errmsg:No such file or "
        "directory",
        "atc-file-missing",
    ),
    ("E10410: File [keep.cfg] does not exist.", "atc-file-missing"),
    ("E13004: Failed to write file [model.om]. Reason: [Permission denied].", "atc-cannot-write"),
    ("E13023: Model file is too large", "atc-model-size"),
    (
        "E10001: Value [RL,GA] for parameter [--auto_tune_mode] is invalid. Reason: The Auto Tune function has been "
        "deprecated. Please use the AOE tool for tuning.",
        "atc-auto-tune",
    ),
    (
        "E19999: Inner Error!\nE19999[PID: 9] [Init][PlatformInfo] failed, soc_version Ascend31: platform config file "
        "Ascend31.ini is not found.",
        "atc-soc-version",
    ),
    ("E10006: Value [2] for parameter [--deterministic] is invalid. The value must be either 1 or 0.", "atc-flag"),
    ("E10010: Value [loud] for parameter [--log] is invalid.", "atc-flag"),
    (
        "E19999: Inner Error!\n        Unknown error occurred. Please check the log.",
        "atc-inner",
    ),
    (
        "[ERROR] AMCT(21177,atc.bin):2023-04-14-14:43:17[utils_acl.cpp:133]input image size[1579014] is not equal to "
        "model input size[3158028]",
        "calibration-data",
    ),
    ("sh: 1: exec: amct_onnx: not found", "no-amct"),
    ("bash: line 1: aoe: command not found", "no-aoe"),
    ("dcmi model initialized failed, because the device is used. ret is -8020", "device-in-use"),
    (
        "npu-smi: error while loading shared libraries: libc_sec.so: cannot open shared object file: No such file or "
        "directory",
        "no-driver-library",
    ),
    (
        "EE1001: [PID: 2228607] The argument is invalid.Reason: Set device failed, invalid device, set drv device=100, "
        "valid device range is [0, 8)",
        "no-device",
    ),
    ("acl.rt.set_device failed: 107001", "no-device"),
    ("NPU function error: c10_npu::SetDevice(device_id_), error code is 507033", "device-bad"),
    ("acl.init failed: 100002", "acl-twice"),
    ("acl.rt.set_device failed: 100001", "acl-not-initialised"),
    ("acl.mdl.load_from_file failed: 145002", "om-missing"),
    ("acl.mdl.execute failed: 145000", "om-input-size"),
    ("acl.mdl.execute failed: 145003", "om-unknown"),
    ("acl.mdl.set_dynamic_batch_size failed: 145013", "om-not-dynamic"),
    ("acl.rt.destroy_stream failed: 107003", "acl-wrong-thread"),
    ("acl.rt.create_stream failed: 207008", "device-streams"),
    ("acl.rt.synchronize_stream_with_timeout failed: 107020", "timeout"),
    ("acl.rt.memcpy failed ret=107000", "acl-parameter"),
    ("acl.rt.malloc failed: 207001", "device-memory"),
    ("acl.mdl.execute failed: 507011", "execution-failed"),
    ("acl.mdl.execute failed: 507010", "device-lost"),
    ("acl.mdl.load_from_file failed: 200000", "host-memory"),
    ("ModuleNotFoundError: No module named 'numpy'", "no-numpy"),
    ("bash: line 1: atc: command not found", "no-atc"),
    ("[ERROR] GE: soc_version of the om is Ascend310P3, mismatch with Ascend310", "om-other-chip"),
    ("acl.mdl.load_from_file failed: 545000", "om-not-loaded"),
    ("acl.mdl.load_from_file failed: 500002", "om-not-loaded"),
    ("acl.mdl.load_from_file failed: 100012", "om-newer-cann"),
    ("acl.mdl.execute failed: 507009 task type not supported", "om-newer-cann"),
    ("ImportError: libascendcl.so: cannot open shared object file: No such file or directory", "no-libascendcl"),
    ("ModuleNotFoundError: No module named 'acl'", "no-acl"),
    ("bash: npu-smi: command not found", "non-interactive"),
    ("bash: python3.7.5: command not found", "non-interactive"),
    ("ImportError: /usr/local/Ascend/python/acl.so: undefined symbol: _PyThreadState_Current", "acl-other-python"),
    ("ModuleNotFoundError: No module named 'PIL'", "no-pillow"),
    ("ImportError: The _imaging C module is not installed", "no-pillow"),
    ("OSError: cannot open resource", "no-font"),
    ("acl.rt.set_device failed: 207006", "no-permission"),
    ("open /dev/davinci0 failed: Permission denied", "no-permission"),
    ("dcmi module initialize failed. ret is -8005", "no-permission"),
    ("scp: /home/HwHiAiUser/resnet50.om: No space left on device", "disk-full"),
    ("acl.mdl.load_from_file failed: 145006", "om-damaged"),
    ("acl.rt.set_device failed: 507899", "driver-pair"),
    ("acl.init failed: 500000", "driver-pair"),
    ("E10016: Opname [actual_input_1] specified in --input_shape is not found in the model", "atc-input-shape"),
    ("E10001: Value x:1,3,224 for parameter --input_shape is invalid", "atc-input-shape-form"),
    ("E10001: Value Ascend31 for parameter --soc_version is invalid", "atc-soc-version"),
    ("E10041: Failed to load the model from resnet50.mindir", "atc-model-unreadable"),
    ("E13005: Failed to parse file resnet50.air", "atc-model-unreadable"),
    ("E40002: Failed to import Python module", "atc-python-packages"),
    ("ModuleNotFoundError: No module named 'decorator'", "atc-python-packages"),
    ("acl.mdl.load_from_file failed: 100039", "stub-libraries"),
    ("acl.rt.malloc failed: 107002", "no-context"),
    ("ssh: connect to host 192.168.1.2 port 22: No route to host", "usb-network"),
    ("make: warning: modification time 86400 s in the future", "clock"),
    ("server certificate verification failed: certificate is not yet valid", "clock"),
    ("acl.mdl.execute failed: 507033", "device-bad"),
    ("/usr/bin/atc: line 9: 2417 Killed", "killed"),
    ("Error Code : 80E3A203", "health-alarm"),
    ("| 0       310B4      | Alarm      | 0.0", "health-alarm"),
    ("sim-1: the answers disagree with the reference: logits differ by 3.1", "low-accuracy"),
    ("failed: scores are not finite: [nan, nan]", "garbage"),
    ("[WARNING] Input[0] size: 150528 not equal om size: 602112", "garbage"),
    ("python3 make_sd_card.py local: this script must be run as root", "sd-card"),
    ("WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", "host-key-changed"),
]


@pytest.mark.parametrize(("symptom", "key"), SYMPTOMS, ids=[symptom[:48] for symptom, _ in SYMPTOMS])
def test_each_symptom_has_its_cause(symptom: str, key: str) -> None:
    found = catalogue.explain(f"some line before\n{symptom}\nand one behind")
    assert found is not None
    assert found.key == key
    assert found is catalogue.entry(key)


def test_entries_are_complete() -> None:
    keys = [entry.key for entry in catalogue.ENTRIES]
    assert len(keys) == len(set(keys))
    for entry in catalogue.ENTRIES:
        assert re.compile(entry.pattern)
        assert entry.cause
        assert entry.fix
        assert not entry.cause.endswith(".")


def test_every_entry_has_a_symptom() -> None:
    assert {entry.key for entry in catalogue.ENTRIES} == {key for _, key in SYMPTOMS}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ATC run success, welcome to the next use.",
        "label:3  confidence: 0.99, class: cat",
        "malloc output 0, size 500000",
        "read 107002 bytes in 145000 us",
    ],
)
def test_success_is_no_failure(text: str) -> None:
    assert catalogue.explain(text) is None
