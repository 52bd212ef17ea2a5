"""The agent: one file that acts on a board for the controller. Sent at each connection, never installed.

Python 3.6 or newer, standard library only. Talks in frames (type, length, payload) on stdin and stdout:

    near -> far   Q request (JSON)   B bytes of a blob   E end of a blob
    far -> near   H hello   A answer (JSON)   V lines of a running command (JSON)   . heartbeat
                  F file header (JSON)   D bytes of a file   E end of a file

What it keeps in <root>/<app>/:

    blobs/<sha256>            each content once; <sha256>.part is on its way (a cut transfer goes on there);
                              <sha256>.idx tells a controller which chunks it holds: made there, a mere hint
    releases/<id>/            hard links to blobs, manifest.json (whose SHA-256 is the id), .deploy, .last_run
    current, previous         links to releases/<id>
    reverted                  link to the release that was taken back last: whoever goes back goes back once
    pending                   a switch that nobody has confirmed yet
    outputs/  work/  journal  lock

The first half is enough to look at a board; the second is compiled when a request needs it: on a small board
that takes longer than the look itself.

It may be killed, and the power may go, between any two lines of this file. So: nothing is written in place;
content is flushed before the name that stands for it appears; `pending` is written before `current` moves,
and whoever looks next (the watcher, or any later agent) finishes or undoes what it says.
"""

import contextlib
import fcntl
import grp
import json
import os
import pwd
import re
import select
import signal
import stat
import struct
import sys
import threading
import time
import zlib

PROTOCOL = 1
SYNC = b"\x01ascend-deploy\x02"   # before the first frame: a login shell may have said something already
MAX_FRAME = 8 << 20
CHUNK = 1 << 18
# sshd's processor time for a release more than halves with room for 1 MiB instead of 64 KiB between it and us.
SET_PIPE_SIZE, PIPE_SIZE = 1031, 1 << 20   # F_SETPIPE_SZ, named since Python 3.10; /proc/sys/fs/pipe-max-size
BEAT = 2.0                        # seconds between heartbeats while at work
TEMP = b".deploy.tmp"             # how names end that are not yet, or no longer, valid


class LineGone(Exception):
    """The controller is gone, or says nothing sensible any more."""


class Refused(Exception):
    """The board cannot do what was asked; `cause` is one of toolkit/errors.py's short words."""

    def __init__(self, cause, message, hint="", **more):
        Exception.__init__(self, message)
        self.answer = dict(more, cause=cause, message=message, hint=hint)


def fs(text):
    """A path as bytes: UTF-8 whatever the locale (in the C locale Python 3.6 would say ASCII)."""
    return text.encode("utf-8", "surrogateescape")


def text(path):
    return path.decode("utf-8", "surrogateescape")


def read_json(path):
    """The dict in a file; {} where there is none or it is damaged."""
    try:
        with open(path, "rb") as stream:
            value = json.loads(stream.read().decode("utf-8"))
        return value if isinstance(value, dict) else {}
    except (OSError, ValueError):
        return {}


def to_json(value):
    return json.dumps(value, sort_keys=True).encode("ascii")


def hash_file(path, digest=None, size=None):
    """Feed a file (its first `size` bytes) to a digest."""
    import hashlib
    digest = digest or hashlib.sha256()
    left = os.path.getsize(path) if size is None else size
    with open(path, "rb") as stream:
        while left > 0:
            block = stream.read(min(left, 1 << 20))
            if not block:
                break
            digest.update(block)
            left -= len(block)
    return digest


def safe_path(name):
    """Refuse a path that would leave its folder."""
    if not name or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise Refused("agent-failed", "%r is not a path inside the app's folder" % name)
    return fs(name)


def digest_name(name):
    if not re.match(r"[0-9a-f]{64}\Z", str(name)):
        raise Refused("agent-failed", "%r is not the name of a release" % name)
    return name


def open_plain(path):
    """Read a file that is no link, and no pipe that would keep us waiting."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(handle, "rb")


def sizes_in(folder):
    """Name -> size of what lies in a folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
    except OSError:
        return {}


# ---------------------------------------------------------------- the line

class Channel:
    """Frames over stdin and stdout. What comes in lies in one buffer: a small board must not copy it about."""

    def __init__(self, reading, writing):
        self.reading, self.writing = reading, writing
        self.lock = threading.Lock()
        self.silence = 60.0       # seconds without a byte in the middle of a frame or a transfer
        self.wrote = 0.0
        self.room, self.begin, self.end = memoryview(bytearray(2 * CHUNK + 4096)), 0, 0

    def send(self, kind, payload=b""):
        view = memoryview(kind + struct.pack(">I", len(payload)) + payload)
        with self.lock:
            try:
                while view:
                    view = view[os.write(self.writing, view):]
            except OSError as problem:
                raise LineGone(str(problem))
            self.wrote = time.monotonic()

    def take(self, size, wait):
        """The next `size` bytes: a view that holds until the next call."""
        have = self.end - self.begin
        if not have or self.begin + size > len(self.room):
            left = bytes(self.room[self.begin:self.end])
            if size > len(self.room):
                self.room = memoryview(bytearray(size))
            self.room[:have] = left
            self.begin, self.end = 0, have
        while self.end - self.begin < size:
            if not select.select([self.reading], [], [], wait)[0]:
                raise LineGone("nothing came for %d s" % wait)
            got = os.readv(self.reading, [self.room[self.end:]])
            if not got:
                raise LineGone("closed")
            self.end += got
            wait = self.silence
        self.begin += size
        return self.room[self.begin - size:self.begin]

    def frame(self, wait=None):
        kind, size = struct.unpack(">cI", self.take(5, self.silence if wait is None else wait))
        if kind not in b"QBE" or size > MAX_FRAME:
            raise LineGone("not a frame")
        return kind, self.take(size, self.silence)

    def beat(self):
        if time.monotonic() - self.wrote >= BEAT:
            self.send(b".")

    @contextlib.contextmanager
    def beating(self):
        """Heartbeats from a second thread: a flush to a slow card can last longer than anybody's patience."""
        stop = threading.Event()

        def beat():
            with contextlib.suppress(LineGone):
                while not stop.wait(BEAT):
                    self.beat()

        thread = threading.Thread(target=beat)
        thread.daemon = True
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


# ---------------------------------------------------------------- ~/.bashrc

class Bashrc:
    """Our marked block in ~/.bashrc, one for each app. People's own lines are theirs."""

    def __init__(self, app):
        self.path = os.path.realpath(os.path.join(os.path.expanduser(b"~"), b".bashrc"))
        self.begin = fs("# >>> ascend-deploy: %s >>>" % app)
        self.end = fs("# <<< ascend-deploy: %s <<<" % app)

    def lines(self):
        try:
            with open(self.path, "rb") as stream:
                return stream.read().splitlines(True)
        except FileNotFoundError:
            return []

    def find(self, lines):
        """First and last+1 line of the block, or None. A beginning without an end is not a block."""
        first = None
        for number, line in enumerate(lines):
            if line.strip() == self.begin:
                first = number
            elif line.strip() == self.end and first is not None:
                return first, number + 1
        return None

    def read(self):
        """The block's text; None where there is no block."""
        lines = self.lines()
        found = self.find(lines)
        return found and text(b"".join(lines[found[0] + 1:found[1] - 1]))

    def compare(self, wanted):
        """"same", "differs" or "absent"; None = anything will do."""
        block = self.read()
        if wanted is None or (block or "").rstrip("\n") == wanted.rstrip("\n"):
            return "same"
        return "absent" if block is None else "differs"

    def write(self, wanted):
        """Make the block say `wanted` (None: no block). True if the file had to be changed."""
        if wanted is not None:
            wanted = wanted.rstrip("\n") + "\n" if wanted.strip() else None
        if self.read() == wanted:
            return False
        lines = self.lines()
        block = [] if wanted is None else [self.begin + b"\n", fs(wanted), self.end + b"\n"]
        found = self.find(lines)
        if found:
            lines[found[0]:found[1]] = block
        else:
            if lines and not lines[-1].endswith(b"\n"):
                lines[-1] += b"\n"
            lines += block
        replace_file(self.path, b"".join(lines), os.stat(self.path) if os.path.exists(self.path) else None)
        return True


