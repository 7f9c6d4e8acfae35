"""Codec for long double: a float that Python has none for, so it is worked out in integers."""

from __future__ import annotations

import functools
import platform
import re
import sys
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

from fusefs.text.codec import Codec, Column, Texts, scalar
from fusefs.text.errors import clip, refusal
from fusefs.text.floats import begins_number, to_number
from fusefs.text.parse import Node


@dataclass(frozen=True, slots=True)
class Layout:
    """A float of `bytes` bytes: a sign, 15 bits of exponent, and below them the `precision` bits
    of the significand, the first of which is stored, or (`implicit`) only meant."""

    bytes: int
    precision: int
    implicit: bool

    @property
    def stored(self) -> int:
        """The bits of the significand that are stored."""
        return self.precision - self.implicit


X87 = Layout(10, 64, implicit=False)
QUAD = Layout(16, 113, implicit=True)
_X87_SIZES = (10, 12, 16)  # what it takes on i386 and x86-64: the rest is padding
_BIAS = 16383
_SPECIAL = 0x7FFF  # the exponent of infinities and NaNs
_WEIGHT = 256  # it takes as long as so many integers, and at the ends of its range longer
_FEWEST = 15  # digits to begin with: below that none is saved that rounding does not strip


def layout_of(size: int, machine: str = "") -> Layout | None:
    """How this machine (or `machine`, as uname(1) has it) lays a long double of `size` bytes out.

    Source: the psABI of each. None where there are several, as on POWER.
    """
    machine = machine or platform.machine()
    if machine in ("x86_64", "i386", "i686"):
        return X87 if size in _X87_SIZES else None
    quad = machine in ("aarch64", "riscv64", "s390x", "loongarch64", "mips64")
    return QUAD if quad and size == QUAD.bytes else None


class LongDouble(Codec):
    """A long double, shown as the number of fewest digits that is read back as the same bits.

    What JSON has no number for is shown as by `Float`; so are bits that the processor makes of no
    number. Its padding is not shown.
    """

    def __init__(self, name: str, size: int, layout: Layout) -> None:
        self.name = name
        self.size = size
        self._layout = layout
        self._digits = layout.bytes * 2
        self.weight = _WEIGHT

    @functools.cached_property
    def mask(self) -> int:
        return (1 << self._layout.bytes * 8) - 1

    def shown(self, column: Column) -> Texts:
        return [self._text(int.from_bytes(self._own(item), sys.byteorder)) for item in column]

    def _own(self, data: bytes) -> bytes:
        return data[: self._layout.bytes]

    def _text(self, bits: int) -> str:
        layout = self._layout
        sign, exponent = bits >> layout.bytes * 8 - 1, bits >> layout.stored & 0x7FFF
        stored = bits & (1 << layout.stored) - 1
        one = 1 << layout.precision - 1
        if exponent == _SPECIAL and stored == (0 if layout.implicit else one):
            return '"-inf"' if sign else '"inf"'
        if bits == self._nan:
            return '"nan"'
        significand = stored | (one if layout.implicit and exponent else 0)
        if exponent == _SPECIAL or bool(significand & one) != bool(exponent):  # a NaN, or invalid
            return f'"0x{bits:0{self._digits}x}"'
        scale = max(exponent, 1) - _BIAS - layout.precision + 1
        return ("-" if sign else "") + _shortest(significand, scale, layout)

    @property
    def _nan(self) -> int:
        layout = self._layout
        return (_SPECIAL << layout.stored) | (3 << layout.precision - 2) % (1 << layout.stored)

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        text = scalar(node, path, self.name)
        bits = self._bits(text)
        if bits is None:
            raise refusal(path, f"expected a number ({self.name}), got {clip(text)!r}", node.at)
        if bits < 0:
            raise refusal(path, f"{clip(text)} is out of range for {self.name}", node.at)
        return bits.to_bytes(self._layout.bytes, sys.byteorder) + old[self._layout.bytes :]

    def _bits(self, text: str) -> int | None:
        """What `text` says; -1 for a number that is too large, None for what is no number."""
        layout = self._layout
        if re.fullmatch(f"0[xX][0-9a-fA-F]{{{self._digits}}}", text):
            return int(text, 16)
        number = to_number(text)
        if number is None:
            return None
        sign = text.startswith("-") << layout.bytes * 8 - 1
        if number.is_nan():
            return self._nan
        if number.is_infinite():
            one = 0 if layout.implicit else 1 << layout.precision - 1
            return sign | _SPECIAL << layout.stored | one
        magnitude = _rounded(number.copy_abs(), layout)
        return magnitude if magnitude < 0 else sign | magnitude

    def begins(self, token: str) -> bool:
        return begins_number(token, self._digits)


def _shortest(significand: int, scale: int, layout: Layout) -> str:
    """The decimal number of fewest digits that rounds to `significand` times two to `scale`."""
    if not significand:
        return "0.0"
    most = layout.precision * 3 // 10 + 3  # ceil(1 + precision * log10(2))
    for digits in range(_FEWEST, most):
        short = _decimal(significand, scale, digits)
        if _rounded(short, layout) == _bits_of(significand, scale, layout):
            break
    else:
        short = _decimal(significand, scale, most)
    short = short.normalize(Context(prec=most))
    if not -5 < short.adjusted() < most:
        return str(short).lower()
    text = f"{short:f}"
    return text if "." in text else f"{text}.0"


def _decimal(significand: int, scale: int, digits: int) -> Decimal:
    context = Context(prec=digits, rounding=ROUND_HALF_EVEN, Emax=99999, Emin=-99999)
    if scale >= 0:
        return context.create_decimal(significand << scale)
    return context.divide(Decimal(significand), Decimal(1 << -scale))


def _bits_of(significand: int, scale: int, layout: Layout) -> int:
    """The bits, without a sign, of a number that needs no rounding; -1 for one that is too large.

    A significand with its first bit set has an exponent; a smaller one is denormal.
    """
    one = 1 << layout.precision - 1
    exponent = scale + _BIAS + layout.precision - 1 if significand & one else 0
    if exponent >= _SPECIAL:
        return -1
    return exponent << layout.stored | significand & (1 << layout.stored) - 1


def _rounded(number: Decimal, layout: Layout) -> int:
    """The bits of the float next to a finite number that is not negative; -1 for none."""
    lowest = 2 - _BIAS - layout.precision  # the scale of denormals
    adjusted = number.adjusted()  # of the first digit
    if not number or adjusted < -5100:
        return 0
    if adjusted > 5100:
        return -1
    fraction = Fraction(number)
    above, below = fraction.numerator, fraction.denominator
    scale = max(above.bit_length() - below.bit_length() - layout.precision, lowest)
    while True:
        significand = _divided(above, below, scale)
        if significand.bit_length() <= layout.precision:
            return _bits_of(significand, scale, layout)
        scale += 1


def _divided(above: int, below: int, scale: int) -> int:
    """`above` by `below` times two to `scale`, rounded to the next integer, a half to even."""
    above, below = above << max(-scale, 0), below << max(scale, 0)
    quotient, rest = divmod(above, below)
    return quotient + (2 * rest > below or (2 * rest == below and quotient % 2 == 1))
