"""Programs made of instructions, without a compiler; and the text of programs, as it is shown and
as others show it."""

from __future__ import annotations

import platform
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fusefs.bpf.map import Map
from fusefs.bpf.program import Program
from support.llvm import newest
from support.shell import checked

# r0 = 0; exit
NOTHING = bytes.fromhex("b7000000000000009500000000000000")
SOCKET_FILTER, XDP = 1, 6


def load(code: bytes = NOTHING, kind: int = SOCKET_FILTER, name: str = "sample") -> Program:
    """A program of these instructions. What the verifier has against it is in the error."""
    return Program.load(kind, code, name=name)


def using(*maps: Map, name: str = "sample") -> Program:
    """A program that loads the addresses of these maps, and does nothing."""
    return load(b"".join(_load_64(1, made.fd, 0) for made in maps) + NOTHING, name=name)


def using_values(bpf_map: Map, offsets: Iterable[int]) -> Program:
    """A program that loads addresses in the only value of an array, and does nothing."""
    return load(b"".join(_load_64(2, bpf_map.fd, offset) for offset in offsets) + NOTHING)


def _load_64(source: int, low: int, high: int) -> bytes:
    """An instruction that loads 64 bits into r1; `source` is one of BPF_PSEUDO_… in linux/bpf.h."""
    return struct.pack("=BBhiBBhi", 0x18, source << 4 | 1, 0, low, 0, 0, 0, high)


@dataclass
class Code:
    """What is said of a program's instructions, by their numbers or addresses: each as text; and
    what begins there: functions, labels, the source lines that they are from, and files."""

    instructions: dict[int, str] = field(default_factory=dict)
    functions: dict[int, str] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    numbers: dict[int, str] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)

    def line_of(self, number: int) -> str:
        """The source line of an instruction: the last one before it in its function."""
        first = max(start for start in self.functions if start <= number)
        at = max((at for at in self.lines if first <= at <= number), default=None)
        return "" if at is None else self.lines[at]


_INSTRUCTION = re.compile(r" *([0-9a-f]+): (.*)")
_LABEL = re.compile(r"L[0-9a-f]+:")
_SOURCE = re.compile(r"; (\d+)(?:: (.*))?")


def shown(text: str, base: int = 10) -> Code:
    """The text of `xlated`; or of a function in `jited`, where addresses are of base 16."""
    code = Code()
    before: list[tuple[dict[int, str], str]] = []  # the instruction that comes
    for line in text.splitlines():
        if found := _INSTRUCTION.fullmatch(line):
            at = int(found[1], base)
            code.instructions[at] = found[2]
            for kind, what in before:
                kind[at] = what
            before.clear()
        elif found := _SOURCE.fullmatch(line):
            before += [(code.numbers, found[1]), (code.lines, found[2] or "")]
        elif line.startswith("; "):
            before.append((code.files, line[2:]))
        elif _LABEL.fullmatch(line):
            before.append((code.labels, line[:-1]))
        elif line:
            assert line.endswith(":"), line
            before.append((code.functions, line[:-1]))
    assert not before
    return code


_OF_BPFTOOL = re.compile(r" *(\d+): \([0-9a-f]{2}\) (.*)")
_PROTOTYPE = re.compile(r"\w.*?(\w+)\(.*\):")


def told_by_bpftool(pin: Path) -> Code:
    """What bpftool shows of a program that is pinned there."""
    code = Code()
    before: list[tuple[dict[int, str], str]] = []
    for line in checked("bpftool", "prog", "dump", "xlated", "pinned", pin).splitlines():
        if found := _OF_BPFTOOL.fullmatch(line):
            at = int(found[1])
            code.instructions[at] = found[2]
            for kind, what in before:
                kind[at] = what
            before.clear()
        elif line.startswith(";"):
            before.append((code.lines, line[1:].strip()))
        elif found := _PROTOTYPE.fullmatch(line):
            before.append((code.functions, found[1]))
        else:
            raise AssertionError(line)
    return code


_PREFIXES = ("lock", "rep", "repne")  # each a byte, and on a line of its own
_SYMBOL = re.compile(r" <.*>$")
_OF_LLVM = re.compile(r" *([0-9a-f]+): *\t(.*)")


def machine_code(code: bytes, directory: Path) -> dict[int, str]:
    """What llvm-objdump makes of the code of this machine, which is at address 0: by addresses."""
    plain, made = directory / "code.bin", directory / "code.o"
    plain.write_bytes(code)
    kind = {"x86_64": "elf64-x86-64", "aarch64": "elf64-littleaarch64"}[platform.machine()]
    renamed = "--rename-section=.data=.text,alloc,load,readonly,code"
    checked(newest("llvm-objcopy"), "-I", "binary", "-O", kind, renamed, plain, made)
    text = checked(newest("llvm-objdump"), "-d", "-z", "--no-show-raw-insn", made)
    made_of: dict[int, str] = {}
    prefix = ""
    for line in filter(None, map(_OF_LLVM.fullmatch, text.splitlines())):
        at, name = int(line[1], 16), _SYMBOL.sub("", line[2]).strip()
        if prefix:
            at -= 1
        if name in _PREFIXES:
            prefix = name
            continue
        made_of[at] = f"{prefix} {name}".strip()
        prefix = ""
    return made_of
