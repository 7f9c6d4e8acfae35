"""`entries.jsonl` and `count`: a map as a whole, at constant memory however large it is."""

from __future__ import annotations

from collections.abc import Iterator

from fusefs.bpf.bpffs import Pinned
from fusefs.bpf.map import Map
from fusefs.text.value import to_lines
from fusefs.tree.files import StreamFile
from fusefs.tree.map_view import MapView
from fusefs.tree.subject import Subject

# Lines that are made in one go; others wait so long.
_LINES = 256


class EntriesJsonl(StreamFile):
    """All entries as JSON Lines: `{"key": …, "value": …}`."""

    __slots__ = ("_view",)

    def __init__(self, subject: Subject, view: MapView) -> None:
        super().__init__(subject, "entries.jsonl")
        self._view = view

    def stream(self, obj: Pinned) -> Iterator[bytes]:
        assert isinstance(obj, Map)  # only maps are given this file
        view = self._view
        for batch in obj.batches():
            for keys, values in batch.pieces(view.key_size, view.stride, view.piece(_LINES)):
                yield "".join(to_lines(view.key, view.value, keys, values)).encode()


class Count(StreamFile):
    """The number of entries, counted when it is read."""

    __slots__ = ("_view",)

    def __init__(self, subject: Subject, view: MapView) -> None:
        super().__init__(subject, "count")
        self._view = view

    def stream(self, obj: Pinned) -> Iterator[bytes]:
        assert isinstance(obj, Map)  # only maps are given this file
        count = 0
        if self._view.traits and self._view.traits.fixed:
            count = self._view.max_entries
        else:
            for batch in obj.batches():
                count += batch.count
                yield b""
        yield b"%d\n" % count
