"""Questions to the kernel by netlink(7), and the messages that it answers with.

Source: linux/netlink.h; netlink_dump in net/netlink/af_netlink.c. A dump may be of very many
messages, of which few are wanted: those are found without a look at each in Python.
"""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Collection, Iterator

REQUEST, DUMP = 1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
HEADER = 16  # bytes of struct nlmsghdr
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_SIZES = {"I": 4, "Q": 8}
# The kernel fills up to 32 KiB at a time for a reader who has as much room.
_ROOM = 1 << 16
_LONGEST = 1  # seconds for one answer
# So many messages of equal length are looked at first, and so many times more each next time.
_RUN, _GROWTH = 2, 4


def ask(protocol: int, kind: int, flags: int, question: bytes) -> Iterator[bytes]:
    """Ask a netlink protocol one thing; what it answers, some messages at a time. A dump has no end
    but its last message: whoever has seen that asks no more. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as asked:
        seconds = struct.pack("@ll", _LONGEST, 0)
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        asked.bind((0, 0))
        header = _HEADER.pack(HEADER + len(question), kind, REQUEST | flags, 0, 0)
        asked.sendto(header + question, (0, 0))
        while True:
            data, _ancillary, flags, sender = asked.recvmsg(_ROOM)
            if flags & socket.MSG_TRUNC or not data:
                return
            if sender[0] == 0:  # the kernel, and not another process
                yield data


def matching(
    data: bytes, kind: int, offset: int, code: str, wanted: Collection[int]
) -> tuple[list[bytes], bool]:
    """Those messages of this kind whose number at `offset` is wanted; `code` is its `struct` code.

    Tells also whether more may follow: not after a message of another kind, which is an error or
    the end, nor after one that is not whole.
    """
    found: list[bytes] = []
    start, run = 0, _RUN
    while len(data) - start >= HEADER:
        length, given, *_ = _HEADER.unpack_from(data, start)
        step = length + 3 & ~3
        if given != kind or length < offset + _SIZES[code] or start + step > len(data):
            return found, False
        count = min(run, (len(data) - start) // step)
        rows = _rows(step, offset, code).iter_unpack(data[start : start + count * step])
        lengths, kinds, numbers = zip(*rows, strict=True)
        if lengths.count(length) + kinds.count(kind) == 2 * count:
            run *= _GROWTH
        else:  # those from the first that is unlike are looked at anew
            alike = ((lengths[n], kinds[n]) == (length, kind) for n in range(count))
            count, run = list(alike).index(False), _RUN
        if any(map(wanted.__contains__, numbers[:count])):
            found.extend(
                data[start + n * step :][:length] for n in range(count) if numbers[n] in wanted
            )
        start += count * step
    return found, start == len(data)


@functools.lru_cache(64)
def _rows(step: int, offset: int, code: str) -> struct.Struct:
    """Takes the length, the type, and a number of each message, which are `step` bytes apart."""
    rest = step - offset - _SIZES[code]
    return struct.Struct(f"=IH{offset - 6}x{code}{rest}x")


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data`, by their types, up to the first that is not whole."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            break
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found
