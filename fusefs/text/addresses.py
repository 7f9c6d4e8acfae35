"""Codecs for addresses: struct in_addr and struct in6_addr, and what is said to be one."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from fusefs.text.codec import Codec, Column, Texts, scalar
from fusefs.text.errors import clip, refusal
from fusefs.text.parse import Node

_BEGINS_IPV4 = re.compile(r"[0-9]{0,3}(?:\.[0-9]{0,3}){0,3}")
_BEGINS_IPV6 = re.compile(r"[0-9a-fA-F:.]{0,45}")
_MAC = re.compile(r"[0-9a-fA-F]{1,2}(?:[:-][0-9a-fA-F]{1,2}){5}")
_BEGINS_MAC = re.compile(r"(?:[0-9a-fA-F]{1,2}[:-]){0,5}[0-9a-fA-F]{0,2}")


class Ipv4(Codec):
    """An IPv4 address in network order, shown as "10.0.0.1"."""

    size = 4

    def __init__(self, name: str) -> None:
        self.name = name

    def shown(self, column: Column) -> Texts:
        return [f'"{text}"' for text in map(socket.inet_ntoa, column)]

    @property
    def plain(self) -> str:
        return '"([0-9.]{7,15}+)"'

    def packed(self, texts: Sequence[bytes]) -> bytes:
        return b"".join(socket.inet_pton(socket.AF_INET, text.decode()) for text in texts)

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        return _address(socket.AF_INET, "an IPv4 address", node, path)

    def begins(self, token: str) -> bool:
        return _BEGINS_IPV4.fullmatch(token) is not None


class Ipv6(Codec):
    """An IPv6 address, shown as "2001:db8::1", in the form that ip(8) has."""

    size = 16

    def __init__(self, name: str) -> None:
        self.name = name

    def shown(self, column: Column) -> Texts:
        return [f'"{socket.inet_ntop(socket.AF_INET6, item)}"' for item in column]

    @property
    def plain(self) -> str:
        return '"([0-9a-f:.]{2,45}+)"'

    def packed(self, texts: Sequence[bytes]) -> bytes:
        return b"".join(socket.inet_pton(socket.AF_INET6, text.decode()) for text in texts)

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        return _address(socket.AF_INET6, "an IPv6 address", node, path)

    def begins(self, token: str) -> bool:
        return _BEGINS_IPV6.fullmatch(token) is not None


def _address(family: socket.AddressFamily, wanted: str, node: Node, path: str) -> bytes:
    text = scalar(node, path, wanted)
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError):  # ValueError: a NUL, or no ASCII
        raise refusal(path, f"expected {wanted}, got {clip(text)!r}", node.at) from None


class Mac(Codec):
    """A hardware address, shown as "52:54:00:12:34:56"."""

    size = 6

    def __init__(self, name: str) -> None:
        self.name = name

    def shown(self, column: Column) -> Texts:
        return [f'"{item.hex(":")}"' for item in column]

    @property
    def plain(self) -> str:
        return '"([0-9a-f]{2}(?::[0-9a-f]{2}){5})"'

    def packed(self, texts: Sequence[bytes]) -> bytes:
        return bytes.fromhex(b"".join(texts).replace(b":", b"").decode())

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        text = scalar(node, path, "a hardware address")
        if not _MAC.fullmatch(text):
            message = f"expected a hardware address, got {clip(text)!r}"
            raise refusal(path, message, node.at)
        return bytes(int(byte, 16) for byte in re.split("[:-]", text))

    def begins(self, token: str) -> bool:
        return _BEGINS_MAC.fullmatch(token) is not None
