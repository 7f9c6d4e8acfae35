"""cgroups of one's own."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from fusefs.bpf.cgroups import hierarchy

_numbers = itertools.count(1)


@contextlib.contextmanager
def cgroup(name: str = "test") -> Iterator[Path]:
    """The directory of a cgroup with nobody in it."""
    top = hierarchy()
    assert top, "no cgroup2 file system is mounted"
    path = Path(top) / f"fusefs-{name}-{os.getpid()}-{next(_numbers)}"
    path.mkdir()
    try:
        yield path
    finally:
        path.rmdir()
