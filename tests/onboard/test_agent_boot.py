"""The real boot command under real interpreters of many ages, with good, cut, endless and garbage input."""

from __future__ import annotations

import ast
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from agent_board import APP, ROOT, Made, make_release, release_damage
from interpreters import require

from toolkit.artefacts.manifest import blobs_of
from toolkit.errors import BoardRefused, LineLost
from toolkit.remote import boot, local_line
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent
from toolkit.remote.boot import HEADER, PAYLOAD_LIMIT, SYNC, boot_command, boot_payload, without_comments

VERSIONS = ("3.6", "3.7", "3.11", "3.13")
LIMITS = Limits(silence=20, board=60)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "board"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a shell and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Made:
    hello = b"import sys, os\nprint('hello', os.environ['GREETED'], *sys.argv[1:])\n"
    contents = {
        "hello.py": hello,
        "env.sh": b"echo noise; export GREETED=you; set -- lost; false\n",
        "a/ü.txt": b"u",
    }
    return make_release(tmp_path / "release", contents, "export A=1")


def address(*interpreters: object) -> Address:
    return Address("board", "local", client="local", interpreters=tuple(map(str, interpreters)))


def boot_with(data: bytes, *interpreters: object, wait: float = 20) -> subprocess.CompletedProcess[bytes]:
    """Run the boot command as sshd would, with ``data`` and then the end of input."""
    command = boot_command([str(one) for one in interpreters])
    return subprocess.run(
        ["/bin/sh", "-c", command], input=data, capture_output=True, timeout=wait, check=False
    )


def refusal(stdout: bytes) -> dict[str, str]:
    """What a bootstrap said instead of starting the agent; nothing else may be there."""
    assert stdout.startswith(SYNC + b"F"), stdout[:200]
    (size,) = struct.unpack(">I", stdout[len(SYNC) + 1 : len(SYNC) + 5])
    assert len(stdout) == len(SYNC) + 5 + size
    return dict(json.loads(stdout[len(SYNC) + 5 :]))


# ------------------------------------------------------------------------------------------ size


def test_payload_is_small() -> None:
    assert len(boot_payload()) <= PAYLOAD_LIMIT


def test_command_is_one_line_without_data_and_fits_any_login_shell() -> None:
    command = boot_command(["python3.7", "/opt/my python/bin/python3"])
    assert len(command) < 4096
    # csh expands "!" and ends at newlines even in single quotes; fish knows \' within them.
    assert not set("!\n") & set(command)


def test_comments_cost_nothing_and_lines_keep_their_numbers() -> None:
    source = (
        'def f():\n    """Doc."""\n\n\nclass A(Exception):\n    """Only\n    this."""\n\nx = "# no"  # yes\n'
    )
    bare = without_comments(source)
    assert bare.count("\n") == source.count("\n")
    assert "Doc" not in bare
    assert 'x = "# no"\n' in bare
    space: dict[str, object] = {}
    exec(compile(bare, "bare", "exec"), space)
    assert space["x"] == "# no"


@pytest.mark.parametrize("name", ["agent.py", "bootstrap.py"])
def test_nothing_but_comments_and_docstrings_goes(name: str) -> None:
    def code(source: str) -> str:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                value = body[0].value
                if isinstance(value, ast.Constant) and (isinstance(value.value, str) or value.value == 0):
                    body.pop(0)
        return ast.dump(tree)

    source = (boot._ONBOARD / name).read_text(encoding="utf-8")
    bare = without_comments(source)
    assert code(bare) == code(source)
    assert "#" not in re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", "", bare), "no comment is left"
    assert bare.count('"""') == 2 * source.count('= """'), "no docstring is left"


