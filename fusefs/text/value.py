"""The text of a value, and the value of a text."""

from __future__ import annotations

from collections.abc import Iterator

from fusefs.text.codec import Codec, unpacked
from fusefs.text.errors import Incomplete, refusal
from fusefs.text.parse import Scalar, parse


def to_text(codec: Codec, data: bytes) -> str:
    """`data` as one line of JSON, with its newline."""
    return f"{codec.shown(unpacked(codec, data))[0]}\n"


def to_lines(key: Codec, value: Codec, keys: bytes, values: bytes) -> Iterator[str]:
    """A line of JSON, `{"key": ..., "value": ...}` and a newline, for each of the `keys` and
    `values` that lie one after the other."""
    pairs = zip(key.shown(unpacked(key, keys)), value.shown(unpacked(value, values)), strict=True)
    return map('{"key": %s, "value": %s}\n'.__mod__, pairs)


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
