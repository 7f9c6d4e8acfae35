"""Sockets by their cookies: what protocol they speak, in which state, from where to where.

The kernel finds no socket by its cookie alone. So it is asked for all of this network namespace, by
sock_diag(7), and their cookies are compared, very many at a time. Who knows a socket already can
ask for that one alone.

Source: linux/inet_diag.h, linux/unix_diag.h; net/ipv4/inet_diag.c, net/unix/diag.c in the kernel.
Sockets of other kinds (AF_VSOCK) and of other network namespaces are not found.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from fusefs.bpf import netlink

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
# Seconds after which what was not found yet counts as not found.
_LONGEST = 1.0

# include/net/tcp_states.h; other protocols use some of them.
_STATES = (
    "? established syn_sent syn_recv fin_wait1 fin_wait2 time_wait close close_wait last_ack "
    "listen closing new_syn_recv bound_inactive"
).split()
_SYN_RECV, _TIME_WAIT, _CLOSE, _NEW_SYN_RECV, _BOUND_INACTIVE = 3, 6, 7, 12, 13
# What is not yet a socket, or no longer, is in no map, and there may be very much of it.
_TRANSIENT = (_SYN_RECV, _TIME_WAIT, _NEW_SYN_RECV, _BOUND_INACTIVE)
_WHOLE = 0xFFFFFFFF - sum(1 << number for number in _TRANSIENT)
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}

# Family, protocol, extensions, states, and `struct inet_diag_sockid`, which tells addresses.
_INET_REQUEST = struct.Struct("=BBBxI48s")
# Family, protocol, states, inode number, what to show, cookie (all ones: any).
_UNIX_REQUEST = struct.Struct("=BBxxIIIQ")
_ANY = (1 << 64) - 1
_NAME, _PEER = 0, 2  # UNIX_DIAG_NAME, UNIX_DIAG_PEER
_SHOWN = 1 << _NAME | 1 << _PEER  # UDIAG_SHOW_NAME, UDIAG_SHOW_PEER

# `struct inet_diag_msg` behind the header: family, state, ports, addresses, interface, cookie.
_INET = struct.Struct("=BBxx2s2s16s16sIQ")
_INET_COOKIE = netlink.HEADER + 44
_ID = slice(netlink.HEADER + 4, netlink.HEADER + 52)  # the sockid in it
# `struct unix_diag_msg`: family, type, state, inode number, cookie; attributes follow.
_UNIX = struct.Struct("=BBBxIQ")
_UNIX_INODE, _UNIX_COOKIE = netlink.HEADER + 4, netlink.HEADER + 8


@dataclass(frozen=True, slots=True)
class Socket:
    """What is known of a socket. `local` and `remote` are empty where it has none.

    Addresses are as in `127.0.0.1:80` and `[::1]:80`; a Unix socket's is its path, with `@` for the
    NUL that an abstract one begins with. `request` asks the kernel for this socket alone.
    """

    cookie: int
    protocol: str
    state: str
    local: str
    remote: str
    request: bytes

    def members(self) -> dict[str, str]:
        """What there is to show, by name."""
        shown = {"protocol": self.protocol, "state": self.state}
        if self.local:
            shown["local"] = self.local
        if self.remote:
            shown["remote"] = self.remote
        return shown


# Sockets, with None in between where others may have a turn.
_Turns = Iterator[Socket | None]


def search(cookies: Collection[int], found: dict[int, Socket]) -> Iterator[None]:
    """Look for the sockets of these cookies, and put those that there are into `found`.

    Each step takes a fraction of a millisecond. It ends when all are found, or all that there are
    were looked at, or after a second. What the kernel refuses to tell counts as not found.
    """
    missing = set(cookies)
    until = time.monotonic() + _LONGEST
    for look in (_internet, _unix):
        for one in look(missing, until):
            if one:
                found[one.cookie] = one
                missing.discard(one.cookie)
            else:
                yield


def find(cookies: Collection[int]) -> dict[int, Socket]:
    """The sockets of these cookies, as far as they are found (`search`)."""
    found: dict[int, Socket] = {}
    for _ in search(cookies, found):
        pass
    return found


def again(known: Socket) -> Socket | None:
    """A socket as it is now, if it is where it was.

    None also for one that shares its port with others (SO_REUSEPORT): the kernel may give another
    of them.
    """
    unix = known.protocol == "unix"
    at = _UNIX_COOKIE if unix else _INET_COOKIE
    for message in _messages(known.request, 0, at, "Q", {known.cookie}, time.monotonic()):
        if message is None:
            break
        made = unix_socket(message) if unix else internet_socket(message, known.protocol)
        return replace(made, remote=known.remote) if made and unix else made
    return None


def _messages(
    request: bytes, flags: int, offset: int, code: str, wanted: Collection[int], until: float
) -> Iterator[bytes | None]:
    """The messages that tell of what is wanted, by the number at `offset`; None after some. It ends
    as soon as `wanted` is empty, or time is up."""
    if not wanted:
        return
    try:
        for data in netlink.ask(_SOCK_DIAG, _BY_FAMILY, flags, request):
            found, more = netlink.matching(data, _BY_FAMILY, offset, code, wanted)
            yield from found
            if not more or not wanted or time.monotonic() > until:
                return
            yield None
    except OSError:
        return  # this kernel has no such diagnosis, or it took too long


def _internet(missing: set[int], until: float) -> _Turns:
    for protocol, number in _PROTOCOLS.items():
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _INET_REQUEST.pack(family, number, 0, _WHOLE, bytes(48))
            for message in _messages(request, netlink.DUMP, _INET_COOKIE, "Q", missing, until):
                yield internet_socket(message, protocol) if message else None


def _unix(missing: set[int], until: float) -> _Turns:
    """A socket tells its peer by the inode number; so peers are looked for once more."""
    peers: dict[int, list[Socket]] = {}
    left = set(missing)
    request = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, _WHOLE, 0, _SHOWN, _ANY)
    for message in _messages(request, netlink.DUMP, _UNIX_COOKIE, "Q", left, until):
        made = unix_socket(message) if message else None
        if message and made:
            left.discard(made.cookie)
            peers.setdefault(_peer(message), []).append(made)
        else:
            yield None
    yield from peers.pop(0, [])
    inodes = set(peers)
    for message in _messages(request, netlink.DUMP, _UNIX_INODE, "I", inodes, until):
        made = unix_socket(message) if message else None
        if message and made:
            inode = int.from_bytes(message[_UNIX_INODE:][:4], sys.byteorder)
            inodes.discard(inode)
            yield from (replace(one, remote=made.local) for one in peers.pop(inode, []))
        else:
            yield None
    for alone in peers.values():  # their peers are in another network namespace, or gone
        yield from alone


def internet_socket(message: bytes, protocol: str) -> Socket | None:
    """The TCP or UDP socket that a message tells of, or None when it is no such message."""
    if len(message) < netlink.HEADER + _INET.size:
        return None
    family, state, local, remote, source, destination, _, cookie = _INET.unpack_from(
        message, netlink.HEADER
    )
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    number, name = _PROTOCOLS[protocol], _state(state, protocol)
    here, there = _address(family, source, local), _address(family, destination, remote)
    sockid = message[_ID]
    if protocol == "udp":  # it takes them the other way round, udp_dump_one says, for history
        sockid = remote + local + destination + source + sockid[36:]
    request = _INET_REQUEST.pack(family, number, 0, _WHOLE, sockid)
    return Socket(cookie, protocol, name, here, there if any(remote) else "", request)


def unix_socket(message: bytes) -> Socket | None:
    """The Unix socket that a message tells of, without the name of its peer; or None."""
    if len(message) < netlink.HEADER + _UNIX.size:
        return None
    family, _, state, inode, cookie = _UNIX.unpack_from(message, netlink.HEADER)
    if family != socket.AF_UNIX:
        return None
    name = _attributes(message).get(_NAME, b"")
    # A path may have the NUL at its end that C has; an abstract name begins with one.
    path = b"@" + name[1:] if name[:1] == b"\0" else name.rstrip(b"\0")
    request = _UNIX_REQUEST.pack(family, 0, _WHOLE, inode, _SHOWN, cookie)
    text = path.decode("utf-8", "backslashreplace")
    return Socket(cookie, "unix", _state(state, "unix"), text, "", request)


def _attributes(message: bytes) -> dict[int, bytes]:
    return netlink.attributes(message[netlink.HEADER + _UNIX.size :])


def _peer(message: bytes) -> int:
    """The inode number of a Unix socket's peer, or 0."""
    return int.from_bytes(_attributes(message).get(_PEER, b""), sys.byteorder)


def _state(number: int, protocol: str) -> str:
    if number == _CLOSE and protocol != "tcp":
        return "unconnected"
    return _STATES[number] if 0 < number < len(_STATES) else str(number)


def _address(family: int, address: bytes, port: bytes) -> str:
    number = int.from_bytes(port, "big")
    if family == socket.AF_INET:
        return f"{socket.inet_ntop(family, address[:4])}:{number}"
    return f"[{socket.inet_ntop(family, address)}]:{number}"
