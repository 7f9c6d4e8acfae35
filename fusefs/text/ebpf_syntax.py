"""eBPF instructions as text, in the syntax of LLVM's assembler.

It is that of `llvm-objdump -d` but for what is noted at the tables; numbers are decimal. What only
the kernel knows is written as in kernel/bpf/disasm.c, or as the program had it, with a remark.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping

from fusefs.text.ebpf import Call, Instruction, Load, Named, Names, Where, relative
from fusefs.text.jsontext import escape_controls

# Writes the instructions of one code; None for those that are none.
_Writer = Callable[[Instruction, Names, Where], str | None]

# The bits of a code, from linux/bpf_common.h and linux/bpf.h.
_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)
_K, _X = 0x00, 0x08  # with a constant, with a register
_IMM, _ABS, _IND, _MEM, _MEMSX, _ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0
_UNSIGNED = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_SIGNED = {0x00: "s32", 0x08: "s16", 0x10: "s8"}
_CALL, _EXIT, _JCOND, _NEG, _MOV, _END = 0x80, 0x90, 0xE0, 0x80, 0xB0, 0xD0

# Modes that the verifier gives to accesses that may fault, or are to an arena (linux/filter.h).
# They are written as what they were in the program, which the kernel makes of some by itself.
_PROBES_OF_LOADS = {0x20: "PROBE_MEM", 0xA0: "PROBE_MEM32"}
_PROBES_OF_SIGNED_LOADS = {0x40: "PROBE_MEMSX", 0xC0: "PROBE_MEM32SX"}
_PROBES_OF_STORES = {0xA0: "PROBE_MEM32"}
_PROBES_OF_ATOMICS = {0xE0: "PROBE_ATOMIC"}
_NOSPEC = 0xC0
_U32 = 0xFFFFFFFF

_OPERATORS = {
    0x00: "+=", 0x10: "-=", 0x20: "*=", 0x30: "/=", 0x40: "|=", 0x50: "&=", 0x60: "<<=",
    0x70: ">>=", 0x90: "%=", 0xA0: "^=", 0xC0: "s>>=",
}  # fmt: skip
_WITH_SIGN = (0x30, 0x90)  # division and remainder have a form with signs, by their offset
_CONDITIONS = {
    0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&", 0x50: "!=", 0x60: "s>", 0x70: "s>=", 0xA0: "<",
    0xB0: "<=", 0xC0: "s<", 0xD0: "s<=",
}  # fmt: skip
_SWAPS = {_ALU | _K: "le", _ALU | _X: "be", _ALU64 | _K: "bswap"}
# Moves, by their offset. The last is the verifier's own: BPF_ADDR_PERCPU in linux/filter.h.
_MOVES = {0: "", 8: "(s8)", 16: "(s16)"}
_MOVES_64 = _MOVES | {32: "(s32)"}
_CAST, _PERCPU = 1, -1

# Atomic operations, by their constant. Their registers are those of `-mcpu=v3`: of 32 bits for
# operations of up to that. For plain loads and stores they are always of 64 bits, as in the log of
# the verifier, since what is above a value that was loaded is zero.
_ATOMICS = {
    0x00: "lock *({type} *)({place}) += {value}",
    0x40: "lock *({type} *)({place}) |= {value}",
    0x50: "lock *({type} *)({place}) &= {value}",
    0xA0: "lock *({type} *)({place}) ^= {value}",
    0x01: "{value} = atomic_fetch_add(({type} *)({place}), {value})",
    0x41: "{value} = atomic_fetch_or(({type} *)({place}), {value})",
    0x51: "{value} = atomic_fetch_and(({type} *)({place}), {value})",
    0xA1: "{value} = atomic_fetch_xor(({type} *)({place}), {value})",
    0xE1: "{value} = xchg{suffix}({place}, {value})",
    0xF1: "{letter}0 = cmpxchg{suffix}({place}, {letter}0, {value})",
}
_ORDERED = {
    0x100: "{target} = load_acquire(({type} *)({source}))",
    0x110: "store_release(({type} *)({place}), {value})",
}
_SUFFIXES = {"u32": "32_32", "u64": "_64"}


def write(instruction: Instruction, names: Names, where: Where = relative) -> str:
    """An instruction as text. `where` tells where a jump leads to.

    What is no instruction becomes a number of the assembler that has all its bytes. Fields that an
    instruction does not use are not looked at.
    """
    writer = _WRITERS.get(instruction.code)
    if writer is None or not instruction.has_registers:
        return _bytes(instruction)
    return writer(instruction, names, where) or _bytes(instruction)


def _bytes(instruction: Instruction) -> str:
    data = instruction.encoded()
    numbers = [int.from_bytes(data[at : at + 8], sys.byteorder) for at in range(0, len(data), 8)]
    return ".8byte " + ", ".join(f"{number:#018x}" for number in numbers)


def _place(register: int, offset: int) -> str:
    return f"r{register} + {offset}" if offset >= 0 else f"r{register} - {-offset}"


def _with_remark(text: str, remark: str) -> str:
    return f"{text}  # {remark}" if remark else text


def _named(before: str, named: Named, after: str = "") -> str:
    """A name in its place. It is somebody else's, and may hold anything."""
    text = f"{before}{escape_controls(named.text)}{after}"
    return _with_remark(text, escape_controls(named.remark))


