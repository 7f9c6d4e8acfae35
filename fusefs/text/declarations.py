"""C declarations of BTF types: a header for programs that share a map's types.

    struct flow_key { unsigned int source; unsigned char protocol; };

What is declared has the sizes, offsets and bitfields that BTF tells, for clang on x86-64 and with
`-target bpf`, and is free of warnings under `-Wall -Wextra -std=gnu11`. The rules of what must be
declared before what are those of C; `bpftool btf dump ... format c` is the precedent of the form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fusefs.bpf import btf as bpf
from fusefs.bpf.btf import Btf, BtfError, Kind
from fusefs.text.c_layout import Layouts
from fusefs.text.c_names import remark
from fusefs.text.c_scalars import base_definition, base_type
from fusefs.text.c_spelling import MAX_DEPTH, MAX_TEXT, Speller
from fusefs.text.decoded import Types

__all__ = ["declarations", "every_declaration"]

# Characters of a piece of all declarations, and how many types may pass without one: about a
# millisecond's work. A piece is longer by what a type needs that was not yet declared.
_PIECE = 1 << 11
_TURN = 128
# The kinds of types that a header has by their names.
_NAMED = (Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.TYPEDEF, Kind.FWD)
# Functions of the kernel that programs may call: the tag that pahole gives them (decl_tag_kfuncs in
# scripts/Makefile.btf), what turns them off, and how they are declared for a loader.
_KFUNC = "bpf_kfunc"
_NO_KFUNCS = "BPF_NO_KFUNC_PROTOTYPES"
_KSYM = '__attribute__((weak, section(".ksyms")))'
# Tags are known to clang since version 14; elsewhere they are left out.
_MACRO = """\
#if !defined({macro}) && defined(__has_attribute)
#if __has_attribute({attribute})
#define {macro}(tag) __attribute__(({attribute}(tag)))
#endif
#endif
#ifndef {macro}
#define {macro}(tag)
#endif"""


def declarations(btf: Btf, roots: Iterable[int], most: int = MAX_TEXT) -> str:
    """C declarations of the types `roots` and of all that they are made of, in dependency order.

    A root may be any type: a struct or union is defined, under a made-up name if it has none; so
    is an enumeration, which needs no name; a typedef is defined with what it stands for; a function
    is a prototype; a variable, or each one of a data section, is `extern`. Of pointers, arrays and
    qualified types there is what they are made of. Structs that are only pointed to are declared,
    and not defined. Void, and tags, are nothing. There is no include guard: that is for who knows
    the file's name.

    Raises `BtfError` for a type that is malformed or that C cannot have, and for declarations of
    about `most` characters.
    """
    writer = _Writer(btf, most)
    for root in roots:
        writer.root(root)
    return writer.written() + writer.end()


def every_declaration(btf: Btf, first: int = 1) -> Iterator[str]:
    """C declarations of all types of a blob from the id `first` on, with what they are made of; in
    small pieces, some of them empty where nothing was to be written for a while.

    These are all types that have a name, and the enumerators that are in none; of functions those
    of the kernel that programs may call, unless BPF_NO_KFUNC_PROTOTYPES is defined, as `bpftool`
    has it. A type that is malformed or that C cannot have, or that alone is longer than MAX_TEXT,
    is a comment that says why; and so are those that it is part of.
    """
    writer = _Writer(btf, MAX_TEXT)
    yield ""  # it took some milliseconds to look for tags
    text, passed = "", 0
    for _ in writer.everything(first):
        text, passed = text + writer.written(), passed + 1
        if len(text) > _PIECE or passed == _TURN:
            yield text
            text, passed = "", 0
    yield text + writer.written() + writer.end()


