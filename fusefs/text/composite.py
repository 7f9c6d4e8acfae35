"""Codecs for what is made of parts: structs, unions, data sections, arrays."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from fusefs.text.codec import Codec, Json, scalar
from fusefs.text.errors import clip, refusal
from fusefs.text.parse import Mapping, Node, Sequence

_LISTED = 8  # field names in a reason


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A member `offset` bytes into its struct or union.

    One without a name is a struct or union itself, whose members are shown as its parent's own.
    """

    name: str
    offset: int
    codec: Codec

    @property
    def end(self) -> int:
        """The offset of the byte after it."""
        return self.offset + self.codec.size

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which it is shown."""
        if isinstance(self.codec, Composite) and not self.name:
            return self.codec.names
        return (self.name,)

    def apply(self, node: Node, data: bytearray, path: str) -> None:
        """Encode `node` into its place in `data`."""
        where = f"{path}.{self.name}" if path and self.name else path or self.name
        old = bytes(data[self.offset : self.end])
        data[self.offset : self.end] = self.codec.encode(node, old, where)


class Composite(Codec):
    """A struct or union: named parts, shown as an object.

    `parts` are those that are shown; no two of their names may be equal.
    """

    def __init__(self, name: str, size: int, parts: SequenceOf[Part]) -> None:
        self.name = name
        self.size = size
        self.parts = tuple(parts)
        self.shows = bool(parts)
        self.weight = 1 + sum(part.codec.weight for part in parts)
        self.depth = 1 + max((part.codec.depth for part in parts), default=0)
        self._owners = {shown: part for part in parts for shown in part.names}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all members, in order."""
        return tuple(self._owners)

    def member(self, name: str) -> Codec | None:
        """The codec of the member of this name, or None when there is none."""
        part = self._owners.get(name)
        if part is not None and not part.name and isinstance(part.codec, Composite):
            return part.codec.member(name)
        return part.codec if part is not None else None

    def split(self, data: bytes) -> Iterator[tuple[str, Codec, bytes]]:
        """The name, codec and bytes of each member."""
        for part in self.parts:
            own = data[part.offset : part.end]
            if not part.name and isinstance(part.codec, Composite):
                yield from part.codec.split(own)
            else:
                yield part.name, part.codec, own

    def decode(self, data: bytes) -> dict[str, Json]:
        return {name: codec.decode(own) for name, codec, own in self.split(data)}

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        if isinstance(node, Mapping):
            return self._apply(self._assigned(node, path), node, old, path)
        if isinstance(node, Sequence):
            raise refusal(path, f"expected an object for {self.name}, got an array", node.at)
        text = scalar(node, path, self.name)
        raise refusal(path, f"expected an object for {self.name}, got {clip(text)!r}", node.at)

    @abstractmethod
    def _apply(
        self, assigned: list[tuple[Part, Node]], node: Node, old: bytes, path: str
    ) -> bytes: ...

    def _assigned(self, node: Mapping, path: str) -> list[tuple[Part, Node]]:
        """The members of `node` by the parts that they are for."""
        assigned: dict[Part, Node] = {}
        for name, at, value in node.members:
            part = self._owners.get(name)
            if part is None:
                raise self._unknown(name, at, path)
            if part.name:
                assigned[part] = value
            else:
                earlier = assigned.get(part)
                others = earlier.members if isinstance(earlier, Mapping) else ()
                assigned[part] = Mapping(node.at, (*others, (name, at, value)))
        return list(assigned.items())

    def _unknown(self, name: str, at: int, path: str) -> Exception:
        known = ", ".join(self.names[:_LISTED]) + (", ..." if len(self.names) > _LISTED else "")
        fields = f"its fields are {known}" if known else "it has no fields"
        return refusal(path, f"{self.name} has no field {clip(name)!r}; {fields}", at)


class Struct(Composite):
    """A struct or data section. Members that are left out keep their bytes."""

    def __init__(self, name: str, size: int, parts: SequenceOf[Part]) -> None:
        super().__init__(name, size, parts)
        self._plain = self._plain_format()

    def _plain_format(self) -> struct.Struct | None:
        """The format that unpacks all parts at once, where there is one."""
        layout, end = "=", 0
        for part in self.parts:
            if not part.codec.format or not part.name or part.offset < end:
                return None
            layout += f"{part.offset - end}x{part.codec.format}"
            end = part.end
        return struct.Struct(f"{layout}{self.size - end}x")

    def decode(self, data: bytes) -> dict[str, Json]:
        if self._plain:
            return dict(zip(self._owners, self._plain.unpack(data), strict=True))
        return super().decode(data)

    def _apply(self, assigned: list[tuple[Part, Node]], node: Node, old: bytes, path: str) -> bytes:
        data = bytearray(old)
        for part, value in assigned:
            part.apply(value, data, path)
        return bytes(data)


class Union(Composite):
    """A union: every member is shown, as what it makes of the same bytes.

    On writing, members that say what `old` holds already change nothing; the others are written,
    and refused unless every one of them holds of the result. So one member can be changed in what
    was read, and what was read can be written to a new entry.
    """

    def __init__(self, name: str, size: int, parts: SequenceOf[Part]) -> None:
        super().__init__(name, size, parts)
        self.weight *= 3  # each member is encoded to see a change, to write it, and to check it

    def _apply(self, assigned: list[tuple[Part, Node]], node: Node, old: bytes, path: str) -> bytes:
        changed = [
            (part, value) for part, value in assigned if self._changes(part, value, old, path)
        ]
        data = bytearray(old)
        for part, value in changed:
            part.apply(value, data, path)
        result = bytes(data)
        if len(changed) > 1 and any(
            self._changes(part, value, result, path) for part, value in changed
        ):
            names = " and ".join(" ".join(part.names[:1]) for part, _ in changed[:2])
            raise refusal(path, f"{names} share their bytes, and are given different ones", node.at)
        return result

    def _changes(self, part: Part, value: Node, old: bytes, path: str) -> bool:
        data = bytearray(old)
        part.apply(value, data, path)
        return data != old


class Array(Codec):
    """`count` elements, shown as an array; as an empty one when nothing of an element is shown."""

    takes_sequence = True

    def __init__(self, element: Codec, count: int, name: str) -> None:
        self.element = element
        self.count = count if element.shows else 0
        self.name = name
        self.size = element.size * count
        self.shows = self.count > 0
        self.weight = 1 + self.count * element.weight
        self.depth = 1 + element.depth
        self._plain = struct.Struct(f"={count}{element.format}") if element.format else None

    def split(self, data: bytes) -> list[bytes]:
        """The bytes of each element that is shown."""
        size = self.element.size
        return [data[at : at + size] for at in range(0, self.count * size, size or 1)]

    def decode(self, data: bytes) -> list[Json]:
        if self._plain:
            return list(self._plain.unpack(data))
        return [self.element.decode(item) for item in self.split(data)]

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        if not isinstance(node, Sequence):
            got = "an object" if isinstance(node, Mapping) else repr(clip(node.text))
            raise refusal(path, f"expected an array for {self.name}, got {got}", node.at)
        if len(node.items) != self.count:
            message = f"expected {self.count} elements, got {len(node.items)}"
            raise refusal(path, message, node.at)
        if not self.count:
            return old
        pairs = zip(node.items, self.split(old), strict=True)
        return b"".join(
            self.element.encode(item, part, f"{path}[{index}]")
            for index, (item, part) in enumerate(pairs)
        )
