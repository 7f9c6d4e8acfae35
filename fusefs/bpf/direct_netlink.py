"""What rtnetlink(7) tells of interfaces, as far as programs on them go: all messages of a kind, and
the name of an interface."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from fusefs.bpf import netlink

_ROUTE = 0  # NETLINK_ROUTE
_ERROR = 2  # NLMSG_ERROR
_HEADER = struct.Struct("=IH10x")  # struct nlmsghdr: length, type
_TYPE = 0x3FFF  # NLA_TYPE_MASK: the kernel marks some attributes as nested


def dump(asked: int, told: int, question: bytes) -> Iterator[bytes | None]:
    """The bodies of the messages of a kind that answer a question; None where others may have a
    turn, and that is after some dozens of them. It ends with the first message of another kind.

    Raises OSError, with what the kernel answers instead, or EAGAIN when it takes a second.
    """
    for data in netlink.ask(_ROUTE, asked, netlink.DUMP, question):
        at = 0
        while at + netlink.HEADER <= len(data):
            length, kind = _HEADER.unpack_from(data, at)
            body = data[at + netlink.HEADER : at + length]
            if kind != told or length < netlink.HEADER:
                if kind == _ERROR:
                    _raise(body)
                return
            yield body
            at += length + 3 & ~3
        yield None


def _raise(body: bytes) -> None:
    number = -struct.unpack("=i", body[:4].ljust(4, b"\0"))[0] or errno.EPROTO
    raise OSError(number, f"{os.strerror(number)} (rtnetlink)")


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data`, by their types, whether or not they are marked as nested."""
    return {kind & _TYPE: value for kind, value in netlink.attributes(data).items()}


def interface_name(index: int) -> str:
    """The name of an interface of this network namespace. Raises OSError: ENXIO when it is gone."""
    return os.fsencode(socket.if_indextoname(index)).decode("utf-8", "backslashreplace")
