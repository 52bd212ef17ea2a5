"""The machine on which ATC runs: this one, a build host over SSH, or the board itself."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent
from toolkit.ui.events import Emit, Event

MAX_BYTES = 8 << 30
MAX_FILES = 10_000


@dataclass(frozen=True)
class ToolReport:
    """What one command on the host gave. ``output`` is stdout and stderr as the host printed them."""

    status: int
    output: str
    version: str  # CANN's, as its install record tells; "" where there is none
    seconds: float


@dataclass(frozen=True)
class ConvertHost:
    """Where and how to run CANN's tools. ``environment`` is shell text that puts them on PATH."""

    address: Address
    limits: Limits
    root: str
    environment: str

    @property
    def name(self) -> str:
        return self.address.name

    def run(
        self,
        argv: Sequence[str],
        files: Mapping[str, Path],
        *,
        into: Path,
        limit: float,
        emit: Emit,
    ) -> ToolReport:
        """Send ``files``, run ``argv`` in ``out/`` beside them, fetch what is in ``out/`` afterwards.

        Relative paths in ``argv`` start from ``out/``. The work folder is removed whatever happens.
        """
        folder = f"work/{uuid.uuid4().hex[:12]}"
        script = into.parent / "env.sh"
        into.mkdir(parents=True, exist_ok=True)
        # `$0`-free and quiet: what it prints would mix with the tool's output.
        script.write_text(self.environment + _VERSION_PROBE)
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            emit(Event("log", line))

        with BoardAgent.connect(self.address, self.limits, emit) as agent:
            agent.inspect(self.root, "convert")
            try:
                agent.put(folder, {**files, "env.sh": script, "out/.keep": _empty(into.parent)})
                report = agent.run(
                    list(argv),
                    cwd=f"{{app}}/{folder}/out",
                    env_file=f"{{app}}/{folder}/env.sh",
                    limit=limit,
                    on_line=on_line,
                )
                agent.fetch(f"{folder}/out", into, limit_bytes=MAX_BYTES, limit_files=MAX_FILES)
            finally:
                with contextlib.suppress(Exception):
                    agent.remove(folder)
        output = "\n".join(lines) + ("\n" + report.stderr_tail if report.stderr_tail else "")
        return ToolReport(report.status, output, _version(into), report.seconds)


# Written into out/ by the environment script: the CANN that really runs here.
_VERSION_PROBE = """
for info in "${ASCEND_TOOLKIT_HOME:-}"/ascend_toolkit_install.info "${ASCEND_TOOLKIT_HOME:-}"/*-linux/ascend_toolkit_install.info \\
    "$HOME"/Ascend/ascend-toolkit/latest/*-linux/ascend_toolkit_install.info "$HOME"/Ascend/ascend-toolkit/latest/ascend_toolkit_install.info; do
    if [ -f "$info" ]; then cp "$info" ascend_toolkit_install.info 2>/dev/null; break; fi
done
"""


def _version(folder: Path) -> str:
    info = folder / "ascend_toolkit_install.info"
    if not info.exists():
        return ""
    match = re.search(r"^version=(\S+)", info.read_text(errors="replace"), re.M)
    return match.group(1) if match else ""


def _empty(folder: Path) -> Path:
    path = folder / ".keep"
    path.touch()
    return path
