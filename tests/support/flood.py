"""Send packets from `veth0` of this network namespace as fast as can be: SECONDS, 0 for ever.

Many with each system call, past the queues of the interface. See packet(7), sendmmsg(2).
"""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import sys
import time

_AT_ONCE = 256
_PACKET_QDISC_BYPASS, _SOL_PACKET = 20, 263  # linux/if_packet.h
_FRAME = b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5" + bytes(46)  # of an experimental protocol


class _IoVector(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_char_p), ("len", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """`struct mmsghdr`."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_IoVector)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


def main(seconds: float) -> None:
    """Send."""
    vector = _IoVector(_FRAME, len(_FRAME))
    messages = (_Message * _AT_ONCE)(
        *(_Message(iov=ctypes.pointer(vector), iovlen=1) for _ in range(_AT_ONCE))
    )
    library = ctypes.CDLL(None, use_errno=True)
    deadline = time.monotonic() + (seconds or float("inf"))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("veth0", 0))
        sender.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        for _ in itertools.takewhile(lambda _: time.monotonic() < deadline, itertools.count()):
            if library.sendmmsg(sender.fileno(), messages, _AT_ONCE, 0) < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(float(sys.argv[1]))
