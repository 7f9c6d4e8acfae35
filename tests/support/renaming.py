"""renameat2(2) by paths, which Python does not have."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from fusefs.bpf.bpffs import RenameFlags

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100


def rename(old: Path, new: Path, flags: RenameFlags) -> None:
    """Rename `old` to `new`. Raises OSError."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), int(flags)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(old), None, str(new))
