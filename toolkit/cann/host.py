"""The machine on which CANN's tools run: this one, a build host over SSH, or the board itself."""

from __future__ import annotations

import contextlib
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.cann import catalogue
from toolkit.cann.versions import newer, parse_version
from toolkit.errors import ConfigError
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, Inspection
from toolkit.ui.events import Emit, Event, ignore

# What ATC takes in a path, besides Chinese characters (hicann/ge ``base/common/util.cc``, CheckInputPathValid).
_PLAIN = re.compile(r"[A-Za-z0-9./_-]+")

MAX_BYTES = 8 << 30
MAX_FILES = 10_000

LOW_MEMORY_MB = 4096
LOW_MEMORY = "export TE_PARALLEL_COMPILER=1\nexport MAX_COMPILE_CORE_NUMBER=1\n"
"""For a board that converts with 4 GB or less: with one process per core the compiler is killed there (Atlas
200I DK A2)."""

# Says which of the tools are not on PATH, and prints the install record of the CANN whose atc is, of all generations:
# ascend_toolkit_install.info lies in the package or in its <arch>-linux, some folders above the program. AMCT lies
# elsewhere, so that atc is asked first.
TOOLS_PROBE = """
for name in "$@"; do command -v "$name" >/dev/null || echo "missing=$name"; done
tool=$(command -v atc || command -v "$1") || exit 0
folder=$(readlink -f "$tool")
for up in 1 2 3 4 5; do
    folder=${folder%/*}
    for info in "$folder"/ascend_toolkit_install.info "$folder"/*-linux/ascend_toolkit_install.info; do
        if [ -f "$info" ]; then cat "$info"; exit 0; fi
    done
done
"""


@dataclass(frozen=True)
class ToolReport:
    """What one command on the host gave. ``output`` is stdout and stderr as the host printed them."""

    status: int
    output: str
    version: str  # CANN's, as its install record tells; "" where there is none
    seconds: float