# ---------------------------------------------------------------- one app on the board

class Folder:
    """The folder <root>/<app>, to look at: releases, what is current, and who holds the lock."""

    def __init__(self, root, app):
        self.root = os.path.abspath(os.path.expanduser(fs(root)))
        self.name = text(safe_path(app))
        self.folder = os.path.join(self.root, fs(app))
        self.bashrc = Bashrc(app)
        self.lock_handle = None

    def path(self, *parts):
        return os.path.join(self.folder, *(part if isinstance(part, bytes) else fs(part) for part in parts))

    def blob(self, sha):
        """Where a content lies, None where it does not; executables have a blob of their own."""
        paths = [self.path("blobs", digest_name(sha) + end) for end in ("", ".x")]
        return next(filter(os.path.isfile, paths), None)

    def unlock(self):
        if self.lock_handle is not None:
            os.close(self.lock_handle)
            self.lock_handle = None

    def locked(self):
        """Who holds the lock: {holder, since, age}, or None. Changes nothing."""
        try:
            handle = os.open(self.path("lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            record = read_json(self.path("lock"))
            return {"holder": str(record.get("holder", "")), "since": float(record.get("since", 0)),
                    "age": max(0.0, time.monotonic() - float(record.get("monotonic", time.monotonic())))}
        finally:
            os.close(handle)

    def pointer(self, name):
        """The id that `current` or `previous` points to, or ""."""
        try:
            folder, last = os.path.split(text(os.readlink(self.path(name))))
        except OSError:
            return ""
        return last if folder == "releases" and re.match(r"[0-9a-f]{64}\Z", last) else ""

    def complete(self, release):
        return os.path.isfile(self.path("releases", release, "manifest.json"))

    def lacking(self, release):
        """Paths of a release's files that are not there or have another size. Hashes nothing: a look is quick."""
        try:
            files = read_json(self.path("releases", release, "manifest.json"))["files"]
            sizes = {file["path"]: file["size"] for file in files}
        except (KeyError, TypeError):
            return ["manifest.json"]
        lack = []
        for path, size in sorted(sizes.items()):
            try:
                found = os.lstat(self.path("releases", release, path))
            except OSError:
                found = None
            if not found or not stat.S_ISREG(found.st_mode) or found.st_size != size:
                lack.append(path)
        return lack

    def strange(self):
        """Is what lies at `current` somebody else's? A release of ours that is gone is not."""
        return bool(self.foreign()) and not self.pointer("current")

    def foreign(self):
        """Why `current` is not ours; "" where it is, or where there is none."""
        path = self.path("current")
        if not os.path.lexists(path):
            return ""
        release = self.pointer("current")
        if not release:
            return "%s was not made by this program" % text(path)
        if not self.complete(release):
            return "%s points to a release that is not there" % text(path)
        return ""

    def releases(self):
        """Ids of the complete releases, oldest first."""
        try:
            names = os.listdir(self.path("releases"))
        except OSError:
            return []
        names = [text(name) for name in names if re.match(br"[0-9a-f]{64}\Z", name)]
        return sorted((name for name in names if self.complete(name)),
                      key=lambda name: (self.note(name).get("sequence", 0), name))

    def note(self, release):
        return read_json(self.path("releases", release, ".deploy"))

    def roles(self, release):
        """path -> [sha256, size] of a release's files; {} where the manifest is damaged."""
        path = self.path("releases", release, "manifest.json")
        if not release or not os.path.isfile(path) or hash_file(path).hexdigest() != release:
            return {}
        return {file["path"]: [file["sha256"], file["size"]] for file in read_json(path)["files"]}

    def last_run(self):
        current = self.pointer("current")
        return read_json(self.path("releases", current, ".last_run")) or None if current else None

    def pending(self):
        return read_json(self.path("pending"))


# ---------------------------------------------------------------- looking

def facts(root):
    """What the controller wants to know of a board. Reads only."""
    system, space = os.uname(), os.statvfs(nearest(root))
    groups = []
    for number in os.getgroups():
        try:
            groups.append(grp.getgrgid(number).gr_name)
        except KeyError:
            groups.append(str(number))
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        memory = 0
    return {
        "python": sys.executable, "version": "%d.%d.%d" % sys.version_info[:3],
        "user": user_name(os.getuid()), "home": os.path.expanduser("~"), "arch": system.machine,
        "system": system.sysname,
        "kernel": system.release, "hostname": system.nodename, "clock": time.time(), "boot_id": boot_id(),
        "disk_free": space.f_bavail * space.f_frsize, "disk_total": space.f_blocks * space.f_frsize,
        "cores": os.cpu_count() or 1, "memory_total": memory, "groups": groups,
    }


def boot_id():
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def journal_tail(path):
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 8192))
            return [line.decode("utf-8", "replace") for line in stream.read().splitlines()[-20:]]
    except OSError:
        return []


def user_name(number):
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return "uid %d" % number


def nearest(path):
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


class Session:
    """One connection: answers requests, one at a time. This one can only look."""

    opens = Folder

    def __init__(self, channel):
        self.channel, self.app, self.pythons, self.arrived = channel, None, {}, {}
        self.holder, self.idle = "", 600.0

    def close(self):
        self.arrived = {}        # whoever has the lock next may touch them
        if self.app:
            self.app.unlock()

    def handle(self, request):
        """Answer one request. Whatever goes wrong has a cause."""
        name = "do_" + str(request.get("verb")).replace("-", "_")
        try:
            if not hasattr(self, name):
                load_rest(self)
            verb = getattr(self, name, None)
            if not verb:
                raise Refused("agent-failed", "no such request: %r" % request.get("verb"))
            if "root" in request:
                if self.app is None or (request["root"], request["app"]) != self.asked:
                    self.close()
                    self.app = self.opens(request["root"], request["app"])
                    self.asked = request["root"], request["app"]
            self.holder = request.get("holder") or self.holder
            if "limits" in request:
                self.channel.silence, self.idle = request["limits"]["silence"], request["limits"]["board"]
                signal.alarm(int(request["limits"]["board"]) + 60)
            return verb(request)
        except Refused as refusal:
            return {"error": refusal.answer}
        except OSError as problem:
            load_rest(self)
            return {"error": self.explain(problem)}
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError,
                struct.error, zlib.error) as problem:
            import traceback
            place = traceback.extract_tb(sys.exc_info()[2])[-1]
            return {"error": {"cause": "agent-failed", "message": "%s: %s (agent.py:%s in %s)" % (
                type(problem).__name__, problem, place[1], place[2])}}

    def do_inspect(self, q):
        app = self.app
        answer = {"facts": facts(app.root), "warnings": []}
        if os.path.lexists(app.path("pending")):
            load_rest(self)
            with app.state():
                app.resolve()
        pending = app.pending()
        answer.update(
            current=app.pointer("current"), previous=app.pointer("previous"), releases=app.releases(),
            reverted=app.pointer("reverted"),
            broken=app.lacking(app.pointer("current")) if app.pointer("current") else [],
            lock=app.locked() if app.lock_handle is None else None, foreign=app.foreign(), missing={},
            last_run=app.last_run(), journal_tail=journal_tail(app.path("journal")), folder=text(app.folder),
            pending={key: pending[key] for key in ("release", "former", "within")} if pending else None)
        if time.time() < 1500000000:
            today = time.strftime("%Y-%m-%d", time.gmtime())
            answer["warnings"].append("the board's clock is wrong: it says " + today)
        wish = q.get("wish")
        if wish:
            answer["environment"] = app.bashrc.compare(wish["environment"])
            answer["bases"], roles, have = {}, None, sizes_in(app.path("blobs"))
            for sha, size, role in wish["blobs"]:
                if size not in (have.get(fs(digest_name(sha))), have.get(fs(sha + ".x"))):
                    answer["missing"][sha] = min(size, have.get(fs(sha + ".part"), 0))
                    if role:
                        roles = app.roles(answer["current"]) if roles is None else roles
                        if role in roles and app.blob(roles[role][0]):
                            answer["bases"][sha] = roles[role]
        return answer


