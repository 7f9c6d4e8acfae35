"""Records of a ring: bytes of any length, of which a format may say what they are."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

from fusefs.text.codec import Codec, Column, Texts, scalar, unpacked
from fusefs.text.composite import Composite
from fusefs.text.errors import Refused, clip, refusal
from fusefs.text.parse import Mapping, Node, Scalar, Sequence
from fusefs.text.strings import CharArray, Raw

# Codecs of so many lengths are kept. Programs write records of a few; those of texts are many.
_KEPT = 256
# Begins as records of any length do.
_ANY = Raw(1 << 32)


class Records(Codec):
    """Records, each of which has a length of its own; `size` is 0.

    Those of the length of `item` are shown as such, and all others as a string of hexadecimal
    digits. Both can be written: a text that is no `item` makes a record of as many bytes as it has
    pairs of digits. What is read over an old record has its length.
    """

    size = 0
    name = "a record"

    def __init__(self, item: Codec | None = None) -> None:
        self.item = item
        self.weight = item.weight if item else 1
        self.depth = item.depth if item else 1

    def of(self, change: Callable[[Codec], Codec]) -> Records:
        """The same with another codec for what has a type. Raises `Refused` when nothing has."""
        if self.item is None:
            raise Refused("records have parts once `value: struct NAME` says what they are")
        return Records(change(self.item))

    def codec(self, length: int) -> Codec:
        """The codec of the records of this length."""
        return self.item if self.item and self.item.size == length else Raw(length)

    def shown(self, column: Column) -> Texts:
        if len(lengths := set(map(len, column))) == 1:
            codec = self.codec(lengths.pop())
            if codec.size:
                return codec.shown(unpacked(codec, b"".join(column)))
        texts: list[object] = ['""'] * len(column)
        places: dict[int, list[int]] = {length: [] for length in lengths if length}
        for place, record in enumerate(column):
            if record:
                places[len(record)].append(place)
        for same in places.values():
            for place, text in zip(same, self.shown([column[at] for at in same]), strict=True):
                texts[place] = text
        return texts

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        if old:
            return self.codec(len(old)).encode(node, old, path)
        try:
            return self.of_text(node, path)
        except Refused:
            data = self.digits(node)
            if data is None:
                raise
            return data

    def digits(self, node: Node) -> bytes | None:
        """The bytes that hexadecimal digits give, or None for what is none of them. They are in
        quotes where others could be meant."""
        if not isinstance(node, Scalar) or not (node.quoted or self.bare):
            return None
        try:
            return bytes.fromhex(node.text)
        except ValueError:
            return None

    @property
    def bare(self) -> bool:
        """Whether a word that is no record of a type can be nothing but hexadecimal digits."""
        return self.item is None or isinstance(self.item, Composite)

    def of_text(self, node: Node, path: str) -> bytes:
        """A record of what has a type, or else of the length that the text alone tells."""
        if self.item:
            return self.item.encode(node, bytes(self.item.size), path)
        wanted = "hexadecimal digits, two for each byte" + ("" if self.bare else ", in quotes")
        text = scalar(node, path, wanted)
        raise refusal(path, f"expected {wanted}, got {clip(text)!r}", node.at)

    def begins(self, token: str) -> bool:
        return _ANY.begins(token) or bool(self.item and self.item.begins(token))


class SizedRecords(Records):
    """Records that a format makes something of by their length, whatever that is: an integer has as
    many bytes as the record, and alone does not tell how many."""

    bare = False

    def __init__(self, form: Callable[[Codec], Codec]) -> None:
        """`form` makes the codec of bytes without a type that of the format. Raises `Refused` for a
        length that it is not for."""
        super().__init__()
        self._form = form
        self._codecs: dict[int, Codec] = {}

    def codec(self, length: int) -> Codec:
        if (codec := self._codecs.get(length)) is None:
            if len(self._codecs) >= _KEPT:
                self._codecs.clear()
            try:
                codec = self._form(Raw(length))
            except Refused:
                codec = Raw(length)
            self._codecs[length] = codec
        return codec

    def of_text(self, node: Node, path: str) -> bytes:
        if isinstance(self.codec(1), CharArray) and not isinstance(node, Mapping):
            items = node.items if isinstance(node, Sequence) else node.text.encode()
            return self.codec(len(items)).encode(node, b"", path)
        return super().of_text(node, path)

    def begins(self, token: str) -> bool:
        return isinstance(self.codec(1), CharArray) or super().begins(token)


def record_lines(records: Records, column: SequenceOf[bytes]) -> list[bytes]:
    """A line of JSON for each record, with its newline."""
    return [b"%b\n" % str(text).encode() for text in records.shown(column)] if column else []