@dataclass(frozen=True)
class ConvertHost:
    """Where and how to run CANN's tools. ``environment`` is shell text that puts them on PATH.

    ``warnings`` are worth telling whoever converts there. ``wanted`` is the CANN that it must have; "": any.
    """

    address: Address
    limits: Limits
    root: str
    environment: str
    warnings: tuple[str, ...] = ()
    wanted: str = ""

    @property
    def name(self) -> str:
        return self.address.name

    def version(self, emit: Emit = ignore) -> str:
        """Return the host's CANN version, "" where it cannot be told."""
        with self._session({}, "", emit) as (agent, folder):
            return self._probe(agent, folder, ["atc"])[0]

    def check(self, board: str, emit: Emit = ignore, tools: Sequence[str] = ("atc",)) -> str:
        """Return the host's CANN version.

        ConfigError where it is newer than ``board``, the boards', or one of ``tools`` is not there.
        """
        with self._session({}, "", emit) as (agent, folder):
            return self._fit(*self._probe(agent, folder, tools), board, emit)

    def run(
        self,
        argv: Sequence[str],
        files: Mapping[str, Path],
        *,
        into: Path,
        limit: float,
        emit: Emit,
        board: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> ToolReport:
        """Send ``files``, run ``argv`` in ``out/`` beside them, fetch what is in ``out/`` afterwards.

        Relative paths in ``argv`` start from ``out/``. In ``variables``, which are exported, ``{work}`` is
        the folder above it. The work folder is removed whatever happens.

        ``board`` is the CANN of the boards: ConfigError before anything is sent where the host's is newer, or where
        it has not the program of ``argv``.
        """
        into.mkdir(parents=True, exist_ok=True)
        exports = "".join(f"export {key}={_shell(value)}\n" for key, value in (variables or {}).items())
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            emit(Event("log", line))

        for warning in self.warnings:
            emit(Event("warning", warning))
        with self._session(variables or {}, exports, emit) as (agent, folder):
            version = self._fit(*self._probe(agent, folder, argv[:1]), board, emit)
            agent.put(folder, files)
            report = agent.run(
                list(argv),
                cwd=f"{{app}}/{folder}/out",
                env_file=f"{{app}}/{folder}/env.sh",
                limit=limit,
                on_line=on_line,
            )
            agent.fetch(f"{folder}/out", into, limit_bytes=MAX_BYTES, limit_files=MAX_FILES)
        output = "\n".join(lines) + ("\n" + report.stderr_tail if report.stderr_tail else "")
        return ToolReport(report.status, output, version, report.seconds)

    @contextlib.contextmanager
    def _session(
        self, variables: Mapping[str, str], exports: str, emit: Emit
    ) -> Iterator[tuple[BoardAgent, str]]:
        """A session with a work folder that holds ``env.sh`` and an empty ``out/``."""
        folder = f"work/{uuid.uuid4().hex[:12]}"
        connecting = BoardAgent.connect(self.address, self.limits, emit)
        with tempfile.TemporaryDirectory() as here, connecting as agent, self._plain_folder(agent) as found:
            script, empty = Path(here) / "env.sh", Path(here) / "empty"
            script.write_text(self.environment + exports.replace("{work}", f"{found.folder}/{folder}"))
            empty.touch()
            folders = [value.removeprefix("{work}/") for value in variables.values() if "{work}" in value]
            keep = {f"{name}/.keep": empty for name in ("out", *folders)}
            try:
                agent.put(folder, {"env.sh": script, **keep})
                yield agent, folder
            finally:
                with contextlib.suppress(Exception):
                    agent.remove(folder)

    @contextlib.contextmanager
    def _plain_folder(self, agent: BoardAgent) -> Iterator[Inspection]:
        """A folder whose path ATC takes: our own, or a temporary one where that has spaces or other letters."""
        found = agent.inspect(self.root, "convert")
        if _PLAIN.fullmatch(found.folder):
            yield found
            return
        made = agent.run(["mktemp", "-d", "/tmp/ascend-deploy-XXXXXX"], limit=self.limits.command)
        folder = made.stdout_tail.strip()
        if made.status or not _PLAIN.fullmatch(folder):
            raise ConfigError(
                f"convert.host: ATC on {self.name} does not take the path {found.folder}, and /tmp cannot be written",
                hint="board.root of that machine: a folder with letters, digits and - . _ in its path only",
            )
        try:
            yield agent.inspect(folder, "convert")
        finally:
            with contextlib.suppress(Exception):
                agent.run(["rm", "-rf", "--", folder], limit=self.limits.command)

    def _probe(self, agent: BoardAgent, folder: str, tools: Sequence[str]) -> tuple[str, list[str]]:
        """CANN's version, "" where it is not written, and those of ``tools`` that are missing."""
        report = agent.run(
            ["sh", "-c", TOOLS_PROBE, "probe", *tools],
            cwd=f"{{app}}/{folder}",
            env_file=f"{{app}}/{folder}/env.sh",
            limit=self.limits.command,
        )
        match = re.search(r"^version=(\S+)", report.stdout_tail, re.M)
        return match.group(1) if match else "", re.findall(r"^missing=(.+)$", report.stdout_tail, re.M)

    def _fit(self, version: str, missing: Sequence[str], board: str, emit: Emit) -> str:
        for tool in missing:
            known = catalogue.explain(f"{tool}: not found")
            raise ConfigError(
                f"convert.host: there is no {tool} on {self.name}" + (f": {known.cause}" if known else ""),
                hint=known.fix if known else "see whether CANN's toolkit is installed there, and where",
            )
        if self.wanted and version and parse_version(version) != parse_version(self.wanted):
            raise ConfigError(
                f"convert.cann_version: {self.name} has CANN {version}, not {self.wanted}",
                hint=f"convert.cann_version={version}, or leave it out, or convert.host=… names another machine",
            )
        if board and not version:
            emit(Event("warning", f"{self.name}: which CANN it has cannot be told, the boards have {board}"))
        if newer(version, board):
            raise ConfigError(
                f"convert.host: {self.name} has CANN {version}, newer than the boards' {board}: "
                "they would not load what it makes",
                hint=f"convert where CANN is {board} or older, or set board.cann.version if they have more",
            )
        return version


def _shell(value: str) -> str:
    """Quote for POSIX shell."""
    return "'" + value.replace("'", "'\\''") + "'"
