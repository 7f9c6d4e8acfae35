"""Codecs for Internet addresses: struct in_addr and struct in6_addr."""

from __future__ import annotations

import ipaddress
import re

from fusefs.text.codec import Codec, scalar
from fusefs.text.errors import clip, refusal
from fusefs.text.parse import Node

_BEGINS_IPV4 = re.compile(r"[0-9]{0,3}(?:\.[0-9]{0,3}){0,3}")
_BEGINS_IPV6 = re.compile(r"[0-9a-fA-F:.]{0,45}")


class Ipv4(Codec):
    """An IPv4 address in network order, shown as "10.0.0.1"."""

    size = 4

    def __init__(self, name: str) -> None:
        self.name = name

    def decode(self, data: bytes) -> str:
        return "%d.%d.%d.%d" % tuple(data)  # noqa: UP031 - the quickest by far

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        text = scalar(node, path, "an IPv4 address")
        try:
            return ipaddress.IPv4Address(text).packed
        except ValueError:
            raise refusal(path, f"expected an IPv4 address, got {clip(text)!r}", node.at) from None

    def begins(self, token: str) -> bool:
        return _BEGINS_IPV4.fullmatch(token) is not None


class Ipv6(Codec):
    """An IPv6 address, shown as "2001:db8::1"."""

    size = 16

    def __init__(self, name: str) -> None:
        self.name = name

    def decode(self, data: bytes) -> str:
        return str(ipaddress.IPv6Address(data))

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        text = scalar(node, path, "an IPv6 address")
        try:
            if "%" in text:  # a scope, for which there are no bytes
                raise ValueError
            return ipaddress.IPv6Address(text).packed
        except ValueError:
            raise refusal(path, f"expected an IPv6 address, got {clip(text)!r}", node.at) from None

    def begins(self, token: str) -> bool:
        return _BEGINS_IPV6.fullmatch(token) is not None
