"""The rings between programs and processes: `records`, `records_pipe`, and `push` of a ring that
programs drain."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.mounts import is_read_only
from fusefs.bpf.object import Object
from fusefs.bpf.ring_buffer import Batch, RingBuffer, UserRingBuffer
from fusefs.text.records import Records, record_lines
from fusefs.tree.files import ObjectFile
from fusefs.tree.map_view import MapView
from fusefs.tree.node import Attributes, Handle, Opening, refusal
from fusefs.tree.queues import Push
from fusefs.tree.stream_files import StreamFile
from fusefs.tree.subject import Subject
from fusefs.tree.values import as_map

# A line may be as long as the text of the largest record; it is given in pieces of this size.
_PIECE = 1 << 17
# No read takes more records than make a text of so many bytes.
_TEXT = 1 << 17


def records_of(view: MapView) -> Records:
    """What the records of a ring are, with the formats that are set now."""
    codec = view.value
    assert isinstance(codec, Records)  # the codec of every ring, see `tree/built_in.py`
    return codec


class UnreadRecords(StreamFile):
    """`records`: a line for each record that lies unread in the ring. To look consumes nothing, but
    it takes a ring that is mapped, which the kernel lets nobody do who may not write it, too
    (bpf_map_mmap in kernel/bpf/syscall.c)."""

    __slots__ = ("_view",)

    def __init__(self, subject: Subject, view: MapView) -> None:
        super().__init__(subject, "records")
        self._view = view

    def permissions(self, status: os.stat_result) -> int:
        return super().permissions(status) & (status.st_mode & 0o222) << 1

    def stream(self, obj: Object) -> Iterator[bytes]:
        try:
            with RingBuffer(as_map(obj)) as ring:
                for records in ring.unread():
                    text = b"".join(record_lines(records_of(self._view), records))
                    for at in range(0, max(len(text), 1), _PIECE):
                        yield text[at : at + _PIECE]
        except OSError as error:
            raise self.refuse(obj, "read", error) from error


class RecordsPipe(ObjectFile):
    """`records_pipe`: the records one after the other, as they come. Who reads it consumes them,
    and waits for more when there are none. Only one can have it open at a time.

    It is not listed: those who read all that there is, as grep -r, are to change nothing.
    """

    __slots__ = ("view",)

    def __init__(self, subject: Subject, view: MapView) -> None:
        super().__init__(subject, "records_pipe")
        self.view = view

    @property
    def listed(self) -> bool:
        return False

    def permissions(self, status: os.stat_result) -> int:
        # To consume is to write to the map: it takes the right to read its pin and to write it.
        if self.view.frozen(self.subject):
            return 0
        return super().permissions(status) & (status.st_mode & 0o222) << 1

    def attributes(self) -> Attributes:
        status = self.subject.status()
        return Attributes.of(status, stat.S_IFREG | self.permissions(status))

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        context = self.subject.context
        if context.read_only or is_read_only(context.mountpoint):
            raise refusal(errno.EROFS)
        obj = self.subject.open()
        try:
            return Following(self, as_map(obj), waits=not flags & os.O_NONBLOCK)
        except OSError as error:
            refused = self.refuse(obj, "open", error)
            obj.close()
            raise refused from error


class Following(Handle):
    """An open `records_pipe`: the one that its map has in this mount.

    Positions in the file say nothing but this: who goes back within what was read last, as tools do
    that have read more than they need, is given that again; and who asks for what comes after what
    is yet to be given is at the end, and consumes nothing. So do clients of sftp-server that have
    asked for two pieces at once, and throw the second away when the first is short.
    """

    def __init__(self, file: RecordsPipe, bpf_map: Map, *, waits: bool) -> None:
        """Raises OSError: EBUSY when the ring is read already."""
        self._followed = file.subject.context.followed
        self._id: int = bpf_map.info.id
        if self._id in self._followed:
            raise refusal(errno.EBUSY, "another process reads it")
        self._file = file
        self._map = bpf_map
        self._waits = waits
        self._ring = RingBuffer(bpf_map, consuming=True)
        self._followed.add(self._id)
        self._text, self._start = b"", 0  # what was taken last, and where in the file it began
        self._given = 0  # how much of it was given
        self._swell = 1.0  # bytes of text that a byte of the ring made last

    @property
    def awaited(self) -> int | None:
        return None if self._map.fd < 0 else self._map.fd

    @property
    def ready(self) -> bool:
        return self._given < len(self._text) or self._front(1) is not None

    def read(self, offset: int, size: int) -> bytes | None:
        if offset > self._start + self._given:
            return b""
        if not self._start <= offset < self._start + len(self._text):
            if self._given < len(self._text):
                self._start = offset - self._given  # somebody has sought: there is no gap in it
            elif text := self._take(size):
                self._text, self._start, self._given = text, offset, 0
            elif self._waits:
                return None
            else:
                raise refusal(errno.EAGAIN)
        at = offset - self._start
        given = self._text[at : at + size]
        self._given = max(self._given, at + len(given))
        return given

    def _take(self, size: int) -> bytes:
        """Consume records whose text has `size` bytes at most, or else one; nothing when there is
        none that is written to its end."""
        size = min(size, _TEXT)
        while batch := self._front(int(1.2 * size / self._swell)):
            lines = record_lines(records_of(self._file.view), batch.records)
            count, length = 1, len(lines[0])
            while count < len(lines) and length + len(lines[count]) <= size:
                length += len(lines[count])
                count += 1
            if self._ring.consume(batch, batch.ends[count - 1]):
                self._swell = max(length / (batch.ends[count - 1] - batch.start), 0.1)
                return b"".join(lines[:count])
        return b""

    def _front(self, most: int) -> Batch | None:
        """The records that are next. Those that were discarded are gone over for good."""
        while (batch := self._ring.front(most)) and not batch.records:
            self._ring.consume(batch, batch.end)
        return batch

    def close(self) -> None:
        self._followed.discard(self._id)
        self._ring.close()
        self._map.close()


class RecordsPush(Push):
    """`push` of a ring that programs drain: a record on each line. Of the lines that come together
    all are added, or none. As with `records`, it takes a ring that is mapped."""

    __slots__ = ()

    def permissions(self, status: os.stat_result) -> int:
        return super().permissions(status) & (status.st_mode & 0o444) >> 1

    @property
    def longest(self) -> int:
        # Twice as many digits as the ring has bytes; names of fields and white space take more. The
        # longest record of all has no more than half of the limit.
        return max(1 << 20, min(8 * self.view.max_entries, 1 << 26))

    def push_all(self, bpf_map: Map, values: Sequence[bytes]) -> int:
        with UserRingBuffer(bpf_map) as ring:
            ring.push(values)
        return len(values)
