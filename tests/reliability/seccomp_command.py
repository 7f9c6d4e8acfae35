"""A command of which the kernel refuses some system calls: RULES COMMAND...

RULES are separated by commas, each CALL=ERRNO or bpf:COMMAND=ERRNO, where COMMAND is a command of
bpf(2): its name or number. libseccomp, which apt itself needs, makes a filter of them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from fusefs.bpf.syscall import Command

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, seccomp.h
_EQUAL = 4  # SCMP_CMP_EQ


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def main() -> None:
    """Refuse what is to be refused, and run the command."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_ALLOW))
    for rule in filter(None, sys.argv[1].split(",")):
        call, _, answer = rule.partition("=")
        call, _, command = call.partition(":")
        number = library.seccomp_syscall_resolve_name(call.encode())
        action = _ERRNO | getattr(errno, answer)
        conditions = (_Comparison * 1)()
        if command:
            wanted = int(command) if command.isdigit() else Command[command]
            conditions[0] = _Comparison(0, _EQUAL, wanted)
        count = len(conditions) if command else 0
        added = library.seccomp_rule_add_array(context, action, number, count, conditions)
        if added:
            raise OSError(-added, f"{rule}: {os.strerror(-added)}")
    if failed := library.seccomp_load(context):
        raise OSError(-failed, os.strerror(-failed))
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
