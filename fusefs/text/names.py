"""Keys as file names.

A name is the key's text made fit for a name: scalars bare (`42`, `XDP_PASS`, `10.0.0.1`), structs
as `saddr=10.0.0.1,dport=443`, what is nested in braces and brackets (`a={x=1,y=2},b=[1,2]`), a
char[N] as its text without trailing NULs, bytes without a type as hexadecimal digits, the keys of
LPM tries as `10.1.0.0_16`.

Within texts and field names, `%` and two hexadecimal digits stand for a byte: for `/`, `%`, the
separators `= , { } [ ]`, control characters, NULs within the text, and bytes that are not UTF-8;
for the first character of a name that would begin with a dot; for the first or last character of
one that a tool could take for its own scratch file; and for the first of a field `raw` that begins
a name. `%00` is the empty text.

A name that would be longer than a file system takes is cut, and ends in `%#` and a digest of the
key: that it is read back takes a look at all keys (`digest_of`).

A key that such a name does not tell in full (say, one with something in its padding) is named
`raw=` and all its bytes as hexadecimal digits in memory order. No other name begins with `raw=`.

So a key's name is that key's and no other's, whatever its bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from fnmatch import translate
from itertools import repeat

from fusefs.text.arrays import Array
from fusefs.text.codec import Codec, unpacked
from fusefs.text.composite import Composite
from fusefs.text.errors import Incomplete, Refused, clip
from fusefs.text.escaping import escape, percent, unescape
from fusefs.text.lpm import DATA, LENGTH, Lpm
from fusefs.text.parse import MAX_DEPTH, Mapping, Node, Scalar, Sequence, parse
from fusefs.text.scalars import Enumeration, Number
from fusefs.text.strings import CharArray

# What tools call the files that they make beside the one they save, as shell patterns: hidden
# files and editors' swap files, backups, emacs's auto-saves, sed -i, perl -i, ln -sf, mktemp, and
# mcedit.
_MADE_UP = "sed?????? XX?????? Cu?????? tmp???????? cooledit??????"
SCRATCH = (".*", "*~", "#*#", *_MADE_UP.split())

RAW = "raw="
DIGEST = "%#"  # no escape, so no other name has it
LONGEST = 255  # bytes in a name, NAME_MAX
_DIGEST_SIZE = 16
_KEPT = LONGEST - len(DIGEST) - 2 * _DIGEST_SIZE
_LEAST_CUT = LONGEST - 5  # half a character, half an escape

# How a name begins or ends that may have to be changed: as a scratch name or a raw one.
_ENDS = [re.split(r"[*?]", pattern) for pattern in (*SCRATCH, RAW)]
_HEADS = tuple(ends[0] for ends in _ENDS if ends[0])
_TAILS = tuple(ends[-1] for ends in _ENDS if not ends[0])
_SCRATCH = re.compile("|".join(translate(pattern) for pattern in SCRATCH))
_DIGEST = re.compile(f"{DIGEST}([0-9a-f]{{{2 * _DIGEST_SIZE}}})\\Z")
_HALF_ESCAPE = re.compile(r"%[0-9A-F]?\Z")
_PREFIX = re.compile(r"(.*)(?:_|/|%2[Ff])([^_/%]*)", re.DOTALL)
_ADDRESS_PREFIX = re.compile(r"(.*?)(?:_|/|%2[Ff])(.*)", re.DOTALL)
_LEAF = re.compile(r"[^=,{}\[\]]*+")


def looks_scratch(name: str) -> bool:
    """Whether a tool could have made up this name for a file of its own."""
    return _SCRATCH.match(name) is not None


def to_name(codec: Codec, data: bytes) -> str:
    """The file name of the key `data`, which is `codec.size` bytes; see `to_names`."""
    return to_names(codec, data)[0]


def to_names(codec: Codec, keys: bytes) -> list[str]:
    """The file names of the keys that lie in `keys` one after the other.

    Never empty, "." or "..", without "/", NUL and control characters, and of no more than `LONGEST`
    bytes. Different keys have different names.
    """
    texts = list(map(str, codec.named(unpacked(codec, keys))))
    if isinstance(codec, Composite):
        texts = [text[1:-1] for text in texts]
    if _are_names(texts) and not hides(codec, keys):
        return texts  # nearly always
    size = codec.size
    each = [keys[number * size :][:size] for number in range(len(texts))]
    return [_name(codec, key, text) for key, text in zip(each, texts, strict=True)]


def _are_names(texts: list[str]) -> bool:
    """Whether none of those texts has to be changed to be a name, as far as can be seen at once."""
    return (
        all(texts)
        and not any(map(str.startswith, texts, repeat(_HEADS)))
        and not any(map(str.endswith, texts, repeat(_TAILS)))
        and max(map(len, texts), default=0) <= LONGEST
        and all(map(str.isascii, texts))
    )


def hides(codec: Codec, keys: bytes) -> bool:
    """Whether one of `keys`, which lie one after the other, has a bit that their text does not
    tell."""
    hidden = (~codec.mask & (1 << codec.size * 8) - 1).to_bytes(codec.size, "little")
    if not any(hidden):
        return False
    bits = int.from_bytes(keys, "little")
    return bits & int.from_bytes(hidden * (len(keys) // codec.size), "little") != 0


def _name(codec: Codec, key: bytes, text: str) -> str:
    """The name of one key of which `text` is the text."""
    name = RAW + key.hex() if not text or hides(codec, key) else _presentable(text)
    return _fitting(name, key)


def text_to_name(text: str) -> str:
    """The file name of a key that is a text and has no codec, as `to_names` would give it."""
    return _fitting(_presentable(escape(text)), os.fsencode(text))


def text_from_name(name: str) -> str:
    """The text that a name stands for which was not cut. Raises `Refused`."""
    return os.fsdecode(unescape(name, 0))


def _fitting(name: str, key: bytes) -> str:
    """`name`, cut if it is too long."""
    if len(name) > LONGEST or len(os.fsencode(name)) > LONGEST:
        return _cut(name) + DIGEST + key_digest(key)
    return name


def key_digest(key: bytes) -> str:
    """What the name of a key ends in when it is too long."""
    return hashlib.sha256(key).hexdigest()[: 2 * _DIGEST_SIZE]


def digest_of(name: str) -> str | None:
    """The digest that a name ends in, or None when it says its key in full."""
    match = _DIGEST.search(name)
    return match[1] if match and len(os.fsencode(name)) >= _LEAST_CUT else None


def longest_name(codec: Codec) -> int:
    """A length in bytes that no name of a key passes, were it not cut."""
    return max(len(RAW) + 2 * codec.size, _longest(codec) + 2)


def _longest(codec: Codec) -> int:
    match codec:
        case Composite():
            lengths = (_longest(part.codec) + 12 * len(part.name) + 4 for part in codec.parts)
            return sum(lengths) + 2
        case Array():
            return codec.count * (_longest(codec.element) + 1) + 2
        case Lpm():
            return _longest(codec.data) + 16
        case Enumeration():
            return max([40, *(12 * len(label) for label in codec.labels)])
    return max(3 * codec.size, 64)  # a number of 16 bytes, an address, a float; bytes as %XX


def _cut(name: str) -> str:
    """As much of a name as there is room for, without half a character or half an escape."""
    start = os.fsencode(name)[:_KEPT]
    return _HALF_ESCAPE.sub("", start.decode("utf-8", "ignore"))


def from_name(codec: Codec, name: str) -> bytes:
    """The key that `name` spells, in this or any other spelling of its parts.

    Raises `Refused` when it is no key, or leaves out a part of one.
    """
    if name.startswith(RAW) and _is_raw(codec, name):
        return bytes.fromhex(name.removeprefix(RAW))
    return whole_key(codec, _read(codec, name))


def whole_key(codec: Codec, node: Node, path: str = "") -> bytes:
    """The key that `node` gives; `path` names it in reasons.

    Raises `Refused` when it gives none, or leaves out a part of one.
    """
    key = codec.encode(node, bytes(codec.size), path)
    if not isinstance(node, Scalar):
        # What is left out stays as it was, so it differs between these two.
        other = codec.encode(node, b"\xff" * codec.size, path)
        differing = int.from_bytes(key, "little") ^ int.from_bytes(other, "little")
        if missing := _first_of(codec, (differing & codec.mask).to_bytes(codec.size, "little")):
            raise Refused(f"a key needs all of its fields, and {missing} is left out", node.at)
    return key


def _presentable(name: str) -> str:
    """`name` with an escape where it would pass for a scratch name, or for a raw one."""
    if name.startswith(RAW):
        name = percent(name[0]) + name[1:]
    while looks_scratch(name):
        at = len(name) - 1 if name.endswith("~") else 0
        name = name[:at] + percent(name[at]) + name[at + 1 :]
    return name


# From a name to its key.


def _is_raw(codec: Codec, name: str) -> bool:
    """Whether a name that begins with `raw=` is of that form, and not of a field `raw`."""
    digits = name.removeprefix(RAW)
    if len(digits) == 2 * codec.size and re.fullmatch("[0-9a-fA-F]*", digits):
        return True
    if isinstance(codec, Composite) and "raw" in codec.names:
        return False
    raise Refused(f"expected {2 * codec.size} hexadecimal digits after {RAW}", len(RAW))


def _read(codec: Codec, name: str) -> Node:
    if name.isalnum() and isinstance(codec, Number):  # nothing in it is escaped
        return Scalar(0, name, quoted=False)
    if not isinstance(codec, Composite | Array | Lpm):
        return _typed(codec, Scalar(0, name, quoted=False))
    if name.startswith('{"'):  # the key as JSON, as `entries.jsonl` has it
        try:
            return parse(name)
        except Incomplete as error:
            raise Refused(error.reason, len(name)) from None
    if isinstance(codec, Lpm):
        return _prefix(codec, name)
    reader = _Reader(name)
    if isinstance(codec, Array) or name.startswith("{"):
        node = reader.value(0)
    else:
        node = reader.members(0, "", 0)
    if reader.at < len(name):
        raise Refused(f"{clip(name[reader.at :])!r} follows the key", reader.at)
    return _typed(codec, node)


def _prefix(codec: Lpm, name: str) -> Node:
    """A prefix and its length in bits, which follows a `_`."""
    match = (_ADDRESS_PREFIX if codec.of_addresses else _PREFIX).fullmatch(name)
    if not match:
        raise Refused(f"expected a prefix and its length in bits, as {clip(name)}_8", len(name))
    length = Scalar(match.start(2), match[2], quoted=False)
    return Mapping(0, ((LENGTH, match.start(2), length), (DATA, 0, _read(codec.data, match[1]))))


class _Reader:
    """A place in a name; what is read has its escapes in it still."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at = 0

    def leaf(self) -> str:
        match = _LEAF.match(self.name, self.at)
        text = match[0] if match else ""
        self.at += len(text)
        return text

    def next(self) -> str:
        return self.name[self.at : self.at + 1]

    def value(self, depth: int) -> Node:
        at, char = self.at, self.next()
        if depth > MAX_DEPTH:
            raise Refused(f"nested more than {MAX_DEPTH} deep", at)
        if char == "{":
            self.at += 1
            return self.members(at, "}", depth)
        if char == "[":
            self.at += 1
            return self.items(at, depth)
        return Scalar(at, self.leaf(), quoted=False)

    def items(self, at: int, depth: int) -> Sequence:
        items: list[Node] = []
        if self.next() != "]":
            items.append(self.value(depth + 1))
            while self.passes(",", "]"):
                items.append(self.value(depth + 1))
        self.at += 1
        return Sequence(at, tuple(items))

    def members(self, at: int, end: str, depth: int) -> Mapping:
        """Members up to `end`, which is "}", or "" for the end of the name."""
        members: list[tuple[str, int, Node]] = []
        if self.next() != end:
            members.append(self.member(depth))
            while self.passes(",", end):
                members.append(self.member(depth))
        self.at += len(end)
        names = [name for name, _at, _node in members]
        if len(names) != len(set(names)):
            raise Refused("a field is given twice", at)
        return Mapping(at, tuple(members))

    def member(self, depth: int) -> tuple[str, int, Node]:
        at = self.at
        name = unescape(self.leaf().strip(), at).decode("utf-8", "surrogateescape")
        if self.next() != "=":
            raise Refused(f"no '=' after the field name {clip(name)!r}", self.at)
        self.at += 1
        return name, at, self.value(depth + 1)

    def passes(self, comma: str, end: str) -> bool:
        """Pass over a comma, or stay before `end` and return False."""
        char = self.next()
        if char == end:
            return False
        if char != comma:
            found, wanted = (repr(symbol) if symbol else "the end" for symbol in (char, end))
            raise Refused(f"{found} where ',' or {wanted} belongs", self.at)
        self.at += 1
        return True


