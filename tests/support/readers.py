"""Those who read `records_pipe`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support.shell import ENVIRONMENT
from support.waiting import eventually

# No client may be in a read for longer, once a signal came.
SOON = 3.0  # on a machine that has other things to do


def hexed(*records: bytes) -> str:
    """Their lines, without a format."""
    return "".join(f'"{record.hex()}"\n' for record in records)


class Reader:
    """A command that reads `records_pipe`, and has it open by now."""

    def __init__(self, directory: Path, command: str = "exec cat records_pipe") -> None:
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=directory,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._file = directory / "records_pipe"
        eventually("it has opened it", self._opened)

    def _opened(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        fds = Path(f"/proc/{self.process.pid}/fd")
        with contextlib.suppress(FileNotFoundError):  # bash has closed one of its own
            return any(os.readlink(fd) == str(self._file) for fd in fds.iterdir())
        return False

    def lines(self, count: int) -> str:
        """So many lines of what it printed."""
        assert self.process.stdout
        return b"".join(self.process.stdout.readline() for _ in range(count)).decode()

    def has_more(self, seconds: float) -> bool:
        """Whether it prints something within that time."""
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def end(self, number: signal.Signals) -> int:
        """End it by a signal; its exit code."""
        start = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(10)
        assert time.monotonic() - start < SOON
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def reading(directory: Path, command: str = "exec cat records_pipe") -> Iterator[Reader]:
    """Somebody who reads `records_pipe`."""
    reader = Reader(directory, command)
    try:
        yield reader
    finally:
        reader.close()
