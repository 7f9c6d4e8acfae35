"""What is mounted where, as this process sees it.

Source: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount: what is mounted, as a path in its file system, where, and the type of that."""

    root: str
    mountpoint: str
    kind: str


def mounts() -> Iterator[Mounted]:
    """All mounts, each after those that it is on top of."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        _id, _parent, _device, root, mountpoint, *_ = fields.split()
        yield Mounted(_plain(root), _plain(mountpoint), rest.split()[0].decode())


def _plain(path: bytes) -> str:
    """A path without the escapes that it has there, as `\\040` for a space."""
    return os.fsdecode(path.decode("unicode_escape").encode("latin-1"))
