"""A process that works on many entries, one after the other:

    python -m benchmark.client WORK DIRECTORY NAMES COUNT

WORK is `read` (open, read, close), `stat` or `overwrite` (open with O_TRUNC, write, close). It does
so with COUNT of the names 0 to NAMES - 1 in DIRECTORY, each once and in no order, so that nothing
is answered from a cache, and prints the nanoseconds that each took, as a JSON array.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping


def read(name: str) -> None:
    fd = os.open(name, os.O_RDONLY)
    os.read(fd, 4096)
    os.close(fd)


def overwrite(name: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"5\n")
    os.close(fd)


WORK: Mapping[str, Callable[[str], object]] = {
    "read": read,
    "stat": os.stat,
    "overwrite": overwrite,
}


def main(work: str, directory: str, names: int, count: int) -> None:
    os.chdir(directory)
    do, now = WORK[work], time.perf_counter_ns
    chosen = [str(number) for number in random.sample(range(names), count)]
    gc.disable()
    times = []
    for name in chosen:
        start = now()
        do(name)
        times.append(now() - start)
    print(json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
