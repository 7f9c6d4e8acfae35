"""Programs that are attached without a link, and all that is found of them."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from fusefs.bpf import syscall
from fusefs.bpf.direct import OF_SOCKETS, Direct, attached, linked
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map
from fusefs.bpf.program import Program


class _Command(enum.IntEnum):
    """Calls that the file system does not need."""

    PROG_ATTACH = 8
    PROG_DETACH = 9


class _AttachArguments(ctypes.Structure):
    """BPF_PROG_ATTACH and BPF_PROG_DETACH; the target may be the number of an interface."""

    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    )


MULTI = 1 << 1  # BPF_F_ALLOW_MULTI


@contextlib.contextmanager
def directly(program: Program, target: int, attach_type: int, flags: int = 0) -> Iterator[None]:
    """A program attached to a descriptor, or to the number of an interface."""
    arguments = _AttachArguments(target, program.fd, attach_type, flags)
    syscall.bpf(cast(syscall.Command, _Command.PROG_ATTACH), arguments)
    try:
        yield
    finally:
        arguments.attach_flags = 0
        syscall.bpf(cast(syscall.Command, _Command.PROG_DETACH), arguments)


@contextlib.contextmanager
def to_cgroup(program: Program, path: Path, attach_type: int, flags: int = 0) -> Iterator[None]:
    """A program attached to a cgroup."""
    cgroup = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with directly(program, cgroup, attach_type, flags):
            yield
    finally:
        os.close(cgroup)


def steps() -> Iterator[Direct | None]:
    """All that is attached directly, in its pieces, as who knows all objects would ask for it."""
    types: set[int] = set()
    sock_maps: list[int] = []
    links = []
    for program_id in Program.ids():
        with contextlib.suppress(FileNotFoundError), Program.from_id(program_id) as program:
            types.add(program.info.type)
    for map_id in Map.ids():
        with contextlib.suppress(FileNotFoundError), Map.from_id(map_id) as bpf_map:
            if bpf_map.info.type in OF_SOCKETS:
                sock_maps.append(map_id)
    for link_id in Link.ids():
        # EAGAIN is what the kernel says of a link that somebody is just making (bpf_link_by_id).
        gone = FileNotFoundError, BlockingIOError
        with contextlib.suppress(*gone), Link.from_id(link_id) as link:
            if told := linked(link):
                links.append(told)
    return attached(types, sock_maps, links)


def places(program: Program) -> list[tuple[str, str, str]]:
    """What a program is attached to directly: kind, name and manner of each."""
    number = program.info.id
    return sorted((d.place, d.name, d.how) for d in steps() if d and d.program_id == number)


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/", os.O_PATH)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