def load_rest(session):
    """Give a session all requests: compile the second half of this file, if the bootstrap left it for now."""
    if "REST" in globals():
        first, rest = globals().pop("REST")
        source = zlib.decompressobj(zdict=first).decompress(rest)
        exec(compile(b"\n" * first.count(b"\n") + source, "agent.py", "exec"), globals())
    session.__class__ = Worker
    if session.app:
        session.app.__class__ = App


def main():
    # The end of the line is noticed by reading it, never by a signal in the middle of a switch.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.alarm(120)        # until a request says how long a session may last
    os.umask(0o022)
    # stdin and stdout are the line: nothing else may read or write them by mistake.
    reading, writing = os.dup(0), os.dup(1)
    with contextlib.suppress(OSError):               # a socket, another system, a limit
        fcntl.fcntl(reading, SET_PIPE_SIZE, PIPE_SIZE)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    channel = Channel(reading, writing)
    session = Session(channel)
    try:
        os.write(writing, SYNC)
        channel.send(b"H", to_json({"protocol": PROTOCOL}))
        while True:
            kind, payload = channel.frame(session.idle)
            if kind == b"Q":                         # blobs of a refused install are read and dropped
                request = json.loads(bytes(payload).decode("utf-8"))
                answer = session.handle(request)
                channel.send(b"A", to_json(dict(answer, id=request.get("id"))))
    except (LineGone, ValueError):
        pass
    finally:
        session.close()


if __name__ == "__main__":    # started by the bootstrap, which left the second half packed
    main()


# ================================================================ the second half: what changes a board

import binascii  # noqa: E402
import hashlib   # noqa: E402

KEEP_RELEASES, KEEP_OUTPUTS = 3, 5
SPARE = 4 << 20                   # bytes of the disk that we leave alone
# Runs a script in the interpreter that was asked whether it can: importing NumPy twice takes a board seconds.
# It says that it is up (an interpreter may be missing, or broken), and with UNFIT why it will not do.
UP, UNFIT = b"@@up@@\n", 97
LAUNCH = """import os,sys,json
sys.stderr.write("@@up@@\\n");sys.stderr.flush()
n=2+int(sys.argv[1]);rest=sys.argv[n:];bad=[]
for name in sys.argv[2:n]:
  try: __import__(name)
  except Exception: bad.append([name,str(sys.exc_info()[1])])
if bad or sys.version_info<(3,6):
  sys.stderr.write("@@"+json.dumps([list(sys.version_info[:2]),bad]));sys.exit(97)
if not rest or rest[0][:1]=="-": os.execv(sys.executable,[sys.executable]+rest)
import runpy
sys.argv[:]=rest;sys.path[0]=os.path.dirname(os.path.abspath(rest[0]))
runpy.run_path(rest[0], run_name='__main__')"""
IMPORTS = {"numpy": "no-numpy", "PIL": "no-pillow", "acl": "no-acl"}


# ---------------------------------------------------------------- the disk: every change goes through disk()

def open_file(path, flags, mode=0o644):
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def flush_name(path):
    """fsync a file or folder by name."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_all(folder):
    """Flush the file system that holds `folder`: one wait instead of one for each of 300 small files."""
    try:
        import ctypes
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(handle) == 0:
                return
            if ctypes.get_errno() in (5, 28, 30, 122):   # EIO ENOSPC EROFS EDQUOT: the disk really said no
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
        finally:
            os.close(handle)
    except (ImportError, AttributeError):
        pass
    os.sync()


OPERATIONS = {
    "open": open_file, "write": os.write, "truncate": os.ftruncate, "chmod": os.fchmod, "mkdir": os.mkdir,
    "chown": os.fchown, "rename": os.rename, "link": os.link, "symlink": os.symlink, "unlink": os.unlink,
    "rmdir": os.rmdir,
    "flush": flush_name, "flush_all": flush_all,
}


def disk(operation, *arguments):
    """Change the disk. The only place that does, so that tests can stop it at each step."""
    return OPERATIONS[operation](*arguments)


def write_all(handle, data):
    view = memoryview(data)
    while view:
        view = view[disk("write", handle, view):]


def drop(path):
    """Remove a file or link that may not be there."""
    if os.path.lexists(path):
        disk("unlink", path)


def drop_tree(folder):
    if os.path.islink(folder) or not os.path.isdir(folder):
        drop(folder)
        return
    for entry in sorted(os.listdir(folder)):
        drop_tree(os.path.join(folder, entry))
    disk("rmdir", folder)


def sweep_folder(folder):
    for name in sorted(os.listdir(folder)):
        if name.endswith(TEMP):
            drop_tree(os.path.join(folder, name))


def new_file(path, data, like=None):
    """Make a file; `like` is the stat of one whose mode and owner it gets."""
    drop(path)
    handle = disk("open", path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        if like:
            disk("chmod", handle, stat.S_IMODE(like.st_mode))
            if (like.st_uid, like.st_gid) != (os.getuid(), os.getgid()):
                disk("chown", handle, like.st_uid, like.st_gid)
        write_all(handle, data)
    finally:
        os.close(handle)


def replace_file(path, data, like=None):
    """Put `data` at `path` so that a crash leaves the old content or the new, whole."""
    new_file(path + TEMP, data, like)
    disk("flush", path + TEMP)
    disk("rename", path + TEMP, path)
    disk("flush", os.path.dirname(path))


def make_folder(path):
    if not os.path.isdir(path):
        make_folder(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            disk("mkdir", path)
        disk("flush", os.path.dirname(path))


# ---------------------------------------------------------------- running commands

class Group:
    """A command in a session of its own, and its guard: ends it at its deadline or when the agent dies."""

    def __init__(self, argv, folder, environment, limit):
        import subprocess  # noqa: F401 - here, not in each forked child: it takes its time
        self.life, theirs = os.pipe()[::-1]         # we hold the writing end: when we die, it closes
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        self.status, status = os.pipe()
        self.guard = os.fork()
        if not self.guard:
            try:
                let_go({out, err, theirs, status})
                guard(argv, folder, environment, limit, out, err, theirs, status)
            finally:
                os._exit(0)
        for handle in (theirs, out, err, status):
            os.close(handle)

    def close(self):
        """End the command if it still runs, and wait for the guard to have seen to it."""
        for handle in (self.life, self.out, self.err, self.status):
            os.close(handle)
        os.waitpid(self.guard, 0)


def guard(argv, folder, environment, limit, out, err, life, status):
    os.setsid()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    import subprocess
    ended, started = "", time.monotonic()
    try:
        child = subprocess.Popen(argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=err, start_new_session=True)
    except OSError as problem:
        os.write(status, to_json({"ended": "not-started", "message": str(problem)}))
        return
    os.close(out)
    os.close(err)
    pid = 0
    while not pid and not ended:
        left = started + limit - time.monotonic()
        ready = select.select([life, wake], [], [], max(0, left))[0]
        ended = "abandoned" if life in ready else "" if ready else "deadline"
        pid, code, usage = os.wait4(child.pid, os.WNOHANG)
    if not pid:
        kill_group(child.pid, signal.SIGTERM)
        patience = time.monotonic() + 2
        while not pid and time.monotonic() < patience:
            time.sleep(0.02)
            pid, code, usage = os.wait4(child.pid, os.WNOHANG)
    kill_group(child.pid, signal.SIGKILL)      # also whatever it left running
    if not pid:
        pid, code, usage = os.wait4(child.pid, 0)
    code = os.WEXITSTATUS(code) if os.WIFEXITED(code) else -os.WTERMSIG(code)
    with contextlib.suppress(OSError):
        os.write(status, to_json({"ended": ended or "exit", "status": code,
                                  "seconds": time.monotonic() - started,
                                  "peak_rss": usage.ru_maxrss * 1024}))


def let_go(keep):
    """In a forked child: drop the line and the lock. sshd waits until nobody holds its pipes."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in keep:
            with contextlib.suppress(OSError):
                os.close(number)


