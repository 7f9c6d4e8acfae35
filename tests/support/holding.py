"""A process that has BPF objects open, and nothing else to do."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from fusefs.bpf.object import Object
from support.shell import ENVIRONMENT

# It takes a name of any bytes, says so, and closes its descriptor when it is told to.
_SCRIPT = 'printf %s "$1" > /proc/self/comm; echo; read; exec {fd}>&-; echo; read'


class Holding:
    """Such a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def wait(self) -> None:
        """Until it has done what it was told."""
        assert self._process.stdout
        assert self._process.stdout.readline() == b"\n"

    def close(self) -> None:
        """Have it close the object, and wait until it has."""
        assert self._process.stdin
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self.wait()


@contextlib.contextmanager
def holding(obj: Object, comm: bytes = b"holder") -> Iterator[Holding]:
    """A process called `comm`, which may be any bytes, that has `obj` open."""
    with subprocess.Popen(
        [b"bash", b"-c", _SCRIPT.format(fd=obj.fd).encode(), b"-", comm],
        env=ENVIRONMENT,
        pass_fds=[obj.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            made = Holding(process)
            made.wait()
            yield made
        finally:
            process.kill()
