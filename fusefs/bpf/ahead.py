"""Reading ahead: the kernel looks up the next batch while what has come is made into text.

A thread makes the system calls, which take as long as the text does. It begins with the first large
map that is read, and serves one reader at a time: others would wait for it, and all who are served
here with them. They read for themselves, as they would without.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")

# So many are asked for at a time: the thread goes on with the second by itself, while nobody lets
# it run who would ask for it.
_AHEAD = 2
# Whether the thread has a reader.
_used = threading.Lock()


@functools.cache
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "read-ahead")


def available() -> bool:
    """Whether there is the thread, or can be one now (see setrlimit(2), RLIMIT_NPROC, and pids.max
    of cgroups)."""
    try:
        _reader().submit(int)
    except RuntimeError:
        return False
    return True


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items, some made while those before them are used. They are not None. Only where
    that is `available`.

    Once this is closed, nothing is being made any more.
    """
    if not _used.acquire(blocking=False):
        yield from items
        return
    coming: deque[Future[T | None]] = deque()
    try:
        coming.extend(_reader().submit(next, items, None) for _ in range(_AHEAD))
        while (item := coming.popleft().result()) is not None:
            coming.append(_reader().submit(next, items, None))
            yield item
    finally:
        wait([future for future in coming if not future.cancel()])
        _used.release()
