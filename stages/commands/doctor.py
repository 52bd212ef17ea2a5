"""Is this machine fit, are these boards? One line each: what, and where it isn't, cause and fix.

    deploy doctor
    deploy doctor +board=200dk
    deploy doctor inventory=mine hosts=ring=0 --json

With boards chosen, each is asked over one connection: SSH and host key, disk, clock, Python, NumPy, Pillow, acl,
npu-smi, the chip against the profile's soc_version, health, temperature, memory, driver and CANN versions,
permission to open the device, environment. Nothing on a board is changed. Of more than four boards only what is
not in order is printed; --json has all of it.

A machine under hosts: of an inventory, which hosts=, convert.host= or train.remote.host= names, is asked for its ATC,
and for MindSpore on the device of train.device_target where it is the one to train.

Exits with 2 when this machine lacks something, 4 when some boards are not fit or don't answer, 5 when none is.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from stages._boards import Answer, Place, ask_boards, exit_code, places_of
from stages._fleet import local_atc, with_cann
from stages._invocation import Invocation
from stages._training_host import host_of
from toolkit import paths
from toolkit.cann import catalogue, health
from toolkit.cann.environment import converter_script, environment_script
from toolkit.cann.health import Finding, Kind, Words
from toolkit.cann.host import TOOLS_PROBE
from toolkit.errors import BoardRefused, CommandFailed, DeployError, LineLost, RemoteError
from toolkit.remote.agent import BoardAgent, RunReport, Wish
from toolkit.ui.words import counted, named

HELP = "is this machine fit, are these boards: one line each, with cause and fix"

MARK = {"ok": "✓", "note": "·", "bad": "✗"}

ALL_LINES = 4
"""Of so many boards each line is printed; of more, only what is not in order."""

PROBE = paths.CHECKOUT / "toolkit" / "onboard" / "probe.py"
PROBE_SECONDS = 240.0

MINDSPORE = """
import sys
try:
    import mindspore
    mindspore.set_device(sys.argv[1])
except Exception as error:
    sys.exit(str(error).strip().splitlines()[0])
