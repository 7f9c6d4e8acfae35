"""Text to a tree of values that have no type yet, each with its position in the text.

The grammar is JSON, made easier to type:

- a bare token stands for a value wherever a value may be: 42, 0x2a, XDP_PASS, 10.0.0.1, fe80::1;
  within arrays and objects it ends at white space and at any of `, [ ] { } "`;
- a member's name may be bare: {saddr: 10.0.0.1};
- a text that begins with none of `{ [ "` is one bare token up to the end of its line, so that
  `hello world` is one value, and no second line may follow it.

What a token means is for the codecs to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fusefs.text.errors import Incomplete, Refused, clip

MAX_DEPTH = 64

_SPACE = re.compile(r"[ \t\r\n]*+")
_BARE = re.compile(r'[^\x00-\x20\x7f,\[\]{}"]++')
_BARE_NAME = re.compile(r'[^\x00-\x20\x7f,:\[\]{}"]++')
_ITEM = re.compile(r'[ \t\r\n]*+([^\x00-\x20\x7f,\[\]{}"]++)[ \t\r\n]*+([,\]])')
_STRING = re.compile(r'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+')
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_UNFINISHED_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{0,3}\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A JSON string (`quoted`, with its escapes resolved) or a bare token."""

    at: int
    text: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """An array."""

    at: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """An object: (name, position of the name, value) of each member; no name comes twice."""

    at: int
    members: tuple[tuple[str, int, Node], ...]


Node = Scalar | Sequence | Mapping


def parse(text: str) -> Node:
    """The one value that `text` holds, in time linear in its length.

    Raises `Refused` for what is malformed, and `Incomplete` for what ends within a value.
    """
    if surrogate := _SURROGATE.search(text):
        raise Refused("the text is not UTF-8", surrogate.start())
    reader = _Reader(text)
    start = reader.peek("the value")
    if start not in '{["':
        return _line(text, reader.at)
    node = reader.value(0)
    rest = reader.skip()
    if rest < len(text):
        raise Refused(f"{clip(text[rest:].rstrip())!r} follows the value", rest)
    return node


def _line(text: str, start: int) -> Scalar:
    """The bare token from `start` to the end of its line."""
    end = text.find("\n", start)
    if end < 0:
        end = len(text)
    rest = _end(_SPACE, text, end)
    if rest < len(text):
        raise Refused("a second line follows the value", rest)
    return Scalar(start, text[start:end].rstrip(" \t\r"), quoted=False)


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return match.end() if match else start


class _Reader:
    """A place in a text, and what can be read from there on."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip(self) -> int:
        """Pass over white space."""
        self.at = _end(_SPACE, self.text, self.at)
        return self.at

    def peek(self, within: str) -> str:
        """The next character that is not white space."""
        at = self.skip()
        if at == len(self.text):
            raise Incomplete(f"the text ends within {within}")
        return self.text[at]

    def value(self, depth: int) -> Node:
        char = self.peek("the value")
        at = self.at
        if char == '"':
            return Scalar(at, self.string(), quoted=True)
        if char in "{[":
            if depth == MAX_DEPTH:
                raise Refused(f"nested more than {MAX_DEPTH} deep", at)
            self.at += 1
            return self.mapping(at, depth + 1) if char == "{" else self.sequence(at, depth + 1)
        return Scalar(at, self.bare(_BARE), quoted=False)

    def bare(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if not match:
            raise Refused(f"unexpected {self.text[self.at]!r}", self.at)
        self.at = match.end()
        return match[0]

    def sequence(self, at: int, depth: int) -> Sequence:
        items: list[Node] = []
        if self.peek("an array") == "]":
            self.at += 1
            return Sequence(at, ())
        while True:
            if item := _ITEM.match(self.text, self.at):  # so that long arrays take half the time
                items.append(Scalar(item.start(1), item[1], quoted=False))
                self.at = item.end() - 1
            else:
                items.append(self.value(depth))
            if self.closes("an array", "]"):
                return Sequence(at, tuple(items))

    def mapping(self, at: int, depth: int) -> Mapping:
        members: list[tuple[str, int, Node]] = []
        names: set[str] = set()
        if self.peek("an object") == "}":
            self.at += 1
            return Mapping(at, ())
        while True:
            quoted = self.peek("an object") == '"'
            name_at = self.at
            name = self.string() if quoted else self.bare(_BARE_NAME)
            if self.peek("an object") != ":":
                raise Refused(f"no ':' after the name {clip(name)!r}", self.at)
            self.at += 1
            if name in names:
                raise Refused(f"{clip(name)!r} is given twice", name_at)
            names.add(name)
            members.append((name, name_at, self.value(depth)))
            if self.closes("an object", "}"):
                return Mapping(at, tuple(members))

    def closes(self, within: str, bracket: str) -> bool:
        """Pass over `bracket` (then True) or a comma (then False)."""
        char = self.peek(within)
        if char not in (bracket, ","):
            raise Refused(f"{char!r} within {within}, where ',' or '{bracket}' belongs", self.at)
        self.at += 1
        return char == bracket

    def string(self) -> str:
        start, text = self.at, self.text
        end = _end(_STRING, text, start)
        self.check_escapes(start + 1, end)
        if end == len(text) or (text[end] == "\\" and end + 1 == len(text)):
            raise Incomplete("the text ends within a string")
        if text[end] != '"':
            raise Refused("a string holds a control character that is not escaped", end)
        self.at = end + 1
        body = text[start + 1 : end]
        return self.unescape(body, start) if "\\" in body else body

    def check_escapes(self, start: int, end: int) -> None:
        """Refuse an escape that JSON does not know, unless it is the text that ends within it."""
        for match in _ESCAPE.finditer(self.text, start, end):
            if match[2] and match[2] not in _ESCAPED:
                if _UNFINISHED_ESCAPE.match(self.text, match.start()):
                    return
                raise Refused(f"{match[0]!r} is no escape", match.start())

    @staticmethod
    def unescape(body: str, at: int) -> str:
        text = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _ESCAPED[m[2]], body)
        try:
            # UTF-16 is where two escaped surrogates make one character.
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            raise Refused("a string holds half of a surrogate pair", at) from None
