"""A perf event that a perf_event_array takes. Source: perf_event_open(2)."""

from __future__ import annotations

import ctypes
import os
import struct

from fusefs.bpf import libc

_NUMBERS = {"x86_64": 298}  # __NR_perf_event_open; elsewhere mostly 241
_SOFTWARE, _BPF_OUTPUT = 1, 10
_SIZE = 112  # PERF_ATTR_SIZE_VER5


def open_event() -> int:
    """A descriptor of an event of this process, to which programs can write."""
    number = _NUMBERS.get(os.uname().machine, 241)
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIQ", _SOFTWARE, _SIZE, _BPF_OUTPUT), _SIZE
    )
    return libc.call("syscall", number, ctypes.byref(attributes), 0, -1, -1, 0)
