"""Life in the background: a child that works on when the command has returned to the shell."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from fusefs import service


def run_in_background(work: Callable[[Callable[[], None]], None]) -> None:
    """Run `work(ready)` in a child, and return in the parent when it has called `ready`.

    Until then the child has the terminal, for its errors; after that it has none. When the child
    ends without having called `ready`, so does the parent, with the same exit code.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        service.leave()

        def ready() -> None:
            _leave_terminal()
            os.write(writing, b"1")
            os.close(writing)

        work(ready)
        sys.exit(0)
    os.close(writing)
    answer = os.read(reading, 1)
    os.close(reading)
    if not answer:
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status) or 1)


def _leave_terminal() -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
