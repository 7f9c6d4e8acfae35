"""Integers, floats and enumerations of BTF as C has them.

Sizes are in bytes and hold for clang on x86-64; where those of `-target bpf` differ, a condition
of the preprocessor chooses. Source: the System V ABI for x86-64, and what clang 14 does.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusefs.bpf.btf import BtfError, Enum, Float, Int

MAX_SIZE = 16  # bytes of an integer or a float

UNSIGNED = {
    1: "unsigned char",
    2: "unsigned short",
    4: "unsigned int",
    8: "unsigned long long",
    16: "unsigned __int128",
}
SIGNED = {1: "signed char", 2: "short", 4: "int", 8: "long long", 16: "__int128"}
_FLOATS = {4: "float", 8: "double"}


def _words(name: str) -> tuple[str, ...]:
    """What a C type's name is made of: `long unsigned int` is `unsigned long int`."""
    return tuple(sorted(name.split()))


# The types that C has names for: size, and whether they are signed (None: that depends).
_STANDARD: dict[tuple[str, ...], tuple[int, bool | None]] = {
    _words(f"{sign} {length} {rest}"): (size, sign != "unsigned")
    for length, size in (("short", 2), ("long", 8), ("long long", 8))
    for sign in ("", "signed", "unsigned")
    for rest in ("", "int")
} | {
    ("char",): (1, None),
    ("char", "signed"): (1, True),
    ("char", "unsigned"): (1, False),
    ("int",): (4, True),
    ("int", "signed"): (4, True),
    ("int", "unsigned"): (4, False),
    ("signed",): (4, True),
    ("unsigned",): (4, False),
    ("__int128",): (16, True),
    ("__int128", "signed"): (16, True),
    ("__int128", "unsigned"): (16, False),
}


@dataclass(frozen=True)
class Base:
    """An integer or a float in C.

    `definition` is a C type to define `name` as, or empty where `name` is a C type already.
    Without a C type of the size it is a struct of bytes, which unlike an array can be returned;
    with `condition`, only where that does not hold.
    """

    name: str
    definition: str
    size: int
    align: int
    condition: str = ""


def base_type(number: Int | Float) -> Base:
    """The C type of an integer or a float. Raises `BtfError` for a size that none has."""
    if not 1 <= number.size <= MAX_SIZE:
        raise BtfError(f"{number.name}: a number of {number.size} bytes")
    return _float(number) if isinstance(number, Float) else _integer(number)


def integer(size: int, *, signed: bool) -> str:
    """The plain C integer of one of the sizes that C has."""
    return (SIGNED if signed else UNSIGNED)[size]


def _integer(number: Int) -> Base:
    size = number.size
    if number.is_bool and size == 1:
        plain = "_Bool"
    elif size in UNSIGNED:
        plain = integer(size, signed=number.signed)
    else:
        return Base(number.name or f"int{size * 8}", _bytes(size), size, 1)
    standard_size, signed = _STANDARD.get(_words(number.name), (0, None))
    if not number.name or number.name == plain:
        return Base(plain, "", size, size)
    if standard_size == size and signed in (None, number.signed) and not number.is_bool:
        return Base(" ".join(number.name.split()), "", size, size)
    return Base(number.name, plain, size, size)


def _float(number: Float) -> Base:
    size = number.size
    name = number.name or f"float{size * 8}"
    if size in _FLOATS:
        plain = _FLOATS[size]
        return Base(name, "" if name == plain else plain, size, size)
    if size == 16:  # of 8 bytes with -target bpf
        return Base(name, "long double", size, size, "__SIZEOF_LONG_DOUBLE__ == 16")
    if size == 2:
        return Base(name, "_Float16", size, size, "defined(__FLT16_MAX__)")
    return Base(name, _bytes(size), size, 1)


def _bytes(size: int, align: int = 1) -> str:
    aligned = f" __attribute__((aligned({align})))" if align > 1 else ""
    return f"struct {{\n\tunsigned char bytes[{size}];\n}}{aligned}"


def base_definition(base: Base, name: str) -> str:
    """The declaration of a type that is no C type, as `name`."""
    typedef = f"typedef {base.definition} {name};"
    if not base.condition:
        return typedef
    other = f"typedef {_bytes(base.size, base.align)} {name};"
    return f"#if {base.condition}\n{typedef}\n#else\n{other}\n#endif"


@dataclass(frozen=True)
class Enumeration:
    """How an enumeration is written: `attribute` (may be empty) gives it its size.

    `signed` is what C makes of it; clang takes every enumeration with a mode for signed.
    """

    values: tuple[tuple[str, int], ...]
    attribute: str
    signed: bool


def enumeration(enum: Enum) -> Enumeration:
    """The C enumeration. Raises `BtfError` for a size that none has."""
    size = enum.size
    if size not in (1, 2, 4, 8):
        raise BtfError(f"enum {enum.name}: an enumeration of {size} bytes")
    values = [(name, _small(value) if size < 4 else value) for name, value in enum.values]
    signed = any(value < 0 for _name, value in values)
    values = [(name, _wrapped(value, size, signed=signed)) for name, value in values]
    natural = _natural_size([value for _name, value in values], signed=signed)
    if size == 1 or (size == 2 and natural == 2):
        attribute = "packed"
    elif max(natural, 4) == size:
        attribute = ""
    else:
        attribute, signed = f"mode({'HI' if size == 2 else 'DI'})", True
    return Enumeration(tuple(values), attribute, signed)


def _small(value: int) -> int:
    """A value of an enumeration of 1 or 2 bytes. Without a flag for the sign, as before LLVM 16,
    negative ones are given as what they are in 32 bits."""
    return value - (1 << 32) if value >> 31 == 1 else value


def _wrapped(value: int, size: int, *, signed: bool) -> int:
    """The value that has the same lowest bytes and can be had by the type."""
    value &= (1 << size * 8) - 1
    return value - (1 << size * 8) if signed and value >> (size * 8 - 1) else value


def _natural_size(values: list[int], *, signed: bool) -> int:
    """The least size that holds the values."""
    bits = max(((value if value >= 0 else ~value).bit_length() for value in values), default=0)
    return next(size for size in (1, 2, 4, 8) if bits + signed <= size * 8)


def constant(value: int) -> str:
    """An integer as C has it, of a type that holds it, as far as there is one."""
    if value == -(1 << 63):
        return "-9223372036854775807LL - 1"
    magnitude = abs(value)
    suffixes = (("", 31), ("U" if value > 0 else "LL", 32), ("LL", 63), ("ULL", 64))
    return str(value) + next(suffix for suffix, bits in suffixes if magnitude >> bits == 0)
