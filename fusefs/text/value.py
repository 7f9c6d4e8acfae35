"""The text of a value, and the value of a text."""

from __future__ import annotations

from fusefs.text.codec import Codec, shown, unpacked
from fusefs.text.columns import Layout
from fusefs.text.errors import Incomplete, refusal
from fusefs.text.names import hides
from fusefs.text.parse import Scalar, parse


def to_text(codec: Codec, data: bytes) -> str:
    """`data` as one line of JSON, with its newline."""
    return f"{codec.shown(unpacked(codec, data))[0]}\n"


def to_texts(codec: Codec, data: bytes) -> list[bytes]:
    """`to_text` of each of the values that lie in `data` one after the other, as UTF-8."""
    columns = Layout(codec.size, codec.flat.cells).texts(data, shown)
    count = len(data) // codec.size
    fields: list[object] = [None] * (len(columns) * count)
    for number, column in enumerate(columns):
        fields[number :: len(columns)] = column
    # JSON has no newline within.
    text = f"{codec.flat.json}\n" * count % tuple(fields)
    return text.encode().splitlines(keepends=True)


class Lines:
    """Entries as JSON Lines: `{"key": ..., "value": ...}` and a newline for each.

    A key that its text does not tell in full (say, one with something in its padding) has a third
    member, `"raw"`: all its bytes as hexadecimal digits in memory order.
    """

    def __init__(self, key: Codec, value: Codec) -> None:
        self.key = key
        self.value = value
        self._layouts = [Layout(codec.size, codec.flat.cells) for codec in (key, value)]
        self._template = self._template_of()

    def _template_of(self, hiding: bytes = b"") -> str:
        """What is between the fields of an entry; `hiding` is a key that is not told in full."""
        raw = f', "raw": "{hiding.hex()}"' if hiding else ""
        return f'{{"key": {self.key.flat.json}{raw}, "value": {self.value.flat.json}}}\n'

    def _templates(self, keys: bytes) -> str:
        """The same for several entries."""
        size = self.key.size
        if not hides(self.key, keys):
            return self._template * (len(keys) // size)
        each = (keys[at : at + size] for at in range(0, len(keys), size))
        return "".join(self._template_of(key if hides(self.key, key) else b"") for key in each)

    def text(self, keys: bytes, values: bytes) -> str:
        """The lines of the entries whose keys and values lie one after the other."""
        # All are made by one `%`: the fields of the first entry, those of the second, ...
        columns = [
            column
            for layout, data in zip(self._layouts, (keys, values), strict=True)
            for column in layout.texts(data, shown)
        ]
        count = len(keys) // self.key.size
        fields: list[object] = [None] * (len(columns) * count)
        for number, column in enumerate(columns):
            fields[number :: len(columns)] = column
        return self._templates(keys) % tuple(fields)


def from_text(codec: Codec, text: str, old: bytes) -> bytes:
    """The bytes of the value that `text` gives, over `old` (see `Codec.encode`).

    Raises `Refused` when it gives none, and `Incomplete` when it ends too early to tell.
    """
    return codec.encode(parse(text), old)


def check_begins(codec: Codec, text: str, old: bytes | None = None) -> None:
    """Raise `Refused` if `text`, whose final newline is yet to come, can become no value.

    With `old` given, a text that is complete but for its newline is tried out on it as well.
    """
    try:
        node = parse(text)
    except Incomplete:
        return
    if isinstance(node, Scalar) and not node.quoted:
        if not codec.begins(node.text):
            codec.encode(node, bytes(codec.size))  # whose reason is better
            raise refusal("", f"this begins no {codec.name}", node.at)
    elif old is not None:
        codec.encode(node, old)
