"""eBPF instructions: their fields, what only the kernel has, names, and bytes that are none."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.text.ebpf import ByteOrder, Call, Instruction, Load, Named, Names, decode
from fusefs.text.ebpf_syntax import write

words = st.one_of(
    st.binary(min_size=8, max_size=8),
    st.builds(
        lambda code, dst, src, offset, imm: struct.pack("=BBhi", code, src << 4 | dst, offset, imm),
        st.integers(0, 255),
        st.integers(0, 11),
        st.integers(0, 11),
        st.sampled_from([0, 1, -1, 8, 16, 32]) | st.integers(-(1 << 15), (1 << 15) - 1),
        st.sampled_from([0, 1, 16, 0x40, 0xE1, 0xF1, 0x100, 0x110])
        | st.integers(-(1 << 31), (1 << 31) - 1),
    ),
)
programs = st.lists(words, max_size=12).map(b"".join)


def one(code: int, registers: int = 0, offset: int = 0, imm: int = 0) -> Instruction:
    """An instruction; its registers as in the bytes of a little-endian machine, source first."""
    return Instruction(0, code, registers & 15, registers >> 4, offset, imm)


def load(src: int, imm: int, upper: int = 0, dst: int = 1) -> Instruction:
    """A 64-bit load."""
    return Instruction(0, 0x18, dst, src, 0, imm, upper)


class Everything(Names):
    """Tells what it was asked."""

    def helper(self, number: int) -> Named | None:
        return Named(f"helper_{number}")

    def kfunc(self, number: int, offset: int) -> Named | None:
        return Named(f"kfunc_{number}", f"module {offset}")

    def subprogram(self, call: Instruction) -> Named | None:
        return Named(f"subprogram_{call.imm}", f"offset {call.offset}")

    def map(self, number: int) -> Named | None:
        return Named("flows", f"map {number}")

    def map_value(self, number: int, offset: int) -> Named | None:
        return Named("counter", f"map {number} + {offset}")

    def function(self, load: Instruction) -> Named | None:
        return Named(f"callback_{load.imm}")

    def address(self, value: int) -> Named | None:
        return Named("jiffies", f"{value:#x}")


# From kernel/bpf/disasm.c and linux/filter.h; load_acquire, store_release and gotox also from the
# tests of LLVM 22. All other instructions are compared with LLVM.
@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (one(0xC3, 0x21, -4, 0x100), "w1 = load_acquire((u32 *)(r2 - 4))"),
        (one(0xCB, 0x21, 0, 0x100), "w1 = load_acquire((u16 *)(r2 + 0))"),
        (one(0xD3, 0xA1, 32767, 0x100), "w1 = load_acquire((u8 *)(r10 + 32767))"),
        (one(0xDB, 0x21, 8, 0x100), "r1 = load_acquire((u64 *)(r2 + 8))"),
        (one(0xC3, 0x21, -4, 0x110), "store_release((u32 *)(r1 - 4), w2)"),
        (one(0xCB, 0x21, 0, 0x110), "store_release((u16 *)(r1 + 0), w2)"),
        (one(0xD3, 0x1A, -32768, 0x110), "store_release((u8 *)(r10 - 32768), w1)"),
        (one(0xDB, 0x21, 8, 0x110), "store_release((u64 *)(r1 + 8), r2)"),
        (one(0x0D, 0x07), "gotox r7"),
        (one(0xC2), "nospec"),
        (one(0xBF, 0x21, -1), "r1 = &(void __percpu *)(r2)"),
        (one(0xBC, 0x11, 0, 1), "w1 = w1"),  # BPF_ZEXT_REG
        (one(0xBF, 0xB1), "r1 = r11"),  # BPF_REG_AX
        (one(0x85, 0, 0, 12), "call 12"),
        (one(0x40, 0x30, 0, 6), "r0 = *(u32 *)skb[r3 + 6]"),
        (one(0x50, 0x30, 0, -6), "r0 = *(u8 *)skb[r3 - 6]"),
        (one(0x21, 0x21, 4), "r1 = *(u32 *)(r2 + 4)  # PROBE_MEM"),
        (one(0x29, 0x21, 4), "r1 = *(u16 *)(r2 + 4)  # PROBE_MEM"),
        (one(0x31, 0x21, 4), "r1 = *(u8 *)(r2 + 4)  # PROBE_MEM"),
        (one(0x39, 0x21, -4), "r1 = *(u64 *)(r2 - 4)  # PROBE_MEM"),
        (one(0x41, 0x21, 4), "r1 = *(s32 *)(r2 + 4)  # PROBE_MEMSX"),
        (one(0x49, 0x21, 4), "r1 = *(s16 *)(r2 + 4)  # PROBE_MEMSX"),
        (one(0x51, 0x21, 4), "r1 = *(s8 *)(r2 + 4)  # PROBE_MEMSX"),
        (one(0xA1, 0x21, 4), "r1 = *(u32 *)(r2 + 4)  # PROBE_MEM32"),
        (one(0xA9, 0x21, 4), "r1 = *(u16 *)(r2 + 4)  # PROBE_MEM32"),
        (one(0xB1, 0x21, 4), "r1 = *(u8 *)(r2 + 4)  # PROBE_MEM32"),
        (one(0xB9, 0x21, 4), "r1 = *(u64 *)(r2 + 4)  # PROBE_MEM32"),
        (one(0xC1, 0x21, 4), "r1 = *(s32 *)(r2 + 4)  # PROBE_MEM32SX"),
        (one(0xC9, 0x21, 4), "r1 = *(s16 *)(r2 + 4)  # PROBE_MEM32SX"),
        (one(0xD1, 0x21, 4), "r1 = *(s8 *)(r2 + 4)  # PROBE_MEM32SX"),
        (one(0xA2, 0x21, 4, -7), "*(u32 *)(r1 + 4) = -7  # PROBE_MEM32"),
        (one(0xAA, 0x21, 4, -7), "*(u16 *)(r1 + 4) = -7  # PROBE_MEM32"),
        (one(0xB2, 0x21, 4, -7), "*(u8 *)(r1 + 4) = -7  # PROBE_MEM32"),
        (one(0xBA, 0x21, 4, -7), "*(u64 *)(r1 + 4) = -7  # PROBE_MEM32"),
        (one(0xA3, 0x21, 4), "*(u32 *)(r1 + 4) = r2  # PROBE_MEM32"),
        (one(0xAB, 0x21, 4), "*(u16 *)(r1 + 4) = r2  # PROBE_MEM32"),
        (one(0xB3, 0x21, 4), "*(u8 *)(r1 + 4) = r2  # PROBE_MEM32"),
        (one(0xBB, 0x21, 4), "*(u64 *)(r1 + 4) = r2  # PROBE_MEM32"),
        (one(0xE3, 0x21, 4, 0x40), "lock *(u32 *)(r1 + 4) |= w2  # PROBE_ATOMIC"),
        (one(0xFB, 0x21, 4, 0xF1), "r0 = cmpxchg_64(r1 + 4, r0, r2)  # PROBE_ATOMIC"),
        (one(0xEB, 0x21, 4, 0x100), "w1 = load_acquire((u16 *)(r2 + 4))  # PROBE_ATOMIC"),
        (one(0xF3, 0x21, 4, 0x110), "store_release((u8 *)(r1 + 4), w2)  # PROBE_ATOMIC"),
        (load(Load.NUMBER, -1, 0x7FFFFFFF), "r1 = 9223372036854775807 ll"),
        (load(Load.NUMBER, -1, -1), "r1 = -1 ll"),
        (load(Load.MAP_FD, 7), "ld_pseudo r1, 1, 7"),
        (load(Load.MAP_VALUE, 7, 16), "ld_pseudo r1, 2, 7  # upper half 16"),
        (load(Load.FUNC, -3), "ld_pseudo r1, 4, 4294967293"),
    ],
)
def test_syntax(instruction: Instruction, text: str) -> None:
    assert write(instruction, Names()) == text
    assert [write(read, Names()) for read in decode(instruction.encoded())] == [text]


@pytest.mark.parametrize(
    "instruction",
    [
        one(0xFF),
        one(0x07, 0x0C),  # there is no r12
        one(0x0F, 0xC0),
        one(0x07, 0x01, 1),  # += has no signed form
        one(0xBC, 0x21, 32),
        one(0xBC, 0x21, -1),
        one(0xB7, 0x01, 8),
        one(0xD7, 0x01, 0, 8),
        one(0xDF, 0x01, 0, 16),
        one(0x8F, 0x01),
        one(0xDB, 0x21, 0, 2),
        one(0xDB, 0x21, 0, 0x101),
        one(0xD3, 0x21, 0, 0),  # of one byte there is no += that is atomic
        one(0xE5, 0x10),
        one(0x85, 0x30),
        one(0x99, 0x21),
        one(0x38),
        one(0x18, 0x01, 0, 7),  # without a second half
        load(12, 0),
    ],
)
def test_what_is_no_instruction_keeps_its_bytes(instruction: Instruction) -> None:
    text = write(instruction, Everything())
    assert bytes_of(text) == instruction.encoded()


def bytes_of(text: str) -> bytes:
    """The bytes that `.8byte` stands for."""
    directive, _, numbers = text.partition(" ")
    assert directive == ".8byte"
    return b"".join(struct.pack("=Q", int(number, 16)) for number in numbers.split(", "))


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (one(0x85, 0x00, 0, 1), "call helper_1"),
        (one(0x85, 0x00, 0, -1), "call helper_-1"),
        (one(0x85, 0x20, 3, 77), "call kfunc_77  # module 3"),
        (one(0x85, 0x10, -5, 2), "call subprogram_2  # offset -5"),
        (load(Load.MAP_FD, 52), "r1 = flows ll  # map 52"),
        (load(Load.MAP_VALUE, 52, -1, dst=9), "r9 = counter ll  # map 52 + 4294967295"),
        (load(Load.FUNC, 12), "r1 = callback_12 ll"),
        (load(Load.NUMBER, -0x7E000000, -1), "r1 = jiffies ll  # 0xffffffff82000000"),
        (load(Load.BTF_ID, 5), "ld_pseudo r1, 3, 5"),
        (load(Load.MAP_IDX, 5), "ld_pseudo r1, 5, 5"),
        (one(0xB7, 0x01, 0, 5), "r1 = 5"),
        (one(0x8D, 0x01), "callx r1"),
    ],
)
def test_names(instruction: Instruction, text: str) -> None:
    assert write(instruction, Everything()) == text


@given(st.text(), st.text())
def test_names_are_on_one_line(text: str, remark: str) -> None:
    class Odd(Names):
        def map(self, number: int) -> Named | None:
            return Named(text, remark)

    written = write(load(Load.MAP_FD, 1), Odd())
    assert written.startswith("r1 = ")
    assert len(written.splitlines()) == 1
    assert ("  # " in written) or not remark


def test_where_a_jump_leads_to_is_told_by_the_caller() -> None:
    jumps = [one(0x05, 0, 7), one(0x06, 0, 0, -7), one(0xE5, 0, 2), one(0xA6, 0x01, 3, -1)]
    assert [write(jump, Names(), lambda it: f"<{it.step}>") for jump in jumps] == [
        "goto <7>", "gotol <-7>", "may_goto <2>", "if w1 < -1 goto <3>",
    ]  # fmt: skip
    assert write(jumps[1], Names()) == "gotol -7"


@pytest.mark.parametrize(
    "instruction",
    [
        one(0x85, 0x10, 3, 3),  # a call
        one(0x8D, 0, 3),
        one(0x95, 0, 3),
        one(0x0D, 0, 3),
        one(0x07, 0, 3),
        one(0x18, 0, 3),
        one(0xE5, 0x10, 3),
        one(0x15, 0x0C, 3),  # what is no instruction does not jump
    ],
)
def test_what_does_not_jump(instruction: Instruction) -> None:
    assert instruction.step is None


def test_fields() -> None:
    data = bytes.fromhex("b7a1feffffffff7f 1812000078563412 0000000001000000 9500000000000000")
    assert [*decode(data, "little")] == [
        Instruction(0, 0xB7, 1, 10, -2, 0x7FFFFFFF),
        Instruction(1, 0x18, 2, 1, 0, 0x12345678, 1),
        Instruction(3, 0x95, 0, 0, 0, 0),
    ]
    data = bytes.fromhex("b71afffe7fffffff 1821000012345678 0000000000000001")
    assert [*decode(data, "big")] == [
        Instruction(0, 0xB7, 1, 10, -2, 0x7FFFFFFF),
        Instruction(1, 0x18, 2, 1, 0, 0x12345678, 1),
    ]
    assert load(0, -1, 1).imm64 == 0x1_FFFF_FFFF
    assert load(0, 1, -1).imm64 == 0xFFFF_FFFF_0000_0001


def test_a_load_is_followed_by_its_second_half_or_has_none() -> None:
    first = struct.pack("=BBhi", 0x18, 0, 0, 1)
    for second in (first, bytes([0x95]) + bytes(7), bytes([0, 1]) + bytes(6)):
        lengths = [(read.index, read.length) for read in decode(first + second + bytes(8))]
        assert lengths[0] == (0, 1)
        assert sum(length for _, length in lengths) == 3
    assert [read.length for read in decode(first + bytes(8))] == [2]
    assert [read.length for read in decode(first)] == [1]


# The laws.


@pytest.mark.parametrize("order", ["little", "big"])
@given(data=programs, more=st.binary(max_size=7))
def test_all_bytes_are_in_the_instructions(order: ByteOrder, data: bytes, more: bytes) -> None:
    read = [*decode(data + more, order)]
    assert b"".join(each.encoded(order) for each in read) == data
    expected = 0
    for each in read:
        assert each.index == expected
        expected += each.length


@given(programs)
def test_any_bytes_have_a_text(data: bytes) -> None:
    for instruction in decode(data):
        for names in (Names(), Everything()):
            text = write(instruction, names)
            assert re.fullmatch(r"[ -~]+", text)
            if text.startswith(".8byte"):
                assert bytes_of(text) == instruction.encoded()


@given(st.integers(0, 255), words)
def test_the_text_tells_the_fields_that_are_used(code: int, word: bytes) -> None:
    """Two instructions that differ in a register or a number, and are the same text, differ in a
    field that such instructions do not use: with it at zero the text is that as well."""
    instruction = next(decode(bytes([code]) + word[1:]))
    text = write(instruction, Names())
    for field in ("dst", "src", "offset", "imm"):
        other = {name: getattr(instruction, name) for name in ("dst", "src", "offset", "imm")}
        other[field] = 0
        zeroed = Instruction(0, code, **other, next_imm=instruction.next_imm)
        other[field] = 1 if getattr(instruction, field) != 1 else 2
        changed = Instruction(0, code, **other, next_imm=instruction.next_imm)
        if write(changed, Names()) == text:
            assert write(zeroed, Names()) == text


def test_the_kinds_of_calls_are_those_of_the_kernel() -> None:
    assert [*Call] == [0, 1, 2]
    assert [*Load] == [0, 1, 2, 3, 4, 5, 6]