print(mindspore.__version__)
"""

# With bash where there is one: a real set_env.sh wants it. What the environment prints is not ours.
SHELL = 'b=$(command -v bash || command -v sh); s=$1; shift; exec "$b" -c "$s" probe "$@"'


def run(invocation: Invocation) -> int:
    machine = [finding for check in CHECKS for finding in check(invocation)]
    boards = _ask(invocation)
    machine.append(_chosen([item.name for item in boards]))
    lines = _lines(machine)
    for item in boards:
        lines += _board_lines(item, len(boards) <= ALL_LINES)
    good = sum(item.fit for item in boards)
    if len(boards) > 1:
        lines.append(f"{good} of {len(boards)} boards are fit")
    found: dict[str, Any] = {"findings": [vars(item) for item in machine]}
    if boards:
        found["boards"] = [
            {"board": item.name, "fit": item.fit, "findings": [vars(one) for one in item.findings]} for item in boards
        ]
    invocation.renderer.data(found, "\n".join(lines))
    if any(item.state == "bad" for item in machine):
        return 2
    return exit_code(len(boards) - good, len(boards)) if boards else 0


def _lines(findings: Sequence[Finding], indent: str = "") -> list[str]:
    width = max((len(item.what) for item in findings), default=0)
    lines = []
    for item in findings:
        lines.append(f"{indent}{MARK[item.state]} {item.what:<{width}}  {item.text}")
        if item.fix:
            lines.append(f"{indent}  {'':<{width}}  what to do: {item.fix}")
    return lines


class Examined:
    """One board and what was found about it."""

    def __init__(self, name: str, findings: Sequence[Finding]) -> None:
        self.name, self.findings = name, tuple(findings)

    @property
    def fit(self) -> bool:
        return not any(item.state == "bad" for item in self.findings)


def _board_lines(board: Examined, all_lines: bool) -> list[str]:
    odd = [item for item in board.findings if item.state != "ok"]
    ok = len(board.findings) - len(odd)
    if all_lines:
        return [f"{board.name}", *_lines(board.findings, "  ")]
    if not odd:
        return [f"{MARK['ok']} {board.name}  {ok} of {ok} in order"]
    return [f"{board.name}  {ok} of {len(board.findings)} in order", *_lines(odd, "  ")]


def _ask(invocation: Invocation) -> list[Examined]:
    """Every chosen board; a connection each."""
    config = invocation.config
    if config.board is None and config.inventory is None:
        return []
    kinds = _kinds()

    def look(place: Place, agent: BoardAgent) -> list[Finding]:
        if place.board.kind == "host":
            return [*_reached(place), *_host(invocation, place, agent)]
        return [*_reached(place), *health.examine(place.target.profile, _words(place, agent), kinds)]

    with places_of(invocation, hosts=True) as places:
        return [_examined(answer) for answer in ask_boards(invocation, places, look)]


def _words(place: Place, agent: BoardAgent) -> Words:
    """What the board says: inspection and probe, over one line."""
    config, profile = place.target.config, place.target.profile
    environment = environment_script(profile.cann)
    before = time.time()
    found = agent.inspect(profile.root, config.app.name, Wish(environment=environment))
    here = (before + time.time()) / 2
    said: list[str] = []
    agent.run(
        [
            *("sh", "-c", SHELL, "sh", environment + '\nexec "$@"'),
            *(str(found.facts["python"]), "-c", PROBE.read_text(encoding="utf-8")),
            *("--device", str(config.infer.device), *profile.interpreters),
        ],
        need=(),
        limit=PROBE_SECONDS,
        on_line=said.append,
    )
    probe = health.unpack_probe(said)
    if not probe:
        raise CommandFailed(
            f"{place.name}: the board's own examination did not end well", host=place.name,
            hint=place.address.command("doctor", "--debug"),
        )  # fmt: skip
    return Words(found.facts, probe, here, found.environment, found.current)


def _host(invocation: Invocation, place: Place, agent: BoardAgent) -> Iterator[Finding]:
    """A machine that converts or trains. What it was not named for is worth a note."""
    config, profile = invocation.config, place.target.profile
    before = time.time()
    found = agent.inspect(profile.root, config.app.name)
    yield from health.examine_host(Words(found.facts, here=(before + time.time()) / 2))
    converts, trains = place.name == config.convert.host, place.name == config.train.remote.host
    cann = with_cann(profile, config.board).cann

    def run(environment: str, *argv: str) -> RunReport:
        return agent.run(
            ["sh", "-c", SHELL, "sh", environment + '\ncd "${TMPDIR:-/tmp}"; exec "$@"', *argv],
            need=(),
            limit=PROBE_SECONDS,
        )

    done = run(converter_script(cann), "sh", "-c", TOOLS_PROBE, "probe", "atc")
    yield health.converter(done.stdout_tail, needed=converts or not trains)
    if trains:
        host = host_of(config, place.target, place.address)
        device = config.train.device_target.value
        done = run(host.environment, host.python, "-c", MINDSPORE, device)
        yield health.trainer(done.status, done.stdout_tail, done.stderr_tail, f"{host.python}, {device}")


def _reached(place: Place) -> Iterator[Finding]:
    address = place.address
    yield Finding("SSH", "ok", f"{address.user}@{address.host}:{address.port}" if address.user else address.host)
    yield Finding("host key", "ok", "pinned" if address.host_key else "in known_hosts")


def _examined(answer: Answer[list[Finding]]) -> Examined:
    if answer.value is not None:
        return Examined(answer.name, answer.value)
    assert answer.error is not None
    return Examined(answer.name, [_refused(answer.place, answer.error)])


def _refused(place: Place, error: DeployError) -> Finding:
    """Why a board could not be examined, on the line it belongs to."""
    cause = error.cause if isinstance(error, RemoteError) else ""
    text = str(error)
    for own in (str(place.address), place.name):
        text = text.removeprefix(f"{own}: ")
    fix = error.hint
    if cause.startswith("host-key"):
        what = "host key"
    elif cause.startswith("auth") or cause == "key-unreadable":
        what = "login"
    elif cause in ("no-python", "python2-only", "python-too-old"):
        what = "Python"
    elif isinstance(error, LineLost | CommandFailed | BoardRefused):
        what = "board"
    else:
        what = "SSH"
        usb = catalogue.entry("usb-network")
        if catalogue.explain(f"{place.address.host} {cause.replace('-', ' ')} unreachable") is usb:
            fix = f"{fix}; {usb.fix}" if fix else usb.fix
    return Finding(what, "bad", text, fix)


def _kinds() -> list[Kind]:
    """What each profile says about its chip, read as plain files: to compose all of them would take seconds."""
    folders = [paths.CONF]
    if HydraConfig.initialized():
        folders += [Path(item.path) for item in HydraConfig.get().runtime.config_sources if item.schema == "file"]
    kinds: dict[str, Kind] = {}
    for path in (path for folder in folders for path in sorted((folder / "board").glob("*.yaml"))):
        value = OmegaConf.load(path)
        if isinstance(value, DictConfig) and value.get("npu_name"):
            name = str(value.get("profile", path.stem))
            kinds[name] = Kind(
                name, str(value.npu_name), int(value.get("chips", 1)), str(value.get("run_mode", "")),
                int(value.get("memory_mb", 0)),
            )  # fmt: skip
    return list(kinds.values())


def _python(invocation: Invocation) -> Iterator[Finding]:
    text = f"{platform.python_version()} in {sys.prefix}"
    fit = (3, 10) <= sys.version_info[:2] <= (3, 12)
    fix = "" if fit else "MindSpore has packages for Python 3.10, 3.11 and 3.12: make the virtual environment with one"
    yield Finding("Python", "ok" if fit else "bad", text, fix)


def _packages(invocation: Invocation) -> Iterator[Finding]:
    for name in ("mindspore", "numpy", "onnxruntime", "onnx", "fabric", "pillow", "hydra-core"):
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, "bad", "not installed", "pip install -e . in the project's folder")
            continue
        if name == "numpy" and found.startswith("2.") and importlib.util.find_spec("mindspore"):
            yield Finding(name, "bad", f"{found}: MindSpore's kernels want 1.x", "pip install 'numpy<2'")
        else:
            yield Finding(name, "ok", found)


def _processor(invocation: Invocation) -> Iterator[Finding]:
    cores = os.cpu_count() or 1
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA")
    wide = "avx512" in _cpu_flags()
    if wide and isa and "AVX512" in isa.upper():
        yield Finding(
            "processor",
            "note",
            f"{cores} cores with AVX-512, ONEDNN_MAX_CPU_ISA={isa}: convolutions are 40 to 90 times slower",
            "unset ONEDNN_MAX_CPU_ISA, or set it to AVX2",
        )
    else:
        yield Finding("processor", "ok", f"{cores} cores" + (", AVX-512 is left unused for training" if wide else ""))


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _disk(invocation: Invocation) -> Iterator[Finding]:
    folder = paths.base()
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        yield Finding("folder", "bad", f"{folder} cannot be written", "run in another folder, or set DEPLOY_HOME")
        return
    text = f"{folder}: {free / 1e9:.1f} GB free"
    if free < 2e9:
        yield Finding("folder", "note", text, "2 GB are needed for ResNet50 with its data; set DEPLOY_HOME elsewhere")
    else:
        yield Finding("folder", "ok", text)


def _atc(invocation: Invocation) -> Iterator[Finding]:
    config = invocation.config
    if config.simulate:
        yield Finding("atc", "ok", "comes with the simulated build host")
        return
    if config.convert.host not in ("auto", "local"):
        return  # another machine converts: asked with the boards
    if local_atc(converter_script(config.board.cann) if config.board else ""):
        yield Finding("atc", "ok", shutil.which("atc") or "found in CANN's environment")
    else:
        yield Finding(
            "atc",
            "note",
            "not on this machine",
            "name a machine with CANN's toolkit (convert.host=…), or try it with simulate=true",
        )


def _ssh(invocation: Invocation) -> Iterator[Finding]:
    keys = [path.name for path in sorted(Path.home().glob(".ssh/id_*")) if path.suffix != ".pub"]
    open_ones = [name for name in keys if (Path.home() / ".ssh" / name).stat().st_mode & 0o077]
    if open_ones:
        fix = f"chmod 600 {' '.join(f'~/.ssh/{name}' for name in open_ones)}"
        yield Finding("ssh key", "note", f"others may read {', '.join(open_ones)}: ssh does not take it", fix)
    elif keys:
        yield Finding("ssh key", "ok", ", ".join(keys))
    elif os.environ.get("SSH_AUTH_SOCK"):
        yield Finding("ssh key", "ok", "an ssh-agent runs")
    else:
        yield Finding(
            "ssh key",
            "note",
            "none in ~/.ssh and no ssh-agent",
            "ssh-keygen -t ed25519, then ssh-copy-id to the boards",
        )
    known = Path.home() / ".ssh" / "known_hosts"
    entries = len(known.read_text(errors="replace").splitlines()) if known.exists() else 0
    yield Finding("known hosts", "ok" if entries else "note", f"{counted(entries, 'entry')} in ~/.ssh/known_hosts",
                  "" if entries else "deploy's verb trust reads boards' keys and pins them")  # fmt: skip


def _chosen(names: Sequence[str]) -> Finding:
    if not names:
        return Finding("boards", "note", "none chosen", "+board=…, or inventory=…")
    return Finding("boards", "ok", f"{len(names)} chosen: {named(names)}")


CHECKS: tuple[Callable[[Invocation], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _processor,
    _disk,
    _atc,
    _ssh,
)
