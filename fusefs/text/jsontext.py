"""Values as JSON text."""

from __future__ import annotations

import json
import os
import re

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

# What could drive a terminal or disguise a line's contents: control characters (C0, DEL, C1), line
# and paragraph separators, and the characters that switch the direction of writing (Unicode
# Standard Annex 9); and the two that neither YAML nor XML may have.
CONTROLS = "\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufffe\\uffff"
_CONTROL = re.compile(f"[{CONTROLS}]")


def escape_controls(text: str) -> str:
    r"""`text` with its control characters as \uXXXX, as JSON would have them."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def to_json(value: Json) -> str:
    """Strict JSON on one line, in plain Unicode but for control characters, which are escaped.

    Raises ValueError for a float that JSON has no number for.
    """
    # Outside strings the encoder emits no such character, so all that is found is within one.
    return escape_controls(json.dumps(value, ensure_ascii=False, allow_nan=False))


def printable(name: str) -> str:
    """The name of a file, which may be any bytes, with those that are not UTF-8 as `\\xXX`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
