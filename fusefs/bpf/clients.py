"""Whether those who wait for our answer do so still, or a signal has come, which they cannot take
before.

A read of ours that waits for something is to go on for as long as its client wants it, since many
programs take EINTR for an error; and to end when a signal comes for that client. FUSE has a message
for that, which pyfuse3 does not pass on. But how the kernel waits tells it as well: it sleeps
interruptibly until there is a signal (or the freezer, or a stop of all threads, which no mask of
pending signals shows), and uninterruptibly from then on. Source: request_wait_answer in
fs/fuse/dev.c.

A read says nothing of who reads. So that is sought among those who have the open file from who
opened it: all threads of that process, and those that descend from it. Nothing here waits for
anything: what is read of /proc takes no lock that an execve(2) holds, which may wait for us.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import os
import re
from collections.abc import Iterator

# Where a task is that waits for an answer of a FUSE server, however compilers may name it; and one
# that waits for another's read of the same open file to end, which no signal interrupts
# (fdget_pos in fs/file.c).
_PLACES = re.compile(rb"request_wait_answer|fuse|fdget_pos")
# So many tasks are looked at.
_MOST = 64
# Servers of files that do one thing after another: while one waits, nothing comes through to all
# who use it, be it the signal of who has asked for this. (sshd is its own sftp-server.)
_SERVERS = frozenset({b"sftp-server", b"sshd", b"sshd-session", b"smbd", b"proftpd", b"vsftpd"})


class Wait(enum.Enum):
    """What a client is found to do."""

    PATIENT = enum.auto()  # it waits for us
    INTERRUPTED = enum.auto()  # it did, and a signal has come
    UNKNOWN = enum.auto()  # it cannot be told what it does, or for whom


# By the state of its only task that waits, see proc_pid_stat(5).
_WAITS = {b"S": Wait.PATIENT, b"D": Wait.INTERRUPTED}


def wait_of(pid: int) -> Wait:
    """What the client of a request does, that waits for an answer in a file which the task `pid`
    has opened."""
    states: list[bytes] = []
    if not pid or not _knows_pids():
        return Wait.UNKNOWN
    for count, task in enumerate(_family(pid)):
        if count == _MOST:
            return Wait.UNKNOWN
        with contextlib.suppress(OSError):  # it has ended
            if _PLACES.match(_read(f"{task}/wchan").lstrip(b"_")):
                # The name of the program is in parentheses, and may have any bytes.
                start, _, end = _read(f"{task}/stat").rpartition(b")")
                if start.partition(b"(")[2] in _SERVERS:
                    return Wait.UNKNOWN
                states.append(end.split()[0])
    return _WAITS.get(states[0], Wait.UNKNOWN) if len(states) == 1 else Wait.UNKNOWN


@functools.cache
def _knows_pids() -> bool:
    """Whether /proc has the same ids as we are told: it may be another pid namespace's."""
    try:
        return os.readlink("/proc/self") == f"{os.getpid()}"
    except OSError:
        return False


def _family(pid: int) -> Iterator[str]:
    """The directories in /proc of all threads of the process that a task belongs to, and of those
    that descend from it."""
    waiting = [f"{pid}"]
    while waiting:
        tasks = f"/proc/{waiting.pop()}/task"
        try:
            names = os.listdir(tasks)
        except OSError:  # it has ended
            continue
        for name in names:
            yield f"{tasks}/{name}"
            with contextlib.suppress(OSError):  # or the kernel does not tell: CONFIG_PROC_CHILDREN
                waiting += _read(f"{tasks}/{name}/children").decode().split()


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
