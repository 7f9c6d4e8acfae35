"""Many lines of `entries.jsonl` read at once, as reading it gives them: the way back from text, a
column at a time (see `fusefs.text.columns` for the way there).

One regular expression takes the lines apart into a column of texts for each field, and each column
becomes bytes in one go. Only plain lines are taken, of types whose codecs have a `plain` pattern;
everything else is for `fusefs.text.lines`, which gives the same where both take a line.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf

from fusefs.text.codec import Cell, Codec
from fusefs.text.columns import joined
from fusefs.text.lines import KEY, VALUE

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|.')


class LinesReader:
    """Reads lines of entries. `kept` are the bits of each value that no line tells, see
    `Codec.kept`; they are zero in what it gives."""

    def __init__(self, key: Codec, value: Codec) -> None:
        self.key = key
        self.value = value
        self.kept = value.kept.to_bytes(value.size, "little") if value.kept else b""

    @functools.cached_property
    def _line(self) -> re.Pattern[bytes] | None:
        return _pattern(self.key, self.value)

    def read(self, text: bytes) -> tuple[bytes, bytes] | None:
        """The keys and the values that whole lines give, one after the other; None when not all of
        them are plain lines that give one each."""
        if self._line is None or not self._line.match(text):
            return None
        rows: list[tuple[bytes, ...]] = self._line.findall(text)
        if len(rows) != text.count(b"\n"):
            return None
        columns = list(zip(*rows, strict=True))
        width = len(self.key.flat.cells)
        try:
            return _packed(self.key, columns[:width]), _packed(self.value, columns[width:])
        except (ValueError, OSError, struct.error):  # out of range, too long, no such name
            return None


def _packed(codec: Codec, columns: SequenceOf[SequenceOf[bytes]]) -> bytes:
    """Values, one after the other, of a column of texts for each of their fields."""
    cells = codec.flat.cells
    fields = [
        (offset, cell.size, cell.packed(texts))
        for (offset, cell), texts in zip(cells, columns, strict=True)
    ]
    return joined(codec.size, fields)


def _pattern(key: Codec, value: Codec) -> re.Pattern[bytes] | None:
    """What matches a plain line, with a group for each field; None when there is no such thing."""
    if not (_apart(key.flat.cells) and _apart(value.flat.cells)):
        return None
    patterns = [codec.plain for _, codec in (*key.flat.cells, *value.flat.cells)]
    if not all(patterns):
        return None
    template = f'{{"{KEY}": {key.flat.json}, "{VALUE}": {value.flat.json}}}'
    between = _spaced(template % (("\0",) * len(patterns))).split("\0")
    whole = "".join(f"{text}{one}" for text, one in zip(between, [*patterns, ""], strict=True))
    return re.compile(f"^{whole}\n".encode(), re.MULTILINE)


def _apart(cells: Iterable[Cell]) -> bool:
    """Whether there are fields, and no two of them share a byte."""
    end = 0
    for offset, codec in sorted(cells, key=lambda cell: cell[0]):
        if offset < end or not codec.size:
            return False
        end = offset + codec.size
    return end > 0


def _spaced(text: str) -> str:
    """What matches a part of a line with and without its spaces, as jq -c writes it."""
    return "".join(" ?+" if token == " " else re.escape(token) for token in _TOKEN.findall(text))
