"""Programs made of instructions, without a compiler."""

from __future__ import annotations

import ctypes
import enum
from typing import cast

from fusefs.bpf import syscall
from fusefs.bpf.object import buffer
from fusefs.bpf.program import Program

# r0 = 0; exit
NOTHING = bytes.fromhex("b700000000000000" "9500000000000000")
SOCKET_FILTER, XDP = 1, 6


class _Command(enum.IntEnum):
    """A call that the file system does not need."""

    PROG_LOAD = 5


class _LoadArguments(ctypes.Structure):
    """BPF_PROG_LOAD, as far as the name."""

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
    )


def load(code: bytes = NOTHING, kind: int = SOCKET_FILTER, name: str = "sample") -> Program:
    """A program of these instructions. What the verifier has against it is in the error."""
    instructions, gpl = ctypes.create_string_buffer(code, len(code)), buffer(4)
    gpl.value = b"GPL"
    log = buffer(1 << 16)
    arguments = _LoadArguments(
        prog_type=kind,
        insn_cnt=len(code) // 8,
        insns=ctypes.addressof(instructions),
        license=ctypes.addressof(gpl),
        log_level=1,
        log_size=len(log),
        log_buf=ctypes.addressof(log),
        prog_name=name.encode(),
    )
    try:
        return Program(syscall.bpf(cast(syscall.Command, _Command.PROG_LOAD), arguments))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {log.value.decode()}") from None
