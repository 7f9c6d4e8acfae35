"""cgroups: the directories of the cgroup2 file system, for maps whose keys or values they are.

Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from fusefs.bpf.libc import open_beneath
from fusefs.bpf.mounts import mounts

_FOR_ALL = stat.S_IROTH | stat.S_IXOTH


def hierarchy() -> str | None:
    """Where the whole of the cgroup2 hierarchy is mounted, or None where it is not."""
    whole = (each for each in mounts() if each.kind == "cgroup2" and each.root == "/")
    first = next(whole, None)
    return first.mountpoint if first else None


def open_cgroup(path: str) -> int:
    """A descriptor of the cgroup whose directory `path` is, a path that begins at the root of the
    file system; it is reached with the rights that this thread has, and no further than that
    file system.

    Raises OSError: ENOTDIR when it is no cgroup's directory.
    """
    root = hierarchy()
    if root is not None and f"{path}/".startswith(f"{root.rstrip('/')}/"):
        try:
            return open_below(root, path[len(root) :])
        except OSError as error:
            if error.errno != errno.EXDEV:  # it leads out again
                raise
    where = f", {root}" if root else ""
    raise OSError(errno.ENOTDIR, f"not in the cgroup2 file system{where}")


def open_below(root: str, path: str, flags: int = os.O_PATH) -> int:
    """The same for a path below the `root` of the hierarchy; that is "/", or empty, for itself."""
    flags |= os.O_DIRECTORY | os.O_CLOEXEC
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(top, path.strip("/") or ".", flags)
    finally:
        os.close(top)


def paths(root: str) -> Iterator[str]:
    """The paths of all cgroups below the `root` of the hierarchy, "/" first: those that everybody
    can list. No descriptor is kept between two of them."""
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        yield path
        with contextlib.suppress(OSError):  # it was removed, or is not for everybody
            names = _children(root, path)
            waiting += (f"{path.rstrip('/')}/{name}" for name in sorted(names, reverse=True))


def _children(root: str, path: str) -> list[str]:
    """The names of the cgroups in one, as far as everybody can list and reach them."""
    directory = open_below(root, path, os.O_RDONLY)
    try:
        if os.fstat(directory).st_mode & _FOR_ALL != _FOR_ALL:
            return []
        with os.scandir(directory) as found:
            return [child.name for child in found if child.is_dir(follow_symlinks=False)]
    finally:
        os.close(directory)
