"""What is open in a mount."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fusefs.bpf.credentials import Caller
from fusefs.holdings import Holdings
from fusefs.inodes import Inode
from fusefs.listing import Listing
from fusefs.tree.node import Handle


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file: how it is read and written, of what, and the task that opened it."""

    handle: Handle
    inode: Inode
    client: int


class Opened:
    """Open files and directories, by the file handles that the kernel is given for them. What they
    take is counted in `holdings`."""

    def __init__(self) -> None:
        self.holdings = Holdings()
        self._files: dict[int, OpenFile] = {}
        self._listings: dict[int, Listing] = {}
        self._of_directory: defaultdict[int, list[Listing]] = defaultdict(list)
        self._next = 1

    def add_file(self, file: OpenFile, caller: Caller) -> int:
        """A file is open; its file handle."""
        fh = self._new(caller)
        self._files[fh] = file
        self.holdings.note(fh, file.handle)
        return fh

    def add_listing(self, listing: Listing, caller: Caller) -> int:
        """The same for a directory."""
        fh = self._new(caller)
        self._listings[fh] = listing
        self._of_directory[listing.number].append(listing)
        return fh

    def _new(self, caller: Caller) -> int:
        fh = self._next
        self._next += 1
        self.holdings.begin(fh, caller)
        return fh

    def file(self, fh: int) -> OpenFile:
        """The file of a file handle."""
        return self._files[fh]

    def listing(self, fh: int) -> Listing:
        """The directory of a file handle."""
        return self._listings[fh]

    def listings_of(self, directory: int) -> Sequence[Listing]:
        """Those who read the directory of an inode number."""
        return self._of_directory.get(directory, ())

    def end_file(self, fh: int) -> OpenFile:
        """A file is closed; which it was."""
        self.holdings.end(fh)
        return self._files.pop(fh)

    def end_listing(self, fh: int) -> None:
        """A directory is closed."""
        self.holdings.end(fh)
        listing = self._listings.pop(fh)
        others = self._of_directory[listing.number]
        others.remove(listing)
        if not others:
            del self._of_directory[listing.number]
