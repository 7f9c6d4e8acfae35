"""The command, with system calls that fail or are its last: PLAN SOURCE MOUNTPOINT -f.

PLAN is a file that this process and the test share, see `Plan`. The calls are those that
`fusefs.bpf.libc` makes: bpf(2), and what else Python has no function for.
"""

from __future__ import annotations

import enum
import mmap
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fusefs.cli
from fusefs.bpf import libc

_MADE, _WHICH, _ERROR = range(3)


class End(enum.IntEnum):
    """In place of an errno: the process is killed."""

    BEFORE = -1  # instead of the call
    AFTER = -2  # when it was made


class Plan:
    """Which call fails, counted from when that was planned, and with which errno."""

    def __init__(self, path: Path) -> None:
        """The file is made if it is not there."""
        with path.open("ab") as file:
            file.truncate(mmap.PAGESIZE)
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    def set(self, which: int, error: int) -> None:
        """From now on the call of this number fails, from 1; none, if it is 0."""
        self._numbers[_WHICH] = 0
        self._numbers[_ERROR] = error
        self._numbers[_MADE] = 0
        self._numbers[_WHICH] = which

    @property
    def made(self) -> int:
        """How many calls were made since."""
        return self._numbers[_MADE]

    def __call__(self) -> int:
        """A call is made; with which errno it fails, 0 for none."""
        self._numbers[_MADE] += 1
        return self._numbers[_ERROR] if self._numbers[_MADE] == self._numbers[_WHICH] else 0


def main() -> None:
    """Run the command."""
    plan = Plan(Path(sys.argv[1]))
    call, attempt = libc.call, libc.attempt

    def ended(how: int) -> None:
        if how in (End.BEFORE, End.AFTER):
            os.kill(os.getpid(), signal.SIGKILL)

    def failing_call(function: str, *arguments: Any) -> int:
        error = plan()
        if error == End.AFTER:
            call(function, *arguments)
        ended(error)
        if error:
            raise OSError(error, os.strerror(error))
        return call(function, *arguments)

    def failing_attempt(function: str, *arguments: Any) -> Callable[[], int]:
        made = attempt(function, *arguments)

        def attempted() -> int:
            error = plan()
            if error == End.AFTER:
                made()
            ended(error)
            return error or made()

        return attempted

    setattr(libc, "call", failing_call)  # noqa: B010 - as mypy wants it
    setattr(libc, "attempt", failing_attempt)  # noqa: B010
    fusefs.cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
