"""Who watches directories with inotify(7).

Source: proc_pid_fdinfo(5), and fs/notify/fdinfo.c for what it says of a watch.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fusefs.bpf.holders import GONE, opened, processes

_INOTIFY = "anon_inode:inotify"
_WATCH = re.compile(rb"^inotify wd:[0-9a-f]+ ino:([0-9a-f]+) sdev:([0-9a-f]+) ", re.MULTILINE)


def watched(device: int) -> set[int]:
    """The numbers of the inodes on a device (st_dev, of one without a major number) that some
    process watches, as far as this process may know. It may hang, see `find_holders`."""
    wanted = os.minor(device)
    return {
        int(inode, 16)
        for watches in _instances()
        for inode, on in _WATCH.findall(watches)
        if int(on, 16) == wanted
    }


def _instances() -> Iterator[bytes]:
    """What all inotify instances watch, as fdinfo has it."""
    for pid in processes():
        with contextlib.suppress(*GONE):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(*GONE):
                    if opened(pid, fd) == _INOTIFY:
                        yield Path(f"/proc/{pid}/fdinfo/{fd}").read_bytes()
