"""Acting as another user."""

from __future__ import annotations

from support.mounting import Mount
from support.shell import Result, run

NOBODY = 65534
# What goes before a command.
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
DENIED = "Permission denied\n"


def nobody(mount: Mount, command: str, groups: str = "--clear-groups") -> Result:
    """Run a bash command as another user, in the root of the mount."""
    user = AS_NOBODY[:-1]
    return run([*user, groups, "bash", "-c", command], cwd=mount.path)
