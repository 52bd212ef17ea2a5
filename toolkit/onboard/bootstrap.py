# First words on a board: passed to a Python of any age as its -c argument, so this parses on Python 2 too.
# Reads the agent's source from stdin (magic, length, SHA-256, zlib) and runs it. `c` is this text, packed;
# sys.argv holds the interpreters that are left to try if this one is too old.
import os, sys, struct, json, signal, hashlib, zlib


def refuse(cause, message):
    text = json.dumps({"cause": cause, "message": message}).encode("ascii")
    os.write(1, b"\x01ascend-deploy\x02F" + struct.pack(">I", len(text)) + text)
    sys.exit(3)


def take(size):
    data = b""
    while len(data) < size:
        part = os.read(0, min(size - len(data), 65536))
        if not part:
            refuse("agent-failed", "the agent's source was cut off on its way")
        data += part
    return data


signal.alarm(60)  # nobody waits for ever: the default action ends this process
if sys.version_info < (3, 6):
    code = 'c="%s";import zlib,base64;exec(zlib.decompress(base64.b64decode(c)))' % c  # noqa: F821
    for number, other in enumerate(sys.argv[1:], 2):
        try:
            os.execvp(other, [other, "-E", "-s", "-S", "-u", "-c", code] + sys.argv[number:])
        except OSError:
            pass
    refuse("python2-only" if sys.version_info[0] < 3 else "python-too-old",
           "the newest Python found is %d.%d (%s)" % (sys.version_info[:2] + (sys.executable,)))
magic, length, digest = struct.unpack(">4sI32s", take(40))
if magic != b"ADA1" or length > 1048576:
    refuse("agent-failed", "what came is not the agent's source")
source = take(length)
if hashlib.sha256(source).digest() != digest:
    refuse("agent-failed", "the agent's source was damaged on its way")
exec(compile(zlib.decompress(source), "agent.py", "exec"), {"__name__": "__main__"})
