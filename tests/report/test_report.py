"""The report of a run: whole, harmless, and without a request to anybody."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from toolkit import report
from toolkit.errors import InputError
from toolkit.report.gather import gather
from toolkit.report.page import render, verdict

EVIL = "<script>alert(1)</script>&\"'"


def write_run(folder: Path, *, boards: int = 2, evil: str = "", ended: bool = True) -> Path:
    """A run's folder as apply leaves it."""
    run = folder / "20260301-101500-abcd"
    history = [{"epoch": n, "loss": 2.0 / n, "accuracy": 1 - 0.5 / n, "seconds": 1.0} for n in range(1, 6)]
    events: list[dict[str, Any]] = [
        {"kind": "start", "text": "apply", "time": 1000.0, "data": {"run": run.name, "pid": 7}},
        {"kind": "start", "stage": "train", "text": f"never made here {evil}", "time": 1001.0},
        {"kind": "done", "stage": "train", "text": "97 % right", "time": 1061.0,
         "data": {"seconds": 60.0, "notes": {"accuracy": 0.97, "history": history}}},
        {"kind": "skip", "stage": "export", "text": "unchanged", "time": 1062.0,
         "data": {"notes": {"summary": "model.onnx"}}},
        {"kind": "done", "stage": "convert", "text": "0.3 MB", "time": 1063.0,
         "data": {"seconds": 1.0, "notes": {"command": ["atc", "--model=a b.onnx", f"--output={evil}"],
                                            "host": "builder", "cann": "5.0.4", "sha256": "f" * 64}}},
    ]  # fmt: skip
    receipts = run / "receipts"
    receipts.mkdir(parents=True)
    for number in range(boards):
        name = f"cam-{number}"
        outcome = {
            "board": name, "status": "ok" if number == 0 else "failed", "release": "a" * 64, "previous": "b" * 64,
            "sent": 264_000, "seconds": 2.5, "message": "" if number == 0 else f"it burns {evil}",
            "hint": f"run {evil}",
            "figures": {"accuracy": 0.95, "labelled": 20, "difference": 9.8e-4, "p50_ms": 0.8, "p99_ms": 16.0},
        }  # fmt: skip
        events.append({"kind": "start", "stage": "connect", "board": name, "time": 1064.0})
        if ended:
            events.append({"kind": "outcome", "board": name, "time": 1070.0, "data": outcome})
        (receipts / f"{name}.json").write_text(json.dumps(outcome))
        (run / name).mkdir()
        picture = f"3 {evil.replace('/', '')}.png"
        Image.new("RGB", (40, 30), (200, 30, 30)).save(run / name / picture)
        (run / name / "broken.png").write_bytes(b"\x89PNG not really")
        results = [
            {"picture": picture, "label": 3, "class": f"cat{evil}" if number == 0 else "dog", "confidence": 0.9,
             "top": [[3, 0.9], [5, 0.08], [7, 0.00001]], "ms": {"execute": 0.8}},
            {"picture": "broken.png", "error": f"cannot be read {evil}"},
            {"picture": "../../../etc/passwd", "class": "x", "top": [[1, float("nan")], "nonsense"]},
        ]  # fmt: skip
        (run / name / "results.jsonl").write_text("\n".join(json.dumps(item) for item in results) + "\n{cut")
        summary = {"ms": {"execute": {"p50": 0.8, "p99": 16.0}, "decode": {"p50": "x", "p99": 1}}}
        (run / name / "summary.json").write_text(json.dumps(summary))
    if ended:
        events.append({"kind": "summary", "time": 1071.0, "data": {"exit_code": 4}})
    (run / "config.yaml").write_text(f'app:\n  name: cams\n  labels: []\ntrain:\n  note: "{evil}"\n')
    (run / "journal.jsonl").write_text("\n".join(json.dumps(event) for event in events) + ("" if ended else '\n{"kind'))
    return run


