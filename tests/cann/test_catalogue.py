"""The failures that people meet with Ascend boards are known: symptom → cause → fix."""

from __future__ import annotations

import re

import pytest

from toolkit.cann import catalogue

# One symptom for each usual failure, as it is printed, and what it must be taken for.
SYMPTOMS = [
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


@pytest.mark.parametrize(
    "text", ["", "ATC run success, welcome to the next use.", "label:3  confidence: 0.99, class: cat"]
)
def test_success_is_no_failure(text: str) -> None:
    assert catalogue.explain(text) is None
