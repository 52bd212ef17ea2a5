"""Every error that a user can meet, with the exit code of the command that ends with it.

::

    DeployError                1   a defect of ours, unless a subclass says otherwise
    ├── UsageError             2   the command line is wrong
    ├── ConfigError            2   a setting is wrong, or settings contradict each other
    ├── InputError             2   a file or folder given by the user is missing, damaged or of the wrong kind
    ├── GateError              6   a gate refused the release; everything was put back
    ├── PlanError              7   what is there is not what was planned
    ├── Interrupted          130   Ctrl-C
    └── RemoteError            5   a board or a build host
        ├── Unreachable        5   no session could be had: cause says why
        ├── BoardRefused       5   the board is not fit or not ours: cause says why
        ├── LineLost           5   the session broke or fell silent in the middle
        ├── CommandFailed      5   a command on the board failed, or took too long
        └── CloudError         5   OBS or ModelArts refused, failed or fell silent

A message is one line: what, where. ``hint`` is what to do about it. ``cause`` (remote errors) is a stable
short word for receipts and JSON, such as ``refused`` or ``disk-full``.
"""

from __future__ import annotations

from collections.abc import Sequence


class DeployError(Exception):
    """Base class: ``str(error)`` is one line, ``hint`` says what to do (may be empty)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(DeployError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(DeployError):
    """A setting is wrong. ``problems`` lists every one found, each beginning with its dotted key."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class InputError(DeployError):
    """A file or folder given by the user is missing, damaged or of the wrong kind."""

    exit_code = 2


class GateError(DeployError):
    """A gate refused the release."""

    exit_code = 6


class PlanError(DeployError):
    """What is there is not what was planned."""

    exit_code = 7


class Interrupted(DeployError):
    """The user pressed Ctrl-C."""

    exit_code = 130


class RemoteError(DeployError):
    """Something went wrong with one board or build host.

    ``cause`` is a stable short word; ``detail`` holds the last lines of output, at most 20, where there are any.
    """

    exit_code = 5

    def __init__(
        self, message: str, *, cause: str, host: str = "", hint: str = "", detail: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause
        self.host = host
        self.detail = detail


class Unreachable(RemoteError):
    """No session with the board could be had.

    Causes: refused, no-route, connect-timeout, name-unknown, no-banner, not-ssh, kex-failed, auth-timeout,
    auth-failed, key-unreadable, host-key-unknown, host-key-changed, channel-timeout, channel-refused.
    """


class BoardRefused(RemoteError):
    """The board answers but cannot take the release.

    Causes: no-python, python2-only, python-too-old, no-numpy, no-pillow, no-acl, disk-full, read-only,
    wrong-owner, locked, foreign-release, signature, agent-failed.
    """


class LineLost(RemoteError):
    """The session broke. Causes: reset, closed, silence, garbage, board-deadline."""


class CommandFailed(RemoteError):
    """A command on the board failed. Causes: exit-status, disk-full, command-timeout, killed."""

    def __init__(
        self,
        message: str,
        *,
        cause: str = "exit-status",
        host: str = "",
        hint: str = "",
        detail: str = "",
        argv: Sequence[str] = (),
        status: int | None = None,
    ) -> None:
        super().__init__(message, cause=cause, host=host, hint=hint, detail=detail)
        self.argv = tuple(argv)
        self.status = status


class CloudError(RemoteError):
    """OBS or ModelArts refused, failed or fell silent. ``request_id`` is what their support asks for.

    Causes: unreachable, timeout, tls, cut, unauthorised, forbidden, not-found, refused, changed, damaged, server,
    queue, job-failed, job-stopped, job-lost.
    """

    def __init__(
        self, message: str, *, cause: str, host: str = "", hint: str = "", detail: str = "", request_id: str = ""
    ) -> None:
        super().__init__(message, cause=cause, host=host, hint=hint, detail=detail)
        self.request_id = request_id
