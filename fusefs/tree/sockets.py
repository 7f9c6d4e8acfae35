"""Entries that are sockets: a cookie, and the addresses where the socket is found.

All sockets of a listing are looked for together, and one file's by itself when it is opened.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Iterator
from types import MappingProxyType

from fusefs.bpf import socket_diag
from fusefs.bpf.batch import Batch
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.bpf.walk import AT_ONCE, has_key
from fusefs.text.codec import Codec
from fusefs.text.sockets import Known, Socket
from fusefs.text.value import to_text
from fusefs.tree.entries import Entry, KeyedMap, KeyNode
from fusefs.tree.map_view import MapView
from fusefs.tree.node import refusal
from fusefs.tree.seen_sockets import seen_sockets

_COOKIE = 8  # bytes of a value that is one
# Entries whose sockets are looked for together, at most: some 10 MiB of text about them.
_TOGETHER = 1 << 14
_NONE = Batch(0, b"", b"")
# Entries that are written in one go; others wait so long.
_PIECE = 256


def _codec(view: MapView) -> Codec:
    """The codec of a map's values. Those that are no cookies are nothing, whatever the format."""
    return view.value if view.stride == _COOKIE else view.btf.value


class SocketEntry(Entry):
    """A socket, as an object."""

    __slots__ = ()

    @property
    def codec(self) -> Codec:
        return _codec(self.view)

    def look(self, bpf_map: Map) -> bytes:
        return _look(bpf_map, self.key)

    def text(self, value: bytes) -> bytes:
        codec = self.codec
        if isinstance(codec, Socket):
            codec = codec.by(seen_sockets.current)
        return to_text(codec, value).encode()

    def glance(self, obj: Object) -> bytes:
        return super().text(self.current(obj))


def _look(bpf_map: Map, key: bytes) -> bytes:
    """The value of a key, of zeros where the kernel does not give it. Raises FileNotFoundError."""
    if bpf_map.stride == _COOKIE:
        return bpf_map.lookup(key)
    if not has_key(bpf_map, key):
        raise refusal(errno.ENOENT)
    return bytes(bpf_map.stride)


class SocketMap(KeyedMap):
    """sockmap, sockhash, reuseport_sockarray."""

    # What is known of the sockets that are being listed.
    _known: Known = MappingProxyType({})

    def node(self, key: bytes) -> KeyNode:
        return SocketEntry(self.subject, self.view, key)

    def look(self, bpf_map: Map, key: bytes) -> bytes:
        return _look(bpf_map, key)

    def delete(self, bpf_map: Map, key: bytes) -> None:
        try:
            super().delete(bpf_map, key)
        except OSError as error:
            if error.errno == errno.EINVAL:  # __sock_map_delete says so of an empty slot
                raise refusal(errno.ENOENT) from None
            raise

    def note(self, node: KeyNode, value: bytes, mtime_ns: int) -> None:
        if isinstance(node, SocketEntry):
            node.see(to_text(self.codec, value).encode(), mtime_ns)

    def counts(self, bpf_map: Map) -> Iterator[int]:
        return (batch.count for batch in self._batches(bpf_map))

    def pieces(self, bpf_map: Map, most: int = AT_ONCE) -> Iterator[tuple[bytes, bytes]]:
        size, stride = self.view.key_size, self.view.stride
        for batch in _together(self._batches(bpf_map)):
            if not batch.count:
                yield b"", b""
                continue
            self.read_at = time.monotonic()
            if stride == _COOKIE:
                cookies = struct.unpack(f"={batch.count}Q", batch.values)
                found: dict[int, socket_diag.Socket] = {}
                for _ in socket_diag.search(cookies, found):
                    yield b"", b""
                seen_sockets.note(cookies, found)
                self._known = {cookie: one.members() for cookie, one in found.items()}
            yield from batch.pieces(size, stride, _PIECE)

    @property
    def codec(self) -> Codec:
        codec = _codec(self.view)
        return codec.by(lambda cookies: self._known) if isinstance(codec, Socket) else codec

    def _batches(self, bpf_map: Map) -> Iterator[Batch]:
        """The entries; their values are zeros where the kernel does not give them."""
        if bpf_map.stride == _COOKIE:
            return bpf_map.batches()
        zero = bytes(bpf_map.stride)
        return (Batch(1, key, zero) if key else _NONE for key in bpf_map.each_key())


def _together(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same entries in large batches, and empty ones in between."""
    gathered: list[Batch] = []
    count = 0
    for batch in batches:
        gathered.append(batch)
        count += batch.count
        if count >= _TOGETHER:
            yield _joined(gathered)
            gathered, count = [], 0
        else:
            yield _NONE
    yield _joined(gathered)


def _joined(batches: list[Batch]) -> Batch:
    return Batch(
        sum(batch.count for batch in batches),
        b"".join(batch.keys for batch in batches),
        b"".join(batch.values for batch in batches),
    )
