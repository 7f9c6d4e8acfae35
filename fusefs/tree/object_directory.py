"""The directory of one BPF object: which files it has, by kind and type."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator

from fusefs.bpf.bpffs import Pinned
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.tree.controls import ErrorLogFile, Frozen
from fusefs.tree.entries import Entries
from fusefs.tree.files import FixedFile
from fusefs.tree.info import InfoFile, json_line, to_yaml
from fusefs.tree.map_view import MapView
from fusefs.tree.node import Attributes, Change, Directory, Node, refusal, searchable
from fusefs.tree.streams import Count, EntriesJsonl
from fusefs.tree.subject import Subject

# The daemon's own troubles, which pass; others tell of the object.
_PASSING = frozenset({errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})


class ObjectDirectory(Directory):
    """What a pin is shown as. Its files are made when somebody looks inside for the first time."""

    __slots__ = ("_files", "subject")

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject.identity)
        self.subject = subject
        self._files: dict[str, Node] | None = None

    def attributes(self) -> Attributes:
        status = self.subject.status()
        mode = searchable(stat.S_IMODE(status.st_mode))
        attributes = Attributes.of(status, stat.S_IFDIR | mode)
        attributes.nlink = 2
        return attributes

    def change(self, change: Change, caller: Caller) -> None:
        self.subject.change(change, caller)

    def files(self) -> dict[str, Node]:
        """Its files by name."""
        if self._files is None:
            try:
                with self.subject.open() as obj:
                    self._files = _files(self.subject, obj)
            except OSError as error:
                if error.errno in _PASSING:
                    raise
                reason = f"error: cannot be opened: {error.strerror}\n"
                return {"info": FixedFile(self.subject, "info", reason.encode())}
        return self._files

    def enter(self) -> None:
        self.subject.confirm()

    def lookup(self, name: str) -> Node:
        self.subject.status()
        node = self.files().get(name)
        if node is None:
            raise refusal(errno.ENOENT)
        return node

    def children(self) -> Iterator[tuple[str, Node]]:
        self.subject.status()
        yield from self.files().items()


def _files(subject: Subject, obj: Pinned) -> dict[str, Node]:
    view = MapView(obj) if isinstance(obj, Map) else None
    files: dict[str, Node] = {
        "info": InfoFile(subject, "info", view, to_yaml),
        "info.json": InfoFile(subject, "info.json", view, json_line),
        "error_log": ErrorLogFile(subject),
    }
    if view:
        files["frozen"] = Frozen(subject, view)
        if view.traits:
            files["entries"] = Entries(subject, view)
            files["entries.jsonl"] = EntriesJsonl(subject, view)
            files["count"] = Count(subject, view)
    return files
