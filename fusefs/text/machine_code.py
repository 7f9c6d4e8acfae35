"""Machine code as text, by capstone, which is an optional dependency."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from fusefs.text.listing import Line, source

# The name of what is at each of some addresses.
Symbols = Callable[[Collection[int]], Mapping[int, str]]

# So many instructions are taken apart at once, and none has more bytes.
_COUNT, _LONGEST = 512, 16
# Addresses and the like: capstone writes some in hexadecimal and some as they are.
_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]{10,}")


def available() -> bool:
    """Whether capstone is installed."""
    return importlib.util.find_spec("capstone") is not None


@functools.cache
def _engine(machine: str) -> Any:
    """A disassembler for what platform.machine() says, or None where capstone has none."""
    import capstone  # noqa: PLC0415 - it may not be there

    modes = {
        "x86_64": ("CS_ARCH_X86", "CS_MODE_64"),
        "i686": ("CS_ARCH_X86", "CS_MODE_32"),
        "aarch64": ("CS_ARCH_ARM64", "CS_MODE_ARM"),
        "armv7l": ("CS_ARCH_ARM", "CS_MODE_ARM"),
        "ppc64le": ("CS_ARCH_PPC", "CS_MODE_64"),
        "s390x": ("CS_ARCH_SYSZ", "CS_MODE_BIG_ENDIAN"),
        "riscv64": ("CS_ARCH_RISCV", "CS_MODE_RISCV64"),
    }
    if machine not in modes:
        return None
    arch, mode = (getattr(capstone, name) for name in modes[machine])
    if sys.byteorder == "big":
        mode |= capstone.CS_MODE_BIG_ENDIAN
    engine = capstone.Cs(arch, mode)
    engine.skipdata = True  # what is no instruction is shown as bytes
    if arch == capstone.CS_ARCH_X86:
        engine.syntax = capstone.CS_OPT_SYNTAX_ATT  # as the kernel's own sources and objdump
    return engine


def listing(
    code: bytes, address: int, machine: str, lines: Mapping[int, Line], symbols: Symbols
) -> Iterator[str]:
    """The lines of the text of a function that is at `address`, each with its newline: offsets from
    its start in hexadecimal, labels where jumps lead to, and before the instructions that begin one
    the source lines, which go by address. Before all that, empty texts, where others may have a
    turn."""
    engine = _engine(machine)
    if engine is None:
        yield f"# capstone does not know {machine}.\n"
        return
    # Twice through the code, so that not all of it is in memory taken apart.
    starts, mentioned = bytearray(len(code)), set[int]()
    for at, _size, _name, operands in _instructions(engine, code, address):
        starts[at - address] = 1
        mentioned.update(int(number, 0) for number in _NUMBER.findall(operands))
        yield ""
    inside = {number for number in mentioned if 0 <= number - address < len(code)}
    labels = {number for number in inside if starts[number - address]}
    named = symbols([number for number in mentioned - inside if number >> 32])
    shown = Line("", 0, "")

    def spelled(match: re.Match[str]) -> str:
        number = int(match[0], 0)
        return f"L{number - address:x}" if number in labels else named.get(number, f"{number:#x}")

    for at, _size, name, operands in _instructions(engine, code, address):
        if at in labels and at != address:
            yield f"L{at - address:x}:\n"
        if line := lines.get(at):
            yield from source(line, shown)
            shown = line
        text = f"{name} {_NUMBER.sub(spelled, operands)}".rstrip()
        yield f"{at - address:4x}: {text}\n"


def _instructions(engine: Any, code: bytes, address: int) -> Iterator[tuple[int, int, str, str]]:
    """Address, size, name and operands of each instruction; capstone takes as many apart as it is
    given before it gives the first."""
    at = 0
    while at < len(code):
        piece = code[at : at + _COUNT * _LONGEST]
        for instruction in engine.disasm_lite(piece, address + at, _COUNT):
            yield instruction
            at = instruction[0] + instruction[1] - address
