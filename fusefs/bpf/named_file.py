"""Files that somebody has named, in a configuration or as one: they may be anything."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def opened(path: Path) -> BinaryIO:
    """A file, open to be read, without waiting for anybody. Raises OSError."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe, and no file")
    return file


def contents(path: Path, most: int) -> bytes:
    """The contents of a file, of at most so many bytes. Raises OSError."""
    with opened(path) as file:
        data = file.read(most + 1)
    if len(data or b"") > most:
        raise OSError(errno.EFBIG, f"it is longer than {most} bytes")
    return data or b""
