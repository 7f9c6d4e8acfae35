"""C declarations of types: what they look like, hostile names, malformed types."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from textwrap import dedent

import pytest
from c_compiled import BPF, Comparison, asserted, clang, types_in

from fusefs.bpf.btf import (
    Alias,
    Btf,
    BtfError,
    Composite,
    Enum,
    Forward,
    Kind,
    Type,
    kernel_btf,
)
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.declarations import declarations, every_declaration

Make = Callable[[BtfBuilder], int]


def declared(make: Make) -> str:
    """The declarations of the type whose id `make` gives."""
    types = BtfBuilder()
    root = make(types)
    return declarations(Btf.parse(types.build()), [root])


def expected(text: str) -> str:
    """Declarations as they are written in a test: indented by spaces."""
    return dedent(text).lstrip("\n").replace("    ", "\t")


def u8(types: BtfBuilder) -> int:
    return types.integer("unsigned char", 1)


def u32(types: BtfBuilder) -> int:
    return types.integer("unsigned int", 4)


def node(types: BtfBuilder) -> int:
    byte, word = u8(types), u32(types)
    address = types.typedef("address", types.array(byte, 6, word))
    peer = types.struct("peer", 12, [("mac", address, 0), ("weight", word, 64)])
    unseen = types.pointer(types.struct("unseen", 4, [("a", word, 0)]))
    visit = types.pointer(types.prototype(0, [("", unseen), ("", 0)]))
    either = types.struct("", 4, [("word", word, 0), ("byte", byte, 0)], union=True)
    color = types.enum("color", 4, [("RED", 0), ("BLUE", 7)])
    myself = types.pointer(types.alias(Kind.CONST, visit + 5))
    members = [("next", myself, 0), ("peer", peer, 64), ("", either, 160), ("visit", visit, 192)]
    return types.struct("node", 40, [*members, ("color", color, 256)])


def test_a_struct_comes_after_all_that_it_needs() -> None:
    assert declared(node) == expected(
        """
        typedef unsigned char address[6];

        struct peer {
            address mac;
            unsigned int weight;
        };

        struct unseen;

        enum color {
            RED = 0,
            BLUE = 7,
        };

        struct node {
            const struct node *next;
            struct peer peer;
            union {
                unsigned int word;
                unsigned char byte;
            };
            void (*visit)(struct unseen *, ...);
            enum color color;
        };
        """
    )


def test_a_typedef_that_is_pointed_to_needs_no_struct() -> None:
    def make(types: BtfBuilder) -> int:
        below = types.struct("below", 4, [("a", u32(types), 0)])
        return types.struct("s", 8, [("p", types.pointer(types.typedef("below_t", below)), 0)])

    assert declared(make) == expected(
        """
        struct below;
        typedef struct below below_t;

        struct s {
            below_t *p;
        };
        """
    )


def test_a_typedef_that_is_asked_for_is_defined() -> None:
    def make(types: BtfBuilder) -> int:
        return types.typedef("s_t", types.struct("s", 4, [("a", u32(types), 0)]))

    assert declared(make) == expected(
        """
        struct s;
        typedef struct s s_t;

        struct s {
            unsigned int a;
        };
        """
    )


LAYOUTS: dict[str, tuple[int, list[tuple[str, str, int, int]], str]] = {
    # size, members (name, type, offset in bits, width in bits or 0), and the lines of the struct
    "as it is": (8, [("a", "u8", 0, 0), ("b", "u32", 32, 0)], "unsigned char a; unsigned int b;"),
    "packed": (
        5,
        [("a", "u8", 0, 0), ("b", "u32", 8, 0)],
        "packed unsigned char a; unsigned int b;",
    ),
    "odd size": (7, [("b", "u32", 0, 0)], "packed unsigned int b; unsigned int : 24;"),
    "hole": (
        12,
        [("a", "u8", 0, 0), ("b", "u32", 64, 0)],
        "unsigned char a; unsigned int : 24; unsigned int : 32; unsigned int b;",
    ),
    "wide hole": (
        68,
        [("a", "u32", 0, 0), ("b", "u32", 512, 0)],
        "unsigned int a; unsigned char __hole[60]; unsigned int b;",
    ),
    "tail": (8, [("a", "u32", 0, 0)], "unsigned int a; unsigned int : 32;"),
    "nothing in it": (16, [], "unsigned long long : 64; unsigned long long : 64;"),
    "nothing at all": (0, [], ""),
    "bitfields": (
        4,
        [("a", "u32", 0, 3), ("b", "u32", 5, 20), ("c", "u8", 25, 1)],
        "unsigned int a : 3; unsigned char : 2; unsigned int b : 20; unsigned char c : 1;",
    ),
    "next unit": (
        8,
        [("a", "u32", 0, 30), ("b", "u32", 32, 3)],
        "unsigned int a : 30; unsigned int b : 3;",
    ),
    "across units": (
        5,
        [("a", "u32", 0, 30), ("b", "u32", 30, 10)],
        "packed unsigned int a : 30; unsigned int b : 10;",
    ),
    "true in two bits": (1, [("a", "bool", 0, 2)], "unsigned char a : 2;"),
    "unnamed bits": (
        4,
        [("", "u32", 0, 3), ("a", "u32", 3, 1)],
        "unsigned char : 3; unsigned int a : 1;",
    ),
    "old bitfield": (4, [("a", "old", 0, 0)], "unsigned char : 3; unsigned int a : 5;"),
    "flexible": (
        4,
        [("a", "u32", 0, 0), ("more", "none", 32, 0)],
        "unsigned int a; unsigned int more[0];",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str) -> None:
    size, members, lines = LAYOUTS[name]

    def make(types: BtfBuilder) -> int:
        ids = {"u8": u8(types), "u32": u32(types), "bool": types.integer("_Bool", 1, bool_=True)}
        ids["old"] = types.old_bitfield("unsigned int", 4, 3, 5, signed=False)
        ids["none"] = types.array(ids["u32"], 0, ids["u32"])
        if any(bits for _name, _type, _at, bits in members):
            return types.struct("s", size, [(n, ids[t], at, bits) for n, t, at, bits in members])
        return types.struct("s", size, [(n, ids[t], at) for n, t, at, _bits in members])

    attribute = " __attribute__((packed))" if lines.startswith("packed ") else ""
    body = "".join(f"\t{line};\n" for line in lines.removeprefix("packed ").split("; ") if line)
    assert declared(make) == f"struct s {{\n{body.replace(';;', ';')}}}{attribute};\n"


def test_a_union_that_is_larger_than_its_members() -> None:
    def make(types: BtfBuilder) -> int:
        return types.struct("u", 8, [("a", u32(types), 0), ("", u8(types), 0)], union=True)

    assert declared(make) == expected(
        """
        union u {
            unsigned int a;
            unsigned char anon;
            unsigned char __hole[8];
        };
        """
    )


ENUMS = [
    (4, False, [("A", 0), ("B", 0xFFFFFFFF)], "A = 0, B = 4294967295U,", ""),
    (4, True, [("A", -(1 << 31))], "A = -2147483648LL,", ""),
    (1, False, [("A", 255)], "A = 255,", "packed"),
    (1, False, [("A", 0xFFFFFFFF)], "A = -1,", "packed"),  # as LLVM wrote it before 16
    (2, False, [("A", 256)], "A = 256,", "packed"),
    (2, False, [("A", 1)], "A = 1,", "mode(HI)"),
    (8, False, [("A", 1)], "A = 1,", "mode(DI)"),
    (8, False, [("A", (1 << 64) - 1)], "A = 18446744073709551615ULL,", ""),
    (8, True, [("A", -(1 << 63))], "A = -9223372036854775807LL - 1,", ""),
    (4, False, [], "e___none = 0,", ""),
]


@pytest.mark.parametrize(("size", "signed", "values", "lines", "attribute"), ENUMS)
def test_enumerations(
    size: int, signed: bool, values: list[tuple[str, int]], lines: str, attribute: str
) -> None:
    written = declared(lambda types: types.enum("e", size, values, signed=signed))
    attribute = f" __attribute__(({attribute}))" if attribute else ""
    assert written == f"enum e {{\n\t{lines.replace(', ', f',{chr(10)}{chr(9)}')}\n}}{attribute};\n"


def test_an_anonymous_enumeration_has_its_enumerators_once() -> None:
    def make(types: BtfBuilder) -> int:
        enum = types.enum("", 4, [("A", 0), ("B", 1)])
        return types.struct("s", 8, [("first", enum, 0), ("second", enum, 32)])

    assert declared(make) == expected(
        """
        struct s {
            enum {
                A = 0,
                B = 1,
            } first;
            unsigned int second;
        };
        """
    )


NUMBERS: list[tuple[Make, str]] = [
    (lambda types: types.integer("long unsigned int", 8), ""),
    (lambda types: types.integer("__int128 unsigned", 16), ""),
    (lambda types: types.integer("char", 1, char=True), ""),
    (lambda types: types.integer("u8", 1), "typedef unsigned char u8;\n"),
    (lambda types: types.integer("char", 4), "typedef unsigned int char_;\n"),  # Rust's
    (lambda types: types.integer("long", 4, signed=True), "typedef int long_;\n"),
    (lambda types: types.integer("bool", 1, bool_=True), "typedef _Bool bool;\n"),
    (
        lambda types: types.integer("int24", 3),
        "typedef struct {\n\tunsigned char bytes[3];\n} int24;\n",
    ),
    (lambda types: types.floating("f64", 8), "typedef double f64;\n"),
    (
        lambda types: types.floating("long double", 16),
        "#if __SIZEOF_LONG_DOUBLE__ == 16\ntypedef long double long_double;\n#else\n"
        "typedef struct {\n\tunsigned char bytes[16];\n} __attribute__((aligned(16))) "
        "long_double;\n#endif\n",
    ),
]


@pytest.mark.parametrize(("make", "text"), NUMBERS, ids=[text for _make, text in NUMBERS])
def test_numbers(make: Make, text: str) -> None:
    assert declared(make) == text


def pointer_to(*kinds: Kind, tag: str = "") -> Make:
    """Makes a typedef of a pointer to an int under these, the innermost last."""

    def make(types: BtfBuilder) -> int:
        below = types.integer("int", 4, signed=True)
        for kind in reversed(kinds):
            below = types.alias(kind, below, tag if kind == Kind.TYPE_TAG else "")
        return types.typedef("t", types.pointer(below))

    return make


def function_pointers(types: BtfBuilder) -> int:
    number = types.integer("int", 4, signed=True)
    inner = types.pointer(types.prototype(number, [("", number)]))
    outer = types.pointer(types.prototype(inner, [("", inner), ("", types.pointer(0))]))
    return types.typedef("t", types.array(types.alias(Kind.CONST, outer), 3, number))


def pointer_to_arrays(types: BtfBuilder) -> int:
    number = types.integer("int", 4, signed=True)
    rows = types.array(types.alias(Kind.CONST, types.array(number, 4, number)), 3, number)
    return types.typedef("t", types.pointer(types.pointer(rows)))


def restricted(types: BtfBuilder) -> int:
    function = types.prototype(0)
    below = types.alias(Kind.RESTRICT, types.pointer(types.alias(Kind.CONST, function)))
    return types.typedef("t", below)


DECLARATORS: list[tuple[Make, str]] = [
    (pointer_to(), "int *t"),
    (pointer_to(Kind.CONST, Kind.VOLATILE, Kind.CONST), "const volatile int *t"),
    (pointer_to(Kind.RESTRICT), "int *t"),
    (function_pointers, "int (*(*const t[3])(int (*)(int), void *))(int)"),
    (pointer_to_arrays, "const int (**t)[3][4]"),
    (restricted, "void (*t)(void)"),
]


@pytest.mark.parametrize(("make", "text"), DECLARATORS, ids=[text for _make, text in DECLARATORS])
def test_declarators(make: Make, text: str) -> None:
    assert declared(make) == f"typedef {text};\n"


def test_functions_variables_and_sections() -> None:
    types = BtfBuilder()
    number = types.integer("int", 4, signed=True)
    context = types.pointer(types.struct("xdp_md", 4, [("data", number, 0)]))
    in_place = types.pointer(types.struct("", 4, [("a", number, 0)]))
    prototype = types.prototype(number, [("ctx", context), ("more", in_place), ("", 0)])
    function = types.function("count", prototype)
    total = types.variable("total", types.alias(Kind.VOLATILE, number))
    table = types.variable("f.table", types.array(types.alias(Kind.CONST, number), 4, number))
    log = types.variable("log", types.alias(Kind.CONST, 0), linkage=2)
    section = types.data_section(
        '.data.x*/ int evil; /*\\\n"', 20, [(total, 0, 4), (table, 4, 16), (log, 0, 0)]
    )
    assert declarations(Btf.parse(types.build()), [function, section, 0, section]) == expected(
        """
        struct xdp_md;

        struct anonymous {
            int a;
        };

        int count(struct xdp_md *ctx, struct anonymous *more, ...);
        extern volatile int total;	/* .data.x_/ int evil_ /____ + 0 */
        extern const int f_table[4];	/* .data.x_/ int evil_ /____ + 4 */
        extern const void log_;	/* .data.x_/ int evil_ /____ + 0 */
        """
    )


def test_tags() -> None:
    types = BtfBuilder()
    number = types.integer("int", 4, signed=True)
    user = types.pointer(types.alias(Kind.TYPE_TAG, types.alias(Kind.CONST, number), 'a"b\\\n?'))
    types.struct("s", 16, [("p", user, 0), ("q", types.alias(Kind.TYPE_TAG, user, "in vain"), 64)])
    btf = Btf.parse(types.build())
    text = declarations(btf, [len(btf) - 1])
    assert text.startswith("#if !defined(__btf_type_tag) && defined(__has_attribute)\n")
    assert text.count(r'	const int __btf_type_tag("a\"b\\_\?") *') == 2
    assert "in vain" not in text


def test_what_has_no_name_is_given_one_at_the_root() -> None:
    def make(types: BtfBuilder) -> int:
        below = types.struct("", 4, [("a", u32(types), 0)])
        return types.alias(Kind.CONST, types.array(below, 2, below))

    assert declared(make) == "struct anonymous {\n\tunsigned int a;\n};\n"


def test_what_declares_nothing() -> None:
    types = BtfBuilder()
    pointer = types.pointer(0)
    assert declarations(Btf.parse(types.build()), [0, 0, pointer]) == ""


def test_names_that_are_taken() -> None:
    types = BtfBuilder()
    number, word = types.integer("int", 4, signed=True), u32(types)
    first = types.struct("s", 4, [("a", number, 0)])
    second = types.struct("s", 8, [("a", number, 0), ("a", number, 32)])
    third = types.enum("s", 4, [("E", 1), ("E", 2)])
    same = [types.typedef("E", number), types.typedef("E", number), types.typedef("E", word)]
    forward = types.pointer(types.forward("s"))
    whole = types.struct("all", 8, [("p", forward, 0)])
    roots = [third, first, second, *same, whole]
    assert declarations(Btf.parse(types.build()), roots) == expected(
        """
        enum s {
            E = 1,
            E___2 = 2,
        };

        struct s___2 {
            int a;
        };

        struct s___3 {
            int a;
            int a___2;
        };

        typedef int E___3;
        typedef unsigned int E___4;

        struct all {
            struct s___2 *p;
        };
        """
    )


def test_members_that_are_lent_share_their_names() -> None:
    def make(types: BtfBuilder) -> int:
        inner = types.struct("named", 4, [("a", u32(types), 0)])
        lent = types.alias(Kind.CONST, inner)
        return types.struct("s", 8, [("a", u32(types), 0), ("", lent, 32)])

    assert declared(make) == expected(
        """
        struct s {
            unsigned int a;
            const struct {
                unsigned int a___2;
            };
        };
        """
    )


HOSTILE = [
    *"int char_ if typeof asm linux unix __x86_64__ __LINE__ __func__ __has_include".split(),
    *"__int128_t main log printf exp memcpy setjmp index __sync_fetch_and_add".split(),
    *"__typeof __fp16 __VA_ARGS__ _Pragma _LP64 __attribute__ __builtin_va_list defined".split(),
    *"while void signed bool true _Bool __btf_type_tag".split(),
    *["", " ", "a b", "Foo<u8>", "a::b", "9", "é", "\n#error", "*/", "//", "\\", '"', "?" * 9],
]


def hostile(types: BtfBuilder, name: str) -> list[int]:
    """Types of every kind with the name wherever there can be one."""
    number = types.integer("int", 4, signed=True)
    own = types.integer(name, 4, signed=True)
    typedef = types.typedef(name, number)
    tagged = types.pointer(types.alias(Kind.TYPE_TAG, types.floating(name, 4), name))
    enum = types.enum(name, 4, [(name, 0), (name, 1)])
    struct = types.struct(name, 24, [(name, typedef, 0), (name, enum, 32), ("p", tagged, 64)])
    arguments = [(name, own), (name, types.pointer(struct)), ("x", typedef)]
    function = types.function(name, types.prototype(typedef, arguments))
    variable = types.variable(name, types.pointer(types.forward(name, union=True)))
    section = types.data_section(name, 8, [(variable, 0, 8)])
    return [typedef, struct, function, section, own]


def test_hostile_names(tmp_path: Path) -> None:
    types = BtfBuilder()
    roots = [root for name in HOSTILE for root in hostile(types, name)]
    btf = Btf.parse(types.build())
    for text in (declarations(btf, roots), declarations(btf, reversed(roots))):
        assert text.count("\nstruct ") >= len(HOSTILE)
        assert text.isascii()
        clang(text, tmp_path)
        clang(text, tmp_path, *BPF)


def chain(types: BtfBuilder, length: int, name: str = "s") -> int:
    inner = types.integer("int", 4)
    for _ in range(length):
        inner = types.struct(name, 4, [("a", inner, 0)])
    return inner


def fan(types: BtfBuilder, name: str = "") -> int:
    """Types that are written in place are exponentially long."""
    inner = types.integer("int", 4)
    for _ in range(25):
        inner = types.struct(name, 4, [(f"m{n}", inner, 0) for n in range(8)], union=True)
    return inner


def prototypes(types: BtfBuilder) -> int:
    inner = types.integer("int", 4)
    for _ in range(30):
        inner = types.pointer(types.prototype(0, [("", inner)] * 4))
    return types.typedef("t", inner)


def long_alias(types: BtfBuilder) -> int:
    inner = types.integer("int", 4)
    for _ in range(5000):
        inner = types.alias(Kind.CONST, inner)
    return inner


def bits_of(bits: int, at: int = 0, size: int = 8) -> Make:
    """Makes a struct with a bitfield of an int."""
    return lambda types: types.struct("s", size, [("a", types.integer("int", 4), at, bits)])


MALFORMED: dict[str, Make] = {
    "missing": lambda types: 7,
    "array of what is missing": lambda types: types.array(7, 2, 7),
    "array of void": lambda types: types.array(0, 2, 0),
    "array of functions": lambda types: types.array(types.prototype(0), 2, 1),
    "array of what is unseen": lambda types: types.pointer(types.array(types.forward("f"), 2, 1)),
    "huge array": lambda types: types.array(types.array(u8(types), 1 << 31, 1), 1 << 31, 1),
    "void member": lambda types: types.struct("s", 4, [("a", 0, 0)]),
    "function as a member": lambda types: types.struct("s", 4, [("a", types.prototype(0), 0)]),
    "section as a member": lambda types: types.struct(
        "s", 4, [("a", types.data_section("d", 0, []), 0)]
    ),
    "within itself": lambda types: types.struct("s", 4, [("a", 1, 0)]),
    "array of itself": lambda types: types.array(1, 2, 1),
    "pointer to itself": lambda types: types.pointer(1),
    "typedef of itself": lambda types: types.typedef("t", 1),
    "typedef of a pointer to itself": lambda types: types.typedef("t", types.pointer(2)),
    "in place within itself": lambda types: types.struct("", 8, [("a", types.pointer(2), 0)]),
    "function of itself": lambda types: types.prototype(0, [("", types.pointer(2))]),
    "endless alias": lambda types: types.alias(Kind.CONST, 1),
    "endless aliases": lambda types: types.alias(Kind.CONST, types.alias(Kind.VOLATILE, 2)),
    "long alias": long_alias,
    "too deep": lambda types: chain(types, 5000),
    "too deep in place": lambda types: chain(types, 5000, ""),
    "exponential": fan,
    "exponential prototypes": prototypes,
    "integer of 0 bytes": lambda types: types.integer("int", 0),
    "integer of 17 bytes": lambda types: types.integer("int", 17),
    "float of 0 bytes": lambda types: types.floating("float", 0),
    "enum of 3 bytes": lambda types: types.enum("e", 3, []),
    "member outside": lambda types: types.struct("s", 4, [("a", u32(types), 8)]),
    "members that overlap": lambda types: types.struct(
        "s", 8, [("a", u32(types), 0), ("b", u32(types), 16)]
    ),
    "member of a union aside": lambda types: types.struct(
        "s", 8, [("a", u32(types), 32)], union=True
    ),
    "bitfield outside": bits_of(2, at=31, size=4),
    "bitfield too wide": bits_of(33),
    "bitfield of a struct": lambda types: types.struct(
        "s", 1, [("a", types.struct("t", 1, []), 0, 2)]
    ),
    "odd bit": lambda types: types.struct("s", 8, [("a", u32(types), 3)]),
    "function without a prototype": lambda types: types.function("f", u32(types)),
    "void parameter": lambda types: types.typedef(
        "f", types.prototype(0, [("", types.typedef("t", 0))])
    ),
    "dots in between": lambda types: types.typedef("t", types.prototype(0, [("", 0), ("", 0)])),
    "array as a result": lambda types: types.typedef("t", types.prototype(types.array(2, 0, 2))),
    "section of an integer": lambda types: types.data_section("d", 4, [(u32(types), 0, 4)]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_types(name: str) -> None:
    start = time.monotonic()
    with pytest.raises(BtfError):
        declared(MALFORMED[name])
    assert time.monotonic() - start < 10


WRAPPERS: list[Callable[[BtfBuilder, int], int]] = [
    lambda types, inner: types.struct("", 4, [("a", inner, 0)]),
    lambda types, inner: types.alias(Kind.CONST, inner),
    lambda types, inner: types.pointer(inner),
    lambda types, inner: types.array(inner, 1, inner),
    lambda types, inner: types.pointer(types.prototype(inner)),
]


@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_what_is_deep_is_refused_however_it_is_come_by(
    wrapped: Callable[[BtfBuilder, int], int],
) -> None:
    """Types that are each shallow when they are met, and deep on top of one another."""
    types = BtfBuilder()
    inner = types.integer("int", 4)
    roots = []
    for _ in range(3000):
        inner = wrapped(types, inner)
        roots.append(types.variable("v", inner))
    with pytest.raises(BtfError):
        declarations(Btf.parse(types.build()), roots)


def test_what_has_names_may_be_a_long_way_down() -> None:
    types = BtfBuilder()
    chain(types, 3000)
    btf = Btf.parse(types.build())
    assert declarations(btf, range(1, len(btf))).count("struct s___") == 2 * 2999 - 1


def everything(types: BtfBuilder) -> str:
    """All declarations of a blob."""
    return "".join(every_declaration(Btf.parse(types.build())))


def test_all_types() -> None:
    """What has a name, each once; what has none where it is used, but for enumerators."""
    types = BtfBuilder()
    word = u32(types)
    types.enum("", 4, [("LOOSE", 3)])
    inner = types.enum("", 4, [("INNER", 1)])
    inside = types.struct("", 4, [("kind", inner, 0)])
    types.struct("", 4, [("unused", word, 0)])
    outer = types.struct("outer", 8, [("", inside, 0), ("next", word, 32)])
    types.typedef("outer_t", outer)
    types.forward("unseen")
    types.function("f", types.prototype(0, [("p", types.pointer(outer))]))
    types.variable("v", outer)
    assert everything(types) == expected(
        """
        struct outer {
            struct {
                enum {
                    INNER = 1,
                } kind;
            };
            unsigned int next;
        };

        typedef struct outer outer_t;
        struct unseen;

        enum {
            LOOSE = 3,
        };
        """
    )


def test_all_of_no_types() -> None:
    types = BtfBuilder()
    assert everything(types) == ""
    types.pointer(u32(types))
    assert everything(types) == ""


def test_an_enumeration_without_a_name_needs_none() -> None:
    assert declared(lambda types: types.enum("", 4, [("A", 1)])) == "enum {\n\tA = 1,\n};\n"


def test_a_macro_comes_before_its_first_use(tmp_path: Path) -> None:
    types = BtfBuilder()
    number = types.integer("int", 4, signed=True)
    types.struct("before", 4, [("a", number, 0)])
    user = types.pointer(types.alias(Kind.TYPE_TAG, number, "user"))
    tagged = types.struct("tagged", 16, [("p", user, 0), ("q", user, 64)])
    types.struct("after", 8, [("p", user, 0)])
    types.decl_tag("whole", tagged)
    text = everything(types)
    assert text.startswith("struct before {")
    assert text.index("#define __btf_type_tag(tag) __attr") < text.index("struct tagged {")
    assert text.count("#define __btf_type_tag(tag) __attr") == 1
    assert text.count('__btf_type_tag("user")') == 3
    clang(text, tmp_path)
    clang(text, tmp_path, *BPF)


def test_functions_that_programs_may_call(tmp_path: Path) -> None:
    types = BtfBuilder()
    number = types.integer("int", 4, signed=True)
    task = types.pointer(types.struct("task", 4, [("pid", number, 0)]))
    types.function("other", types.prototype(0))
    names = ["bpf_acquire", "bpf_release"]
    functions = [types.function(name, types.prototype(task, [("p", task)])) for name in names]
    for function in functions:
        types.decl_tag("bpf_kfunc", function)
    text = everything(types)
    attributes = '__attribute__((weak, section(".ksyms")))'
    assert text.endswith(
        "\n\n#ifndef BPF_NO_KFUNC_PROTOTYPES\n"
        f"extern struct task *bpf_acquire(struct task *p) {attributes};\n"
        f"extern struct task *bpf_release(struct task *p) {attributes};\n"
        "#endif\n"
    )
    assert "other" not in text
    uses = "int f(struct task *t) { return bpf_acquire(t)->pid; }\n"
    for target in ([], BPF):
        clang(text + uses, tmp_path, *target)
    own = "int bpf_acquire(void);\n"
    clang(f"#define BPF_NO_KFUNC_PROTOTYPES\n{text}{own}", tmp_path)


def continued(types: BtfBuilder, base: bytes) -> bytes:
    """What was added to the types since they were built as `base`, as a blob that is split from
    it."""
    header, whole = struct.Struct("=HBBIIIII"), types.build()
    *start, at, types_size, strings_at, strings_size = header.unpack_from(whole)
    *_, base_types, _base_strings_at, base_strings = header.unpack_from(base)
    body = whole[header.size :]
    added = body[at + base_types : at + types_size]
    strings = body[strings_at + base_strings : strings_at + strings_size]
    return header.pack(*start, 0, len(added), len(added), len(strings)) + added + strings


def test_a_blob_that_is_split_from_another(tmp_path: Path) -> None:
    """Its own types, and of the other's what they need."""
    types = BtfBuilder()
    word = u32(types)
    needed = types.struct("needed", 4, [("a", word, 0)])
    types.struct("of_the_kernel_alone", 4, [("a", word, 0)])
    types.enum("", 4, [("OF_THE_KERNEL", 3)])
    base = types.build()
    types.struct("needed", 8, [("b", word, 32)])
    types.struct("own", 4, [("needed", needed, 0)])
    types.enum("", 4, [("OWN", 4)])
    kernel = Btf.parse(base)
    module = Btf.parse(continued(types, base), kernel)
    text = "".join(every_declaration(module, len(kernel)))
    assert text == expected(
        """
        struct needed {
            unsigned int : 32;
            unsigned int b;
        };

        struct needed___2 {
            unsigned int a;
        };

        struct own {
            struct needed___2 needed;
        };

        enum {
            OWN = 4,
        };
        """
    )
    clang(text, tmp_path)