class _Writer:
    """Declares each type once, after those that it needs."""

    def __init__(self, btf: Btf, most: int) -> None:
        self._btf = btf
        self._types = Types(btf)
        self._layouts = Layouts(self._types)
        self._speller = Speller(btf, self._types, self._layouts, most)
        self._names = self._speller.names
        self._parts: list[str] = []  # not yet taken
        self._previous = ""  # the part before the next one
        self._macros: set[str] = set()  # those that are defined
        self._met: set[int] = set()  # what `need` was called with
        self._lent: set[int] = set()  # structs whose members' needs are declared
        self._declared: set[object] = set()  # type ids; tags and typedefs as they are mentioned
        self._within: list[int] = [0]  # structs that are being defined, the innermost last

    def written(self) -> str:
        """All that was declared since it was last asked for; without the end of its last line."""
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def end(self) -> str:
        """The end of the last line."""
        return "\n" if self._previous else ""

    def _emit(self, part: str) -> None:
        for macro in sorted(self._speller.tags_used - self._macros):
            self._macros.add(macro)
            self._append(_MACRO.format(macro=macro, attribute=macro.strip("_")))
        self._speller.spend(8)
        self._append(part)

    def _append(self, part: str) -> None:
        between = "\n\n" if "\n" in self._previous + part else "\n"
        self._parts.append(f"{between if self._previous else ''}{part}")
        self._previous = part

    def everything(self, first: int) -> Iterator[None]:
        """Declares all types from the id `first` on, one at each turn."""
        for type_id in self._ids(first, *_NAMED):
            self._attempt(type_id, self._named)
            yield
        for type_id in self._ids(first, Kind.ENUM, Kind.ENUM64):  # those in place have been
            self._attempt(type_id, self._nameless)
            yield
        yield from self._kfuncs(first)

    def _ids(self, first: int, *kinds: Kind) -> Iterator[int]:
        return (type_id for type_id in self._btf.of_kind(*kinds) if type_id >= first)

    def _attempt(self, type_id: int, declare: Callable[[int], None]) -> None:
        """Declares a type, or says why it cannot be."""
        self._speller.begin()
        try:
            declare(type_id)
        except BtfError as error:
            del self._within[1:]
            self._append(f"/* type {type_id} cannot be declared: {remark(str(error))} */")

    def _named(self, type_id: int) -> None:
        """Declares a root that has a name; what has none is declared with what it is in."""
        if not self._is_nameless(type_id):
            self.root(type_id)

    def _nameless(self, type_id: int) -> None:
        """Declares a root that has no name."""
        if self._is_nameless(type_id):
            self.root(type_id)

    def _is_nameless(self, type_id: int) -> bool:
        match self._types[type_id]:
            case bpf.Composite(name="") | bpf.Enum(name=""):
                return True
        return False

    def _kfuncs(self, first: int) -> Iterator[None]:
        """Declares the functions that programs may call."""
        ids = [type_id for type_id in self._speller.tagged(_KFUNC) if type_id >= first]
        for type_id in ids:  # what they need is there even where they are not wanted
            self._attempt(type_id, self._parameters)
            yield
        if ids:
            self._append(f"#ifndef {_NO_KFUNCS}")
            for type_id in ids:
                self._attempt(type_id, self._kfunc)
                yield
            self._append("#endif")

    def _parameters(self, type_id: int) -> None:
        function = self._types[type_id]
        if isinstance(function, bpf.Function):
            self._need(function.prototype, whole=False)

    def _kfunc(self, type_id: int) -> None:
        function = self._types[type_id]
        if isinstance(function, bpf.Function):
            declared = self._speller.function(type_id, function, tagged=False)
            self._emit(f"extern {declared} {_KSYM};")

    def root(self, type_id: int) -> None:
        """Declares a root."""
        match self._types[type_id]:
            case bpf.Void() | bpf.DeclTag():
                pass
            case bpf.Function() as function:
                self._function(type_id, function)
            case bpf.Variable() as variable:
                self._variable(type_id, variable)
            case bpf.DataSection() as section:
                self._section(section)
            case bpf.Enum(name=""):
                if not self._speller.in_place(type_id):
                    self._emit(f"{self._speller.enum(type_id)};")
            case _:
                self._need(type_id, whole=self._is_object(type_id), hoist=True)

    def _is_object(self, type_id: int) -> bool:
        """Whether values of the type can be had, and so its size known."""
        below = self._types.below(type_id)
        return not isinstance(below, bpf.Void | bpf.Forward | bpf.Prototype)

    def _need(self, type_id: int, depth: int = 0, *, whole: bool, hoist: bool = False) -> None:
        """Declares what a mention of the type needs; all of its parts where `whole`.

        Where `hoist`, what has no name gets one, for it cannot be written in place.
        """
        key = type_id << 2 | whole << 1 | hoist
        if key in self._met:
            return
        if depth > MAX_DEPTH:
            raise BtfError(f"type {type_id} is nested too deep, or within itself")
        self._need_anew(type_id, depth + 1, whole=whole, hoist=hoist)
        if whole:
            self._layouts.extent(type_id)
        self._met.add(key)

    def _need_anew(self, type_id: int, depth: int, *, whole: bool, hoist: bool) -> None:
        match self._types[type_id]:
            case bpf.Int() | bpf.Float() as number:
                self._number(number)
            case bpf.Enum() as enum:
                if enum.name or (hoist and not self._speller.in_place(type_id)):
                    self._enum(type_id, enum)
            case bpf.Composite() as composite:
                self._composite(type_id, composite, depth, whole=whole, hoist=hoist)
            case bpf.Forward() as forward:
                self._forward(self._names.tag(type_id, forward))
            case bpf.Pointer(target):
                self._need(target, depth, whole=False, hoist=hoist)
            case bpf.Array(element):
                self._need(element, depth, whole=True, hoist=hoist)
                self._layouts.extent(type_id)
            case bpf.Prototype(result, parameters):
                for target in (result, *(target for _name, target in parameters)):
                    self._need(target, depth, whole=False, hoist=True)
            case bpf.Alias(Kind.TYPEDEF, name, target):
                self._typedef(type_id, name, target, depth, whole=whole)
            case bpf.Alias(target=target):
                self._need(target, depth, whole=whole, hoist=hoist)
            case bpf.Void():
                pass
            case _:
                raise BtfError(f"type {type_id} is no type of values")

    def _number(self, number: bpf.Int | bpf.Float) -> None:
        base = base_type(number)
        if not base.definition:
            return
        name = self._names.typedef(base, base.name)
        if name not in self._declared:
            self._declared.add(name)
            self._emit(base_definition(base, name))

    def _enum(self, type_id: int, enum: bpf.Enum) -> None:
        self._names.tag(type_id, enum)
        if type_id not in self._declared:
            self._emit(f"{self._speller.enum(type_id)};")
            self._declared.add(type_id)

    def _composite(
        self, type_id: int, composite: bpf.Composite, depth: int, *, whole: bool, hoist: bool
    ) -> None:
        if not (composite.name or hoist or self._names.has_tag(type_id)):  # written in place
            self._members(composite, depth)
            self._layouts.plan(type_id)
        elif whole or not composite.name:
            self._define(type_id, composite, depth)
        elif type_id != self._within[-1]:
            self._forward(self._names.tag(type_id, composite))

    def _members(self, composite: bpf.Composite, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise BtfError(f"{composite.name} is nested too deep, or within itself")
        for member in composite.members:
            below = self._types.strip(member.type_id)
            lent = self._types[below]
            if member.name or not isinstance(lent, bpf.Composite):
                self._need(member.type_id, depth, whole=True)
            elif below not in self._lent:  # written in place, even where it has a name
                self._members(lent, depth + 1)
                self._layouts.extent(member.type_id)
                self._lent.add(below)

    def _define(self, type_id: int, composite: bpf.Composite, depth: int) -> None:
        if type_id in self._declared:
            return
        tag = self._names.tag(type_id, composite)
        self._within.append(type_id)
        self._members(composite, depth)
        self._within.pop()
        self._layouts.plan(type_id)
        self._emit(f"{self._speller.composite(type_id)};")
        self._declared.update((type_id, tag))

    def _forward(self, tag: str) -> None:
        if tag not in self._declared:
            self._declared.add(tag)
            self._emit(f"{tag};")

    def _typedef(self, type_id: int, name: str, target: int, depth: int, *, whole: bool) -> None:
        self._within.append(type_id)
        self._need(target, depth, whole=False)
        self._within.pop()
        spelled = self._names.typedef((name, target), name)
        if spelled not in self._declared:
            declared = self._speller.declare(target, spelled)
            self._emit(f"typedef {declared}{self._speller.decl_tags(type_id)};")
            self._declared.add(spelled)
        if whole:
            self._need(target, depth, whole=True)

    def _function(self, type_id: int, function: bpf.Function, comment: str = "") -> None:
        if type_id in self._declared:
            return
        self._declared.add(type_id)
        self._need(function.prototype, whole=False)
        self._emit(f"{self._speller.function(type_id, function)};{comment}")

    def _variable(self, type_id: int, variable: bpf.Variable, comment: str = "") -> None:
        if type_id in self._declared:
            return
        self._declared.add(type_id)
        self._need(variable.type_id, whole=self._is_object(variable.type_id))
        name = self._names.linked(type_id, variable.name)
        declared = self._speller.declare(variable.type_id, name)
        self._emit(f"extern {declared}{self._speller.decl_tags(type_id)};{comment}")

    def _section(self, section: bpf.DataSection) -> None:
        for type_id, offset, _size in section.variables:
            comment = f"\t/* {remark(section.name)} + {offset} */"
            self._speller.spend(len(comment))
            match self._types[type_id]:
                case bpf.Variable() as variable:
                    self._variable(type_id, variable, comment)
                case bpf.Function() as function:  # in the sections of kernel symbols
                    self._function(type_id, function, comment)
                case _:
                    raise BtfError(f"{section.name}: type {type_id} is no variable")
