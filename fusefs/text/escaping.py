"""Text made fit for a part of a file name: `%` and two hexadecimal digits stand for a byte."""

from __future__ import annotations

import re

from fusefs.text.errors import Refused
from fusefs.text.jsontext import CONTROLS

# What a name may not hold, and what separates the parts of a key in it. Surrogates stand for bytes
# that are not UTF-8, as in Python's file names.
_UNFIT = re.compile(f"[{CONTROLS}%/=,{{}}\\[\\]\ud800-\udfff]")
_ENDS = re.compile(r"\A\s+|\s+\Z")
_ESCAPE = re.compile(rb"%([0-9a-fA-F]{2})?")


def escape(text: str) -> str:
    """`text` with what is unfit for a name, or separates its parts, as `%XX`."""
    return _UNFIT.sub(lambda match: percent(match[0]), text)


def escape_word(text: str) -> str:
    """The same for a word, as a field's name is one: who reads it passes over white space at its
    ends."""
    return _ENDS.sub(lambda match: percent(match[0]), escape(text))


def percent(char: str) -> str:
    """The bytes of `char`, each as `%XX`."""
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def unescape(text: str, at: int) -> bytes:
    """The bytes that `text`, at position `at` of a name, stands for. Raises `Refused`."""

    def byte(match: re.Match[bytes]) -> bytes:
        if not match[1]:
            raise Refused("'%' is not followed by two hexadecimal digits", at)
        return bytes.fromhex(match[1].decode())

    try:
        return _ESCAPE.sub(byte, text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise Refused("the name is not UTF-8", at) from None