@pytest.mark.parametrize("name", sorted({*MALFORMED} - {"too deep"}))
def test_what_cannot_be_declared_is_left_out(tmp_path: Path, name: str) -> None:
    """With what it is in; all else is there."""
    types = BtfBuilder()
    first = MALFORMED[name](types)
    types.struct("around", 8, [("a", types.integer("fine_t", 4), 0), ("p", first, 32)])
    types.typedef("bad_t", first)
    number = types.integer("int", 4, signed=True)
    types.struct("good", 4, [("a", number, 0)])
    start = time.monotonic()
    text = everything(types)
    assert time.monotonic() - start < 20
    assert text.endswith("struct good {\n\tint a;\n};\n")
    assert " cannot be declared: " in text
    clang(text, tmp_path)


def test_hostile_names_of_all_types(tmp_path: Path) -> None:
    types = BtfBuilder()
    for name in HOSTILE:
        hostile(types, name)
    text = everything(types)
    assert text.count("struct ") >= len(HOSTILE) - 1  # one name is empty
    clang(text, tmp_path)
    clang(text, tmp_path, *BPF)


def test_pieces_are_small() -> None:
    """Those who wait get a turn however many types there are, and however little is to be said."""
    types = BtfBuilder()
    number = types.integer("int", 4, signed=True)
    for _ in range(2000):
        types.struct("", 4, [("unused", number, 0)])
    for index in range(2000):
        types.struct(f"s{index}", 4, [("a", number, 0)])
    pieces = [*every_declaration(Btf.parse(types.build()))]
    assert max(map(len, pieces)) < 4000
    assert pieces[1:10] == [""] * 9
    assert "".join(pieces).count("struct s") == 2000


