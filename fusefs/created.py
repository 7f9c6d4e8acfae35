"""Files that were created and are not there yet, since the first value that is written makes them.

Until then who asks for one by its name has an answer: sftp-server's clients, as sshfs, look at the
file that they have created before they write to it. It is not listed.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusefs.inodes import Inode
from fusefs.tree.node import Handle


@dataclass(frozen=True, slots=True)
class _File:
    place: tuple[int, bytes]  # the inode number of its directory, and its name there
    inode: Inode
    handle: Handle


class Created:
    """Those of a mount, as long as who created them has them open."""

    def __init__(self) -> None:
        self._by_handle: dict[int, _File] = {}
        self._by_place: dict[tuple[int, bytes], _File] = {}
        self._by_inode: dict[int, _File] = {}

    def add(self, fh: int, handle: Handle, directory: int, name: bytes, inode: Inode) -> None:
        """A file was created, and is open as `fh`."""
        file = _File((directory, name), inode, handle)
        self._by_handle[fh] = self._by_place[file.place] = self._by_inode[inode.number] = file

    def find(self, directory: int, name: bytes) -> Inode | None:
        """The file of this name that is yet to be made."""
        file = self._by_place.get((directory, name))
        return file.inode if file and file.handle.makes else None

    def __contains__(self, inode: Inode) -> bool:
        """Whether it is yet to be made."""
        file = self._by_inode.get(inode.number)
        return file is not None and file.handle.makes

    def end(self, fh: int) -> None:
        """The file is closed, or cannot be made."""
        file = self._by_handle.pop(fh, None)
        if file and self._by_place.get(file.place) is file:
            del self._by_place[file.place]
        if file and self._by_inode.get(file.inode.number) is file:
            del self._by_inode[file.inode.number]

    def end_all(self, inode: Inode) -> None:
        """What would make it is no more."""
        if file := self._by_inode.pop(inode.number, None):
            self._by_place.pop(file.place, None)
