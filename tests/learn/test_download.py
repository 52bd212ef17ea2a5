"""Downloads against a real HTTP server which cuts connections, forgets ranges, and lies."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.learn.download import Download
from toolkit.ui.events import Event, ignore

CONTENT = np.random.default_rng(0).bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Sends CONTENT. ``cuts``: after how many bytes the answers break off, in turn (0: at once, None:
    never)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int | None] = []
        self.ranges: list[str | None] = []
        self.knows_ranges = True
        self.status = 200
        self.content = CONTENT

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.knows_ranges else 0  # type: ignore[index]
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        self.wfile.write(server.content[start : len(server.content) if cut is None else start + cut])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def download(server: Server, folder: Path, **settings: object) -> Download:
    chosen = {"size": len(CONTENT), "sha256": SHA256, "timeout": 10.0, "pause": 0.0, **settings}
    return Download(server.url, folder / "file.bin", **chosen)  # type: ignore[arg-type]


def test_a_file_arrives_with_progress(server: Server, tmp_path: Path) -> None:
    events: list[Event] = []
    path = download(server, tmp_path, md5=hashlib.md5(CONTENT).hexdigest()).fetch(events.append)
    assert path.read_bytes() == CONTENT
    progress = [event.data for event in events if event.kind == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == len(CONTENT)
    assert progress[-1]["unit"] == "bytes"
    assert not (tmp_path / "file.bin.part").exists()


def test_after_cuts_only_the_rest_is_asked_for(server: Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 300_000]
    assert download(server, tmp_path, attempts=1).fetch(ignore).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-"]


def test_the_next_run_goes_on_where_the_last_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.cuts = [400_000, 0, 0]
    with pytest.raises(InputError, match="cannot be fetched"):
        download(server, tmp_path, attempts=2).fetch(ignore)
    assert (tmp_path / "file.bin.part").stat().st_size == 400_000
    assert download(server, tmp_path).fetch(ignore).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=400000-"


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    server.cuts = [300_000]
    assert download(server, tmp_path).fetch(ignore).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


@pytest.mark.parametrize("size", [len(CONTENT), 0])
def test_a_rest_of_something_longer_is_thrown_away(server: Server, tmp_path: Path, size: int) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * (len(CONTENT) + 5))
    assert download(server, tmp_path, size=size).fetch(ignore).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [{"md5": "0" * 32}, {"sha256": "0" * 64}])
def test_wrong_digests_are_refused_and_nothing_is_kept(
    server: Server, tmp_path: Path, wrong: dict[str, str]
) -> None:
    with pytest.raises(InputError, match=r"(MD5|SHA256) is [0-9a-f]+ instead of 0+"):
        download(server, tmp_path / "new", **wrong).fetch(ignore)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.bin.part.lock"]


def test_a_damaged_rest_is_noticed_and_the_next_run_starts_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match="SHA256"):
        download(server, tmp_path).fetch(ignore)
    assert download(server, tmp_path).fetch(ignore).read_bytes() == CONTENT


def test_not_found_is_said_at_once_with_what_to_do(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(InputError, match="the server says 404") as caught:
        download(server, tmp_path).fetch(ignore)
    assert len(server.ranges) == 1
    assert server.url in caught.value.hint
    assert str(tmp_path / "file.bin") in caught.value.hint


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(InputError, match="503"):
        download(server, tmp_path, attempts=3).fetch(ignore)
    assert len(server.ranges) == 3


def test_without_a_network_one_line_says_what_to_fetch_and_where_to_put_it(tmp_path: Path) -> None:
    with Server() as gone:
        url = gone.url
    fetch = Download(url, tmp_path / "file.bin", attempts=2, pause=0.0)
    with pytest.raises(InputError) as caught:
        fetch.fetch(ignore)
    assert "\n" not in str(caught.value) + caught.value.hint
    assert url in caught.value.hint
    assert str(tmp_path / "file.bin") in caught.value.hint


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only http and https"):
        Download("file:///etc/passwd", tmp_path / "file.bin").fetch(ignore)


def test_two_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=download(server, tmp_path).fetch, args=(ignore,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.ranges == [None]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
