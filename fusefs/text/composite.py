"""Codecs for what is made of parts: structs, unions, data sections."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from fusefs.text.codec import (
    MOST_CELLS,
    Cell,
    Codec,
    Column,
    Flat,
    Form,
    Texts,
    named,
    scalar,
    shown,
    undivided,
)
from fusefs.text.columns import Layout
from fusefs.text.errors import clip, refusal
from fusefs.text.escaping import escape_word
from fusefs.text.jsontext import to_json
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

    def of(self, name: str, change: Callable[[Codec], Codec]) -> Composite:
        """The same with another codec for the member of this name. Raises KeyError."""
        owner = self._owners[name]
        inner = owner.codec
        if not owner.name and isinstance(inner, Composite):
            codec: Codec = inner.of(name, change)
        else:
            codec = change(inner)
        changed = Part(owner.name, owner.offset, codec)
        parts = [changed if part is owner else part for part in self.parts]
        return type(self)(self.name, self.size, parts)

    @functools.cached_property
    def mask(self) -> int:
        mask = bytearray(self.size)
        for part in self.parts:
            own = int.from_bytes(mask[part.offset : part.end], "little") | part.codec.mask
            mask[part.offset : part.end] = own.to_bytes(part.codec.size, "little")
        return int.from_bytes(mask, "little")

    @functools.cached_property
    def flat(self) -> Flat:
        cells: list[Cell] = []
        json: list[str] = []
        bare: list[str] = []
        for part in self.parts:
            inner = part.codec.flat
            if part.name and len(cells) + len(inner.cells) > MOST_CELLS:
                inner = undivided(part.codec)
            cells.extend(inner.at(part.offset))
            if part.name:
                json.append(f"{_literal(to_json(part.name))}: {inner.json}")
                bare.append(f"{_literal(escape_word(part.name))}={inner.bare}")
            else:  # its members are among ours, and so without its braces
                json.append(inner.json[1:-1])
                bare.append(inner.bare[1:-1])
        return Flat(tuple(cells), f"{{{', '.join(json)}}}", f"{{{','.join(bare)}}}")

    @functools.cached_property
    def _layout(self) -> Layout:
        return Layout(self.size, self.flat.cells)

    def _texts(self, column: Column, form: Form, template: str) -> Texts:
        if not self.shows:
            return [template] * len(column)
        columns = self._layout.texts(b"".join(column), form)
        return list(map(template.__mod__, zip(*columns, strict=True)))

    def shown(self, column: Column) -> Texts:
        return self._texts(column, shown, self.flat.json)

    def summed(self, column: Column, count: int) -> Texts:
        if not self.shows:
            return [self.flat.json] * (len(column) // count)
        return self._texts(column, lambda codec, cell: codec.summed(cell, count), self.flat.json)

    def named(self, column: Column) -> Texts:
        return self._texts(column, named, self.flat.bare)

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
        hoisted: dict[Part, list[tuple[str, int, Node]]] = {}
        for name, at, value in node.members:
            part = self._owners.get(name)
            if part is None:
                raise self._unknown(name, at, path)
            if part.name:
                assigned[part] = value
            else:
                assigned[part] = node  # in its place, for now
                hoisted.setdefault(part, []).append((name, at, value))
        for part, members in hoisted.items():
            assigned[part] = Mapping(node.at, tuple(members))
        return list(assigned.items())

    def _unknown(self, name: str, at: int, path: str) -> Exception:
        known = ", ".join(self.names[:_LISTED]) + (", ..." if len(self.names) > _LISTED else "")
        fields = f"its fields are {known}" if known else "it has no fields"
        return refusal(path, f"{self.name} has no field {clip(name)!r}; {fields}", at)


class Struct(Composite):
    """A struct or data section. Members that are left out keep their bytes."""

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


def _literal(text: str) -> str:
    """`text` for a place where `%` has a meaning."""
    return text.replace("%", "%%")
