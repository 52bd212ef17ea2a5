"""SFTP as a file system of fsspec, over a connection that is as strict as a board's.

fsspec's own SFTPFileSystem accepts whatever host key it is shown (``AutoAddPolicy``) and waits for ever.
This one logs in like a line does: pinned or known host keys only, ssh_config, jump hosts, the agent,
passwords by reference.
"""

from __future__ import annotations

from typing import Any

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from toolkit.errors import Unreachable
from toolkit.remote.address import Address, Limits
from toolkit.remote.connector import Connector


class StrictSFTP(SFTPFileSystem):  # type: ignore[misc]
    """Files of the host that ``address`` names. Every wait for it ends after ``limits.silence`` seconds."""

    cachable = False  # an instance is a connection, and its owner closes it

    def __init__(self, address: Address, limits: Limits, **options: Any) -> None:
        self._address, self._limits = address, limits
        self._connector: Connector | None = None
        super().__init__(address.host, **options)

    def _connect(self) -> None:
        connector = Connector(self._address, self._limits)
        self._connector = connector
        try:
            transport = connector.log_in()
            # From here on the channel's own time-out watches: a store may be used for as long as a run takes.
            connector.guard.close()
            channel = transport.open_session(timeout=self._limits.channel)
            channel.settimeout(self._limits.silence)
            channel.invoke_subsystem("sftp")
            self.ftp = paramiko.SFTPClient(channel)
        except BaseException as error:
            self.close()
            if isinstance(error, (paramiko.SSHException, OSError, EOFError)):
                raise Unreachable(
                    f"{self._address}: no SFTP session: {error}",
                    cause="channel-refused",
                    host=self._address.name,
                    hint="does its sshd have `Subsystem sftp`?",
                ) from error
            raise

    def close(self) -> None:
        """End the connection."""
        if self._connector is not None:
            self._connector.close()
            self._connector = None
