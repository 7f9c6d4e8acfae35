"""Reading ahead: the kernel looks up the next batch while what has come is made into text.

A thread makes the system calls, which take as long as the text does. It is one for all, and begins
with the first large map that is read.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")

# So many are asked for at a time: the thread goes on with the second by itself, while nobody lets
# it run who would ask for it.
_AHEAD = 2


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
    coming = deque(_reader().submit(next, items, None) for _ in range(_AHEAD))
    try:
        while (item := coming.popleft().result()) is not None:
            coming.append(_reader().submit(next, items, None))
            yield item
    finally:
        # Those that are cancelled are not waited for: what others asked for may be before them.
        wait([future for future in coming if not future.cancel()])
