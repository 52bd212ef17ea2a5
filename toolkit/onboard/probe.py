"""What a board is fit for, asked on the board itself: prints JSON, changes nothing.

Sent with `python3 -c` in CANN's environment, as inference has it; standard library only, Python 3.6 or newer.

    python3 -c SOURCE [--device N] [--app FOLDER] INTERPRETER ...

For each interpreter: its version and whether it imports numpy, PIL and acl; for the first that imports all of
them also what acl says about the device. Then npu-smi's tables, version files, device nodes, fonts. The JSON is
packed (zlib, base64) into lines of 4000 characters behind a mark: lines of any length do not get through.
"""

import base64
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import zlib

MARK = "@@ascend-deploy-probe "
SECONDS = 40

# Run by each interpreter on its own: an import can crash a process.
IMPORTS = r"""
import json, sys
found = {"version": "%d.%d.%d" % sys.version_info[:3], "path": sys.executable, "errors": {}}
for name in ("numpy", "PIL", "acl"):
    try:
        found[name] = str(getattr(__import__(name), "__version__", "yes"))
    except Exception as problem:
        found["errors"][name] = "%s: %s" % (type(problem).__name__, problem)
sys.stdout.write("\n@@" + json.dumps(found))
"""

DEVICE = r"""
import json, sys
import acl
device, said = int(sys.argv[1]), {}
def call(name, function, *arguments):
    try:
        answer = function(*arguments)
    except Exception as problem:
        said.setdefault("errors", []).append([name, str(problem)])
        return None
    value, code = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, answer)
    if isinstance(code, int) and code != 0:
        said.setdefault("errors", []).append([name, code])
        return None
    return value
if hasattr(acl, "get_soc_name"):
    said["soc_name"] = acl.get_soc_name() or ""
if hasattr(acl, "get_version"):
    said["acl_version"] = ".".join(str(part) for part in acl.get_version()[:3])
started = call("acl.init", acl.init)
said["devices"] = call("acl.rt.get_device_count", acl.rt.get_device_count)
if call("acl.rt.set_device", acl.rt.set_device, device) is not None:
    said["opened"] = True
    said["run_mode"] = {0: "RC", 1: "EP"}.get(call("acl.rt.get_run_mode", acl.rt.get_run_mode))
    acl.rt.reset_device(device)
acl.finalize()
sys.stdout.write("\n@@" + json.dumps(said))
"""

VERSION_FILES = {
    "driver": (
        "/usr/local/Ascend/driver/version.info", "~/Ascend/driver/version.info",
        "/var/davinci/driver/version.info", "/etc/sys_version.conf",
    ),
    "firmware": ("/usr/local/Ascend/firmware/version.info", "~/Ascend/firmware/version.info"),
}
ROOTS = ("~/Ascend", "/usr/local/Ascend", "/opt/ascend")
PACKAGES = ("cann", "ascend-toolkit/latest", "nnrt/latest", "nnrt", "nnae/latest")
INFOS = ("*-linux/ascend_toolkit_install.info", "*-linux/ascend_nnrt_install.info", "*-linux/ascend_nnae_install.info",
         "ascend_toolkit_install.info", "ascend_nnrt_install.info", "ascend_nnae_install.info")
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"


def run(argv, seconds=SECONDS):
    """Exit status and output of a command; None and the reason where it does not run."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=seconds)
    except (OSError, subprocess.SubprocessError) as problem:
        return None, str(problem)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def asked(argv):
    """The JSON object behind the last @@ of a command's output, or {"failed": why}."""
    status, output = run(argv)
    try:
        return json.loads(output.rpartition("@@")[2]) if status == 0 else {"failed": output.strip()[-400:]}
    except ValueError:
        return {"failed": "no answer"}


def interpreters(names):
    found = []
    for name in names:
        path = shutil.which(os.path.expanduser(name))
        if path:
            found.append(dict(asked([path, "-c", IMPORTS]), name=name, command=path))
        else:
            found.append({"name": name, "absent": True})
    return found


def npu_smi():
    places = [shutil.which("npu-smi"), "/usr/local/sbin/npu-smi", "/usr/local/bin/npu-smi"]
    tool = next((place for place in places if place and os.access(place, os.X_OK)), None)
    if tool is None:
        return {"absent": True}
    # One after the other: the tool refuses to run twice at a time.
    status, table = run([tool, "info"])
    answer = {"path": tool, "status": status, "table": table[:65536]}
    if status == 0:
        card = re.search(r"^\|\s*(\d+)\s", table, re.MULTILINE)
        number = card.group(1) if card else "0"
        answer["board"] = run([tool, "info", "-t", "board", "-i", number])[1][:8192]
        answer["health"] = run([tool, "info", "-t", "health", "-i", number, "-c", "0"])[1][:8192]
    return answer


def read(path):
    try:
        with open(os.path.expanduser(path), encoding="utf-8", errors="replace") as stream:
            return stream.read(8192)
    except OSError:
        return ""


def key_values(text):
    return dict(re.findall(r"^\s*([A-Za-z_]+)\s*=\s*\[?([^\]\n]*?)\]?\s*$", text, re.MULTILINE))


def versions():
    found = {}
    for what, places in VERSION_FILES.items():
        for place in places:
            values = key_values(read(place))
            version = values.get("Version") or values.get("package_version")
            if version:
                found[what] = [version, place]
                break
    named = [os.environ.get(name, "") for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_NNRT_HOME")]
    bases = [place for place in named if place]
    bases += [os.path.join(os.path.expanduser(root), package) for root in ROOTS for package in PACKAGES]
    for base in bases:
        for info in INFOS:
            for path in sorted(glob.glob(os.path.join(base, info))):
                version = key_values(read(path)).get("version")
                if version:
                    found["cann"] = [version, path]
                    return found
    return found


def devices():
    nodes = sorted(glob.glob("/dev/davinci[0-9]*") + glob.glob("/dev/davinci_manager"))
    return {"nodes": nodes, "closed": [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]}


def main(arguments):
    device = "0"
    while arguments[:1] == ["--device"]:
        device, arguments = arguments[1], arguments[2:]
    answer = {
        "interpreters": interpreters(arguments), "npu_smi": npu_smi(), "versions": versions(), "devices": devices(),
        "font": os.path.exists(FONT), "uid": os.getuid(), "tmp_free": os.statvfs("/tmp").f_bavail
        * os.statvfs("/tmp").f_frsize,
        "stubs": [part for part in os.environ.get("LD_LIBRARY_PATH", "").split(":")
                  if "devlib" in part.split("/") or "stub" in part.split("/")],
    }
    for found in answer["interpreters"]:
        if found.get("acl"):
            answer["device"] = asked([found["command"], "-c", DEVICE, device])
            break
    packed = base64.b64encode(zlib.compress(json.dumps(answer).encode("ascii"))).decode("ascii")
    for start in range(0, len(packed), 4000):
        sys.stdout.write("\n" + MARK + packed[start:start + 4000])
    sys.stdout.write("\n")


main(sys.argv[1:])
