"""Codecs for numbers that have names, and for objects that one of their members stands for."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from typing import ClassVar

from fusefs.text.codec import Texts, scalar
from fusefs.text.composite import Struct
from fusefs.text.errors import clip, refusal
from fusefs.text.jsontext import to_json
from fusefs.text.parse import Mapping, Node, Scalar
from fusefs.text.scalars import Number, to_integer


class Label(Number):
    """A number shown as its name, or null when it has none at present."""

    def __init__(
        self,
        name: str,
        size: int,
        label: Callable[[int], str | None],
        number: Callable[[str], int | None],
    ) -> None:
        """`label` gives the name of a number, and `number` the number of a name; None for none."""
        super().__init__(name, size, signed=False)
        self._label = label
        self._number = number

    def spelled(self, numbers: SequenceOf[int]) -> Texts:
        return [to_json(self._label(number)) for number in numbers]

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        text = scalar(node, path, self.name)
        if text == "null" and isinstance(node, Scalar) and not node.quoted:
            return old
        number = self._number(text)
        if number is None:
            raise refusal(path, f"there is no {self.name} {clip(text)!r}", node.at)
        return number.to_bytes(self.size, self.order)


class Headed(Struct):
    """A struct for which a bare number or word can stand: it sets the member `number`, or `word`.
    Subclasses name them."""

    number: ClassVar[str]
    word: ClassVar[str]

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        if isinstance(node, Scalar):
            member = self.number if to_integer(node.text) is not None else self.word
            node = Mapping(node.at, ((member, node.at, node),))
        return super().encode(node, old, path)

    def begins(self, token: str) -> bool:
        return True
