"""An AF_XDP socket that an xskmap takes. Source: linux/if_xdp.h, af_xdp.rst of the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import socket
import struct
from collections.abc import Iterator

AF_XDP = 44
_SOL_XDP = 283
_RX_RING, _UMEM_REG, _FILL_RING, _COMPLETION_RING = 2, 4, 5, 6
_FRAMES, _FRAME = 16, 4096


@contextlib.contextmanager
def xdp_socket() -> Iterator[socket.socket]:
    """A socket with memory and rings, bound to no interface."""
    memory = mmap.mmap(-1, _FRAMES * _FRAME)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    with socket.socket(AF_XDP, socket.SOCK_RAW) as made:
        region = struct.pack("=QQIIII", start, len(memory), _FRAME, 0, 0, 0)
        made.setsockopt(_SOL_XDP, _UMEM_REG, region)
        for ring in (_FILL_RING, _COMPLETION_RING, _RX_RING):
            made.setsockopt(_SOL_XDP, ring, struct.pack("=I", _FRAMES))
        yield made
