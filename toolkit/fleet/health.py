"""What a board's npu-smi says about its chip."""

from __future__ import annotations

import re

from toolkit.fleet.job import BoardJob
from toolkit.remote.agent import BoardAgent

# Labels differ between drivers: "Temperature (C)", "NPU Temperature (C)"; cards list several chips.
_TEMPERATURE = re.compile(
    r"^[\t\w ]*\bTemperature\s*\(C\)\s*:\s*(-?\d+(?:\.\d+)?)\s*$", re.IGNORECASE | re.MULTILINE
)


def temperature(agent: BoardAgent, job: BoardJob) -> float | None:
    """Temperature (°C) of the chip that the program ran on; None where npu-smi is missing or does not say.

    :raises CommandFailed: npu-smi hangs or was killed.
    """
    argv = ["sh", "-c", 'command -v npu-smi >/dev/null || exit 127; exec npu-smi "$@"', "npu-smi"]
    device = str(job.program.get("device", 0))
    report = agent.run(
        [*argv, "info", "-t", "temp", "-i", "0", "-c", device],
        release=job.release.id,
        env_file="{release}/env.sh",
        cwd="{release}",
        need=(),
        limit=min(60, job.limits.command),
    )
    return parse_temperature(report.stdout_tail) if report.status == 0 else None


def parse_temperature(text: str) -> float | None:
    """The highest temperature (°C) in what ``npu-smi info -t temp`` printed; None where there is none."""
    found = [float(value) for value in _TEMPERATURE.findall(text)]
    return max(found) if found else None
