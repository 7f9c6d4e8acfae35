"""What a value's text must say, worked out anew for each value: slow, and plain to see.

`decode` walks the types of a value and gives what `to_text`'s JSON must be, and `agrees` tells
whether it is. Nothing is shared with `fusefs.text`: the rules are written down a second time here,
one function each, so that a mistake in the codecs is not made twice.

A type is taken to be well formed: what the codecs refuse to compile is not looked for.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import socket
import struct
import sys
from decimal import Decimal
from fractions import Fraction
from typing import cast

from fusefs.bpf.btf import (
    Alias,
    Array,
    Btf,
    Composite,
    DataSection,
    Enum,
    Float,
    Forward,
    Function,
    Int,
    Kind,
    Member,
    Pointer,
    Prototype,
    Type,
    Variable,
    Void,
)

# A Fraction stands for a number whose exact value is known, but not its digits: see `decode`.
Json = bool | int | float | Fraction | str | list["Json"] | dict[str, "Json"]

POINTER_SIZE = 8
SPECIAL_STRUCTS = """
    bpf_list_head bpf_list_node bpf_rb_node bpf_rb_root bpf_refcount bpf_res_spin_lock
    bpf_spin_lock bpf_task_work bpf_timer bpf_wq
""".split()
SPECIAL_TAGS = ["kptr", "kptr_ref", "kptr_untrusted", "percpu_kptr", "uptr"]


def decode(btf: Btf, type_id: int, data: bytes) -> Json:
    """The value of `data`, which is as long as the type.

    It is what `json.loads` makes of the value's text, but for finite long doubles (of 10, 12 or 16
    bytes, and of x86 alone). Their digits are not laid down, only that the decimal number rounds
    back to the same bits. So the exact value is given as a Fraction (or as 0.0 or -0.0), and is to
    be compared by rounding: `to_x87` of the number that is shown is `to_x87` of the Fraction.
    `agrees` does that.
    """
    target = btf.type(type_id)
    match target:
        case Alias():
            return _alias(btf, target, data)
        case Variable():
            return decode(btf, target.type_id, data)
        case Int():
            return _integer(target, _bits(data, target.offset, target.bits), target.bits)
        case Enum():
            return _enumerator(target, _bits(data, 0, target.size * 8), target.size * 8)
        case Float():
            return _float(target, data)
        case Pointer():
            return hex(int.from_bytes(data, sys.byteorder)) if shown(btf, type_id) else {}
        case Array():
            return _array(btf, target, data)
        case Composite():
            return _composite(btf, target, data)
        case DataSection():
            return _section(btf, target, data)
    raise ValueError(f"type {type_id} has no values")


def size_of(btf: Btf, type_id: int) -> int:
    """The size of the type's values, in bytes."""
    target = btf.type(type_id)
    match target:
        case Alias():
            return size_of(btf, target.target)
        case Variable():
            return size_of(btf, target.type_id)
        case Pointer():
            return POINTER_SIZE
        case Array():
            return target.count * size_of(btf, target.element)
        case Int() | Enum() | Float() | Composite() | DataSection():
            return target.size
    raise ValueError(f"type {type_id} has no values")


def shown(btf: Btf, type_id: int) -> bool:
    """Whether there is anything to see of the type's values."""
    target = btf.type(type_id)
    match target:
        case Alias():
            return shown(btf, target.target)
        case Variable():
            return shown(btf, target.type_id)
        case Pointer():
            match btf.type(target.target):
                case Alias(kind=Kind.TYPE_TAG, name=tag):
                    return tag not in SPECIAL_TAGS
        case Array():
            return target.count > 0 and shown(btf, target.element)
        case Composite():
            if _is_special(target) or _is_address(target):
                return _is_address(target)
            return any(shown(btf, member.type_id) for member in target.members)
        case DataSection():
            return any(
                size > 0 if _is_opaque(btf, type_id) else shown(btf, type_id)
                for type_id, _offset, size in target.variables
                if isinstance(btf.type(type_id), Variable)
            )
    return True


def _bits(data: bytes, first: int, count: int) -> int:
    """The unsigned number in `count` bits of `data` from bit `first` on.

    Bits count up from the least significant on little-endian machines, and down from the most
    significant on big-endian ones.
    """
    whole = int.from_bytes(data, sys.byteorder)
    after = first if sys.byteorder == "little" else len(data) * 8 - first - count
    return whole >> after & (1 << count) - 1


def _signed(number: int, bits: int) -> int:
    """The number that `bits` bits mean in two's complement."""
    return number - (1 << bits) if number >= 1 << bits - 1 else number


def _integer(target: Int, number: int, bits: int) -> int | bool:
    """A number, but 0 and 1 of a bool are false and true."""
    if target.is_bool and target.size == 1:
        return bool(number) if number in (0, 1) else number
    return _signed(number, bits) if target.signed else number


