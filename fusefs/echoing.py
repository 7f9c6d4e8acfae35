"""The process that echoes changes in the mount, for `echoes.py`: `python -m fusefs.echoing`.

It is a process of its own: one that waits for an answer of itself could not be killed, as the
kernel would wait for that answer first.

It reads a line of JSON for each batch of changes, and answers it with an empty one when it is done.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from fusefs.bpf import libc
from fusefs.bpf.mounts import mounts
from fusefs.bpf.watchers import watched

_HERE = -100  # AT_FDCWD, linux/fcntl.h; a path that begins with / needs none


class Kind(enum.StrEnum):
    """What a name is now."""

    GONE = "gone"
    LINK = "link"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class Change:
    """A name that is something else now, in the directory whose inode has this number, which is at
    a path in the mount."""

    number: int
    path: str
    name: str
    kind: Kind


def as_line(device: int, mountpoint: str, changes: Iterable[Change]) -> bytes:
    """A batch of changes on a device, which is mounted there, as the process reads it."""
    told = [device, mountpoint, [asdict(change) for change in changes]]
    return json.dumps(told).encode() + b"\n"


def main() -> None:
    """Read batches and echo them until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the end of the input ends it
    for line in sys.stdin:
        device, top, changes = json.loads(line)
        numbers = watched(device)
        covered = {mount.mountpoint for mount in mounts()}
        for change in (Change(**fields) for fields in changes):
            if change.number in numbers and not _is_covered(top, change, covered):
                with contextlib.suppress(OSError):  # others were faster; what then is, is told
                    _repeat(device, top, change)
        try:
            print(flush=True)
        except BrokenPipeError:  # whom it is told has ended
            os._exit(0)


def _is_covered(top: str, change: Change, covered: set[str]) -> bool:
    """Whether something is mounted on a name or below it: to echo it would take that away."""
    path = os.path.join(top, change.path, change.name)
    return any(place == path or place.startswith(f"{path}/") for place in covered)


def _repeat(device: int, top: str, change: Change) -> None:
    # A symbolic link that was put in the way may lead to a file system that never answers, and so
    # may a directory on which its owner has mounted one.
    flags, resolve = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, libc.RESOLVE_NO_SYMLINKS
    mounted = libc.openat2(_HERE, top, flags, resolve)
    try:
        path = change.path or "."
        directory = libc.openat2(mounted, path, flags, resolve | libc.RESOLVE_NO_XDEV)
    finally:
        os.close(mounted)
    try:
        status = os.fstat(directory)
        if (status.st_dev, status.st_ino) != (device, change.number):
            return  # the mount is not where it was, or something else is mounted on it
        match change.kind:
            case Kind.GONE:
                os.rmdir(change.name, dir_fd=directory)
            case Kind.LINK:
                os.symlink("is there", change.name, dir_fd=directory)
            case Kind.DIRECTORY:
                os.mkdir(change.name, dir_fd=directory)
    finally:
        os.close(directory)


if __name__ == "__main__":
    main()
