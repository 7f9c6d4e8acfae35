"""What a service tells systemd of itself: the protocol of sd_notify(3).

It is one datagram, so there is no library for it: libsystemd's bindings are compiled, and the
small ones on PyPI have had no release since 2017.
"""

from __future__ import annotations

import logging
import os
import socket

_SOCKET = "NOTIFY_SOCKET"

log = logging.getLogger(__name__)


def is_awaited() -> bool:
    """Whether systemd waits to be told."""
    return _SOCKET in os.environ


def tell(*assignments: str) -> None:
    """Tell systemd, if it waits for that: `READY=1`, `STOPPING=1`, `STATUS=…`. That it cannot be
    told is logged, and systemd's to judge."""
    address = os.environ.get(_SOCKET)
    if not address:
        return
    if address.startswith("@"):  # a name in the abstract namespace, unix(7)
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd:
            to_systemd.sendto("\n".join(assignments).encode(), address)
    except OSError as error:
        log.warning("systemd cannot be told %s: %s", ", ".join(assignments), error.strerror)


def leave() -> None:
    """Tell nothing from here on: a child in the background is not the process that systemd
    started."""
    os.environ.pop(_SOCKET, None)
