"""Lines to boards and build hosts, and the near side of the agent. The only room that knows Fabric and paramiko."""

from __future__ import annotations

import getpass
import os

# In containers people often are a number without a name. paramiko, Fabric and we ask for the name, and all of us
# would fail there.
try:
    getpass.getuser()
except (KeyError, ImportError, OSError):  # which one depends on Python's version
    os.environ["LOGNAME"] = f"uid-{os.getuid()}"
