"""Known failures on the way to a board: symptom → cause → fix.

Symptoms are what ATC, pyACL, npu-smi, Python and SSH print, or what this program itself reports. The entries
follow the vendor's guides and FAQs (hiascend.com; Ascend/samples, FAQ of the 200 DK's tests), the sources of
pyACL and ATC (hicann/runtime, hicann/ge) and public issue threads. Codes of the runtime (``507…``) differ a
little from version to version: an entry says what is most likely.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One known failure: its short name, a pattern on the output, its cause, what to do."""

    key: str
    pattern: str
    cause: str
    fix: str


# The first entry that matches wins: special ones stand before general ones.
ENTRIES = (
    Entry(
        "atc-input-shape",
        r"\bE10016\b",
        "atc.input_shape names an input that the model does not have",
        "take the name from the error text or look into the model; MindSpore's ONNX calls its input x, "
        "and with AIR the flag is ignored",
    ),
    Entry(
        "atc-input-dimensions",
        r"\bE10049\b",
        "atc.input_shape has another number of dimensions than the model's input",
        "give one number for each dimension, such as x:1,3,224,224",
    ),
    Entry(
        "atc-framework-missing",
        r"\bE10007\b",
        "ATC was not told the framework",
        "set atc.framework=1 (AIR) or 5 (ONNX)",
    ),
    Entry(
        "atc-model-unreadable",
        r"\bE10041\b|\bE13005\b",
        "ATC cannot read the model: truncated, or of another framework than --framework says",
        "use AIR with 1 and ONNX with 5; ATC takes no MindIR",
    ),
    Entry(
        "atc-aipp",
        r"\bE10052\b",
        "the AIPP file is wrong",
        "check atc.insert_op_conf, or let preprocess.aipp=true write it",
    ),
    Entry(
        "atc-operator",
        r"\bE16002\b|\bE10501\b",
        "the network has an operator that this CANN does not know",
        "replace the operator, or convert with a newer CANN that the board can run too",
    ),
    Entry(
        "atc-python-packages",
        r"\bE40002\b|\bE40020\b|No module named '(decorator|attr|sympy|te|tbe|scipy|cffi)'",
        "a Python package that ATC needs is missing, or python3 is the wrong one",
        "pip install attrs numpy decorator sympy cffi pyyaml pathlib2 psutil protobuf scipy requests absl-py "
        "for the user and the python3 that run atc",
    ),
    Entry(
        "atc-soc-version",
        r"\bE10001\b.*soc_version|soc_version.*\bE10001\b|\bE20\d{3}\b.*soc",
        "ATC does not know this --soc_version",
        "take it from the board: Ascend + the Name column of npu-smi info",
    ),
    Entry(
        "atc-input-shape-form",
        r"\bE10001\b.*input_shape|input_shape.*\bE10001\b",
        "atc.input_shape is not what ATC takes, or names an input that the model does not have",
        "write name:1,3,224,224 with the name that the model has; MindSpore's ONNX calls its input x",
    ),
    Entry(
        "atc-flag",
        r"\bE10001\b",
        "a flag of ATC has a value that it does not take",
        "see the reason in ATC's output",
    ),
    Entry(
        "no-libascendcl",
        r"libascendcl\.so: cannot open shared object",
        "LD_LIBRARY_PATH does not lead to CANN in this shell",
        "source CANN's set_env.sh in the same command; for the board's profile check board.cann.version and "
        "board.cann.environments",
    ),
    Entry(
        "acl-other-python",
        r"acl(\.\S*)?\.so: undefined symbol|undefined symbol: _?Py\w+.*\bacl\b|\bacl\b.*undefined symbol",
        "acl.so was built for other versions of Python than this interpreter",
        "name one that fits in board.interpreters: python3.7.5 for CANN 20.x and 5.0, 3.7 to 3.11 later",
    ),
    Entry(
        "no-acl",
        r"No module named '?acl'?",
        "PYTHONPATH does not lead to pyACL in this shell, or sudo dropped it",
        "source CANN's set_env.sh first (sudo -E keeps it); for the board's profile check board.cann.version",
    ),
    Entry(
        "no-permission",
        r"\b207006\b|ermission denied.*/dev/(davinci|devmm|hisi)|/dev/(davinci|devmm|hisi)\w*.*ermission denied"
        r"|dcmi module initialize failed\. ret is -8005",
        "the user may not open the NPU's device nodes",
        "usermod -aG HwHiAiUser (on 310B boards HwBaseUser and HwDmUser too) and log in again; "
        "a container needs --device /dev/davinci0 and its neighbours",
    ),
    Entry(
        "stub-libraries",
        r"\b100039\b",
        "CANN's stub libraries were loaded instead of the real ones",
        "remove devlib and stub folders from LD_LIBRARY_PATH",
    ),
    Entry(
        "disk-full",
        r"(?i)no space left on device|\bdisk-full\b|\bENOSPC\b",
        "the card or /tmp is full",
        "make room on the board (df shows where); nothing half copied is ever used",
    ),
    Entry(
        "om-damaged",
        r"\b145006\b|\b100015\b",
        "the om is damaged, cut short or not an om",
        "deploy verify re-hashes what is on the board; check the board's disk",
    ),
    Entry(
        "om-other-chip",
        r"(?i)soc.?version.{0,80}(mismatch|not match|inconsistent)|(mismatch|not match).{0,80}soc.?version",
        "the om was built for another --soc_version than the board's chip",
        "convert again with Ascend + the Name column of npu-smi info: the board's right profile does it",
    ),
    Entry(
        "om-newer-cann",
        r"\b10001[23]\b|\b507009\b",
        "the om was made by a newer CANN than the board's",
        "convert with the board's CANN version, or upgrade the board",
    ),
    Entry(
        "om-not-loaded",
        r"\b545\d{3}\b|\b500002\b|\b145\d{3}\b",
        "the runtime cannot load or run the om: made for another chip, or by another CANN",
        "compare board.soc_version with npu-smi info (Ascend + Name), and board.cann.version with the board",
    ),
    Entry(
        "no-context",
        r"\b107002\b",
        "a thread calls the runtime without a context of its own",
        "acl.rt.set_context, or acl.rt.set_device, in each thread",
    ),
    Entry(
        "device-lost",
        r"\b507010\b|\b507901\b",
        "contact with the chip was lost",
        "check power and temperature; reboot the board",
    ),
    Entry(
        "driver-pair",
        r"\b507899\b|(?i:driver).{0,60}(?i:version).{0,60}(?i:mismatch|not match|incompatible)|\b500000\b",
        "driver and CANN do not belong together",
        "take a pair from the maker's version map: on a 200 DK 1.0.13 goes with CANN 5.1 and 6.0.0.alpha003, "
        "1.0.12 with 5.0.4",
    ),
    Entry(
        "device-bad",
        r"\b507033\b",
        "the device is in a bad state: a killed job hangs it, or driver and CANN do not fit",
        "end other programs that use the NPU, wait, reboot the board; compare driver and CANN versions",
    ),
    Entry(
        "execution-failed",
        r"\b507011\b|\b507015\b|\b50701[478]\b",
        "the chip failed while it executed the model",
        "run again; if it stays, convert with atc.precision_mode=must_keep_origin_dtype and read the device log",
    ),
    Entry(
        "device-memory",
        r"\b207001\b|\b207018\b|\b245000\b|\b245002\b",
        "the chip's memory is full",
        "end other programs on the NPU, or use a smaller batch",
    ),
    Entry(
        "sd-card",
        r"(?i)make_(ubuntu_)?sd(_card)?\b",
        "the SD card cannot be made: not root, another locale than English, or reader and packages not found",
        "run it as root with LANG=C, the card's reader plugged in, ISO and driver package in the same folder",
    ),
    Entry(
        "killed",
        r"(?i)\bkilled\b|\bstatus 137\b",
        "the program was killed, most likely for want of memory",
        "convert on a bigger machine, or TE_PARALLEL_COMPILER=1 and MAX_COMPILE_CORE_NUMBER=1 and swap",
    ),
    Entry(
        "no-font",
        r"cannot open resource",
        "the font for writing on pictures is missing",
        "apt-get install fonts-dejavu-core on the board",
    ),
    Entry(
        "no-pillow",
        r"No module named '?PIL'?|_imaging\b",
        "Pillow is missing on the board, or was built there without libjpeg and zlib",
        "apt-get install python3-pil, or a wheel; to build it: libjpeg-dev zlib1g-dev",
    ),
    Entry(
        "no-numpy",
        r"No module named '?numpy'?",
        "NumPy is missing for this interpreter",
        "apt-get install python3-numpy, or pip install numpy for the interpreter that imports acl",
    ),
    Entry(
        "no-atc",
        r"(?i)atc: (command )?not found|No such file or directory: '?atc",
        "atc is not on this machine's PATH",
        "name a machine with CANN's toolkit: convert.host=…, or check board.cann.version",
    ),
    Entry(
        "non-interactive",
        r"(?i)(npu-smi|python3\.\d+(\.\d+)?): (command )?not found",
        "a command over SSH has another environment than a login: Ubuntu's .bashrc returns early",
        "give full paths or source set_env.sh in the command; lines in .bashrc are not read",
    ),
    Entry(
        "host-key-changed",
        r"(?i)host[- ]key[- ]changed|remote host identification has changed|host key.{0,40}changed",
        "the board's host key is another one than before: re-imaged, or not the same board",
        "compare the fingerprint on the board, then: deploy trust replace=true",
    ),
    Entry(
        "usb-network",
        r"192\.168\.[01]\.2\b.*(?i:no route|unreachable|timed? ?out|connect-timeout|nobody answers)"
        r"|(?i:no route|unreachable|timed? ?out|connect-timeout).*192\.168\.[01]\.2\b",
        "the PC's side of the USB network is not set up (again, after a reboot or replug), or its LAN has the "
        "same range",
        "give the PC an address such as 192.168.1.223/24 on the USB network card, or move the board's usb0 to "
        "another range and say board.host=…",
    ),
    Entry(
        "clock",
        r"(?i)certificate is not yet valid|modification time .* in the future|clock skew detected"
        r"|the board's clock is wrong",
        "the board has no battery: after a power cut its clock starts in the past",
        "set it over SSH: date -s, or let NTP do it",
    ),
    Entry(
        "health-alarm",
        r"(?i)\b80E3A203\b|310B4?\b.*\bAlarm\b",
        "a sensor's event; on a 310B4 most often a false alarm of the current sensor",
        "nothing: inference works. npu-smi info -t health shows the event",
    ),
    Entry(
        "low-accuracy",
        r"the answers disagree with the reference|(?i:accuracy .* below)",
        "the picture reaches the model otherwise than in training: normalised twice or never, RGB and BGR or "
        "NCHW and NHWC mixed up, floats fed to an om that takes bytes",
        "one preprocess=… decides all of it: convert again, and compare the om with ONNX Runtime on the same bytes",
    ),
    Entry(
        "garbage",
        r"scores are not finite|(?i:garbage result)|\[WARNING\] Input\[\d+\] size: .* not equal om size",
        "the model's buffer and what is copied into it differ in size or data type",
        "check sizes and data types before copying; atc.output_type=FP16 gives two bytes a value",
    ),
)

_BY_KEY = {entry.key: entry for entry in ENTRIES}


def explain(output: str) -> Entry | None:
    """Return the first entry whose pattern occurs in ``output``, or None."""
    return next((entry for entry in ENTRIES if re.search(entry.pattern, output)), None)


def entry(key: str) -> Entry:
    """Return the entry of that name. Raises KeyError where there is none."""
    return _BY_KEY[key]
