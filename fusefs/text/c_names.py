"""Names from BTF as C has them: identifiers, string literals, and what is safe in a comment.

BTF is not to be trusted with names: Rust writes `Foo<u8>` and `a::b`, the kernel lets section
names be any printable text, and the kernel's own BTF has members that are macros of some
compilers. What comes out of here is C, whatever goes in.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Container

from fusefs.bpf import btf as bpf

# The keywords of GNU C11, and what clang and GCC add to them.
_KEYWORDS = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline
    int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while _Alignas _Alignof _Atomic _Bool _Complex _Generic _Imaginary
    _Noreturn _Static_assert _Thread_local asm typeof __alignof __asm __attribute __auto_type
    __bf16 __complex __const __float128 __fp16 __ibm128 __imag __inline __int128 __module_private__
    __null __real __restrict __seg_fs __seg_gs __signed __thread __typeof __volatile
    _Accum _BitInt _Decimal32 _Decimal64 _Decimal128 _ExtInt _Float16 _Float32 _Float64 _Float128
    _Float32x _Float64x _Fract _Nonnull _Null_unspecified _Nullable _Nullable_result _Pragma _Sat
    __cdecl __fastcall __objc_no __objc_yes __pascal __regcall __stdcall __thiscall __vectorcall
    __block __kindof __builtin
    """.split()
)
# Macros that compilers predefine for x86-64 and BPF (`clang -dM -E`), and names that belong to
# them. `linux` and `unix` are macros in GNU C.
_RESERVED = re.compile(
    r"linux|unix|_LP64|__amd64|__k8|__linux|__unix|__x86_64|__building_module"
    r"|__\w*__|__builtin_\w*|__has_\w+|__is_(?:identifier|target_\w+)|__private_extern"
    r"|__(?:ATOMIC|CLANG|GCC|OPENCL_MEMORY)_\w+|__GXX_ABI_VERSION|__NO_MATH_INLINES"
    r"|__OBJC_BOOL_IS_BOOL|__PRAGMA_REDEFINE_EXTNAME|__SEG_[FG]S"
    r"|__u?int128_t|__NSConstantString|__btf_(?:decl|type)_tag"
)
# Library functions that clang knows the types of. It takes no other declaration of these names
# at file scope without a warning, or for a variable, at all.
_LIBRARY = re.compile(
    r"c?(?:abs|a?(?:sin|cos|tan)h?|arg|conj|exp|imag|log|pow|proj|real|sqrt)[fl]?"
    r"|(?:atan2|cbrt|ceil|copysign|erfc?|exp2|exp10|expm1|fabs|fdim|finite|floor|fma|fmax|fmin|fmod"
    r"|frexp|hypot|ilogb|ldexp|lgamma|l?l?rint|l?l?round|log10|log1p|log2|logb|modf|nan|nearbyint"
    r"|nextafter|nexttoward|remainder|remquo|roundeven|scalbl?n|sincos|tgamma|trunc|__exp10|__finite"
    r"|__cospi|__sinpi|__tanpi)[fl]?"
    r"|_?_?exit|_Exit|abort|l?labs|main|vfork|v?[fs]?printf|v?snprintf|v?[fs]?scanf|va_copy|va_end"
    r"|va_start|fopen|fread|fwrite|free|[cm]alloc|realloc|alloca|aligned_alloc|memalign"
    r"|is(?:alnum|alpha|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit)|tolower|toupper"
    r"|bcmp|bzero|r?index|mem(?:ccpy|p?cpy|chr|cmp|move|set)|stpn?cpy|strn?(?:case)?cmp|strl?n?cat"
    r"|strl?n?cpy|strn?dup|str(?:r?chr|c?spn|error|len|pbrk|str|tok|xfrm)|strto(?:d|f|ld|u?ll?)"
    r"|wcs(?:chr|n?cmp|len)|wmem(?:chr|cmp|cpy|move)"
    r"|__(?:atomic|c11|hip|opencl|sync)_\w+|__xray_\w+event|_Block_object_\w+|__arithmetic_fence"
    r"|__warn_memset_zero_len"
)


