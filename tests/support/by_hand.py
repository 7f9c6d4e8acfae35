"""What a user can do to a pin in bpffs by bpf(2) alone, each function one thing that a mount offers
too. They raise OSError as the kernel refuses."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from fusefs.bpf import bpffs, syscall
from fusefs.bpf.link import Link
from fusefs.bpf.map import Existence, Map
from fusefs.bpf.program import Program
from fusefs.bpf.ring_buffer import RingBuffer, UserRingBuffer
from support.maps import u32

# How a pin is opened, BPF_OBJ_GET's file_flags.
BOTH, READ, WRITE = 0, 1 << 3, 1 << 4


def get(path: str, flags: int = BOTH) -> int:
    """A descriptor of what is pinned."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    arguments = syscall.ObjectArguments(pathname=ctypes.addressof(text), file_flags=flags)
    return syscall.bpf(syscall.Command.OBJ_GET, arguments)


def get_somehow(path: str) -> int:
    """The same, to do anything with it: what the kernel tells of an object it tells to all who have
    a descriptor."""
    for flags in (READ, WRITE):
        try:
            return get(path, flags)
        except PermissionError:
            continue
        except OSError as error:
            if error.errno != errno.EINVAL:  # a link
                raise
            return get(path)
    raise PermissionError(errno.EACCES, path)


def a_map(path: str, flags: int) -> Map:
    return Map(get(path, flags))


def somehow(path: str) -> None:
    """Have it at all."""
    os.close(get_somehow(path))


def fully(path: str) -> None:
    """Have it to read and to write."""
    os.close(get(path))


def to_write(path: str) -> None:
    """Have it to write."""
    os.close(get(path, WRITE))


def to_read(path: str) -> None:
    """Have it to read."""
    os.close(get(path, READ))


# Of a map with keys of 4 bytes.


def next_key(path: str) -> None:
    with a_map(path, READ) as bpf_map:
        bpf_map.next_key(None)


def lookup(path: str) -> bytes:
    with a_map(path, READ) as bpf_map:
        return bpf_map.lookup(_first(bpf_map))


def has_key(path: str) -> None:
    """Learn whether a key is there. Who may write alone learns it by trying to remove it, or to add
    it with BPF_NOEXIST."""
    somehow(path)


def update(path: str) -> None:
    with a_map(path, WRITE) as bpf_map:
        bpf_map.update(_first(bpf_map), bytes(bpf_map.stride))


def create(path: str) -> None:
    with a_map(path, WRITE) as bpf_map:
        bpf_map.update(_second(bpf_map), bytes(bpf_map.stride), Existence.NOEXIST)


def delete(path: str) -> None:
    with a_map(path, WRITE) as bpf_map:
        bpf_map.delete(_first(bpf_map))


def rename(path: str) -> None:
    with a_map(path, BOTH) as bpf_map:
        value = bpf_map.lookup(_first(bpf_map))
        bpf_map.update(_second(bpf_map), value)
        bpf_map.delete(_first(bpf_map))


def _first(bpf_map: Map) -> bytes:
    return u32(1) + bytes(bpf_map.key_size - 4)


def _second(bpf_map: Map) -> bytes:
    return u32(2) + bytes(bpf_map.key_size - 4)


def freeze(path: str) -> None:
    with a_map(path, WRITE) as bpf_map:
        bpf_map.freeze()


def peek(path: str) -> bytes:
    with a_map(path, READ) as bpf_map:
        return bpf_map.peek()


def pop(path: str) -> bytes:
    with a_map(path, BOTH) as bpf_map:
        return bpf_map.pop()


def push(path: str) -> None:
    with a_map(path, WRITE) as bpf_map:
        bpf_map.update(b"", bytes(bpf_map.stride))


def contains(path: str) -> None:
    with a_map(path, READ) as bpf_map:
        bpf_map.contains(u32(5))


def unread(path: str) -> None:
    """See what is in a ring, which the kernel lets nobody map who may not write it."""
    with a_map(path, BOTH) as bpf_map, RingBuffer(bpf_map) as ring:
        for _ in ring.unread():
            pass


def consume(path: str) -> None:
    """Have all that it takes to consume what is in a ring."""
    with a_map(path, BOTH) as bpf_map:
        RingBuffer(bpf_map, consuming=True).close()


def push_record(path: str) -> None:
    with a_map(path, BOTH) as bpf_map, UserRingBuffer(bpf_map) as ring:
        ring.push([b"\x01\x02"])


def load(path: str) -> None:
    """Read a section of variables."""
    with a_map(path, READ) as bpf_map:
        bpf_map.lookup(u32(0))


def store(path: str) -> None:
    """Write it. What somebody may write as a whole, they may write in part."""
    with a_map(path, WRITE) as bpf_map:
        bpf_map.update(u32(0), bytes(bpf_map.stride))


def set_slot(path: str, other: str) -> None:
    """Have a slot hold another pin's object."""
    fd = get(other, READ)
    try:
        with a_map(path, WRITE) as bpf_map:
            bpf_map.update(_second(bpf_map), u32(fd))
    finally:
        os.close(fd)


def set_device(path: str) -> None:
    with a_map(path, WRITE) as bpf_map:
        bpf_map.update(_second(bpf_map), struct.pack("=II", 1, 0))


# Of programs and links.


def run(path: str) -> None:
    with Program(get_somehow(path)) as program:
        program.run(bytes(64))


def code(path: str) -> None:
    with Program(get_somehow(path)) as program:
        _allowed(bool(program.xlated()))


def code_length(path: str) -> None:
    with Program(get_somehow(path)) as program:
        _allowed(bool(program.info.xlated_prog_len))


def statistics(path: str) -> None:
    somehow(path)
    os.close(syscall.bpf(syscall.Command.ENABLE_STATS, syscall.StatsArguments()))


def swap(path: str, program: str) -> None:
    with Link(get(path)) as link, Program(get(program, READ)) as other:
        link.update(other)


def detach(path: str) -> None:
    with Link(get(path)) as link:
        link.detach()


def read_pin(path: str) -> bytes:
    """Read the pin itself: that of an iterator runs it."""
    with open(path, "rb") as file:
        return file.read()


def types(path: str) -> None:
    """Have the BTF of a map or program."""
    fd = get_somehow(path)
    try:
        with bpffs._typed(os.dup(fd)) as obj:
            number = getattr(obj.info, "btf_id", 0)
    finally:
        os.close(fd)
    arguments = syscall.IdArguments(id=number)
    os.close(syscall.bpf(syscall.Command.BTF_GET_FD_BY_ID, arguments))


def kind(path: str) -> None:
    """Learn whether it is a map, a program or a link, which the kernel opens to nobody to read."""
    try:
        somehow(path)
    except PermissionError:
        try:
            get(path, READ)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise


def by_id(path: str) -> None:
    """Go through all objects."""
    somehow(path)
    syscall.bpf(syscall.Command.MAP_GET_NEXT_ID, syscall.IdArguments(id=0))


def _allowed(given: bool) -> None:
    """The kernel says nothing to who may not know, and fails not."""
    if not given:
        raise PermissionError(errno.EPERM, "not told")
