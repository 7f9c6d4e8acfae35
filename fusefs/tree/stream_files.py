"""Files of an object's directory that are made while they are read, at any length."""

from __future__ import annotations

import errno
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator

from fusefs.bpf.credentials import Caller
from fusefs.bpf.object import Object
from fusefs.tree.files import ObjectFile
from fusefs.tree.node import Attributes, Handle, Opening, refusal
from fusefs.tree.subject import Subject

# Others have a turn after so many seconds in which a stream was made.
_TURN = 0.003
# More often while it is opened, since that is one request, of many turns.
_SHORT_TURN = 0.001
# A stream of fewer bytes is made when it is opened.
_SHORT = 1 << 20


class StreamFile(ObjectFile):
    """A file that is made while it is read.

    To look at it is not to make it, so its size is 0. But many programs that copy files ask for the
    size of what they have opened, and copy so much: g_file_copy of GLib, as desktops' file managers
    use it, rsync, tar, Python's shutil. So a short one is made when it is opened to be read, and
    has its size as long as it is open.
    """

    __slots__ = ("_short",)

    def __init__(self, subject: Subject, name: str) -> None:
        super().__init__(subject, name)
        self._short: dict[Streaming, int] = {}  # those that are open, and their sizes

    @abstractmethod
    def stream(self, obj: Object) -> Iterator[bytes]:
        """The text, in pieces of bounded size; an empty one where others may have a turn."""

    def attributes(self) -> Attributes:
        attributes = self.basics(self.subject.status())
        attributes.size = next(reversed(self._short.values()), 0)
        return attributes

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        return Streaming(self, self.subject.open())

    def opened(self, handle: Streaming, size: int) -> None:
        """What one who opened it will read is so long."""
        self._short[handle] = size

    def closed(self, handle: Streaming) -> None:
        """One who opened it has closed it."""
        self._short.pop(handle, None)


class Pieces(Handle):
    """An open stream, in pieces; an empty one where others may have a turn. Going back further than
    to the last read means to read it again from its start, as in /proc.

    A read is filled, as that of a file is: some programs take less for its end. Those that share
    an open file come one after the other, lest each throw away what another waits for.
    """

    def __init__(self, make: Callable[[], Iterator[bytes]]) -> None:
        """`make` begins anew."""
        self._make = make
        self._current: tuple[int, int] | None = None  # the read that is being filled
        self._restart()

    @property
    def held(self) -> int:
        return len(self._text)

    def _restart(self) -> None:
        self._pieces = self._make()
        self._whole = False  # whether all that there is was made, and is kept
        self._text, self._start = b"", 0  # what was made and may be read, and where it begins
        self._untouched = True
        self._error: OSError | None = None  # what the stream ended with

    def read(self, offset: int, size: int) -> bytes | None:
        if self._current not in (None, (offset, size)):
            return None
        if offset < self._start or (offset == 0 and not self._untouched):
            self._restart()
        self._current = None
        if not self._gather(offset, offset + size, time.monotonic() + _TURN):
            self._current = offset, size
            return None
        self._untouched = False
        at = offset - self._start
        text = self._text[at : at + size]
        if self._error and not text:
            raise self._error
        return text

    def close(self) -> None:
        if isinstance(self._pieces, Generator):
            self._pieces.close()

    def filler(self, offset: int, size: int) -> bytes:
        if self._current != (offset, size):
            return b""
        text = self._text[offset - self._start :]
        if text:  # else who reads goes on
            self._current = None
            self._untouched = False
        return text

    def leave(self, offset: int, size: int) -> None:
        if self._current == (offset, size):
            self._current = None

    def _gather(self, offset: int, end: int, until: float) -> bool:
        """Make the stream up to `end`, of which what is before `offset` is not needed; whether that
        is done, and not cut short for others to have a turn."""
        parts = [self._text]
        reached = self._start + len(self._text)
        whole = True
        while reached < end and whole and (piece := self._next()) is not None:
            if reached <= offset:
                parts, self._start = [], reached
            parts.append(piece)
            reached += len(piece)
            whole = bool(piece) and time.monotonic() < until
        self._text = b"".join(parts)
        if self._start < offset <= reached and not self._whole:
            self._text, self._start = self._text[offset - self._start :], offset
        return whole or reached >= end

    def _next(self) -> bytes | None:
        """The next piece; None when there is none."""
        try:
            return next(self._pieces, None)
        except OSError as error:  # after what was made before it
            # On EINTR programs read again, and it would be there again.
            is_left = error.errno == errno.EINTR
            self._error = refusal(errno.EIO, str(error)) if is_left else error
            return None


class Streaming(Pieces):
    """An open stream of an object, which stays as long as it is open."""

    def __init__(self, file: StreamFile, obj: Object) -> None:
        super().__init__(lambda: file.stream(obj))
        self._stream_file = file
        self._object = obj

    def begin(self) -> Iterator[None]:
        while not self._gather(0, _SHORT, time.monotonic() + _SHORT_TURN):
            yield
        if len(self._text) < _SHORT and not self._error:
            self._whole = True
            self._stream_file.opened(self, len(self._text))

    def close(self) -> None:
        self._stream_file.closed(self)
        super().close()
        self._object.close()
