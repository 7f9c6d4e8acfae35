"""What every codec can do: bytes of one type to JSON values, and parsed text to bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fusefs.text.errors import Refused, refusal
from fusefs.text.jsontext import Json
from fusefs.text.parse import Node, Scalar, Sequence

__all__ = ["Codec", "Json", "PerCpu", "scalar"]


class Codec(ABC):
    """Bytes of one type, to and from values.

    `size` is in bytes. `name` is the type in C, for reasons. `shows` is False for a type of which
    nothing is shown. `weight` bounds the number of scalars that one decode or encode visits, and
    `depth` is the number of types that are within one another.
    `takes_sequence` tells the codecs that read arrays. `format` is the type's character in a
    native `struct` format of standard sizes, where unpacking gives just what `decode` gives.
    """

    size: int
    name: str
    shows: bool = True
    weight: int = 1
    depth: int = 1
    takes_sequence: bool = False
    format: str = ""

    @abstractmethod
    def decode(self, data: bytes) -> Json:
        """The value of `data`, which is `size` bytes; there is one for any bytes."""

    @abstractmethod
    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        """The bytes of the value that `node` gives, over `old`, the `size` bytes of before.

        What is not in the text keeps its bytes of `old`: fields that are left out, padding, and
        fields that are not shown. `path` names the value in reasons. Raises `Refused`.
        """

    def begins(self, token: str) -> bool:
        """Whether the bare `token` can still become a value by adding characters to it."""
        return not token


def scalar(node: Node, path: str, wanted: str) -> str:
    """The text of a scalar; refuses an array or object where `wanted` belongs."""
    if isinstance(node, Scalar):
        return node.text
    got = "an array" if isinstance(node, Sequence) else "an object"
    raise refusal(path, f"expected {wanted}, got {got}", node.at)


class PerCpu(Codec):
    """A value for each of `ncpus` CPUs, each on a multiple of eight bytes, as the kernel copies
    them (kernel/bpf/hashtab.c, bpf_percpu_hash_copy: round_up(value_size, 8)).

    Shown as an array with an element for each CPU. An array of that length sets each, any other
    value sets all; where the value is an array itself, an array whose elements are all values is
    taken for the CPUs'. The bytes between value and stride are zero.
    """

    takes_sequence = True

    def __init__(self, inner: Codec, ncpus: int) -> None:
        self.inner = inner
        self.ncpus = ncpus
        self.stride = (inner.size + 7) // 8 * 8
        self.size = self.stride * ncpus
        self.name = inner.name
        self.weight = inner.weight * ncpus

    def decode(self, data: bytes) -> Json:
        return [self.inner.decode(part) for part in self._parts(data)]

    def _parts(self, data: bytes) -> list[bytes]:
        size = self.inner.size
        return [data[cpu * self.stride :][:size] for cpu in range(self.ncpus)]

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        if not isinstance(node, Sequence):
            return self._encode([node] * self.ncpus, [path] * self.ncpus, old)
        if len(node.items) != self.ncpus:
            if self.inner.takes_sequence:
                return self._encode([node] * self.ncpus, [path] * self.ncpus, old)
            raise refusal(
                path,
                f"expected {self.ncpus} elements, one for each CPU, got {len(node.items)}",
                node.at,
            )
        try:
            paths = [f"{path}[{cpu}]" for cpu in range(self.ncpus)]
            return self._encode(list(node.items), paths, old)
        except Refused as each:
            if not self.inner.takes_sequence:
                raise
            try:
                return self._encode([node] * self.ncpus, [path] * self.ncpus, old)
            except Refused:
                raise each from None

    def _encode(self, nodes: list[Node], paths: list[str], old: bytes) -> bytes:
        parts = zip(nodes, self._parts(old), paths, strict=True)
        return b"".join(
            self.inner.encode(node, part, path).ljust(self.stride, b"\0")
            for node, part, path in parts
        )

    def begins(self, token: str) -> bool:
        return self.inner.begins(token)
