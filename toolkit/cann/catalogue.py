"""From what ATC, pyACL and npu-smi print when they fail to a cause and a fix."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One known failure: a pattern on the output, its cause, what to do."""

    pattern: str
    cause: str
    fix: str


# The first entry that matches wins: special ones stand before general ones.
ENTRIES = (
    Entry(
        r"\bE10016\b",
        "atc.input_shape names an input that the model does not have",
        "take the name from the error text or look into the model; MindSpore's ONNX calls its input x",
    ),
    Entry(
        r"\bE10049\b",
        "atc.input_shape has another number of dimensions than the model's input",
        "give one number for each dimension, such as x:1,3,224,224",
    ),
    Entry(r"\bE10007\b", "ATC was not told the framework", "set atc.framework=1 (AIR) or 5 (ONNX)"),
    Entry(
        r"\bE10041\b|\bE13005\b",
        "ATC cannot read the model: truncated, or of another framework than --framework says",
        "use AIR with 1 and ONNX with 5; ATC takes no MindIR",
    ),
    Entry(
        r"\bE10052\b",
        "the AIPP file is wrong",
        "check atc.insert_op_conf, or let preprocess.aipp=true write it",
    ),
    Entry(
        r"\bE16002\b|\bE10501\b",
        "the network has an operator that this CANN does not know",
        "replace the operator, or convert with a newer CANN that the board can run too",
    ),
    Entry(
        r"\bE40002\b|\bE40020\b|No module named '(decorator|attr|sympy|te|tbe|scipy|cffi)'",
        "a Python package that ATC needs is missing, or python3 is the wrong one",
        "pip install attrs numpy decorator sympy cffi pyyaml pathlib2 psutil protobuf scipy requests absl-py "
        "for the user and the python3 that run atc",
    ),
    Entry(
        r"\bE10001\b.*soc_version|soc_version.*\bE10001\b|\bE20\d{3}\b.*soc",
        "ATC does not know this --soc_version",
        "take it from the board: Ascend + the Name column of npu-smi info",
    ),
    Entry(r"\bE10001\b", "a flag of ATC has a value that it does not take", "see the reason in ATC's output"),
    Entry(
        r"libascendcl\.so: cannot open shared object",
        "LD_LIBRARY_PATH does not lead to CANN in this shell",
        "check board.cann.version and the environment of the profile: deploy doctor",
    ),
    Entry(
        r"No module named '?acl'?",
        "PYTHONPATH does not lead to pyACL in this shell",
        "check board.cann.version and the environment of the profile: deploy doctor",
    ),
    Entry(
        r"\b207006\b|ermission denied.*/dev/davinci",
        "the user may not open the NPU's device nodes",
        "add the user to the group HwHiAiUser (on 310B boards HwBaseUser and HwDmUser too) and log in again",
    ),
    Entry(
        r"\b100039\b",
        "CANN's stub libraries were loaded instead of the real ones",
        "remove devlib and stub folders from LD_LIBRARY_PATH",
    ),
    Entry(
        r"\b145006\b|\b100015\b",
        "the om is damaged or not an om",
        "deploy verify re-hashes what is on the board; check the board's disk",
    ),
    Entry(
        r"\b10001[23]\b|\b507009\b",
        "the om was made by a newer CANN than the board's",
        "convert with the board's CANN version, or upgrade the board",
    ),
    Entry(
        r"\b545\d{3}\b|\b500002\b|\b145\d{3}\b",
        "the runtime cannot load or run the om: made for another chip, or by another CANN",
        "compare board.soc_version with npu-smi info (Ascend + Name), and board.cann.version with the board",
    ),
    Entry(r"\b507010\b|\b507901\b", "contact with the chip was lost", "check power and temperature; reboot the board"),
    Entry(
        r"\b507033\b|\b507899\b",
        "the device is in a bad state: a killed job, or driver and CANN do not fit",
        "end other programs that use the NPU, reboot the board, compare driver and CANN versions",
    ),
    Entry(
        r"\b507011\b|\b507015\b|\b50701[478]\b",
        "the chip failed while it executed the model",
        "run again; if it stays, convert with atc.precision_mode=must_keep_origin_dtype and read the device log",
    ),
    Entry(
        r"\b207001\b|\b207018\b|\b245000\b|\b245002\b",
        "the chip's memory is full",
        "end other programs on the NPU, or use a smaller batch",
    ),
    Entry(
        r"(?i)\bkilled\b|\bstatus 137\b",
        "the program was killed, most likely for want of memory",
        "convert on a bigger machine, or TE_PARALLEL_COMPILER=1 and MAX_COMPILE_CORE_NUMBER=1",
    ),
    Entry(
        r"cannot open resource",
        "the font for writing on pictures is missing",
        "apt-get install fonts-dejavu-core on the board",
    ),
    Entry(r"No module named '?PIL'?", "Pillow is missing on the board", "apt-get install python3-pil, or a wheel"),
    Entry(
        r"(?i)atc: (command )?not found|No such file or directory: '?atc",
        "atc is not on this machine's PATH",
        "name a machine with CANN's toolkit: convert.host=…, or check board.cann.version",
    ),
)


def explain(output: str) -> Entry | None:
    """Return the first entry whose pattern occurs in ``output``, or None."""
    return next((entry for entry in ENTRIES if re.search(entry.pattern, output)), None)
