"""The examples in `docs/text.md` are true: each row of its tables is tried with the codecs.

The first column says what is converted: a C type, which is compiled with the declarations on the
page, or `N bytes` without a type.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest
from c_compiled import compiled_types
from support.documentation import ROOT, blocks

from fusefs.bpf.btf import Btf, Kind, Variable
from fusefs.text.arrays import PerCpu
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec, raw_codec
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.formats import with_format
from fusefs.text.lpm import lpm_codec
from fusefs.text.names import from_name, to_name
from fusefs.text.value import from_text, to_text

PAGE = ROOT / "docs/text.md"
pytestmark = pytest.mark.skipif(
    sys.byteorder == "big", reason="the page has the bytes of a little-endian machine"
)

_BYTES = re.compile(r"(\d+) bytes")


@dataclass(frozen=True)
class Row:
    """A row of a table: its kind, which is the head of its first column; and the cells."""

    line: int
    kind: str
    cells: tuple[tuple[str, ...], ...]

    @property
    def type(self) -> str:
        return self.cells[0][0]


def _rows() -> Iterator[Row]:
    """The rows of all tables of examples."""
    kind = ""
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        if not line.startswith("|"):
            kind = ""
            continue
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if not kind:
            kind = cells[0] or "none"
        elif kind in _TRIED and not line.startswith("| ---"):
            yield Row(number, kind, tuple(tuple(re.findall(r"`([^`]*)`", cell)) for cell in cells))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Btf, int]]:
    """The types that the tables name, by their spelling."""
    spelled = sorted({row.type for row in _rows() if not _BYTES.fullmatch(row.type)})
    (declared,) = ["\n".join(block.lines) for block in blocks(PAGE) if block.language == "c"]
    directory = tmp_path_factory.mktemp("types")
    btf = compiled_types(declared, [f"__typeof__({one})" for one in spelled], directory)
    found = {}
    for number, one in enumerate(spelled):
        type_id = btf.find(f"keep_{number}", Kind.VAR)
        assert type_id
        variable = btf.type(type_id)
        assert isinstance(variable, Variable)
        found[one] = btf, variable.type_id
    return found


Types = dict[str, tuple[Btf, int]]


def _codec(types: Types, spelled: str) -> Codec:
    if match := _BYTES.fullmatch(spelled):
        return raw_codec(int(match[1]))
    return compile_codec(*types[spelled])


def _try_value(codec: Codec, row: Row, cells: tuple[tuple[str, ...], ...]) -> None:
    (digits,), (shown,), others, refused = cells
    data = bytes.fromhex(digits)
    assert to_text(codec, data) == f"{shown}\n"
    for text in (shown, *others):
        assert from_text(codec, text, data) == data, text
        # What is not partial needs nothing to be there before.
        if not text.startswith(("{", "[{")) or text == shown:
            told = int.from_bytes(from_text(codec, text, bytes(codec.size)), "little")
            assert told == int.from_bytes(data, "little") & codec.mask, text
    for text in refused:
        with pytest.raises((Refused, Incomplete)):
            from_text(codec, text, data)


def _try_key(codec: Codec, row: Row, cells: tuple[tuple[str, ...], ...]) -> None:
    (digits,), (name,), others, refused = cells
    data = bytes.fromhex(digits)
    assert to_name(codec, data) == name
    for text in (name, *others):
        assert from_name(codec, text) == data, text
    for text in refused:
        with pytest.raises(Refused):
            from_name(codec, text)


def _value(types: Types, row: Row) -> None:
    _try_value(_codec(types, row.type), row, row.cells[1:])


def _per_cpu(types: Types, row: Row) -> None:
    _try_value(PerCpu(_codec(types, row.type), 2), row, row.cells[1:])


def _formatted(types: Types, row: Row) -> None:
    codec, (name,) = _codec(types, row.type), row.cells[1]
    known = next(iter(types.values()))[0]

    def find(kind: Kind, wanted: str) -> tuple[Btf, int] | None:
        type_id = known.find(wanted, kind)
        return (known, type_id) if type_id else None

    _try_value(with_format(codec, "value", name, find), row, row.cells[2:])


def _key(types: Types, row: Row, of: Callable[[Codec], Codec] = lambda codec: codec) -> None:
    _try_key(of(_codec(types, row.type)), row, row.cells[1:])


_TRIED: dict[str, Callable[[Types, Row], None]] = {
    "value": _value,
    "value for two CPUs": _per_cpu,
    "value, with a format": _formatted,
    "key": _key,
    "key of a trie": partial(_key, of=lpm_codec),
}


@pytest.mark.parametrize("row", list(_rows()), ids=lambda row: f"{row.line} {row.type}")
def test_examples(compiled: Types, row: Row) -> None:
    _TRIED[row.kind](compiled, row)


def test_each_table_has_been_found() -> None:
    assert {row.kind for row in _rows()} == set(_TRIED)