def _enumerator(target: Enum, number: int, bits: int) -> str | int:
    """The first enumerator with this value, or a number.

    A name that reads as a number is no name, and of two equal names the first counts.
    """
    # One that is too large for unsigned is what a compiler that marks none makes of a negative one.
    signed = target.signed or any(value >> target.size * 8 for _name, value in target.values)
    if signed:
        number = _signed(number, bits)
    names: list[str] = []
    for name, value in target.values:
        if name == "" or _reads_as_integer(name) or name in names:
            continue
        names.append(name)
        # A compiler that does not mark signed enumerations writes -1 as 0xffffffff.
        low = value % (1 << target.size * 8)
        if (_signed(low, target.size * 8) if signed else low) == number:
            return name
    return number


def _reads_as_integer(text: str) -> bool:
    return re.fullmatch("-?([0-9]+|0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+)", text) is not None


def _alias(btf: Btf, target: Alias, data: bytes) -> Json:
    """A typedef __be16, __be32 or __be64 of an integer of that size is in network order."""
    below = btf.type(btf.strip(target.target))
    if (
        target.kind == Kind.TYPEDEF
        and (target.name, len(data)) in (("__be16", 2), ("__be32", 4), ("__be64", 8))
        and isinstance(below, Int)
        and below.bits == len(data) * 8
    ):
        return int.from_bytes(data, "big")
    return decode(btf, target.target, data)


def _array(btf: Btf, target: Array, data: bytes) -> Json:
    """A char[] is text, where nothing but NULs follows it. What is not shown has no elements."""
    below = btf.type(btf.strip(target.element))
    if isinstance(below, Int) and below.name == "char" and below.size == 1:
        text, _nul, rest = data.partition(b"\0")
        try:
            return text.decode() if not any(rest) else list(data)
        except UnicodeDecodeError:
            return list(data)
    if not shown(btf, target.element):
        return []
    size = size_of(btf, target.element)
    return [
        decode(btf, target.element, data[index * size : (index + 1) * size])
        for index in range(target.count)
    ]


def _is_special(target: Composite) -> bool:
    """Whether the kernel keeps it for itself."""
    return not target.is_union and target.name in SPECIAL_STRUCTS


def _is_address(target: Type) -> bool:
    """Whether it is a `struct in_addr` or `struct in6_addr`."""
    return (
        isinstance(target, Composite)
        and not target.is_union
        and (target.name, target.size) in (("in_addr", 4), ("in6_addr", 16))
    )


def _composite(btf: Btf, target: Composite, data: bytes) -> Json:
    """An object of the members; every member of a union."""
    if _is_address(target):
        return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)
    if _is_special(target):
        return {}
    own = [member.name for member in target.members if member.name]
    value: dict[str, Json] = {}
    for member in target.members:
        if not shown(btf, member.type_id):
            continue
        decoded = _member(btf, member, data)
        below = btf.type(btf.strip(member.type_id))
        inner = decoded if isinstance(below, Composite) and not _is_address(below) else None
        if not member.name and isinstance(inner, dict) and not {*inner} & {*own, *value}:
            value.update(inner)  # members of an anonymous struct or union
        else:
            value[_name(member.name, own, value)] = decoded
    return value


def _name(name: str, own: list[str], value: dict[str, Json]) -> str:
    """The name itself, or where there is none or it is taken, one with a number.

    Numbered names are none of the names that the members have in C, nor one that came before.
    """
    if name and name not in value:
        return name
    stem = f"{name}_" if name else "anon"
    numbered = (f"{stem}{number}" for number in itertools.count())
    return next(free for free in numbered if free not in own and free not in value)


