"""cgroups of one's own."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.bpf.cgroups import hierarchy
from support.waiting import eventually

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


class Limited:
    """A cgroup whose processes can be limited, by one controller: of cgroup v2 where that has it,
    else of v1."""

    def __init__(self, path: Path, limit: str) -> None:
        self.path = path
        self._limit = path / limit

    @property
    def command(self) -> list[str]:
        """What goes before a command that is to run in it."""
        return ["bash", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"', str(self.path)]

    def limit(self, most: int | None) -> None:
        """Let them have no more than this; as much as they want, if it is None."""
        nothing = "-1" if self._limit.name == "memory.limit_in_bytes" else "max"
        self._limit.write_text(nothing if most is None else str(most))


# By the controller: its limit in cgroup v1, and in v2.
_LIMITS = {
    "memory": ("memory.limit_in_bytes", "memory.max"),
    "pids": ("pids.max", "pids.max"),
}


@contextlib.contextmanager
def limited(controller: str) -> Iterator[Limited]:
    """A cgroup with this controller. Skips the test where there is none."""
    of_v1, of_v2 = _LIMITS[controller]
    top = hierarchy()
    own = Path(f"/sys/fs/cgroup/{controller}")
    if top and controller in (Path(top) / "cgroup.subtree_control").read_text().split():
        own, limit = Path(top), of_v2
    elif (own / "cgroup.procs").exists():
        limit = of_v1
    else:
        pytest.skip(f"there is no {controller} controller for cgroups made here")
    path = own / f"fusefs-{controller}-{os.getpid()}-{next(_numbers)}"
    path.mkdir()
    try:
        yield Limited(path, limit)
    finally:
        eventually("its processes have ended", lambda: not (path / "cgroup.procs").read_text())
        path.rmdir()
