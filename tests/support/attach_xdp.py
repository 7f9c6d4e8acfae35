"""Attach a pinned XDP program to `veth0`, and pin the link: PROGRAM LINK."""

from __future__ import annotations

import ctypes
import enum
import sys
from pathlib import Path
from typing import cast

from fusefs.bpf import syscall
from fusefs.bpf.bpffs import Directory
from fusefs.bpf.link import Link
from fusefs.bpf.program import Program


class _Command(enum.IntEnum):
    """A call that the file system does not need."""

    LINK_CREATE = 28


class _LinkCreateArguments(ctypes.Structure):
    """BPF_LINK_CREATE, for XDP."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_ifindex", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


_XDP = 37  # enum bpf_attach_type
_SKB_MODE = 2  # XDP_FLAGS_SKB_MODE, linux/if_link.h


def attach(program: Program, interface: int) -> Link:
    """Attach an XDP program to an interface of this network namespace."""
    arguments = _LinkCreateArguments(program.fd, interface, _XDP, _SKB_MODE)
    return Link(syscall.bpf(cast(syscall.Command, _Command.LINK_CREATE), arguments))


def main(program: Path, link: Path) -> None:
    """Attach and pin."""
    directory = Directory(str(program.parent))
    opened = directory.open_pin(program.name, directory.stat(program.name).st_ino)
    assert isinstance(opened, Program)
    interface = int(Path("/sys/class/net/veth0/ifindex").read_text())
    with attach(opened, interface) as made:
        Directory(str(link.parent)).pin(link.name, made)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
