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

from fusefs.bpf.object import Closing

# How long one drawing may take, in seconds: of the processor, and in all until the last is read
# that it has to say.
CPU_SECONDS = 20
SECONDS = 30
MEMORY = 1 << 30  # bytes of address space
# So many may be in the making at a time; more are refused.
MOST = 8

# The uid and gid that have no files, overflowuid in kernel/sys.c.
_NOBODY = 65534
_NICENESS = 10
# The limits, as prlimit(1) takes them. What it may write to files is for its complaints.
_LIMITS = (
    f"--cpu={CPU_SECONDS}",
    f"--as={MEMORY}",
    f"--fsize={1 << 20}",
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
    memory, so that no side ever waits for the other to read. Then `dot` starts.
    """

    _running = 0

    def __init__(self, text: Iterable[str]) -> None:
        """`text` is the graph in the DOT language. Raises OSError: EOPNOTSUPP when Graphviz is not
        installed, EBUSY when too many drawings are being made."""
        self._input = self._complaints = self._output = self._ended = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._is_open = False
        self._command = _command()
        if Drawing._running >= MOST:
            raise OSError(errno.EBUSY, f"{MOST} graphs are being drawn already")
        Drawing._running += 1
        self._is_open = True
        self._text = iter(text)
        self._deadline = time.monotonic() + SECONDS

    @property
    def awaited(self) -> int | None:
        """The descriptor that can be read when `read` may give more; None when it is to be called
        again at once."""
        if self._process is None:
            return None
        return self._output if self._output >= 0 else self._ended

    def read(self, size: int = 1 << 16) -> bytes | None:
        """Up to `size` bytes of SVG that come next; nothing at the end; None for "not yet".

        Raises OSError: EIO when it cannot be drawn, with the reason; ETIMEDOUT when it takes too
        long; and what the text raises.
        """
        if not self._is_open:
            raise OSError(errno.EBADF, "the drawing is closed")
        if self._process is None:
            self._take_down()
            return None
        if time.monotonic() > self._deadline:
            raise OSError(errno.ETIMEDOUT, f"dot has not drawn the graph within {SECONDS} s")
        if self._output >= 0:
            try:
                if piece := os.read(self._output, size):
                    return piece
            except BlockingIOError:
                return None
            self._expect_end(self._process)
        return self._end(self._process)

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
        self._complaints = os.memfd_create("complaints")
        self._output, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(theirs, True)
        nobody = _NOBODY if os.geteuid() == 0 else None
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=self._input,
                stdout=theirs,
                stderr=self._complaints,
                cwd="/",
                env=_ENVIRONMENT,
                user=nobody,
                group=nobody,
                extra_groups=None if nobody is None else [],
            )
        finally:
            os.close(theirs)

    # Its end.

    def _expect_end(self, process: subprocess.Popen[bytes]) -> None:
        """Its output is at an end; wait no longer for that, but for the end of the process."""
        ended = os.pidfd_open(process.pid)
        os.close(self._output)
        self._output, self._ended = -1, ended

    def _end(self, process: subprocess.Popen[bytes]) -> bytes | None:
        status = process.poll()
        if status is None:
            return None
        if status == -signal.SIGXCPU:
            raise OSError(errno.ETIMEDOUT, f"dot has not drawn the graph within {CPU_SECONDS} s")
        if status != 0:
            raise OSError(errno.EIO, f"dot could not draw the graph: {self._reason(status)}")
        return b""

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
        Drawing._running -= 1
        for fd in (self._input, self._complaints, self._output, self._ended):
            if fd >= 0:
                os.close(fd)
        self._input = self._complaints = self._output = self._ended = -1
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            # One that dies more slowly is seen to by the next Popen (_cleanup in subprocess.py).
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_DYING)
