"""Which processes have BPF objects open.

Source: proc_pid_fd(5), proc_pid_fdinfo(5), and what kernel/bpf/syscall.c writes to the latter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusefs.bpf import libc
from fusefs.bpf.pins import Key

# What /proc/PID/fd says of a descriptor of each kind, and the line of fdinfo that has its id.
_KINDS = {
    "anon_inode:bpf-map": ("map", re.compile(rb"^map_id:\s*(\d+)$", re.MULTILINE)),
    "anon_inode:bpf-prog": ("program", re.compile(rb"^prog_id:\s*(\d+)$", re.MULTILINE)),
    "anon_inode:bpf_link": ("link", re.compile(rb"^link_id:\s*(\d+)$", re.MULTILINE)),
    "anon_inode:bpf-link": ("link", re.compile(rb"^link_id:\s*(\d+)$", re.MULTILINE)),
    "anon_inode:btf": ("btf", re.compile(rb"^btf_id:\s*(\d+)$", re.MULTILINE)),
}


_SYS_PTRACE = 1 << 19  # CAP_SYS_PTRACE, linux/capability.h
# A process has ended, a descriptor was closed, or it is not for this process to know. Anything else
# is this process' own trouble, as EMFILE.
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """A process: its id, and the name of its program."""

    pid: int
    comm: str


class Holders(dict[Key, list[Holder]]):
    """Who has each object open. `closed` is how many processes may not be looked into for want of
    CAP_SYS_PTRACE. What is refused to who has it, a security module keeps for itself."""

    closed = 0


def find_holders() -> Holders:
    """Look through all processes but this one. It may hang: /proc/PID of a process that is in
    execve(2) and closes a file that we serve waits for us."""
    found = Holders()
    lacking = not libc.capabilities() & _SYS_PTRACE
    for pid in processes():
        try:
            held = {*_held_by(pid)}
            # The kernel ends it with a newline; the name may have others, and any bytes.
            comm = Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n")
        except PermissionError:
            found.closed += lacking
            continue
        except (FileNotFoundError, ProcessLookupError):
            continue
        holder = Holder(pid, os.fsdecode(comm))
        for key in held:
            found.setdefault(key, []).append(holder)
    return found


def processes() -> Iterator[int]:
    """The ids of all processes but this one."""
    own = os.getpid()
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return (pid for pid in sorted(pids) if pid != own)


def opened(pid: int, fd: str) -> str:
    """What a descriptor of a process is, as /proc/PID/fd says; empty where it is a path that is too
    long to be told, which is nothing that we look for. Anybody can have such a one."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return ""


def _held_by(pid: int) -> Iterator[Key]:
    """The objects that a process has open. Raises OSError when it has ended, or may not be looked
    into: that shows only with what is in the directory."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            kind = _KINDS.get(opened(pid, fd))
            if kind is None:
                continue
            name, pattern = kind
            if match := pattern.search(Path(f"/proc/{pid}/fdinfo/{fd}").read_bytes()):
                yield name, int(match[1])
