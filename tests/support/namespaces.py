"""A shell in namespaces of its own: what it mounts is seen by nobody else, and what it starts ends
with it."""

from __future__ import annotations

from pathlib import Path

from support.mounting import COMMAND
from support.shell import LET_OTHERS_GO, Result, run

# Where /bin/sh finds the command when it is told no PATH; the real directory stays as it is.
INSTALLED = f"""
mount -t tmpfs tmpfs /usr/local/sbin
ln -s '{COMMAND[0]}' /usr/local/sbin/bpf-fusefs
"""


def apart(script: str, **names: Path | str) -> Result:
    """Run a bash script; what it is told by name are its variables. It goes on after a command that
    fails, and its code is the last one's."""
    settings = [f"{name}={value}" for name, value in names.items()]
    shell = ["unshare", "-mpf", "--mount-proc", "--kill-child", "env", *settings]
    return run([*shell, "bash", "-c", LET_OTHERS_GO + script], seconds=20)
