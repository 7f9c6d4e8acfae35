"""Acting on a filesystem as somebody else, so that the kernel judges by their rights, not ours."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass

from fusefs.bpf import libc
from fusefs.bpf.libc import set_filesystem_ids, set_groups

# CAP_SYS_ADMIN; CAP_DAC_OVERRIDE; that and CAP_DAC_READ_SEARCH. See linux/capability.h.
_SYS_ADMIN, _CHANGES_ALL, _READS_ALL = 1 << 21, 1 << 1, 1 << 1 | 1 << 2
_ALL = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the credentials of a request. `capabilities` are those that uid 0 has; of other
    users they do not count."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    capabilities: int = _ALL

    @property
    def is_root(self) -> bool:
        """Whether bpf(2) gives them all objects of the kernel by their ids, and all that there is
        to know of those: that takes CAP_SYS_ADMIN, which root may lack, as in most containers."""
        return self.uid == 0 and bool(self.capabilities & _SYS_ADMIN)

    @property
    def reads_all(self) -> bool:
        """Whether they may read files whatever the mode says."""
        return self.uid == 0 and bool(self.capabilities & _READS_ALL)

    @property
    def changes_all(self) -> bool:
        """Whether they may change files and directories whatever the mode says."""
        return self.uid == 0 and bool(self.capabilities & _CHANGES_ALL)

    @property
    def is_lesser(self) -> bool:
        """Whether they are somebody else than this process runs as, or lack what it may do."""
        return self.uid != os.geteuid() or bool(_withheld(self))


def _withheld(caller: Caller) -> int:
    """The capabilities of this process that a caller of uid 0 does not have."""
    if caller.uid != 0 or caller.capabilities == _ALL:
        return 0
    return libc.capabilities() & ~caller.capabilities


def capabilities_of(thread: int) -> int:
    """The capabilities that a thread has in the user namespace of this process. Of one that cannot
    be seen from here, as from another pid namespace, they are none."""
    if not sees_processes():
        return 0
    try:
        if os.stat(f"/proc/{thread}/ns/user").st_ino != _own_namespace():
            return 0
    except PermissionError:
        # Who lacks CAP_SYS_PTRACE may not look at a thread of its own namespace that has more
        # rights. Into a namespace that was made below it, by its own user, it may (cap_capable and
        # cap_ptrace_access_check in security/commoncap.c).
        pass
    except OSError:  # it is 0 where it cannot be seen
        return 0
    try:
        return libc.capabilities(thread)
    except ProcessLookupError:
        return 0


def overrides_modes(thread: int, *, changes: bool) -> bool:
    """Whether a thread, of any user, may read files whatever the mode says, or change them."""
    return bool(capabilities_of(thread) & (_CHANGES_ALL if changes else _READS_ALL))


@functools.cache
def _own_namespace() -> int:
    return os.stat("/proc/self/ns/user").st_ino


@functools.cache
def sees_processes() -> bool:
    """Whether /proc shows the processes that this one knows by their ids. Where it was mounted from
    another pid namespace, an id there is somebody else."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Make the system calls of this block with `caller`'s rights, and new files theirs.

    The file system ids of this thread alone change (setfsuid(2), setfsgid(2)); while the uid is
    not 0, the kernel withholds the capabilities that override file permissions
    (capabilities(7)), and else this thread does without those that the caller lacks. The block must
    not wait for anything. Raises PermissionError when this process may not change its groups or its
    file system ids (CAP_SETGID, CAP_SETUID).
    """
    withheld = _withheld(caller)
    if caller.uid == os.geteuid() and caller.gid == os.getegid() and not withheld:
        yield
        return
    groups = os.getgroups()
    if frozenset(groups) != caller.groups:
        set_groups(caller.groups)
    try:
        set_filesystem_ids(caller.uid, caller.gid)
        with _without(withheld):
            yield
    finally:
        set_filesystem_ids(os.geteuid(), os.getegid())
        if frozenset(groups) != caller.groups:
            set_groups(groups)


@contextlib.contextmanager
def _without(withheld: int) -> Iterator[None]:
    """Do without some capabilities."""
    if not withheld:
        yield
        return
    own = libc.capabilities()
    libc.use_capabilities(own & ~withheld)
    try:
        yield
    finally:
        libc.use_capabilities(own)


def become(caller: Caller) -> None:
    """Give this thread, for good, `caller`'s rights over files and other processes: their file
    system ids, by which the kernel judges what is opened in /proc (PTRACE_MODE_FSCREDS, ptrace(2)),
    and no capability that they lack. Groups stay: nothing there is a group's.

    The thread cannot be signalled by that user, since its real ids stay.
    """
    if caller.is_lesser:
        set_filesystem_ids(caller.uid, caller.gid)
        libc.keep_capabilities(caller.capabilities if caller.uid == 0 else 0)
