"""cgroups: the directories of the cgroup2 file system, for maps whose keys or values they are.

Source: Documentation/admin-guide/cgroup-v2.rst, proc_pid_mountinfo(5).
"""

from __future__ import annotations

import errno
import os
import posixpath
from pathlib import Path

from fusefs.bpf.libc import open_beneath


def hierarchy() -> str | None:
    """Where the whole of the cgroup2 hierarchy is mounted, or None where it is not."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        _id, _parent, _device, root, mountpoint, *_ = fields.split()
        if rest.split()[0] == b"cgroup2" and root == b"/":
            return os.fsdecode(mountpoint.decode("unicode_escape").encode("latin-1"))
    return None


def open_cgroup(path: str) -> int:
    """A descriptor of the cgroup whose directory `path` is, a path that begins at the root of the
    file system; it is reached with the rights that this thread has, and no further than that
    file system.

    Raises OSError: ENOTDIR when it is no cgroup's directory.
    """
    root = hierarchy()
    path = posixpath.normpath(path)
    if root is None or not (path == root or path.startswith(f"{root.rstrip('/')}/")):
        raise OSError(
            errno.ENOTDIR, "not in the cgroup2 file system" + (f", {root}" if root else "")
        )
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        below = path[len(root) :].strip("/") or "."
        return open_beneath(top, below, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(top)