# ------------------------------------------------------------------------------------------ good input


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_whole_rollout(
    version: str, locale: str, home: Path, release: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = require(version)
    monkeypatch.setenv("LC_ALL", locale)
    lines: list[str] = []
    with BoardAgent.connect(address(python), LIMITS) as board:
        found = board.inspect(ROOT, APP, release.wish())
        assert str(found.facts["version"]).startswith(version + ".")
        assert (found.current, found.environment, len(found.missing)) == ("", "absent", 3)
        board.lock("tests")
        report = board.install(
            release.release, blobs_of(release.release, release.contents), release.environment
        )
        assert (report.new, report.blobs, report.passes) == (True, 3, 1)
        ran = board.run(
            ["{python}", "hello.py", "a b", "$HOME", "ü"],
            release=release.id,
            cwd="{release}",
            env_file="{release}/env.sh",
            interpreters=["no-such-python", str(python)],
            need=("json",),
            limit=30,
            on_line=lines.append,
        )
        assert (ran.status, ran.interpreter) == (0, str(python))
        if locale == "C.UTF-8" or version != "3.6":
            assert lines == ["hello you a b $HOME ü"]
        assert ran.stderr_tail == "noise\n"
        assert ran.peak_rss > 1 << 20
        assert board.switch(release.id, 60) == ""
        board.confirm({"run_key": "k"})
        assert board.verify()["ok"]
        paths = board.fetch(f"releases/{release.id}", tmp_path / "back", limit_bytes=10**6, limit_files=10)
        assert {path.relative_to(tmp_path / "back").as_posix() for path in paths} > {"a/ü.txt", "hello.py"}
        assert board.inspect(ROOT, APP, release.wish()).last_run == {"run_key": "k"}
    assert release_damage(home / "PROJECTS" / APP, release) == []


SHELLS = [one for one in ("sh", "bash", "dash", "busybox", "zsh", "tcsh", "fish") if shutil.which(one)]


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell(shell: str) -> None:
    argv = [shell, "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*argv, "-c", boot_command([sys.executable])], input=boot_payload(), capture_output=True, timeout=20
    )
    assert done.stdout.startswith(SYNC + b"H")
    assert done.stderr == b""


def test_what_a_login_shell_says_first_is_skipped(home: Path) -> None:
    line = local_line.open_line(address(), LIMITS, "echo 'Welcome!'; " + boot_command([sys.executable]))
    with BoardAgent(line, address(), LIMITS) as board:
        assert board.inspect(ROOT, APP).current == ""


def test_first_request_travels_with_the_source(home: Path) -> None:
    """One send for a no-change rollout: nothing waits for the agent to say hello."""

    class Counting(local_line.LocalLine):
        sends = 0

        def send(self, data: bytes | bytearray | memoryview) -> None:
            self.sends += 1
            assert self.received == 0
            super().send(data)

    started = local_line.open_line(address(), LIMITS, boot_command([sys.executable]))
    line = Counting(started._process, "board", LIMITS)
    with BoardAgent(line, address(), LIMITS) as board:
        board.inspect(ROOT, APP)
        assert line.sends == 1


def test_there_is_room_for_much_between_sshd_and_the_agent() -> None:
    """What fits into the pipe is handed over at once; sshd keeps and moves the rest about in its memory."""
    room = 1 << 20
    command = ["/bin/sh", "-c", boot_command([sys.executable])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdin
        assert agent.stdout
        assert fcntl.fcntl(agent.stdin, fcntl.F_GETPIPE_SZ) < room
        agent.stdin.write(boot_payload())
        agent.stdin.flush()
        assert agent.stdout.read(len(SYNC)) == SYNC
        assert fcntl.fcntl(agent.stdin, fcntl.F_GETPIPE_SZ) == room


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("version", VERSIONS)
def test_cut_input(version: str) -> None:
    python, payload = require(version), boot_payload()
    for size in (0, 1, HEADER.size - 1, HEADER.size, HEADER.size + 1, len(payload) - 1):
        done = boot_with(payload[:size], python)
        assert (done.returncode, done.stderr) == (3, b""), size
        assert refusal(done.stdout)["message"] == "the agent's source was cut off on its way"


@pytest.mark.parametrize("version", VERSIONS)
def test_garbage_input(version: str) -> None:
    python, payload = require(version), boot_payload()
    damaged = payload[:100] + b"?" + payload[101:]
    for data, message in [
        (b"GET / HTTP/1.1\r\n" * 100, "what came is not the agent's source"),
        (b"ADA1" + b"\xff" * 100, "what came is not the agent's source"),
        (damaged, "the agent's source was damaged on its way"),
    ]:
        done = boot_with(data, python)
        assert (done.returncode, done.stderr) == (3, b"")
        assert refusal(done.stdout)["message"] == message


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("booted", [False, True])
def test_endless_input(version: str, booted: bool) -> None:
    """Zeros without end, instead of the source and instead of the first request."""
    command = boot_command([str(require(version))])
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin
    if booted:
        process.stdin.write(boot_payload())
    with pytest.raises(BrokenPipeError):
        process.stdin.writelines(itertools.repeat(b"\0" * 65536))
    process.stdin = None
    out, err = process.communicate(timeout=20)
    assert err == b""
    assert out.startswith(SYNC + (b"H" if booted else b"F"))
    assert process.returncode == (0 if booted else 3)


@pytest.mark.parametrize(
    "frames",
    [
        b"Q\0\0\0\x05{}",  # cut in the payload
        b"Q\0\0",  # cut in the header
        b"Q\xff\xff\xff\xff",  # longer than any frame may be
        b"X\0\0\0\0",  # of no kind we know
        b"Q\0\0\0\x03???",  # not JSON
    ],
)
def test_garbage_after_boot_ends_the_agent_quietly(frames: bytes) -> None:
    done = boot_with(boot_payload() + frames, sys.executable)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nonsense_requests_get_a_cause_and_no_traceback() -> None:
    requests = [{"verb": "??"}, {}, {"verb": "inspect"}, {"verb": "install", "root": "/x", "app": "../y"}]
    data = b"".join(
        b"Q" + struct.pack(">I", len(text)) + text for text in (json.dumps(one).encode() for one in requests)
    )
    done = boot_with(boot_payload() + data, sys.executable)
    answers = done.stdout.count(b'"cause": "agent-failed"')
    assert (answers, done.stderr, done.returncode) == (len(requests), b"", 0)


@pytest.mark.parametrize("version", ["2.7", *VERSIONS])
def test_silent_input_has_an_end(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = require(version)
    for name in ("agent.py", "bootstrap.py"):
        text = (boot._ONBOARD / name).read_text()
        (tmp_path / name).write_text(text.replace("signal.alarm(60)", "signal.alarm(1)"))
    monkeypatch.setattr(boot, "_ONBOARD", tmp_path)
    reading, writing = os.pipe()
    try:
        command = "exec " + boot_command([str(python)])
        # Python 2 says at once that it is too old; the others wait for a source that never comes.
        done = subprocess.run(
            ["/bin/sh", "-c", command], stdin=reading, capture_output=True, timeout=20, check=False
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == (-signal.SIGALRM if version != "2.7" else done.returncode)


# ------------------------------------------------------------------------------------------ interpreters


def connect_and_look(*interpreters: object) -> str:
    with BoardAgent.connect(address(*interpreters), LIMITS) as board:
        return str(board.inspect(ROOT, APP).facts["version"])


def test_no_python_at_all(bare_path: Path, home: Path) -> None:
    with pytest.raises(BoardRefused) as caught:
        connect_and_look("python3", "/opt/python3.7/bin/python3")
    assert caught.value.cause == "no-python"
    assert caught.value.hint


def test_python2_only(bare_path: Path, home: Path) -> None:
    python2 = require("2.7")
    (bare_path / "python").symlink_to(python2)
    with pytest.raises(BoardRefused, match=r"2\.7") as caught:
        connect_and_look("python3")
    assert caught.value.cause == "python2-only"


def test_goes_on_from_python2_to_python3(bare_path: Path, home: Path) -> None:
    assert connect_and_look(require("2.7"), "nothing-there", require("3.6")).startswith("3.6.")


def test_goes_on_from_a_python_that_is_too_old(
    bare_path: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same road for 3.5, of which there is none here: let 3.12 be the oldest that will do."""
    for name in ("agent.py", "bootstrap.py"):
        text = (boot._ONBOARD / name).read_text()
        (tmp_path / name).write_text(text.replace("(3, 6)", "(3, 12)"))
    monkeypatch.setattr(boot, "_ONBOARD", tmp_path)
    assert connect_and_look(require("3.7"), require("3.13")).startswith("3.13.")
    with pytest.raises(BoardRefused, match=r"3\.7") as caught:
        connect_and_look(require("3.7"))
    assert caught.value.cause == "python-too-old"


def test_broken_interpreter_is_told_with_its_words(bare_path: Path, home: Path) -> None:
    python = bare_path / "python3"
    python.write_text("#!/bin/sh\necho 'libpython3.so: cannot open shared object file' >&2\nexit 127\n")
    python.chmod(0o755)
    with pytest.raises(LineLost, match="cannot open shared object file") as caught:
        connect_and_look("python3")
    assert caught.value.cause == "closed"
