"""Types to codecs: the spelling of types, and types that are malformed."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from fusefs.bpf.btf import Btf, BtfError, Kind
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.compile import compile_codec, type_name
from fusefs.text.value import from_text, to_text


def codec_of(make: Callable[[BtfBuilder], int]) -> object:
    types = BtfBuilder()
    type_id = make(types)
    return compile_codec(Btf.parse(types.build()), type_id)


def chain(types: BtfBuilder, length: int) -> int:
    inner = types.integer("int", 4)
    for _ in range(length):
        inner = types.struct("s", 4, [("a", inner, 0)])
    return inner


def fan(types: BtfBuilder, *, union: bool) -> int:
    inner = types.integer("int", 4)
    for _ in range(25):
        inner = types.struct("s", 4, [(f"m{n}", inner, 0) for n in range(8)], union=union)
    return inner


def endless_alias(types: BtfBuilder) -> int:
    return types.alias(Kind.CONST, 1)


def stacked(types: BtfBuilder) -> int:
    """Types that are each shallow when first met, and deep on top of one another."""
    inner, tops = types.integer("int", 4), []
    for _ in range(20):
        for _ in range(20):
            inner = types.struct("s", 4, [("a", inner, 0)])
        tops.append(inner)
    return types.struct("all", 4, [(f"t{n}", top, 0) for n, top in enumerate(tops)])


MALFORMED: dict[str, Callable[[BtfBuilder], int]] = {
    "void": lambda types: 0,
    "missing": lambda types: types.array(7, 2, 7),
    "function": lambda types: types.prototype(0),
    "forward": lambda types: types.forward("f"),
    "within itself": lambda types: types.struct("s", 4, [("a", 1, 0)]),
    "array of itself": lambda types: types.array(1, 2, 1),
    "endless alias": endless_alias,
    "too deep": lambda types: chain(types, 40),
    "too deep by far": lambda types: chain(types, 5000),
    "stacked": stacked,
    "exponential struct": lambda types: fan(types, union=False),
    "exponential union": lambda types: fan(types, union=True),
    "integer of 0 bytes": lambda types: types.integer("int", 0),
    "integer of 17 bytes": lambda types: types.integer("int", 17),
    "integer outside": lambda types: types.old_bitfield("int", 4, 30, 4, signed=False),
    "enum of 3 bytes": lambda types: types.enum("e", 3, []),
    "member outside": lambda types: types.struct("s", 4, [("a", types.integer("int", 4), 8)]),
    "bitfield outside": lambda types: types.struct("s", 1, [("a", types.integer("int", 4), 7, 2)]),
    "bitfield of a struct": lambda types: types.struct(
        "s", 1, [("a", types.struct("t", 1, []), 0, 2)]
    ),
    "bitfield too wide": lambda types: types.struct("s", 8, [("a", types.integer("c", 1), 0, 9)]),
    "odd bit": lambda types: types.struct("s", 8, [("a", types.integer("int", 4), 3)]),
    "huge array": lambda types: types.array(types.integer("int", 4), 0xFFFFFFFF, 1),
    "huge array of arrays": lambda types: types.array(
        types.array(types.integer("int", 4), 10000, 1), 10000, 1
    ),
    "huge char array": lambda types: types.array(
        types.integer("char", 1, char=True), 0xFFFFFFFF, 1
    ),
    "many members": lambda types: types.struct(
        "s", 4, [(f"m{n}", types.integer("int", 4), 0) for n in range(20_001)], union=True
    ),
    "huge struct": lambda types: types.struct("s", 0xFFFFFFFF, []),
    "huge float": lambda types: types.floating("f", 0xFFFFFFFF),
    "variable outside": lambda types: types.data_section(
        ".bss", 4, [(types.variable("v", types.integer("int", 4)), 4, 4)]
    ),
}


@pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED)
def test_malformed_types(make: Callable[[BtfBuilder], int]) -> None:
    with pytest.raises(BtfError):
        codec_of(make)


def test_an_array_of_nothing_is_nothing() -> None:
    types = BtfBuilder()
    empty = types.struct("empty", 0, [])
    array = types.array(empty, 0xFFFFFFFF, empty)
    codec = compile_codec(Btf.parse(types.build()), array)
    assert to_text(codec, b"") == "[]\n"


def test_an_array_of_too_many_elements_is_shown_as_bytes() -> None:
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    section = types.data_section(
        ".bss",
        (1 << 20) + 1,
        [
            (types.variable("buffer", types.array(u8, 1 << 20, u8)), 0, 1 << 20),
            (types.variable("ready", u8), 1 << 20, 1),
        ],
    )
    codec = compile_codec(Btf.parse(types.build()), section)
    data = bytes(1 << 20) + b"\1"
    text = to_text(codec, data)
    assert text == f'{{"buffer": "{"00" * (1 << 20)}", "ready": 1}}\n'
    assert from_text(codec, text, data) == data


def test_special_fields_are_not_shown() -> None:
    types = BtfBuilder()
    u32 = types.integer("unsigned int", 4)
    timer = types.struct("bpf_timer", 16, [])
    task = types.struct("task_struct", 8, [])
    kptr = types.pointer(types.alias(Kind.TYPE_TAG, task, "kptr_untrusted"))
    plain = types.pointer(types.alias(Kind.TYPE_TAG, task, "user"))
    inner = types.struct("inner", 16, [("timer", timer, 0)])
    members = [
        ("n", u32, 0),
        ("timers", types.array(timer, 2, u32), 64),
        ("task", types.alias(Kind.CONST, kptr), 320),
        ("user", plain, 384),
        ("inner", inner, 448),
    ]
    struct = types.struct("s", 72, members)
    codec = compile_codec(Btf.parse(types.build()), struct)
    assert to_text(codec, bytes(72)) == '{"n": 0, "user": "0x0"}\n'


def test_old_bitfields_count_from_their_member() -> None:
    types = BtfBuilder()
    low = types.old_bitfield("int", 4, 0, 3, signed=False)
    high = types.old_bitfield("int", 4, 3, 5, signed=True)
    struct = types.struct("s", 4, [("low", low, 0), ("high", high, 0), ("next", low, 8)])
    codec = compile_codec(Btf.parse(types.build()), struct)
    assert to_text(codec, b"\xfd\x02\0\0") == '{"low": 5, "high": -1, "next": 2}\n'


def test_variables_with_flexible_arrays_have_their_elements() -> None:
    types = BtfBuilder()
    u32 = types.integer("unsigned int", 4)
    char = types.integer("char", 1, char=True)
    numbers = types.struct("numbers", 4, [("n", u32, 0), ("of", types.array(u32, 0, u32), 32)])
    words = types.struct("words", 1, [("n", char, 0), ("text", types.array(char, 0, u32), 8)])
    plain = types.struct("plain", 4, [("n", u32, 0)])
    variables = [
        (types.variable("numbers", numbers), 0, 12),
        (types.variable("words", words), 12, 5),
        (types.variable("none", numbers), 20, 4),
        (types.variable("padded", plain), 24, 8),
    ]
    section = types.data_section(".data", 32, variables)
    codec = compile_codec(Btf.parse(types.build()), section)
    data = struct.pack("=3IB4s3x3I4x", 2, 7, 8, 4, b"abcd", 0, 5, 6)[:32]
    text = to_text(codec, data)
    assert text == (
        '{"numbers": {"n": 2, "of": [7, 8]}, "words": {"n": 4, "text": "abcd"}, '
        '"none": {"n": 0}, "padded": {"n": 5}}\n'
    )
    assert from_text(codec, text, bytes(32)) == bytes(
        byte if at not in range(28, 32) else 0 for at, byte in enumerate(data)
    )


def test_type_names() -> None:
    types = BtfBuilder()
    u32 = types.integer("unsigned int", 4)
    char = types.integer("char", 1, char=True)
    alias = types.typedef("__u32", u32)
    struct = types.struct("flow_key", 4, [])
    array = types.array(char, 16, u32)
    const = types.alias(Kind.CONST, char)
    pointer = types.pointer(const)
    function = types.prototype(0, [("a", u32), ("b", pointer), ("", 0)])
    spelled = {
        0: "void",
        alias: "__u32",
        struct: "struct flow_key",
        types.struct("", 4, [], union=True): "union (anonymous)",
        types.enum("", 4, []): "enum (anonymous)",
        types.forward("f", union=True): "union f",
        array: "char[16]",
        types.array(array, 3, u32): "char[3][16]",
        types.array(pointer, 3, u32): "const char *[3]",
        types.pointer(array): "char (*)[16]",
        types.pointer(types.typedef("name_t", array)): "name_t *",
        pointer: "const char *",
        types.pointer(pointer): "const char **",
        types.alias(Kind.CONST, pointer): "const char * const",
        types.pointer(0): "void *",
        types.pointer(function): "void (*)(unsigned int, const char *, ...)",
        types.pointer(types.prototype(u32)): "unsigned int (*)(void)",
        types.alias(Kind.VOLATILE, types.alias(Kind.CONST, alias)): "volatile const __u32",
        types.pointer(types.alias(Kind.TYPE_TAG, struct, "kptr")): "struct flow_key *",
        types.variable("v", alias): "__u32",
        types.floating("long double", 16): "long double",
    }
    btf = Btf.parse(types.build())
    assert {type_id: type_name(btf, type_id) for type_id in spelled} == spelled


def test_type_names_of_malformed_types() -> None:
    types = BtfBuilder()
    types.pointer(1)
    with pytest.raises(BtfError):
        type_name(Btf.parse(types.build()), 1)


def test_functions_that_take_functions_are_cut_short() -> None:
    types = BtfBuilder()
    inner = types.pointer(types.prototype(0))
    for _ in range(30):
        inner = types.pointer(types.prototype(inner, [("", inner), ("", inner)]))
    assert len(type_name(Btf.parse(types.build()), inner)) < 10_000
