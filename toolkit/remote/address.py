"""Where a board is and how to log in (:class:`Address`), and how long each wait may take
(:class:`Limits`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    """One board or build host. Nothing in it is a secret: ``password`` is a reference to one.

    ``key_file``: path of a private key; "" = the ssh-agent, ``ssh_config``'s IdentityFile, the default keys.
    ``password``: ``env:NAME``, ``file:PATH`` or ``keyring:SERVICE,USER``; resolved only where it is used.
    ``host_key``: the pinned key, ``ssh-ed25519 AAAA…`` or ``SHA256:…``; "" = look into ``known_hosts``,
    strictly.
    ``ssh_config``: file in the format of ssh_config(5); "" = none.
    ``jump``: ``[user@]host[:port]``, several separated by commas, as ProxyJump; "none" = not even
    ssh_config's.
    ``client``: ``fabric``, ``openssh`` (the system's ``ssh``), or ``local`` (this machine, no SSH).
    ``interpreters``: candidates for running the agent on the board, in order.
    ``words``: what selects it on the command line, as a shell takes it; "" = nobody knows.
    """

    name: str
    host: str
    port: int = 22
    user: str = ""
    key_file: str = ""
    password: str = ""
    host_key: str = ""
    known_hosts: tuple[str, ...] = ("~/.ssh/known_hosts",)
    ssh_config: str = "~/.ssh/config"
    jump: str = ""
    client: str = "fabric"
    interpreters: tuple[str, ...] = ("python3",)
    words: str = ""

    def command(self, verb: str, *more: str) -> str:
        """What to type for ``verb`` with this board, for hints."""
        return " ".join(["deploy", verb, self.words or f"hosts={self.name}", *more])

    def __str__(self) -> str:
        """``name (user@host:port)``, for messages."""
        login = f"{self.user}@{self.host}" if self.user else self.host
        where = login if self.port == 22 else f"{login}:{self.port}"
        return where if self.name in ("", self.host, where) else f"{self.name} ({where})"


@dataclass(frozen=True)
class Limits:
    """The longest that each wait may take, in seconds.

    ``connect`` TCP, names included; ``banner`` the server's greeting and the key exchange; ``auth`` logging
    in;
    ``channel`` opening the channel; ``silence`` waiting for bytes, or pushing them, while none move either
    way;
    ``command`` one command on the board; ``board`` the whole life of a line.
    """

    connect: float = 10
    banner: float = 10
    auth: float = 15
    channel: float = 10
    silence: float = 30
    command: float = 600
    board: float = 1800
