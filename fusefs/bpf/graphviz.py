"""Graphviz, which draws graphs: its command `dot` as a child process.

It is not needed to run this program, and may be installed or removed at any time. What it is given
has names in it that come from anywhere, so it runs with as few rights as can be: as nobody, with
limits, and without an environment that leads it to files. See dot(1).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from fusefs.bpf.object import Closing

# How long one drawing may take, in seconds: of the processor, and in all until the last is read
# that it has to say.
CPU_SECONDS = 20
SECONDS = 30
MEMORY = 1 << 30  # bytes of address space
# So many may be in the making at a time; more are refused.
MOST = 8

# A uid and gid that nobody has, since processes of the same one may look into each other
# (ptrace(2)); and one that some have, for where that is not mapped (user_namespaces(7)).
_ALONE, _NOBODY = 0x7FFFFFF1, 65534
_NICENESS = 10
# The limits, as prlimit(1) takes them. What it may write to files is the picture.
_LIMITS = (
    f"--cpu={CPU_SECONDS}",
    f"--as={MEMORY}",
    f"--fsize={64 << 20}",
    "--core=0",
    "--nofile=64",
)
# It runs under these, which belong to util-linux and coreutils. To set the limits of another user's
# process from here would take CAP_SYS_RESOURCE, which root does not have in every container (see
# check_prlimit_permission in kernel/sys.c); and nothing of ours can run safely between fork and
# exec.
_UNDER = (
    # It ends with this process, however that ends (PR_SET_PDEATHSIG, prctl(2)).
    ("setpriv", "--no-new-privs", "--pdeathsig=KILL"),
    ("nice", f"--adjustment={_NICENESS}"),
    ("prlimit", *_LIMITS),
)
_DRAW = ("dot", "-Tsvg")
# With SERVER_NAME set it believes to serve the web, and opens no file that a graph names
# (safefile in lib/common/utils.c).
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "SERVER_NAME": "localhost"}
# How long the text is taken down before others are let in, in seconds; and how long the end of a
# child that was killed may take.
_SLICE = 0.005
_DYING = 0.2


def _command() -> list[str]:
    """The command that draws, with the paths of all that it takes now. Raises OSError: EOPNOTSUPP
    when something is not installed."""
    command: list[str] = []
    for name, *arguments in (*_UNDER, _DRAW):
        found = shutil.which(name)
        if found is None:
            raise OSError(errno.EOPNOTSUPP, f"{name} is not installed: graphs need Graphviz")
        command += [found, *arguments]
    return command


def _nobody() -> int:
    """A uid and gid for it."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    ranges = (map(int, line.split()) for line in lines)
    mapped = any(first <= _ALONE < first + count for first, _outside, count in ranges)
    return _ALONE if mapped else _NOBODY


def available() -> bool:
    """Whether graphs can be drawn now."""
    try:
        _command()
    except OSError:
        return False
    return True


class Drawing(Closing):
    """A graph that is being drawn as SVG. Nothing here waits.

    First the text is taken down, piece by piece as `read` is called. It goes through a file in
    memory, and so does the picture: no side ever waits for the other. Then `dot` starts.
    """

    _running: ClassVar[dict[int, subprocess.Popen[bytes]]] = {}  # by descriptors of the processes

    def __init__(self, text: Iterable[str]) -> None:
        """`text` is the graph in the DOT language. Raises OSError: EOPNOTSUPP when Graphviz is not
        installed, EBUSY when there is no room."""
        self._input = self._complaints = self._output = self._ended = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._is_open = False
        self._command = _command()
        self._text = iter(text)
        self._deadline = time.monotonic() + SECONDS
        self._is_open = True

    @classmethod
    def full(cls) -> int | None:
        """A descriptor, the caller's own, that can be read when one of the drawings that are being
        made has ended; None when there is room for another at once."""
        for ended, process in [*cls._running.items()]:
            if process.poll() is not None:
                del cls._running[ended]
        return os.dup(next(iter(cls._running))) if len(cls._running) >= MOST else None

    @property
    def awaited(self) -> int | None:
        """The descriptor that can be read when `read` may give more; None when it is to be called
        again at once."""
        return self._ended if self._process else None

    def read(self, size: int = 1 << 16) -> bytes | None:
        """Up to `size` bytes of SVG that come next; nothing at the end; None for "not yet".

        Raises OSError: EIO when it cannot be drawn, with the reason; ETIMEDOUT when it takes too
        long; EBUSY when there was no room to begin; and what the text raises.
        """
        if not self._is_open:
            raise OSError(errno.EBADF, "the drawing is closed")
        if self._process is None:
            self._take_down()
            return None
        status = self._process.poll()
        if status is None:
            if time.monotonic() > self._deadline:
                raise OSError(errno.ETIMEDOUT, f"dot has not drawn the graph within {SECONDS} s")
            return None
        self._check(status)
        return os.read(self._output, size)

    # From the text to the child.

    def _take_down(self) -> None:
        """Take down some of the text. After the last, start `dot`."""
        if self._input < 0:
            self._input = os.memfd_create("graph.dot")
        until = time.monotonic() + _SLICE
        pieces: list[str] = []
        for piece in self._text:
            pieces.append(piece)
            if time.monotonic() > until:
                break
        else:
            self._write(pieces)
            os.lseek(self._input, 0, os.SEEK_SET)
            self._start()
            return
        self._write(pieces)

    def _write(self, pieces: list[str]) -> None:
        left = memoryview("".join(pieces).encode())
        while left:
            left = left[os.write(self._input, left) :]

    def _start(self) -> None:
        if (ended := self.full()) is not None:
            os.close(ended)
            raise OSError(errno.EBUSY, f"{MOST} graphs are being drawn already")
        self._complaints = os.memfd_create("complaints")
        self._output = os.memfd_create("graph.svg")
        nobody = _nobody() if os.geteuid() == 0 else None
        self._process = subprocess.Popen(
            self._command,
            stdin=self._input,
            stdout=self._output,
            stderr=self._complaints,
            cwd="/",
            env=_ENVIRONMENT,
            user=nobody,
            group=nobody,
            extra_groups=None if nobody is None else [],
        )
        self._ended = os.pidfd_open(self._process.pid)
        self._running[self._ended] = self._process

    # Its end.

    def _check(self, status: int) -> None:
        """Raise OSError unless it ended well; the first time, go to where the picture begins."""
        if status == -signal.SIGXCPU:
            raise OSError(errno.ETIMEDOUT, f"dot has not drawn the graph within {CPU_SECONDS} s")
        if status != 0:
            raise OSError(errno.EIO, f"dot could not draw the graph: {self._reason(status)}")
        if self._input >= 0:
            os.close(self._input)
            self._input = -1
            os.lseek(self._output, 0, os.SEEK_SET)

    def _reason(self, status: int) -> str:
        """The last of its complaints, or what it died of."""
        last = max(os.fstat(self._complaints).st_size - 500, 0)
        lines = os.pread(self._complaints, 500, last).decode("utf-8", "replace").split("\n")
        said = " ".join(line.strip() for line in lines if line.strip())
        if status < 0:
            return f"{signal.strsignal(-status)} {said}".strip()
        return said or f"it ended with status {status}"

    def close(self) -> None:
        """End the child, if it still runs. May come twice."""
        if not self._is_open:
            return
        self._is_open = False
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            # One that dies more slowly is seen to by the next Popen (_cleanup in subprocess.py).
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_DYING)
        self._running.pop(self._ended, None)
        for fd in (self._input, self._complaints, self._output, self._ended):
            if fd >= 0:
                os.close(fd)
        self._input = self._complaints = self._output = self._ended = -1
