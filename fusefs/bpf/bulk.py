"""Many entries of a map at once, by their keys: set in one call where the kernel has it, else one
by one; there is no such call to look them up.

Source: generic_map_update_batch in kernel/bpf/syscall.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

from fusefs.bpf import syscall
from fusefs.bpf.batch import split
from fusefs.bpf.object import buffer
from fusefs.bpf.syscall import ENOTSUPP, Command

if TYPE_CHECKING:
    from fusefs.bpf.map import Map


class Stopped(OSError):  # noqa: N818 - how far it came
    """The kernel refused an entry, after it had set `done` others."""

    def __init__(self, number: int, done: int) -> None:
        super().__init__(number, os.strerror(number))
        self.done = done


def update_all(bpf_map: Map, keys: bytes, values: bytes) -> None:
    """What `Map.update_all` does."""
    count = len(keys) // bpf_map.key_size
    arguments = syscall.BatchArguments(
        keys=_address(keys), values=_address(values), count=count, map_fd=bpf_map.fd,
        element_flags=bpf_map.locked,
    )  # fmt: skip
    try:
        syscall.bpf(Command.MAP_UPDATE_BATCH, arguments)
    except OSError as error:
        number = error.errno or errno.EIO
        # When an entry is refused, the kernel tells how many were set before.
        if arguments.count < count:
            raise Stopped(number, arguments.count) from error
        # EINVAL: a kernel without batches (before 5.6); ENOTSUPP: a type without them; EPERM: maybe
        # a filter of system calls that does not know them.
        if number not in (errno.EINVAL, errno.EPERM, ENOTSUPP):
            raise Stopped(number, 0) from error
        _one_by_one(bpf_map, keys, values)


def _one_by_one(bpf_map: Map, keys: bytes, values: bytes) -> None:
    arguments = syscall.ElementArguments(map_fd=bpf_map.fd, flags=bpf_map.locked)
    update = syscall.attempt(Command.MAP_UPDATE_ELEM, arguments)
    arguments.key, arguments.value = _address(keys), _address(values)
    for done in range(len(keys) // bpf_map.key_size):
        if error := update():
            raise Stopped(error, done)
        arguments.key += bpf_map.key_size
        arguments.value += bpf_map.stride


def values_of(bpf_map: Map, keys: bytes) -> bytes:
    """What `Map.values_of` gives."""
    if bpf_map.prefixes:  # whose lookup takes more than a call
        return b"".join(_value_or_zeros(bpf_map, key) for key in split(keys, bpf_map.key_size))
    count = len(keys) // bpf_map.key_size
    values = buffer(count * bpf_map.stride)
    arguments = syscall.ElementArguments(map_fd=bpf_map.fd, flags=bpf_map.locked)
    lookup = syscall.attempt(Command.MAP_LOOKUP_ELEM, arguments)
    arguments.key, arguments.value = _address(keys), ctypes.addressof(values)
    for _ in range(count):
        error = lookup()
        if error == errno.ENOENT:
            error = lookup()  # it may have been missed: see `Map.lookup`
        if error not in (0, errno.ENOENT):
            raise OSError(error, os.strerror(error))
        arguments.key += bpf_map.key_size
        arguments.value += bpf_map.stride
    return ctypes.string_at(values, count * bpf_map.stride)


def _value_or_zeros(bpf_map: Map, key: bytes) -> bytes:
    try:
        return bpf_map.lookup(key)
    except FileNotFoundError:
        return bytes(bpf_map.stride)


def _address(data: bytes) -> int:
    """Where the bytes of `data` are, as long as it lives."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
