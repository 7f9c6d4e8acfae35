"""Pins of objects in all bpffs mounts that this process sees."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Sequence

from fusefs.bpf.bpffs import Directory, Listed, is_bpffs
from fusefs.bpf.mounts import Mounted, mounts

# An object: its kind, as `Object.kind` has it, and its id.
Key = tuple[str, int]

# What a name in bpffs may answer that is no pin any more, or none that this process may open.
_NO_PIN = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP,
     errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG, errno.EROFS}
)  # fmt: skip
# File systems behind which is another machine or program. Who looks for a path through one may wait
# for it, and for ever if it is this very process.
_SERVED = ("fuse", "nfs", "cifs", "smb", "9p", "ceph", "afs", "autofs", "virtiofs")


class Pins:
    """Finds pins. What a pin holds is asked once: it is the same as long as its inode is. `closed`
    is how many directories the last walk could not look into."""

    def __init__(self) -> None:
        self.closed = 0
        self._known: dict[tuple[int, int], Key | None] = {}

    def walk(self) -> Iterator[tuple[Key, str] | None]:
        """All pins: the object, and the absolute path of the pin; None for what is none. Raises
        OSError for what has to do with this process alone, as EMFILE."""
        seen: dict[tuple[int, int], Key | None] = {}
        self.closed = 0
        for mountpoint in reachable([*mounts()]):
            yield from self._below(mountpoint, seen)
        self._known = seen

    def _below(
        self, mountpoint: str, seen: dict[tuple[int, int], Key | None]
    ) -> Iterator[tuple[Key, str] | None]:
        # Each directory is opened when its turn comes: there may be thousands beside each other.
        waiting: list[tuple[str, Directory | None, str]] = [
            (mountpoint, None, mountpoint.rstrip("/"))
        ]
        while waiting:
            name, parent, path = waiting.pop()
            directory = self._opened(name, parent)
            if directory is None:
                continue
            for listed in self._listed(directory):
                yield None
                if listed.stat is None:  # the kernel tells no more of it, or it is a mount
                    continue
                where = f"{path}/{listed.name}"
                if stat.S_ISDIR(listed.stat.st_mode):
                    waiting.append((listed.name, directory, where))
                elif stat.S_ISREG(listed.stat.st_mode):
                    inode = (listed.stat.st_dev, listed.stat.st_ino)
                    if inode not in seen:
                        known = inode in self._known
                        seen[inode] = self._known[inode] if known else _held(directory, listed)
                    if key := seen[inode]:
                        yield key, where

    def _opened(self, path: str, parent: Directory | None) -> Directory | None:
        """A directory of bpffs; None when there is none, or it cannot be reached."""
        try:
            directory = Directory(path, parent)
        except OSError as error:
            if error.errno not in _NO_PIN:
                raise
            self.closed += error.errno == errno.EACCES
            return None
        return directory if parent or is_bpffs(directory.fd) else None

    def _listed(self, directory: Directory) -> Iterator[Listed]:
        """What is in a directory; nothing when it was removed, or is closed to this process."""
        try:
            yield from directory.each()
        except FileNotFoundError:
            return
        except PermissionError:
            self.closed += 1


def reachable(all_mounts: Sequence[Mounted]) -> Iterator[str]:
    """Where bpffs is mounted, but for what is below something that is served. Without a root of
    which that is so, nothing would work at all."""
    for number, mounted in enumerate(all_mounts):
        if mounted.kind != "bpf":
            continue
        path = f"{mounted.mountpoint.rstrip('/')}/"
        others = (other for other in all_mounts if other.mountpoint != "/")
        above = (o for o in others if path.startswith(f"{o.mountpoint.rstrip('/')}/"))
        hidden = any(other.mountpoint == mounted.mountpoint for other in all_mounts[number + 1 :])
        if not hidden and not any(other.kind.startswith(_SERVED) for other in above):
            yield mounted.mountpoint


def _held(directory: Directory, listed: Listed) -> Key | None:
    """The object of a pin; None where it does not open."""
    assert listed.stat
    try:
        with directory.open_pin(listed.name, listed.stat.st_ino) as obj:
            return obj.kind, obj.info.id
    except OSError as error:
        if error.errno in _NO_PIN:
            return None
        raise
