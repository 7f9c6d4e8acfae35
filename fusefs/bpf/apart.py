"""Descriptors in threads made for them: those whose opening or closing may hang, which none waits
long for; and those that are nobody's business but of who opened them."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from fusefs.bpf import libc
from fusefs.bpf.task import Task

T = TypeVar("T")

# How long it may take to open one, and how long its closing is waited for, in seconds.
_OPENING, _CLOSING = 0.25, 0.05
# So many may hang at a time; more are refused at once, so that to ask for them holds up nobody.
_MOST = 16

_free = threading.BoundedSemaphore(_MOST)


@contextlib.contextmanager
def held(reach: Callable[[], int]) -> Iterator[int]:
    """The descriptor that `reach` opens, for the block; it is closed after it.

    `reach` is called in a thread made for it. Raises what it raises; TimeoutError when that takes
    too long, and the descriptor that it may yet come to is then closed at once; and another OSError
    when too many of them hang.
    """
    if not _free.acquire(blocking=False):
        raise OSError(errno.EBUSY, "too many calls like this one hang in the kernel")
    errand = _Errand(reach)
    try:
        errand.start()
    except RuntimeError as error:
        _free.release()
        raise OSError(errno.EAGAIN, str(error)) from error
    try:
        yield errand.result()
    finally:
        errand.end()


def with_own_descriptors(work: Callable[[], T]) -> T:
    """What `work` gives, which is called in a thread with a table of descriptors of its own, a copy
    of what this process has: what it opens is closed after it, and what it closes stays open here.

    It takes as long as `work` does. Raises what that raises, and OSError: EAGAIN when there cannot
    be another thread.
    """

    def apart() -> T:
        libc.unshare_descriptors()
        return work()

    task = Task(apart)
    task.join()
    task.leave()
    return task.result()


class _Errand(threading.Thread):
    """Opens a descriptor, and closes it when it is told to, or was."""

    def __init__(self, reach: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self._reach = reach
        self._answer = queue.SimpleQueue[int | OSError]()
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            fd = self._reach()
            try:
                self._answer.put(fd)
                self._ended.wait()
            finally:
                os.close(fd)
        except OSError as error:
            self._answer.put(error)
        finally:
            _free.release()

    def result(self) -> int:
        """The descriptor. Raises OSError."""
        try:
            answer = self._answer.get(timeout=_OPENING)
        except queue.Empty:
            raise TimeoutError(errno.ETIMEDOUT, "it hangs in the kernel") from None
        if isinstance(answer, OSError):
            raise answer
        return answer

    def end(self) -> None:
        """Have the descriptor closed."""
        self._ended.set()
        self.join(_CLOSING)
