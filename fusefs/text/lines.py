"""The lines of `entries.jsonl`: a key and a value each, read back into bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fusefs.text.codec import Codec
from fusefs.text.errors import Refused
from fusefs.text.names import whole_key
from fusefs.text.parse import Mapping, Node, Scalar, parse
from fusefs.text.strings import Raw

KEY, RAW, VALUE = "key", "raw", "value"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a line says: the value for a key.

    The bits of `kept`, counted as those of `Codec.mask`, stay as they are in the map; in `value`
    they are zero, as for a new entry.
    """

    key: bytes
    value: bytes
    kept: int


def from_line(key: Codec, value: Codec, line: str, old: Callable[[bytes], bytes]) -> Entry:
    """What a line says. It is `{"key": …, "value": …}`, with all that may be written for either;
    `"raw": …` has all bytes of a key that is not told in full (see `fusefs.text.value.Lines`).

    `old` gives the value that the map has for a key, zeros where it has none; it is asked for only
    where the text cannot be told without it. Raises `Refused` with the place in the line, and
    `Incomplete`.
    """
    members = _members(line)
    own = whole_key(key, members[KEY], KEY)
    if RAW in members:
        own = _raw_key(key, members[RAW], own)
    node = members[VALUE]
    try:
        over_zeros = value.encode(node, bytes(value.size), VALUE)
        if isinstance(node, Scalar):
            return Entry(own, over_zeros, value.kept)
        over_ones = value.encode(node, b"\xff" * value.size, VALUE)
    except Refused:
        # A member of a union may be changed beside others that say what is there already.
        over_old = int.from_bytes(value.encode(node, old(own), VALUE), "little")
        return Entry(own, (over_old & ~value.kept).to_bytes(value.size, "little"), value.kept)
    differing = int.from_bytes(over_zeros, "little") ^ int.from_bytes(over_ones, "little")
    return Entry(own, over_zeros, differing)


def _raw_key(codec: Codec, node: Node, told: bytes) -> bytes:
    """The key whose bytes `node` gives, of which `told` is what the text tells."""
    key = Raw(codec.size).encode(node, bytes(codec.size), RAW)
    differing = int.from_bytes(key, "little") ^ int.from_bytes(told, "little")
    if differing & codec.mask:
        raise Refused(f"{RAW} is not what {KEY} tells", node.at)
    return key


def _members(line: str) -> dict[str, Node]:
    node = parse(line)
    wanted = f'{{"{KEY}": …, "{VALUE}": …}}'
    if not isinstance(node, Mapping):
        raise Refused(f"expected a line like {wanted}", node.at)
    members = {name: member for name, _at, member in node.members}
    for name, at, _member in node.members:
        if name not in (KEY, RAW, VALUE):
            raise Refused(f"{name!r} is neither {KEY} nor {VALUE}, as in {wanted}", at)
    for name in (KEY, VALUE):
        if name not in members:
            raise Refused(f"there is no {name}, as in {wanted}", node.at)
    return members
