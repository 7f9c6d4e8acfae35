"""Measuring: how long a process takes, what a server spends, what the kernel keeps.

Source: Documentation/scheduler/sched-stats.rst in the kernel (/proc/PID/schedstat), proc_pid_io(5),
proc_pid_status(5), slabinfo(5).
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# What takes longer is taken to hang, in seconds.
LONGEST = 300


class MeasureError(Exception):
    """Something could not be measured: why, in one line."""


def wall(*command: str | Path, stdout: str | Path = os.devnull) -> float:
    """The seconds from the start of a command to its end. Raises `MeasureError` when it fails.

    It is started with as little ado as can be, since some commands take but a millisecond.
    """
    arguments = [str(part) for part in command]
    with tempfile.TemporaryFile() as errors:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(stdout), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, errors.fileno(), 2),
        ]
        start = time.perf_counter()
        try:
            pid = os.posix_spawnp(arguments[0], arguments, os.environ, file_actions=actions)
        except OSError as error:  # of which it does not tell whether the command or a file is meant
            where = f"{' '.join(arguments)[:80]} > {stdout}"
            raise MeasureError(f"{where}: {error.strerror}") from error
        status = _wait(pid)
        seconds = time.perf_counter() - start
        if status:
            errors.seek(0)
            said = errors.read(1000).decode(errors="replace").strip()
            reason = said.splitlines()[-1] if said else f"wait status {status}"
            raise MeasureError(f"{' '.join(arguments)[:80]}: {reason}")
    return seconds


def _wait(pid: int) -> int:
    """The wait status of a child, which is killed when it takes too long, or we are interrupted."""
    with open(os.pidfd_open(pid), "rb", buffering=0) as descriptor:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        try:
            if not ended.poll(LONGEST * 1000):
                raise MeasureError(f"a command took longer than {LONGEST} s")
        except BaseException:
            os.kill(pid, signal.SIGKILL)  # not waited for: it may wait for a server for ever
            raise
        return os.waitpid(pid, 0)[1]


def median(measured: Callable[[], float], times: int) -> float:
    """The median of something that is measured so many times."""
    return statistics.median(measured() for _ in range(times))


def medians(measured: Sequence[Callable[[], float]], times: int) -> list[float]:
    """The medians of several things that are measured in turns, so that what else the machine does
    hits all of them."""
    rounds = [[each() for each in measured] for _ in range(times)]
    return [statistics.median(of_one) for of_one in zip(*rounds, strict=True)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]


class Spent(NamedTuple):
    """What a process has spent so far: CPU seconds in user and kernel mode, and write calls, of
    which a FUSE server makes one for each answer."""

    cpu: float
    writes: int


def spent(pid: int) -> Spent:
    """What the process has spent, all its threads together."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    nanoseconds = sum(int(thread.read_text().split()[0]) for thread in threads)
    return Spent(nanoseconds / 1e9, _number(f"/proc/{pid}/io", "syscw:"))


def resident(pid: int) -> float:
    """The resident memory of a process in MB."""
    return _number(f"/proc/{pid}/status", "VmRSS:") * 1024 / 1e6


def _number(path: str, label: str) -> int:
    """The number after a label in a file of /proc."""
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return next(int(line[1]) for line in lines if line[0] == label)


def pinned_names() -> float:
    """The kernel memory that the inodes of FUSE and all cached names take, in MB."""
    total = 0
    for line in Path("/proc/slabinfo").read_text().splitlines():
        name, active, _all, size, *_ = [*line.split(), "", "", ""]
        if name in ("fuse_inode", "dentry"):
            total += int(active) * int(size)
    return total / 1e6


def drop_names() -> None:
    """Let the kernel forget the names and inodes that nobody uses."""
    Path("/proc/sys/vm/drop_caches").write_text("2")


@contextlib.contextmanager
def on_one_core(*pids: int) -> Iterator[int]:
    """Keep processes, and the children that this one starts, on one core, which is steadier."""
    cores = {pid: os.sched_getaffinity(pid) for pid in (0, *pids)}
    core = max(cores[0])
    try:
        for pid in cores:
            os.sched_setaffinity(pid, {core})
        yield core
    finally:
        for pid, before in cores.items():
            os.sched_setaffinity(pid, before)


@contextlib.contextmanager
def repeated(*command: str | Path) -> Iterator[None]:
    """A command that runs again and again meanwhile, its output thrown away."""
    loop = 'while "$@" > /dev/null; do :; done'
    arguments = ["sh", "-c", loop, "sh", *(str(part) for part in command)]
    pid = os.posix_spawnp("sh", arguments, os.environ, setpgroup=0)
    try:
        yield
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise MeasureError(f"{command[0]} failed in the background")
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has failed
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