def structs_of_one_name(btf: Btf) -> list[tuple[int, Composite]]:
    """The structs and unions whose names stand for one type."""
    ids = btf.of_kind(Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64)
    tagged = [(type_id, btf.type(type_id)) for type_id in ids]
    times = Counter(getattr(one, "name", "") for _type_id, one in tagged)
    return [
        (type_id, one)
        for type_id, one in tagged
        if isinstance(one, Composite) and one.name and times[one.name] == 1
    ]


class Unnumbered(Btf):
    """Types without the numbers that C needs behind names of several types."""

    def type(self, type_id: int) -> Type:
        found = super().type(type_id)
        if isinstance(found, Composite | Enum | Forward | Alias):
            return replace(found, name=found.name.partition("___")[0])
        return found


def constants(btf: Btf) -> list[str]:
    """What must hold of the enumerators whose names stand for one thing."""
    enums = [btf.type(type_id) for type_id in btf.of_kind(Kind.ENUM, Kind.ENUM64)]
    values = [value for enum in enums if isinstance(enum, Enum) for value in enum.values]
    times = Counter(name for name, _value in values)
    times.update(getattr(btf.type(type_id), "name", "") for type_id in btf.of_kind(Kind.TYPEDEF))
    return [
        f'_Static_assert({name} == {value}{"ULL" * (value > 1 << 31)}, "");'
        for name, value in values
        if times[name] == 1 and value > -1 << 31
    ]


def test_all_types_of_the_kernel(tmp_path: Path) -> None:
    """They compile, for BPF and for the host, and are what the kernel has; some of them are
    compared member by member."""
    btf = kernel_btf()
    if btf is None:
        pytest.skip("this kernel has no BTF")
    text = "".join(every_declaration(btf))
    assert "cannot be declared" not in text
    structs = structs_of_one_name(btf)
    checks = [*asserted(btf, [type_id for type_id, _one in structs]), *constants(btf)]
    assert len(checks) > 50_000
    for target in ([], BPF):
        clang("\n".join([text, *checks, ""]), tmp_path, *target, "-fsyntax-only")
    some = Random(1).sample(structs, 1500)
    kept = [
        f"{'union' if one.is_union else 'struct'} {one.name} (*keep_{type_id})[1];"
        for type_id, one in some
    ]
    types_in(clang("\n".join([text, *kept, ""]), tmp_path, *BPF, "-O0"))
    made = Unnumbered.parse((tmp_path / "types.btf").read_bytes())
    comparison = Comparison(btf, made)
    for type_id, _one in some:
        comparison.named(type_id)
    assert comparison.members > 10_000
