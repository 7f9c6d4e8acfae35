"""Reading an iterator: running its program, in a thread of its own.

One read(2) of an iterator goes through a million things before it gives up with EAGAIN, and its
program may take its time for each (bpf_seq_read in kernel/bpf/bpf_iter.c); it cannot be
interrupted. So a thread reads, into a pipe: a reader who is slow holds it up, as any pipe does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading

from fusefs.bpf.link import Link
from fusefs.bpf.object import Closing

_PIECE = 1 << 16  # bytes that are read at once; a pipe holds as many
# So many may be read at a time, be it that the programs take long; more are refused.
_MOST = 64

_free = threading.BoundedSemaphore(_MOST)


class IteratorRun(Closing):
    """One run of an iterator, from its start to its end. The program runs once somebody reads, and
    somewhat ahead of them: as much as a pipe holds.

    An error is given to the reader, and then who reads again goes on with the same run, as the
    kernel has it: EAGAIN means no more than that.
    """

    def __init__(self, link: Link) -> None:
        """Raises OSError: EINVAL when the link is no iterator."""
        self._iterator = link.iterate()
        self._reading: _Reading | None = None

    @property
    def awaited(self) -> int | None:
        """The descriptor that can be read when `read` would give something, once it gave None."""
        return self._reading.fd if self._reading else None

    @property
    def ready(self) -> bool:
        """Whether `read` would give something now, be it the end or an error."""
        return bool(self._reading and select.select([self._reading.fd], [], [], 0)[0])

    def read(self, size: int) -> bytes | None:
        """Up to `size` bytes, nothing at the end, None for "not yet". Raises the OSError that the
        kernel answered with, and EBUSY when too many iterators are being read."""
        if self._reading is None:
            self._reading = _Reading(self._iterator)
        try:
            data = os.read(self._reading.fd, size)
        except BlockingIOError:
            return None
        if not data and self._reading.error:
            error = self._reading.error
            self._end_reading()
            raise error
        return data

    def _end_reading(self) -> None:
        if self._reading:
            self._reading.end()
        self._reading = None

    def close(self) -> None:
        """Give it up. A program that runs at this moment runs to its end."""
        self._end_reading()
        fd, self._iterator = self._iterator, -1
        if fd >= 0:
            os.close(fd)


class _Reading(threading.Thread):
    """Reads an iterator until its end or an error, which is in `error` when the pipe has ended."""

    def __init__(self, iterator: int) -> None:
        super().__init__(name="iterator", daemon=True)
        self.error: OSError | None = None
        if not _free.acquire(blocking=False):
            raise OSError(errno.EBUSY, "too many iterators are being read")
        with contextlib.ExitStack() as undo:
            undo.callback(_free.release)
            self.fd, self._into = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, self.fd)
            undo.callback(os.close, self._into)
            os.set_blocking(self.fd, False)
            self._iterator = os.dup(iterator)  # this thread's own, whoever closes the other
            undo.callback(os.close, self._iterator)
            try:
                self.start()
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, str(error)) from error
            undo.pop_all()

    def run(self) -> None:
        try:
            while data := os.read(self._iterator, _PIECE):
                _write(self._into, data)
        except BrokenPipeError:
            pass  # nobody wants more
        except OSError as error:
            self.error = error
        finally:
            os.close(self._iterator)
            os.close(self._into)
            _free.release()

    def end(self) -> None:
        """Read no more of it."""
        os.close(self.fd)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
