"""Long doubles, against the C compiler's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.text.errors import Refused
from fusefs.text.longdouble import QUAD, X87, Layout, LongDouble, layout_of
from fusefs.text.value import from_text, to_text

LAYOUTS = {"x87": X87, "quad": QUAD}
READER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void)
{
    char line[8192];
    while (fgets(line, sizeof line, stdin)) {
        long double number = strtold(line, NULL);
        unsigned char bytes[sizeof number] = {0};
        memcpy(bytes, &number, USED);
        for (size_t i = 0; i < USED; i++)
            printf("%02x", bytes[i]);
        printf(" %.*Lg\n", DIGITS, number);
    }
}
"""


def codec_of(layout: Layout) -> LongDouble:
    return LongDouble("long double", 16, layout)


@st.composite
def bits(draw: st.DrawFn, layout: Layout) -> int:
    """The bits of a long double: of any kind, common and odd."""
    exponents = st.one_of(
        st.sampled_from([0, 1, 2, 16383, 16384, 16446, 0x7FFE, 0x7FFF]),
        st.integers(16383 - 80, 16383 + 80),
        st.integers(0, 0x7FFF),
    )
    exponent = draw(exponents) | draw(st.integers(0, 1)) << 15
    width = layout.precision - 1
    low = draw(st.one_of(st.integers(0, (1 << width) - 1), st.integers(0, 9)))
    high = draw(st.sampled_from([0, 1, 1, 1])) if not layout.implicit else 0
    return exponent << layout.stored | high << width | low


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@given(data=st.data())
def test_every_bit_is_kept(layout: Layout, data: st.DataObject) -> None:
    codec = codec_of(layout)
    own = data.draw(bits(layout)).to_bytes(layout.bytes, "little")
    value = own + data.draw(st.binary(min_size=16 - len(own), max_size=16 - len(own)))
    text = to_text(codec, value)
    assert from_text(codec, text, value) == value
    assert from_text(codec, text, bytes(16)) == own.ljust(16, b"\0")


def test_the_c_library_reads_the_same(tmp_path: Path) -> None:
    layout = layout_of(16)
    if layout is None:
        pytest.skip("this machine's long double is neither of the two")
    codec = codec_of(layout)
    source, program = tmp_path / "reader.c", tmp_path / "reader"
    source.write_text(READER)
    digits = f"-DDIGITS={36 if layout is QUAD else 21}"
    subprocess.run(["clang", f"-DUSED={layout.bytes}", digits, "-o", program, source], check=True)
    numbers = ["0.1", "1", "-3.14159265358979323846264338327950288", "1e4932", "3.6452e-4951"]
    numbers += [f"{n * n * n}.{n}e{(n - 250) * 19}" for n in range(3, 500)]
    values = [from_text(codec, number, bytes(16)) for number in numbers]
    texts = [to_text(codec, value) for value in values]
    lines = subprocess.run(
        [program], input="".join(texts), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(lines) == len(numbers)
    for number, value, line in zip(numbers, values, lines, strict=True):
        read, printed = line.split()
        assert bytes.fromhex(read) == value[: layout.bytes], number
        assert from_text(codec, printed, bytes(16)) == value, number


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.1", "0.1"),
        ("-0", "-0.0"),
        ("1e3", "1000.0"),
        ("123456789012345678", "123456789012345678.0"),
        ("3.14159265358979323846", "3.1415926535897932385"),
        ("1e4000", "1e+4000"),
        ("1e-999999999999999999999", "0.0"),
        ("NaN", '"nan"'),
        ("-Infinity", '"-inf"'),
        ("0x3fff8000000000000000", "1.0"),
        ("0x3fff0000000000000000", '"0x3fff0000000000000000"'),  # without its first bit
        ("0x7fffc000000000000001", '"0x7fffc000000000000001"'),
    ],
)
def test_forms(text: str, shown: str) -> None:
    codec = codec_of(X87)
    assert to_text(codec, from_text(codec, text, bytes(16))) == f"{shown}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1e4933", "1e4933 is out of range for long double"),
        ("1e" + "9" * 40, f"1e{'9' * 35}... is out of range for long double"),
        ("x", "expected a number (long double), got 'x'"),
        ("[1]", "expected long double, got an array"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        from_text(codec_of(X87), text, bytes(16))
    assert caught.value.reason == reason


def test_machines() -> None:
    assert layout_of(16, "x86_64") is layout_of(12, "i686") is X87
    assert layout_of(16, "aarch64") is QUAD
    assert layout_of(8, "aarch64") is layout_of(16, "ppc64le") is None
