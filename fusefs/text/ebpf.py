"""eBPF instructions, and what the numbers in them are called.

The instruction set is that of RFC 9669, Documentation/bpf/standardization/instruction-set.rst, and
what kernel/bpf/verifier.c makes of a program that it has accepted. `ebpf_syntax.py` writes them.
"""

from __future__ import annotations

import enum
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

ByteOrder = Literal["little", "big"]

SIZE = 8  # bytes of an instruction; the one that loads 64 bits has two of them

_REGISTERS = 12  # r0 to r10, and r11, which the verifier alone uses
_LOAD_64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW
_MAY_GOTO = 0xE5  # BPF_JMP | BPF_JCOND, with source register 0
_GOTO = 0x05  # BPF_JMP | BPF_JA
_GOTO_LONG = 0x06  # BPF_JMP32 | BPF_JA
# BPF_JMP and BPF_JMP32 with any condition, with a constant or a register.
_CONDITIONAL = [
    op | source | kind
    for op in (*range(0x10, 0x80, 0x10), *range(0xA0, 0xE0, 0x10))
    for source in (0x00, 0x08)
    for kind in (0x05, 0x06)
]
_JUMPS = frozenset([_GOTO, _GOTO_LONG, _MAY_GOTO, *_CONDITIONAL])


class Load(enum.IntEnum):
    """What the number of a 64-bit load is, by its source register: BPF_PSEUDO_… in linux/bpf.h."""

    NUMBER = 0
    MAP_FD = 1
    MAP_VALUE = 2
    BTF_ID = 3
    FUNC = 4
    MAP_IDX = 5
    MAP_IDX_VALUE = 6


class Call(enum.IntEnum):
    """What is called, by the source register: BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL."""

    HELPER = 0
    SUBPROGRAM = 1
    KFUNC = 2


@dataclass(frozen=True, slots=True)
class Instruction:
    """A `struct bpf_insn` (linux/bpf.h), and its place in the program. One that loads 64 bits has
    the upper half in `next_imm`, which is None for all others, and if the second half is missing.
    """

    index: int
    code: int
    dst: int
    src: int
    offset: int
    imm: int
    next_imm: int | None = None

    @property
    def length(self) -> int:
        """How many indices it takes."""
        return 1 if self.next_imm is None else 2

    @property
    def imm64(self) -> int:
        """The number that a 64-bit load has, without a sign."""
        return (self.next_imm or 0) % (1 << 32) << 32 | self.imm % (1 << 32)

    @property
    def has_registers(self) -> bool:
        """Whether both of its registers exist."""
        return self.dst < _REGISTERS and self.src < _REGISTERS

    @property
    def step(self) -> int | None:
        """How many instructions a jump leads over, and backwards if negative. None for what does
        not jump, or where to is not in the instruction."""
        if self.code not in _JUMPS or not self.has_registers:
            return None
        if self.code == _MAY_GOTO and self.src:
            return None
        return self.imm if self.code == _GOTO_LONG else self.offset

    def encoded(self, order: ByteOrder = sys.byteorder) -> bytes:
        """The bytes of it that `decode` would make it of."""
        low, high = (self.dst, self.src) if order == "little" else (self.src, self.dst)
        form = _form(order)
        first = form.pack(self.code, high << 4 | low, self.offset, self.imm)
        return first if self.next_imm is None else first + form.pack(0, 0, 0, self.next_imm)


def decode(code: bytes, order: ByteOrder = sys.byteorder) -> Iterator[Instruction]:
    """The instructions of a program, whatever the bytes are. Those at the end that are too few for
    one are left out; a 64-bit load without a second half is one of 8 bytes."""
    words = _form(order).iter_unpack(memoryview(code)[: len(code) // SIZE * SIZE])
    index = 0
    word = next(words, None)
    while word is not None:
        opcode, registers, offset, imm = word
        word = next(words, None)
        next_imm = None
        if opcode == _LOAD_64 and word is not None and word[:3] == (0, 0, 0):
            next_imm = word[3]
            word = next(words, None)
        low, high = registers & 15, registers >> 4
        dst, src = (low, high) if order == "little" else (high, low)
        yield Instruction(index, opcode, dst, src, offset, imm, next_imm)
        index += 1 if next_imm is None else 2


def _form(order: ByteOrder) -> struct.Struct:
    """Code, registers, offset, constant. The order of bytes is also that of the registers, since
    these are bit fields."""
    return struct.Struct("<BBhi" if order == "little" else ">BBhi")


@dataclass(frozen=True, slots=True)
class Named:
    """What stands for a number, and what there is to say of it."""

    text: str
    remark: str = ""


class Names:
    """What the numbers of calls and 64-bit loads are called: here nothing has a name. Each method
    answers None for what is not known, and the number is written instead.

    What a number means differs between a program in a file and one that the kernel shows
    (bpf_insn_prepare_dump in kernel/bpf/syscall.c). So a subclass knows where its program is from.
    """

    def helper(self, number: int) -> Named | None:
        """The helper function that is called; a tail call is one, 12."""
        return None

    def kfunc(self, number: int, offset: int) -> Named | None:
        """The kernel function that is called: `imm` and `off` of the call."""
        return None

    def subprogram(self, call: Instruction) -> Named | None:
        """The function of the program that is called."""
        return None

    def map(self, number: int) -> Named | None:
        """The map that is loaded: by its id, in what the kernel shows."""
        return None

    def map_value(self, number: int, offset: int) -> Named | None:
        """The variable at an offset in the value of a map."""
        return None

    def function(self, load: Instruction) -> Named | None:
        """The function of the program whose address is loaded."""
        return None

    def address(self, value: int) -> Named | None:
        """What is at an address of the kernel. Any 64-bit constant may be one."""
        return None


# Tells where a jump leads to, in the words that the listing has for it.
Where = Callable[[Instruction], str]


def relative(jump: Instruction) -> str:
    """Where a jump leads to, seen from it: +1."""
    return f"{jump.step or 0:+d}"
