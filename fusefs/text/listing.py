"""A program as a listing: functions, labels, instructions, and the source lines they are from."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from fusefs.text.ebpf import SIZE, Instruction, Names, decode, relative
from fusefs.text.ebpf_syntax import write
from fusefs.text.jsontext import escape_controls

_WIDTH = 4  # of the numbers of instructions, at least


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a source file. `file` and `text` are empty where they are not known."""

    file: str
    number: int
    text: str


def listing(
    code: bytes, names: Names, functions: Mapping[int, str], lines: Mapping[int, Line]
) -> Iterator[str]:
    """The lines of a program's text, each with its newline, made as they are asked for; and empty
    texts before the first, where others may have a turn.

    `functions` has the names of functions by the index of their first instruction, `lines` the
    source lines of the instructions that are the first of one. Where a jump leads to stands a
    label, `L` and the index of that instruction; a jump to where none begins tells how far it is.
    """
    labels = yield from _labels(code)
    last = len(code) // SIZE - 1
    width = max(len(str(last)), _WIDTH)
    shown = Line("", 0, "")

    def where(jump: Instruction) -> str:
        target = _target(jump)
        return f"L{target}" if target in labels else relative(jump)

    for instruction in decode(code):
        index = instruction.index
        if index in functions:
            yield from _header(functions[index], first=index == 0)
            shown = Line(shown.file, 0, "")
        if index in labels:
            yield f"L{index}:\n"
        if index in lines:
            yield from source(lines[index], shown)
            shown = lines[index]
        yield f"{index:{width}d}: {write(instruction, names, where)}\n"
    if left := code[len(code) // SIZE * SIZE :]:
        yield f"{last + 1:{width}d}: .byte {', '.join(map(str, left))}\n"


def _target(jump: Instruction) -> int | None:
    """The index that a jump leads to."""
    return None if (step := jump.step) is None else jump.index + 1 + step


def _labels(code: bytes) -> Generator[str, None, frozenset[int]]:
    """The instructions that are jumped to, in turns."""
    targets = set()
    starts = bytearray(len(code) // SIZE)
    for instruction in decode(code):
        starts[instruction.index] = 1
        if (target := _target(instruction)) is not None:
            targets.add(target)
        yield ""
    return frozenset(target for target in targets if 0 <= target < len(starts) and starts[target])


def _header(name: str, *, first: bool) -> Iterator[str]:
    if not first:
        yield "\n"
    yield f"{escape_controls(name)}:\n"


def source(line: Line, shown: Line) -> Iterator[str]:
    """A source line; before it the name of its file, if that is another than that of the one that
    was shown last. Nothing for that very one: an expression of several parts comes back to it."""
    if line == shown:
        return
    if line.file != shown.file and line.file:
        yield f"; {escape_controls(line.file)}\n"
    text = escape_controls(line.text.strip())
    yield f"; {line.number}: {text}\n" if text else f"; {line.number}\n"
