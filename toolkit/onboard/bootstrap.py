# First words on a board: passed to a Python of any age as its -c argument, so this parses on Python 2 too.
# Reads the agent's source from stdin (magic, length, checksum, length of the first half, both halves) and runs
# the first half. `c` is this text, packed; sys.argv holds the interpreters that are left to try if this one is
# too old.
import binascii, json, os, signal, struct, sys, zlib


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
    code = 'c="%s";import zlib,binascii;exec(zlib.decompress(binascii.a2b_base64(c)))' % c  # noqa: F821
    for number, other in enumerate(sys.argv[1:], 2):
        try:
            os.execvp(other, [other, "-E", "-s", "-S", "-u", "-c", code] + sys.argv[number:])
        except OSError:
            pass
    refuse("python2-only" if sys.version_info[0] < 3 else "python-too-old",
           "the newest Python found is %d.%d (%s)" % (sys.version_info[:2] + (sys.executable,)))
magic, length, check, first = struct.unpack(">4sIII", take(16))
if magic != b"ADA2" or length > 1048576:
    refuse("agent-failed", "what came is not the agent's source")
source = take(length)
if binascii.crc32(source) & 0xffffffff != check:
    refuse("agent-failed", "the agent's source was damaged on its way")
text = zlib.decompress(source[:first])
exec(compile(text, "agent.py", "exec"), {"__name__": "__main__", "REST": (text, source[first:])})
