"""Real sockets of every kind that maps take, and maps that hold them."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fusefs.bpf import libc
from fusefs.bpf.map import Map, MapType
from support.maps import u32, u64

_SO_COOKIE = 57  # asm-generic/socket.h
_CLONE_NEWNET = 0x40000000
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def cookie(made: socket.socket) -> int:
    """What the kernel calls a socket."""
    return int.from_bytes(made.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


def text(address: tuple[Any, ...]) -> str:
    """An address as entries show it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Sockets(contextlib.ExitStack):
    """Makes sockets, which are closed with it."""

    def made(self, family: int, kind: int, *, shared: bool = False) -> socket.socket:
        """An unbound socket; a `shared` one may have its port in common with others."""
        made = self.enter_context(socket.socket(family, kind))
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return made

    def listener(
        self, family: int = socket.AF_INET, port: int = 0, *, shared: bool = False
    ) -> socket.socket:
        """A TCP socket that listens on the loopback interface."""
        made = self.made(family, socket.SOCK_STREAM, shared=shared)
        made.bind((LOOPBACK[socket.AddressFamily(family)], port))
        made.listen(4096)
        return made

    def bound(
        self, family: int = socket.AF_INET, port: int = 0, *, shared: bool = False
    ) -> socket.socket:
        """A UDP socket on the loopback interface."""
        made = self.made(family, socket.SOCK_DGRAM, shared=shared)
        made.bind((LOOPBACK[socket.AddressFamily(family)], port))
        return made

    def connected(self, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
        """A new connection to a listener: the client's socket and the server's."""
        client = self.made(listener.family, socket.SOCK_STREAM)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        return client, self.enter_context(server)

    def unix(self, path: str | bytes) -> tuple[socket.socket, socket.socket]:
        """A connection to a path, or to an abstract name."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            return self.connected(listener)

    def unix_pair(self, kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
        """Two sockets without names."""
        first, second = socket.socketpair(socket.AF_UNIX, kind)
        return self.enter_context(first), self.enter_context(second)

    def every(self, directory: Path) -> Mapping[str, tuple[socket.socket, dict[str, str]]]:
        """A socket of every kind that a sockmap takes, and what is to be shown of it."""
        made: dict[str, tuple[socket.socket, dict[str, str]]] = {}

        def add(name: str, one: socket.socket, *words: str) -> None:
            keys = ("protocol", "state", "local", "remote")
            made[name] = one, {key: word for key, word in zip(keys, words, strict=False) if word}

        for family, version in ((socket.AF_INET, "4"), (socket.AF_INET6, "6")):
            listener = self.listener(family)
            client, server = self.connected(listener)
            here, there = text(listener.getsockname()), text(client.getsockname())
            add(f"listener{version}", listener, "tcp", "listen", here)
            add(f"client{version}", client, "tcp", "established", there, here)
            add(f"server{version}", server, "tcp", "established", here, there)
            bound, other = self.bound(family), self.bound(family)
            other.connect(bound.getsockname())
            here, there = text(bound.getsockname()), text(other.getsockname())
            add(f"bound{version}", bound, "udp", "unconnected", here)
            add(f"sender{version}", other, "udp", "established", there, here)
        path = str(directory / "soc\nket")
        client, server = self.unix(path)
        add("unix_client", client, "unix", "established", "", path)
        add("unix_server", server, "unix", "established", path)
        client, server = self.unix(f"\0fusefs-{id(self)}")
        add("abstract_server", server, "unix", "established", f"@fusefs-{id(self)}")
        add("unnamed", self.unix_pair()[0], "unix", "established")
        add("datagrams", self.unix_pair(socket.SOCK_DGRAM)[0], "unix", "established")
        return made

    def apart(self, make: Callable[[], socket.socket]) -> socket.socket:
        """A socket that is made in a network namespace of its own, which goes with it."""
        made: list[socket.socket] = []

        def work() -> None:  # namespaces are a thread's
            libc.call("unshare", _CLONE_NEWNET)
            made.append(make())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return self.enter_context(made[0])


@contextlib.contextmanager
def sockets() -> Iterator[Sockets]:
    """Sockets that are closed at the end."""
    with Sockets() as made:
        yield made


def socket_map(
    kind: MapType, *, value_size: int = 8, max_entries: int = 64, key_size: int = 4
) -> Map:
    """A map for sockets."""
    return Map.create(
        kind, key_size=key_size, value_size=value_size, max_entries=max_entries, name="sockets"
    )


def put(made: Map, number: int, one: socket.socket) -> None:
    """Put a socket into a map, as its owner does."""
    fd = one.fileno()
    made.update(u32(number), u64(fd) if made.stride == 8 else u32(fd))
