"""A codec for sockets: a cookie, and what is known of the socket that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf

from fusefs.text.codec import Codec, Column, Texts
from fusefs.text.errors import refusal
from fusefs.text.jsontext import to_json
from fusefs.text.parse import Node

# What is known of sockets, by their cookies: members of the object that shows one.
Known = Mapping[int, Mapping[str, str]]

_COOKIE = 8  # bytes


class Socket(Codec):
    """A socket as an object: `{"cookie": 4711, "protocol": "tcp", …}`, of which the members behind
    the cookie are there as far as they are known. It cannot be written.

    Values that are too small for a cookie say nothing, and are shown as `{}`.
    """

    name = "socket"
    weight = 6

    def __init__(self, size: int, known: Callable[[SequenceOf[int]], Known]) -> None:
        """`known` tells of sockets by their cookies; those that are not found are left out."""
        self.size = size
        self._known = known

    @property
    def code(self) -> str:
        return "Q" if self.size == _COOKIE else super().code

    def by(self, known: Callable[[SequenceOf[int]], Known]) -> Socket:
        """The same, told of sockets by another."""
        return Socket(self.size, known)

    def shown(self, column: Column) -> Texts:
        if self.size != _COOKIE:
            return ["{}"] * len(column)
        known = self._known(column)
        return [to_json({"cookie": cookie, **known.get(cookie, {})}) for cookie in column]

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        raise refusal(path, "a socket is put in by its owner, or by a program", node.at)
