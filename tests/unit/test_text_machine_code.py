"""Machine code as text: labels, names, source lines, and code that is none."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.text import machine_code
from fusefs.text.listing import Line

if importlib.util.find_spec("capstone") is None:
    pytest.skip("needs capstone", allow_module_level=True)

START = 0xFFFF_FFFF_C000_1000
FUNCTION = bytes.fromhex(
    "55"  # 0: push rbp
    "4889e5"  # 1: mov rbp, rsp
    "e8f70f0000"  # 4: call START + 0x1000
    "85c0"  # 9: test eax, eax
    "7402"  # b: je 0xf
    "31c0"  # d: xor eax, eax
    "48bf0810ffc1ffffffff"  # f: mov rdi, 0xffffffffc1ff1008
    "c9"  # 19: leave
    "e9e2cfffff"  # 1a: jmp START - 0x2fff + ...
)


def no_symbols(addresses: Collection[int]) -> Mapping[int, str]:
    """Nothing has a name."""
    return {}


def listed(
    code: bytes,
    address: int = START,
    lines: Mapping[int, Line] | None = None,
    symbols: machine_code.Symbols = no_symbols,
    machine: str = "x86_64",
) -> list[str]:
    """The lines of the text of a function."""
    text = [*filter(None, machine_code.listing(code, address, machine, lines or {}, symbols))]
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in text)
    return [line[:-1] for line in text]


def test_a_function() -> None:
    asked: list[int] = []

    def symbols(addresses: Collection[int]) -> Mapping[int, str]:
        asked.extend(addresses)
        return {START + 0x1000: "bpf_ktime_get_ns", START - 0x2FFF: "its_return_thunk"}

    lines = {
        START: Line("a.c", 3, "int main(void)"),
        START + 4: Line("a.c", 4, "\treturn now();"),
        START + 9: Line("a.c", 4, "\treturn now();"),
        START + 0xF: Line("b.h", 7, ""),
        START + 0x100: Line("a.c", 9, "behind it"),
    }
    assert listed(FUNCTION, lines=lines, symbols=symbols) == [
        "; a.c",
        "; 3: int main(void)",
        "   0: pushq %rbp",
        "   1: movq %rsp, %rbp",
        "; 4: return now();",
        "   4: callq bpf_ktime_get_ns",
        "   9: testl %eax, %eax",
        "   b: je Lf",
        "   d: xorl %eax, %eax",
        "Lf:",
        "; b.h",
        "; 7",
        "   f: movabsq $0xffffffffc1ff1008, %rdi",
        "  19: leave",
        "  1a: jmp its_return_thunk",
    ]
    assert sorted(asked) == [START - 0x2FFF, START + 0x1000, 0xFFFF_FFFF_C1FF_1008]


def test_what_has_no_name_is_an_address() -> None:
    text = listed(FUNCTION)
    assert f"   4: callq {START + 0x1000:#x}" in text
    assert text[-1] == f"  1a: jmp {START - 0x2FFF:#x}"


def test_small_numbers_are_no_addresses() -> None:
    # add rdi, 16; mov eax, [rdi + 4]; je 0
    text = listed(bytes.fromhex("4883c7108b470474f7"))
    assert text == ["   0: addq $0x10, %rdi", "   4: movl 4(%rdi), %eax", "   7: je L0"]


def test_bytes_that_are_no_instruction_are_shown() -> None:
    text = listed(bytes.fromhex("06c348"))
    assert text[0].startswith("   0: .byte") and "6" in text[0]
    assert text[1].split()[1] in ("ret", "retq")
    assert text[2].startswith("   2: .byte")


def test_a_jump_into_an_instruction_tells_how_it_is() -> None:
    # jmp 3, which is in the middle of what follows
    text = listed(bytes.fromhex("eb01b800000000"))
    assert text[0] == f"   0: jmp {START + 3:#x}"
    assert not any(line.startswith("L") for line in text)


@given(st.binary(max_size=200))
def test_any_bytes_are_listed(code: bytes) -> None:
    starts = [int(line.split(":")[0], 16) for line in listed(code) if line.startswith(" ")]
    assert starts == sorted(set(starts))
    assert starts[:1] == ([0] if code else [])


@pytest.mark.parametrize("machine", ["aarch64", "s390x", "riscv64", "ppc64le", "armv7l", "i686"])
def test_other_machines(machine: str) -> None:
    assert len(listed(bytes(32), 0x1000, machine=machine)) > 1


def test_a_machine_that_is_not_known() -> None:
    assert listed(FUNCTION, machine="vax") == ["# capstone does not know vax."]


def test_others_have_a_turn_while_it_is_taken_apart() -> None:
    code = b"\x90" * 1000
    text = [*machine_code.listing(code, START, "x86_64", {}, no_symbols)]
    assert text[:1000] == [""] * 1000
    assert text[1000:] == [f"{number:4x}: nop\n" for number in range(1000)]


def test_whether_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_code.available()
    monkeypatch.setitem(sys.modules, "capstone", None)
    assert not machine_code.available()