def test_what_it_shows(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    path = report.write(run)
    assert path == run / "report.html"
    page = path.read_text()
    for text in (
        "cams", "1 of 2 boards is fine", "it burns", "95.0 %", "9.8e-04", "builder", "CANN 5.0.4", "--model=a b.onnx",
        "was bbbbbbbbbbbb", "disagree on 1 picture", "class 5", "never made here", "Receipt of cam-1", "epoch 5",
    ):  # fmt: skip
        assert text in page, text
    assert "class 7" not in page, "shares that round to nought are left out"
    assert page.count("data:image/jpeg;base64,") == 2
    assert "passwd" in page, "the name is shown …"
    assert "root:" not in page, "… the file is not"


def test_texts_from_boards_stay_texts(tmp_path: Path) -> None:
    page = report.write(write_run(tmp_path, evil=EVIL)).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert re.findall(r"\bon\w+\s*=", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)) == []


def test_nothing_outside_is_asked_for(tmp_path: Path) -> None:
    page = report.write(write_run(tmp_path)).read_text()
    assert "default-src 'none'" in page
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", page)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


def test_a_run_that_was_killed(tmp_path: Path) -> None:
    found = gather(write_run(tmp_path, ended=False))
    assert [board.status for board in found.boards] == ["cut short", "cut short"]
    assert all("it runs what it ran before" in board.outcome["message"] for board in found.boards)
    assert verdict(found) == ("warn", "Cut short: 0 of 2 boards done")
    assert "cut short" in render(found)


def test_a_big_fleet_stays_readable(tmp_path: Path) -> None:
    path = report.write(write_run(tmp_path, boards=300))
    page = path.read_text()
    assert page.count("<tr") > 300
    assert path.stat().st_size < 2_000_000
    assert "The receipts of 276 more boards" in page


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run's folder"):
        report.write(tmp_path)


# The browser's own housekeeping, which its flags do not end altogether.
HOUSEKEEPING = (".google.com", ".googleapis.com", ".gvt1.com")


def browse(chromium: str, page: Path, folder: Path) -> tuple[Path, str, set[str]]:
    """Draw a page; return the screenshot, what stood on its console, and the hosts that were asked for something."""
    log, shot, home = folder / "net.json", folder / "page.png", folder / "browser"
    home.mkdir(parents=True)
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage", "--disable-extensions",
            f"--user-data-dir={home}", "--enable-logging=stderr", f"--log-net-log={log}",
            # Whatever is wanted from outside ends on this machine, where nothing listens.
            "--proxy-server=127.0.0.1:9", "--window-size=1240,2000", f"--screenshot={shot}", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    hosts = {urlsplit(url).hostname or "" for url in re.findall(r'"url":"(https?:[^"]*)"', log.read_text())}
    return shot, console, {host for host in hosts if not f".{host}".endswith(HOUSEKEEPING)}


def test_in_a_browser(tmp_path: Path) -> None:
    """Chromium draws it without an error on its console and without a request for anything but the file."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    # First a page that does both, or this test could not fail.
    control = tmp_path / "control.html"
    control.write_text('<img src="http://elsewhere.example/x.png"><script>console.error("seen")</script>')
    _, console, hosts = browse(chromium, control, tmp_path / "control")
    assert "seen" in console
    assert hosts == {"elsewhere.example"}

    shot, console, hosts = browse(chromium, report.write(write_run(tmp_path)), tmp_path / "report")
    assert console == ""
    assert hosts == set()
    with Image.open(shot) as page:
        colours = page.convert("RGB").getcolors(1 << 24)
        assert page.size == (1240, 2000)
    assert colours is not None
    assert len(colours) > 100, "text, tables and a plot, not an empty page"
    red = [count for count, (r, g, b) in colours if abs(r - 200) < 12 and abs(g - 30) < 12 and abs(b - 30) < 12]
    assert sum(red) > 500, "the pictures are there"