def _member(btf: Btf, member: Member, data: bytes) -> Json:
    """The value of a member, which may be a bitfield in the new or the old encoding."""
    below = btf.type(btf.strip(member.type_id))
    first, bits = member.bit_offset, member.bits
    if not bits and isinstance(below, Int) and below.bits < below.size * 8:
        first, bits = first + below.offset, below.bits
    if bits and isinstance(below, Int):
        return _integer(below, _bits(data, first, bits), bits)
    if bits and isinstance(below, Enum):
        return _enumerator(below, _bits(data, first, bits), bits)
    assert not bits and first % 8 == 0
    return decode(btf, member.type_id, data[first // 8 :][: size_of(btf, member.type_id)])


def _is_opaque(btf: Btf, variable_id: int) -> bool:
    """Whether a variable's type has no values, as that of an extern may be."""
    variable = btf.type(variable_id)
    assert isinstance(variable, Variable)
    below = btf.type(btf.strip(variable.type_id))
    return isinstance(below, Void | Forward | Function | Prototype)


def _section(btf: Btf, target: DataSection, data: bytes) -> Json:
    """An object of the variables; of equal names all but the first get a number."""
    variables = [
        (variable.name, type_id, offset, size)
        for type_id, offset, size in target.variables
        if isinstance(variable := btf.type(type_id), Variable)
    ]
    own = [name for name, *_ in variables]
    value: dict[str, Json] = {}
    for name, type_id, offset, size in variables:
        if _is_opaque(btf, type_id):
            if size > 0:
                value[_name(name, own, value)] = data[offset:][:size].hex()
        elif shown(btf, type_id):
            part = data[offset:][: size_of(btf, type_id)]
            value[_name(name, own, value)] = decode(btf, type_id, part)
    return value


def _float(target: Float, data: bytes) -> Json:
    """The number, rounded to as few digits as read back as the same bits. What is no number is a
    string."""
    match target.size:
        case 2:
            return _ieee754("e", fraction=10, data=data)
        case 4:
            return _ieee754("f", fraction=23, data=data)
        case 8:
            return _ieee754("d", fraction=52, data=data)
        case 10 | 12 | 16:
            return _x87(data)
    return data.hex()


def _ieee754(code: str, fraction: int, data: bytes) -> Json:
    """A float in the struct module's format `code`, with `fraction` bits of fraction."""
    value: float = struct.unpack(f"={code}", data)[0]
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if math.isnan(value):
        bits = int.from_bytes(data, sys.byteorder)
        exponent = len(data) * 8 - 1 - fraction
        quiet = (1 << exponent + 1) - 1 << fraction - 1
        return "nan" if bits == quiet else f"0x{bits:0{len(data) * 2}x}"
    if value == 0 or code == "d":
        return value  # of these Python's repr, and so json, gives the shortest
    for digits in itertools.count(1):
        exponent = _decimal_exponent(value, digits)
        short = float(f"{round(Fraction(value) / Fraction(10) ** exponent)}e{exponent}")
        try:
            if struct.pack(f"={code}", short) == data:
                return short
        except OverflowError:  # rounded up from the greatest
            continue
    raise AssertionError("no number of digits is enough")


def _decimal_exponent(value: float, digits: int) -> int:
    """The power of ten at which a number has so many digits before the point."""
    _mantissa, exponent = f"{abs(value):.20e}".split("e")
    return int(exponent) - digits + 1


def _x87(data: bytes) -> Json:
    """A long double of x86: 64 bits of mantissa with their integer bit, 16 of exponent and sign;
    what follows is padding."""
    bits = int.from_bytes(data[:10], "little")
    mantissa, exponent, negative = bits & (1 << 64) - 1, bits >> 64 & 0x7FFF, bits >> 79
    if bits == 0x7FFF_8000_0000_0000_0000:
        return "inf"
    if bits == 0xFFFF_8000_0000_0000_0000:
        return "-inf"
    if bits == 0x7FFF_C000_0000_0000_0000:
        return "nan"
    if exponent == 0x7FFF or (exponent > 0) != bool(mantissa >> 63):
        return f"0x{bits:020x}"  # another NaN, or a form that no processor makes any more
    if mantissa == 0:
        return -0.0 if negative else 0.0
    value = mantissa * Fraction(2) ** (max(exponent, 1) - 16383 - 63)
    return -value if negative else value


def to_x87(value: Fraction) -> int | None:
    """The 80 bits of the long double that is nearest to `value`, the even one of two; None for
    what is out of range."""
    negative, value = value < 0, abs(value)
    exponent = 1
    # Halve or double until the mantissa is a number of 64 bits, or as small as it gets.
    mantissa = value / Fraction(2) ** (1 - 16383 - 63)
    excess = math.floor(mantissa).bit_length() - 64
    if excess > 0:
        exponent, mantissa = exponent + excess, mantissa / (1 << excess)
    rounded = round(mantissa)  # half to even, for a Fraction
    if rounded >> 64:
        exponent, rounded = exponent + 1, rounded >> 1
    if exponent >= 0x7FFF:
        return None
    if not rounded >> 63:
        exponent = 0
    return negative << 79 | exponent << 64 | rounded


def read(text: str) -> object:
    """What a strict reader makes of `text`, with every digit of its numbers: integers are int,
    other numbers Decimal."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(pairs)) == len(pairs), f"a name comes twice in {text}"
        return dict(pairs)

    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is not JSON")

    return cast(
        object,
        json.loads(text, parse_float=Decimal, parse_constant=refuse, object_pairs_hook=unique),
    )


def agrees(said: object, expected: Json) -> bool:
    """Whether `said`, which `read` gave, is what `decode` gave: types, order of members and all."""
    match expected:
        case dict():
            return (
                isinstance(said, dict)
                and list(said) == list(expected)
                and all(agrees(said[name], expected[name]) for name in expected)
            )
        case list():
            return (
                isinstance(said, list)
                and len(said) == len(expected)
                and all(map(agrees, said, expected))
            )
        case float() | Fraction():
            if isinstance(said, bool) or not isinstance(said, int | Decimal):
                return False
            if isinstance(expected, Fraction):
                return to_x87(Fraction(said)) == to_x87(expected)
            wanted, number = Decimal(repr(expected)), Decimal(said)  # digit for digit
            return number == wanted and number.is_signed() == wanted.is_signed()
        case _:  # bool, int, str
            return type(said) is type(expected) and said == expected
