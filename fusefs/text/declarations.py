"""C declarations of BTF types: a header for programs that share a map's types.

    struct flow_key { unsigned int source; unsigned char protocol; };

What is declared has the sizes, offsets and bitfields that BTF tells, for clang on x86-64 and with
`-target bpf`, and is free of warnings under `-Wall -Wextra -std=gnu11`. The rules of what must be
declared before what are those of C; `bpftool btf dump ... format c` is the precedent of the form.
"""

from __future__ import annotations

from collections.abc import Iterable

from fusefs.bpf import btf as bpf
from fusefs.bpf.btf import Btf, BtfError, Kind
from fusefs.text.c_layout import Layouts, Types
from fusefs.text.c_names import remark
from fusefs.text.c_scalars import base_definition, base_type
from fusefs.text.c_spelling import MAX_DEPTH, MAX_TEXT, Speller

__all__ = ["declarations"]

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

    A root may be any type: a struct, union or enum is defined, under a made-up name if it has
    none; a typedef is defined with what it stands for; a function is a prototype; a variable, or
    each one of a data section, is `extern`. Of pointers, arrays and qualified types there is what
    they are made of. Structs that are only pointed to are declared, and not defined. Void, and
    tags, are nothing. There is no include guard: that is for who knows the file's name.

    Raises `BtfError` for a type that is malformed or that C cannot have, and for declarations of
    about `most` characters.
    """
    writer = _Writer(btf, most)
    for root in roots:
        writer.root(root)
    return writer.text()


class _Writer:
    """Declares each type once, after those that it needs."""

    def __init__(self, btf: Btf, most: int) -> None:
        self._types = Types(btf)
        self._layouts = Layouts(self._types)
        self._speller = Speller(btf, self._types, self._layouts, most)
        self._names = self._speller.names
        self._parts: list[str] = []
        self._met: set[tuple[int, bool, bool]] = set()  # what `need` was called with
        self._lent: set[int] = set()  # structs whose members' needs are declared
        self._declared: set[object] = set()  # type ids; tags and typedefs as they are mentioned
        self._within: list[int] = [0]  # structs that are being defined, the innermost last

    def text(self) -> str:
        """All that was declared."""
        macros = [
            _MACRO.format(macro=macro, attribute=macro.strip("_"))
            for macro in sorted(self._speller.tags_used)
        ]
        text = []
        previous = ""
        for part in [*macros, *self._parts]:
            between = "\n\n" if "\n" in previous + part else "\n"
            text.append(f"{between if previous else ''}{part}")
            previous = part
        return "".join([*text, "\n"]) if text else ""

    def _emit(self, part: str) -> None:
        self._speller.spend(8)
        self._parts.append(part)

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
        key = type_id, whole, hoist
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
            self._declared.add(type_id)
            self._emit(f"{self._speller.enum(type_id)};")

    def _composite(
        self, type_id: int, composite: bpf.Composite, depth: int, *, whole: bool, hoist: bool
    ) -> None:
        if not composite.name and not hoist:  # written in place
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
        self._declared.update((type_id, tag))
        self._emit(f"{self._speller.composite(type_id)};")

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
            self._declared.add(spelled)
            declared = self._speller.declare(target, spelled)
            self._emit(f"typedef {declared}{self._speller.decl_tags(type_id)};")
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
