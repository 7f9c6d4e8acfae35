"""eBPF as text, against LLVM's disassembler and assembler: the newest that are installed."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.llvm import UNKNOWN, assembled, code, compiled, disassembled, understands
from support.network import PROGRAMS

from fusefs.text.ebpf import SIZE, ByteOrder, Instruction, Names, decode
from fusefs.text.ebpf_syntax import write

CPUS = ["v1", "v2", "v3", "v4"]
LEVELS = ["-O0", "-O1", "-O2"]
# Those with headers of their own are compiled where these are made.
OTHERS = sorted(
    path.name.removesuffix(".bpf.c")
    for path in PROGRAMS.glob("*.bpf.c")
    if path.name != "isa.bpf.c" and '#include "' not in path.read_text()
)
# They use what an atomic addition gives, which came with v3.
FETCHING = {"load"}

# Values for the fields of instructions.
NUMBERS = [0, 1, -1, 7, 16, 255, -256, 0x12345678, (1 << 31) - 1, -(1 << 31)]
OFFSETS = [0, 1, -1, 8, -8, 0x1234, 32767, -32768]
PLAIN_ATOMICS = [0x00, 0x40, 0x50, 0xA0, 0x01, 0x41, 0x51, 0xA1, 0xE1, 0xF1]
ORDERED_ATOMICS = [0x100, 0x110]


@dataclass(frozen=True)
class Form:
    """The fields that an instruction uses, and values for them."""

    fields: str = ""
    offsets: Sequence[int] = (0,)
    imms: Sequence[int] = (0,)


def codes(operations: Iterable[int], kinds: Iterable[int]) -> list[int]:
    return [operation | kind for operation in operations for kind in kinds]


ARITHMETIC = [*range(0x00, 0x80, 0x10), 0x90, 0xA0, 0xB0, 0xC0]
DIVISIONS = [0x30, 0x90]
CONDITIONS = [*range(0x10, 0x80, 0x10), *range(0xA0, 0xE0, 0x10)]
UP_TO_32, UP_TO_64 = [0x00, 0x08, 0x10], [0x00, 0x08, 0x10, 0x18]
SIGN_EXTENDING = Form("dst src", offsets=[8, 16])

# All instructions of RFC 9669 and linux/bpf.h but for 64-bit loads.
FORMS = [
    (codes(ARITHMETIC, (0x04, 0x07)), Form("dst", imms=NUMBERS)),
    (codes(ARITHMETIC, (0x0C, 0x0F)), Form("dst src")),
    (codes(DIVISIONS, (0x04, 0x07)), Form("dst", offsets=[1], imms=NUMBERS)),
    (codes(DIVISIONS, (0x0C, 0x0F)), Form("dst src", offsets=[1])),
    ([0xBC, 0xBF], SIGN_EXTENDING),
    ([0xBF], Form("dst src", offsets=[32])),
    ([0xBF], Form("dst src", offsets=[1], imms=[1, 1 << 16, -1, 0x7FFF0003])),  # casts
    ([0x84, 0x87], Form("dst")),
    ([0xD4, 0xDC, 0xD7], Form("dst", imms=[16, 32, 64])),
    (codes(CONDITIONS, (0x05, 0x06)), Form("dst", OFFSETS, NUMBERS)),
    (codes(CONDITIONS, (0x0D, 0x0E)), Form("dst src", OFFSETS)),
    ([0x05, 0xE5], Form(offsets=OFFSETS)),
    ([0x06], Form(imms=NUMBERS)),
    ([0x85], Form(imms=NUMBERS)),
    ([0x8D, 0x0D], Form("dst")),
    ([0x95], Form()),
    (codes(UP_TO_32, (0x20,)), Form(imms=NUMBERS)),
    (codes(UP_TO_32, (0x40,)), Form("src")),
    (codes(UP_TO_64, (0x61,)), Form("dst src", OFFSETS)),
    (codes(UP_TO_32, (0x81,)), Form("dst src", OFFSETS)),
    (codes(UP_TO_64, (0x62,)), Form("dst", OFFSETS, NUMBERS)),
    (codes(UP_TO_64, (0x63,)), Form("dst src", OFFSETS)),
    ([0xC3, 0xDB], Form("dst src", OFFSETS, PLAIN_ATOMICS)),
    (codes(UP_TO_64, (0xC3,)), Form("dst src", OFFSETS, ORDERED_ATOMICS)),
]
KNOWN_CODES = {0x18, *itertools.chain.from_iterable(numbers for numbers, _ in FORMS)}
ORDERED_CODES = {*codes(UP_TO_64, (0xC3,))}
GOTOX = 0x0D

# What only the kernel has: nospec, and accesses that may fault or are to an arena.
KERNEL_CODES = {
    0xC2,
    *codes(UP_TO_64, (0x21, 0xA1, 0xA2, 0xA3, 0xE3)),
    *codes(UP_TO_32, (0x41, 0xC1)),
}


def patterns() -> list[Instruction]:
    """Instructions of every code that LLVM may know, with many values in the fields that they use
    and zeros in the others."""
    source = random.Random(0)
    made = []
    for numbers, form in FORMS:
        fields = form.fields.split()
        for number, offset, imm in itertools.product(numbers, form.offsets, form.imms):
            for _ in range(3):
                dst, src = (source.randrange(11) * (name in fields) for name in ("dst", "src"))
                made.append(Instruction(0, number, dst, src, offset, imm))
    return made + loads()


def loads() -> list[Instruction]:
    """64-bit loads; LLVM has no upper half of those whose number is none."""
    numbers = itertools.product(range(11), NUMBERS, NUMBERS)
    pseudo = itertools.product(range(1, 7), NUMBERS)
    return [
        *(Instruction(0, 0x18, dst, 0, 0, low, high) for dst, low, high in numbers),
        *(Instruction(0, 0x18, 1, src, 0, imm, 0) for src, imm in pseudo),
    ]


def is_newer(one: Instruction) -> bool:
    """Whether LLVM 19 does not know it, or takes it for another; and neither does the one here."""
    if one.code == GOTOX:
        return not understands("gotox r1")
    ordered = one.code in ORDERED_CODES and one.imm in ORDERED_ATOMICS
    return ordered and not understands("w1 = load_acquire((u8 *)(r1 + 0))")


def packed(instructions: Iterable[Instruction], order: ByteOrder) -> bytes:
    return b"".join(one.encoded(order) for one in instructions)


def texts(data: bytes, order: ByteOrder = "little") -> dict[int, str]:
    """Our text of the instructions, by their index."""
    return {one.index: write(one, Names()) for one in decode(data, order)}


def as_words(data: bytes, order: ByteOrder = "little") -> list[str]:
    """Bytes as the assembler takes them."""
    words = (data[at : at + SIZE] for at in range(0, len(data), SIZE))
    return [f".8byte {int.from_bytes(word, order):#x}" for word in words]


def compare(path: Path, order: ByteOrder = "little") -> tuple[int, int]:
    """How many instructions of an object are as LLVM has them, and how many it does not know. There
    must be no others."""
    same = unknown = 0
    theirs = disassembled(path)
    ours = {name: texts(data, order) for name, data in code(path).items()}
    assert ours.keys() == theirs.keys()
    for name, lines in ours.items():
        assert lines.keys() == theirs[name].keys()
        known = {index: text for index, text in theirs[name].items() if text != UNKNOWN}
        assert {index: lines[index] for index in known} == known, f"{path}, {name}"
        same += len(known)
        unknown += len(lines) - len(known)
    return same, unknown


@pytest.fixture(autouse=True)
def _new_enough() -> None:
    if not understands("may_goto +0"):
        pytest.skip("needs LLVM 19 or newer")


# Compiled programs.


@pytest.mark.parametrize("cpu", CPUS)
def test_compiled_for_every_cpu(cpu: str, tmp_path: Path) -> None:
    for level in LEVELS:
        same, unknown = compare(compiled("isa", tmp_path, f"-mcpu={cpu}", level))
        assert same > 2000
        assert unknown <= same * 0.05


@pytest.mark.parametrize(
    ("name", "cpu"),
    [
        (name, cpu)
        for name, cpu in itertools.product(OTHERS, ["v1", "v3", "v4"])
        if not (cpu == "v1" and name in FETCHING)
    ],
)
def test_compiled_programs(name: str, cpu: str, tmp_path: Path) -> None:
    same, unknown = compare(compiled(name, tmp_path, f"-mcpu={cpu}", "-O2"))
    assert unknown <= (same + unknown) * 0.05


def test_every_code_is_in_the_compiled_programs(tmp_path: Path) -> None:
    met: dict[int, set[int]] = defaultdict(set)
    for name, cpu in itertools.product(("isa", "isa_assembly"), CPUS):
        for data in code(compiled(name, tmp_path, f"-mcpu={cpu}", "-O2")).values():
            for one in decode(data):
                met[one.code].add(one.imm)
    newer = {0xCB, 0xD3, GOTOX}
    assert met.keys() == KNOWN_CODES or met.keys() == KNOWN_CODES - newer
    assert met[0xC3] >= {*PLAIN_ATOMICS}
    assert met[0xDB] >= {*PLAIN_ATOMICS}


# Bit patterns.


@pytest.mark.parametrize("order", ["little", "big"])
def test_every_bit_pattern_is_disassembled_as_by_llvm(order: ByteOrder, tmp_path: Path) -> None:
    made = patterns()
    data = packed((one for one in made if not is_newer(one)), order)
    path = assembled(as_words(data, order), tmp_path, order)
    assert code(path)[".text"] == data
    same, unknown = compare(path, order)
    assert unknown == 0
    assert same > len(made) * 0.95


def test_other_codes_are_none_to_llvm_and_to_us(tmp_path: Path) -> None:
    made = [
        Instruction(0, number, 1, 2, 0, 0) for number in range(256) if number not in KNOWN_CODES
    ]
    data = packed(made, "little")
    theirs = disassembled(assembled(as_words(data), tmp_path))[".text"]
    ours = texts(data)
    assert {*theirs.values()} == {UNKNOWN}
    without = {made[index].code for index, text in ours.items() if text.startswith(".8byte")}
    without -= {0xEB, 0xF3}  # only as atomic operations of an order
    assert without.isdisjoint(KERNEL_CODES)
    assert without | KERNEL_CODES == {one.code for one in made}


def test_what_is_written_is_assembly(tmp_path: Path) -> None:
    """The assembler makes the same bytes of our text."""
    made = [one for one in patterns() if not is_newer(one)]
    # The assembler takes no number for a jump that is as long, but a label.
    made = [one for one in made if one.code != 0x06 or abs(one.imm) < 1 << 15]
    data = packed(made, "little")
    lines = [*texts(data).values()]
    assert code(assembled(lines, tmp_path))[".text"] == data


def test_bytes_that_are_no_instruction_are_assembly(tmp_path: Path) -> None:
    source = random.Random(0)
    data = source.randbytes(SIZE * 3000)
    words = {index: text for index, text in texts(data).items() if text.startswith(".8byte")}
    assert len(words) > 1000
    expected = b"".join(data[index * SIZE :][:SIZE] for index in words)
    assert code(assembled([*words.values()], tmp_path))[".text"] == expected