@functools.lru_cache(1 << 12)
def identifier(name: str, default: str = "anonymous") -> str:
    """The C identifier that is nearest to `name`; `default` when it is empty."""
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", name) or default
    if cleaned[0].isdigit():
        cleaned = f"_{cleaned}"
    return f"{cleaned}_" if cleaned in _KEYWORDS or _RESERVED.fullmatch(cleaned) else cleaned


def linked(name: str) -> str:
    """The identifier for a function or variable, which must not be one of C's library."""
    return f"{name}_" if _LIBRARY.fullmatch(identifier(name)) else name


def literal(text: str) -> str:
    """A string literal of `text`, for an attribute: escapes of bytes are not allowed there."""
    plain = re.sub(r"[^ -~]", "_", text)
    return '"' + re.sub(r'(["\\?])', r"\\\1", plain) + '"'  # `?` begins trigraphs


def remark(text: str) -> str:
    """`text` as it can stand in a comment."""
    return re.sub(r"[^A-Za-z0-9_.,/:+$()\[\] -]", "_", text)


class Scope:
    """The identifiers in one of C's name spaces; none is given twice."""

    def __init__(self, hidden: Container[str] = ()) -> None:
        """`hidden` are names of an outer scope that must stay visible in this one."""
        self._hidden = hidden
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def take(self, name: str, default: str = "anonymous") -> str:
        """An identifier for `name`: as it is, or with a suffix `___2` and so on."""
        stem = candidate = identifier(name, default)
        number = self._numbers.get(stem, 1)
        while candidate in self._taken or candidate in self._hidden:
            number += 1
            candidate = f"{stem}___{number}"
        self._numbers[stem] = number
        self._taken.add(candidate)
        return candidate


class Names:
    """The names that the types of a blob have in C.

    The first type that asks for a name gets it. The same typedef, integer or float gets the same
    name under each of its ids, and so does a struct with the one that is only declared.
    """

    def __init__(self) -> None:
        self.typedefs: set[str] = set()
        self._ordinary = Scope()  # typedefs, functions, variables, enumerators
        self._tags = Scope()
        self._tag_of: dict[int, str] = {}
        self._forwards: dict[tuple[str, str], str] = {}
        self._defined: set[tuple[str, str]] = set()
        self._typedef_of: dict[object, str] = {}
        self._linked: dict[int, str] = {}

    def has_tag(self, type_id: int) -> bool:
        """Whether `tag` has given this type a name."""
        return type_id in self._tag_of

    def tag(self, type_id: int, target: bpf.Composite | bpf.Enum | bpf.Forward) -> str:
        """A struct, union or enum as it is mentioned: `struct name`."""
        if type_id not in self._tag_of:
            self._tag_of[type_id] = self._new_tag(target)
        return self._tag_of[type_id]

    def _new_tag(self, target: bpf.Composite | bpf.Enum | bpf.Forward) -> str:
        word = keyword(target)
        key = word, target.name
        if target.name and key in self._forwards:
            if isinstance(target, bpf.Forward):
                return self._forwards[key]
            if key not in self._defined:
                self._defined.add(key)
                return self._forwards[key]
        tag = f"{word} {self._tags.take(target.name)}"
        if target.name and not isinstance(target, bpf.Enum):
            self._forwards.setdefault(key, tag)
            if isinstance(target, bpf.Composite):
                self._defined.add(key)
        return tag

    def typedef(self, key: object, name: str) -> str:
        """The name of the typedef that `key` tells from others."""
        if key not in self._typedef_of:
            self._typedef_of[key] = self._ordinary.take(name)
            self.typedefs.add(self._typedef_of[key])
        return self._typedef_of[key]

    def enumerator(self, name: str) -> str:
        """A new enumerator."""
        return self._ordinary.take(name)

    def linked(self, type_id: int, name: str) -> str:
        """The name of a function or variable."""
        if type_id not in self._linked:
            self._linked[type_id] = self._ordinary.take(linked(name))
        return self._linked[type_id]


def keyword(target: bpf.Composite | bpf.Enum | bpf.Forward) -> str:
    """What comes before a tag."""
    if isinstance(target, bpf.Enum):
        return "enum"
    return "union" if target.is_union else "struct"
