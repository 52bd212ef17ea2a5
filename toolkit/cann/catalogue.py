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


def _codes(*codes: str) -> str:
    """A pattern for return codes of pyACL: six digits alone are also sizes, so a word must say that it is one."""
    listed = "|".join(codes)
    return rf"(?i)\b(?:acl\.\S+|ret\w*|err\w*|code|fail\w*|result)\b[^\n\d]{{0,40}}\b(?:{listed})\b"


# The first entry that matches wins: special ones stand before general ones.
ENTRIES = (
    Entry(
        "no-driver-library",
        r"libascend_hal\.so: cannot open shared object|libc_sec\.so: cannot open shared object"
        r"|npu-smi: error while loading shared libraries",
        "the driver's libraries are not found: none is installed here, or LD_LIBRARY_PATH does not lead to them",
        "on a machine with a chip add /usr/local/Ascend/driver/lib64 and its folders common and driver to "
        "LD_LIBRARY_PATH; on a build host without one the toolkit's devlib",
    ),
    Entry(
        "no-amct",
        r"amct_onnx: (command )?not found|No such file or directory: '?amct_onnx|No module named '?amct_onnx",
        "AMCT is not installed on the machine that converts: it is a package of its own, beside CANN's toolkit",
        "install amct_onnx there (Ascend-cann-amct), name another machine with convert.host=…, or quantise=none",
    ),
    Entry(
        "no-aoe",
        r"\baoe: (command )?not found|No such file or directory: '?aoe\b",
        "AOE is not on the PATH of the machine that converts: it comes with CANN's toolkit since 5.0.4, for machines "
        "with a chip",
        "convert on a machine with a chip of the boards' kind (convert.host=…), or tune=none",
    ),
    Entry(
        "atc-input-shape",
        r"\bE10016\b.*input_shape|input_shape.*\bE10016\b",
        "atc.input_shape names an input that the model does not have",
        "take the name from the error text or look into the model; MindSpore's ONNX calls its input x, "
        "and with AIR the flag is ignored",
    ),
    Entry(
        "atc-node-name",
        r"\bE10016\b|\bE10017\b|\bE1101[67]\b",
        "a flag names a node or an output that the model does not have",
        "look into the model (Netron shows it): atc.out_nodes=name:0, atc.input_fp16_nodes=name",
    ),
    Entry(
        "atc-input-dimensions",
        r"\bE10049\b|\bE10050\b",
        "atc.input_shape has another number of dimensions than the model's input",
        "give one number for each dimension, such as x:1,3,224,224",
    ),
    Entry(
        "atc-dynamic-model",
        r"maybe you should set input_shape",
        "the model leaves a dimension of an input open, and ATC is not told its size",
        "atc.input_shape=\"x:1,3,224,224\" with the input's own name, or export with a fixed batch",
    ),
    Entry(
        "atc-shape-numbers",
        r"\bE10002\b|\bE10011\b|\bE10048\b",
        "atc.input_shape is not what ATC takes: a positive number for each dimension, -1 only with gears",
        "write name:1,3,224,224, several with semicolons: \"a:1,3,224,224;b:1,2\"",
    ),
    Entry(
        "atc-gears-exclusive",
        r"\bE10009\b",
        "more than one kind of dynamic shape was asked for",
        "keep one of atc.dynamic_batch_size, atc.dynamic_image_size and atc.dynamic_dims",
    ),
    Entry(
        "atc-gears",
        r"\bE100(12|18|19|20|3[15-9]|40|45|46)\b",
        "the gears and atc.input_shape do not fit: each open dimension is -1 there, and there are 2 to 100 gears, "
        "no two the same",
        "for batches x:-1,3,224,224 and atc.dynamic_batch_size=\"1,2,4,8\"",
    ),
    Entry(
        "atc-framework-missing",
        r"\bE10007\b",
        "ATC was not told the framework",
        "ATC's command line must have --framework=1 (AIR) or 5 (ONNX); the pipeline gives it, a script must",
    ),
    Entry(
        "atc-flag-missing",
        r"\bE10004\b|\bE10054\b|\bE10058\b|\bE10008\b",
        "a flag that ATC must have is missing or empty, or a value with spaces or semicolons is not in quotes",
        "a flag is key=value below atc; quote it whole: 'atc.input_shape=\"a:1,3;b:1,2\"'",
    ),
    Entry(
        "atc-flags-exclude",
        r"\bE10047\b|\bE10056\b|\bE10057\b|\bE10055\b",
        "two flags of ATC exclude each other, or this CANN does not support one of them",
        "leave one out: atc.FLAG=null, and see the reason in ATC's words",
    ),
    Entry(
        "atc-unknown-flag",
        r"unknown command line flag",
        "this CANN's ATC has no such flag: flags come and go with its versions",
        "atc.FLAG=null, or convert with another CANN",
    ),
    Entry(
        "atc-model-unreadable",
        r"\bE10041\b|\bE13005\b|\bE16004\b",
        "ATC cannot read the model: truncated, or of another framework than --framework says",
        "use AIR with 1 and ONNX with 5; ATC takes no MindIR",
    ),
    Entry(
        "atc-aipp-fp16",
        r"\bE10034\b",
        "an input has AIPP and is to be fp16, too: AIPP's is always uint8",
        "leave it out of atc.input_fp16_nodes, or preprocess.aipp=false",
    ),
    Entry(
        "atc-aipp",
        r"\bE10052\b|--insert_op_conf\b.*\bis invalid",
        "the AIPP file is wrong",
        "check atc.insert_op_conf, or let preprocess.aipp=true write it",
    ),
    Entry(
        "atc-opset",
        r"\bE16005\b|No parser is registered for Op \[[^\]]*\boptype \[ai\.onnx::",
        "the ONNX file's opset is newer than this CANN reads, or it names more than one domain",
        "export opset 11 (every CANN reads it; the newest up to 18), or convert with a newer CANN that the boards "
        "can run too",
    ),
    Entry(
        "atc-operator",
        r"\bE16002\b|\bE10501\b|\bE19010\b|\bEZ3003\b|\bEZ3002\b|\bE14001\b",
        "the network has an operator, or a form of one, that this CANN does not know for this chip",
        "replace the operator, or convert with a newer CANN that the board can run too",
    ),
    Entry(
        "atc-numpy",
        r"`?np\.(float_|float|int|bool|object)`? was removed|numpy\.core\.multiarray failed to import",
        "NumPy of the python3 that ATC runs is too new for this CANN",
        "pip install 'numpy<2' (CANN up to 5.x: 'numpy<1.24') for the python3 that runs atc",
    ),
    Entry(
        "atc-python-packages",
        r"\bE40000\b|\bE40001\b|\bE40002\b|\bE40020\b|\bEC0010\b"
        r"|No module named '(decorator|attrs?|sympy|te|tbe|scipy|cffi|psutil|google|_struct)'",
        "a Python package that ATC needs is missing, or python3 is the wrong one",
        "pip install attrs numpy decorator sympy cffi pyyaml pathlib2 psutil protobuf scipy requests absl-py "
        "for the user and the python3 that run atc; CANN 20.x wants /usr/local/python3.7.5/bin first in PATH",
    ),
    Entry(
        "atc-compile",
        r"\bE40021\b|\bE20001\b|\bEZ9999\b.*[Cc]ompile|Failed to compile Op",
        "the compiler failed on an operator",
        "try atc.precision_mode=must_keep_origin_dtype or an older opset; if it stays, replace the operator that "
        "ATC names",
    ),
    Entry(
        "atc-file-missing",
        r"\bE10410\b|\bE13001\b|\bE13026\b|\bE10001\b.*No such file or directory",
        "a file that a flag names is not there",
        "files of your own are sent where atc.<flag> is a path on this machine, such as atc.keep_dtype=./keep.cfg",
    ),
    Entry(
        "atc-path",
        r"path can only contain|\bE1002[12]\b",
        "ATC takes no path with spaces or other letters than a-z, A-Z, 0-9, - . _ /",
        "board.root of the converting machine must lead to a folder with a plain name",
    ),
    Entry(
        "atc-cannot-write",
        r"\bE13004\b|\bE10001\b.*(Can ?not write|Permission denied)",
        "ATC cannot write its result, or may not read a file",
        "look at the owner and the room of board.root on the converting machine",
    ),
    Entry(
        "atc-model-size",
        r"\bE13023\b|\bE13015\b|exceeds? (the )?maximum protobuf size",
        "the model's file is larger than ATC takes in one piece, 2 GB",
        "export with weights beside the model, or convert with a newer CANN",
    ),
    Entry(
        "atc-auto-tune",
        r"\bE10001\b.*auto_tune_mode|auto_tune_mode.*\bE10001\b|Auto Tune function has been deprecated",
        "this CANN has no Auto Tune any more",
        "leave atc.auto_tune_mode out; tune=aoe tunes",
    ),
    Entry(
        "atc-soc-version",
        r"\bE10001\b.*soc_version|soc_version.*\bE10001\b|\bE20\d{3}\b.*soc|platform config file \S+\.ini is not found",
        "ATC does not know this --soc_version",
        "take it from the board: Ascend + the Name column of npu-smi info; an old CANN does not know new chips, "
        "and the newest no longer knows the oldest",
    ),
    Entry(
        "atc-input-shape-form",
        r"\bE10001\b.*input_shape|input_shape.*\bE10001\b",
        "atc.input_shape is not what ATC takes, or names an input that the model does not have",
        "write name:1,3,224,224 with the name that the model has; MindSpore's ONNX calls its input x",
    ),
    Entry(
        "atc-flag",
        r"\bE10001\b|\bE10003\b|\bE1000[56]\b|\bE1001[034]\b",
        "a flag of ATC has a value that it does not take",
        "ATC's words say which; atc.FLAG=null leaves it out",
    ),
    Entry(
        "calibration-data",
        r"input image size ?\[\d+\] is not equal to model input size|Do Calibration failed",
        "the calibration pictures have another size or type than the model's input",
        "data and preprocess must be those that the network was trained with",
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
        _codes("207006")
        + r"|permission denied.*/dev/(davinci|devmm|hisi)|/dev/(davinci|devmm|hisi)\w*.*permission denied"
        r"|dcmi module initialize failed\. ret is -8005",
        "the user may not open the NPU's device nodes, or they are not in this container",
        "usermod -aG HwHiAiUser (on 310B boards HwBaseUser and HwDmUser too) and log in again; "
        "a container needs --device /dev/davinci0 and its neighbours",
    ),
    Entry(
        "device-in-use",
        r"because the device is used\. ret is -8020|ret is -8020\b",
        "another container has the chip: without privileges only one at a time can have it",
        "stop the other one, or give each a chip of its own (--device /dev/davinciN)",
    ),
    Entry(
        "no-device",
        _codes("207004", "107001", "200002") + r"|\bEE1001\b.*invalid device|Set device failed, invalid device",
        "there is no chip of this number, or its driver does not run",
        "npu-smi info lists the chips; infer.device counts from 0. If it lists none: reboot, read dmesg",
    ),
    Entry(
        "stub-libraries",
        _codes("100039"),
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
        _codes("145006", "100005", "100014", "100015"),
        "the om is damaged, cut short or not an om",
        "deploy's verb verify re-hashes what is on the board; check the board's disk",
    ),
    Entry(
        "om-other-chip",
        r"(?i)soc.?version.{0,80}(mismatch|not match|inconsistent)|(mismatch|not match).{0,80}soc.?version",
        "the om was built for another --soc_version than the board's chip",
        "convert again with Ascend + the Name column of npu-smi info: the board's right profile does it",
    ),
    Entry(
        "om-newer-cann",
        _codes("100012", "100013", "507009"),
        "the om was made by a newer CANN than the board's",
        "convert with the board's CANN version, or upgrade the board",
    ),
    Entry(
        "om-missing",
        _codes("145002", "100003"),
        "the om, or acl.json, is not where the program looks for it, or may not be read",
        "look at path and rights; deploy's verb verify re-hashes what is on the board",
    ),
    Entry(
        "om-input-size",
        _codes("145000", "100017", "100018") + r"|\bE13025\b",
        "an input is smaller than the model's: another size, data type or batch",
        "preprocess must be what the om was converted with: convert again; by hand, compare "
        "acl.mdl.get_input_size_by_index with what is copied",
    ),
    Entry(
        "om-not-dynamic",
        _codes("145013", "100019", r"14501[12]"),
        "a batch or picture size was set that the om has no gear for",
        "choose one of those of atc.dynamic_batch_size, or convert again with it among them",
    ),
    Entry(
        "om-unknown",
        _codes("145003", "100011"),
        "the program uses a model that it has unloaded, or never loaded: most often the load before failed",
        "look for the first failure above this one",
    ),
    Entry(
        "om-not-loaded",
        _codes(r"545\d{3}", "500002", r"145\d{3}"),
        "the runtime cannot load or run the om: made for another chip, or by another CANN",
        "compare board.soc_version with npu-smi info (Ascend + Name), and board.cann.version with the board",
    ),
    Entry(
        "acl-not-initialised",
        _codes("100001"),
        "acl.init was not called in this process",
        "call acl.init once, before all else",
    ),
    Entry(
        "acl-twice",
        _codes("100002", "100037"),
        "acl.init or acl.finalize was called twice in this process: a library does it, too",
        "let one place do it, and take these two codes for success",
    ),
    Entry(
        "acl-wrong-thread",
        _codes("107003"),
        "a stream is used in another context than it was made in",
        "make it in the thread that uses it, or acl.rt.set_context first",
    ),
    Entry(
        "no-context",
        _codes("107002"),
        "a thread calls the runtime without a context of its own",
        "acl.rt.set_context, or acl.rt.set_device, in each thread",
    ),
    Entry(
        "device-lost",
        _codes("507010", "507901"),
        "contact with the chip was lost",
        "check power and temperature; reboot the board",
    ),
    Entry(
        "driver-pair",
        _codes("507899", "500000", "500004") + r"|driver.{0,60}version.{0,60}(mismatch|not match|incompatible)",
        "driver and CANN do not belong together",
        "take a pair from the maker's version map: on a 200 DK 1.0.13 goes with CANN 5.1 and 6.0.0.alpha003, "
        "1.0.12 with 5.0.4",
    ),
    Entry(
        "device-bad",
        _codes("507033"),
        "the device is in a bad state: a killed job hangs it, or driver and CANN do not fit",
        "end other programs that use the NPU, wait, reboot the board; compare driver and CANN versions",
    ),
    Entry(
        "execution-failed",
        _codes("507011", r"50701[578]"),
        "the chip failed while it executed the model",
        "run again; if it stays, convert with atc.precision_mode=must_keep_origin_dtype and read the device log",
    ),
    Entry(
        "device-streams",
        _codes("207008"),
        "the chip has no streams left: models and programs that were not ended hold them",
        "end other programs on the NPU, and unload models that are not used",
    ),
    Entry(
        "timeout",
        _codes("107019", "107020", "507046", "507014"),
        "the chip did not finish in time",
        "run again; if it stays, end other programs on the NPU, look at its temperature, reboot the board",
    ),
    Entry(
        "acl-parameter",
        _codes("100000", "107000", "107017"),
        "a handle, size or pointer that pyACL was given is wrong: null, freed, or a copy larger than its target",
        "acl.get_recent_err_msg() says which; sizes come from acl.mdl.get_input_size_by_index",
    ),
    Entry(
        "host-memory",
        _codes("200000"),
        "the board's own memory is full",
        "free on the board shows it: end other programs, or add swap",
    ),
    Entry(
        "device-memory",
        _codes("207001", "207018", "245000", "245002"),
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
        r"(?i)\batc: (command )?not found|No such file or directory: '?atc",
        "atc is not on this machine's PATH",
        "name a machine with CANN's toolkit: convert.host=…; if it is there, say where: board.cann.toolkits, or "
        "board.cann.version of that machine",
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
        "compare the fingerprint on the board, then pin it anew with deploy's verb trust and replace=true",
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
    Entry(
        "atc-inner",
        r"\bE19999\b|\bEZ9999\b|\bE[A-Z]9999\b",
        "CANN reports an error within itself: the first line below TraceBack is the nearest to its cause",
        "atc.log=error, and read ATC's whole output in the run's folder; convert with another CANN if nothing helps",
    ),
)

_BY_KEY = {entry.key: entry for entry in ENTRIES}


def explain(output: str) -> Entry | None:
    """Return the first entry whose pattern occurs in ``output``, or None."""
    return next((entry for entry in ENTRIES if re.search(entry.pattern, output)), None)


def entry(key: str) -> Entry:
    """Return the entry of that name. Raises KeyError where there is none."""
    return _BY_KEY[key]
