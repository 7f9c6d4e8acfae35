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
    """A mount: what is mounted, as a path in its file system on a device (st_dev), where, and the
    type of that; and whether nothing can be changed there."""

    root: str
    mountpoint: str
    kind: str
    read_only: bool
    device: int


def mounts() -> Iterator[Mounted]:
    """All mounts, each after those that it is on top of."""
    # A space within a field is escaped, and so is a newline; a carriage return is not, and a source
    # may be empty.
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n")[:-1]:
        fields, _, rest = line.partition(b" - ")
        _id, _parent, device, root, mountpoint, options, *_ = fields.split(b" ")
        kind, _source, of_all = rest.split(b" ")
        read_only = b"ro" in (*options.split(b","), *of_all.split(b","))
        number = os.makedev(*map(int, device.split(b":")))
        yield Mounted(_plain(root), _plain(mountpoint), kind.decode(), read_only, number)


def is_read_only(mountpoint: str) -> bool:
    """Whether what is mounted at a place is mounted read-only; the topmost there."""
    return [each.read_only for each in mounts() if each.mountpoint == mountpoint][-1:] == [True]


def _plain(path: bytes) -> str:
    """A path without the escapes that it has there, as `\\040` for a space."""
    return os.fsdecode(path.decode("unicode_escape").encode("latin-1"))
