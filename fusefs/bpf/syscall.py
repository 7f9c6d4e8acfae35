"""The bpf(2) system call: commands, their arguments, and nothing clever.

One ctypes structure for each shape that `union bpf_attr` takes. Source: include/uapi/linux/bpf.h
in the kernel, and bpf(2). The call goes through ctypes, which releases the interpreter's lock
while the kernel works.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import platform
from collections.abc import Callable

from fusefs.bpf import libc

# __NR_bpf, from arch/*/include/*/unistd.h; newer architectures share the generic table's 280.
_NUMBERS = {"x86_64": 321, "i686": 357, "s390x": 351, "ppc64le": 361, "armv7l": 386}
_NUMBER = _NUMBERS.get(platform.machine(), 280)

# The kernel answers some calls with this number, which errno.h does not have (linux/errno.h).
ENOTSUPP = 524


class Command(enum.IntEnum):
    """`enum bpf_cmd`, as far as it is used here."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    BTF_LOAD = 18
    BTF_GET_FD_BY_ID = 19
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_FREEZE = 22
    BTF_GET_NEXT_ID = 23
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    ENABLE_STATS = 32
    ITER_CREATE = 33
    LINK_DETACH = 34


class ElementArguments(ctypes.Structure):
    """BPF_MAP_*_ELEM, MAP_GET_NEXT_KEY and MAP_FREEZE; `value` is also the next key."""

    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("_padding", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class BatchArguments(ctypes.Structure):
    """BPF_MAP_*_BATCH; the kernel writes the number of entries that it handled to `count`."""

    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("element_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class CreateArguments(ctypes.Structure):
    """BPF_MAP_CREATE, as far as BTF ids and map_extra."""

    _fields_ = (
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("map_name", ctypes.c_char * 16),
        ("map_ifindex", ctypes.c_uint32),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
    )


class ObjectArguments(ctypes.Structure):
    """BPF_OBJ_PIN and BPF_OBJ_GET."""

    _fields_ = (
        ("pathname", ctypes.c_uint64),
        ("bpf_fd", ctypes.c_uint32),
        ("file_flags", ctypes.c_uint32),
    )


class InfoArguments(ctypes.Structure):
    """BPF_OBJ_GET_INFO_BY_FD; the kernel writes how much it filled to `info_len`."""

    _fields_ = (
        ("bpf_fd", ctypes.c_uint32),
        ("info_len", ctypes.c_uint32),
        ("info", ctypes.c_uint64),
    )


class IdArguments(ctypes.Structure):
    """BPF_*_GET_FD_BY_ID, and BPF_*_GET_NEXT_ID, which looks for the id after `id`."""

    _fields_ = (
        ("id", ctypes.c_uint32),
        ("next_id", ctypes.c_uint32),
        ("open_flags", ctypes.c_uint32),
    )


class LoadArguments(ctypes.Structure):
    """BPF_PROG_LOAD, as far as what it is attached to."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
        ("prog_btf_fd", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("func_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("line_info_cnt", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
    )


class RunArguments(ctypes.Structure):
    """BPF_PROG_TEST_RUN, as far as its CPU; sizes of output are those of the buffers, and then what
    there was to write."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
    )


class LinkArguments(ctypes.Structure):
    """BPF_LINK_CREATE, as far as all types of links have it."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class StatsArguments(ctypes.Structure):
    """BPF_ENABLE_STATS; type 0 is BPF_STATS_RUN_TIME."""

    _fields_ = (("type", ctypes.c_uint32),)


class ProgramQueryArguments(ctypes.Structure):
    """BPF_PROG_QUERY; the kernel writes how many there are to `count`.

    It writes to `revision` too, however short the structure is that it was given
    (bpf_mprog_query in kernel/bpf/mprog.c).
    """

    _fields_ = (
        ("target_ifindex", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("_padding", ctypes.c_uint32),
        ("prog_attach_flags", ctypes.c_uint64),
        ("link_ids", ctypes.c_uint64),
        ("link_attach_flags", ctypes.c_uint64),
        ("revision", ctypes.c_uint64),
    )


class LinkUpdateArguments(ctypes.Structure):
    """BPF_LINK_UPDATE."""

    _fields_ = (
        ("link_fd", ctypes.c_uint32),
        ("new_prog_fd", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("old_prog_fd", ctypes.c_uint32),
    )


class LinkDetachArguments(ctypes.Structure):
    """BPF_LINK_DETACH."""

    _fields_ = (("link_fd", ctypes.c_uint32),)


class IterCreateArguments(ctypes.Structure):
    """BPF_ITER_CREATE."""

    _fields_ = (("link_fd", ctypes.c_uint32), ("flags", ctypes.c_uint32))


class BtfLoadArguments(ctypes.Structure):
    """BPF_BTF_LOAD."""

    _fields_ = (
        ("btf", ctypes.c_uint64),
        ("log", ctypes.c_uint64),
        ("btf_size", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
    )


def bpf(command: Command, arguments: ctypes.Structure) -> int:
    """Make the call; the result is a descriptor or 0, as the command has it.

    Raises OSError with the kernel's errno, ENOTSUPP (524) included; but PermissionError for ENOSYS,
    which a filter of system calls answers where it does not answer EPERM (see seccomp(2)).
    """
    size = ctypes.sizeof(arguments)
    try:
        return libc.call("syscall", _NUMBER, int(command), ctypes.byref(arguments), size)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise PermissionError(errno.EPERM, f"{error.strerror} (BPF_{command.name})") from None
        reason = "Operation not supported" if error.errno == ENOTSUPP else error.strerror
        raise OSError(error.errno, f"{reason} (BPF_{command.name})") from None


def attempt(command: Command, arguments: ctypes.Structure) -> Callable[[], int]:
    """The call, to be made over and over: it gives the errno that `bpf` would raise, 0 for none.
    See `libc.attempt`."""
    size = ctypes.sizeof(arguments)
    call = libc.attempt("syscall", _NUMBER, int(command), ctypes.byref(arguments), size)
    return lambda: errno.EPERM if (error := call()) == errno.ENOSYS else error


def may_use_bpf() -> bool:
    """Whether this process may open objects by id, BTF among them, as showing typed values takes.

    The kernel checks that before it looks for the id (bpf_btf_get_fd_by_id in
    kernel/bpf/syscall.c), and there is none with number 0. Pins alone can be opened with less.
    """
    try:
        bpf(Command.BTF_GET_FD_BY_ID, IdArguments(id=0))
    except OSError as error:
        return error.errno != errno.EPERM
    return True
