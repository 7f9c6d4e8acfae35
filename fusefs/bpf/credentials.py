"""Acting on a filesystem as somebody else, so that the kernel judges by their rights, not ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from fusefs.bpf.libc import drop_capabilities, set_filesystem_ids, set_groups


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the credentials of a request."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


@contextlib.contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Make the system calls of this block with `caller`'s rights, and new files theirs.

    The file system ids of this thread alone change (setfsuid(2), setfsgid(2)); while the uid is
    not 0, the kernel withholds the capabilities that override file permissions
    (capabilities(7)). The block must not wait for anything. Raises PermissionError when this
    process may not change its groups or its file system ids (CAP_SETGID, CAP_SETUID).
    """
    if caller.uid == os.geteuid() and caller.gid == os.getegid():
        yield
        return
    groups = os.getgroups()
    if frozenset(groups) != caller.groups:
        set_groups(caller.groups)
    try:
        set_filesystem_ids(caller.uid, caller.gid)
        yield
    finally:
        set_filesystem_ids(os.geteuid(), os.getegid())
        if frozenset(groups) != caller.groups:
            set_groups(groups)


def become(caller: Caller) -> None:
    """Give this thread, for good, `caller`'s rights over files and other processes: their file
    system ids, by which the kernel judges what is opened in /proc (PTRACE_MODE_FSCREDS, ptrace(2)),
    and no capability. Groups stay: nothing there is a group's.

    The thread cannot be signalled by that user, since its real ids stay.
    """
    if caller.uid != os.geteuid():
        set_filesystem_ids(caller.uid, caller.gid)
        drop_capabilities()
