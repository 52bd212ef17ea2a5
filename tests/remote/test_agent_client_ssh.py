"""The agent over real SSH: a whole rollout on one channel, and a command that ends when the line does."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import sshd as servers

from toolkit.artefacts.manifest import Release, blobs_of
from toolkit.errors import LineLost
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, Wish

LIMITS = Limits(silence=10, board=60)


@pytest.fixture
def app(tmp_path: Path) -> str:
    """A folder for the app: sshd logs in with the account's real home, so the root is given whole."""
    return str(tmp_path / "projects")


def address(server: servers.Sshd, client: str) -> Address:
    return Address(
        "board",
        "127.0.0.1",
        port=server.port,
        user=server.user,
        key_file=str(server.key),
        known_hosts=(str(server.known_hosts),),
        ssh_config="",
        client=client,
        interpreters=(sys.executable,),
    )


@pytest.mark.parametrize("client", ["fabric", "openssh"])
def test_whole_rollout_on_one_channel(client: str, tmp_path: Path, app: str) -> None:
    servers.require()
    if client == "openssh" and shutil.which("ssh") is None:
        pytest.skip("openssh-server is not installed")
    files = {}
    for name, data in {"model.om": os.urandom(3_000_000), "a.txt": b"a", "run.py": b"print('ran')"}.items():
        files[name] = tmp_path / name
        files[name].write_bytes(data)
    release = Release.of_files("app", files)
    lines: list[str] = []
    with servers.serve(tmp_path) as server:
        with BoardAgent.connect(address(server, client), LIMITS) as board:
            board.inspect(app, "app", Wish(release))
            board.install(release, blobs_of(release, files), "")
            board.run(
                ["{python}", "run.py"],
                release=release.id,
                cwd="{release}",
                interpreters=[sys.executable],
                need=(),
                limit=20,
                on_line=lines.append,
            )
            board.switch(release.id, 30)
            board.confirm({"release": release.id})
            assert board.verify()["ok"]
            back = board.fetch(f"releases/{release.id}", tmp_path / "back", limit_bytes=10**8, limit_files=9)
            assert (board.line.connections, board.line.channels) == (1, 1)
        assert lines == ["ran"]
        assert len(back) == 3 + 3  # and manifest.json, .deploy, .last_run
        assert server.log().count("Starting session: command") == 1
        with BoardAgent.connect(address(server, client), LIMITS) as board:
            found = board.inspect(app, "app", Wish(release))
            assert (found.current, found.missing, found.lock) == (release.id, {}, None)


def test_a_command_ends_though_ssh_would_not_end_it(tmp_path: Path, app: str) -> None:
    """With the server's session killed, nothing but the agent's own guard can end what it started."""
    servers.require()
    pids: list[int] = []
    with servers.serve(tmp_path) as server:
        board = BoardAgent.connect(address(server, "fabric"), LIMITS)
        board.inspect(app, "app")

        def started(line: str) -> None:
            pids.append(int(line))
            board.close()

        with pytest.raises(LineLost):
            board.run(["sh", "-c", "echo $$; exec sleep 300"], limit=300, on_line=started)
        end = time.monotonic() + 20
        while Path(f"/proc/{pids[0]}").exists():
            assert time.monotonic() < end, "the command still runs"
            time.sleep(0.02)
