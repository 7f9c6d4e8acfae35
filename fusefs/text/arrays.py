"""Codecs for what is many times the same: arrays, and the values of a per-CPU map."""

from __future__ import annotations

import functools
from collections.abc import Callable

from fusefs.text.codec import MOST_CELLS, Codec, Column, Flat, Texts, undivided, unpacked
from fusefs.text.errors import Refused, clip, refusal
from fusefs.text.parse import Mapping, Node, Sequence

SUM_REASON = "a sum over all CPUs cannot be written; set `percpu: each`"


class _Repeated(Codec):
    """`count` times `element`, each `stride` bytes after the one before, shown as an array.

    The bytes between element and stride are padding.
    """

    takes_sequence = True

    def __init__(self, element: Codec, count: int, name: str, stride: int) -> None:
        self.element = element
        self.count = count
        self.name = name
        self.stride = stride
        self.size = stride * count
        self.weight = 1 + count * element.weight
        self.depth = 1 + element.depth

    @functools.cached_property
    def mask(self) -> int:
        element = self.element.mask.to_bytes(self.stride, "little")
        return int.from_bytes(element * self.count, "little")

    @functools.cached_property
    def flat(self) -> Flat:
        inner, count = self.element.flat, self.count
        if len(inner.cells) * count > MOST_CELLS:
            return undivided(self)
        cells = (cell for index in range(count) for cell in inner.at(index * self.stride))
        json, bare = ", ".join([inner.json] * count), ",".join([inner.bare] * count)
        return Flat(tuple(cells), f"[{json}]", f"[{bare}]")

    def _elements(self, column: Column) -> Column:
        """The elements of all values of a column, one after the other."""
        if not self.size:
            return [b""] * (len(column) * self.count)
        pad = self.stride - self.element.size
        return unpacked(self.element, b"".join(column), pad)

    def _joined(self, texts: Texts, separator: str) -> Texts:
        words, count = list(map(str, texts)), self.count
        return [f"[{separator.join(words[at : at + count])}]" for at in range(0, len(words), count)]

    def shown(self, column: Column) -> Texts:
        return self._joined(self.element.shown(self._elements(column)), ", ")

    def named(self, column: Column) -> Texts:
        return self._joined(self.element.named(self._elements(column)), ",")

    def parts(self, data: bytes) -> list[bytes]:
        """The bytes of each element of one value."""
        size, stride = self.element.size, self.stride
        return [data[index * stride : index * stride + size] for index in range(self.count)]


class Array(_Repeated):
    """An array. It is empty when it has no elements, or nothing of them is shown."""

    def __init__(self, element: Codec, count: int, name: str) -> None:
        shown = count if element.shows else 0
        super().__init__(element, shown, name, element.size)
        self.size = element.size * count
        self.shows = shown > 0

    def of(self, change: Callable[[Codec], Codec]) -> Array:
        """The same with another codec for its elements."""
        return Array(change(self.element), self.count, self.name)

    @functools.cached_property
    def mask(self) -> int:
        return super().mask if self.count else 0

    def shown(self, column: Column) -> Texts:
        return super().shown(column) if self.count else ["[]"] * len(column)

    def named(self, column: Column) -> Texts:
        return super().named(column) if self.count else ["[]"] * len(column)

    def summed(self, column: Column, count: int) -> Texts:
        if not self.count:
            return ["[]"] * (len(column) // count)
        elements, length = self._elements(column), self.count
        # Elements of the same index come to lie beside one another.
        beside = [
            element
            for at in range(0, len(elements), length * count)
            for index in range(length)
            for element in elements[at + index : at + length * count : length]
        ]
        return self._joined(self.element.summed(beside, count), ", ")

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        if not isinstance(node, Sequence):
            got = "an object" if isinstance(node, Mapping) else repr(clip(node.text))
            raise refusal(path, f"expected an array for {self.name}, got {got}", node.at)
        if len(node.items) != self.count:
            message = f"expected {self.count} elements, got {len(node.items)}"
            raise refusal(path, message, node.at)
        if not self.count:
            return old
        pairs = zip(node.items, self.parts(old), strict=True)
        return b"".join(
            self.element.encode(item, part, f"{path}[{index}]")
            for index, (item, part) in enumerate(pairs)
        )


class PerCpu(_Repeated):
    """A value for each of `ncpus` CPUs, each on a multiple of eight bytes, as the kernel copies
    them (kernel/bpf/hashtab.c, bpf_percpu_hash_copy: round_up(value_size, 8)).

    Shown as an array with an element for each CPU. An array of that length sets each, any other
    value sets all; where the value is an array itself, an array whose elements are all values is
    taken for the CPUs'. The bytes between value and stride are zero.
    """

    def __init__(self, inner: Codec, ncpus: int) -> None:
        super().__init__(inner, ncpus, inner.name, (inner.size + 7) // 8 * 8)

    @functools.cached_property
    def kept(self) -> int:
        element = self.element.kept.to_bytes(self.stride, "little")
        return int.from_bytes(element * self.count, "little")

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        ncpus, takes_sequence = self.count, self.element.takes_sequence
        if not isinstance(node, Sequence):
            return self._encode([node] * ncpus, [path] * ncpus, old)
        if len(node.items) != ncpus:
            if takes_sequence:
                return self._encode([node] * ncpus, [path] * ncpus, old)
            message = f"expected {ncpus} elements, one for each CPU, got {len(node.items)}"
            raise refusal(path, message, node.at)
        try:
            paths = [f"{path}[{cpu}]" for cpu in range(ncpus)]
            return self._encode(list(node.items), paths, old)
        except Refused as each:
            if not takes_sequence:
                raise
            try:
                return self._encode([node] * ncpus, [path] * ncpus, old)
            except Refused:
                raise each from None

    def _encode(self, nodes: list[Node], paths: list[str], old: bytes) -> bytes:
        parts = zip(nodes, self.parts(old), paths, strict=True)
        return b"".join(
            self.element.encode(node, part, path).ljust(self.stride, b"\0")
            for node, part, path in parts
        )

    def begins(self, token: str) -> bool:
        return self.element.begins(token)


class PerCpuSum(PerCpu):
    """The same values, shown as one: its numbers are the sums over all CPUs (see
    `Codec.summed`). It cannot be written."""

    @property
    def flat(self) -> Flat:
        return undivided(self)

    def shown(self, column: Column) -> Texts:
        return self.element.summed(self._elements(column), self.count)

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        raise refusal(path, SUM_REASON, node.at)