def _typed(codec: Codec | None, node: Node) -> Node:
    """`node` with its escapes resolved: to text, and for a char[N], which any bytes may be in, to
    numbers."""
    match codec, node:
        case CharArray(), Scalar(at, text):
            data = unescape(text, at).rstrip(b"\0")
            if len(data) > codec.size:  # which the codec has the words for
                return Scalar(at, data.decode("utf-8", "replace"), quoted=True)
            padded = data.ljust(codec.size, b"\0")
            return Sequence(at, tuple(Scalar(at, str(byte), quoted=False) for byte in padded))
        case Array(), Sequence(at, items):
            return Sequence(at, tuple(_typed(codec.element, item) for item in items))
        case Composite(), Mapping(at, members):
            typed = ((name, at, _typed(codec.member(name), value)) for name, at, value in members)
            return Mapping(at, tuple(typed))
        case _, Sequence(at, items):
            return Sequence(at, tuple(_typed(None, item) for item in items))
        case _, Scalar(at, text):
            plain = unescape(text.strip(), at).decode("utf-8", "surrogateescape")
            quoted = len(plain) > 1 and plain[0] == plain[-1] == '"'
            return Scalar(at, plain[1:-1] if quoted else plain, quoted)
    return node


def _first_of(codec: Codec, bits: bytes, path: str = "") -> str:
    """The path of the first part that has one of `bits`, as `Codec.mask` counts them."""
    match codec:
        case Composite():
            parts = [(part.offset, part.codec, part.name) for part in codec.parts]
        case Array():
            size = codec.element.size
            parts = [(n * size, codec.element, f"[{n}]") for n in range(codec.count)]
        case Lpm():
            parts = [(0, codec.length, LENGTH), (codec.length.size, codec.data, DATA)]
        case _:
            told = codec.mask & int.from_bytes(bits, "little")
            return path if told else ""
    for offset, part, name in parts:
        own = bits[offset : offset + part.size]
        if any(own):
            where = f"{path}.{name}" if path and name[:1] not in ("", "[") else path + name
            if found := _first_of(part, own, where):
                return found
    return ""