# Arithmetic.


def _arithmetic(letter: str, operator: str, *, signed: bool, register: bool) -> _Writer:
    operators = {0: operator, 1: f"s{operator}"} if signed else {0: operator}

    def by_constant(it: Instruction, names: Names, where: Where) -> str | None:
        if (found := operators.get(it.offset)) is None:
            return None
        return f"{letter}{it.dst} {found} {it.imm}"

    def by_register(it: Instruction, names: Names, where: Where) -> str | None:
        if (found := operators.get(it.offset)) is None:
            return None
        return f"{letter}{it.dst} {found} {letter}{it.src}"

    return by_register if register else by_constant


def _move(letter: str, casts: Mapping[int, str]) -> _Writer:
    def writer(it: Instruction, names: Names, where: Where) -> str | None:
        if (cast := casts.get(it.offset)) is None:
            return None
        return f"{letter}{it.dst} = {cast}{letter}{it.src}"

    return writer


def _move_64(it: Instruction, names: Names, where: Where) -> str | None:
    if it.offset == _CAST:
        spaces = f"{it.imm >> 16 & 0xFFFF}, {it.imm & 0xFFFF}"
        return f"r{it.dst} = addr_space_cast(r{it.src}, {spaces})"
    if it.offset == _PERCPU:
        return f"r{it.dst} = &(void __percpu *)(r{it.src})"
    return _PLAIN_MOVE_64(it, names, where)


_PLAIN_MOVE_64 = _move("r", _MOVES_64)


def _negation(letter: str) -> _Writer:
    return lambda it, names, where: f"{letter}{it.dst} = -{letter}{it.dst}"


def _swap(name: str) -> _Writer:
    def writer(it: Instruction, names: Names, where: Where) -> str | None:
        return f"r{it.dst} = {name}{it.imm} r{it.dst}" if it.imm in (16, 32, 64) else None

    return writer


# Memory.


def _load(kind: str, remark: str = "") -> _Writer:
    end = _with_remark("", remark)

    def writer(it: Instruction, names: Names, where: Where) -> str:
        return f"r{it.dst} = *({kind} *)({_place(it.src, it.offset)}){end}"

    return writer


def _store(kind: str, remark: str = "") -> _Writer:
    end = _with_remark("", remark)

    def writer(it: Instruction, names: Names, where: Where) -> str:
        return f"*({kind} *)({_place(it.dst, it.offset)}) = r{it.src}{end}"

    return writer


def _store_constant(kind: str, remark: str = "") -> _Writer:
    end = _with_remark("", remark)

    def writer(it: Instruction, names: Names, where: Where) -> str:
        return f"*({kind} *)({_place(it.dst, it.offset)}) = {it.imm}{end}"

    return writer


def _atomic(kind: str, remark: str = "") -> _Writer:
    letter = "r" if kind == "u64" else "w"
    suffix = _SUFFIXES.get(kind)
    forms = _ATOMICS | _ORDERED if suffix else _ORDERED

    def writer(it: Instruction, names: Names, where: Where) -> str | None:
        if (form := forms.get(it.imm)) is None:
            return None
        text = form.format(
            type=kind,
            letter=letter,
            suffix=suffix,
            place=_place(it.dst, it.offset),
            source=_place(it.src, it.offset),
            target=f"{letter}{it.dst}",
            value=f"{letter}{it.src}",
        )
        return _with_remark(text, remark)

    return writer


def _packet(kind: str) -> _Writer:
    return lambda it, names, where: f"r0 = *({kind} *)skb[{it.imm}]"


def _packet_at(kind: str) -> _Writer:
    """LLVM leaves the constant out, which is not zero in old programs only."""

    def writer(it: Instruction, names: Names, where: Where) -> str:
        more = f" + {it.imm}" if it.imm > 0 else f" - {-it.imm}" if it.imm else ""
        return f"r0 = *({kind} *)skb[r{it.src}{more}]"

    return writer


def _load_64(it: Instruction, names: Names, where: Where) -> str | None:
    if it.next_imm is None:
        return None
    if named := _loaded(it, names):
        return _named(f"r{it.dst} = ", named, " ll")
    if it.src == Load.NUMBER:
        return f"r{it.dst} = {it.next_imm << 32 | it.imm & _U32} ll"
    # LLVM has no place for the upper half.
    remark = f"upper half {it.next_imm & _U32}" if it.next_imm else ""
    return _with_remark(f"ld_pseudo r{it.dst}, {it.src}, {it.imm & _U32}", remark)