def kill_group(pid, number):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


class Lines:
    """One output stream of a command: its lines as they come, and its end for the report."""

    LINE, TAIL, SHOWN = 8192, 65536, 8 << 20

    def __init__(self, emit):
        self.emit, self.rest, self.tail, self.shown, self.up = emit, b"", b"", 0, False

    def feed(self, data):
        self.tail += data
        if UP in self.tail and not self.up:
            self.tail, self.up = self.tail.replace(UP, b"", 1), True
        self.tail = self.tail[-self.TAIL:]
        if not self.emit or self.shown > self.SHOWN:
            return
        self.shown += len(data)
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        if len(self.rest) > self.LINE:
            lines, self.rest = lines + [self.rest], b""
        if self.shown > self.SHOWN:
            lines, self.rest = lines + [b"[the rest of the output is not shown]"], b""
        if lines:
            self.emit([line[:self.LINE].decode("utf-8", "replace") for line in lines])

    def end(self):
        if self.rest and self.emit:
            self.emit([self.rest.decode("utf-8", "replace")])


# ---------------------------------------------------------------- one app, to change

class App(Folder):
    """The same, to change: what is current, and the lock."""

    def prepare(self):
        for part in ("blobs", "releases"):
            make_folder(self.path(part))

    # -- the lock: flock, so that it cannot outlive its holder; the record in it is for people

    def lock(self, holder, break_lock=False):
        if self.lock_handle is not None:
            return
        self.prepare()
        handle = disk("open", self.path("lock"), os.O_RDWR | os.O_CREAT)
        if not self.flock(handle, 0.5):
            if break_lock:
                for pid in self.lock_holders(handle):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)     # safe at any point: see the top of this file
            if not break_lock or not self.flock(handle, 5):
                os.close(handle)
                record = self.locked() or {}
                raise Refused("locked", "%s is locked by %s since %d s" % (
                    text(self.folder), record.get("holder") or "somebody", record.get("age", 0)),
                    "wait for it to end, or end it with rollout.break_lock=true", holder=record.get("holder", ""))
        disk("truncate", handle, 0)
        write_all(handle, to_json({"holder": holder, "pid": os.getpid(), "since": time.time(),
                                   "monotonic": time.monotonic()}))
        self.lock_handle = handle
        with self.state():
            self.sweep()

    @staticmethod
    def flock(handle, patience):
        """Take an exclusive flock. Somebody who only looks holds a shared one for a moment: be patient."""
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= end:
                    return False
                time.sleep(0.02)

    @staticmethod
    def lock_holders(handle):
        """Process ids that hold a flock on a file, as the kernel knows them.

        Inodes of other file systems have the same numbers, so each must have this very file open, too."""
        file = os.fstat(handle)
        with open("/proc/locks") as stream:
            rows = [line.split() for line in stream]
        found = set()
        for pid in [row[4] for row in rows if row[1] == "FLOCK" and row[5].endswith(":%d" % file.st_ino)]:
            with contextlib.suppress(OSError):
                for name in os.listdir("/proc/%s/fd" % pid):
                    if os.path.samestat(os.stat("/proc/%s/fd/%s" % (pid, name)), file) and int(pid) != os.getpid():
                        found.add(int(pid))
        return found

    @contextlib.contextmanager
    def state(self):
        """Alone with `pending` and `current`: held for moments, by sessions and watchers alike."""
        handle = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not self.flock(handle, 20):
                raise Refused("locked", "%s: another switch is under way" % text(self.folder), "try again")
            yield
        finally:
            os.close(handle)

    # -- which release

    def point(self, name, release):
        path = self.path(name)
        if self.pointer(name) == release and (release or not os.path.lexists(path)):
            return
        if release:
            drop(path + TEMP)
            disk("symlink", fs("releases/" + release), path + TEMP)
            disk("rename", path + TEMP, path)
        else:
            drop(path)
        disk("flush", self.folder)

    def journal(self, what, **more):
        """One line for people. Not flushed, and allowed to fail: nothing depends on it."""
        path = self.path("journal")
        with contextlib.suppress(OSError):
            if os.path.exists(path) and os.path.getsize(path) > 1 << 18:
                disk("rename", path, path + b".old")
            handle = disk("open", path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                write_all(handle, to_json(dict(more, what=what, time=time.time())) + b"\n")
            finally:
                os.close(handle)

    # -- the switch and its undoing

    def save_pending(self, pending):
        replace_file(self.path("pending"), to_json(pending))

    def begin(self, release, within, environment, back=False):
        """Move `current`. `within` seconds to confirm; 0 = nothing to wait for. `back`: it is a way back."""
        pending = {
            "release": release, "former": self.pointer("current"), "settled": within <= 0, "within": within,
            "back": back,
            "environment": environment, "former_environment": self.bashrc.read(),
        }
        pending.update(clock())
        self.save_pending(pending)
        try:
            self.point("current", release)
            if environment is not None:
                self.bashrc.write(environment)
            if pending["settled"]:
                self.finish(pending)
            else:
                self.journal("switch", release=release, former=pending["former"], within=within)
                self.watch(pending)
        except OSError:
            with contextlib.suppress(OSError):       # if this fails too, the next agent does it
                self.undo(pending, "the switch failed")
            raise
        return pending["former"]

    def must_be_ours(self):
        if self.strange():
            raise Refused("foreign-release", self.foreign(), "move it away, or set board.root")

    def check_signature(self, release, given):
        """Refuse a release that nobody whom this board trusts has signed; keep the signature for going back.

        Nothing is checked where the board was given no keys and the controller no signature."""
        lists = [path for path in (TRUSTED, self.path("allowed_signers")) if os.path.lexists(path)]
        kept = self.path("releases", release, ".signature")
        if not given and os.path.isfile(kept):
            with open_plain(kept) as stream:
                given = stream.read(1 << 16).decode("ascii", "replace")
        if not lists and not given:
            return
        where = text(lists[0] if lists else self.path("allowed_signers"))
        problem, hint = "it is not signed", "sign it: sign=ssh-key sign.key=FILE; the keys that count stand in %s" % where
        if not lists:
            problem = "the board was given no keys to check it with"
            hint = "write a line with a name and the public key, NAME ssh-ed25519 AAAA..., into %s there" % where
        elif given:
            hint = "the keys that count stand in %s, a line each: NAME ssh-ed25519 AAAA..." % where
            with open_plain(self.path("releases", release, "manifest.json")) as stream:
                manifest = stream.read()
            with open_plain(lists[0]) as stream:
                problem = signature_problem(manifest, given, stream.read().decode("utf-8", "replace"))
            if hashlib.sha256(manifest).hexdigest() != release:
                problem = "its manifest is damaged"
        if problem:
            raise Refused("signature", "release %s: %s" % (release[:12], problem), hint)
        if not os.path.isfile(kept):
            replace_file(kept, given.encode("ascii"))

    def finish(self, pending):
        """Carry a settled switch to its end; every step may have been done before."""
        release = pending["release"]
        self.point("current", release)
        if pending["environment"] is not None:
            self.bashrc.write(pending["environment"])
        if pending["former"] and pending["former"] != release:
            self.point("previous", pending["former"])
        self.point("reverted", pending["former"] if pending.get("back") else "")
        if pending.get("record") is not None:
            replace_file(self.path("releases", release, ".last_run"), to_json(pending["record"]))
        self.journal("settled", release=release, former=pending["former"])
        drop(self.path("pending"))
        disk("flush", self.folder)

    def undo(self, pending, why):
        """Put back what an unconfirmed switch changed."""
        self.point("current", pending["former"])
        if pending["environment"] is not None:
            self.bashrc.write(pending["former_environment"])
        self.point("reverted", pending["release"])
        self.journal("reverted", release=pending["release"], former=pending["former"], why=why)
        drop(self.path("pending"))
        disk("flush", self.folder)

    def resolve(self):
        """Deal with a switch that somebody left open. Holds state()."""
        pending = self.pending()
        if not pending:
            if os.path.lexists(self.path("pending")):
                drop(self.path("pending"))           # not one of ours: ours are written whole
            return
        if self.strange():
            # Somebody put something of his own there meanwhile: it is not ours to move, so the switch is off.
            self.journal("given-up", release=pending["release"], former=pending["former"], why=self.foreign())
            drop(self.path("pending"))
            disk("flush", self.folder)
            return
        if pending["settled"]:
            self.finish(pending)
        elif self.pointer("current") != pending["release"]:
            self.undo(pending, "the switch was cut short")
        elif elapsed(pending) >= pending["within"]:
            self.undo(pending, "not confirmed within %g s" % pending["within"])
        else:
            self.watch(pending)

    def watch(self, pending):
        """Start the watcher, unless one is there: it holds a flock on the very file it watches."""
        handle = os.open(self.path("pending"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self.flock(handle, 0):
                child = os.fork()
                if not child:
                    try:
                        self.become_watcher(pending, handle)
                    finally:
                        os._exit(0)
                os.waitpid(child, 0)
        finally:
            os.close(handle)

    def become_watcher(self, pending, handle):
        os.setsid()
        let_go({handle})          # before the parent goes on: state() is among what we would hold
        if os.fork():
            os._exit(0)
        for _ in range(100000):
            now = self.pending()
            if now.get("token") != pending["token"] or now["settled"]:
                return
            left = now["within"] - elapsed(now)
            if left > 0:
                time.sleep(min(left, 1.0))
                continue
            try:
                with self.state():
                    if self.pending().get("token") == pending["token"]:
                        self.resolve()
            except (OSError, Refused):
                time.sleep(1)      # no space, say: the next try, or the next agent, will do it

    def prune(self, count):
        """Keep what is in use and the newest, `count` in all; collect the rest, and blobs that nobody links."""
        pending = self.pending()
        releases = self.releases()
        keep = {self.pointer("current"), self.pointer("previous")}
        keep |= {pending.get("release"), pending.get("former")}
        if len(releases) > count:
            keep |= {name for name in releases if in_use(self.path("releases", name))}
        for name in reversed(releases):
            if len([one for one in releases if one in keep]) < count:
                keep.add(name)
        gone = [name for name in releases if name not in keep]
        for name in gone:
            disk("rename", self.path("releases", name), self.path("releases", fs(name) + TEMP))
        if gone:
            disk("flush", self.path("releases"))     # no half of a release under its own name, ever
        for name in gone:
            drop_tree(self.path("releases", fs(name) + TEMP))
        for name in sorted(os.listdir(self.path("blobs")), key=lambda name: (name.endswith(b".idx"), name)):
            blob = self.path("blobs", name)
            if not self.blob(text(name[:64])) if name.endswith(b".idx") else os.lstat(blob).st_nlink == 1:
                disk("unlink", blob)
        outputs = self.path("outputs")
        if os.path.isdir(outputs):
            runs = [os.path.join(outputs, name) for name in os.listdir(outputs)]
            runs = sorted((run for run in runs if os.path.isdir(run) and not os.path.islink(run)),
                          key=lambda run: (os.stat(run).st_mtime, run))
            for run in runs[:-KEEP_OUTPUTS]:
                drop_tree(run)
        return gone

    def sweep(self):
        """Remove what a crash left half made or half removed."""
        drop(self.bashrc.path + TEMP)
        for folder in (self.folder, self.path("releases")):
            sweep_folder(folder)


def in_use(folder):
    """Whether a process that we may look at works in this release, or was started from it."""
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != os.getpid():
            with contextlib.suppress(OSError):
                here = os.path.join(os.readlink(fs("/proc/%s/cwd" % pid)), b"")
                with open("/proc/%s/cmdline" % pid, "rb") as stream:
                    if here.startswith(folder + b"/") or folder + b"/" in stream.read():
                        return True
    return False


def clock():
    """The time in the ways that elapsed() needs; the token tells a watcher that it is for an older switch."""
    return {"boot": boot_id(), "monotonic": time.monotonic(), "wall": time.time(),
            "token": os.urandom(8).hex()}


def elapsed(pending):
    """Seconds since a switch, at the least: a board without a battery starts in 1970 again."""
    now = time.monotonic()
    if pending["boot"] == boot_id():
        return now - pending["monotonic"]
    return max(now, time.time() - pending["wall"])


# ---------------------------------------------------------------- signatures: SSHSIG with ed25519 (RFC 8032)

TRUSTED = b"/etc/ascend-deploy/allowed_signers"      # the superuser's, before the app's own
P, ORDER = 2 ** 255 - 19, 2 ** 252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def curve_point(data):
    y = int.from_bytes(data, "little")
    odd, y = y >> 255, y % 2 ** 255
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or y >= P or odd > x:
        raise ValueError("not a point of the curve")
    x = x if x % 2 == odd else P - x
    return x, y, 1, x * y % P


def add_points(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * p[3] * q[3] * D, 2 * p[2] * q[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(number, p):
    total = 0, 1, 1, 0
    while number:
        if number % 2:
            total = add_points(total, p)
        p, number = add_points(p, p), number // 2
    return total


def ed25519_fits(key, message, signature):
    s = int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    a = multiply(s, curve_point(b"\x58" + b"\x66" * 31))
    b = add_points(curve_point(signature[:32]), multiply(h, curve_point(key)))
    return (len(signature) == 64 and len(key) == 32 and s < ORDER
            and not (a[0] * b[2] - b[0] * a[2]) % P and not (a[1] * b[2] - b[1] * a[2]) % P)


def ssh_strings(data):
    found = []
    while data:
        size = struct.unpack(">I", data[:4])[0] + 4
        found.append(data[4:size])
        data = data[size:]
    return found


def signature_problem(message, armored, allowed):
    """Why a signature made by `ssh-keygen -Y sign -n ascend-deploy` does not vouch for `message`; "" = it does."""
    space = b"ascend-deploy"
    keys = []
    for line in allowed.splitlines():
        words = [word for word in line.split() if word != 'namespaces="ascend-deploy"']
        if len(words) > 2 and words[1] == "ssh-ed25519" and words[0][0] != "#":
            keys.append(words[2])
    try:
        blob = binascii.a2b_base64("".join(armored.split("-----")[2].split()))
        key, namespace, _, digest, signature = ssh_strings(blob[10:])
        if binascii.b2a_base64(key, newline=False).decode("ascii") not in keys:
            return "the key that signed it is not among the board's"
        signed = b"SSHSIG" + b"".join(struct.pack(">I", len(part)) + part for part in (
            space, b"", b"sha512", hashlib.sha512(message).digest()))
        kind, raw = ssh_strings(signature)
        if (blob[:10], namespace, digest, kind) == (b"SSHSIG\0\0\0\1", space, b"sha512", b"ssh-ed25519") and (
                ed25519_fits(ssh_strings(key)[1], signed, raw)):
            return ""
    except (ValueError, IndexError, struct.error):
        pass
    return "its signature does not fit"


# ---------------------------------------------------------------- receiving a release

class Transfer:
    """Takes the blobs of an `install` off the line; each ends up verified, as its name or as a .part."""

    def __init__(self, channel, app, arrived):
        self.channel, self.app = channel, app
        self.arrived = arrived       # sha256 -> .part file, complete and verified in this session

    def part(self, sha):
        return self.app.path("blobs", digest_name(sha) + ".part")

    def pieces(self):
        while True:
            kind, data = self.channel.frame()
            if kind == b"E":
                return
            if kind != b"B":
                raise LineGone("a request in the middle of a blob")
            yield data

    def receive(self, sha, size, offset, packing):
        """`packing`: "" = as it is, "z" = deflated, "i" = an index, else the blob to which the difference comes."""
        if packing == "i":
            new_file(self.app.path("blobs", digest_name(sha) + ".idx"), b"".join(map(bytes, self.pieces())))
            return
        self.arrived.pop(sha, None)
        part = self.part(sha)
        have = os.path.getsize(part) if os.path.exists(part) else 0
        base = self.app.blob(packing) if len(packing) > 1 else None
        handle = None
        if have >= offset and not os.path.exists(self.app.path("blobs", sha)) and (base or len(packing) < 2):
            handle = disk("open", part, os.O_RDWR | os.O_CREAT)
        with contextlib.ExitStack() as stack:
            digest, count = hashlib.sha256(), offset
            unpack = zlib.decompressobj() if packing == "z" else None
            old = stack.enter_context(open(base, "rb")) if base else None
            if handle is not None:
                stack.callback(os.close, handle)
                if have != offset:
                    disk("truncate", handle, offset)
                if offset:
                    hash_file(part, digest, offset)
                    os.lseek(handle, offset, os.SEEK_SET)
            for data in self.pieces():
                if handle is None:
                    continue                 # nothing to put it in: asked for again, if it is still lacking
                if packing:
                    data = rebuild(old, data) if old else unpack.decompress(data, size + 1)
                count += len(data)
                if count <= size:
                    write_all(handle, data)
                    digest.update(data)
        if handle is not None:
            if count == size and digest.hexdigest() == sha:
                self.arrived[sha] = part
            else:
                disk("unlink", part)       # damaged here or on its way: asked for again

    def lacking(self, files):
        """sha256 -> bytes already here, for what is not. Content from earlier is read again: cards go bad."""
        lack = {}
        for sha, size in {file["sha256"]: file["size"] for file in files}.items():
            if sha in self.arrived:
                continue
            found = False
            for name in (sha, sha + ".x"):
                blob = self.app.path("blobs", name)
                if os.path.exists(blob):
                    if os.path.getsize(blob) == size and hash_file(blob).hexdigest() == sha:
                        found = True
                    else:
                        disk("unlink", blob)
            if not found:
                part = self.part(sha)
                lack[sha] = min(size, os.path.getsize(part)) if os.path.exists(part) else 0
        return lack


def rebuild(old, step):
    """One step of a difference: kind, width, where in the old blob, how much, lengths of the planes, planes.

    "c" copies; "x" is the XOR with the old bytes, split into `width` planes (every width-th byte), each as it is
    or deflated; "d" is the same without the old bytes. At most 1 MiB comes of one step, whatever the model's size."""
    kind, width, at, size = struct.unpack_from(">cBQI", step)
    size, start = min(size, 1 << 20), 14 + 4 * width
    old.seek(at)
    copied = b"" if kind == b"d" else old.read(size)
    if kind == b"c":
        return copied
    lengths = struct.unpack_from(">%dI" % width, step, 14)
    if kind == b"d" and lengths == (size,):
        return step[start:]
    new = bytearray(size)
    for plane, length in enumerate(lengths):
        data, whole = step[start:start + length], len(range(plane, size, width))
        new[plane::width] = data if length == whole else zlib.decompressobj().decompress(data, whole + 1)
        start += length
    if kind == b"d":
        return new
    # As numbers: the fastest XOR that the standard library has.
    number = int.from_bytes(new, "little") ^ int.from_bytes(copied, "little")
    return number.to_bytes(size, "little")


class Staging:
    """Builds releases/<id>/ from blobs, beside its name, and makes it durable before it gets it."""

    def __init__(self, app, release, manifest, arrived):
        self.app, self.release, self.manifest = app, release, manifest
        self.rename = {path: app.path("blobs", sha) for sha, path in arrived.items()}
        self.arrived = arrived

    def source(self, file):
        """The file to link: a blob, or one that has just arrived.

        Executables have a blob of their own, <sha256>.x: hard links share one mode."""
        sha = file["sha256"]
        plain, executable = self.app.path("blobs", sha), self.app.path("blobs", sha + ".x")
        plain = self.arrived.get(sha, plain)
        wanted, other, mode = plain, executable, 0o644
        if file["mode"] & 0o100:
            wanted, other, mode = executable, plain, 0o755
        part = executable + b".part" if mode == 0o755 else wanted
        if part in self.rename:
            return part
        if not os.path.exists(wanted):
            part = wanted + b".part"
            with open(other, "rb") as stream:
                drop(part)
                handle = disk("open", part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                try:
                    disk("chmod", handle, mode)
                    for block in iter(lambda: stream.read(1 << 20), b""):
                        write_all(handle, block)
                finally:
                    os.close(handle)
            self.rename[part] = wanted
            return part
        return wanted

    def build(self, environment):
        app, final = self.app, self.app.path("releases", self.release)
        fresh = not app.complete(self.release)
        drop_tree(final + TEMP)
        if fresh and os.path.lexists(final):
            disk("rename", final, final + TEMP)          # damaged beyond its manifest: made anew
            drop_tree(final + TEMP)
        place = final + TEMP if fresh else final
        folders = {place}
        if fresh:
            disk("mkdir", place)
        for file in self.manifest["files"]:
            path = os.path.join(place, safe_path(file["path"]))
            self.folders(os.path.dirname(path), folders)
            source = self.source(file)
            if fresh:
                disk("link", source, path)
            elif not os.path.lexists(path) or not os.path.samestat(os.lstat(path), os.stat(source)):
                drop(path + TEMP)
                disk("link", source, path + TEMP)
                disk("rename", path + TEMP, path)
        if not fresh:
            for folder in sorted(folders):
                sweep_folder(folder)                     # an earlier repair was cut short
        note = app.note(self.release)
        wanted = {"environment": environment, "sequence": note.get("sequence") or 1 + max(
            [app.note(name).get("sequence", 0) for name in app.releases()] or [0])}
        small = [("manifest.json", fs(self.manifest["text"])), (".deploy", to_json(wanted))]
        for name, data in small:
            path = os.path.join(place, fs(name))
            if fresh:
                new_file(path, data)
            elif not os.path.exists(path) or hash_file(path).digest() != hashlib.sha256(data).digest():
                replace_file(path, data)
        # One flush for everything; big files each by itself as well, since only fsync reports a lost write.
        names = list(self.rename) + [os.path.join(place, fs(name)) for name, _ in small]
        big = [name for name in names if os.path.getsize(name) >= 1 << 20]
        names += sorted(folders)
        for name in names if len(names) <= 8 else big:
            disk("flush", name)
        if len(names) > 8:
            disk("flush_all", app.folder)
        for part, blob in self.rename.items():
            disk("rename", part, blob)
        if self.rename:
            disk("flush", app.path("blobs"))
        if fresh:
            disk("rename", place, final)
            disk("flush", app.path("releases"))

    def folders(self, folder, known):
        if folder not in known:
            self.folders(os.path.dirname(folder), known)
            if not os.path.isdir(folder):
                disk("mkdir", folder)
            known.add(folder)


# ---------------------------------------------------------------- the requests

class Worker(Session):
    """The same, with all requests."""

    opens = App

    def explain(self, problem):
        """A named cause for what the operating system said."""
        name = problem.filename if problem.filename is not None else self.app and self.app.folder
        where = text(name) if isinstance(name, bytes) else str(name or "")
        if problem.errno in (28, 122):         # ENOSPC, EDQUOT
            return {"cause": "disk-full", "message": "no space is left for %s" % where,
                    "hint": "make room on the board"}
        if problem.errno == 30:                # EROFS
            return {"cause": "read-only", "message": "the file system of %s is read-only" % where,
                    "hint": "a worn-out card is remounted read-only: look at dmesg, or set board.root"}
        if problem.errno in (1, 13):           # EPERM, EACCES
            near = fs(where)
            while near and not os.path.lexists(near) and os.path.dirname(near) != near:
                near = os.path.dirname(near)
            return {"cause": "wrong-owner", "message": "%s may not write %s: %s belongs to %s" % (
                user_name(os.getuid()), where, text(near), user_name(os.lstat(near or b"/").st_uid)),
                "hint": "chown it, set board.user or set board.root"}
        said = problem.strerror or str(problem)
        return {"cause": "agent-failed", "message": "%s: %s" % (where or "the board", said)}

    def locked_app(self):
        self.app.lock(self.holder)
        return self.app

    # -- reading

    def do_index(self, q):
        """Hex of the indexes of blobs, where there are any."""
        found = {}
        for sha in q["blobs"]:
            with contextlib.suppress(OSError):
                with open_plain(self.app.path("blobs", digest_name(sha) + ".idx")) as stream:
                    found[sha] = stream.read(MAX_FRAME // 4).hex()
        return {"index": found}

    def do_verify(self, q):
        app = self.app
        release = app.pointer("current")
        damaged, missing = [], []
        answer = {"release": release, "environment": "absent"}
        if release:
            with self.channel.beating():
                manifest = app.path("releases", release, "manifest.json")
                files = []
                if not os.path.exists(manifest):
                    missing.append("manifest.json")
                elif hash_file(manifest).hexdigest() != release:
                    damaged.append("manifest.json")
                else:
                    files = read_json(manifest)["files"]
                for file in files:
                    path = app.path("releases", release, safe_path(file["path"]))
                    if not os.path.isfile(path) or os.path.islink(path):
                        missing.append(file["path"])
                    elif ((os.path.getsize(path), os.stat(path).st_mode & 0o100) !=
                          (file["size"], file["mode"] & 0o100)
                          or hash_file(path).hexdigest() != file["sha256"]):
                        damaged.append(file["path"])
            answer["environment"] = app.bashrc.compare(app.note(release).get("environment"))
        sound = bool(release) and not damaged and not missing and answer["environment"] == "same"
        return dict(answer, damaged=damaged, missing=missing, foreign=app.foreign(), ok=sound)

    def do_fetch(self, q):
        top = self.app.path(safe_path(q["folder"]))
        if os.path.islink(top) or not os.path.isdir(top):
            raise Refused("missing", "there is no folder %s" % text(top))
        names, todo = [], [b""]
        while todo:
            folder = todo.pop()
            for name in os.listdir(os.path.join(top, folder)):
                path = os.path.join(folder, name)
                mode = os.lstat(os.path.join(top, path)).st_mode
                if stat.S_ISDIR(mode):
                    todo.append(path)
                elif stat.S_ISREG(mode):
                    names.append(path)
            if len(names) > q["limit_files"]:
                raise Refused("too-large", "%s holds more than %d files" % (text(top), q["limit_files"]))
        total = sum(os.lstat(os.path.join(top, name)).st_size for name in names)
        if total > q["limit_bytes"]:
            raise Refused("too-large", "%s holds %d bytes, the limit is %d" % (
                text(top), total, q["limit_bytes"]))
        for name in sorted(names):
            with open_plain(os.path.join(top, name)) as stream:
                size = os.fstat(stream.fileno()).st_size
                self.channel.send(b"F", to_json({"name": text(name), "size": size}))
                digest = hashlib.sha256()
                while size > 0:
                    block = stream.read(min(CHUNK, size))
                    if not block:
                        break
                    digest.update(block)
                    size -= len(block)
                    self.channel.send(b"D", block)
                self.channel.send(b"E", digest.digest())
        return {"files": len(names)}

    def do_read_log(self, q):
        with open_plain(self.app.path(safe_path(q["name"]))) as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 65536))
            return {"text": stream.read(65536).decode("utf-8", "replace")}

    # -- writing

    def do_lock(self, q):
        self.app.lock(self.holder, q["break"])
        return {}

    def do_unlock(self, q):
        self.close()
        return {}

    def do_install(self, q):
        manifest = json.loads(q["manifest"])
        release = hashlib.sha256(fs(q["manifest"])).hexdigest()
        if release != q["release"]:
            raise Refused("agent-failed", "the manifest was damaged on its way")
        manifest["text"] = q["manifest"]
        size = sum(size - offset for _, size, offset, _ in q["blobs"])
        free_for(self.app.root, size, len(manifest["files"]))
        app = self.locked_app()
        transfer = Transfer(self.channel, app, self.arrived)
        with self.channel.beating():
            for sha, size, offset, packing in q["blobs"]:
                transfer.receive(sha, size, offset, packing)
            lack = transfer.lacking(manifest["files"])
            if lack:
                return {"missing": lack}
            new = not app.complete(release)
            Staging(app, release, manifest, transfer.arrived).build(q["environment"])
            changed = False
            if app.pointer("current") == release:
                with app.state():
                    changed = app.bashrc.write(q["environment"])
            app.journal("install", release=release, blobs=len(self.arrived), holder=self.holder)
            self.arrived = {}
        return {"missing": {}, "new": new, "environment_changed": changed}

    def do_set_environment(self, q):
        if self.app.bashrc.compare(q["text"]) == "same":
            return {"changed": False}
        app = self.locked_app()
        with app.state():
            return {"changed": app.bashrc.write(q["text"])}

    def do_switch(self, q):
        app = self.locked_app()
        release = digest_name(q["release"])
        if not app.complete(release):
            raise Refused("no-release", "release %s is not on the board" % release[:12], "install it first")
        app.must_be_ours()
        if app.pointer("current") != release:
            app.check_signature(release, q.get("signature") or "")
        with app.state():
            app.resolve()
            pending = app.pending()
            if pending and pending["release"] != release:
                app.undo(pending, "given up for another")    # we hold the lock: its controller is gone
            elif pending:
                pending.update(clock(), within=q["within"])
                app.save_pending(pending)
                app.watch(pending)
                return {"former": pending["former"]}
            if app.pointer("current") == release:
                return {"former": release}
            return {"former": app.begin(release, q["within"], app.note(release).get("environment"))}

    def do_confirm(self, q):
        app, pruned = self.app, []
        if not os.path.isdir(app.folder):
            raise Refused("no-release", "nothing is installed in %s" % text(app.folder))
        with app.state():
            app.resolve()
            current, pending = app.pointer("current"), app.pending()
            if not current or (q["release"] and current != q["release"]):
                raise Refused("reverted", "the board runs %s, not %s: the switch was taken back" % (
                    current[:12] or "no release", q["release"][:12] or "one"), "look at the board's journal")
            if pending:
                pending.update(settled=True, record=q["record"])
                app.save_pending(pending)
                app.finish(pending)
            elif app.last_run() != q["record"]:
                replace_file(app.path("releases", current, ".last_run"), to_json(q["record"]))
        with contextlib.suppress(Refused):       # somebody else at work: the next confirm collects
            with self.channel.beating():
                pruned = self.locked_app().prune(q.get("keep") or KEEP_RELEASES)
        return {"pruned": pruned}

    def do_revert(self, q):
        app = self.locked_app()
        with app.state():
            app.resolve()
            app.must_be_ours()
            pending = app.pending()
            to, reverted = q["to"], app.pointer("reverted")
            if pending and to in ("", pending["former"]):
                app.undo(pending, "asked for")
                return {"current": app.pointer("current")}
            if to == "none":                         # what ran before the first release
                if pending:
                    app.undo(pending, "asked for")
                if app.pointer("current"):
                    app.begin("", 0, "", True)
                return {"current": app.pointer("current")}
            if not to and reverted:                  # it went back already: once more would be forward again
                return {"current": app.pointer("current")}
            to = to or app.pointer("previous")
            if not to or not app.complete(digest_name(to)):
                raise Refused("no-release", "there is no %s to go back to" % (
                    "release " + to[:12] if to else "previous release"), "install the release that you want")
            lack = app.lacking(to)
            if lack and to != app.pointer("current"):
                raise Refused("no-release", "release %s is not whole: %d of its files are missing or cut short, "
                              "such as %s" % (to[:12], len(lack), lack[0]), "deploy it again: what it lacks is sent")
            app.check_signature(to, "")
            if pending:
                app.undo(pending, "asked for")
            if app.pointer("current") != to:
                app.begin(to, 0, app.note(to).get("environment"), to != reverted)
            return {"current": to}

    def do_put(self, q):
        folder = work_folder(self.app, q["folder"])
        free_for(self.app.root, sum(size for _, size, _ in q["files"]), len(q["files"]))
        make_folder(folder)
        with self.channel.beating():
            for name, size, mode in q["files"]:
                path = os.path.join(folder, safe_path(name))
                make_folder(os.path.dirname(path))
                drop(path)
                mode = 0o755 if mode & 0o100 else 0o644
                handle = disk("open", path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                digest = hashlib.sha256()
                try:
                    for kind, data in iter(self.channel.frame, None):
                        if kind != b"B":
                            break
                        digest.update(data)
                        write_all(handle, data)
                finally:
                    os.close(handle)
                if kind != b"E" or data != digest.digest():
                    raise Refused("agent-failed", "%s was damaged on its way" % name, "try again")
        return {}

    def do_remove(self, q):
        drop_tree(work_folder(self.app, q["folder"]))
        return {}

    # -- running

    def do_run(self, q):
        app = self.app
        release = q["release"] or app.pointer("current")
        if release:
            digest_name(release)
        places = {"{app}": text(app.folder), "{release}": text(app.path("releases", release))}

        def fill(word):
            if "{release}" in word and not (release and app.complete(release)):
                raise Refused("no-release", "release %s is not on the board" % (release[:12] or "(none)"))
            return fs(re.sub(r"\{app\}|\{release\}", lambda found: places[found.group()], word))

        folder = fill(q["cwd"]) if q["cwd"] else app.folder if os.path.isdir(app.folder) else b"/"
        env_file = fill(q["env_file"]) if q["env_file"] else b""
        argv, interpreter = [fill(word) for word in q["argv"]], ""

        def emit(lines):
            self.channel.send(b"V", to_json({"lines": lines}))

        if q["argv"][0] != "{python}":
            return dict(self.execute(argv, folder, env_file, q["limit"], emit), interpreter="")
        key = env_file, tuple(q["interpreters"]), tuple(q["need"])
        interpreter, report = self.run_python(argv[1:], folder, env_file, q["limit"], emit,
                                              self.pythons.get(key) or key[1] or ("python3",), key[2])
        self.pythons[key] = (interpreter,)
        return dict(report, interpreter=interpreter)

    def execute(self, argv, folder, env_file, limit, emit=None):
        """Run a command to its end, its deadline or the end of the line."""
        if env_file:
            if not os.path.isfile(env_file):
                raise Refused("missing", "there is no environment file %s" % text(env_file))
            folders = os.environ.get("PATH", os.defpath).split(":")
            bash = any(os.access(os.path.join(one, "bash"), os.X_OK) for one in folders)
            # What the file prints is not the command's output; what it does to "$@" is not our argv.
            script = ('f=$1; shift; a=("$@"); . "$f" >&2; exec "${a[@]}"' if bash else
                      'f=$1; shift; . "$f" >&2; exec "$@"')
            argv = ["bash" if bash else "sh", "-c", script, "ascend-deploy", env_file] + argv
        if not os.path.isdir(folder):
            raise Refused("missing", "there is no folder %s" % text(folder))
        environment = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")
        group = Group(argv, folder, environment, limit)
        try:
            return self.follow(group, Lines(emit), Lines(None))
        finally:
            group.close()

    def follow(self, group, out, err):
        streams, status, line = {group.out: out, group.err: err}, b"", self.channel.reading
        open_ends = [group.status, line, group.out, group.err]
        ended = None
        # A process that left the group may hold the pipes for ever: what it says is not our output any more.
        while len(open_ends) > 1 and (ended is None or time.monotonic() < ended + 1):
            ready = select.select(open_ends, [], [], BEAT if ended is None else 0.2)[0]
            self.channel.beat()
            for handle in ready:
                if handle == line:
                    raise LineGone("the controller left in the middle of a command")
                data = os.read(handle, 65536)
                if not data:
                    open_ends.remove(handle)
                    ended = time.monotonic() if handle == group.status else ended
                elif handle == group.status:
                    status += data
                else:
                    streams[handle].feed(data)
        out.end()
        report = json.loads(status.decode("ascii")) if status else {"ended": "killed", "status": -9}
        if report["ended"] == "not-started":
            raise Refused("missing", "the command cannot be started: " + report["message"])
        return dict(report, stdout_tail=out.tail.decode("utf-8", "replace"),
                    stderr_tail=err.tail.decode("utf-8", "replace"), up=err.up)

    def run_python(self, argv, folder, env_file, limit, emit, candidates, need):
        """Run a script with the first interpreter that can import what it needs; that one and the report."""
        best = None
        for name in candidates:
            path = os.path.expanduser(name)
            start = [fs(path), b"-c", fs(LAUNCH), fs(str(len(need)))] + [fs(module) for module in need]
            try:
                report = self.execute(start + argv, folder, env_file, limit, emit)
            except Refused:
                if not os.path.isdir(folder) or (env_file and not os.path.isfile(env_file)):
                    raise
                continue
            if not report["up"]:
                continue               # there is none of that name, or it does not even start
            if report["status"] != UNFIT:
                return path, report
            try:
                version, bad = json.loads(report["stderr_tail"].rpartition("@@")[2])
            except ValueError:
                return path, report    # the program's own status
            rank = (version[0] >= 3, version >= [3, 6], -len(bad))
            if best is None or rank > best[0]:
                best = rank, path, version, bad
        if best is None:
            raise Refused("no-python", "none of %s runs on the board" % ", ".join(candidates),
                          "set board.interpreters")
        _, path, version, bad = best
        if version < [3, 6]:
            raise Refused("python2-only" if version[0] < 3 else "python-too-old", "%s is Python %d.%d" % (
                path, version[0], version[1]), "set board.interpreters to a Python 3.6 or newer")
        module, why = bad[0]
        raise Refused(IMPORTS.get(module.partition(".")[0], "agent-failed"), "%s cannot import %s: %s" % (
            path, module, why), "install it for that interpreter, or set board.interpreters")


def work_folder(app, name):
    name = safe_path(name)
    return app.path("work", name[5:] if name.startswith(b"work/") else name)


def free_for(root, size, files):
    """Refuse before the first byte what would not fit."""
    space = os.statvfs(nearest(root))
    need = size + files * 256 + SPARE
    if space.f_bavail * space.f_frsize < need:
        raise Refused("disk-full", "%s has %d bytes free, %d are needed" % (
            text(root), space.f_bavail * space.f_frsize, need), "make room on the board")
    if space.f_files and space.f_favail < files * 2 + 64:
        raise Refused("disk-full", "%s has only %d inodes free" % (text(root), space.f_favail),
                      "remove files on the board")
