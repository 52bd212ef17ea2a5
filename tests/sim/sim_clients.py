"""Reach simulated boards with OpenSSH's client, and look for what they left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

from toolkit.sim import Address


def ssh_command(address: Address, *options: str, client: str = "ssh") -> list[str]:
    """Return the beginning of an OpenSSH command line that reaches ``address`` and checks its host key."""
    known = Path(address.home).parent / "known_hosts"
    known.write_text(f"[{address.host}]:{address.port} {address.host_key}\n")
    checks = ["-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}"]
    checks += ["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
    port = "-p" if client == "ssh" else "-P"
    return [client, *checks, "-i", address.key_file, port, str(address.port), *options]


def ssh(
    address: Address, command: str, *options: str, data: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[bytes]:
    """Run ``command`` on a board through OpenSSH's client, ``data`` as its input."""
    argv = [*ssh_command(address, *options), f"{address.user}@{address.host}", command]
    return subprocess.run(argv, input=data, capture_output=True, check=False, timeout=timeout)


def processes_with(marker: str) -> list[str]:
    """Return the command lines of living processes that contain ``marker`` (zombies have none)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if marker in line:
            found.append(line.strip())
    return found