def _loaded(it: Instruction, names: Names) -> Named | None:
    """What a 64-bit load loads, if that is known."""
    match it.src:
        case Load.NUMBER:
            return names.address(it.imm64)
        case Load.MAP_FD:
            return names.map(it.imm & _U32)
        case Load.MAP_VALUE:
            return names.map_value(it.imm & _U32, it.imm64 >> 32)
        case Load.FUNC:
            return names.function(it)
        case _:
            return None


# Jumps and calls.


def _jump(letter: str, condition: str, *, register: bool) -> _Writer:
    def by_constant(it: Instruction, names: Names, where: Where) -> str:
        return f"if {letter}{it.dst} {condition} {it.imm} goto {where(it)}"

    def by_register(it: Instruction, names: Names, where: Where) -> str:
        return f"if {letter}{it.dst} {condition} {letter}{it.src} goto {where(it)}"

    return by_register if register else by_constant


def _goto(name: str) -> _Writer:
    return lambda it, names, where: f"{name} {where(it)}"


def _may_goto(it: Instruction, names: Names, where: Where) -> str | None:
    return None if it.src else f"may_goto {where(it)}"


def _through_register(name: str) -> _Writer:
    return lambda it, names, where: f"{name} r{it.dst}"


def _call(it: Instruction, names: Names, where: Where) -> str | None:
    match it.src:
        case Call.HELPER:
            named = names.helper(it.imm)
        case Call.SUBPROGRAM:
            named = names.subprogram(it)
        case Call.KFUNC:
            named = names.kfunc(it.imm, it.offset)
        case _:
            return None
    return _named("call ", named) if named else f"call {it.imm}"


def _word(text: str) -> _Writer:
    return lambda it, names, where: text


def _arithmetic_writers() -> dict[int, _Writer]:
    made: dict[int, _Writer] = {}
    for kind, letter in ((_ALU, "w"), (_ALU64, "r")):
        for op, operator in _OPERATORS.items():
            form = functools.partial(_arithmetic, letter, operator, signed=op in _WITH_SIGN)
            made[kind | op | _K] = form(register=False)
            made[kind | op | _X] = form(register=True)
        made[kind | _MOV | _K] = _arithmetic(letter, "=", signed=False, register=False)
        made[kind | _NEG] = _negation(letter)
    made[_ALU | _MOV | _X] = _move("w", _MOVES)
    made[_ALU64 | _MOV | _X] = _move_64
    return made | {_END | kind: _swap(name) for kind, name in _SWAPS.items()}


def _memory_writers() -> dict[int, _Writer]:
    made: dict[int, _Writer] = {_LD | _IMM | 0x18: _load_64, _ST | _NOSPEC: _word("nospec")}
    # Class, writer, the types by the bits of their size, the remarks by the bits of the mode.
    for kind, form, types, modes in (
        (_LDX, _load, _UNSIGNED, {_MEM: "", **_PROBES_OF_LOADS}),
        (_LDX, _load, _SIGNED, {_MEMSX: "", **_PROBES_OF_SIGNED_LOADS}),
        (_ST, _store_constant, _UNSIGNED, {_MEM: "", **_PROBES_OF_STORES}),
        (_STX, _store, _UNSIGNED, {_MEM: "", **_PROBES_OF_STORES}),
        (_STX, _atomic, _UNSIGNED, {_ATOMIC: "", **_PROBES_OF_ATOMICS}),
    ):
        for size, name in types.items():
            made |= {kind | mode | size: form(name, remark) for mode, remark in modes.items()}
    for size, name in _UNSIGNED.items():
        if name != "u64":
            made[_LD | _ABS | size] = _packet(name)
            made[_LD | _IND | size] = _packet_at(name)
    return made


def _jump_writers() -> dict[int, _Writer]:
    made: dict[int, _Writer] = {}
    for kind, letter in ((_JMP, "r"), (_JMP32, "w")):
        for op, condition in _CONDITIONS.items():
            made[kind | op | _K] = _jump(letter, condition, register=False)
            made[kind | op | _X] = _jump(letter, condition, register=True)
    return made | {
        _JMP | _K: _goto("goto"),
        _JMP | _X: _through_register("gotox"),
        _JMP32 | _K: _goto("gotol"),
        _JMP | _JCOND: _may_goto,
        _JMP | _CALL | _K: _call,
        _JMP | _CALL | _X: _through_register("callx"),
        _JMP | _EXIT: _word("exit"),
    }


_WRITERS: Mapping[int, _Writer] = _arithmetic_writers() | _memory_writers() | _jump_writers()
