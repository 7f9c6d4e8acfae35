"""`output` of an iterator: reading it runs the program, as reading its pin in bpffs does."""

from __future__ import annotations

from fusefs.bpf.credentials import Caller
from fusefs.bpf.link import Link
from fusefs.bpf.link_iterator import IteratorRun
from fusefs.bpf.object import Object
from fusefs.tree.files import ObjectFile
from fusefs.tree.node import Attributes, Handle, Opening
from fusefs.tree.subject import Subject

_PIECE = 1 << 16  # bytes that are taken at once; more than was asked for is for the next read


class Output(ObjectFile):
    """What the program writes, as it does, at any length. Each open file is a run of its own.

    It is not listed: those who read all that there is, as grep -r, are to run nothing.
    """

    __slots__ = ()

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, "output")

    @property
    def listed(self) -> bool:
        return False

    # In bpffs whoever may read the pin may run it. What runs here does so in this process, and sees
    # what that sees: the processes and sockets of its namespaces, for one.

    @property
    def roots(self) -> bool:
        return True

    def attributes(self) -> Attributes:
        return self.basics(self.subject.status())

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        obj = self.subject.open()
        try:
            return Running(self, as_link(obj))
        except OSError as error:
            refused = self.refuse(obj, "open", error)
            obj.close()
            raise refused from error


class Running(Handle):
    """An open `output`. Going back means to run the program again, from the start, but within what
    was read last, as tools do that have read more than they need."""

    def __init__(self, file: Output, link: Link) -> None:
        """Raises OSError."""
        self._file = file
        self._link = link
        self._run = IteratorRun(link)
        self._piece, self._start = b"", 0  # what was read last, and where in the file it began

    @property
    def awaited(self) -> int | None:
        return self._run.awaited

    @property
    def ready(self) -> bool:
        return self._run.ready

    def read(self, offset: int, size: int) -> bytes | None:
        try:
            if offset < self._start or (offset == 0 and self._piece):
                self._run.close()
                self._run = IteratorRun(self._link)
                self._piece, self._start = b"", 0
            end = self._start + len(self._piece)
            if offset >= end:
                piece = self._run.read(_PIECE)
                if not piece:
                    return piece
                self._piece, self._start = piece, end
                if offset >= end + len(piece):
                    return None
        except OSError as error:
            raise self._file.refuse(self._link, "read", error) from error
        return self._piece[offset - self._start :][:size]

    def close(self) -> None:
        self._run.close()
        self._link.close()


def as_link(obj: Object) -> Link:
    """The link that an object in a link's directory is."""
    assert isinstance(obj, Link)
    return obj
