"""The command, by a process that may not go through all objects: COMMANDS SOURCE MOUNTPOINT -f.

COMMANDS is a file that holds the names of bpf(2)'s commands that are refused, one a line.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import fusefs.cli
from fusefs.bpf import syscall

COMMANDS = Path(sys.argv[1])

_bpf = syscall.bpf


def bpf(command: syscall.Command, arguments: Any, *more: Any) -> int:
    """Instead of `syscall.bpf`."""
    if command.name in COMMANDS.read_text().split():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return _bpf(command, arguments, *more)


def main() -> None:
    """Run the command."""
    setattr(syscall, "bpf", bpf)  # noqa: B010 - as mypy wants it
    fusefs.cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
